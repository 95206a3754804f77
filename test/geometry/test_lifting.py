"""Labels to points (method, step 8)."""

from __future__ import annotations

import numpy as np

from mastsam_ros.geometry.lifting import instance_extents, lift
from mastsam_ros.settings import GeometrySettings
from mastsam_ros.types import Frame

K = np.array([[100.0, 0, 31.5], [0, 100.0, 23.5], [0, 0, 1]])


def scene() -> tuple[Frame, np.ndarray]:
    depth = np.full((48, 64), 2.0, np.float32)
    depth[10:30, 20:40] = 1.0
    depth[0, :] = 0
    depth[1, 0], depth[1, 2] = np.nan, np.inf
    labels = np.ones((48, 64), np.uint16)
    labels[10:30, 20:40] = 65535
    image = np.zeros((48, 64, 3), np.uint8)
    image[10:30, 20:40] = (200, 10, 30)
    return Frame(image, K=K, depth=depth), labels


def test_every_point_is_on_its_ray_with_its_label_and_colour() -> None:
    frame, labels = scene()
    cloud = lift(frame, labels, GeometrySettings(points_stride=1))
    assert cloud is not None and cloud.metric
    pixels = cloud.xyz.astype(np.float64) @ K.T / cloud.xyz[:, 2:]
    x, y = pixels[:, 0].round().astype(int), pixels[:, 1].round().astype(int)
    assert (cloud.instance == labels[y, x]).all() and (cloud.rgb == frame.image[y, x]).all()
    assert cloud.xyz[:, 2].min() == 1.0 and ((cloud.confidence > 0) & (cloud.confidence <= 1)).all()


def test_edges_holes_and_far_points_are_left_out() -> None:
    frame, labels = scene()
    cloud = lift(frame, labels, GeometrySettings(points_stride=1))
    assert cloud is not None
    inside = 18 * 18  # the square without its rim
    rim_outside = 22 * 22 - 20 * 20 - 4  # 4-neighbours of the square
    assert (cloud.instance == 65535).sum() == inside
    assert (cloud.instance == 1).sum() == 48 * 64 - 20 * 20 - rim_outside - 64 - 2
    near = lift(frame, labels, GeometrySettings(points_stride=1, max_depth_m=1.5))
    assert near is not None and set(near.instance.tolist()) == {65535}


def test_the_stride_thins_the_cloud() -> None:
    frame, labels = scene()
    full, thin = (lift(frame, labels, GeometrySettings(points_stride=s)) for s in (1, 4))
    assert full is not None and thin is not None and len(full) / 20 < len(thin) < len(full) / 12


def test_without_depth_or_camera_there_is_no_cloud() -> None:
    frame, labels = scene()
    assert lift(Frame(frame.image, K=K), labels, GeometrySettings()) is None
    assert lift(Frame(frame.image, depth=frame.depth), labels, GeometrySettings()) is None


def test_position_and_size_of_an_instance() -> None:
    frame, labels = scene()
    cloud = lift(frame, labels, GeometrySettings(points_stride=1))
    assert cloud is not None
    position, size = instance_extents(cloud)[65535]
    np.testing.assert_allclose(position, ((29.5 - 31.5) / 100, (19.5 - 23.5) / 100, 1.0), atol=0.006)
    np.testing.assert_allclose(size[:2], 0.17 * 0.9, atol=0.02)
    assert size[2] == 0
