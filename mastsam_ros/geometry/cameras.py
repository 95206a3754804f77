"""Pinhole cameras: intrinsics through resizing, pixels to rays, and frames at another size."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.types import Frame

_SMOOTH_BEND = 0.03
"""Second differences of inverse depth, as a share of it, up to which neighbours belong to one surface."""


def scale_intrinsics(K: npt.NDArray[np.float64], scale_x: float, scale_y: float) -> npt.NDArray[np.float64]:
    """Intrinsics (3, 3) of the image after resizing by the two factors; pixel centres are at integers."""
    scaled = K.astype(np.float64).copy()
    scaled[0] *= scale_x
    scaled[1] *= scale_y
    scaled[0, 2] += 0.5 * scale_x - 0.5
    scaled[1, 2] += 0.5 * scale_y - 0.5
    return scaled


def back_project(depth: npt.NDArray[np.float32], K: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Points (H, W, 3) float32 in the camera's optical frame, in the unit of `depth` (H, W)."""
    height, width = depth.shape
    x = (np.arange(width, dtype=np.float32) - np.float32(K[0, 2])) / np.float32(K[0, 0])
    y = (np.arange(height, dtype=np.float32) - np.float32(K[1, 2])) / np.float32(K[1, 1])
    return np.stack([x[None, :] * depth, y[:, None] * depth, depth], axis=-1)


def points_at(
    depth: npt.NDArray[np.float32],
    K: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Points (N, 3) float32 of the pixels at `rows`, `columns` (N,): what `back_project` gives there."""
    z = depth[rows, columns]
    x = (columns.astype(np.float32) - np.float32(K[0, 2])) / np.float32(K[0, 0])
    y = (rows.astype(np.float32) - np.float32(K[1, 2])) / np.float32(K[1, 1])
    return np.stack([x * z, y * z, z], axis=-1)


def working_view(frame: Frame, pixels: int) -> Frame:
    """The frame shrunk to about `pixels` pixels (never grown; 0 keeps it), with depth and K to fit.

    Depth is averaged within surfaces only, so that no point floats between an object and what is behind it.
    """
    if pixels <= 0 or frame.height * frame.width <= pixels:
        return frame
    import cv2

    ratio = math.sqrt(pixels / (frame.height * frame.width))
    width, height = max(2, round(frame.width * ratio)), max(2, round(frame.height * ratio))
    image = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA)
    depth = frame.depth
    if depth is not None:
        depth = shrink_depth(depth, width, height)
    K = frame.K
    if K is not None:
        K = scale_intrinsics(K, width / frame.width, height / frame.height)
    return replace(frame, image=np.asarray(image, dtype=np.uint8), depth=depth, K=K)


def shrink_depth(depth: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    """Depth (H, W) at a smaller size: the mean within smooth surfaces, the nearest reading elsewhere.

    Inverse depth is averaged: it is linear on planes, so flat things stay flat, while nearest readings alone
    jitter by up to half a pixel's slope.
    """
    import cv2

    nearest = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    inverse, smooth = _inverse_and_smooth(np.ascontiguousarray(depth, np.float32))
    whole = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_AREA) > 0.999
    mean = cv2.resize(inverse, (width, height), interpolation=cv2.INTER_AREA)
    return np.where(whole, 1 / np.maximum(mean, 1e-6), nearest).astype(np.float32)


@compiled("UniTuple(float32[:, ::1], 2)(Array(float32, 2, 'C', readonly=True))")
def _inverse_and_smooth(
    depth: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Inverse depth (H, W), 0 where there is none, and 1 where it bends no more than a surface does, else 0."""
    height, width = depth.shape
    inverse, smooth = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for v in range(height):
        for u in range(width):
            if depth[v, u] > 0:
                inverse[v, u] = np.float32(1) / depth[v, u]
    for v in range(height):
        above, below = (v - 1 if v else min(1, height - 1)), (v + 1 if v + 1 < height else max(height - 2, 0))
        for u in range(width):
            left, right = (u - 1 if u else min(1, width - 1)), (u + 1 if u + 1 < width else max(width - 2, 0))
            twice = inverse[v, u] + inverse[v, u]
            across = abs(inverse[v, left] - twice + inverse[v, right])
            down = abs(inverse[above, u] - twice + inverse[below, u])
            smooth[v, u] = max(across, down) < np.float32(_SMOOTH_BEND) * inverse[v, u]
    return inverse, smooth
