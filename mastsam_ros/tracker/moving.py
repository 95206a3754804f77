"""Which tracks move on their own: their flow and depth disagree with what the camera's motion alone would do."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import numpy.typing as npt

from mastsam_ros.device import on_host, upload
from mastsam_ros.geometry.depth_noise import inverse_depth_noise, inverse_of
from mastsam_ros.types import Frame, Matches

_MOVES_PX, _MOVES_SHARE = 2.0, 0.1
"""A track's median flow may be off that of the scene at rest by this much, and by this share of the latter."""
_MOVES_SIGMAS = 4.0
_LEAST_NOISE = 1e-3
"""Noise of inverse depth, 1/m, that is reckoned with at least: places are found to a pixel."""
_FEWEST = 6
"""Pixels with flow that tell whether a track moves."""
_FOUND_MOVING, _SURE, _MOST = 2, 4, 6
"""What one frame of motion adds to a track's score, from where on it is sure to move, and the most that it can have:
every frame at rest takes one away."""


class MovingTracks:
    """A score per track: 0 at rest. One frame of motion keeps a track out of the map for a moment, two throw it out."""

    def __init__(self) -> None:
        self._score: dict[int, int] = {}

    def reset(self) -> None:
        """Forgets every track."""
        self._score = {}

    @property
    def ids(self) -> set[int]:
        """Tracks that moved lately."""
        return {id for id, score in self._score.items() if score}

    def update(
        self,
        owners: npt.NDArray[np.int32],
        motion: npt.NDArray[np.float32],
        flowing: npt.NDArray[np.bool_],
        known: Set[int],
    ) -> tuple[set[int], set[int]]:
        """Tracks that are not to enter the map now, and those whose voxels are to leave it.

        owners: (N,) the track of each pixel, 0 = none. motion: (N, 3) as `own_motion` gives it, where flowing (N,).
        known: ids that the map has; a new one waits until it was seen at rest.
        """
        out, leaving = set(), set()
        count = np.bincount(owners[flowing], minlength=int(owners.max(initial=0)) + 1)
        for id in np.unique(owners[owners > 0]).tolist():
            score = self._score.get(id, 0)
            if count[id] < _FEWEST:
                if score or id not in known:
                    out.add(id)
                continue
            median = np.median(motion[flowing & (owners == id)], axis=0)
            moves = float(np.abs(median).max()) > 1
            self._score[id] = min(_MOST, score + _FOUND_MOVING) if moves else max(0, score - 1)
            if self._score[id]:
                out.add(id)
            if moves and self._score[id] >= _SURE:
                leaving.add(id)
        return out, leaving

    def keep_only(self, ids: Set[int]) -> None:
        """Drops tracks that no longer exist, and those at rest."""
        self._score = {id: score for id, score in self._score.items() if score and id in ids}


def off_moving(matches: Matches | None, owners: npt.NDArray[np.uint16] | None, moving: Set[int]) -> Matches | None:
    """The matches that do not start on the tracks `moving`, for the camera's motion; all where none of them moves.

    owners: (H, W) the track of each pixel of the previous view.
    """
    if matches is None or owners is None or not moving or len(matches) == 0:
        return matches
    height, width = owners.shape
    x, y = np.rint(on_host(matches.xy0)[0]).astype(np.int64).T
    on = np.isin(owners, list(moving))[y.clip(0, height - 1), x.clip(0, width - 1)]
    rest = upload(np.flatnonzero(~on), matches.xy0.device)
    return Matches(matches.xy0[rest], matches.xy1[rest], matches.confidence[rest])


def own_motion(
    points: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    before: Frame,
    T_world_before: npt.NDArray[np.float64],
    matches: Matches | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """How far places moved on their own since the previous view, and of which of them this is known.

    points: (N, 3) in the world, of pixels at rows, columns (N,). Returns (N, 3): what the flow is off in x and y, and
    the inverse depth, each in units of what is still at rest; (N,) bool, False where there is no flow or no depth.
    """
    nothing = np.zeros((len(points), 3), np.float32), np.zeros(len(points), bool)
    if matches is None or matches.flow_back is None or before.depth is None or before.K is None:
        return nothing
    flow = on_host(matches.flow_back)[0][rows, columns]
    T: npt.NDArray[np.float32] = np.linalg.inv(T_world_before).astype(np.float32)
    there = points @ T[:3, :3].T + T[:3, 3]
    z = np.maximum(there[:, 2], np.float32(1e-3))
    K = before.K.astype(np.float32)
    led = np.stack([columns, rows], axis=1).astype(np.float32) + flow
    still = np.stack([there[:, 0] / z * K[0, 0] + K[0, 2], there[:, 1] / z * K[1, 1] + K[1, 2]], axis=1)
    height, width = before.depth.shape
    x, y = np.rint(led).astype(np.int64).T
    known = (there[:, 2] > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
    if matches.visible is not None:
        known &= on_host(matches.visible)[0][rows, columns]
    found = np.zeros(len(points), np.float32)
    found[known] = before.depth[y[known], x[known]]
    known &= found > 0
    at_rest = _MOVES_PX + _MOVES_SHARE * np.linalg.norm(still - np.stack([columns, rows], axis=1), axis=1)
    noise = max(_LEAST_NOISE, inverse_depth_noise(inverse_of(before.depth[::4])))
    motion = np.zeros((len(points), 3), np.float32)
    motion[:, :2] = (led - still) / at_rest[:, None]
    motion[:, 2] = (1 / np.maximum(found, 1e-3) - 1 / z) / (_MOVES_SIGMAS * noise)
    return motion, known
