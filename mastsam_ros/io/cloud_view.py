"""Pictures of labelled clouds, rendered with numpy, and one cloud made of many."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.types import LabelledCloud
from mastsam_ros.viz import colors

Points = npt.NDArray[np.float32]


def join_clouds(
    clouds: Iterable[tuple[LabelledCloud, npt.NDArray[np.float64]]], voxel_m: float = 0.01
) -> LabelledCloud:
    """Clouds with their T_world_camera (4, 4) as one in the world: a point per voxel, with its most frequent id."""
    xyz, rgb, instance, confidence = [], [], [], []
    for cloud, T in clouds:
        xyz.append((cloud.xyz @ T[:3, :3].T + T[:3, 3]).astype(np.float32))
        rgb.append(cloud.rgb)
        instance.append(cloud.instance)
        confidence.append(cloud.confidence)
    if not xyz:
        empty = np.zeros((0, 3))
        return LabelledCloud(
            empty.astype(np.float32), empty.astype(np.uint8), np.zeros(0, np.uint32), np.zeros(0, np.float32)
        )
    points, ids = np.concatenate(xyz), np.concatenate(instance)
    cell = np.floor(points / voxel_m).astype(np.int64) + (1 << 15)
    key = (cell[:, 0] << 48) | (cell[:, 1] << 32) | (cell[:, 2] << 16)
    pairs, first, counts = np.unique(key | ids, return_index=True, return_counts=True)
    voxels = pairs >> 16
    order = np.lexsort((counts, voxels))  # within a voxel the most frequent id comes last
    kept = first[order[np.flatnonzero(np.r_[np.diff(voxels[order]) != 0, True])]]
    return LabelledCloud(points[kept], np.concatenate(rgb)[kept], ids[kept], np.concatenate(confidence)[kept])


def render_cloud(
    cloud: LabelledCloud,
    eye: npt.ArrayLike,
    target: npt.ArrayLike,
    width: int = 760,
    height: int = 520,
    field_of_view_deg: float = 48.0,
    point_m: float = 0.016,
    up: npt.ArrayLike = (0.0, 0.0, 1.0),
) -> npt.NDArray[np.uint8]:
    """The cloud seen from `eye` towards `target`, (height, width, 4) uint8 RGBA, transparent where there is nothing.

    Ids give the colour, the points' own brightness the shading; edges in depth are darkened.
    """
    eye = np.asarray(eye, np.float64)
    forward = np.asarray(target, np.float64) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, np.float64))
    right /= np.linalg.norm(right)
    local = (cloud.xyz - eye) @ np.stack([right, np.cross(forward, right), forward], axis=1)
    focal = 0.5 * width / np.tan(np.radians(field_of_view_deg) / 2)
    seen = local[:, 2] > 0.1
    order = np.flatnonzero(seen)[np.argsort(-local[seen, 2], kind="stable")]  # far ones first: near ones paint over
    picture = np.zeros((height, width, 4), np.uint8)
    if not len(order):
        return picture
    z = local[order, 2]
    x = focal * local[order, 0] / z + (width - 1) / 2
    y = focal * local[order, 1] / z + (height - 1) / 2
    half = np.clip(0.5 * focal * point_m / z, 0.5, 5.0)
    depth = np.full((height, width), np.inf)
    chosen = np.full((height, width), -1, np.int64)
    reach = int(np.ceil(half.max()))
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            column, row = np.floor(x + 0.5).astype(int) + dx, np.floor(y + 0.5).astype(int) + dy
            near = (np.abs(column - x) <= half) & (np.abs(row - y) <= half)
            near &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
            picked = np.flatnonzero(near)
            layer = np.full((height, width), -1, np.int64)
            layer[row[picked], column[picked]] = picked
            nearer = (layer >= 0) & (np.where(layer >= 0, z[layer], np.inf) < depth)
            depth[nearer], chosen[nearer] = z[layer[nearer]], layer[nearer]
    filled = chosen >= 0
    points = order[np.where(filled, chosen, 0)]
    brightness = cloud.rgb[points].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    ids = cloud.instance[points]
    tint = np.where((ids > 0)[..., None], colors(ids), np.uint8(150)).astype(np.float32)
    lit = tint * (0.5 + 0.75 * brightness)[..., None] * _edge_shade(depth)[..., None]
    picture[filled, :3] = np.clip(lit[filled], 0, 255).astype(np.uint8)
    picture[filled, 3] = 255
    return picture


def _edge_shade(depth: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Darker where a neighbour is nearer: what makes the picture of points read as bodies."""
    logarithm = np.log(np.where(np.isfinite(depth), depth, 1e3)).astype(np.float32)
    nearest = cv2.erode(logarithm, np.ones((5, 5), np.uint8))
    return np.exp(-6 * np.clip(logarithm - nearest - 0.01, 0, 0.08)).astype(np.float32)
