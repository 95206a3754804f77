"""Ids that survive leaving the view: a generated room, truth as segmenter, poses from the depth images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from mastsam_ros.evaluation.consistency import world_points
from mastsam_ros.io.sample_scene import SampleScene, SceneView
from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.pipeline import Mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import CandidateMasks, EventKind, Frame, FrameResult, Matches, PointPrompts, PoseState

WITHOUT_APPEARANCE = {"tracker.revival": False, "frame.working_pixels": 0}


class TrueMasks:
    """Answers with the true instance that holds most of the carried mask."""

    def __init__(self, views: list[SceneView]) -> None:
        self._views = iter(views)

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        truth = torch.from_numpy(next(self._views).instance.astype(np.int64))
        ids = torch.unique(truth)
        self.masks = truth[None] == ids[ids > 0][:, None, None]

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        assert prompts.masks is not None
        carried = prompts.masks.flatten(1).float()
        best = (carried @ self.masks.flatten(1).float().T).argmax(dim=1)
        return CandidateMasks(self.masks[best][:, None], torch.ones(len(best), 1))

    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        masks = self.masks if region is None else self.masks & region
        masks = masks[masks.flatten(1).any(dim=1)]
        return CandidateMasks(masks[:, None], torch.full((len(masks), 1), 0.95))


@pytest.fixture(scope="module")
def views() -> list[SceneView]:
    scene = SampleScene(1, "look_away", 16, 320, 240, objects=6)
    return [SceneView(dataclasses.replace(view.frame, T_world_camera=None), view.instance) for view in scene]


def results(views: list[SceneView], changes: dict[str, object]) -> Iterator[FrameResult]:
    settings = Settings().updated({**WITHOUT_APPEARANCE, **changes})
    mastsam = Mastsam(FlowMatcher(settings.flow), TrueMasks(views), settings)
    return (mastsam.step(view.frame) for view in views)


def ids_of_objects(view: SceneView, labels: np.ndarray) -> dict[int, int]:
    """True instance -> the id that most of its pixels have."""
    return {
        int(instance): int(np.bincount(labels[view.instance == instance]).argmax())
        for instance in np.unique(view.instance)
        if (view.instance == instance).sum() > 200
    }


def test_objects_come_back_under_their_ids(views: list[SceneView]) -> None:
    found = list(results(views, {}))
    before, after = ids_of_objects(views[0], found[0].labels), ids_of_objects(views[-1], found[-1].labels)
    common = before.keys() & after.keys()
    assert len(common) >= 6
    assert [before[n] for n in common] == [after[n] for n in common]
    kinds = [event.kind for result in found for event in result.events]
    assert EventKind.LOST in kinds and EventKind.REVIVED in kinds


def test_without_the_map_they_are_new(views: list[SceneView]) -> None:
    found = list(results(views, {"geometry.map": False}))
    before, after = ids_of_objects(views[0], found[0].labels), ids_of_objects(views[-1], found[-1].labels)
    assert sum(before[n] != after[n] for n in before.keys() & after.keys()) >= 3


def test_time_stands_still_for_what_is_out_of_view(views: list[SceneView]) -> None:
    found = list(results(views, {"tracker.forget_after": 1}))
    before, after = ids_of_objects(views[0], found[0].labels), ids_of_objects(views[-1], found[-1].labels)
    common = before.keys() & after.keys()
    assert [before[n] for n in common] == [after[n] for n in common]


def test_nothing_changes_without_depth(views: list[SceneView]) -> None:
    flat = [SceneView(dataclasses.replace(view.frame, depth=None), view.instance) for view in views[:5]]
    pairs = zip(results(flat, {}), results(flat, {"geometry.map": False}), strict=True)
    assert all(np.array_equal(with_map.labels, without.labels) for with_map, without in pairs)


def test_poses_from_outside_start_the_map_anew_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    placed = list(SampleScene(1, "orbit", 8, 320, 240, objects=6))[:4]
    plain = [SceneView(dataclasses.replace(view.frame, T_world_camera=None), view.instance) for view in placed]
    settings = Settings().updated(WITHOUT_APPEARANCE)
    mixed = [plain[0], plain[1], placed[2], plain[3]]
    mastsam = Mastsam(FlowMatcher(settings.flow), TrueMasks(mixed), settings)
    found, sizes = [], []
    for view in mixed:
        found.append(mastsam.step(view.frame))
        sizes.append(len(mastsam.world_map().cloud))
    assert [result.pose for result in found] == [PoseState.OWN, PoseState.OWN, PoseState.GIVEN, PoseState.OWN]
    assert caplog.text.count("the map starts anew in their world") == 1
    assert np.array_equal(found[2].T_world_camera, placed[2].frame.T_world_camera)
    assert found[3].T_world_camera is not None and placed[3].frame.T_world_camera is not None
    assert np.allclose(found[3].T_world_camera, placed[3].frame.T_world_camera, atol=0.01)
    assert sizes[1] > sizes[0] > 0
    table = mastsam.world_map()
    true_points = world_points(placed[3].frame.depth, placed[3].frame.K, placed[3].frame.T_world_camera).reshape(-1, 3)
    distance, _ = cKDTree(true_points[np.isfinite(true_points).all(axis=1)]).query(table.cloud.xyz)
    assert np.median(distance) < 0.02, "the map lies in the world of the poses"
    ids = {track.id for track in found[3].tracks}
    assert {instance.id for instance in table.instances} <= ids
    assert {instance.last_seen_ns for instance in table.instances} <= {view.frame.stamp_ns for view in placed[2:]}
