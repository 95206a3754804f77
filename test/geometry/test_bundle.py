"""Cameras and points from directions alone."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.geometry.bundle import Bundle, adjust, directions_of, resect, triangulate, turned
from mastsam_ros.geometry.pose import rigid_motion

NOISE = 1e-3


def cameras(count: int) -> np.ndarray:
    """Cameras in a row, each turned a little."""
    steps = [np.array([0.01 * n, -0.04 * n, 0.005 * n, 0.1 * n, 0.01 * n, 0.02 * n]) for n in range(count)]
    return np.stack([rigid_motion(step) for step in steps])


def points(count: int = 120, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform((-1, -1, 2), (1, 1, 4), (count, 3))


def seen_from(T: np.ndarray, world: np.ndarray) -> np.ndarray:
    """(..., P, 2) directions of points in cameras (..., 4, 4)."""
    moved = np.einsum("...ij,pj->...pi", T[..., :3, :3], world) + T[..., None, :3, 3]
    return moved[..., :2] / moved[..., 2:]


def apart(T: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(T - other).max())


def test_pixels_become_directions():
    K = np.array([[500.0, 0, 320], [0, 400, 240], [0, 0, 1]])
    assert directions_of(np.array([[320, 240], [820, 40]]), K).tolist() == [[0, 0], [1, -0.5]]


def test_two_rays_meet_at_the_point():
    T, world = cameras(4), points()
    found, angle = triangulate(seen_from(T[0], world), seen_from(T[3], world), T[0], T[3])
    assert np.allclose(found, world)
    centres = [-t[:3, :3].T @ t[:3, 3] for t in (T[0], T[3])]
    a, b = (world - centre for centre in centres)
    expected = np.arccos((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    assert np.allclose(angle, expected)


def test_each_point_may_have_cameras_of_its_own():
    T, world = cameras(4), points(4)
    one, other = T[[0, 1, 0, 2]], T[[3, 3, 2, 3]]
    seen = [np.stack([seen_from(t, p[None])[0] for t, p in zip(c, world, strict=True)]) for c in (one, other)]
    assert np.allclose(triangulate(seen[0], seen[1], one, other)[0], world)


def test_rays_that_part_or_are_parallel_meet_nowhere():
    T = np.stack([np.eye(4), rigid_motion(np.array([0, 0, 0, -1.0, 0, 0]))])  # the second camera is to the right
    parting, _ = triangulate(np.array([[-0.2, 0], [0, 0]]), np.array([[0.2, 0], [0, 0]]), T[0], T[1])
    assert np.isnan(parting[0]).all()
    assert np.isnan(parting[1]).all() or np.abs(parting[1]).max() > 1e3


def test_a_turn_is_found_among_outliers():
    R = rigid_motion(np.array([0.02, -0.1, 0.05, 0, 0, 0]))
    rays = seen_from(np.eye(4), points())
    now = seen_from(R, np.column_stack([rays, np.ones(len(rays))]))
    now[:30] += 0.3
    found, left = turned(rays, now, NOISE)
    assert apart(found, R[:3, :3]) < 1e-3
    assert np.median(left) < 1e-3 < left[:30].min()


def test_resection_finds_the_camera_from_a_rough_guess_among_outliers():
    T, world = cameras(3)[2], points()
    seen = seen_from(T, world) + np.random.default_rng(1).normal(0, NOISE / 10, (120, 2))
    seen[:30] += 0.2
    guess = rigid_motion(np.array([0.03, 0.02, -0.03, 0.05, 0.03, -0.05])) @ T
    assert apart(resect(world, seen, guess, NOISE), T) < 1e-3


def perturbed(count: int, seed: int = 0) -> tuple[Bundle, np.ndarray, np.ndarray]:
    """A bundle with wrong cameras (but two) and points, and the true ones; everything is seen somewhere twice."""
    rng = np.random.default_rng(seed)
    T, world = cameras(count), points()
    seen = rng.random((count, len(world))) < 0.7
    seen[:2] = True
    wrong = T.copy()
    for n in range(2, count):
        wrong[n] = rigid_motion(rng.normal(0, 0.01, 6)) @ T[n]
    bundle = Bundle(wrong, world + rng.normal(0, 0.03, world.shape), seen_from(T, world), seen)
    return bundle, T, world


def test_adjustment_finds_cameras_and_points():
    bundle, T, world = perturbed(5)
    found = adjust(bundle, 2, NOISE, iterations=20)
    assert apart(found.T_camera_world, T) < 1e-4
    assert np.abs(found.points - world).max() < 1e-3
    assert found.errors()[found.seen].max() < 1e-4


def test_adjustment_leaves_outliers_aside_and_held_cameras_in_place():
    bundle, T, world = perturbed(5)
    wrong = np.random.default_rng(2).random(bundle.seen.shape) < 0.03
    bundle.directions[wrong] += 0.1
    found = adjust(bundle, 2, NOISE, iterations=20)
    assert apart(found.T_camera_world, T) < 1e-3
    assert (found.T_camera_world[:2] == bundle.T_camera_world[:2]).all()
    assert (found.errors()[wrong & found.seen] > 0.05).mean() > 0.9


def test_two_views_fix_everything_but_the_scale():
    bundle, T, world = perturbed(2)
    shifted = bundle.T_camera_world.copy()
    shifted[1] = rigid_motion(np.array([0.01, 0.02, -0.01, 0.01, -0.02, 0.02])) @ shifted[1]
    found = adjust(Bundle(shifted, bundle.points, bundle.directions, bundle.seen), 1, NOISE, iterations=30)
    scale = np.linalg.norm(T[1, :3, 3]) / np.linalg.norm(found.T_camera_world[1, :3, 3])
    assert apart(found.T_camera_world[1, :3, :3], T[1, :3, :3]) < 1e-3
    assert np.allclose(found.points * scale, world, atol=0.01)


def test_points_that_one_camera_sees_stay_where_they_are():
    bundle, _, _ = perturbed(4)
    bundle.seen[1:, 0] = False
    before = bundle.points[0].copy()
    assert adjust(bundle, 2, NOISE).points[0] == pytest.approx(before)
