"""How the camera moved between two depth images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.types import InputError

MIN_POINTS = 12
"""Fewer common points do not fix a motion that anyone should rely on."""
HYPOTHESES = 128
"""Minimal samples: with half of the points wrong, one of 38 is free of error, so about 3 are."""
SCORED_POINTS = 1000
OUTLIER_SIGMAS = 3.0
REFINEMENTS = 15
CONVERGED = 1e-7


@dataclass(frozen=True, eq=False)
class RelativePose:
    """A rigid motion between two views.

    T: (4, 4) float64, maps points of view 1 into view 0. inliers: (N,) bool. rms: metres, root mean square
    distance of the inliers after alignment. share: inliers / N.
    """

    T: npt.NDArray[np.float64]
    inliers: npt.NDArray[np.bool_]
    rms: float

    @property
    def share(self) -> float:
        """Share of the points that follow the motion."""
        return float(self.inliers.mean())


def relative_pose(
    points0: npt.NDArray,
    points1: npt.NDArray,
    weights: npt.NDArray | None = None,
    direction_noise: float = 0.002,
    inverse_depth_noise: float = 0.001,
) -> RelativePose | None:
    """Rigid alignment of N pairs of points seen by depth cameras; None if they do not agree on one.

    points0, points1: (N, 3) metres, the same places in the optical frames of two views, z > 0; pairs that are
    not finite count as outliers. weights: (N,) >= 0, confidence of each pair. direction_noise: standard
    deviation of x/z and y/z (1 / focal length: one pixel). inverse_depth_noise: that of 1/z, 1/m.

    RANSAC over minimal Procrustes alignments, then robust least squares. Both measure errors in
    (x/z, y/z, 1/z), where the noise of a depth camera is the same at every distance, unlike in metres.
    Deterministic. Raises InputError if the shapes disagree.
    """
    points0 = np.asarray(points0, np.float64)
    points1 = np.asarray(points1, np.float64)
    if points0.ndim != 2 or points0.shape[1] != 3 or points0.shape != points1.shape:
        raise InputError(f"points must be two arrays (N, 3), got {points0.shape} and {points1.shape}")
    confidence = np.ones(len(points0)) if weights is None else np.asarray(weights, np.float64)
    if confidence.shape != (len(points0),):
        raise InputError(f"weights must be ({len(points0)},), got {confidence.shape}")
    usable = np.isfinite(points0).all(1) & np.isfinite(points1).all(1) & (confidence > 0)
    usable[usable] = (points0[usable, 2] > 0) & (points1[usable, 2] > 0)
    if usable.sum() < MIN_POINTS:
        return None
    source, target, confidence = points1[usable], points0[usable], confidence[usable]
    sigma = np.array([direction_noise, direction_noise, inverse_depth_noise])
    measured = _projected(target) / sigma
    T = _best_sample(source, target, measured, sigma)
    for start in range(2):
        inlying = _squared_error(T, source, measured, sigma) < 3 * OUTLIER_SIGMAS**2
        if inlying.sum() < MIN_POINTS:
            return None
        if start == 0:
            T = _procrustes(source[inlying][None], target[inlying][None], confidence[inlying][None])[0]
    T = _refine(T, source, measured, sigma, confidence)
    inlying = _squared_error(T, source, measured, sigma) < 3 * OUTLIER_SIGMAS**2
    if inlying.sum() < MIN_POINTS:
        return None
    moved = source[inlying] @ T[:3, :3].T + T[:3, 3]
    inliers = np.zeros(len(points0), bool)
    inliers[usable] = inlying
    return RelativePose(T, inliers, float(np.sqrt(np.mean(np.sum((moved - target[inlying]) ** 2, 1)))))


def camera_motion(
    xy0: npt.NDArray,
    xy1: npt.NDArray,
    depth0: npt.NDArray[np.float32],
    depth1: npt.NDArray[np.float32],
    K0: npt.NDArray[np.float64],
    K1: npt.NDArray[np.float64],
    weights: npt.NDArray | None = None,
    noise: float = 0.001,
) -> RelativePose | None:
    """`T_previous_current` from matches between two depth images: `relative_pose` of what they show.

    xy0, xy1: (N, 2) pixels in the previous and the current image. depth0, depth1: (H, W) metres, 0 = none.
    K0, K1: (3, 3). weights: (N,) or None. noise: standard deviation of inverse depth, 1/m. `inliers` has one entry
    per match; matches without depth are no inliers.
    """
    points0, points1 = _lifted(xy0, depth0, K0), _lifted(xy1, depth1, K1)
    return relative_pose(points0, points1, weights, 1 / float(K0[0, 0]), max(noise, 1e-4) * np.sqrt(2.0))


def _lifted(xy: npt.NDArray, depth: npt.NDArray[np.float32], K: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, 3) points of pixels (N, 2), NaN without depth. Depth is sampled: averages across edges are nowhere."""
    xy = np.asarray(xy, np.float64).reshape(-1, 2)
    points = np.full((len(xy), 3), np.nan)
    height, width = depth.shape
    column, row = np.rint(np.nan_to_num(xy, nan=-1, posinf=-1, neginf=-1)).astype(np.int64).T
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    z = np.zeros(len(xy))
    z[inside] = depth[row[inside], column[inside]]
    good = np.isfinite(z) & (z > 0)
    points[good, 0] = (xy[good, 0] - K[0, 2]) / K[0, 0] * z[good]
    points[good, 1] = (xy[good, 1] - K[1, 2]) / K[1, 1] * z[good]
    points[good, 2] = z[good]
    return points


def _projected(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(..., 3): (x/z, y/z, 1/z); what is behind the camera lies at a distance that nothing else has."""
    z = np.maximum(points[..., 2:], 1e-3)
    return np.concatenate([points[..., :2], np.ones_like(z)], -1) / z


def _squared_error(
    T: npt.NDArray[np.float64], source: npt.NDArray[np.float64], measured: npt.NDArray, sigma: npt.NDArray
) -> npt.NDArray[np.float64]:
    """(..., N): squared error in units of the noise, for one transform (4, 4) or several (..., 4, 4)."""
    moved = T[..., :3, :3] @ source.T + T[..., :3, 3:]
    z = np.maximum(moved[..., 2, :], 1e-3)
    squared = [
        (coordinate / z / scale - there) ** 2
        for coordinate, scale, there in zip((moved[..., 0, :], moved[..., 1, :], 1.0), sigma, measured.T, strict=True)
    ]
    return squared[0] + squared[1] + squared[2]


def _procrustes(source: npt.NDArray, target: npt.NDArray, weights: npt.NDArray) -> npt.NDArray[np.float64]:
    """(B, 4, 4): rigid transforms that best map (B, M, 3) onto (B, M, 3) with weights (B, M)."""
    share = (weights / weights.sum(1, keepdims=True))[..., None]
    centre0, centre1 = (share * source).sum(1), (share * target).sum(1)
    covariance = np.swapaxes(share * (source - centre0[:, None]), 1, 2) @ (target - centre1[:, None])
    u, _, vt = np.linalg.svd(covariance)
    # A reflection would fit a flat or noisy sample as well; turn it into the nearest rotation.
    u[..., -1] *= np.sign(np.linalg.det(u @ vt))[:, None]
    R = np.swapaxes(u @ vt, 1, 2)
    T = np.tile(np.eye(4), (len(source), 1, 1))
    T[:, :3, :3] = R
    T[:, :3, 3] = centre1 - np.einsum("bij,bj->bi", R, centre0)
    return T


def _best_sample(
    source: npt.NDArray[np.float64], target: npt.NDArray[np.float64], measured: npt.NDArray, sigma: npt.NDArray
) -> npt.NDArray[np.float64]:
    """The alignment of three pairs, or rest, that most pairs follow; errors are cut off, not counted (MSAC)."""
    generator = np.random.default_rng(0)
    samples = generator.integers(0, len(source), (HYPOTHESES, 3))
    samples = samples[
        (samples[:, 0] != samples[:, 1]) & (samples[:, 1] != samples[:, 2]) & (samples[:, 0] != samples[:, 2])
    ]
    T = np.concatenate([np.eye(4)[None], _procrustes(source[samples], target[samples], np.ones(samples.shape))])
    scored = np.sort(generator.permutation(len(source))[:SCORED_POINTS])
    # Three noisy points give a rough transform: judge it with twice the tolerance.
    limit = 4 * 3 * OUTLIER_SIGMAS**2
    return T[_cheapest(T, source[scored], measured[scored], sigma, limit)]


@compiled("int64(float64[:, :, ::1], float64[:, ::1], float64[:, ::1], float64[::1], float64)")
def _cheapest(
    T: npt.NDArray[np.float64],
    source: npt.NDArray[np.float64],
    measured: npt.NDArray[np.float64],
    sigma: npt.NDArray[np.float64],
    limit: float,
) -> int:
    """Which of the transforms (B, 4, 4) leaves the smallest sum of squared errors, each cut off at the limit."""
    best, least = 0, np.inf
    for b in range(len(T)):
        cost = 0.0
        for n in range(len(source)):
            x, y, z = T[b, 0, 3], T[b, 1, 3], T[b, 2, 3]
            for c in range(3):
                x += T[b, 0, c] * source[n, c]
                y += T[b, 1, c] * source[n, c]
                z += T[b, 2, c] * source[n, c]
            z = max(z, 1e-3)
            error = (x / z / sigma[0] - measured[n, 0]) ** 2 + (y / z / sigma[1] - measured[n, 1]) ** 2
            cost += min(error + (1 / z / sigma[2] - measured[n, 2]) ** 2, limit)
            if cost >= least:
                break
        if cost < least:
            best, least = b, cost
    return best


@compiled("void(float64[:, ::1], float64[::1], float64[::1], float64[::1], float64, float64)")
def add_error(
    normal: npt.NDArray[np.float64],
    slope: npt.NDArray[np.float64],
    point: npt.NDArray[np.float64],
    change: npt.NDArray[np.float64],
    error: float,
    weight: float,
) -> None:
    """Adds one weighted error to the normal equations (6, 6) and (6,) of a small motion, see `rigid_motion`.

    point: (3,), the moved point; change: (3,), how much the error grows as the point moves.
    """
    row = (
        point[1] * change[2] - point[2] * change[1],
        point[2] * change[0] - point[0] * change[2],
        point[0] * change[1] - point[1] * change[0],
        change[0],
        change[1],
        change[2],
    )
    for a in range(6):
        slope[a] += weight * row[a] * error
        for b in range(6):
            normal[a, b] += weight * row[a] * row[b]


@compiled(
    "Tuple((float64[:, ::1], float64[::1]))(float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1],"
    " float64[::1])"
)
def _normal_equations(
    T: npt.NDArray[np.float64],
    source: npt.NDArray[np.float64],
    measured: npt.NDArray[np.float64],
    sigma: npt.NDArray[np.float64],
    confidence: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of the errors that `_refine` makes small, at T: (6, 6) and (6,)."""
    normal, slope = np.zeros((6, 6)), np.zeros(6)
    point, change, error = np.empty(3), np.empty(3), np.empty(3)
    for n in range(len(source)):
        for a in range(3):
            point[a] = T[a, 3]
            for b in range(3):
                point[a] += T[a, b] * source[n, b]
        w = 1 / max(point[2], 1e-3)
        x, y = point[0] * w, point[1] * w
        error[0] = x / sigma[0] - measured[n, 0]
        error[1] = y / sigma[1] - measured[n, 1]
        error[2] = w / sigma[2] - measured[n, 2]
        squared = error[0] ** 2 + error[1] ** 2 + error[2] ** 2
        weight = confidence[n] / (1 + squared / (3 * OUTLIER_SIGMAS**2)) ** 2
        # Slopes of x/z, y/z, 1/z along the moved point's coordinates.
        change[0], change[1], change[2] = w / sigma[0], 0.0, -x * w / sigma[0]
        add_error(normal, slope, point, change, error[0], weight)
        change[0], change[1], change[2] = 0.0, w / sigma[1], -y * w / sigma[1]
        add_error(normal, slope, point, change, error[1], weight)
        change[1], change[2] = 0.0, -w * w / sigma[2]
        add_error(normal, slope, point, change, error[2], weight)
    return normal, slope


def _refine(
    T: npt.NDArray[np.float64],
    source: npt.NDArray[np.float64],
    measured: npt.NDArray,
    sigma: npt.NDArray,
    confidence: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Gauss-Newton over the errors in (x/z, y/z, 1/z), reweighted after Geman and McClure."""
    for _ in range(REFINEMENTS):
        normal, slope = _normal_equations(T, source, measured, sigma, confidence)
        step = -np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(6), slope)
        T = rigid_motion(step) @ T
        if np.abs(step).max() < CONVERGED:
            break
    return T


def rigid_motion(step: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(4, 4): rotation about the origin by the vector step[:3] (radians), then a shift by step[3:]."""
    angle = float(np.linalg.norm(step[:3]))
    x, y, z = step[:3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    T = np.eye(4)
    # sinc keeps small angles exact.
    T[:3, :3] += np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross
    T[:3, 3] = step[3:]
    return T
