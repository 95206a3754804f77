"""Depth from two views of one camera."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from mastsam_ros.geometry.motion_stereo import MotionStereo
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.types import Frame

Doubles = np.ndarray


@cache
def frames() -> tuple[Frame, ...]:
    scene = SampleScene(55, "orbit", 60, 320, 240)
    return tuple(scene.render(n).frame for n in range(5))


def turned(frame: Frame) -> tuple[np.ndarray, Doubles, Doubles, np.ndarray]:
    """What a camera that is turned by a quarter sees: picture, K, pose and depth."""
    K = frame.K
    K = np.array([[K[1, 1], 0, K[1, 2]], [0, K[0, 0], frame.width - 1 - K[0, 2]], [0, 0, 1]])
    T_camera_turned = np.eye(4)
    T_camera_turned[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    grey = np.ascontiguousarray(np.rot90(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)))
    return grey, K, frame.T_world_camera @ T_camera_turned, np.rot90(frame.depth)


def error(w: np.ndarray, depth: np.ndarray) -> float:
    known = (w > 0) & (depth > 0)
    return float(np.median(np.abs(w[known] * depth[known] - 1)))


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("quarter", [False, True])
def test_depth_is_exact_whichever_way_the_camera_goes(back: bool, quarter: bool):
    stereo = MotionStereo()
    for frame in reversed(frames()) if back else frames():
        grey, K, T, depth = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), frame.K, frame.T_world_camera, frame.depth
        if quarter:
            grey, K, T, depth = turned(frame)
        near, far = np.percentile(depth[depth > 0], (2, 98))
        found = stereo.update(grey, K, T, near, far)
    w, noise = found
    assert w.shape == depth.shape and (w > 0).mean() > 0.5
    assert error(w, depth) < 0.02
    assert 0 < noise < 0.04 * np.median(w)


def test_without_room_to_the_side_nothing_is_said():
    frame = frames()[0]
    grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
    stereo = MotionStereo()
    T = np.eye(4)
    assert stereo.update(grey, frame.K, T, 1, 4) is None  # the first view
    assert stereo.update(grey, frame.K, T, 1, 4) is None  # of the same place
    T[2, 3] = 0.3
    assert stereo.update(grey, frame.K, T, 1, 4) is None  # ahead
    T[0, 3] = 3.0
    T[:3, :3] = cv2.Rodrigues(np.array([0, 1.0, 0]))[0]
    assert stereo.update(grey, frame.K, T, 1, 4) is None  # turned away


def test_views_that_do_not_fit_together_say_nothing():
    rng = np.random.default_rng(0)
    K = frames()[0].K
    stereo = MotionStereo()
    for n in range(3):
        T = np.eye(4)
        T[0, 3] = 0.1 * n
        noise = rng.integers(0, 256, (240, 320), dtype=np.uint8)
        assert stereo.update(noise, K, T, 1, 3) is None
    stereo.reset()
    assert stereo.update(noise, K, T, 1, 3) is None
