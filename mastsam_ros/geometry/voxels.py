"""Voxels of the world as sorted arrays, and the loops over them: keys, votes, means."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

MOST_VOTES = 20
"""So many frames can be undone by as many others."""
_MOST_READINGS = 50
"""Readings that count in a voxel's mean place and colour: later ones go on moving it."""
CELLS = 1 << 20
"""Voxels along each axis from the middle of the world: 21 bits per axis make one key."""
_POINTS = "Array(float32, 2, 'C', readonly=True)"


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


def no_voxels() -> Voxels:
    """None, (0,) of each."""
    none, nowhere = np.zeros(0, np.int32), np.zeros((0, 3), np.float32)
    return Voxels(np.zeros(0, np.int64), none, none, none, none.astype(np.float32), nowhere, nowhere)


@compiled("int64(float32, float32, float32, float64)")
def _key(x: float, y: float, z: float, size: float) -> int:
    """The key of the voxel in which a point lies."""
    key = 0
    for coordinate in (x, y, z):
        cell = min(max(np.floor(coordinate / np.float32(size)), np.float32(-CELLS)), np.float32(CELLS - 1))
        key = (key << 21) | (int(cell) + CELLS)
    return key


@compiled(f"int64[::1]({_POINTS}, float64)")
def keys_of(points: npt.NDArray[np.float32], size: float) -> npt.NDArray[np.int64]:
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
def places_of(keys: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(N,) index of each wanted key (N,) among the sorted keys (V,), -1 where it is not among them."""
    found = np.empty(len(wanted), np.int64)
    place = 0
    for n in range(len(wanted)):
        place = _first_from(keys, wanted[n], place)
        found[n] = place if place < len(keys) and keys[place] == wanted[n] else -1
    return found


@compiled(f"int64[::1](int64[::1], {_POINTS}, {_POINTS}, float64)")
def looked_up(
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


@compiled(
    "Tuple((int64[::1], int32[::1], float32[::1], float32[:, ::1], float32[:, ::1]))(int64[::1], int64[::1],"
    " float32[:, ::1], int32[::1], uint8[:, ::1])"
)
def gathered(
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
def vote(
    place: npt.NDArray[np.int64],
    instance: npt.NDArray[np.int32],
    votes: npt.NDArray[np.int32],
    seen: npt.NDArray[np.int32],
) -> None:
    """Each voxel at `place` (M,) gets a vote for the id that is seen there (M,); what is outvoted goes over to it."""
    for n in range(len(place)):
        at = place[n]
        if instance[at] == seen[n]:
            votes[at] = min(votes[at] + 1, MOST_VOTES)
        else:
            votes[at] -= 1
            if votes[at] <= 0:
                instance[at], votes[at] = seen[n], 1


@compiled(
    "void(int64[::1], float32[::1], float32[:, ::1], float32[:, ::1], float32[::1], float32[:, ::1], float32[:, ::1])"
)
def average(
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
