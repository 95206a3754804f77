"""Clouds are joined by place and rendered where they are."""

from __future__ import annotations

import numpy as np

from mastsam_ros.io.cloud_view import join_clouds, render_cloud
from mastsam_ros.types import LabelledCloud
from mastsam_ros.viz import colors


def cloud(xyz, instance) -> LabelledCloud:
    xyz = np.asarray(xyz, np.float32).reshape(-1, 3)
    count = len(xyz)
    return LabelledCloud(
        xyz,
        np.full((count, 3), 170, np.uint8),
        np.asarray(instance, np.uint32).reshape(count),
        np.ones(count, np.float32),
    )


def test_the_most_frequent_id_of_a_place_wins_and_poses_are_followed() -> None:
    moved = np.eye(4)
    moved[:3, 3] = 0, 0, 1
    joined = join_clouds(
        [
            (cloud([[0.005, 0.005, 2.005]], [4]), np.eye(4)),
            (cloud([[0.005, 0.005, 1.005]], [9]), moved),
            (cloud([[0.005, 0.005, 1.006]], [9]), moved),
            (cloud([[0.505, -0.305, 1.005]], [2]), np.eye(4)),
        ]
    )
    assert len(joined) == 2
    by_id = {int(number): point for number, point in zip(joined.instance, joined.xyz, strict=True)}
    assert set(by_id) == {9, 2}
    np.testing.assert_allclose(by_id[9], [0.005, 0.005, 2.005], atol=2e-3)


def test_nothing_joins_to_nothing() -> None:
    assert len(join_clouds([])) == 0
    assert not render_cloud(join_clouds([]), (0, 0, 0), (1, 0, 0), 64, 48).any()


def test_points_appear_where_they_are_and_near_ones_cover_far_ones() -> None:
    points = cloud([[2, 0, 0], [1, 0, 0], [2, 0.5, 0.4]], [5, 7, 3])
    picture = render_cloud(points, (0, 0, 0), (1, 0, 0), 201, 161, 90.0, 0.02)
    assert picture.shape == (161, 201, 4)

    def hue(rgb):
        rgb = np.asarray(rgb, float)
        return rgb / rgb.sum()

    assert np.abs(hue(picture[80, 100, :3]) - hue(colors([7])[0])).max() < 0.02
    # y = 0.5 is to the left, z = 0.4 above: focal length 100, depth 2
    assert np.abs(hue(picture[80 - 20, 100 - 25, :3]) - hue(colors([3])[0])).max() < 0.02
    assert picture[10, 10, 3] == 0 and picture[80, 100, 3] == 255
    covered = np.abs(
        picture[..., :3] / np.maximum(picture[..., :3].sum(-1, keepdims=True), 1) - hue(colors([5])[0])
    ).max(-1)
    assert not ((covered < 0.01) & (picture[..., 3] > 0)).any(), "the far point shows through"
