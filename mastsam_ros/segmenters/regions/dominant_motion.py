"""The picture's motion when nothing in it moves on its own: robust fits of two models to dense flow.

One knows no depth (quadratic in x and y), one lets every pixel have a depth of its own (epipolar). A pixel here is
one of the motion layer's cells, 2 x 2 of the picture's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

GRID = 4
"""Pixels between the flow vectors that a model is fitted to."""
TUNING = 2.5
"""Residuals beyond this many standard deviations hardly count."""
MIN_NOISE = 0.025
"""No flow is better than this, pixels."""
QUADRATIC_ITERATIONS = 6
RING = 0.15
"""Share of the width and height, from the border, that the second start of the quadratic fit looks at."""
EPIPOLAR_SAMPLES = 600
EPIPOLAR_TRIALS = 2
EPIPOLAR_ITERATIONS = 6
COST_SCALE = 0.25
"""Epipolar errors well above this, pixels, are all equally wrong when starts are compared."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class QuadraticMotion:
    """Flow as two quadratic polynomials: exact for a plane, or for any scene under a turning camera.

    flow: (H, W, 2) float32 pixels. noise: robust standard deviation of what it leaves, pixels.
    """

    flow: npt.NDArray[np.float32]
    noise: float


@dataclass(frozen=True, eq=False)
class EpipolarFlow:
    """What the camera's turning leaves of a flow, (H, W) float32 pixels each.

    error: how far it leads off the epipolar lines, >= 0. along: how far along them, towards the epipole. reach: what
    `along` is at a point of unit inverse depth, > 0; inverse depth has a scale, a sign and, since pan or zoom can look
    the same, a zero of its own.
    """

    error: npt.NDArray[np.float32]
    along: npt.NDArray[np.float32]
    reach: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EpipolarMotion:
    """Small camera motion in a rigid scene of unknown depth: turning and zoom, and an epipole.

    turning: (6,) pixels, of pan, tilt, roll, zoom and the curvature that pan and tilt have. epipole: (3,) unit vector,
    homogeneous, centred, in image widths.
    """

    turning: Floats
    epipole: Floats

    def explain(self, flow: npt.NDArray[np.float32]) -> EpipolarFlow:
        """How `flow` (H, W, 2) lies to the epipolar lines."""
        height, width = flow.shape[:2]
        u, v = cv2.split(flow.astype(np.float64))
        # As in the fit (`_midpoints`, `_improved`), but one image for each coordinate: faster.
        x = (np.arange(width) - width / 2 + u / 2) / width
        y = (np.arange(height)[:, None] - height / 2 + v / 2) / width
        pan, tilt, roll, zoom, bend_x, bend_y = self.turning
        bend = bend_x * x + bend_y * y
        across = u - (pan - roll * y + (zoom + bend) * x)
        down = v - (tilt + roll * x + (zoom + bend) * y)
        to_x, to_y = self.epipole[0] - self.epipole[2] * x, self.epipole[1] - self.epipole[2] * y
        reach = np.sqrt(to_x * to_x + to_y * to_y + 1e-6)
        error = np.abs(to_x * down - to_y * across) / reach
        along = (to_x * across + to_y * down) / reach
        return EpipolarFlow(*(part.astype(np.float32) for part in (error, along, reach)))


@compiled("float64(float64[::1], float64[::1])")
def weighted_median(values: Floats, weight: Floats) -> float:
    """The value of (N,), N > 0, below which half of the weight (N,) lies."""
    left, heavy = values.copy(), weight.copy()
    half, below = weight.sum() / 2, 0.0
    first, last = 0, len(left)
    while last - first > 1:
        a, b, c = left[first], left[(first + last) // 2], left[last - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        # Smaller ones to the front, larger ones to the back, until the weight says on which side the answer is.
        smaller, at, larger = first, first, last
        light, same = 0.0, 0.0
        while at < larger:
            if left[at] < pivot:
                light += heavy[at]
                left[at], left[smaller] = left[smaller], left[at]
                heavy[at], heavy[smaller] = heavy[smaller], heavy[at]
                smaller += 1
                at += 1
            elif left[at] > pivot:
                larger -= 1
                left[at], left[larger] = left[larger], left[at]
                heavy[at], heavy[larger] = heavy[larger], heavy[at]
            else:
                same += heavy[at]
                at += 1
        if below + light >= half and smaller > first:
            last = smaller
        elif below + light + same >= half or larger == last:
            return pivot
        else:
            below += light + same
            first = larger
    return left[first]


@compiled("float64(float64, float64)")
def robust_weight(error: float, scale: float) -> float:
    """Geman-McClure."""
    return 1 / (1 + (error / (TUNING * scale)) ** 2) ** 2


@compiled("void(float64[:, ::1], float64[:, ::1])")
def solve(system: Floats, right: Floats) -> None:
    """Turns `right` (K, M) into the solution of a symmetric positive definite system (K, K), of which the upper half
    is read and overwritten."""
    size = len(system)
    for a in range(size):
        for b in range(a + 1, size):
            share = system[a, b] / system[a, a]
            for c in range(b, size):
                system[b, c] -= share * system[a, c]
            for m in range(right.shape[1]):
                right[b, m] -= share * right[a, m]
    for a in range(size - 1, -1, -1):
        for m in range(right.shape[1]):
            for b in range(a + 1, size):
                right[a, m] -= system[a, b] * right[b, m]
            right[a, m] /= system[a, a]


@compiled("float64[:, ::1](float64[:, ::1], float64[:, ::1], float64[::1])")
def _solved(rows: Floats, samples: Floats, weight: Floats) -> Floats:
    """(6, 2): the terms that leave the least of the samples (N, 2), rows (N, 6), weighted by (N,)."""
    system, right = np.zeros((6, 6)), np.zeros((6, 2))
    for n in range(len(rows)):
        for a in range(6):
            weighted = weight[n] * rows[n, a]
            for b in range(a, 6):
                system[a, b] += weighted * rows[n, b]
            right[a, 0] += weighted * samples[n, 0]
            right[a, 1] += weighted * samples[n, 1]
    for a in range(6):
        system[a, a] += 1e-4
    solve(system, right)
    return right


@compiled("Tuple((float64, float64[:, ::1]))(float64[:, ::1], float64[:, ::1], float64[::1], float64[::1])")
def _refined(rows: Floats, samples: Floats, prior: Floats, error: Floats) -> tuple[float, Floats]:
    """Noise and terms (6, 2) of the robust fit that starts from residuals `error` (N,)."""
    error, weight = error.copy(), np.empty(len(rows))
    terms = np.zeros((6, 2))
    for _ in range(QUADRATIC_ITERATIONS):
        scale = max(1.4826 * weighted_median(error, prior), MIN_NOISE)
        for n in range(len(rows)):
            weight[n] = prior[n] * robust_weight(error[n], scale)
        terms = _solved(rows, samples, weight)
        for n in range(len(rows)):
            across, down = samples[n, 0], samples[n, 1]
            for k in range(6):
                across -= rows[n, k] * terms[k, 0]
                down -= rows[n, k] * terms[k, 1]
            error[n] = np.sqrt(across * across + down * down)
    return max(1.4826 * weighted_median(error, prior), MIN_NOISE), terms


def fit_quadratic(flow: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]) -> QuadraticMotion:
    """Dominant motion of `flow` (H, W, 2), pixels weighted by `weight` (H, W) >= 0, the sum > 0."""
    height, width = flow.shape[:2]
    cells = (slice(GRID // 2, None, GRID), slice(GRID // 2, None, GRID))
    across = (np.arange(width) - width / 2) / width
    down = (np.arange(height) - height / 2) / width
    x, y = (values.ravel() for values in np.meshgrid(across[cells[1]], down[cells[0]]))
    rows = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    samples = flow[cells].reshape(-1, 2).astype(np.float64)
    prior = weight[cells].ravel().astype(np.float64)
    # Robust fits stop at the nearest minimum. They start from a sliding picture and from the picture's rim,
    # which what moves on its own seldom fills; the tighter answer stands.
    middle = [weighted_median(axis, prior) for axis in np.ascontiguousarray(samples.T)]
    rim = np.maximum(abs(x), abs(y) * width / height) > 0.5 - RING
    starts = _lengths(samples - middle), _lengths(samples - rows @ _solved(rows, samples, prior * rim))
    noise, terms = min((_refined(rows, samples, prior, error) for error in starts), key=lambda fit: fit[0])
    planes = []
    for c in terms.T:
        rowwise = (c[2] * down + c[5] * down**2).astype(np.float32)
        plane = (c[4] * down).astype(np.float32)[:, None] * across.astype(np.float32)
        plane += (c[0] + c[1] * across + c[3] * across**2).astype(np.float32)
        planes.append(plane + rowwise[:, None])
    return QuadraticMotion(np.asarray(cv2.merge(planes), np.float32), noise)


def _lengths(vectors: Floats) -> Floats:
    """(N,) of (N, 2)."""
    return np.sqrt(np.einsum("nc,nc->n", vectors, vectors))


def _midpoints(x: npt.NDArray, y: npt.NDArray, flow: npt.NDArray, height: int, width: int) -> Floats:
    """Where EpipolarMotion takes its flow vectors (N, 2): halfway along them, centred, in image widths, (N, 2).

    Halfway, because the second-order terms of the motion cancel there.
    """
    return np.stack([x + flow[:, 0] / 2 - width / 2, y + flow[:, 1] / 2 - height / 2], 1).astype(np.float64) / width


@compiled("UniTuple(float64, 2)(float64[::1], float64, float64)")
def _normal(epipole: Floats, x: float, y: float) -> tuple[float, float]:
    """Unit normal of the epipolar line through a point."""
    to_x, to_y = epipole[0] - epipole[2] * x, epipole[1] - epipole[2] * y
    length = np.sqrt(to_x * to_x + to_y * to_y + 1e-6)
    return -to_y / length, to_x / length


@compiled(
    "Tuple((float64, float64[::1], float64[::1]))(float64[:, ::1], float64[:, ::1], float64[::1], float64[::1], int64)"
)
def _improved(
    points: Floats, samples: Floats, prior: Floats, epipole: Floats, iterations: int
) -> tuple[float, Floats, Floats]:
    """Cost, epipole (3,) and turning (6,) after Gauss-Newton steps from an epipole (3,).

    points: (N, 2), see `_midpoints`. samples: (N, 2) flow there, weighted by prior (N,).
    """
    count = len(points)
    epipole, robust = epipole.copy(), np.ones(count)
    # One row for each sample: d(flow across the epipolar line) / d(epipole), d(turning).
    rows, target, error = np.empty((count, 6)), np.empty(count), np.empty(count)
    turning, slope = np.zeros(6), np.empty(9)
    for iteration in range(iterations + 1):
        system, right = np.zeros((6, 6)), np.zeros((6, 1))
        for n in range(count):
            x, y = points[n, 0], points[n, 1]
            normal_x, normal_y = _normal(epipole, x, y)
            # Flow of pan, tilt, roll, zoom and, since the focal length is unknown, pan and tilt's curvature.
            rows[n, 0], rows[n, 1] = normal_x, normal_y
            rows[n, 2], rows[n, 3] = normal_y * x - normal_x * y, normal_x * x + normal_y * y
            rows[n, 4], rows[n, 5] = rows[n, 3] * x, rows[n, 3] * y
            target[n] = normal_x * samples[n, 0] + normal_y * samples[n, 1]
            for a in range(6):
                weighted = prior[n] * robust[n] * rows[n, a]
                for b in range(a, 6):
                    system[a, b] += weighted * rows[n, b]
                right[a, 0] += weighted * target[n]
        for a in range(6):
            system[a, a] += 1e-6
        solve(system, right)
        turning = right[:, 0].copy()
        for n in range(count):
            error[n] = target[n]
            for k in range(6):
                error[n] -= rows[n, k] * turning[k]
        scale = max(1.4826 * weighted_median(np.abs(error), prior), MIN_NOISE)
        if iteration == iterations:
            break
        system, right = np.zeros((9, 9)), np.zeros((9, 1))
        for n in range(count):
            robust[n] = robust_weight(error[n], scale)
            x, y = points[n, 0], points[n, 1]
            normal_x, normal_y = _normal(epipole, x, y)
            # The normal turns with the epipole: d(error)/d(epipole) = -(flow along the line) x d(angle).
            along_x, along_y = epipole[0] - epipole[2] * x, epipole[1] - epipole[2] * y
            squared = along_x * along_x + along_y * along_y + 1e-6
            zoom = turning[3] + turning[4] * x + turning[5] * y
            left_x = samples[n, 0] - (turning[0] - turning[2] * y + zoom * x)
            left_y = samples[n, 1] - (turning[1] + turning[2] * x + zoom * y)
            parallax = normal_y * left_x - normal_x * left_y
            slope[0], slope[1] = parallax * along_y / squared, -parallax * along_x / squared
            slope[2] = -(slope[0] * x + slope[1] * y)
            for k in range(6):
                slope[3 + k] = -rows[n, k]
            for a in range(9):
                weighted = prior[n] * robust[n] * slope[a]
                for b in range(a, 9):
                    system[a, b] += weighted * slope[b]
                right[a, 0] += weighted * error[n]
        # Along the epipole itself nothing changes; the small second term keeps it put where nothing tells.
        for a in range(3):
            for b in range(3):
                system[a, b] += scale**2 * 1e4 * epipole[a] * epipole[b]
            system[a, a] += scale**2 * 1e-5 * count
        for a in range(3, 9):
            system[a, a] += 1e-6
        solve(system, right)
        epipole = epipole - right[:3, 0]
        epipole /= np.sqrt((epipole * epipole).sum())
    cost = 0.0
    for n in range(count):
        cost += prior[n] * error[n] ** 2 / (error[n] ** 2 + COST_SCALE**2)
    return cost, epipole, turning


def fit_epipolar(
    flow: npt.NDArray[np.float32], weight: npt.NDArray, start: EpipolarMotion | None = None
) -> EpipolarMotion:
    """The rigid motion that most of `flow` (H, W, 2) agrees with, pixels weighted by `weight` (H, W) >= 0.

    start: the answer for the previous frame, tried first. Gauss-Newton over epipole and turning with
    robust weights from several epipoles; cf. Heeger and Jepson, Subspace methods for recovering rigid
    motion, IJCV 1992.
    """
    height, width = flow.shape[:2]
    step = max(GRID, round(np.sqrt(height * width / EPIPOLAR_SAMPLES)))
    cells = (slice(step // 2, None, step), slice(step // 2, None, step))
    y, x = np.mgrid[cells[0].start : height : step, cells[1].start : width : step]
    samples = flow[cells].reshape(-1, 2).astype(np.float64)
    points = _midpoints(x.ravel(), y.ravel(), samples, height, width)
    prior = weight[cells].ravel() + np.float64(1e-6)
    epipoles = [np.array([np.cos(a), np.sin(a), 0]) for a in np.arange(4) * np.pi / 4] + [np.array([0, 0, 1.0])]
    if start is not None:
        epipoles.insert(0, start.epipole)
    trials = [_improved(points, samples, prior, epipole, EPIPOLAR_TRIALS) for epipole in epipoles]
    trials.sort(key=lambda trial: trial[0])
    better = (_improved(points, samples, prior, trial[1], EPIPOLAR_ITERATIONS) for trial in trials[:2])
    best = min(better, key=lambda trial: trial[0])
    return EpipolarMotion(best[2], best[1])
