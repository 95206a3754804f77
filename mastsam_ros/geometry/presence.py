"""What of the map a camera sees: which of its voxels are in the picture, hidden, or seen through."""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.geometry.voxels import CELLS

_LEAST_DEPTH_M = 0.05
_OWN_DEPTH = 3.0
"""Voxel sizes by which one voxel of a thing must lie behind another to be hidden by it."""
_CELL = 1.75
"""Voxel sizes that a cell of a z-buffer is wide: neighbours' centres are no farther apart."""
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


@compiled("bool_[::1](float32[:, ::1], int32[::1], int64, float64)")
def behind_themselves(
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
        step = _CELL * size * max(count[id], 1) / max(total[id], _LEAST_DEPTH_M)
        across = min(max(np.floor(points[n, 0] / z / step), -CELLS), CELLS - 1) + CELLS
        down = min(max(np.floor(points[n, 1] / z / step), -CELLS), CELLS - 1) + CELLS
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
def against(
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
def seen_of_each(
    instance: npt.NDArray[np.int32], hidden: npt.NDArray[np.bool_], behind: npt.NDArray[np.int8], most: int
) -> tuple[npt.NDArray[np.int64], ...]:
    """Of each id (most,), the voxels that it does not hide itself: all, those in the picture, those open to view, and
    those that the picture sees through. behind: as `against` gives it."""
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
