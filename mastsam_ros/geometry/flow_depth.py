"""How far everything is, from views of a camera whose motion is known, by dense flow and stereo: a place at rest."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

GRID = 2
"""Every so many pixels, in x and in y, depth is measured."""
_BASELINE = 0.12
"""Room between a view and its reference, as a share of the distance of what they see, with which the next reference
takes over."""
_LEAST_BASELINE = 0.02
_LEFT = 0.3
"""Share of the view that must be followed to the reference; below, the next one takes over."""
_FLOW_NOISE_PX = 0.3
"""Standard deviation of flow from frame to frame, pixels; over several it adds up."""
_BIAS = 0.02
"""Flow is smooth: next to other things depth is off by some such share of it, however long it is watched."""
_STEREO_BIAS = 0.007
"""... and what stereo says, which keeps edges, by so much."""
_ALONE = 0.12
"""Share by which stereo may be off where nothing that was known before agrees with it..."""
_AGREES = 3.0
"""... to so many standard deviations."""
_MISFIT_PX, _MISFIT = 1.0, 0.05
"""Flow farther than this, and this share of its length, from its epipolar line is wrong, or of what moves by itself."""
_STRAY = 9
"""Pixels that must be so to all sides for stereo not to be asked there either."""
_GROWTH = 0.02
"""What inverse depth loses in certainty from frame to frame, as a share of it."""
_UNSURE = 0.5
"""Share of itself by which inverse depth is off where nothing was measured."""
_NEAREST, _FARTHEST = 0.1, 20.0
"""Times the distance of what is seen."""


@dataclass(frozen=True, eq=False)
class InverseDepth:
    """What is seen at every `GRID`-th pixel of a picture. w: (h, w) float32, 1 / depth in the unit of the poses.

    sigma: (h, w) float32, its standard deviation. K: (3, 3) intrinsics for that size.
    """

    w: Floats
    sigma: Floats
    K: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Reference:
    """An earlier view: its pose, and where what is seen now is in it: xy (h, w, 2) pixels, followed (h, w) bool, by so
    many `steps` of flow."""

    T: npt.NDArray[np.float64]
    xy: Floats
    followed: npt.NDArray[np.uint8]
    steps: int


class FlowDepth:
    """Inverse depth of one camera's view, measured anew in each frame and carried from frame to frame.

    Flow from frame to frame is chained to a reference: the farther the camera has moved since, the more exact is what
    it tells. While one reference is used, the next one gathers room.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets every view."""
        self._references: list[_Reference] = []
        self._last: InverseDepth | None = None
        self._T = np.eye(4)
        self._strays = np.zeros((0, 0), bool)

    @property
    def distance(self) -> float | None:
        """Median distance of what the last frame showed, None where nothing was measured."""
        return None if self._last is None else 1 / float(np.median(self._last.w))

    def update(
        self,
        K: npt.NDArray[np.float64],
        T_world_camera: npt.NDArray[np.float64],
        distance: float,
        flow_back: Floats | None,
        visible: npt.NDArray[np.bool_] | None,
        size: tuple[int, int],
        stereo: tuple[Floats, float] | None = None,
    ) -> InverseDepth | None:
        """The inverse depth of a frame; None where the camera has not moved enough yet.

        K: (3, 3). distance: a typical one of what is seen, in the unit of the pose. flow_back: (H, W, 2) pixels,
        current -> the frame of the last call, None if that is not the frame before; visible: (H, W), where it holds.
        size: (height, width) of the frame. stereo: inverse depth (h, w), 0 where it is not known, and its standard
        deviation, of every `GRID`-th pixel.
        """
        if flow_back is None:
            self.reset()
        else:
            self._follow(flow_back[::GRID, ::GRID], visible)
        K = np.diag([1 / GRID, 1 / GRID, 1]) @ K
        predicted = None if flow_back is None else self._predicted(T_world_camera, flow_back[::GRID, ::GRID], K)
        if predicted is not None and visible is not None:
            # What was hidden before has no past; flow there is that of what hid it.
            hidden = ~visible[::GRID, ::GRID]
            predicted.sigma[hidden] = _UNSURE * predicted.w[hidden]
        self._choose(T_world_camera, distance, size)
        self._strays = np.zeros((-(-size[0] // GRID), -(-size[1] // GRID)), bool)
        measured = self._measured(T_world_camera, K, distance)
        self._T = T_world_camera
        if predicted is None or measured is None:
            self._last = predicted if measured is None else measured
        else:
            sure, new = 1 / predicted.sigma**2, 1 / measured.sigma**2
            w = np.asarray((predicted.w * sure + measured.w * new) / (sure + new), np.float32)
            self._last = InverseDepth(w, np.maximum(1 / np.sqrt(sure + new), np.float32(_BIAS) * w), K)
        if self._last is not None and stereo is not None:
            w, noise = stereo
            self._last = _with_stereo(self._last, predicted, np.where(self._strays, 0, w), noise)
        return self._last

    def _follow(self, back: Floats, visible: npt.NDArray[np.bool_] | None) -> None:
        """Brings what is known of the references to the new frame."""
        height, width = back.shape[:2]
        x, y = _grid(height, width)
        x, y = x + back[..., 0] / GRID, y + back[..., 1] / GRID
        there = np.ones((height, width), np.uint8) if visible is None else visible[::GRID, ::GRID].astype(np.uint8)
        self._references = [
            _Reference(
                old.T,
                np.asarray(cv2.remap(old.xy, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32),
                there & cv2.remap(old.followed, x, y, cv2.INTER_NEAREST, borderValue=0),
                old.steps + 1,
            )
            for old in self._references
        ]

    def _choose(self, T: npt.NDArray[np.float64], distance: float, size: tuple[int, int]) -> None:
        """Lets the next reference take over where the first is worn out, and begins another one half-way."""
        if len(self._references) > 1:
            first, second = self._references
            # What is at rest for too long to be followed gives way only to what has some room as well.
            enough = _room(second, T) > _LEAST_BASELINE * distance
            if enough and (_room(first, T) > _BASELINE * distance or first.followed.mean() < _LEFT):
                self._references = [second]
        half = bool(self._references) and _room(self._references[0], T) > 0.5 * _BASELINE * distance
        if len(self._references) < 2 and (not self._references or half):
            height, width = -(-size[0] // GRID), -(-size[1] // GRID)
            x, y = _grid(height, width)
            self._references.append(_Reference(T, np.dstack([x, y]) * GRID, np.ones((height, width), np.uint8), 0))

    def _predicted(
        self, T_world_camera: npt.NDArray[np.float64], back: Floats, K: npt.NDArray[np.float64]
    ) -> InverseDepth | None:
        """What the last frame's inverse depth says about this one: moved along the flow, and by the camera's motion."""
        last = self._last
        if last is None:
            return None
        height, width = back.shape[:2]
        x, y = _grid(height, width)
        x, y = x + back[..., 0] / GRID, y + back[..., 1] / GRID
        w, sigma = (cv2.remap(v, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for v in (last.w, last.sigma))
        # z of the place in this camera, over z in the last one.
        T = (np.linalg.inv(T_world_camera) @ self._T).astype(np.float32)
        ray_x, ray_y = (x - np.float32(K[0, 2])) / np.float32(K[0, 0]), (y - np.float32(K[1, 2])) / np.float32(K[1, 1])
        ratio = T[2, 0] * ray_x + T[2, 1] * ray_y + T[2, 2] + T[2, 3] * w
        w = w / np.maximum(ratio, np.float32(0.1))
        sigma = _together(sigma, np.float32(_GROWTH) * w)
        outside = (x < 0) | (y < 0) | (x > width - 1) | (y > height - 1)
        sigma[outside] = _UNSURE * w[outside]
        return InverseDepth(w, sigma, K)

    def _measured(
        self, T_world_camera: npt.NDArray[np.float64], K: npt.NDArray[np.float64], distance: float
    ) -> InverseDepth | None:
        """What flow to the reference says: the place on each pixel's epipolar line nearest to where flow leads."""
        reference = self._references[0]
        if _room(reference, T_world_camera) < _LEAST_BASELINE * distance:
            return None
        T = np.linalg.inv(reference.T) @ T_world_camera
        height, width = reference.followed.shape
        u, v = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        H: Floats = (K @ T[:3, :3] @ np.linalg.inv(K)).astype(np.float32)
        s: Floats = (K @ T[:3, 3]).astype(np.float32)
        ax, ay, az = (h[0] * u + (h[1] * v + h[2]) for h in H)
        x, y = reference.xy[..., 0] / GRID, reference.xy[..., 1] / GRID
        # A place of inverse depth w is seen at ((ax, ay) + w (sx, sy)) / (az + w sz).
        dx, dy = s[0] - x * s[2], s[1] - y * s[2]
        bx, by = x * az - ax, y * az - ay
        squared = np.maximum(dx * dx + dy * dy, 1e-9)
        w = (dx * bx + dy * by) / squared
        per_pixel = np.abs(az) / np.sqrt(squared)
        misfit = np.abs(dx * by - dy * bx) / np.sqrt(squared) / np.abs(az)
        limit = _MISFIT_PX / GRID + _MISFIT * np.abs(w) / per_pixel
        good = misfit < limit
        # Narrower ones are outlines, where flow is wrong.
        astray = ((misfit > 2 * limit) & (reference.followed > 0)).astype(np.uint8)
        self._strays = cv2.morphologyEx(astray, cv2.MORPH_OPEN, np.ones((_STRAY, _STRAY), np.uint8)) > 0
        good &= (reference.followed > 0) & (w > 1 / (_FARTHEST * distance)) & (w < 1 / (_NEAREST * distance))
        noise = _FLOW_NOISE_PX * np.sqrt(np.float32(reference.steps)) / GRID
        w = np.where(good, w, 1 / distance).astype(np.float32)
        sigma = _together((noise * per_pixel).astype(np.float32), np.float32(_BIAS) * w)
        return InverseDepth(w, np.where(good, sigma, _UNSURE * w).astype(np.float32), K)


def _with_stereo(known: InverseDepth, predicted: InverseDepth | None, stereo: Floats, noise: float) -> InverseDepth:
    """What stereo says, surer where it was predicted so; what is known otherwise where it says nothing."""
    w, sigma = stereo, np.float32(_ALONE) * stereo
    if predicted is not None:
        sure, new = 1 / predicted.sigma**2, 1 / (noise**2 + (np.float32(_STEREO_BIAS) * stereo) ** 2)
        agree = (stereo - predicted.w) ** 2 < _AGREES**2 * (1 / sure + 1 / new)
        agree &= predicted.sigma < 2 * _ALONE * predicted.w
        w = np.where(agree, (predicted.w * sure + stereo * new) / (sure + new), stereo)
        sigma = np.where(agree, np.maximum(1 / np.sqrt(sure + new), np.float32(_STEREO_BIAS) * w), sigma)
    said = stereo > 0
    w, sigma = np.where(said, w, known.w), np.where(said, sigma, known.sigma)
    return InverseDepth(np.asarray(w, np.float32), np.asarray(sigma, np.float32), known.K)


def _together(first: Floats, second: Floats) -> Floats:
    """Standard deviation of the sum of two independent errors."""
    return np.asarray(np.sqrt(first * first + second * second), np.float32)


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x, y


def _room(reference: _Reference, T: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(reference.T[:3, 3] - T[:3, 3]))
