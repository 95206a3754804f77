"""The faults of real depth cameras, on a step from a near plate to a far wall."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.io.depth_sensors import SENSORS, plain_noise, stereo, structured_light

K = np.array([[260.0, 0, 159.5], [0, 260.0, 119.5], [0, 0, 1]])


def step() -> np.ndarray:
    """A wall at 2 m with a plate 1 m before it, in the middle of the right half."""
    depth = np.full((240, 320), 2.0, np.float32)
    depth[60:180, 160:240] = 1.0
    return depth


@pytest.mark.parametrize("sensor", SENSORS.values())
def test_same_frame_same_faults_and_nothing_where_nothing_is(sensor) -> None:
    depth = step()
    depth[:50] = 0
    first = sensor(depth, K, 3)
    assert first.dtype == np.float32 and np.array_equal(first, sensor(depth, K, 3))
    assert not np.array_equal(first, sensor(depth, K, 4))
    assert (first[:45] == 0).all() and (first[100:, 20:] > 0).mean() > 0.8
    assert np.median(np.abs(first - depth)[first > 0]) < 0.02
    assert (sensor(np.zeros_like(depth), K, 0) == 0).all()


def test_plain_noise_grows_with_the_square_of_depth() -> None:
    noisy = plain_noise(step(), K, 3)
    far, near = noisy[:50], noisy[70:170, 170:230]
    assert 0.025 < (far == 0).mean() < 0.035 and (noisy[70:170, 159:161] == 0).all()
    assert far[far > 0].std() == pytest.approx(0.0048, rel=0.05)
    assert near[near > 0].std() == pytest.approx(0.0012, rel=0.05)


def test_structured_light_comes_in_steps_and_casts_a_shadow_on_one_side() -> None:
    measured = structured_light(step(), K, 0)
    values = np.unique(measured[:50][measured[:50] > 0])
    assert len(values) < 10 and np.diff(values).min() > 0.02, "an eighth of a pixel at 2 m"
    row = measured[70:170]
    beside = (260 * 0.075) / 1.0 - (260 * 0.075) / 2.0
    left, right = row[:, 160 - int(beside) : 158], row[:, 243 : 243 + int(beside)]
    assert (left == 0).mean() > 0.9 and (right > 0).mean() > 0.9
    far = np.full((240, 320), 6.0, np.float32)
    assert (structured_light(far, K, 0) == 0).all(), "out of range"


def test_structured_light_does_not_see_what_is_seen_edge_on() -> None:
    # A floor 30 cm below a level camera: below the horizon it is seen at first at grazing angles.
    below = np.arange(240, dtype=np.float32)[:, None] - 119.5
    floor = np.tile(np.where(below > 0, 0.3 * 260 / np.maximum(below, 0.5), 0).astype(np.float32), (1, 320))
    measured = structured_light(floor, K, 0)[:, 140:180] > 0
    assert not measured[140:165].any() and measured[180:235].mean() > 0.95


def test_stereo_smears_edges_into_points_between_near_and_far() -> None:
    measured = stereo(step(), K, 0)
    between = (measured > 1.2) & (measured < 1.7)
    assert between[70:170, 158:162].any() and not between[70:170, 180:220].any()
    smooth, wall = measured[:50, 20:], 2.0
    errors = np.where(smooth > 0, smooth - wall, 0)
    neighbours = np.corrcoef(errors[:, :-1].ravel(), errors[:, 1:].ravel())[0, 1]
    assert neighbours > 0.5, "neighbours share their noise"
    assert 0.005 < (smooth == 0).mean() < 0.1
