"""A z-buffer of voxels: what is nearer hides what is behind, and voxels are as large as they are near."""

from __future__ import annotations

import numpy as np

from mastsam_ros.geometry.map_rendering import rendered

K = np.array([[100.0, 0, 49.5], [0, 100.0, 39.5], [0, 0, 1]])
SHAPE, STRIDE, VOXEL_M = (80, 100), 2, 0.02


def wall(z: float, half: float) -> np.ndarray:
    """Voxels (N, 3) of a square that faces the camera."""
    side = np.arange(-half, half, VOXEL_M, dtype=np.float32)
    x, y = np.meshgrid(side, side)
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=1).astype(np.float32)


def test_what_is_nearer_hides_what_is_behind() -> None:
    far, near = wall(2.0, 1.2), wall(1.0, 0.1)
    for xyz, first_near in ((np.concatenate([far, near]), len(far)), (np.concatenate([near, far]), 0)):
        index = rendered(xyz, np.eye(4), K, SHAPE, STRIDE, VOXEL_M)
        assert index.shape == (40, 50) and (index >= 0).all()
        is_near = (index >= first_near) & (index < first_near + len(near))
        assert is_near[17:23, 22:28].all() and is_near.sum() < 150


def test_near_voxels_leave_no_holes_and_nothing_grows() -> None:
    index = rendered(wall(0.4, 0.1), np.eye(4), K, SHAPE, STRIDE, VOXEL_M)
    rows, columns = np.nonzero(index >= 0)
    assert (index[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] >= 0).all()
    # 20 cm at 40 cm are 50 pixels, 25 cells.
    assert 22 <= np.ptp(rows) + 1 <= 28 and 22 <= np.ptp(columns) + 1 <= 28


def test_what_is_behind_the_camera_or_beside_the_picture_is_not_drawn() -> None:
    for xyz in (wall(-1.0, 0.5), wall(1.0, 0.1) + np.float32([2, 0, 0]), np.zeros((0, 3), np.float32)):
        assert (rendered(xyz, np.eye(4), K, SHAPE, STRIDE, VOXEL_M) == -1).all()
    T = np.eye(4)
    T[0, 3] = 2.0
    assert (rendered(wall(1.0, 0.1) + np.float32([2, 0, 0]), T, K, SHAPE, STRIDE, VOXEL_M) >= 0).any()


def test_it_is_what_drawing_one_after_the_other_gives() -> None:
    rng = np.random.default_rng(7)
    xyz = rng.uniform([-1, -0.8, 0.1], [1, 0.8, 2], (4000, 3)).astype(np.float32)
    xyz[::5, 2] = np.float32(0.5)  # equally near
    cells = np.full((40, 50), -1)
    depth = np.full(cells.shape, np.inf)
    for n, (x, y, z) in enumerate(xyz):
        column, row = round((x / z * 100 + 49.5) / STRIDE), round((y / z * 100 + 39.5) / STRIDE)
        if 0 <= column < 50 and 0 <= row < 40 and z <= depth[row, column]:
            cells[row, column], depth[row, column] = n, z
    for axis in (1, 0):
        own, own_depth = cells.copy(), depth.copy()
        for row, column in np.ndindex(cells.shape):
            for step, sign in ((1, 1), (1, -1), (2, 1), (2, -1), (3, 1), (3, -1)):
                place = [row, column]
                place[axis] += sign * step
                if 0 <= place[0] < 40 and 0 <= place[1] < 50:
                    near = own_depth[tuple(place)]
                    if near < depth[row, column] and (step - 0.5) * near <= 0.5 * VOXEL_M * 100 / STRIDE:
                        cells[row, column], depth[row, column] = own[tuple(place)], near
    assert (rendered(xyz, np.eye(4), K, SHAPE, STRIDE, VOXEL_M) == cells).mean() > 0.999
    assert (cells >= 0).mean() > 0.5
