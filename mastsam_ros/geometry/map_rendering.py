"""The map as a camera would see it: a z-buffer of voxels, for places where the camera measured no depth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
    ahead = np.flatnonzero(points[:, 2] > _LEAST_DEPTH_M)
    x, y, z = points[ahead].T
    column = np.rint((x / z * K[0, 0] + K[0, 2]) / stride).astype(np.int64)
    row = np.rint((y / z * K[1, 1] + K[1, 2]) / stride).astype(np.int64)
    inside = (column >= 0) & (row >= 0) & (column < columns) & (row < rows)
    # The nearest is written last and stays.
    order = np.argsort(-z[inside], kind="stable")
    cell = (row * columns + column)[inside][order]
    index, depth = np.full(rows * columns, -1, np.int64), np.full(rows * columns, np.inf, np.float32)
    index[cell], depth[cell] = ahead[inside][order], z[inside][order]
    index, depth = index.reshape(rows, columns), depth.reshape(rows, columns)
    half = 0.5 * voxel_m * float(np.sqrt(K[0, 0] * K[1, 1])) / stride
    for axis in (1, 0):
        own_index, own_depth = index.copy(), depth.copy()
        for step in range(1, _WIDEST + 1):
            for first, second in _shifted(axis, step):
                near = own_depth[second]
                covers = (near < depth[first]) & (half >= (step - 0.5) * near)
                index[first] = np.where(covers, own_index[second], index[first])
                depth[first] = np.where(covers, near, depth[first])
    return index


def _shifted(axis: int, step: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Index expressions of cells and of their neighbours `step` farther on, and back, along an axis."""
    near, far, all_ = slice(0, -step), slice(step, None), slice(None)
    pair = ((all_, near), (all_, far)) if axis else ((near, all_), (far, all_))
    return [pair, pair[::-1]]
