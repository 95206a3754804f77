"""The picture's motion when nothing in it moves on its own: robust fits of two models to dense flow.

One knows no depth (quadratic in x and y), one lets every pixel have a depth of its own (epipolar).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

GRID = 6
"""Pixels between the flow vectors that a model is fitted to."""
TUNING = 2.5
"""Residuals beyond this many standard deviations hardly count."""
MIN_NOISE = 0.05
"""No flow is better than this, pixels."""
QUADRATIC_ITERATIONS = 6
RING = 0.15
"""Share of the width and height, from the border, that the second start of the quadratic fit looks at."""
EPIPOLAR_SAMPLES = 600
EPIPOLAR_TRIALS = 2
EPIPOLAR_ITERATIONS = 6
COST_SCALE = 0.5
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
class EpipolarMotion:
    """Small camera motion in a rigid scene of unknown depth: turning and zoom, and an epipole.

    turning: (6,) pixels, see `_turning_basis`. epipole: (3,) unit vector, homogeneous, centred, in image widths.
    """

    turning: Floats
    epipole: Floats

    def errors(self, flow: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """How far `flow` (H, W, 2) is from the epipolar lines, (H, W) float32 pixels >= 0."""
        height, width = flow.shape[:2]
        half = cv2.resize(flow, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
        u, v = cv2.split(half.astype(np.float64))
        # As in the fit (`_midpoints`, `_turning_basis`, `_normals`), but one image for each coordinate: faster.
        x = (np.arange(half.shape[1]) * 2 + 0.5 - width / 2 + u / 2) / width
        y = ((np.arange(half.shape[0]) * 2 + 0.5)[:, None] - height / 2 + v / 2) / width
        pan, tilt, roll, zoom, bend_x, bend_y = self.turning
        bend = bend_x * x + bend_y * y
        across = u - (pan - roll * y + (zoom + bend) * x)
        down = v - (tilt + roll * x + (zoom + bend) * y)
        to_x, to_y = self.epipole[0] - self.epipole[2] * x, self.epipole[1] - self.epipole[2] * y
        error = np.abs(to_x * down - to_y * across) / np.sqrt(to_x * to_x + to_y * to_y + 1e-6)
        return cv2.resize(error.astype(np.float32), (width, height))


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
    middle = [weighted_median(samples[:, axis], prior) for axis in (0, 1)]
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


def _solved(rows: Floats, samples: Floats, weight: npt.NDArray) -> Floats:
    weighted = rows * weight[:, None]
    return np.linalg.solve(weighted.T @ rows + 1e-4 * np.eye(rows.shape[1]), weighted.T @ samples)


def _refined(rows: Floats, samples: Floats, prior: Floats, error: Floats) -> tuple[float, Floats]:
    """Noise and terms of the robust fit that starts from residuals `error`."""
    for _ in range(QUADRATIC_ITERATIONS):
        scale = max(1.4826 * weighted_median(error, prior), MIN_NOISE)
        terms = _solved(rows, samples, prior * _robust_weight(error, scale))
        error = _lengths(samples - rows @ terms)
    return max(1.4826 * weighted_median(error, prior), MIN_NOISE), terms


def _midpoints(x: npt.NDArray, y: npt.NDArray, flow: npt.NDArray, height: int, width: int) -> Floats:
    """Where EpipolarMotion takes its flow vectors (N, 2): halfway along them, centred, in image widths, (N, 2).

    Halfway, because the second-order terms of the motion cancel there.
    """
    return np.stack([x + flow[:, 0] / 2 - width / 2, y + flow[:, 1] / 2 - height / 2], 1).astype(np.float64) / width


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
    prior = weight[cells].ravel() + 1e-6
    basis = _turning_basis(points)
    epipoles = [np.array([np.cos(a), np.sin(a), 0]) for a in np.arange(4) * np.pi / 4] + [np.array([0, 0, 1.0])]
    if start is not None:
        epipoles.insert(0, start.epipole)

    def improved(epipole: Floats, iterations: int) -> tuple[float, Floats, Floats]:
        robust = np.ones(len(points))
        for iteration in range(iterations + 1):
            normals, along = _normals(epipole, points)
            rows = np.einsum("nc,nck->nk", normals, basis)
            target = np.einsum("nc,nc->n", normals, samples)
            weighted = rows * (prior * robust)[:, None]
            turning = np.linalg.solve(weighted.T @ rows + 1e-6 * np.eye(6), weighted.T @ target)
            error = target - rows @ turning
            scale = max(1.4826 * weighted_median(np.abs(error), prior), MIN_NOISE)
            if iteration == iterations:
                break
            robust = _robust_weight(error, scale)
            # The normal turns with the epipole: d(error)/d(epipole) = -(flow along the line) x d(angle).
            sideways = along @ np.array([[0.0, 1.0], [-1.0, 0.0]])  # along turned by 90 degrees, per distance
            slope = np.column_stack([sideways, -np.einsum("nc,nc->n", sideways, points)])
            tangent = normals @ np.array([[0.0, -1.0], [1.0, 0.0]])
            parallax = np.einsum("nc,nc->n", tangent, samples - basis @ turning)
            jacobian = np.hstack([-parallax[:, None] * slope, -rows])
            weighted = jacobian * (prior * robust)[:, None]
            system = weighted.T @ jacobian
            # Along the epipole itself nothing changes; the small second term keeps it put where nothing tells.
            system[:3, :3] += scale**2 * (1e4 * np.outer(epipole, epipole) + 1e-5 * len(points) * np.eye(3))
            system[3:, 3:] += 1e-6 * np.eye(6)
            epipole = epipole - np.linalg.solve(system, weighted.T @ error)[:3]
            epipole /= np.linalg.norm(epipole)
        cost = float((prior * error**2 / (error**2 + COST_SCALE**2)).sum())
        return cost, epipole, turning

    trials = sorted((improved(epipole, EPIPOLAR_TRIALS) for epipole in epipoles), key=lambda trial: trial[0])
    best = min((improved(trial[1], EPIPOLAR_ITERATIONS) for trial in trials[:2]), key=lambda trial: trial[0])
    return EpipolarMotion(best[2], best[1])


def weighted_median(values: npt.NDArray, weight: npt.NDArray) -> float:
    """The value below which half of the weight lies."""
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(cumulative, cumulative[-1] / 2)]])


def _robust_weight(error: Floats, scale: float) -> Floats:
    """Geman-McClure."""
    return 1 / (1 + (error / (TUNING * scale)) ** 2) ** 2


def _turning_basis(points: Floats) -> Floats:
    """(N, 2, 6): flow of pan, tilt, roll, zoom and, since the focal length is unknown, pan and tilt's curvature."""
    x, y = points.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    across = np.stack([one, zero, -y, x, x * x, x * y], 1)
    down = np.stack([zero, one, x, y, x * y, y * y], 1)
    return np.stack([across, down], 1)


def _normals(epipole: Floats, points: Floats) -> tuple[Floats, Floats]:
    """Unit normals of the epipolar lines through `points`, and the lines' directions over the distance, (N, 2) each."""
    direction = epipole[:2] - epipole[2] * points
    squared = (direction**2).sum(1) + 1e-6
    normals = np.stack([-direction[:, 1], direction[:, 0]], 1) / np.sqrt(squared)[:, None]
    return normals, direction / squared[:, None]
