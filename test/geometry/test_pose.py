"""Relative pose from pairs of points, and the flow of a scene at rest."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.geometry.pose import camera_motion, relative_pose
from mastsam_ros.types import InputError

from .conftest import rigid_flow

K = np.array([[400.0, 0, 159.5], [0, 400.0, 119.5], [0, 0, 1]])


def turned(axis: list[float], degrees: float, shift: list[float]) -> np.ndarray:
    unit = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -unit[2], unit[1]], [unit[2], 0, -unit[0]], [-unit[1], unit[0], 0]])
    angle = np.deg2rad(degrees)
    T = np.eye(4)
    T[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    T[:3, 3] = shift
    return T


def scene(count: int = 600, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    z = generator.uniform(0.8, 4.0, count)
    return np.stack([generator.uniform(-0.4, 0.4, count) * z, generator.uniform(-0.3, 0.3, count) * z, z], 1)


def error(T: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Metres and degrees."""
    difference = np.linalg.inv(truth) @ T
    cosine = np.clip((np.trace(difference[:3, :3]) - 1) / 2, -1, 1)
    return float(np.linalg.norm(difference[:3, 3])), float(np.rad2deg(np.arccos(cosine)))


TRUTH = turned([0.2, 1, -0.3], 8.0, [0.12, -0.05, 0.08])


def moved(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ T[:3, :3].T + T[:3, 3]


def test_exact_pairs_give_the_exact_motion() -> None:
    points1 = scene()
    pose = relative_pose(moved(TRUTH, points1), points1)
    assert pose is not None
    assert np.allclose(pose.T, TRUTH, atol=1e-6)
    assert pose.inliers.all() and pose.rms < 1e-6 and pose.share == 1.0


def test_noise_that_grows_with_distance_and_a_third_of_outliers() -> None:
    generator = np.random.default_rng(1)
    points1 = scene(900)
    points0 = moved(TRUTH, points1)
    wrong = generator.random(900) < 0.35
    points0[wrong] = scene(int(wrong.sum()), 7)

    def seen(points: np.ndarray) -> np.ndarray:
        z = points[:, 2] + generator.normal(size=len(points)) * 0.0012 * points[:, 2] ** 2
        return points * (z / points[:, 2])[:, None]

    pose = relative_pose(seen(points0), seen(points1), inverse_depth_noise=0.0017)
    assert pose is not None
    metres, degrees = error(pose.T, TRUTH)
    assert metres < 0.003 and degrees < 0.1
    assert pose.inliers[~wrong].mean() > 0.95 and pose.inliers[wrong].mean() < 0.1


def test_weights_decide_between_two_motions() -> None:
    points1 = scene()
    other = turned([1, 0, 0], 20.0, [0.0, 0.3, 0.0])
    first = np.arange(600) < 200
    points0 = np.where(first[:, None], moved(TRUTH, points1), moved(other, points1))
    weights = np.where(first, 1.0, 0.0)
    pose = relative_pose(points0, points1, weights)
    assert pose is not None and np.allclose(pose.T, TRUTH, atol=1e-6)
    assert not pose.inliers[~first].any()


def test_no_common_motion_gives_none() -> None:
    assert relative_pose(scene(200, 1), scene(200, 2), direction_noise=1e-4, inverse_depth_noise=1e-4) is None
    assert relative_pose(scene(5), scene(5)) is None
    assert relative_pose(np.zeros((0, 3)), np.zeros((0, 3))) is None
    assert relative_pose(np.full((50, 3), np.nan), scene(50)) is None


def test_rest_is_found_on_a_plane_and_on_a_line() -> None:
    plane = scene()
    plane[:, 2] = 2.0
    pose = relative_pose(plane, plane)
    assert pose is not None and np.allclose(pose.T, np.eye(4), atol=1e-6)
    line = np.stack([np.linspace(-1, 1, 50), np.zeros(50), np.full(50, 2.0)], 1)
    pose = relative_pose(line, line)
    assert pose is not None and np.isfinite(pose.T).all()


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(3, 3\).*\(4, 3\)"):
        relative_pose(np.ones((3, 3)), np.ones((4, 3)))
    with pytest.raises(InputError, match="weights"):
        relative_pose(np.ones((30, 3)), np.ones((30, 3)), np.ones(4))


def room(T_room_camera: np.ndarray) -> np.ndarray:
    """Depth (240, 320) of the inside of a box of 4 x 3 x 6 m: every pixel has an exact answer."""
    v, u = np.mgrid[0:240, 0:320].astype(float)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1) @ T_room_camera[:3, :3].T
    origin = T_room_camera[:3, 3]
    far = (np.where(rays > 0, [2, 1.5, 3], [-2, -1.5, -3]) - origin) / np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    return far.min(-1).astype(np.float32)


def test_rigid_flow_leads_to_the_same_place() -> None:
    depth0, depth1 = room(np.eye(4)), room(TRUTH)
    flow = rigid_flow(depth0, K, np.linalg.inv(TRUTH))
    v, u = np.mgrid[0:240:7, 0:320:7]
    xy0 = np.stack([u.ravel(), v.ravel()], 1).astype(float)
    xy1 = xy0 + flow[v.ravel(), u.ravel()]
    inside = ((xy1 > 2) & (xy1 < [317, 237])).all(1)
    assert inside.sum() > 200
    x, y = np.rint(xy1[inside]).astype(int).T
    ray = np.concatenate([(xy0[inside] - K[:2, 2]) / [K[0, 0], K[1, 1]], np.ones((inside.sum(), 1))], 1)
    expected = moved(np.linalg.inv(TRUTH), ray * depth0[v.ravel(), u.ravel()][inside, None])[:, 2]
    assert np.median(np.abs(depth1[y, x] - expected)) < 0.01


def test_rigid_flow_knows_what_it_cannot_know() -> None:
    depth = np.full((20, 30), 2.0, np.float32)
    depth[3, 4], depth[5, 6] = 0, np.nan
    flow = rigid_flow(depth, K, np.eye(4))
    assert flow.shape == (20, 30, 2) and flow.dtype == np.float32
    assert np.isnan(flow[3, 4]).all() and np.isnan(flow[5, 6]).all()
    assert np.nanmax(np.abs(flow)) < 1e-3
    assert np.isnan(rigid_flow(depth, K, turned([0, 1, 0], 0, [0, 0, -3]))).all()


def test_camera_motion_from_two_depth_images() -> None:
    depth0, depth1 = room(np.eye(4)), room(TRUTH)
    flow = rigid_flow(depth0, K, np.linalg.inv(TRUTH))
    generator = np.random.default_rng(4)
    xy0 = np.stack([generator.uniform(0, 319, 2000), generator.uniform(0, 239, 2000)], 1)
    x, y = np.rint(xy0).astype(int).T
    xy1 = xy0 + flow[y, x]
    xy1[::4] += generator.uniform(-30, 30, (500, 2))
    depth0[:40] = 0
    pose = camera_motion(xy0, xy1, depth0, depth1, K, K)
    assert pose is not None and pose.inliers.shape == (2000,)
    metres, degrees = error(pose.T, TRUTH)
    assert metres < 0.005 and degrees < 0.1
    assert not pose.inliers[y < 40].any()
    assert camera_motion(xy0, xy1, np.zeros_like(depth0), depth1, K, K) is None


def test_same_input_gives_the_same_bytes() -> None:
    points1 = scene()
    points0 = moved(TRUTH, points1) + np.random.default_rng(2).normal(size=(600, 3)) * 0.005
    first, second = relative_pose(points0, points1), relative_pose(points0, points1)
    assert first is not None and second is not None
    assert first.T.tobytes() == second.T.tobytes()
