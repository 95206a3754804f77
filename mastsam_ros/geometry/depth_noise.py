"""How noisy a depth image is, and the same image with the noise smoothed away within surfaces."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_WORTH_IT = 4e-4
"""Noise of inverse depth, 1/m, below which smoothing gains nothing."""
_SURFACE_SIGMAS = 4.0
_REACH_PX = 1.5


def inverse_of(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """1 / depth (H, W), 0 where there is none."""
    return np.where(depth > 0, 1 / np.maximum(depth, 1e-3), 0).astype(np.float32)


def inverse_depth_noise(w: npt.NDArray[np.float32]) -> float:
    """Standard deviation of inverse depth (H, W), 1/m, from its second differences along rows."""
    left, middle, right = w[::2, :-2:2], w[::2, 1:-1:2], w[::2, 2::2]
    columns = min(left.shape[1], middle.shape[1], right.shape[1])
    left, middle, right = left[:, :columns], middle[:, :columns], right[:, :columns]
    measured = (left > 0) & (middle > 0) & (right > 0)
    if not measured.any():
        return 0.0
    return float(1.4826 * np.median(np.abs(left - 2 * middle + right)[measured]) / np.sqrt(6))


def smoothed_depth(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Depth (H, W), 0 = none, averaged over the surface around each pixel; as it is if there is hardly any noise.

    Inverse depth is averaged: its noise is the same at all distances, and it is linear on planes.
    """
    w = inverse_of(depth)
    noise = inverse_depth_noise(w)
    if noise < _WORTH_IT:
        return depth
    smooth = cv2.bilateralFilter(w, 5, _SURFACE_SIGMAS * noise, _REACH_PX)
    return np.where(depth > 0, inverse_of(smooth), 0).astype(np.float32)
