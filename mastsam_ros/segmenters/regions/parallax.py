"""Parallax is not motion: which of the bodies that leave the dominant motion could be at rest after all.

A pixel here is one of the motion layer's cells, 2 x 2 of the picture's.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.flow_fields import led_to
from mastsam_ros.segmenters.regions.dominant_motion import MIN_NOISE, TUNING, EpipolarFlow
from mastsam_ros.segmenters.regions.superpixels import sums_over

SAMPLE = 2
"""Every so many pixels, in x and in y, is looked at."""
BORDER = 0.02
"""Flow is guessed within this share of the width from the border."""
GAP = 7
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
"""A body at rest stays on its epipolar lines: three quarters of it err by less than this share of its motion. Nor is it
beyond all that is at rest, by this share of its motion."""
FAR_SHARE = 0.05
"""Share of what is at rest that may be farther away than the farthest: flow errs."""
DEPTH_STEP = 4
DEPTH_ITERATIONS = 4
FEW_SAMPLES = 56
MIN_TRUST = 0.5
MIN_SAMPLES = 11
"""Bodies with fewer certain samples are not judged."""
VOTE_LIMIT = 1.0
DECAY = 0.95
LIMIT = 8.0
"""Log odds are bounded: about seven clear frames turn a settled decision over."""
SCENE_SHARE = 0.05
"""Bodies smaller than this share of the picture tell less about the scene as a whole."""


def beyond_all(
    lines: EpipolarFlow,
    certain: npt.NDArray[np.bool_],
    bodies: npt.NDArray[np.int32],
    moving: npt.NDArray[np.bool_] | None,
) -> npt.NDArray[np.float32]:
    """(H, W) float32 >= 0, pixels that flow leads along the epipolar lines to beyond the farthest that is at rest.

    What hides others is not behind all of them: it moves on its own, along with the camera, say. Which way is far, the
    picture tells: what is lower in it is nearer, in the mean. Where that is not plain, nothing is beyond.

    certain: (H, W), where the flow can be relied on. bodies: (H, W), what leaves the dominant motion, 0 for the rest;
    what reaches the picture's top may be the background. moving: (H, W), what was known to move on its own, or None.
    """
    height, width = bodies.shape
    nothing = np.zeros((height, width), np.float32)
    cells = (slice(DEPTH_STEP // 2, None, DEPTH_STEP), slice(DEPTH_STEP // 2, None, DEPTH_STEP))
    chosen = certain[cells] if moving is None else certain[cells] & ~moving[cells]
    free = np.zeros(int(bodies.max()) + 1, bool)
    free[0] = free[bodies[0]] = True
    behind = free[bodies[cells][chosen]]
    if np.count_nonzero(behind) < FEW_SAMPLES:
        return nothing
    rows, columns = np.nonzero(chosen)
    reach = lines.reach[cells][chosen].astype(np.float64)
    depth = lines.along[cells][chosen] / reach  # inverse, but for scale, sign and zero
    places = np.stack([np.ones(len(rows)), columns * DEPTH_STEP / width - 0.5, rows * DEPTH_STEP / height - 0.5], 1)
    # What is before the rest may be the ground: where the rest alone does not tell, it is asked, too.
    towards = _nearer_below(places[behind], depth[behind], reach[behind]) or _nearer_below(places, depth, reach)
    if towards == 0:
        return nothing
    farthest = np.percentile(towards * depth[behind], 100 * FAR_SHARE)
    return np.maximum(np.float32(farthest) * lines.reach - np.float32(towards) * lines.along, 0)


def _nearer_below(
    places: npt.NDArray[np.float64], depth: npt.NDArray[np.float64], reach: npt.NDArray[np.float64]
) -> float:
    """1 where inverse depth (N,) plainly grows downwards, -1 where it falls, 0 where neither is plain.

    places: (N, 3), 1, x and y in shares of the picture. reach: (N,), see `EpipolarFlow`.
    """
    robust = np.ones(len(depth))
    for _ in range(DEPTH_ITERATIONS):
        weighted = places * (reach**2 * robust)[:, None]
        plane = np.linalg.solve(weighted.T @ places + 1e-9 * np.eye(3), weighted.T @ depth)
        error = np.abs(depth - places @ plane) * reach
        scatter = max(1.4826 * float(np.median(error)), MIN_NOISE)
        robust = 1 / (1 + (error / (TUNING * scatter)) ** 2) ** 2
    downward = float(plane[2] / 2 * np.sqrt(np.mean(reach**2)))  # pixels over half the picture
    return float(np.sign(downward)) if abs(downward) > scatter else 0.0


class ParallaxGate:
    """Gathers, frame by frame, the log odds that a body is at rest and only near or far.

    A body at rest needs all: a rest of the picture that shows parallax, motion along the epipolar lines of the whole
    scene, and a depth that is not beyond everything else. Each pixel of a body carries its log odds along the flow; a
    new body starts with those of the scene.
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
        beyond: npt.NDArray[np.float32],
        certain: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.bool_]:
        """(count,) bool: which bodies are at rest.

        bodies: (H, W), 1..count, 0 for the rest. flow: (H, W, 2), current -> previous. displacement:
        (H, W), length of what the dominant motion leaves of it. error: (H, W), distance from the
        epipolar lines of the whole scene. beyond: (H, W), see `beyond_all`. certain: (H, W) bool, where the flow can be
        relied on.
        """
        height, width = bodies.shape
        if self._log_odds is None or self._log_odds.shape != bodies.shape:
            self.reset()
            carried = np.zeros((height, width), np.float32)
        else:
            carried = cv2.remap(
                self._log_odds,
                *led_to(flow),
                cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=self._scene,
            )
        sums = sums_over(bodies, np.dstack([carried, np.ones_like(carried)]), count + 1)
        area = sums[:, 1]
        before = sums[:, 0] / np.maximum(area, 1)
        votes = self._votes(bodies, count, displacement, error, beyond, certain)
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
        beyond: npt.NDArray[np.float32],
        certain: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float64]:
        """This frame's log odds of rest for each body, (count,); NaN where nothing can be told.

        Only as much of a body as has certain flow speaks for own motion: what enters at the border, or is blank, has a
        few vectors, and these lean on its surroundings.
        """
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
            if np.median(beyond[cells][seen][members[k]]) > MISFIT * typical[k]:
                votes[k] = -VOTE_LIMIT
        votes = np.clip(votes, -VOTE_LIMIT, VOTE_LIMIT)
        samples = np.bincount(bodies[cells].ravel(), minlength=count + 1)[1:]
        certain_share = np.array([np.count_nonzero(member) for member in members]) / np.maximum(samples, 1)
        return np.where(judged, np.where(votes < 0, votes * certain_share, votes), np.nan)


def certain_pixels(trust: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Pixels (H, W) all of whose neighbourhood has flow to rely on; trust: (H, W) in [0, 1]."""
    margin = round(BORDER * trust.shape[1])
    certain = np.zeros(trust.shape, np.uint8)
    inner = (slice(margin, -margin or None), slice(margin, -margin or None))
    certain[inner] = trust[inner] > MIN_TRUST
    return cv2.erode(certain, np.ones((GAP, GAP), np.uint8)) > 0
