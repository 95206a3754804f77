"""Cameras and points from where the points are seen: triangulation, resection, and bundle adjustment.

Directions are (x/z, y/z) in a camera's optical frame; `T_camera_world` maps points of the world into a camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.geometry.pose import rigid_motion

Floats = npt.NDArray[np.float64]

_NEAREST = 1e-3
"""What is nearer than this, in the world's unit, counts as behind the camera."""
_DAMPING, _LEAST_DAMPING = 1e-4, 1e-9
_GAIN = 1e-3
"""Share of its cost by which a step must improve the bundle for another one to follow."""
_CONVERGED = 1e-6
_LEAST_VIEWS = 2


@dataclass(frozen=True, eq=False)
class Bundle:
    """C cameras that see P points. T_camera_world: (C, 4, 4). points: (P, 3). directions: (C, P, 2). seen: (C, P)."""

    T_camera_world: Floats
    points: Floats
    directions: Floats
    seen: npt.NDArray[np.bool_]

    def errors(self) -> Floats:
        """(C, P) distance between where points are seen and where they should be; infinite where one is not seen or
        behind the camera."""
        moved = _moved(self.T_camera_world, self.points)
        error = np.linalg.norm(moved[..., :2] / np.maximum(moved[..., 2:], _NEAREST) - self.directions, axis=2)
        return np.where(self.seen & (moved[..., 2] > _NEAREST), error, np.inf)


def directions_of(xy: npt.NDArray, K: Floats) -> Floats:
    """(N, 2) of pixels (N, 2)."""
    return (np.asarray(xy, np.float64) - K[:2, 2]) / (K[0, 0], K[1, 1])


def triangulate(first: Floats, second: Floats, T_first_world: Floats, T_second_world: Floats) -> tuple[Floats, Floats]:
    """Points (N, 3) of the world that two cameras see in directions (N, 2), and the angles (N,) between the two rays.

    T_first_world, T_second_world: (4, 4) or (N, 4, 4). The point nearest to both rays; NaN where that is behind one of
    them or the rays are parallel.
    """
    centre = [-np.swapaxes(T[..., :3, :3], -1, -2) @ T[..., :3, 3, None] for T in (T_first_world, T_second_world)]
    start, end = (np.broadcast_to(c[..., 0], (len(first), 3)) for c in centre)
    a, b = (
        np.einsum("...ji,...j->...i", np.broadcast_to(T[..., :3, :3], (len(d), 3, 3)), _rays(d))
        for T, d in ((T_first_world, first), (T_second_world, second))
    )
    apart = end - start
    cosine = np.einsum("ni,ni->n", a, b)
    rest = np.maximum(1 - cosine * cosine, 1e-12)
    along, across = np.einsum("ni,ni->n", a, apart), np.einsum("ni,ni->n", b, apart)
    s, t = (along - cosine * across) / rest, (cosine * along - across) / rest
    points = 0.5 * (start + s[:, None] * a + end + t[:, None] * b)
    points[(s < _NEAREST) | (t < _NEAREST)] = np.nan
    return points, np.arccos(np.clip(cosine, -1, 1))


def turned(first: Floats, second: Floats, noise: float) -> tuple[Floats, Floats]:
    """The rotation (3, 3) that best takes directions (N, 2) into others, robustly, and the angles (N,) it leaves."""
    a, b = _rays(first), _rays(second)
    weight = np.ones(len(a))
    for _ in range(4):
        u, _, vt = np.linalg.svd((b * weight[:, None]).T @ a)
        R = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
        left = np.linalg.norm(a @ R.T - b, axis=1)
        weight = 1 / (1 + (left / max(float(np.median(left)), noise)) ** 2) ** 2
    return R, left


def resect(points: Floats, directions: Floats, T_camera_world: Floats, noise: float, iterations: int = 10) -> Floats:
    """`T_camera_world` (4, 4) of a camera that sees points (N, 3) in directions (N, 2): robust Gauss-Newton.

    noise: of directions; what errs by several times that hardly counts (Geman and McClure).
    """
    T = T_camera_world
    for iteration in range(iterations):
        moved = points @ T[:3, :3].T + T[:3, 3]
        residual, jacobian = _slopes(moved, directions)
        limit = noise * (8 if iteration < 3 else 3)
        weight = (moved[:, 2] > _NEAREST) / (1 + (residual**2).sum(1) / limit**2) ** 2
        weighted = (jacobian * weight[:, None, None]).reshape(-1, 6)
        normal = weighted.T @ jacobian.reshape(-1, 6)
        normal += (1e-9 * np.trace(normal) + 1e-12) * np.eye(6)
        step = -np.linalg.solve(normal, weighted.T @ residual.ravel())
        T = rigid_motion(step) @ T
        if np.abs(step).max() < _CONVERGED:
            break
    return T


def adjust(bundle: Bundle, held: int, noise: float, iterations: int = 8) -> Bundle:
    """The bundle with cameras and points moved so that they agree best with what is seen.

    held: the first so many cameras keep their place; two fix the scale as well. noise: of directions; robust as in
    `resect`. Levenberg-Marquardt over the cameras alone, the points being eliminated (Schur complement). Triggs et al.,
    Bundle adjustment - a modern synthesis, 2000. Points that fewer than two cameras see stay where they are.
    """
    T, points = bundle.T_camera_world.copy(), bundle.points.copy()
    directions, seen = np.ascontiguousarray(bundle.directions), np.ascontiguousarray(bundle.seen)
    useful = seen.sum(axis=0) >= _LEAST_VIEWS
    damping, limit = _DAMPING, 3 * noise
    cost = _cost(T, points, directions, seen, limit)
    for _ in range(iterations):
        U, V, W, b, c = _normal_equations(T, points, directions, seen, limit)
        improved = False
        for _ in range(4):
            S, right, inverse = _reduced(U, V, W, b, c, useful, held, damping)
            camera_step: Floats = np.asarray(np.linalg.solve(S, right), np.float64).reshape(-1, 6)
            new_points = _moved_points(points, W, c, inverse, camera_step, held)
            new_T = T.copy()
            for k, step in enumerate(camera_step, start=held):
                new_T[k] = rigid_motion(step) @ T[k]
            new_cost = _cost(new_T, new_points, directions, seen, limit)
            if new_cost < cost:
                improved = new_cost < cost * (1 - _GAIN)
                T, points, cost = new_T, new_points, new_cost
                damping = max(damping / 5, _LEAST_DAMPING)
                break
            damping *= 10
        if not improved:
            break
    return Bundle(T, points, bundle.directions, bundle.seen)


def _rays(directions: Floats) -> Floats:
    """(N, 3) unit vectors of directions (N, 2)."""
    rays = np.column_stack([directions, np.ones(len(directions))])
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _moved(T: Floats, points: Floats) -> Floats:
    """(C, P, 3): points (P, 3) in the frames of cameras (C, 4, 4)."""
    return np.einsum("cij,pj->cpi", T[:, :3, :3], points) + T[:, None, :3, 3]


def _slopes(moved: Floats, directions: Floats) -> tuple[Floats, Floats]:
    """Errors (N, 2) of directions, and their slopes (N, 2, 6) along the camera's turn and shift; moved: (N, 3)."""
    x, y = moved[:, 0], moved[:, 1]
    w = 1 / np.maximum(moved[:, 2], _NEAREST)
    zero = np.zeros_like(w)
    slopes = np.stack([w, zero, -x * w * w, zero, w, -y * w * w], 1).reshape(-1, 2, 3)
    return np.stack([x * w, y * w], 1) - directions, np.concatenate([np.cross(moved[:, None], slopes), slopes], 2)


@compiled("float64(float64[:, :, ::1], float64[:, ::1], float64[:, :, ::1], boolean[:, ::1], float64)")
def _cost(T: Floats, points: Floats, directions: Floats, seen: npt.NDArray[np.bool_], limit: float) -> float:
    """The sum of the robust errors; what is behind a camera costs as much as any outlier."""
    cost = 0.0
    for k in range(len(T)):
        for p in range(len(points)):
            if not seen[k, p]:
                continue
            x, y, z = points[p]
            depth = T[k, 2, 0] * x + T[k, 2, 1] * y + T[k, 2, 2] * z + T[k, 2, 3]
            if depth <= _NEAREST:
                cost += 1
                continue
            squared = 0.0
            for row in range(2):
                across = T[k, row, 0] * x + T[k, row, 1] * y + T[k, row, 2] * z + T[k, row, 3]
                squared += (across / depth - directions[k, p, row]) ** 2
            squared /= limit * limit
            cost += squared / (1 + squared)
    return cost


@compiled(
    "Tuple((float64[:, :, ::1], float64[:, :, ::1], float64[:, :, :, ::1], float64[:, ::1], float64[:, ::1]))"
    "(float64[:, :, ::1], float64[:, ::1], float64[:, :, ::1], boolean[:, ::1], float64)"
)
def _normal_equations(
    T: Floats, points: Floats, directions: Floats, seen: npt.NDArray[np.bool_], limit: float
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Blocks of the weighted normal equations: cameras U (C, 6, 6), points V (P, 3, 3), both W (C, P, 6, 3), and the
    right-hand sides b (C, 6), c (P, 3)."""
    cameras, number = seen.shape
    U, V = np.zeros((cameras, 6, 6)), np.zeros((number, 3, 3))
    W = np.zeros((cameras, number, 6, 3))
    b, c = np.zeros((cameras, 6)), np.zeros((number, 3))
    slope = np.zeros(6)
    along = np.zeros(3)
    errors = np.zeros(2)
    for k in range(cameras):
        for p in range(number):
            if not seen[k, p]:
                continue
            x = T[k, 0, 0] * points[p, 0] + T[k, 0, 1] * points[p, 1] + T[k, 0, 2] * points[p, 2] + T[k, 0, 3]
            y = T[k, 1, 0] * points[p, 0] + T[k, 1, 1] * points[p, 1] + T[k, 1, 2] * points[p, 2] + T[k, 1, 3]
            z = T[k, 2, 0] * points[p, 0] + T[k, 2, 1] * points[p, 1] + T[k, 2, 2] * points[p, 2] + T[k, 2, 3]
            if z <= _NEAREST:
                continue
            u, v = x / z, y / z
            errors[0], errors[1] = u - directions[k, p, 0], v - directions[k, p, 1]
            squared = (errors[0] ** 2 + errors[1] ** 2) / (limit * limit)
            weight = 1 / (1 + squared) ** 2
            for row in range(2):
                # Of x/z or y/z along the camera's turn (cross product) and shift, which is also along the point.
                if row == 0:
                    slope[3], slope[4], slope[5] = 1 / z, 0.0, -u / z
                else:
                    slope[3], slope[4], slope[5] = 0.0, 1 / z, -v / z
                slope[0] = y * slope[5] - z * slope[4]
                slope[1] = z * slope[3] - x * slope[5]
                slope[2] = x * slope[4] - y * slope[3]
                for j in range(3):
                    along[j] = slope[3] * T[k, 0, j] + slope[4] * T[k, 1, j] + slope[5] * T[k, 2, j]
                for i in range(6):
                    for j in range(6):
                        U[k, i, j] += weight * slope[i] * slope[j]
                    for j in range(3):
                        W[k, p, i, j] += weight * slope[i] * along[j]
                    b[k, i] -= weight * slope[i] * errors[row]
                for i in range(3):
                    for j in range(3):
                        V[p, i, j] += weight * along[i] * along[j]
                    c[p, i] -= weight * along[i] * errors[row]
    return U, V, W, b, c


@compiled(
    "Tuple((float64[:, ::1], float64[::1], float64[:, :, ::1]))(float64[:, :, ::1], float64[:, :, ::1],"
    " float64[:, :, :, ::1], float64[:, ::1], float64[:, ::1], boolean[::1], int64, float64)"
)
def _reduced(
    U: Floats, V: Floats, W: Floats, b: Floats, c: Floats, useful: npt.NDArray[np.bool_], held: int, damping: float
) -> tuple[Floats, Floats, Floats]:
    """The equations of the cameras that are not held, the points being eliminated: matrix, right-hand side; and the
    inverse (P, 3, 3) of each point's damped block, zero for points that stay."""
    cameras, number = W.shape[:2]
    free = cameras - held
    S, right = np.zeros((6 * free, 6 * free)), np.zeros(6 * free)
    inverse = np.zeros((number, 3, 3))
    for k in range(free):
        for i in range(6):
            right[6 * k + i] = b[held + k, i]
            for j in range(6):
                S[6 * k + i, 6 * k + j] = U[held + k, i, j]
            S[6 * k + i, 6 * k + i] += damping * U[held + k, i, i] + 1e-12
    carried = np.zeros((6, 3))
    for p in range(number):
        if not useful[p]:
            continue
        block = V[p].copy()
        for i in range(3):
            block[i, i] += damping * block[i, i] + 1e-12
        inverse[p] = np.linalg.inv(block)
        for k in range(free):
            if W[held + k, p, 3, 0] == 0 and W[held + k, p, 3, 1] == 0 and W[held + k, p, 3, 2] == 0:
                continue
            for i in range(6):
                for j in range(3):
                    value = 0.0
                    for m in range(3):
                        value += W[held + k, p, i, m] * inverse[p, m, j]
                    carried[i, j] = value
                    right[6 * k + i] -= value * c[p, j]
            for other in range(free):
                for i in range(6):
                    for j in range(6):
                        value = 0.0
                        for m in range(3):
                            value += carried[i, m] * W[held + other, p, j, m]
                        S[6 * k + i, 6 * other + j] -= value
    return S, right, inverse


@compiled(
    "float64[:, ::1](float64[:, ::1], float64[:, :, :, ::1], float64[:, ::1], float64[:, :, ::1], float64[:, ::1],"
    " int64)"
)
def _moved_points(points: Floats, W: Floats, c: Floats, inverse: Floats, camera_step: Floats, held: int) -> Floats:
    """Points (P, 3) after the step that belongs to that of the cameras (C - held, 6)."""
    moved = points.copy()
    for p in range(len(points)):
        for j in range(3):
            left = c[p, j]
            for k in range(len(camera_step)):
                for i in range(6):
                    left -= W[held + k, p, i, j] * camera_step[k, i]
            for m in range(3):
                moved[p, m] += inverse[p, m, j] * left
    return moved
