"""Votes, carving, bounds and what is in view of the instance map, on planes that are easy to compute."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mastsam_ros.geometry.cameras import back_project
from mastsam_ros.geometry.instance_map import InstanceMap, Separation
from mastsam_ros.geometry.presence import Presence
from mastsam_ros.settings import GeometrySettings

SETTINGS = GeometrySettings(map_voxel_m=0.02)
K = np.array([[100.0, 0, 49.5], [0, 100.0, 39.5], [0, 0, 1]])
ORIGIN = np.eye(4)
AHEAD = np.tile(np.float32([0, 0, 1]), (8000, 1))


def wall(z: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth (80, 100) and points (8000, 3) of a wall that faces the camera."""
    depth = np.full((80, 100), z, np.float32)
    return depth, back_project(depth, K).reshape(-1, 3)


def observe(map: InstanceMap, points: np.ndarray, id: int, frame: int, grey: int = 100) -> None:
    count = len(points)
    map.observe(points, np.full(count, id, np.int32), np.full((count, 3), grey, np.uint8), frame)


def ids_at(map: InstanceMap, points: np.ndarray) -> np.ndarray:
    place = map.look_up(points, AHEAD[: len(points)])
    return np.where(place >= 0, map.voxels.instance[place], 0)


def test_points_are_found_again_and_nothing_else() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    observe(map, points, 7, 0)
    assert (ids_at(map, points) == 7).all()
    assert (ids_at(map, points + np.float32([0, 0, 0.018])) == 7).all()  # one voxel off: noise
    assert (ids_at(map, points + np.float32([0, 0, 0.1])) == 0).all()
    assert map.instances[7].views == 1
    assert np.allclose(map.voxels.rgb, 100)


def test_each_frame_has_one_vote_and_the_majority_holds() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    for frame, id in enumerate([1, 1, 1, 2, 2]):
        observe(map, points, id, frame)
    assert (ids_at(map, points) == 1).all()
    observe(map, points, 2, 5)
    observe(map, points, 2, 6)
    assert (ids_at(map, points) == 2).all()
    assert map.instances[1].last_seen == 2 and map.instances[2].last_seen == 6


def test_the_most_frequent_id_of_a_voxel_is_the_frames_vote() -> None:
    map = InstanceMap(SETTINGS)
    points = np.full((5, 3), 0.511, np.float32)
    map.observe(points, np.int32([4, 9, 9, 9, 4]), np.zeros((5, 3), np.uint8), 0)
    assert len(map) == 1 and map.voxels.instance[0] == 9 and map.voxels.readings[0] == 5


def test_the_same_observations_in_any_order_give_the_same_map() -> None:
    _, points = wall(1.01)
    order = np.random.default_rng(0).permutation(len(points))
    maps = InstanceMap(SETTINGS), InstanceMap(SETTINGS)
    observe(maps[0], points, 3, 0)
    observe(maps[1], points[order], 3, 0)
    assert np.array_equal(maps[0].voxels.key, maps[1].voxels.key)
    assert np.allclose(maps[0].voxels.xyz, maps[1].voxels.xyz, atol=1e-6)


def test_what_is_seen_through_is_removed_and_what_is_hidden_or_unmeasured_stays() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    observe(map, points, 1, 0)
    before = len(map)
    for z in (0.5, 0.0):
        depth, _ = wall(z)
        map.carve(ORIGIN, K, depth)
        assert len(map) == before
    depth, _ = wall(2.0)
    map.carve(ORIGIN, K, depth)
    assert len(map) < 0.02 * before and (not len(map) or 1 in map.instances)


def test_what_lies_just_off_a_known_surface_is_that_surface_measured_with_noise() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    observe(map, points, 7, 0)
    single = len(map)
    for frame in range(1, 9):
        noisy = points + AHEAD * np.float32(0.012 if frame % 2 else -0.012)
        keys = map.keys(noisy, map.look_up(noisy, AHEAD))
        map.observe(noisy, np.full(len(noisy), 7, np.int32), np.zeros((len(noisy), 3), np.uint8), frame, keys)
    assert len(map) < 1.05 * single, "one layer"
    assert np.abs(map.voxels.xyz[:, 2] - 1.01).mean() < 0.003
    away = points + np.float32([0, 0, 0.1])
    assert not np.isin(map.keys(away, map.look_up(away, AHEAD)), map.voxels.key).any()


def test_an_instance_without_voxels_is_forgotten() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    observe(map, points, 1, 0)
    observe(map, points + np.float32([0, 0, 1]), 2, 0)
    map.forget({1})
    assert set(map.instances) == {2} == set(np.unique(map.voxels.instance))


def test_number_and_radius_are_bounded() -> None:
    map = InstanceMap(dataclasses.replace(SETTINGS, map_voxels=2000, map_radius_m=3.0))
    for frame in range(20):
        _, points = wall(1.01)
        observe(map, points + np.float32([2.0 * frame, 0, 0]), frame + 1, frame)
        map.bound(np.array([2.0 * frame, 0, 0]))
        assert len(map) <= 2000
        assert np.abs(map.voxels.xyz[:, 0] - 2.0 * frame).max() <= 3.0
    assert 20 in map.instances and 1 not in map.instances


def test_out_of_view_hidden_and_in_view_are_told_apart() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    observe(map, points, 5, 0)
    depth, _ = wall(1.01)
    assert map.presence([5, 6], ORIGIN, K, depth) == {5: Presence.IN_VIEW}
    through, _ = wall(2.0)
    assert map.presence([5], ORIGIN, K, through) == {5: Presence.GONE}
    near, _ = wall(0.4)
    assert map.presence([5], ORIGIN, K, near) == {5: Presence.OCCLUDED}
    away = np.diag([-1.0, 1.0, -1.0, 1.0])
    assert map.presence([5], away, K, depth) == {5: Presence.OUT_OF_VIEW}
    assert map.presence([5], ORIGIN, K, np.zeros_like(depth)) == {5: Presence.OCCLUDED}, "nothing was measured"


def test_what_a_thing_hides_of_itself_does_not_count() -> None:
    map = InstanceMap(SETTINGS)
    depth, points = wall(1.01)
    middle = (np.abs(points[:, 0]) < 0.2) & (np.abs(points[:, 1]) < 0.2)
    for back in (0.0, 0.1, 0.2, 0.3):
        observe(map, points[middle] + np.float32([0, 0, back]), 5, 0)
    assert map.presence([5], ORIGIN, K, depth) == {5: Presence.IN_VIEW}
    through, _ = wall(2.0)
    assert map.presence([5], ORIGIN, K, through) == {5: Presence.GONE}
    near, _ = wall(0.4)
    assert map.presence([5], ORIGIN, K, near) == {5: Presence.OCCLUDED}
    half = np.where(np.arange(100) < 60, near, depth).astype(np.float32)
    assert map.presence([5], ORIGIN, K, half) == {5: Presence.OCCLUDED}


def test_merging_hands_over_voxels_and_views() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    observe(map, points[:4000], 1, 0)
    observe(map, points[4000:], 2, 1)
    map.merge(2, 1)
    assert set(np.unique(map.voxels.instance)) == {1}
    assert (map.instances[1].views, map.instances[1].last_seen) == (2, 1) and 2 not in map.instances


def test_position_and_size_are_in_the_world() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    observe(map, points + np.float32([3, 0, 0]), 1, 0)
    position, size = map.extents()[1]
    assert position == pytest.approx([3, 0, 1.01], abs=0.03)
    assert size == pytest.approx([0.9, 0.72, 0], abs=0.05)
    assert InstanceMap(SETTINGS).extents() == {}


def test_things_with_room_between_them_are_apart() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    observe(map, points[points[:, 0] < 0], 1, 0)
    observe(map, points[points[:, 0] >= 0], 2, 0)
    observe(map, points + np.float32([0, 0, 0.1]), 3, 0)
    assert map.separation(1, 3) is map.separation(3, 1) is Separation.APART
    assert map.separation(1, 2) is Separation.TOUCHING
    assert map.separation(1, 4) is Separation.UNKNOWN


def test_a_few_voxels_show_room_between_two_things_but_not_that_they_touch() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    few = (np.abs(points[:, 0]) < 0.029) & (np.abs(points[:, 1]) < 0.019)
    observe(map, points[~few], 1, 0)
    observe(map, points[few], 2, 0)
    observe(map, points[few] - np.float32([0, 0, 0.1]), 3, 0)
    assert 5 <= (map.voxels.instance == 3).sum() < 10, "more would tell more"
    assert map.separation(1, 2) is Separation.UNKNOWN
    assert map.separation(1, 3) is Separation.APART


def test_a_piece_of_a_surface_is_no_body_of_its_own() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    rim = np.abs(points[:, 1]) < 0.02
    observe(map, points[~rim], 1, 0)
    observe(map, points[rim], 2, 0)
    assert map.separation(1, 2) is Separation.UNKNOWN


def test_what_stands_on_a_surface_is_a_body_of_its_own_however_flat() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    here = np.abs(points[:, :2]).max(axis=1) < 0.05
    observe(map, points[~here], 1, 0)
    observe(map, points[here] - np.float32([0, 0, 0.03]), 2, 0)
    assert map.separation(1, 2) is map.separation(2, 1) is Separation.TOUCHING


def test_boxes_of_the_instances() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    observe(map, points[points[:, 0] < 0], 1, 0)
    observe(map, points[points[:, 0] >= 0] + np.float32([0, 0, 0.5]), 2, 0)
    boxes = map.boxes({2, 9})
    assert boxes.keys() == {2}
    low, high = boxes[2]
    np.testing.assert_allclose(low[2], 1.51, atol=0.02)
    assert low[0] >= 0 and high[0] > 0.4


def test_a_map_is_renamed_though_an_instance_has_lost_its_voxels_to_another() -> None:
    map = InstanceMap(SETTINGS)
    _, points = wall(1.01)
    observe(map, points, 9, 0)
    observe(map, points, 2, 1)
    observe(map, points, 2, 2)
    assert 9 in map.instances and set(map.voxels.instance.tolist()) == {2}
    renamed = map.renamed(lambda id: 4 if id == 2 else id)
    assert set(renamed.voxels.instance.tolist()) == {4} and set(map.voxels.instance.tolist()) == {2}
