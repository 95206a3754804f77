"""What was seen where: voxels of the world with colour and votes for instance ids, bounded in memory."""

from __future__ import annotations

import enum
from collections.abc import Callable, Set
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from mastsam_ros.geometry.extents import group_extents
from mastsam_ros.geometry.presence import Presence, against, behind_themselves, seen_of_each
from mastsam_ros.geometry.voxels import (
    MOST_VOTES,
    Voxels,
    average,
    gathered,
    keys_of,
    looked_up,
    no_voxels,
    places_of,
    vote,
)
from mastsam_ros.settings import GeometrySettings
from mastsam_ros.types import LabelledCloud

_SEEN_THROUGH_VOTES = 2
_KEPT_SHARE = 0.9
"""Of the largest number of voxels, what stays when old ones are dropped: not every frame has to."""
_VISIBLE_SHARE = 0.5
"""Share of an instance's voxels that must be open to view for it to be missing when it is not found."""
_FEWEST = 10
"""Fewer voxels do not tell where an instance ends."""
_FEWEST_APART = 5
"""... but so few do tell, where none is next to another instance's, that there is room between the two."""
_TOUCHING, _NEXT = 0.03, 1.75
"""Share of an instance's voxels that may be wrong, and voxel sizes between the centres of neighbours, at most."""
_MOSTLY = 0.5
"""Share of an instance's voxels next to another's from which on it may be a piece of that one's surface."""
_AROUND, _FLAT, _OFF = 4.0, 0.3, 0.75
"""Voxel sizes within which what surrounds a few voxels is looked at; how flat it must be, and how far off its plane
most of them, to be something that stands on it."""


class Separation(enum.Enum):
    """How far two ids are known to be two things."""

    UNKNOWN = "unknown"
    TOUCHING = "touching"
    """Each has a body of its own."""
    APART = "apart"
    """There is room between them."""


@dataclass
class Instance:
    """One instance of the map: frames in which it was seen, and the last of them."""

    views: int
    last_seen: int


class InstanceMap:
    """Voxels that vote for ids (Boyer and Moore: one candidate and its lead per voxel), in world coordinates."""

    def __init__(self, settings: GeometrySettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.voxels = no_voxels()
        self.instances: dict[int, Instance] = {}

    def __len__(self) -> int:
        return len(self.voxels)

    def observe(
        self,
        points: npt.NDArray[np.float32],
        instance: npt.NDArray[np.int32],
        rgb: npt.NDArray[np.uint8],
        frame: int,
        keys: npt.NDArray[np.int64] | None = None,
        order: npt.NDArray[np.int64] | None = None,
    ) -> Voxels:
        """Adds what one frame shows: points (N, 3) in the world, their ids (N,) > 0 and colours (N, 3).

        In each voxel the frame has one vote, for the id that most of its points there have. keys: (N,) of the voxels
        that they belong to, None for those in which they lie. order: (M,) the points to add, by rising keys, None for
        all. Returns these voxels.
        """
        keys = self._keys(points) if keys is None else keys
        order = np.argsort(keys, kind="stable") if order is None else order
        key, most, readings, xyz, colour = gathered(order, keys, points, instance, rgb)
        ones = np.ones(len(key), np.int32)
        seen = Voxels(key, most, ones, frame * ones, readings, xyz, colour)
        if not len(seen):
            return seen
        for id in np.unique(seen.instance).tolist():
            known = self.instances.setdefault(id, Instance(0, frame))
            known.views, known.last_seen = known.views + 1, frame
        place = self._find(seen.key)
        old = place >= 0
        self._update(place[old], seen.kept(old))
        self.voxels = self.voxels.joined(seen.kept(~old))
        return seen

    def adopt(self, voxels: Voxels, instances: dict[int, Instance]) -> None:
        """Goes on with the voxels and instances of an earlier run, which were all seen before frame 0."""
        key = self._keys(voxels.xyz)
        key, first = np.unique(key, return_index=True)
        latest = 1 + max((known.last_seen for known in instances.values()), default=0)
        last_seen = (voxels.last_seen[first] - latest).astype(np.int32)
        self.voxels = replace(voxels.taken(first), key=key, last_seen=last_seen)
        self.instances = {id: Instance(known.views, known.last_seen - latest) for id, known in instances.items()}
        self._keep(np.ones(len(key), bool))

    def look_up(self, points: npt.NDArray[np.float32], direction: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Voxel (N,) at each point (N, 3), else one voxel farther or nearer along the direction (N, 3); -1: none."""
        return looked_up(self.voxels.key, points, direction, self.settings.map_voxel_m)

    def keys(self, points: npt.NDArray[np.float32], voxel: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Keys (N,) of what `look_up` found for points (N, 3): voxel (N,); where it found none, of where they lie.

        What lies just before or behind a known surface is that surface, measured with noise.
        """
        keys = self._keys(points)
        found = voxel >= 0
        keys[found] = self.voxels.key[voxel[found]]
        return keys

    def carve(
        self, T_world_camera: npt.NDArray[np.float64], K: npt.NDArray[np.float64], depth: npt.NDArray[np.float32]
    ) -> None:
        """Takes votes from the voxels in view that the depth image (H, W) sees through, and drops those without."""
        points = self._in_camera(slice(None), T_world_camera)
        through = np.flatnonzero(against(points, K, np.ascontiguousarray(depth), 2 * self.settings.map_voxel_m) > 0)
        if len(through):
            self.voxels.votes[through] -= _SEEN_THROUGH_VOTES
            self._keep(self.voxels.votes > 0)

    def forget(self, ids: Set[int]) -> None:
        """Drops the voxels of ids that no longer exist."""
        if ids:
            self._keep(~np.isin(self.voxels.instance, list(ids)))

    def bound(self, centre: npt.NDArray[np.float64]) -> None:
        """Drops voxels too far from the centre (3,), then the longest unseen ones beyond the largest number."""
        away = np.abs(self.voxels.xyz - centre.astype(np.float32))
        if away.max(initial=0) > self.settings.map_radius_m:
            self._keep(away.max(axis=1) <= self.settings.map_radius_m)
        if len(self.voxels) > self.settings.map_voxels:
            order = np.lexsort((self.voxels.votes, self.voxels.last_seen))
            keep = np.ones(len(order), bool)
            keep[order[: len(order) - int(_KEPT_SHARE * self.settings.map_voxels)]] = False
            self._keep(keep)

    def presence(
        self,
        ids: list[int],
        T_world_camera: npt.NDArray[np.float64],
        K: npt.NDArray[np.float64],
        depth: npt.NDArray[np.float32],
    ) -> dict[int, Presence]:
        """Where each id is that has voxels: out of view, hidden by something nearer, in plain view, or gone.

        What its own nearer voxels hide of it does not count: nobody sees all sides of a thing.
        """
        most = max(ids, default=0) + 1
        wanted = np.zeros(max(most, int(self.voxels.instance.max(initial=0)) + 1), bool)
        wanted[ids] = True
        mine = np.flatnonzero(wanted[self.voxels.instance])
        points, instance = self._in_camera(mine, T_world_camera), self.voxels.instance[mine]
        hidden = behind_themselves(points, instance, len(wanted), self.settings.map_voxel_m)
        behind = against(points, K, np.ascontiguousarray(depth), 2 * self.settings.map_voxel_m)
        whole, inside, open_, empty = seen_of_each(instance, hidden, behind, len(wanted))
        result = {}
        for id in ids:
            if whole[id] and inside[id] < _VISIBLE_SHARE * whole[id]:
                result[id] = Presence.OUT_OF_VIEW
            elif whole[id]:
                visible = open_[id] >= _VISIBLE_SHARE * whole[id]
                there = Presence.GONE if empty[id] > _VISIBLE_SHARE * open_[id] else Presence.IN_VIEW
                result[id] = there if visible else Presence.OCCLUDED
        return result

    def separation(self, first: int, second: int) -> Separation:
        """How far two ids are two things: by the distance of the smaller one's voxels from those of the other."""
        a, b = (self.voxels.xyz[self.voxels.instance == id] for id in (first, second))
        small, large = sorted((a, b), key=len)
        if len(small) < _FEWEST_APART or len(large) < _FEWEST:
            return Separation.UNKNOWN
        size = self.settings.map_voxel_m
        # What is outside the smaller one's box, some steps wider, is next to none of it.
        inside = (large > small.min(0) - _AROUND * size) & (large < small.max(0) + _AROUND * size)
        large = large[inside.all(1)]
        near = np.zeros(len(small), bool)
        if len(large):
            # What has none within the bound is infinitely far; a tree that is asked once need not be balanced.
            tree = cKDTree(large, balanced_tree=False, compact_nodes=False)
            near = np.isfinite(tree.query(small, distance_upper_bound=_NEXT * size)[0])
        if near.mean() < _TOUCHING:
            return Separation.APART
        if (len(small) >= _FEWEST and near.mean() < _MOSTLY) or _stands_off(small, large, size):
            return Separation.TOUCHING
        return Separation.UNKNOWN

    def boxes(self, ids: Set[int]) -> dict[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Lower and upper corner (3,) of those of the ids that have enough voxels, in the world, stray ones aside."""
        wanted = np.zeros(1 + max(int(self.voxels.instance.max(initial=0)), *ids, 0), bool)
        wanted[list(ids)] = True
        mine = np.flatnonzero(np.take(wanted, self.voxels.instance))
        of_each = group_extents(self.voxels.xyz.take(mine, axis=0), self.voxels.instance.take(mine), _FEWEST)
        return {id: (low.astype(np.float32), high.astype(np.float32)) for id, (low, _, high) in of_each}

    def merge(self, id: int, into: int) -> None:
        """The voxels of `id` are those of `into` from now on."""
        self.voxels.instance[self.voxels.instance == id] = into
        gone, stays = self.instances.pop(id, None), self.instances.get(into)
        if gone is not None and stays is not None:
            # Parts of one thing are mostly seen in the same frames, which count once; beyond the last frame of the one
            # that was lost first, the other was alone.
            first, last = sorted((stays, gone), key=lambda known: known.last_seen)
            alone = min(last.last_seen - first.last_seen, last.views)
            stays.views, stays.last_seen = max(first.views, last.views - alone) + alone, last.last_seen
        elif gone is not None:
            self.instances[into] = gone

    def renamed(self, instance_of: Callable[[int], int]) -> InstanceMap:
        """The same map with other ids, 0 to leave one out; itself where none changes."""
        table = {id: instance_of(id) for id in self.instances}
        if all(id == instance for id, instance in table.items()):
            return self
        result = InstanceMap(self.settings)
        result.voxels, result.instances = self.voxels.taken(np.arange(len(self.voxels))), dict(self.instances)
        result.forget({id for id, instance in table.items() if not instance})
        # An instance may have lost all its voxels to others.
        look_up = np.arange(1 + max([int(result.voxels.instance.max(initial=0)), *result.instances]))
        look_up[list(result.instances)] = [table[id] for id in result.instances]
        result.voxels.instance[:] = look_up[result.voxels.instance]
        result.instances = {}
        for id, known in self.instances.items():
            if table[id]:
                views, last_seen = known.views, known.last_seen
                if (other := result.instances.get(table[id])) is not None:
                    views, last_seen = max(views, other.views), max(last_seen, other.last_seen)
                result.instances[table[id]] = Instance(views, last_seen)
        return result

    def relabel(self, voxels: npt.NDArray[np.int64], id: int, frame: int) -> None:
        """Says that the voxels at these places are `id`'s, with all the votes that they have."""
        if len(voxels):
            self.voxels.instance[voxels] = id
            self.instances.setdefault(id, Instance(1, frame))
            self._keep(np.ones(len(self.voxels), bool))

    def extents(self) -> dict[int, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        """Per id: position (3,), the median of its voxels in the world, and size (3,), 5th to 95th percentile."""
        of_each = group_extents(self.voxels.xyz, self.voxels.instance)
        return {id: (middle, high - low) for id, (low, middle, high) in of_each}

    def cloud(self) -> LabelledCloud:
        """Its voxels in the world; confidence is the share of the most votes that a voxel can have."""
        voxels = self.voxels
        return LabelledCloud(
            voxels.xyz,
            np.rint(voxels.rgb).clip(0, 255).astype(np.uint8),
            voxels.instance.astype(np.uint32),
            (voxels.votes / MOST_VOTES).astype(np.float32),
        )

    def _keys(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        return keys_of(points, self.settings.map_voxel_m)

    def _find(self, key: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Index of the voxel with each key, -1 where there is none."""
        return places_of(self.voxels.key, key)

    def _update(self, place: npt.NDArray[np.int64], seen: Voxels) -> None:
        """Votes, means and times of the voxels at `place`, which are seen again."""
        voxels = self.voxels
        vote(place, voxels.instance, voxels.votes, seen.instance)
        voxels.last_seen[place] = seen.last_seen
        average(place, voxels.readings, voxels.xyz, voxels.rgb, seen.readings, seen.xyz, seen.rgb)

    def _keep(self, keep: npt.NDArray[np.bool_]) -> None:
        self.voxels = self.voxels.kept(keep)
        present = set(np.unique(self.voxels.instance).tolist())
        self.instances = {id: known for id, known in self.instances.items() if id in present}

    def _in_camera(
        self, index: npt.NDArray[np.int64] | slice, T_world_camera: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float32]:
        T: npt.NDArray[np.float32] = np.linalg.inv(T_world_camera).astype(np.float32)
        return self.voxels.xyz[index] @ T[:3, :3].T + T[:3, 3]


def _stands_off(points: npt.NDArray[np.float32], around: npt.NDArray[np.float32], size: float) -> bool:
    """Whether points (N, 3) lie off the plane of those around them (M, 3), if these are one: size in metres."""
    if len(around) < 2 * _FEWEST:
        return False
    middle = around.mean(axis=0, dtype=np.float64)
    offset = around - middle
    values, axes = np.linalg.eigh(offset.T @ offset / len(around))
    flat = np.sqrt(max(values[0], 0.0)) < _FLAT * size
    return bool(flat and np.median(np.abs((points - middle) @ axes[:, 0])) > _OFF * size)
