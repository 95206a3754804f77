"""Things that somebody moved while nobody looked: their old place is seen empty, and they are looked for elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.geometry.instance_map import InstanceMap
from mastsam_ros.geometry.odometry import Keyframe
from mastsam_ros.tracker.revival import COLOUR_FLOOR, jensen_shannon

_FEWEST_VOXELS = 20
"""Fewer voxels show neither size nor colours."""
_FEWEST_VIEWS = 3
_LARGEST_M = 1.0
"""What is larger nobody carries about."""
_SIZE_RATIO = 1.6
"""Lengths may differ by this factor: a thing is seen from one side before, and from another after."""
_COLOUR = 0.15
"""Largest Jensen-Shannon divergence of the colours."""
_ONLY = 1.5
"""The second most similar thing must differ by so much more, or nobody knows which one it is."""
_EMPTY_SHARE = 0.5
_EMPTY_M = 0.04
"""An earlier view sees through a place if it sees this much farther."""


@dataclass(frozen=True, eq=False)
class Likeness:
    """What the map has of one instance. size: (3,) metres along its main axes, longest first. mean: (3,) and
    covariance: (3, 3) of its colours, grey levels."""

    size: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]

    @staticmethod
    def of(map: InstanceMap, id: int) -> Likeness | None:
        """Of one id, None where the map has too little of it."""
        mine = map.voxels.instance == id
        if mine.sum() < _FEWEST_VOXELS:
            return None
        xyz, rgb = map.voxels.xyz[mine].astype(np.float64), map.voxels.rgb[mine].astype(np.float64)
        xyz -= xyz.mean(axis=0)
        axes = np.linalg.eigh(xyz.T @ xyz)[1][:, ::-1]
        low, high = np.percentile(xyz @ axes, [5, 95], axis=0)
        covariance = np.cov(rgb.T) + COLOUR_FLOOR * np.eye(3)
        return Likeness(np.sort(high - low)[::-1] + map.settings.map_voxel_m, rgb.mean(axis=0), covariance)

    def difference(self, other: Likeness) -> float:
        """0 for equal things, 1 for the most that one thing can differ from view to view, infinity beyond."""
        ratio = float(np.abs(np.log(self.size / other.size)).max() / np.log(_SIZE_RATIO))
        mean, covariance, other_mean, other_covariance = (
            torch.from_numpy(a) for a in (self.mean, self.covariance, other.mean, other.covariance)
        )
        colour = float(jensen_shannon(mean, covariance, other_mean, other_covariance)) / _COLOUR
        worst = max(ratio, colour)
        return worst if worst < 1 else np.inf


class Departed:
    """What lost things were like, and which of them are gone from where they were."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._was: dict[int, tuple[Likeness, int]] = {}
        """Of lost ids, and the frame in which they were last seen."""
        self._gone: set[int] = set()
        self._unlike: dict[int, int] = {}
        """Of lost ids that are too small or too large, how many voxels they had."""

    def keep_only(self, lost: Set[int]) -> None:
        """Drops ids that are not lost any more."""
        self._was = {id: was for id, was in self._was.items() if id in lost}
        self._gone &= self._was.keys()
        self._unlike = {id: voxels for id, voxels in self._unlike.items() if id in lost}

    def update(self, map: InstanceMap, lost: Mapping[int, int], empty: Set[int]) -> None:
        """lost: every lost id, and the frame that last showed it; empty: those whose place is in view and empty."""
        new = (lost.keys() - self._was.keys()) & map.instances.keys()
        voxels = np.bincount(map.voxels.instance, minlength=max(new, default=0) + 1)
        for id in new:
            # Voxels change places, but none changes hands without a change of number.
            if self._unlike.get(id) == voxels[id]:
                continue
            like = Likeness.of(map, id)
            if like is not None and like.size[0] < _LARGEST_M:
                self._was[id] = (like, lost[id])
            else:
                self._unlike[id] = int(voxels[id])
        self._gone |= empty & self._was.keys()

    def elsewhere(
        self, map: InstanceMap, born: Mapping[int, int], keyframes: Sequence[Keyframe], K: npt.NDArray[np.float64]
    ) -> dict[int, tuple[int, float]]:
        """Ids in view that are a thing which is gone from its place: id -> (old id, evidence in [0, 1]).

        born: id in view -> frame of its birth, after the other was last seen. They look alike and have its size,
        nothing else does nearly as much, and one of the keyframes, where there are any, saw their place empty.
        """
        first = min((self._was[id][1] for id in self._gone), default=None)
        if first is None:
            return {}
        young = [id for id, at in born.items() if at >= first]
        new = {}
        for id in young:
            known = map.instances.get(id)
            like = Likeness.of(map, id) if known is not None and known.views >= _FEWEST_VIEWS else None
            if like is not None:
                new[id] = like
        gone = sorted(self._gone)
        table = np.array(
            [
                [
                    like.difference(self._was[old][0]) if born[id] >= self._was[old][1] else np.inf
                    for id, like in new.items()
                ]
                for old in gone
            ]
        )
        result: dict[int, tuple[int, float]] = {}
        if not table.size:
            return result
        for row, old in enumerate(gone):
            column = int(np.argmin(table[row]))
            best = table[row, column]
            others = np.concatenate([np.delete(table[row], column), np.delete(table[:, column], row)])
            if not np.isfinite(best) or (len(others) and others.min() < _ONLY * best):
                continue
            id = list(new)[column]
            if _was_empty(map.voxels.xyz[map.voxels.instance == id], keyframes, K):
                result[id] = (old, float(1 - best / 2))
        return result


def _was_empty(points: npt.NDArray[np.float32], keyframes: Sequence[Keyframe], K: npt.NDArray[np.float64]) -> bool:
    """Whether one of the keyframes sees through where the points (N, 3) are; True if there is no keyframe to ask."""
    for keyframe in keyframes:
        T = np.linalg.inv(keyframe.T_world_camera)
        x, y, z = (points @ T[:3, :3].T + T[:3, 3]).T
        ahead = z > 0.05
        column = np.rint(x[ahead] / z[ahead] * K[0, 0] + K[0, 2])
        row = np.rint(y[ahead] / z[ahead] * K[1, 1] + K[1, 2])
        height, width = keyframe.depth.shape
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        depth = keyframe.depth[row[inside].astype(np.int64), column[inside].astype(np.int64)]
        if (depth > z[ahead][inside] + _EMPTY_M).sum() > _EMPTY_SHARE * len(points):
            return True
    return not keyframes
