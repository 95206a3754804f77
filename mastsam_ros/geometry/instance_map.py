"""What was seen where: voxels of the world with colour and votes for instance ids, bounded in memory."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Set
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from mastsam_ros.compiled import compiled
from mastsam_ros.settings import GeometrySettings
from mastsam_ros.types import LabelledCloud

_MOST_VOTES = 20
"""So many frames can be undone by as many others."""
_MOST_READINGS = 50
"""Readings that count in a voxel's mean place and colour: later ones go on moving it."""
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
_LEAST_DEPTH_M = 0.05
_OWN_DEPTH = 3.0
"""Voxel sizes by which one voxel of a thing must lie behind another to be hidden by it."""
_CELLS = 1 << 20
"""Voxels along each axis from the middle of the world: 21 bits per axis make one key."""
_SCATTER = -7046029254386353131
"""Keys times this number (2^64 by the golden ratio, as int64) are spread evenly over a table."""


class Presence(enum.Enum):
    """Where the voxels of an instance are, seen from a camera."""

    OUT_OF_VIEW = "out of view"
    OCCLUDED = "occluded"
    """Something nearer hides it, or no depth was measured there."""
    IN_VIEW = "in view"
    GONE = "gone"
    """Its place is in view, and empty."""


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


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels as arrays of one length, sorted by key.

    key: (N,) int64. instance, votes, last_seen (frame): (N,) int32. readings: (N,) float32.
    xyz: (N, 3) float32 metres in the world, rgb: (N, 3) float32, the means of the readings.
    """

    key: npt.NDArray[np.int64]
    instance: npt.NDArray[np.int32]
    votes: npt.NDArray[np.int32]
    last_seen: npt.NDArray[np.int32]
    readings: npt.NDArray[np.float32]
    xyz: npt.NDArray[np.float32]
    rgb: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.key)

    def arrays(self) -> tuple[npt.NDArray, ...]:
        """All of them, in the order of declaration."""
        return self.key, self.instance, self.votes, self.last_seen, self.readings, self.xyz, self.rgb

    def kept(self, keep: npt.NDArray[np.bool_]) -> Voxels:
        """Those where `keep` (N,) is True."""
        return Voxels(*(values[keep] for values in self.arrays()))

    def taken(self, index: npt.NDArray[np.int64]) -> Voxels:
        """Those at `index`, in that order."""
        return Voxels(*(values[index] for values in self.arrays()))

    def joined(self, other: Voxels) -> Voxels:
        """These and others, none of which is among these."""
        places = np.searchsorted(self.key, other.key)
        both = []
        for mine, theirs in zip(self.arrays(), other.arrays(), strict=True):
            size = mine.itemsize * math.prod(mine.shape[1:])
            joined = _inserted(mine.ravel().view(np.uint8), theirs.ravel().view(np.uint8), size * places, size)
            both.append(joined.view(mine.dtype).reshape(-1, *mine.shape[1:]))
        return Voxels(*both)


def _no_voxels() -> Voxels:
    none, nowhere = np.zeros(0, np.int32), np.zeros((0, 3), np.float32)
    return Voxels(np.zeros(0, np.int64), none, none, none, none.astype(np.float32), nowhere, nowhere)


class InstanceMap:
    """Voxels that vote for ids (Boyer and Moore: one candidate and its lead per voxel), in world coordinates."""

    def __init__(self, settings: GeometrySettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.voxels = _no_voxels()
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
        key, most, readings, xyz, colour = _gathered(order, keys, points, instance, rgb)
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
        return _looked_up(self.voxels.key, points, direction, self.settings.map_voxel_m)

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
        through = np.flatnonzero(_against(points, K, np.ascontiguousarray(depth), 2 * self.settings.map_voxel_m) > 0)
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
        hidden = _behind_themselves(points, instance, len(wanted), self.settings.map_voxel_m)
        behind = _against(points, K, np.ascontiguousarray(depth), 2 * self.settings.map_voxel_m)
        whole, inside, open_, empty = _seen_of_each(instance, hidden, behind, len(wanted))
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
        near = cKDTree(large).query(small)[0] < _NEXT * size if len(large) else np.zeros(len(small), bool)
        if near.mean() < _TOUCHING:
            return Separation.APART
        if (len(small) >= _FEWEST and near.mean() < _MOSTLY) or _stands_off(small, large, size):
            return Separation.TOUCHING
        return Separation.UNKNOWN

    def boxes(self, ids: Set[int]) -> dict[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Lower and upper corner (3,) of those of the ids that have enough voxels, in the world, stray ones aside."""
        mine = np.isin(self.voxels.instance, list(ids))
        instance, xyz = self.voxels.instance[mine], self.voxels.xyz[mine]
        result = {}
        for id in sorted(ids):
            group = xyz[instance == id]
            if len(group) >= _FEWEST:
                low, high = np.percentile(group, [5, 95], axis=0).astype(np.float32)
                result[id] = (low, high)
        return result

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
        order = np.argsort(self.voxels.instance, kind="stable")
        ids, starts = np.unique(self.voxels.instance[order], return_index=True)
        result = {}
        for id, group in zip(ids.tolist(), np.split(self.voxels.xyz[order], starts[1:]), strict=bool(len(order))):
            low, middle, high = np.percentile(group.astype(np.float64), [5, 50, 95], axis=0)
            result[id] = (middle, high - low)
        return result

    def cloud(self) -> LabelledCloud:
        """Its voxels in the world; confidence is the share of the most votes that a voxel can have."""
        voxels = self.voxels
        return LabelledCloud(
            voxels.xyz,
            np.rint(voxels.rgb).clip(0, 255).astype(np.uint8),
            voxels.instance.astype(np.uint32),
            (voxels.votes / _MOST_VOTES).astype(np.float32),
        )

    def _keys(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        return _keys_of(points, self.settings.map_voxel_m)

    def _find(self, key: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Index of the voxel with each key, -1 where there is none."""
        return _found(self.voxels.key, key)

    def _update(self, place: npt.NDArray[np.int64], seen: Voxels) -> None:
        """Votes, means and times of the voxels at `place`, which are seen again."""
        voxels = self.voxels
        _vote(place, voxels.instance, voxels.votes, seen.instance)
        voxels.last_seen[place] = seen.last_seen
        _average(place, voxels.readings, voxels.xyz, voxels.rgb, seen.readings, seen.xyz, seen.rgb)

    def _keep(self, keep: npt.NDArray[np.bool_]) -> None:
        self.voxels = self.voxels.kept(keep)
        present = set(np.unique(self.voxels.instance).tolist())
        self.instances = {id: known for id, known in self.instances.items() if id in present}

    def _in_camera(
        self, index: npt.NDArray[np.int64] | slice, T_world_camera: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float32]:
        T: npt.NDArray[np.float32] = np.linalg.inv(T_world_camera).astype(np.float32)
        return self.voxels.xyz[index] @ T[:3, :3].T + T[:3, 3]


_POINTS = "Array(float32, 2, 'C', readonly=True)"


@compiled("int64(float32, float32, float32, float64)")
def _key(x: float, y: float, z: float, size: float) -> int:
    """The key of the voxel in which a point lies."""
    key = 0
    for coordinate in (x, y, z):
        cell = min(max(np.floor(coordinate / np.float32(size)), np.float32(-_CELLS)), np.float32(_CELLS - 1))
        key = (key << 21) | (int(cell) + _CELLS)
    return key


@compiled(f"int64[::1]({_POINTS}, float64)")
def _keys_of(points: npt.NDArray[np.float32], size: float) -> npt.NDArray[np.int64]:
    """(N,) keys of the voxels in which points (N, 3) lie."""
    keys = np.empty(len(points), np.int64)
    for n in range(len(points)):
        keys[n] = _key(points[n, 0], points[n, 1], points[n, 2], size)
    return keys


@compiled("int64(int64[::1], int64, int64)")
def _first_from(keys: npt.NDArray[np.int64], key: int, near: int) -> int:
    """The first of the sorted keys (V,) that is not below `key`, or V; found fast if it is `near`."""
    step = 1
    if near < len(keys) and keys[near] < key:
        low = near
        while low + step < len(keys) and keys[low + step] < key:
            low += step
            step *= 2
        low, high = low + 1, min(low + step, len(keys))
    else:
        high = min(near, len(keys))
        while high - step >= 0 and keys[high - step] >= key:
            high -= step
            step *= 2
        low = max(high - step + 1, 0)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@compiled("int64[::1](int64[::1], int64[::1])")
def _found(keys: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(N,) index of each wanted key (N,) among the sorted keys (V,), -1 where it is not among them."""
    found = np.empty(len(wanted), np.int64)
    place = 0
    for n in range(len(wanted)):
        place = _first_from(keys, wanted[n], place)
        found[n] = place if place < len(keys) and keys[place] == wanted[n] else -1
    return found


@compiled(f"int64[::1](int64[::1], {_POINTS}, {_POINTS}, float64)")
def _looked_up(
    keys: npt.NDArray[np.int64], points: npt.NDArray[np.float32], direction: npt.NDArray[np.float32], size: float
) -> npt.NDArray[np.int64]:
    """As `InstanceMap.look_up`, among sorted keys (V,)."""
    found = np.full(len(points), -1)
    place = 0
    for n in range(len(points)):
        for step in (0.0, 1.0, -1.0):
            shift = np.float32(step * size)
            x, y = points[n, 0] + shift * direction[n, 0], points[n, 1] + shift * direction[n, 1]
            key = _key(x, y, points[n, 2] + shift * direction[n, 2], size)
            # Neighbouring points lie in neighbouring voxels.
            place = _first_from(keys, key, place)
            if place < len(keys) and keys[place] == key:
                found[n] = place
                break
    return found


@compiled("bool_[::1](float32[:, ::1], int32[::1], int64, float64)")
def _behind_themselves(
    points: npt.NDArray[np.float32], instance: npt.NDArray[np.int32], most: int, size: float
) -> npt.NDArray[np.bool_]:
    """(N,): voxels that lie behind voxels of the same id, a z-buffer of each id for itself.

    points: (N, 3) in the camera; instance: (N,) < most; size: of a voxel. The buffer's cells are as large as a voxel is
    at the id's mean distance, but for those that are very near.
    """
    number = len(points)
    count, total = np.zeros(most, np.int64), np.zeros(most)
    for n in range(number):
        count[instance[n]] += 1
        total[instance[n]] += max(points[n, 2], np.float32(_LEAST_DEPTH_M))
    # Cells are found in a table with room to spare: the one of a key stands at its place, or soon after.
    room = 16
    while room < 2 * number:
        room *= 2
    keys, nearest = np.full(room, -1), np.empty(room, np.float32)
    place = np.empty(number, np.int64)
    for n in range(number):
        id = instance[n]
        z = max(points[n, 2], np.float32(_LEAST_DEPTH_M))
        step = _NEXT * size * max(count[id], 1) / max(total[id], _LEAST_DEPTH_M)
        across = min(max(np.floor(points[n, 0] / z / step), -_CELLS), _CELLS - 1) + _CELLS
        down = min(max(np.floor(points[n, 1] / z / step), -_CELLS), _CELLS - 1) + _CELLS
        key = (int(id) << 42) | (int(across) << 21) | int(down)
        at = ((key * _SCATTER) >> 32) & (room - 1)
        while keys[at] >= 0 and keys[at] != key:
            at = (at + 1) & (room - 1)
        if keys[at] < 0:
            keys[at], nearest[at] = key, z
        nearest[at] = min(nearest[at], z)
        place[n] = at
    hidden = np.empty(number, np.bool_)
    for n in range(number):
        z = points[n, 2]
        hidden[n] = z > np.float32(_LEAST_DEPTH_M) and z > nearest[place[n]] + _OWN_DEPTH * size
    return hidden


@compiled("int8[::1](float32[:, ::1], float64[:, :], Array(float32, 2, 'C', readonly=True), float64)")
def _against(
    points: npt.NDArray[np.float32], K: npt.NDArray[np.float64], depth: npt.NDArray[np.float32], margin: float
) -> npt.NDArray[np.int8]:
    """How points (N, 3) in the camera lie to a depth image (H, W), (N,).

    1: it sees through the point, at all pixels around; 0: it sees the point; -1: the point is hidden, or no depth was
    measured there; -2: it is not in the picture. margin: metres by which they may differ, beside the noise.
    """
    height, width = depth.shape
    result = np.empty(len(points), np.int8)
    for n in range(len(points)):
        z = max(points[n, 2], np.float32(_LEAST_DEPTH_M))
        column = np.rint(points[n, 0] / z * K[0, 0] + K[0, 2])
        row = np.rint(points[n, 1] / z * K[1, 1] + K[1, 2])
        if not (points[n, 2] > np.float32(_LEAST_DEPTH_M) and 0 <= column < width and 0 <= row < height):
            result[n] = -2
            continue
        # No depth hides everything in `nearest` and shows nothing in `farthest`: neither proves a voxel gone.
        nearest, farthest = np.float32(np.inf), np.float32(-np.inf)
        for y in range(max(int(row) - 1, 0), min(int(row) + 2, height)):
            for x in range(max(int(column) - 1, 0), min(int(column) + 2, width)):
                nearest, farthest = min(nearest, depth[y, x]), max(farthest, depth[y, x])
        off = np.float32(margin) + np.float32(0.005) * (z * z)
        result[n] = 1 if nearest > z + off else -1 if farthest < z - off else 0
    return result


@compiled("UniTuple(int64[::1], 4)(int32[::1], bool_[::1], int8[::1], int64)")
def _seen_of_each(
    instance: npt.NDArray[np.int32], hidden: npt.NDArray[np.bool_], behind: npt.NDArray[np.int8], most: int
) -> tuple[npt.NDArray[np.int64], ...]:
    """Of each id (most,), the voxels that it does not hide itself: all, those in the picture, those open to view, and
    those that the picture sees through. behind: as `_against` gives it."""
    whole, inside = np.zeros(most, np.int64), np.zeros(most, np.int64)
    open_, empty = np.zeros(most, np.int64), np.zeros(most, np.int64)
    for n in range(len(instance)):
        if not hidden[n]:
            id = instance[n]
            whole[id] += 1
            inside[id] += behind[n] > -2
            open_[id] += behind[n] >= 0
            empty[id] += behind[n] > 0
    return whole, inside, open_, empty


@compiled("uint8[::1](uint8[::1], uint8[::1], int64[::1], int64)")
def _inserted(
    mine: npt.NDArray[np.uint8], theirs: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], size: int
) -> npt.NDArray[np.uint8]:
    """Bytes with others inserted before rising places (N,), `size` bytes at each."""
    joined = np.empty(len(mine) + len(theirs), np.uint8)
    taken, at = 0, 0
    for n in range(len(places)):
        joined[at : at + places[n] - taken] = mine[taken : places[n]]
        at += places[n] - taken
        joined[at : at + size] = theirs[n * size : n * size + size]
        taken, at = places[n], at + size
    joined[at:] = mine[taken:]
    return joined


@compiled("void(int64[::1], int32[::1], int32[::1], int32[::1])")
def _vote(
    place: npt.NDArray[np.int64],
    instance: npt.NDArray[np.int32],
    votes: npt.NDArray[np.int32],
    seen: npt.NDArray[np.int32],
) -> None:
    """Each voxel at `place` (M,) gets a vote for the id that is seen there (M,); what is outvoted goes over to it."""
    for n in range(len(place)):
        at = place[n]
        if instance[at] == seen[n]:
            votes[at] = min(votes[at] + 1, _MOST_VOTES)
        else:
            votes[at] -= 1
            if votes[at] <= 0:
                instance[at], votes[at] = seen[n], 1


@compiled(
    "void(int64[::1], float32[::1], float32[:, ::1], float32[:, ::1], float32[::1], float32[:, ::1], float32[:, ::1])"
)
def _average(
    place: npt.NDArray[np.int64],
    readings: npt.NDArray[np.float32],
    xyz: npt.NDArray[np.float32],
    rgb: npt.NDArray[np.float32],
    more: npt.NDArray[np.float32],
    seen_xyz: npt.NDArray[np.float32],
    seen_rgb: npt.NDArray[np.float32],
) -> None:
    """The means of the voxels at `place` (M,) go on to include those of so many `more` readings (M,)."""
    for n in range(len(place)):
        at = place[n]
        share = more[n] / (readings[at] + more[n])
        for c in range(3):
            xyz[at, c] += share * (seen_xyz[n, c] - xyz[at, c])
            rgb[at, c] += share * (seen_rgb[n, c] - rgb[at, c])
        readings[at] = min(readings[at] + more[n], np.float32(_MOST_READINGS))


def _stands_off(points: npt.NDArray[np.float32], around: npt.NDArray[np.float32], size: float) -> bool:
    """Whether points (N, 3) lie off the plane of those around them (M, 3), if these are one: size in metres."""
    if len(around) < 2 * _FEWEST:
        return False
    middle = around.mean(axis=0, dtype=np.float64)
    offset = around - middle
    values, axes = np.linalg.eigh(offset.T @ offset / len(around))
    flat = np.sqrt(max(values[0], 0.0)) < _FLAT * size
    return bool(flat and np.median(np.abs((points - middle) @ axes[:, 0])) > _OFF * size)


@compiled(
    "Tuple((int64[::1], int32[::1], float32[::1], float32[:, ::1], float32[:, ::1]))(int64[::1], int64[::1],"
    " float32[:, ::1], int32[::1], uint8[:, ::1])"
)
def _gathered(
    order: npt.NDArray[np.int64],
    keys: npt.NDArray[np.int64],
    points: npt.NDArray[np.float32],
    instance: npt.NDArray[np.int32],
    rgb: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray, ...]:
    """Of each voxel in which points (N, 3) lie, by rising key: the key, the id that most of its points have, the larger
    one of several, their number, mean place and mean colour. order: (M,), which points, by rising keys (N,)."""
    number = len(order)
    key, most = np.empty(number, np.int64), np.empty(number, np.int32)
    readings = np.empty(number, np.float32)
    xyz, colour = np.empty((number, 3), np.float32), np.empty((number, 3), np.float32)
    ids, votes = np.empty(number, np.int32), np.empty(number, np.int64)
    sums = np.empty(6)
    count, begin = 0, 0
    while begin < number:
        end, kinds = begin, 0
        sums[:] = 0
        while end < number and keys[order[end]] == keys[order[begin]]:
            n = order[end]
            kind = 0
            while kind < kinds and ids[kind] != instance[n]:
                kind += 1
            if kind == kinds:
                ids[kind], votes[kind] = instance[n], 0
                kinds += 1
            votes[kind] += 1
            for c in range(3):
                sums[c] += points[n, c]
                sums[3 + c] += rgb[n, c]
            end += 1
        best = 0
        for kind in range(1, kinds):
            if votes[kind] > votes[best] or (votes[kind] == votes[best] and ids[kind] > ids[best]):
                best = kind
        key[count], most[count], readings[count] = keys[order[begin]], ids[best], end - begin
        for c in range(3):
            xyz[count, c], colour[count, c] = sums[c] / (end - begin), sums[3 + c] / (end - begin)
        count += 1
        begin = end
    return key[:count].copy(), most[:count].copy(), readings[:count].copy(), xyz[:count].copy(), colour[:count].copy()
