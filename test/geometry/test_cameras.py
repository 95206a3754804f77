"""Intrinsics and frames at another size."""

from __future__ import annotations

import numpy as np

from mastsam_ros.geometry.cameras import back_project, scale_intrinsics, working_view
from mastsam_ros.types import Frame

K = np.array([[500.0, 0, 319.5], [0, 520.0, 239.5], [0, 0, 1]])


def test_a_point_stays_where_it_is_in_the_picture() -> None:
    point = np.array([0.3, -0.2, 1.7])
    x, y, _ = K @ point / point[2]
    small = scale_intrinsics(K, 0.5, 0.25) @ point / point[2]
    # The corner of the picture is at -0.5: shares of width and height are kept.
    np.testing.assert_allclose((small[:2] + 0.5) / (320, 120), ((x + 0.5) / 640, (y + 0.5) / 480))


def test_back_projection_is_the_inverse_of_projection() -> None:
    depth = np.random.default_rng(0).uniform(0.5, 4, (48, 64)).astype(np.float32)
    points = back_project(depth, K).astype(np.float64)
    pixels = points @ K.T / points[..., 2:]
    y, x = np.mgrid[0:48, 0:64]
    np.testing.assert_allclose(pixels[..., 0], x, atol=1e-3)
    np.testing.assert_allclose(pixels[..., 1], y, atol=1e-3)


def test_the_working_view_has_the_same_geometry() -> None:
    y, x = np.mgrid[0:480, 0:640].astype(np.float32)
    w = 0.5 + 0.0004 * (x - 320) - 0.0003 * (y - 240)  # a plane, in inverse depth
    frame = Frame(np.zeros((480, 640, 3), np.uint8), K=K, depth=1 / w)
    view = working_view(frame, 100_000)
    assert abs(view.width * view.height - 100_000) < 1000 and view.K is not None and view.depth is not None
    full = back_project(1 / w, K).reshape(-1, 3)
    normal = np.linalg.lstsq(full, np.ones(len(full)), rcond=None)[0]
    small = back_project(view.depth, view.K).reshape(-1, 3)
    np.testing.assert_allclose(small @ normal, 1, atol=2e-3)


def test_small_pictures_are_left_alone() -> None:
    frame = Frame(np.zeros((48, 64, 3), np.uint8))
    assert working_view(frame, 100_000) is frame
    large = Frame(np.zeros((480, 640, 3), np.uint8))
    assert working_view(large, 0) is large
