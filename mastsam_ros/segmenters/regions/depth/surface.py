"""What one depth image measures, cleaned: its noise, and smoothed inverse depth, slopes and normals of its surfaces.

Everything is measured in inverse depth w = 1/z: a plane p . X = 1 is linear there, w = p . (x/z, y/z, 1),
and the noise of stereo and structured-light cameras is the same at every distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.segmenters.regions.depth.connected import Bools, Floats

NEAREST_M = 0.05
"""Nearer readings are taken as missing: no depth camera measures there."""
SMALLEST_NOISE = 2e-5
"""Standard deviation of inverse depth, 1/m, below which no image is believed (rounding to float or millimetres)."""
NORMAL_NOISE_RAD = np.deg2rad(3.0)
"""The window of the local fits grows until normals at the median depth are this exact."""
LARGEST_RADIUS = 3
"""... but not beyond 7x7 pixels, or small objects are all edge."""
SMOOTHED_SHARE = 0.35
"""What the local fit leaves of the noise, one-sided windows included (the centre of a 7x7 window: 1/7)."""
OUTLIER_SIGMAS = 4.0
ROUNDING_M = 0.0005
"""Depth in whole millimetres is off by this much, whatever the noise."""
ROUGH = 2.0
"""A window whose variance is above so many times the noise's holds more than one flat surface."""
FEWEST_READINGS = 24
"""Fewer measured pixels show no surface."""


@dataclass(frozen=True, eq=False)
class Surface:
    """The measured surface, cleaned: what all steps below read."""

    valid: Bools
    w: Floats
    """(H, W) inverse depth, smoothed within surfaces."""
    du: Floats
    dv: Floats
    """(H, W) slopes of w per pixel."""
    normals: Floats
    """(H, W, 3), unit, towards the camera."""
    rays: Floats
    """(H, W, 3): (x/z, y/z, 1)."""
    focal: float
    noise: float
    """Standard deviation of one measured inverse depth."""
    radius: int
    """Of the windows in which slopes were fitted, pixels."""

    @property
    def smooth_noise(self) -> float:
        """Standard deviation of w."""
        return max(SMOOTHED_SHARE * self.noise, SMALLEST_NOISE)


def measured_surface(depth: Floats, K: npt.NDArray[np.float64]) -> Surface | None:
    """Noise, smoothed inverse depth, slopes and normals; None if hardly anything was measured."""
    depth = np.asarray(depth, np.float32)
    measured = np.isfinite(depth) & (depth > NEAREST_M)
    if measured.sum() < FEWEST_READINGS:
        return None
    raw = np.zeros(depth.shape, np.float32)
    raw[measured] = 1 / depth[measured]
    noise = _noise(raw, measured)
    fx, fy = float(K[0, 0]), float(K[1, 1])
    focal = float(np.sqrt(fx * fy))
    radius = _fit_radius(noise, focal, float(np.median(depth[measured])))
    du, dv, fitted, known = _fit(raw, measured, radius, noise)
    # A reading that the fit misses by far is a thin thing or an edge, not noise.
    kept = measured & ((np.abs(raw - fitted) > OUTLIER_SIGMAS * noise) | ~known)
    valid = measured | known
    w = np.where(kept, raw, fitted)
    w[~valid] = 0
    height, width = depth.shape
    x = np.arange(width, dtype=np.float32)[None] - np.float32(K[0, 2])
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(K[1, 2])
    normals = np.empty((height, width, 3), np.float32)
    normals[..., 0] = -fx * du
    normals[..., 1] = -fy * dv
    normals[..., 2] = x * du + y * dv - w
    normals /= np.sqrt(np.einsum("hwc,hwc->hw", normals, normals) + 1e-20)[..., None]
    rays = np.empty_like(normals)
    rays[..., 0] = x / fx
    rays[..., 1] = y / fy
    rays[..., 2] = 1
    return Surface(valid, w, du, dv, normals, rays, focal, noise, radius)


def _noise(w: Floats, measured: Bools) -> float:
    """Standard deviation of w from second differences, which vanish on planes.

    At one and at three pixels' distance: many cameras' noise is alike in neighbouring pixels.
    """
    found = [SMALLEST_NOISE]
    for values, known in ((w, measured), (w.T, measured.T)):
        for step in (1, 3):
            a, b, c = np.s_[::3, : -2 * step : 2], np.s_[::3, step:-step:2], np.s_[::3, 2 * step :: 2]
            good = known[a] & known[b] & known[c]
            if good.sum() >= FEWEST_READINGS:
                second = np.abs(values[a] - 2 * values[b] + values[c])[good]
                # 1.4826: from the median absolute value to the standard deviation; 6 = 1 + 4 + 1.
                found.append(1.4826 * float(np.median(second)) / np.sqrt(6.0))
    return max(found)


def _fit_radius(noise: float, focal: float, depth: float) -> int:
    """Radius of the window in which slopes are fitted."""
    for radius in range(1, LARGEST_RADIUS):
        side = 2 * radius + 1
        spread = np.sqrt(side * 2 * sum(k * k for k in range(1, radius + 1)))
        if noise * depth * focal < NORMAL_NOISE_RAD * spread:
            return radius
    return LARGEST_RADIUS


def _fit(w: Floats, measured: Bools, radius: int, noise: float) -> tuple[Floats, Floats, Floats, Bools]:
    """Least-squares plane of w in a window round each pixel: slopes, value, and where there is one.

    At edges the window that fits best among those shifted by its radius is taken: one that lies on one side.
    """
    du, dv, centre, variance = _window_fits(w, measured, radius)
    known = np.isfinite(variance)
    flat = ROUGH * noise * noise + (ROUNDING_M * centre * centre) ** 2
    rough = np.flatnonzero(variance > flat)
    height, width = w.shape
    row, column = np.divmod(rough, width)
    best = variance.ravel()[rough]
    source = rough.copy()
    for dy in (-radius, 0, radius):
        for dx in (-radius, 0, radius):
            at = np.clip(row + dy, 0, height - 1) * width + np.clip(column + dx, 0, width - 1)
            better = variance.ravel()[at] < best
            best[better] = variance.ravel()[at][better]
            source[better] = at[better]
    shift_y, shift_x = row - source // width, column - source % width
    slopes = [du.ravel(), dv.ravel()]
    moved = centre.ravel()[source] + shift_x * slopes[0][source] + shift_y * slopes[1][source]
    new_du, new_dv = slopes[0][source], slopes[1][source]
    du.ravel()[rough], dv.ravel()[rough], centre.ravel()[rough] = new_du, new_dv, moved
    known.ravel()[rough] = np.isfinite(best)
    # A pixel without a reading gets one only where its surroundings are one surface.
    known &= measured | (variance < flat)
    if radius < LARGEST_RADIUS:
        # The widest window reaches over holes that the small one does not.
        hole = np.flatnonzero(~(measured | known))
        if len(hole):
            wide = _window_fits(w, measured, LARGEST_RADIUS, hole)
            whole = wide[3] < ROUGH * noise * noise + (ROUNDING_M * wide[2] * wide[2]) ** 2
            for image, values in zip((du, dv, centre), wide[:3], strict=True):
                image.ravel()[hole[whole]] = values[whole]
            known.ravel()[hole[whole]] = True
    return du.astype(np.float32), dv.astype(np.float32), centre.astype(np.float32), known


def _window_fits(
    w: Floats, measured: Bools, radius: int, at: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.float64], ...]:
    """Slopes, value in the middle and variance of the plane in each window; of the pixels with index `at` only.

    The variance is infinite where too little was measured.
    """
    k = np.arange(-radius, radius + 1, dtype=np.float64)
    one, square = np.ones_like(k), k * k
    mask = measured.astype(np.float32)
    value = w.astype(np.float64)  # variances are differences of large numbers

    def total(image: npt.NDArray, along_x: npt.NDArray, along_y: npt.NDArray) -> npt.NDArray:
        kind = cv2.CV_32F if image.dtype == np.float32 else cv2.CV_64F
        sums = np.asarray(cv2.sepFilter2D(image, kind, along_x, along_y, borderType=cv2.BORDER_CONSTANT))
        return sums if at is None else sums.ravel()[at]

    n = np.maximum(total(mask, one, one), 1e-6)
    x, y = total(mask, k, one) / n, total(mask, one, k) / n
    xx = total(mask, square, one) / n - x * x
    xy = total(mask, k, k) / n - x * y
    yy = total(mask, one, square) / n - y * y
    mean = total(value, one, one) / n
    xw = total(value, k, one) / n - x * mean
    yw = total(value, one, k) / n - y * mean
    ww = total(value * value, one, one) / n - mean * mean
    determinant = xx * yy - xy * xy
    unknown = (n < one.size * one.size / 3) | (determinant < 0.05)
    determinant[unknown] = 1
    du = (xw * yy - yw * xy) / determinant
    dv = (yw * xx - xw * xy) / determinant
    variance = np.maximum(ww - du * xw - dv * yw, 0)
    variance[unknown] = np.inf
    return du, dv, mean - du * x - dv * y, variance
