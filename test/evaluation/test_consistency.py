"""Consistency: by hand, hashed against exact, and what a degenerate answer scores."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from mastsam_ros.evaluation import consistency
from mastsam_ros.evaluation.datasets import open_sequences, read_depth
from mastsam_ros.types import InputError


@pytest.fixture(scope="module")
def surface():
    """(points, labels, features): the same wavy surface seen three times with noise, labels flickering."""
    random = np.random.default_rng(5)
    xy = random.uniform(0, 0.4, (3, 4000, 2))
    z = 0.05 * np.sin(12 * xy[..., :1]) + random.normal(0, 0.0005, (3, 4000, 1))
    points = np.concatenate([xy, z], axis=-1).reshape(-1, 3)
    labels = (1 + (points[:, 0] > 0.2) + 2 * (points[:, 1] > 0.2)).astype(np.uint16)
    flicker = random.random(len(labels)) < 0.2
    labels[flicker] = random.integers(0, 6, flicker.sum())
    return points, labels, random.normal(0, 1, (len(labels), 8)) + np.eye(8)[labels] * 4


def h_by_definition(features, points, same_place):
    """Eq. 4-6 of the paper, pair by pair."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    total = 0.0
    for n in range(len(points)):
        equal = same_place(points, points[n])
        total += (unit[equal] @ unit[n]).mean()
    return total / len(points)


@pytest.mark.parametrize("radius", [0.01, 0.05])
def test_exact_equals_the_definition(surface, radius):
    points, _, features = (part[::20] for part in surface)
    expected = h_by_definition(features, points, lambda all_, one: np.linalg.norm(all_ - one, axis=1) <= radius)
    assert consistency.exact_consistency(features, points, radius) == pytest.approx(expected, abs=1e-12)


def test_hashed_equals_the_definition(surface):
    points, labels, features = (part[::20] for part in surface)

    def one_voxel(all_, one):
        return (np.floor(all_ / 0.02) == np.floor(one / 0.02)).all(axis=1)

    expected = h_by_definition(features, points, one_voxel)
    assert consistency.hashed_consistency(features, points) == pytest.approx(expected, abs=1e-12)
    expected = h_by_definition(consistency.one_hot(labels), points, one_voxel)
    counted = consistency.LabelConsistency()
    counted.add(labels, points)
    assert counted.value() == pytest.approx(expected, abs=1e-12)


def test_label_short_cut_equals_one_hot_features(surface):
    points, labels, _ = surface
    counted = consistency.LabelConsistency()
    for part in np.array_split(np.arange(len(points)), 20):  # more views than are merged at once
        counted.add(labels[part], points[part])
    assert counted.value() == pytest.approx(
        consistency.hashed_consistency(consistency.one_hot(labels), points), abs=1e-12
    )


def test_exact_and_hashed_agree_where_places_are_apart(surface):
    _, labels, features = surface
    places = np.random.default_rng(0).integers(0, 5, (len(labels), 3)) * 0.02 + 0.01
    expected = consistency.exact_consistency(features, places, 0.005)
    assert consistency.hashed_consistency(features, places) == pytest.approx(expected, abs=1e-12)


def test_exact_and_hashed_agree_on_a_surface_to_two_percent(surface):
    points, labels, features = surface
    for values in (consistency.one_hot(labels), features):
        exact = consistency.exact_consistency(values, points, 0.01)
        assert consistency.hashed_consistency(values, points, 0.02) == pytest.approx(exact, abs=0.02)


def test_queries_estimate_the_whole(surface):
    points, _, features = surface
    chosen = np.random.default_rng(1).choice(len(points), 2000, replace=False)
    exact = consistency.exact_consistency(features, points, 0.01)
    assert consistency.exact_consistency(features, points, 0.01, chosen) == pytest.approx(exact, abs=0.01)


def test_unlabelled_agrees_with_nothing():
    counted = consistency.LabelConsistency()
    counted.add(np.array([0, 0, 3, 3]), np.full((4, 3), 0.5))
    assert counted.value() == pytest.approx((0 + 0 + 0.5 + 0.5) / 4)


def test_points_without_depth_are_left_out_and_nothing_is_nan():
    counted = consistency.LabelConsistency()
    assert math.isnan(counted.value())
    counted.add(np.array([1, 2]), np.array([[0.0, 0.0, 1.0], [np.nan] * 3]))
    assert counted.value() == 1.0


def test_points_out_of_range_are_refused():
    with pytest.raises(InputError, match="655 m"):
        consistency.LabelConsistency().add(np.array([1]), np.array([[0.0, 700.0, 0.0]]))


def test_one_id_for_all_scores_one_and_is_flagged(surface):
    points, labels, _ = surface
    counted = consistency.LabelConsistency()
    counted.add(np.ones_like(labels), points)
    assert counted.value() == 1.0
    assert consistency.degenerate(largest_share=1.0)
    assert not consistency.degenerate(largest_share=0.6)


def test_exact_labels_equal_exact_features_and_agree_with_the_hashed():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:60, 0:80]
    points = np.stack([x * 0.004, y * 0.004, np.full(x.shape, 1.0)], axis=-1)
    views = []
    for shift in (0, 20):
        labels = (1 + (x + shift) // 20 + 4 * (y // 20)).astype(np.uint16)
        labels[rng.random(labels.shape) < 0.1] = 0
        views.append((labels, points + rng.normal(0, 0.0005, points.shape)))
    exact = consistency.ExactLabelConsistency(views=2, pixels=60 * 80)
    hashed = consistency.LabelConsistency()
    for labels, xyz in views:
        exact.add(labels, xyz)
        hashed.add(labels, xyz)
    features = consistency.one_hot(np.concatenate([labels.ravel() for labels, _ in views]))
    everything = np.concatenate([xyz.reshape(-1, 3) for _, xyz in views]).astype(np.float32)
    assert exact.value() == pytest.approx(consistency.exact_consistency(features, everything), abs=1e-9)
    assert exact.value() == pytest.approx(hashed.value(), abs=0.03) and exact.value() < 0.6
    thinned = consistency.ExactLabelConsistency(views=2, pixels=30 * 40, queries=500)
    for labels, xyz in views:
        thinned.add(labels, xyz)
    assert thinned.value() == pytest.approx(exact.value(), abs=0.05)
    assert math.isnan(consistency.ExactLabelConsistency(2).value())


def test_world_points_by_hand():
    K = np.array([[100.0, 0, 1], [0, 50.0, 0], [0, 0, 1]])
    T = np.eye(4)
    T[:3, 3] = 1, 2, 3
    T[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    points = consistency.world_points(np.array([[0, 2.0], [0, 4.0]], np.float32), K, T)
    assert np.isnan(points[0, 0]).all()
    np.testing.assert_allclose(points[1, 1], [1 - 4 * 1 / 50, 2 + 0, 3 + 4])
    np.testing.assert_allclose(points[0, 1], [1, 2, 5])


def test_truth_of_the_scenes_is_consistent(shared):
    (orbit,) = open_sequences(shared("scenes"), ["wide_baseline"])
    counted = consistency.LabelConsistency()
    for files in orbit.frames:
        points = consistency.world_points(read_depth(files.depth), orbit.K, files.T_world_camera)
        counted.add(orbit.truth(files), points)
    assert 0.994 <= counted.value() <= 0.997  # what the truth scored in the recorded figures


# ---- video ---------------------------------------------------------------------------------------------------


def textured(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def test_matches_follow_a_shift():
    before = textured(0)
    now = np.roll(before, (3, 5), axis=(0, 1))
    matched = consistency.matched_pixels(before, now)
    middle = np.s_[20:-20, 20:-20]
    y, x = np.mgrid[0:120, 0:160]
    expected = ((y - 3) * 160 + x - 5)[middle]
    assert (matched[middle] == expected).mean() > 0.99
    assert (matched[:, 0] < 0).all()  # came from outside


def test_unrelated_pictures_hardly_match():
    assert (consistency.matched_pixels(textured(1), textured(2)) >= 0).mean() < 0.4


def test_pair_by_hand():
    before = np.array([[1, 2, 0, 4]], np.uint16)
    now = np.array([[1, 9, 0, 4]], np.uint16)
    matched = np.array([[0, 1, 2, -1]], np.int32)
    assert consistency.pair_consistency(before, now, matched) == pytest.approx(1 / 3)  # 0 = 0 is no agreement
    assert consistency.pair_consistency(before, now, np.array([[3, 3, 3, 3]], np.int32)) == pytest.approx(1 / 4)
    assert math.isnan(consistency.pair_consistency(before, now, np.full((1, 4), -1, np.int32)))


def test_pair_sizes_must_agree():
    with pytest.raises(InputError, match="one size"):
        consistency.pair_consistency(np.zeros((2, 2), int), np.zeros((2, 3), int), np.zeros((2, 2), np.int32))


def test_mean_leaves_nan_out():
    assert consistency.mean_percent([0.5, float("nan"), 1.0]) == 75
    assert math.isnan(consistency.mean_percent([]))
