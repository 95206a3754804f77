"""Camera poses from depth images of a generated room whose true poses are known."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from mastsam_ros.geometry.odometry import FORWARD_LEFT_UP, Odometry
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.types import Frame


def frames_of(path: str, frames: int, **options: int) -> list[Frame]:
    return [view.frame for view in SampleScene(3, path, frames, 400, 300, objects=6, **options)]


def without_pose(frame: Frame) -> Frame:
    return dataclasses.replace(frame, T_world_camera=None)


def poses(odometry: Odometry, frames: list[Frame]) -> list[np.ndarray | None]:
    matcher, before, result = FlowMatcher(), None, []
    for frame in frames:
        matches = matcher.match(before, frame) if before is not None else None
        result.append(odometry.track(frame, matches))
        before = frame
    return result


def error_m(T: np.ndarray | None, frame: Frame, first: Frame) -> float:
    assert T is not None and frame.T_world_camera is not None and first.T_world_camera is not None
    truth = np.linalg.inv(first.T_world_camera) @ frame.T_world_camera
    return float(np.linalg.norm(T[:3, 3] - truth[:3, 3]))


@pytest.fixture(scope="module")
def wide() -> list[Frame]:
    return frames_of("wide_baseline", 8)


def test_poses_of_a_walk_with_wide_steps(wide: list[Frame]) -> None:
    odometry = Odometry()
    errors = [
        error_m(T, frame, wide[0])
        for T, frame in zip(poses(odometry, [without_pose(f) for f in wide]), wide, strict=True)
    ]
    assert errors[0] < 1e-9 and max(errors) < 0.008
    assert 1 < len(odometry.keyframes) < len(wide)


def test_same_frames_same_bytes(wide: list[Frame]) -> None:
    plain = [without_pose(f) for f in wide[:4]]
    assert np.array_equal(poses(Odometry(), plain), poses(Odometry(), plain))


def test_a_given_pose_takes_precedence_and_is_where_later_frames_start(wide: list[Frame]) -> None:
    mixed = [*wide[:3], *(without_pose(f) for f in wide[3:5])]
    found = poses(Odometry(), mixed)
    for T, frame in zip(found[:3], wide, strict=False):
        assert T is not None and np.array_equal(T, frame.T_world_camera)
    for T, frame in zip(found[3:], wide[3:5], strict=True):
        assert T is not None and frame.T_world_camera is not None
        assert np.linalg.norm(T[:3, 3] - frame.T_world_camera[:3, 3]) < 0.008


def test_a_lost_camera_says_so_and_is_found_again(wide: list[Frame], caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0).integers(0, 255, wide[0].image.shape, np.uint8)
    depth = np.random.default_rng(1).uniform(0.5, 5, wide[0].image.shape[:2]).astype(np.float32)
    nowhere = Frame(noise, K=wide[0].K, depth=depth)
    plain = [without_pose(f) for f in wide]
    odometry = Odometry()
    with caplog.at_level(logging.INFO):
        found = poses(odometry, [*plain[:3], nowhere, plain[1]])
    assert found[3] is None and not odometry.lost
    assert error_m(found[4], wide[1], wide[0]) < 0.01
    assert "lost" in caplog.text and "found again" in caplog.text


def test_no_pose_without_depth_or_where_nothing_can_be_followed() -> None:
    blank = np.full((60, 80, 3), 128, np.uint8)
    K = np.array([[80.0, 0, 39.5], [0, 80.0, 29.5], [0, 0, 1]])
    odometry = Odometry()
    assert odometry.track(Frame(blank), None) is None
    assert odometry.track(Frame(blank, K=K, depth=np.zeros((60, 80), np.float32)), None) is None
    assert odometry.track(Frame(blank, K=K, depth=np.ones((60, 80), np.float32)), None) is None
    assert not odometry.lost


def test_worlds_are_not_mixed(wide: list[Frame]) -> None:
    plain = [without_pose(f) for f in wide]
    waits = Odometry()
    waits.expects_given = True
    waits.reset()
    found = poses(waits, [plain[0], plain[1], wide[2], plain[3]])
    assert found[:2] == [None, None] and not waits.lost, "before the first pose from outside there is no world"
    assert found[3] is not None and wide[3].T_world_camera is not None
    assert np.linalg.norm(found[3][:3, 3] - wide[3].T_world_camera[:3, 3]) < 0.008

    torn = Odometry()
    assert torn.track(wide[0], None) is not None
    assert torn.track(plain[4], None) is None and torn.lost, "the motion since the last given pose is not known"
    assert torn.track(plain[4], None) is None
    assert np.array_equal(torn.track(wide[5], None), wide[5].T_world_camera) and not torn.lost


def test_a_view_without_corners_after_a_given_pose_does_not_tear_the_path(wide: list[Frame]) -> None:
    matcher, odometry = FlowMatcher(), Odometry()
    blank = dataclasses.replace(without_pose(wide[1]), image=np.full_like(wide[1].image, 128))
    odometry.track(wide[0], None)
    there = odometry.track(blank, matcher.match(wide[0], wide[1]))
    found = odometry.track(without_pose(wide[2]), matcher.match(wide[1], wide[2]))
    for T, true in ((there, wide[1]), (found, wide[2])):
        assert T is not None and true.T_world_camera is not None
        assert np.linalg.norm(T[:3, 3] - true.T_world_camera[:3, 3]) < 0.02


def test_the_origin_is_where_the_first_frame_is(wide: list[Frame]) -> None:
    T = Odometry(FORWARD_LEFT_UP).track(without_pose(wide[0]), None)
    assert T is not None
    forward, up = T @ [0, 0, 1, 0], T @ [0, -1, 0, 0]  # of the optical frame: z and -y
    assert np.array_equal(forward[:3], [1, 0, 0]) and np.array_equal(up[:3], [0, 0, 1])
