"""Transforms held to scipy's rotations, and a tree of frames whose poses are known in closed form."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from mastsam_ros.geometry import transforms as transforms_module
from mastsam_ros.geometry.transforms import Transforms, interpolated, quaternion_xyzw, rotation_of, transform
from mastsam_ros.types import InputError

MS = 1_000_000
quaternions = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, turn_deg: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", turn_deg, degrees=True).as_matrix()
    T[:3, 3] = x, y, z
    return T


@given(quaternions)
def test_quaternions_agree_with_scipy(values):
    rotation = Rotation.from_quat(values)
    assert np.allclose(rotation_of(rotation.as_quat()), rotation.as_matrix(), atol=1e-12)
    ours = quaternion_xyzw(rotation.as_matrix())
    # q and -q are one rotation.
    assert ours[3] >= 0 and abs(ours @ rotation.as_quat()) == pytest.approx(1, abs=1e-12)


@given(quaternions, quaternions, st.floats(0, 1))
def test_interpolation_agrees_with_scipy(first, second, share):
    pair = Rotation.from_quat([first, second])
    if (pair[0].inv() * pair[1]).magnitude() > 3.1:
        return  # half a turn has two shortest ways
    a, b = np.eye(4), np.eye(4)
    a[:3, :3], b[:3, :3] = pair.as_matrix()
    b[:3, 3] = 1, 2, 3
    T = interpolated(a, b, share)
    assert np.allclose(T[:3, :3], Slerp([0, 1], pair)(share).as_matrix(), atol=1e-6)
    assert np.allclose(T[:3, 3], [share, 2 * share, 3 * share])


@pytest.mark.parametrize("values", [(0, 0, 0, 0), (1, 1, 1, 1), (np.nan, 0, 0, 1)])
def test_what_is_no_rotation_is_refused(values):
    with pytest.raises(InputError, match="unit quaternion"):
        rotation_of(values)


def test_a_translation_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="finite"):
        transform((np.inf, 0, 0), (0, 0, 0, 1))


@pytest.fixture
def robot() -> Transforms:
    """map -> odom -> base -> camera, and base -> laser; odom moves at 1 m/s along x, from 0 to 1 s, at 10 Hz."""
    frames = Transforms()
    frames.put("map", "odom", pose(y=5, turn_deg=90), None)
    for n in range(11):
        frames.put("odom", "base", pose(x=0.1 * n), n * 100 * MS)
    frames.put("base", "camera", pose(z=1), None)
    frames.put("base", "laser", pose(x=0.3), None)
    return frames


def test_a_chain_is_multiplied_and_interpolated(robot):
    T = robot.look_up("map", "camera", 250 * MS, 100 * MS)
    assert np.allclose(T, pose(y=5, turn_deg=90) @ pose(x=0.25) @ pose(z=1))
    assert np.allclose(robot.look_up("camera", "/map", 250 * MS, 100 * MS), np.linalg.inv(T))
    assert np.allclose(robot.look_up("laser", "camera", 99_000 * MS, 0), pose(x=-0.3, z=1)), "fixed: time is no matter"
    assert np.allclose(robot.look_up("camera", "camera", 0, 0), np.eye(4))


def test_beyond_the_last_reading_only_as_far_as_tolerated(robot):
    assert np.allclose(robot.look_up("odom", "base", 1050 * MS, 50 * MS), pose(x=1.0))
    with pytest.raises(InputError, match="'base' to 'odom' nearest in time is 60 ms too old, at most 50 ms"):
        robot.look_up("odom", "base", 1060 * MS, 50 * MS)
    with pytest.raises(InputError, match="60 ms too young"):
        robot.look_up("odom", "base", -60 * MS, 50 * MS)


def test_a_gap_is_not_bridged(robot):
    robot.put("odom", "base", pose(x=3), 3000 * MS)
    with pytest.raises(InputError, match="1000 ms too old"):
        robot.look_up("odom", "base", 2000 * MS, 100 * MS)


def test_readings_may_come_in_any_order_and_be_corrected(robot):
    robot.put("odom", "base", pose(x=0.55), 550 * MS)
    robot.put("odom", "base", pose(x=0.7), 550 * MS)
    assert np.allclose(robot.look_up("odom", "base", 550 * MS, 0), pose(x=0.7))


def test_what_is_missing_is_said(robot):
    with pytest.raises(InputError, match=r"nobody says where 'lens' is: known are base, camera, laser, map, odom"):
        robot.look_up("map", "lens", 0, 0)
    with pytest.raises(InputError, match="no transform has come"):
        Transforms().look_up("map", "camera", 0, 0)
    robot.put("dock", "marker", pose(), None)
    with pytest.raises(InputError, match="no chain of transforms connects 'marker' with 'map'"):
        robot.look_up("map", "marker", 0, 0)
    with pytest.raises(InputError, match="two different frames"):
        robot.put("base", "/base", pose(), None)


def test_a_circle_ends(robot):
    robot.put("camera", "map", pose(), None)
    with pytest.raises(InputError):
        robot.look_up("map", "nowhere", 0, 0)
    robot.look_up("map", "laser", 0, 0)


def test_memory_is_bounded_and_time_that_jumps_back_clears_what_moves():
    frames = Transforms()
    for n in range(2000):
        frames.put("odom", "base", pose(x=n), n * 10 * MS)
    with pytest.raises(InputError, match="young"):
        frames.look_up("odom", "base", 9000 * MS, 100 * MS)  # more than 10 s before the last
    assert np.allclose(frames.look_up("odom", "base", 19_000 * MS, 0), pose(x=1900))
    frames.put("base", "camera", pose(z=1), None)
    frames.clear()
    with pytest.raises(InputError, match="'odom'"):
        frames.look_up("odom", "base", 19_000 * MS, 100 * MS)
    assert np.allclose(frames.look_up("base", "camera", 0, 0), pose(z=1))


def test_a_reading_after_the_stamp_is_waited_for(robot):
    later = threading.Timer(0.1, lambda: robot.put("odom", "base", pose(x=2.0), 1100 * MS))
    later.start()
    T = robot.look_up("odom", "base", 1050 * MS, 100 * MS, wait_s=20.0)
    later.join()
    assert np.allclose(T, pose(x=1.5)), "interpolated with the one that came"
    start = time.monotonic()
    robot.look_up("odom", "base", 1100 * MS, 100 * MS, wait_s=20.0)
    assert time.monotonic() - start < 10, "there was nothing to wait for"


def test_frames_with_names_that_are_used_once_do_not_pile_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(transforms_module.time, "monotonic", lambda: now[0])
    tree = Transforms()
    tree.put("map", "base", np.eye(4), None)
    for n in range(4000):
        now[0] += 0.1
        for m in range(3):
            stamp_ns = 1_000_000 * (100 * n + m)
            tree.put("map", "odom", np.eye(4), stamp_ns)
            tree.put("map", f"object_{n}", np.eye(4), stamp_ns)
    kept = tree._moving
    assert len(kept) < 1000 + 1000 + 300 and sum(len(readings) for readings in kept.values()) < 3 * len(kept)
    assert len(tree._parents) == len(kept) + 1 and len(tree._heard_s) == len(kept)
    assert len(kept["odom"]) == 301 and "object_3999" in kept
    tree.look_up("map", "base", 0, 0)
    tree.look_up("map", "odom", 1_000_000 * 399_950, 100_000_000)
