"""The map as a camera would see it: a z-buffer of voxels, for places where the camera measured no depth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

_LEAST_DEPTH_M = 0.05
_WIDEST = 3
"""Cells to each side that a near voxel may cover: nearer ones leave holes."""


def rendered(
    xyz: npt.NDArray[np.float32],
    T_world_camera: npt.NDArray[np.float64],
    K: npt.NDArray[np.float64],
    shape: tuple[int, ...],
    stride: int,
    voxel_m: float,
) -> npt.NDArray[np.int64]:
    """The nearest of the voxels at xyz (N, 3) behind every `stride`-th pixel, in x and y, of an image of this shape.

    Returns (ceil(height / stride), ceil(width / stride)) int64: its place in xyz, -1 where there is none. Each voxel is
    drawn as a square of its size, voxel_m metres.
    """
    rows, columns = (-(-length // stride) for length in shape[:2])
    T: npt.NDArray[np.float32] = np.linalg.inv(T_world_camera).astype(np.float32)
    points = xyz @ T[:3, :3].T + T[:3, 3]
    half = np.float32(0.5 * voxel_m * float(np.sqrt(K[0, 0] * K[1, 1])) / stride)
    index, depth = _nearest(points, np.array(K, np.float64), rows, columns, stride)
    for across in (True, False):
        index, depth = _widened(index, depth, half, across)
    return index


@compiled("Tuple((int64[:, ::1], float32[:, ::1]))(float32[:, ::1], float64[:, ::1], int64, int64, int64)")
def _nearest(
    points: npt.NDArray[np.float32], K: npt.NDArray[np.float64], rows: int, columns: int, stride: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Of each cell, the nearest of points (N, 3), of equally near ones the last, and its depth; -1, infinite."""
    index, depth = np.full((rows, columns), -1, np.int64), np.full((rows, columns), np.inf, np.float32)
    for n in range(len(points)):
        z = points[n, 2]
        if z <= np.float32(_LEAST_DEPTH_M):
            continue
        column = np.rint((points[n, 0] / z * K[0, 0] + K[0, 2]) / stride)
        row = np.rint((points[n, 1] / z * K[1, 1] + K[1, 2]) / stride)
        if 0 <= column < columns and 0 <= row < rows and z <= depth[int(row), int(column)]:
            index[int(row), int(column)], depth[int(row), int(column)] = n, z
    return index, depth


@compiled("Tuple((int64[:, ::1], float32[:, ::1]))(int64[:, ::1], float32[:, ::1], float32, bool_)")
def _widened(
    index: npt.NDArray[np.int64], depth: npt.NDArray[np.float32], half: np.float32, across: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Every point covers as many cells beside its own, across or down, as its half width at depth 1 is wide there."""
    rows, columns = index.shape
    wide_index, wide_depth = index.copy(), depth.copy()
    for row in range(rows):
        for column in range(columns):
            for step in range(1, _WIDEST + 1):
                for offset in (step, -step):
                    y, x = (row, column + offset) if across else (row + offset, column)
                    if not (0 <= y < rows and 0 <= x < columns):
                        continue
                    near = depth[y, x]
                    if near < wide_depth[row, column] and half >= np.float32(step - 0.5) * near:
                        wide_index[row, column], wide_depth[row, column] = index[y, x], near
    return wide_index, wide_depth
