"""How far everything is, from two views of one camera that moved sideways: rectified, and matched along rows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

_BASELINE = 0.09
"""Room between the two views that is looked for, as a share of the distance of what they see..."""
_LEAST_BASELINE = 0.025
"""... and that they must have."""
_SIDEWAYS = 0.6
"""Share of that room that is across the line of sight: views one before the other cannot be rectified."""
_LARGEST_TURN = np.deg2rad(20.0)
_LARGEST_SIZE = 1.6
"""Times the picture's pixels that a rectified view may have."""
_VIEWS = 40
"""Earlier views that are kept."""
_WINDOW = 5
_MOST_DISPARITIES = 64
_NEARER, _FARTHER = 1.4, 0.7
"""Times the inverse depth of the nearest and the farthest thing that is known of, between which is looked."""
_SPECKLE_PX = 60
"""Smaller patches that differ from what is round them are mistaken."""
_NOISE_PX = 0.3
"""Standard deviation of a disparity, pixels."""
_LEAST_KNOWN, _MOST_NOISE = 0.4, 0.04
"""Share of the picture that must be matched, and noise as a share of inverse depth, for any of it to be believed."""


@dataclass(frozen=True, eq=False)
class _View:
    grey: Bytes
    T_world_camera: Doubles


class MotionStereo:
    """Inverse depth of one camera's view from it and the one of the earlier views that lies best.

    Semi-global matching (Hirschmueller, 2008) keeps edges and is exact to a part of a pixel, which flow is not.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets every view."""
        self._views: list[_View] = []

    def update(
        self, grey: Bytes, K: Doubles, T_world_camera: Doubles, near: float, far: float
    ) -> tuple[Floats, float] | None:
        """Inverse depth (H, W) of the next view, 0 where it is not known, and its standard deviation.

        grey: (H, W); K: (3, 3) at that size; T_world_camera: (4, 4); near, far: distances between which things are, in
        the unit of the pose, as the answer. None where no earlier view lies well, or too little agrees with it.
        """
        view = _View(grey, T_world_camera)
        other = self._best(T_world_camera, np.sqrt(near * far))
        self._views = [*self._views[1 - _VIEWS :], view]
        return None if other is None else _measured(view, other, K, _FARTHER / far, _NEARER / near)

    def _best(self, T_world_camera: Doubles, distance: float) -> _View | None:
        best, least = None, np.inf
        for view in reversed(self._views):
            T = np.linalg.inv(view.T_world_camera) @ T_world_camera
            room = float(np.linalg.norm(T[:3, 3]))
            turn = float(np.arccos(np.clip((np.trace(T[:3, :3]) - 1) / 2, -1, 1)))
            if room < _LEAST_BASELINE * distance or turn > _LARGEST_TURN:
                continue
            if np.hypot(T[0, 3], T[1, 3]) < _SIDEWAYS * room:
                continue
            badness = abs(np.log(room / (_BASELINE * distance))) + 2 * turn
            if badness < least:
                best, least = view, badness
        return best


@dataclass(frozen=True, eq=False)
class _Rectified:
    """Two cameras turned so that what one sees lies in the same row, or column, of the other.

    this, that: (3, 3), pixels of the camera's picture from rectified ones. size: columns, rows. across: rows are
    matched, not columns. ahead: the other camera lies to the right, or below. third: (3,), third coordinate of the
    rectified ray of a pixel. scale: pixels of disparity for an inverse depth of 1.
    """

    this: Doubles
    that: Doubles
    size: tuple[int, int]
    across: bool
    ahead: bool
    third: Doubles
    scale: float


def _measured(view: _View, other: _View, K: Doubles, farthest: float, nearest: float) -> tuple[Floats, float] | None:
    """farthest, nearest: inverse depths between which is looked."""
    rectified = _rectified(view, other, K)
    if rectified is None:
        return None
    disparity = _disparity(view.grey, other.grey, rectified, farthest, nearest)
    height, width = view.grey.shape
    # `this` leads from rectified pixels to the picture's.
    seen = cv2.warpPerspective(disparity, rectified.this, (width, height), flags=cv2.INTER_NEAREST)
    disparity = np.asarray(seen, np.float32)
    a, b, c = rectified.third
    u, v = np.arange(width), np.arange(height)[:, None]
    w = (disparity * ((a * u + (b * v + c)) / rectified.scale)).astype(np.float32)
    known, noise = w > 0, _NOISE_PX / rectified.scale
    if np.count_nonzero(known) < _LEAST_KNOWN * w.size or noise > _MOST_NOISE * np.median(w[known]):
        return None
    return w, noise


def _rectified(view: _View, other: _View, K: Doubles) -> _Rectified | None:
    height, width = view.grey.shape
    T = np.linalg.inv(other.T_world_camera) @ view.T_world_camera
    centre = -T[:3, :3].T @ T[:3, 3]  # of the other camera, in this one
    baseline = float(np.linalg.norm(centre))
    across = bool(abs(centre[0]) >= abs(centre[1]))
    ahead = bool(centre[0 if across else 1] > 0)
    along = centre / baseline * (1 if ahead else -1)
    forward = np.array([0, 0, 1.0]) + T[2, :3]
    forward -= along * (forward @ along)
    forward /= np.linalg.norm(forward)
    third = np.cross(forward, along)
    R = np.stack([along, third, forward] if across else [-third, along, forward])
    rays = R @ np.linalg.inv(K)
    corners = rays @ np.array([[0, width - 1, width - 1, 0], [0, 0, height - 1, height - 1], [1, 1, 1, 1]])
    if corners[2].min() < 0.2:
        return None
    corners = corners[:2] / corners[2] * np.array([[K[0, 0]], [K[1, 1]]])
    low = corners.min(axis=1)
    columns, rows = (int(n) for n in np.ceil(corners.max(axis=1) - low) + 1)
    if columns * rows > _LARGEST_SIZE * width * height:
        return None
    inverse = np.linalg.inv([[K[0, 0], 0, -low[0]], [0, K[1, 1], -low[1]], [0, 0, 1]])
    this, that = K @ R.T @ inverse, K @ T[:3, :3] @ R.T @ inverse
    scale = float(K[0, 0] if across else K[1, 1]) * baseline
    return _Rectified(this, that, (columns, rows), across, ahead, rays[2], scale)


def _disparity(grey: Bytes, other: Bytes, rectified: _Rectified, farthest: float, nearest: float) -> Floats:
    """(rows, columns) of the rectified view, pixels; 0 where nothing is known."""
    across, ahead, (columns, rows) = rectified.across, rectified.ahead, rectified.size
    least = int(rectified.scale * farthest)
    number = int(np.clip(16 * np.ceil((rectified.scale * nearest - least) / 16), 16, _MOST_DISPARITIES))
    # The matcher says nothing of as many pixels at the side as there are disparities.
    margin = least + number
    before = margin if ahead else 0
    shift = np.eye(3)
    shift[0 if across else 1, 2] = -before
    size = (columns + margin, rows) if across else (columns, rows + margin)

    def warped(image: Bytes, H: Doubles) -> Bytes:
        flat = cv2.warpPerspective(image, H @ shift, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        flat = flat if across else flat.T
        return np.ascontiguousarray(flat if ahead else flat[:, ::-1], np.uint8)

    area = _WINDOW * _WINDOW
    matcher = cv2.StereoSGBM.create(
        least,
        number,
        _WINDOW,
        P1=8 * area,
        P2=32 * area,
        disp12MaxDiff=1,
        uniquenessRatio=5,
        preFilterCap=31,
        mode=cv2.StereoSGBM_MODE_SGBM_3WAY,
    )
    fixed = matcher.compute(warped(grey, rectified.this), warped(other, rectified.that))
    cv2.filterSpeckles(fixed, 0, _SPECKLE_PX, 16)
    disparity = np.where(fixed > 16 * least, fixed, 0).astype(np.float32) / 16
    # What the other view does not show cannot have been found there.
    inside = warped(np.full(other.shape, 255, np.uint8), rectified.that) == 255
    place = np.arange(disparity.shape[1]) - np.rint(disparity).astype(np.int64)
    disparity[(place < 0) | ~np.take_along_axis(inside, place.clip(0), 1)] = 0
    disparity = disparity if ahead else disparity[:, ::-1]
    disparity = disparity[:, before : before + columns] if across else disparity.T[before : before + rows]
    return np.ascontiguousarray(disparity)
