"""What one depth image measures, cleaned: its noise, and smoothed inverse depth, slopes and normals of its surfaces.

Everything is measured in inverse depth w = 1/z: a plane p . X = 1 is linear there, w = p . (x/z, y/z, 1),
and the noise of stereo and structured-light cameras is the same at every distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.segmenters.regions.depth.connected import Bools, Floats

Doubles = npt.NDArray[np.float64]

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
ENOUGH_FOR_A_MEDIAN = 8192
"""The median of so many values is exact to 2 % of their spread."""


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
    if np.count_nonzero(measured) < FEWEST_READINGS:
        return None
    raw = np.divide(np.float32(1), depth, out=np.zeros_like(depth), where=measured)
    noise = _noise(raw, measured)
    fx, fy = float(K[0, 0]), float(K[1, 1])
    focal = float(np.sqrt(fx * fy))
    radius = _fit_radius(noise, focal, median_of_some(depth[measured]))
    du, dv, fitted, known = _fit(raw, measured, radius, noise)
    valid, w, normals, rays = _cleaned(
        raw, measured, fitted, known, du, dv, OUTLIER_SIGMAS * noise, np.array(K, np.float64, order="C")
    )
    return Surface(valid, w, du, dv, normals, rays, focal, noise, radius)


@compiled(
    "Tuple((bool_[:, ::1], float32[:, ::1], float32[:, :, ::1], float32[:, :, ::1]))(float32[:, ::1], bool_[:, ::1],"
    " float32[:, ::1], bool_[:, ::1], float32[:, ::1], float32[:, ::1], float64, float64[:, ::1])"
)
def _cleaned(
    raw: Floats, measured: Bools, fitted: Floats, known: Bools, du: Floats, dv: Floats, outlier: float, K: Doubles
) -> tuple[Bools, Floats, Floats, Floats]:
    """`Surface`'s valid, w, normals and rays from the readings and the planes fitted round them."""
    height, width = raw.shape
    valid, w = np.zeros((height, width), np.bool_), np.zeros((height, width), np.float32)
    normals, rays = np.empty((height, width, 3), np.float32), np.empty((height, width, 3), np.float32)
    fx, fy = np.float32(K[0, 0]), np.float32(K[1, 1])
    for v in range(height):
        y = np.float32(v) - np.float32(K[1, 2])
        for u in range(width):
            x = np.float32(u) - np.float32(K[0, 2])
            # A reading that the fit misses by far is a thin thing or an edge, not noise.
            if measured[v, u] and (not known[v, u] or abs(raw[v, u] - fitted[v, u]) > outlier):
                valid[v, u], w[v, u] = True, raw[v, u]
            elif measured[v, u] or known[v, u]:
                valid[v, u], w[v, u] = True, fitted[v, u]
            a, b, c = -fx * du[v, u], -fy * dv[v, u], x * du[v, u] + y * dv[v, u] - w[v, u]
            length = np.sqrt(a * a + b * b + c * c + np.float32(1e-20))
            normals[v, u, 0], normals[v, u, 1], normals[v, u, 2] = a / length, b / length, c / length
            rays[v, u, 0], rays[v, u, 1], rays[v, u, 2] = x / fx, y / fy, 1
    return valid, w, normals, rays


def median_of_some(values: Floats) -> float:
    """The median of values (N,), of evenly spaced ones where there are more than enough."""
    return float(np.median(values[:: max(1, len(values) // ENOUGH_FOR_A_MEDIAN)]))


def _noise(w: Floats, measured: Bools) -> float:
    """Standard deviation of w from second differences, which vanish on planes.

    At one and at three pixels' distance: many cameras' noise is alike in neighbouring pixels.
    """
    found = [SMALLEST_NOISE]
    for along_rows in (True, False):
        for step in (1, 3):
            second = _second_differences(w, measured, step, along_rows)
            if len(second) >= FEWEST_READINGS:
                # 1.4826: from the median absolute value to the standard deviation; 6 = 1 + 4 + 1.
                found.append(1.4826 * median_of_some(second) / np.sqrt(6.0))
    return max(found)


@compiled("float32[::1](float32[:, ::1], bool_[:, ::1], int64, bool_)")
def _second_differences(w: Floats, measured: Bools, step: int, along_rows: bool) -> Floats:
    """(N,) absolute second differences, over `step` pixels, of every second measured pixel in every third row, or of
    columns."""
    height, width = w.shape
    dy, dx = (0, step) if along_rows else (step, 0)
    found = np.empty(w.size // 2 + 1, np.float32)
    count = 0
    for v in range(0, height - 2 * dy, 3 if along_rows else 2):
        for u in range(0, width - 2 * dx, 2 if along_rows else 3):
            if measured[v, u] and measured[v + dy, u + dx] and measured[v + 2 * dy, u + 2 * dx]:
                middle = w[v + dy, u + dx]
                found[count] = abs(w[v, u] - (middle + middle) + w[v + 2 * dy, u + 2 * dx])
                count += 1
    return found[:count].copy()


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
    known = _one_sided(du, dv, centre, variance, measured, radius, noise)
    if radius < LARGEST_RADIUS:
        # The widest window reaches over holes that the small one does not.
        hole = np.flatnonzero(~(measured | known))
        if len(hole):
            wide = [image[0] for image in _window_fits(w, measured, LARGEST_RADIUS, hole)]
            whole = wide[3] < ROUGH * noise * noise + (ROUNDING_M * wide[2] * wide[2]) ** 2
            for image, values in zip((du, dv, centre), wide[:3], strict=True):
                image.ravel()[hole[whole]] = values[whole]
            known.ravel()[hole[whole]] = True
    return du.astype(np.float32), dv.astype(np.float32), centre.astype(np.float32), known


@compiled(
    "bool_[:, ::1](float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], bool_[:, ::1], int64, float64)"
)
def _one_sided(
    du: Doubles, dv: Doubles, centre: Doubles, variance: Doubles, measured: Bools, radius: int, noise: float
) -> Bools:
    """Replaces the fits of rough windows, in place, by those of the best window beside; returns where there is one."""
    height, width = variance.shape
    known = np.zeros((height, width), np.bool_)
    rough = np.empty(height * width, np.int64)
    source = np.empty(height * width, np.int64)
    count = 0
    for v in range(height):
        for u in range(width):
            flat = ROUGH * noise * noise + (ROUNDING_M * centre[v, u] * centre[v, u]) ** 2
            least = variance[v, u]
            # A pixel without a reading gets one only where its surroundings are one surface.
            believed = measured[v, u] or least < flat
            if least > flat:
                best = v * width + u
                for dy in (-radius, 0, radius):
                    for dx in (-radius, 0, radius):
                        y, x = min(max(v + dy, 0), height - 1), min(max(u + dx, 0), width - 1)
                        if variance[y, x] < least:
                            least, best = variance[y, x], y * width + x
                rough[count], source[count] = v * width + u, best
                count += 1
            known[v, u] = believed and np.isfinite(least)
    new = np.empty((count, 3))
    for n in range(count):
        v, u = rough[n] // width, rough[n] % width
        y, x = source[n] // width, source[n] % width
        new[n, 0], new[n, 1] = du[y, x], dv[y, x]
        new[n, 2] = centre[y, x] + (u - x) * du[y, x] + (v - y) * dv[y, x]
    for n in range(count):
        v, u = rough[n] // width, rough[n] % width
        du[v, u], dv[v, u], centre[v, u] = new[n, 0], new[n, 1], new[n, 2]
    return known


def _window_fits(
    w: Floats, measured: Bools, radius: int, at: npt.NDArray[np.int64] | None = None
) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Slopes, value in the middle and variance of the plane in each window, (H, W); of the pixels with index `at` (N,)
    only, (1, N).

    The variance is infinite where too little was measured.
    """
    k = np.arange(-radius, radius + 1, dtype=np.float64)
    one, square = np.ones_like(k), k * k
    mask = measured.astype(np.float32)
    value = w.astype(np.float64)  # variances are differences of large numbers

    def total(image: npt.NDArray, along_x: npt.NDArray, along_y: npt.NDArray) -> npt.NDArray:
        kind = cv2.CV_32F if image.dtype == np.float32 else cv2.CV_64F
        sums = np.asarray(cv2.sepFilter2D(image, kind, along_x, along_y, borderType=cv2.BORDER_CONSTANT))
        return sums if at is None else sums.ravel()[at][None]

    n, x, y = total(mask, one, one), total(mask, k, one), total(mask, one, k)
    xx, xy, yy = total(mask, square, one), total(mask, k, k), total(mask, one, square)
    mean, xw, yw = total(value, one, one), total(value, k, one), total(value, one, k)
    ww = total(value * value, one, one)
    return _solved(n, x, y, xx, xy, yy, mean, xw, yw, ww, one.size * one.size / 3)


@compiled(
    "UniTuple(float64[:, ::1], 4)(float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1],"
    " float32[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64)"
)
def _solved(
    n: Floats,
    x: Floats,
    y: Floats,
    xx: Floats,
    xy: Floats,
    yy: Floats,
    w: Doubles,
    xw: Doubles,
    yw: Doubles,
    ww: Doubles,
    fewest: float,
) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """`_window_fits` from the sums over each window: how many readings, sums of x, y, w and of their products."""
    du, dv, centre, variance = np.empty(w.shape), np.empty(w.shape), np.empty(w.shape), np.empty(w.shape)
    for row in range(w.shape[0]):
        for column in range(w.shape[1]):
            count = max(n[row, column], np.float32(1e-6))
            at_x, at_y, mean = x[row, column] / count, y[row, column] / count, w[row, column] / count
            var_x = xx[row, column] / count - at_x * at_x
            both = xy[row, column] / count - at_x * at_y
            var_y = yy[row, column] / count - at_y * at_y
            with_x = xw[row, column] / count - at_x * mean
            with_y = yw[row, column] / count - at_y * mean
            determinant = var_x * var_y - both * both
            unknown = count < fewest or determinant < np.float32(0.05)
            if unknown:
                determinant = np.float32(1)
            a = (with_x * var_y - with_y * both) / determinant
            b = (with_y * var_x - with_x * both) / determinant
            du[row, column], dv[row, column] = a, b
            centre[row, column] = mean - a * at_x - b * at_y
            spread = max(ww[row, column] / count - mean * mean - a * with_x - b * with_y, 0.0)
            variance[row, column] = np.inf if unknown else spread
    return du, dv, centre, variance
