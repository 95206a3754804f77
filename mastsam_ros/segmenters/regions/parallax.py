"""Parallax is not motion: which of the bodies that leave the dominant motion could be at rest after all."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.segmenters.regions.dominant_motion import MIN_NOISE

SAMPLE = 3
"""Every so many pixels, in x and in y, is looked at."""
BORDER = 0.02
"""Flow is guessed within this share of the width from the border."""
GAP = 15
"""Pixels round the bodies that belong neither to them nor to the rest: there the flow is blurred."""
SPREAD = 0.07
"""In a scene at rest the rest of the picture shows parallax too: a tenth of it moves, beyond the dominant
motion, at least this share of what the body moves. Behind a body that moves on its own it is less."""
ALIGNMENT = 0.4
"""Parallax leaves the rest on its epipolar lines: what errs across them is at most this share of what the
dominant motion leaves. Noise, and a model that bends to it, make 0.5 to 0.7."""
ALIGNMENT_WEIGHT = 3.0
"""... so little a range that it has to weigh more than the spread, which goes from 0.01 to 1."""
MISFIT = 0.15
"""A body at rest stays on its epipolar lines: three quarters of it err by less than this share of its motion."""
MIN_TRUST = 0.5
MIN_SAMPLES = 20
"""Bodies with fewer certain samples are not judged."""
VOTE_LIMIT = 1.0
DECAY = 0.95
LIMIT = 8.0
"""Log odds are bounded: about seven clear frames turn a settled decision over."""
SCENE_SHARE = 0.05
"""Bodies smaller than this share of the picture tell less about the scene as a whole."""


class ParallaxGate:
    """Gathers, frame by frame, the log odds that a body is at rest and only near or far.

    A body at rest needs both: a rest of the picture that shows parallax, and motion along the
    epipolar lines of the whole scene. Each pixel of a body carries its log odds along the flow; a new
    body starts with those of the scene.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._log_odds: npt.NDArray[np.float32] | None = None
        self._scene = 0.0

    @property
    def shows_parallax(self) -> bool:
        """Whether the scene as a whole has shown parallax."""
        return self._scene > 0

    def at_rest(
        self,
        bodies: npt.NDArray[np.int32],
        count: int,
        flow: npt.NDArray[np.float32],
        displacement: npt.NDArray[np.float32],
        error: npt.NDArray[np.float32],
        certain: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.bool_]:
        """(count,) bool: which bodies are at rest.

        bodies: (H, W), 1..count, 0 for the rest. flow: (H, W, 2), current -> previous. displacement:
        (H, W), length of what the dominant motion leaves of it. error: (H, W), distance from the
        epipolar lines of the whole scene. certain: (H, W) bool, where the flow can be relied on.
        """
        height, width = bodies.shape
        if self._log_odds is None or self._log_odds.shape != bodies.shape:
            self.reset()
            carried = np.zeros((height, width), np.float32)
        else:
            x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
            carried = cv2.remap(
                self._log_odds,
                x + flow[..., 0],
                y + flow[..., 1],
                cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=self._scene,
            )
        area = np.bincount(bodies.ravel(), minlength=count + 1)
        before = np.bincount(bodies.ravel(), carried.ravel(), count + 1) / np.maximum(area, 1)
        votes = self._votes(bodies, count, displacement, error, certain)
        # A body too thin or too blank to tell follows the scene.
        after = np.where(np.isnan(votes), self._scene + DECAY * (before[1:] - self._scene), DECAY * before[1:] + votes)
        after = np.clip(after, -LIMIT, LIMIT)
        if count:
            share = min(1, area[1:].sum() / (SCENE_SHARE * bodies.size))
            self._scene += share * (float(np.average(after, weights=area[1:])) - self._scene)
        self._log_odds = np.append(self._scene, after).astype(np.float32).take(bodies)
        return after > 0

    def _votes(
        self,
        bodies: npt.NDArray[np.int32],
        count: int,
        displacement: npt.NDArray[np.float32],
        error: npt.NDArray[np.float32],
        certain: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float64]:
        """This frame's log odds of rest for each body, (count,); NaN where nothing can be told."""
        votes = np.full(count, np.nan)
        if not count:
            return votes
        near = cv2.dilate((bodies > 0).astype(np.uint8), np.ones((GAP, GAP), np.uint8))
        cells = (slice(None, None, SAMPLE), slice(None, None, SAMPLE))
        seen = certain[cells]
        body, rest = bodies[cells][seen], near[cells][seen] == 0
        size, misfit = displacement[cells][seen], error[cells][seen]
        if np.count_nonzero(rest) <= 0.1 * len(rest):
            return votes
        spread = np.percentile(size[rest], 90)
        members = [body == k for k in range(1, count + 1)]
        judged = np.array([np.count_nonzero(member) >= MIN_SAMPLES for member in members])
        typical = np.array([max(np.median(size[member]), MIN_NOISE) if member.any() else 1 for member in members])
        votes = np.log(max(spread, MIN_NOISE) / typical / SPREAD)
        noise = np.percentile(misfit[rest], 75)
        # Below the noise of any flow nothing is aligned with anything: a camera at rest shows no parallax.
        across = max(noise, MIN_NOISE / 2) / max(np.percentile(size[rest], 75), MIN_NOISE)
        votes += ALIGNMENT_WEIGHT * np.log(ALIGNMENT / across)
        for k in np.flatnonzero(judged):
            excess = max(np.percentile(misfit[members[k]], 75) - noise, 1e-3) / typical[k]
            votes[k] = min(votes[k], np.log(MISFIT / excess))
        return np.where(judged, np.clip(votes, -VOTE_LIMIT, VOTE_LIMIT), np.nan)


def certain_pixels(trust: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Pixels (H, W) all of whose neighbourhood has flow to rely on; trust: (H, W) in [0, 1]."""
    margin = round(BORDER * trust.shape[1])
    certain = np.zeros(trust.shape, np.uint8)
    inner = (slice(margin, -margin or None), slice(margin, -margin or None))
    certain[inner] = trust[inner] > MIN_TRUST
    return cv2.erode(certain, np.ones((GAP, GAP), np.uint8)) > 0
