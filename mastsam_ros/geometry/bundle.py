"""Cameras and points from where the points are seen: triangulation, resection, and bundle adjustment.

Directions are (x/z, y/z) in a camera's optical frame; `T_camera_world` maps points of the world into a camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.pose import rigid_motion

Floats = npt.NDArray[np.float64]

_NEAREST = 1e-3
"""What is nearer than this, in the world's unit, counts as behind the camera."""
_DAMPING, _LEAST_DAMPING = 1e-4, 1e-9
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
    cameras, number = bundle.seen.shape
    free = 6 * (cameras - held)
    useful = bundle.seen.sum(0) >= _LEAST_VIEWS
    damping, limit = _DAMPING, 3 * noise
    cost, weight, residual, moved = _cost(T, points, bundle, limit)
    for _ in range(iterations):
        _, to_camera = _slopes(moved.reshape(-1, 3), bundle.directions.reshape(-1, 2))
        to_camera = to_camera.reshape(cameras, number, 2, 6)
        to_point = to_camera[..., 3:] @ T[:, None, :3, :3]
        weighted = to_camera * weight[..., None, None]
        U = np.einsum("cpri,cprj->cij", weighted, to_camera, optimize=True)[held:]
        W = np.einsum("cpri,cprj->cipj", weighted[held:], to_point[held:], optimize=True).reshape(free, number, 3)
        V = np.einsum("cpri,cprj,cp->pij", to_point, to_point, weight, optimize=True)
        b = -np.einsum("cpri,cpr->ci", weighted, residual, optimize=True)[held:].ravel()
        c = -np.einsum("cpri,cpr,cp->pi", to_point, residual, weight, optimize=True)
        improved = False
        for _ in range(4):
            loose = V * (1 + damping * np.eye(3)) + (1e-12 + ~useful[:, None, None]) * np.eye(3)
            inverse = np.linalg.inv(loose)
            inverse[~useful] = 0
            WV = np.einsum("fpi,pij->fpj", W, inverse, optimize=True).reshape(free, -1)
            S = -WV @ W.reshape(free, -1).T
            for k in range(cameras - held):
                S[6 * k : 6 * k + 6, 6 * k : 6 * k + 6] += U[k] * (1 + damping * np.eye(6)) + 1e-12 * np.eye(6)
            camera_step = np.linalg.solve(S, b - WV @ c.ravel())
            point_step = np.einsum("pij,pj->pi", inverse, c - np.einsum("fpi,f->pi", W, camera_step))
            new_T = T.copy()
            for k, step in enumerate(camera_step.reshape(-1, 6), start=held):
                new_T[k] = rigid_motion(step) @ T[k]
            new = _cost(new_T, points + point_step, bundle, limit)
            if new[0] < cost:
                improved = new[0] < cost * (1 - 1e-4)
                T, points, damping = new_T, points + point_step, max(damping / 5, _LEAST_DAMPING)
                cost, weight, residual, moved = new
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


def _cost(T: Floats, points: Floats, bundle: Bundle, limit: float) -> tuple[float, Floats, Floats, Floats]:
    """Robust cost, weights (C, P), residuals (C, P, 2), and points in the cameras (C, P, 3)."""
    moved = _moved(T, points)
    z = moved[..., 2:]
    residual = np.where(bundle.seen[..., None], moved[..., :2] / np.maximum(z, _NEAREST) - bundle.directions, 0)
    squared = (residual**2).sum(2) / limit**2
    in_front = z[..., 0] > _NEAREST
    weight = bundle.seen * in_front / (1 + squared) ** 2
    # What went behind a camera costs as much as any outlier.
    cost = float((bundle.seen * np.where(in_front, squared / (1 + squared), 1)).sum())
    return cost, weight, residual, moved
