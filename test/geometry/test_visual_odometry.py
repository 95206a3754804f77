"""The camera's pose from pictures and K, on generated scenes: up to scale, and honest where nothing can be known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from mastsam_ros.geometry.flow_depth import GRID, FlowDepth, InverseDepth
from mastsam_ros.geometry.visual_odometry import FIRST_DISTANCE, VisualOdometry
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.types import Frame

WIDTH, HEIGHT = 320, 240


@cache
def frames_of(seed: int, path: str, count: int, of: int = 60) -> tuple[Frame, ...]:
    """The first `count` of `of` frames."""
    scene = SampleScene(seed, path, of, WIDTH, HEIGHT)
    return tuple(scene.render(n).frame for n in range(count))


def without_depth(frame: Frame) -> Frame:
    return replace(frame, depth=None, T_world_camera=None)


def aligned(found: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Scale, and what is left (N,) of places (N, 3) after the best similarity, over the extent of the truth."""
    a, b = found - found.mean(0), truth - truth.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    D = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = float((s * np.diag(D)).sum() / (a**2).sum())
    return scale, np.linalg.norm(scale * a @ (u @ D @ vt).T - b, axis=1), float(np.linalg.norm(np.ptp(truth, axis=0)))


def tracked(odometry: VisualOdometry, frames: Sequence[Frame]) -> list[np.ndarray | None]:
    matcher, poses = FlowMatcher(), []
    for n, frame in enumerate(frames):
        matches = matcher.match(frames[n - 1], frame) if n else None
        poses.append(odometry.track(without_depth(frame), matches))
    return poses


@pytest.mark.parametrize(
    ("seed", "path", "count"), [(51, "orbit", 16), (52, "look_away", 30), (53, "wide_baseline", 8)]
)
def test_the_pose_is_found_up_to_scale(seed, path, count):
    frames = frames_of(seed, path, count, 100 if path == "look_away" else 60)
    poses = tracked(VisualOdometry(), frames)
    known = [n for n, T in enumerate(poses) if T is not None]
    assert len(known) >= 0.4 * count
    assert known == list(range(known[0], count))  # never lost once it has started
    found = np.stack([poses[n] for n in known])
    truth = np.stack([frames[n].T_world_camera for n in known])
    _, error, extent = aligned(found[:, :3, 3], truth[:, :3, 3])
    assert np.sqrt((error**2).mean()) < max(0.02 * extent, 0.004)
    turn = np.swapaxes(found[0, None, :3, :3], 1, 2) @ found[:, :3, :3]
    true_turn = np.swapaxes(truth[0, None, :3, :3], 1, 2) @ truth[:, :3, :3]
    cosine = (np.einsum("nij,nij->n", turn, true_turn) - 1) / 2
    assert np.rad2deg(np.arccos(cosine.clip(-1, 1))).max() < 1.0


def panned(frame: Frame, count: int) -> list[Frame]:
    """The frame seen by a camera that turns on the spot."""
    frames = []
    for n in range(count):
        turn = cv2.Rodrigues(np.array([0, 0.015 * n, 0]))[0]
        warp = frame.K @ turn @ np.linalg.inv(frame.K)
        image = cv2.warpPerspective(frame.image, warp, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        frames.append(replace(frame, image=image))
    return frames


def test_a_camera_that_only_turns_tells_no_scale():
    odometry = VisualOdometry()
    assert tracked(odometry, panned(frames_of(51, "orbit", 16)[0], 16)) == [None] * 16
    assert not odometry.started


def test_a_camera_at_rest_and_one_without_intrinsics_know_nothing():
    frame = frames_of(51, "orbit", 16)[0]
    assert tracked(VisualOdometry(), [frame] * 4) == [None] * 4
    odometry = VisualOdometry()
    assert odometry.track(replace(frame, K=None), None) is None


def test_a_picture_without_corners_is_no_place():
    grey = Frame(np.full((HEIGHT, WIDTH, 3), 128, np.uint8), K=frames_of(51, "orbit", 16)[0].K)
    assert tracked(VisualOdometry(), [grey] * 4) == [None] * 4


def test_the_pose_is_found_again_after_frames_that_show_something_else():
    frames = frames_of(51, "orbit", 16)
    odometry = VisualOdometry()
    poses = tracked(odometry, frames[:14])
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    odometry.interrupt()
    assert odometry.track(replace(without_depth(frames[0]), image=noise), None) is None
    assert odometry.lost
    odometry.interrupt()
    again = odometry.track(without_depth(frames[12]), None)
    assert not odometry.lost
    assert np.linalg.norm(again[:3, 3] - poses[12][:3, 3]) < 0.02 * FIRST_DISTANCE


def test_after_a_reset_the_world_begins_where_it_began_at_first():
    frames = frames_of(51, "orbit", 16)
    odometry = VisualOdometry()
    first = tracked(odometry, frames[:12])
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    for _ in range(40):  # so long that it starts anew from where it was lost
        odometry.track(replace(without_depth(frames[0]), image=noise), None)
    assert not odometry.started
    odometry.reset()
    again = tracked(odometry, frames[:12])
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True) if a is not None)


def test_the_same_frames_give_the_same_bytes():
    frames = frames_of(51, "orbit", 16)[:12]
    first, second = (tracked(VisualOdometry(), frames) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True) if a is not None)
    assert first[-1] is not None


def depth_of(frames: Sequence[Frame], truth: Sequence[Frame]) -> InverseDepth:
    """Of the last frame, with the true poses."""
    flow_depth, matcher = FlowDepth(), FlowMatcher()
    for n, (frame, true) in enumerate(zip(frames, truth, strict=True)):
        matches = matcher.match(frames[n - 1], frame) if n else None
        back, visible = (None, None) if matches is None else (matches.flow_back.numpy(), matches.visible.numpy())
        depth = flow_depth.update(frame.K, true.T_world_camera, FIRST_DISTANCE, back, visible, (HEIGHT, WIDTH))
        assert n or depth is None  # one view shows no depth
    return depth


def test_depth_is_found_from_flow_between_views_of_known_poses():
    frames = frames_of(51, "orbit", 16)[:12]
    depth = depth_of(frames, frames)
    truth = 1 / frames[-1].depth[::GRID, ::GRID]
    error = np.abs(depth.w - truth) / truth
    sure = depth.sigma < 0.06 * depth.w
    assert sure.mean() > 0.5
    assert np.median(error[sure]) < 0.08


def test_what_moves_on_its_own_has_no_depth():
    frames = frames_of(51, "orbit", 16)[:9]
    patch = np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8)
    patch = cv2.resize(patch, (48, 48), interpolation=cv2.INTER_CUBIC)
    moving = []
    for n, frame in enumerate(frames):
        image = frame.image.copy()
        image[128 - 5 * n : 176 - 5 * n, 160:208] = patch  # straight up, while the camera goes sideways
        moving.append(replace(without_depth(frame), image=image))
    depth = depth_of(moving, frames)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[128 - 5 * 8 + 12 : 176 - 5 * 8 - 12, 172:196] = True
    sure = depth.sigma < 0.06 * depth.w
    assert sure[inside[::GRID, ::GRID]].mean() < 0.2 < 0.35 < sure.mean()
