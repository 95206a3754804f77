"""Pose and clouds of frames with K and without depth, through the whole step."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mastsam_ros.geometry.cameras import scale_intrinsics
from mastsam_ros.geometry.flow_depth import InverseDepth
from mastsam_ros.geometry.lifting import lift_structure
from mastsam_ros.geometry.structure import Structure
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import GeometrySettings, Settings
from mastsam_ros.types import Frame, FrameResult, PoseState


@cache
def frames() -> tuple[Frame, ...]:
    scene = SampleScene(55, "orbit", 60, 320, 240)
    return tuple(scene.render(n).frame for n in range(14))


def results(**changes: object) -> list[FrameResult]:
    settings = changes.pop("settings", Settings())
    mastsam = create_mastsam(settings)
    return [mastsam.step(replace(frame, **changes)) for frame in frames()]


def test_pictures_and_k_give_pose_and_clouds_up_to_scale():
    told = results(depth=None, T_world_camera=None)
    assert told[0].pose is PoseState.UNKNOWN and told[0].points is None
    last, truth = told[-1], frames()[-1]
    assert last.pose is PoseState.UP_TO_SCALE and last.T_world_camera is not None
    cloud = last.points
    assert not cloud.metric and len(cloud) > 3000
    assert all(track.position is None for track in last.tracks)
    # The points lie where depth has them, up to one factor.
    x, y, z = cloud.xyz.T
    K = truth.K
    column, row = np.rint([K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]]).astype(int)
    ratio = truth.depth[row.clip(0, 239), column.clip(0, 319)] / z
    error = np.abs(ratio / np.median(ratio) - 1)
    assert np.median(error) < 0.1
    assert (cloud.instance == last.labels[row.clip(0, 239), column.clip(0, 319)]).mean() > 0.95


def test_poses_from_outside_make_it_metric():
    told = results(depth=None)
    assert {result.pose for result in told} == {PoseState.GIVEN}
    cloud, truth = told[-1].points, frames()[-1]
    assert cloud.metric
    x, y, z = cloud.xyz.T
    K = truth.K
    column, row = np.rint([K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]]).astype(int)
    ratio = truth.depth[row.clip(0, 239), column.clip(0, 319)] / z
    assert np.median(ratio) == pytest.approx(1, abs=0.05)


def test_without_k_or_switched_off_nothing_is_known():
    without_k = results(depth=None, T_world_camera=None, K=None)
    off = results(depth=None, T_world_camera=None, settings=Settings.from_mapping({"geometry.structure": False}))
    for result in (*without_k, *off):
        assert result.pose is PoseState.UNKNOWN and result.T_world_camera is None and result.points is None


def test_clouds_leave_out_what_is_unsure_and_edges_and_far_metres():
    view = replace(frames()[0], depth=None, T_world_camera=None)
    w = np.full((120, 160), 0.5, np.float32)
    w[:, 80:] = 0.02  # 50 units away
    sigma = 0.01 * w
    sigma[:60] = w[:60]
    structure = InverseDepth(w, sigma, scale_intrinsics(view.K, 0.5, 0.5))
    labels = np.full((240, 320), 7, np.uint16)
    settings = GeometrySettings(points_stride=1)
    cloud = lift_structure(view, labels, structure, False, settings)
    assert len(cloud) == 60 * (160 - 2)  # the lower half, less one column on each side of the edge
    assert not cloud.metric and set(cloud.instance.tolist()) == {7}
    assert cloud.confidence.min() > 0.8
    metric = lift_structure(view, labels, structure, True, settings)
    assert metric.metric and len(metric) == 60 * 79
    assert len(lift_structure(view, labels, structure, False, replace(settings, points_stride=4))) < len(cloud) / 3


def test_frames_with_depth_in_between_do_not_lead_the_corners_astray():
    structure, matcher = Structure(GeometrySettings()), FlowMatcher()
    poses = []
    for n, frame in enumerate(frames()):
        view = replace(frame, T_world_camera=None, depth=frame.depth if n == 9 else None)
        structure.locate(view, matcher.match(frames()[n - 1], frame) if n else None)
        structure.measure()
        poses.append(structure.T_world_camera)
    assert poses[9] is None
    assert poses[8] is not None and poses[10] is not None
    step, true_step = (
        np.linalg.norm(after[:3, 3] - before[:3, 3])
        for before, after in ((poses[8], poses[10]), (frames()[8].T_world_camera, frames()[10].T_world_camera))
    )
    later, true_later = (
        np.linalg.norm(after[:3, 3] - before[:3, 3])
        for before, after in ((poses[11], poses[13]), (frames()[11].T_world_camera, frames()[13].T_world_camera))
    )
    assert step / true_step == pytest.approx(later / true_later, rel=0.2)


def test_without_k_views_are_placed_in_a_space_of_their_own_that_nobody_is_told_of():
    structure, matcher = Structure(GeometrySettings()), FlowMatcher()
    worlds, placed = set(), 0
    for n, frame in enumerate(frames()):
        view = replace(frame, T_world_camera=None, depth=None, K=None)
        structure.locate(view, matcher.match(frames()[n - 1], frame) if n else None)
        structure.measure()
        assert structure.T_world_camera is None and structure.depth is None and structure.pose is PoseState.UNKNOWN
        if structure.placed is not None:
            placed += 1
            worlds.add(structure.placed.world)
    assert placed >= 3 and len(worlds) == 1
    # Frames with K are of another world.
    structure.locate(replace(frames()[-1], T_world_camera=None, depth=None), None)
    assert structure.placed is None
    structure.locate(replace(frames()[-1], depth=None), None)
    assert structure.pose is PoseState.GIVEN
    later = structure.placed
    assert later is None or later.world not in worlds
