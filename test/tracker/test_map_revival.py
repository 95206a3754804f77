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
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.tracker.identity import IdCounter, Identities
from mastsam_ros.tracker.map_revival import MapRevival
from mastsam_ros.tracker.mapper import Mapper
from mastsam_ros.tracker.world import World
from mastsam_ros.types import (
    CandidateMasks,
    EventKind,
    Frame,
    FrameResult,
    Matches,
    PointPrompts,
    PoseState,
    TrackState,
)

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
    for event in (event for result in found for event in result.events):
        assert 0 <= event.evidence <= 1
        if event.kind is EventKind.REVIVED and event.reason == "lies where it was lost":
            assert event.evidence >= 0.5, "half of the known voxels are the id's, or it is not that id"
        if event.kind is EventKind.BORN and event.reason.startswith("segmented"):
            assert event.evidence == pytest.approx(0.95), "the segmenter's score"


def test_without_the_map_they_are_new(views: list[SceneView]) -> None:
    found = list(results(views, {"geometry.map": False}))
    before, after = ids_of_objects(views[0], found[0].labels), ids_of_objects(views[-1], found[-1].labels)
    assert sum(before[n] != after[n] for n in before.keys() & after.keys()) >= 3


@pytest.mark.parametrize("lasting", [True, False])
def test_a_map_that_lasts_is_gone_on_with_where_time_jumped_back(views: list[SceneView], lasting: bool) -> None:
    settings = Settings().updated(WITHOUT_APPEARANCE)
    mastsam = Mastsam(FlowMatcher(settings.flow), TrueMasks([*views[:4], views[1], views[2]]), settings)
    mastsam.lasting_map = lasting
    for view in views[:4]:
        result = mastsam.step(view.frame)
    before = ids_of_objects(views[3], result.labels)
    mastsam.rename_instance(before[1], "mug")
    mastsam.reset("stamps jumped back by 1 s")
    assert bool(mastsam.world_map().instances) == lasting
    for view in views[1:3]:
        result = mastsam.step(view.frame)
    after = ids_of_objects(views[2], result.labels)
    assert {before[n] == after[n] for n in before.keys() & after.keys()} == {lasting}
    assert ("mug" in {track.label for track in result.tracks}) == lasting
    assert result.pose is PoseState.OWN
    mastsam.reset("asked for", empty_map=True)
    assert not mastsam.world_map().instances


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


def test_after_a_frame_that_failed_the_masks_go_on_from_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = SampleScene(5, "wide_baseline", 10, 320, 240, objects=6)
    frames = [dataclasses.replace(scene.render(n).frame, T_world_camera=None) for n in range(4)]
    mastsam, spared = create_mastsam(), create_mastsam()
    for frame in frames[:2]:
        mastsam.step(frame)
        spared.step(frame)
    monkeypatch.setattr(mastsam.segmenter, "predict", lambda prompts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mastsam.step(frames[2])
    monkeypatch.undo()
    assert (mastsam.step(frames[3]).labels == spared.step(frames[3]).labels).mean() > 0.99


def bar_behind_a_post(post: slice) -> Frame:
    """A bar before a wall, and a post that hides a part of it."""
    depth = np.full((120, 160), 2.0, np.float32)
    depth[50:70, 60:100] = 1.5
    depth[:, post] = 1.0
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)
    K = np.array([[150.0, 0, 79.5], [0, 150.0, 59.5], [0, 0, 1]])
    return Frame(image, K=K, depth=depth, T_world_camera=np.eye(4))


def test_the_other_end_of_a_thing_is_near_and_cut_off_by_what_is_before_it() -> None:
    mapper = Mapper(Settings().geometry)
    revival = MapRevival(mapper)
    shown = np.zeros((120, 160), np.uint16)
    shown[50:70, 60:75] = 7
    for number in range(2):
        mapper.locate(bar_behind_a_post(slice(75, 120)), None, number)
        mapper.remember(shown, {7})
    mapper.locate(bar_behind_a_post(slice(75, 85)), None, 2)
    new, index = torch.zeros(120, 160, dtype=torch.int64), torch.zeros(120, 160, dtype=torch.int64)
    new[50:70, 85:100] = 1
    index[50:70, 60:75] = 1
    near = revival.nearness(new, 1, {7, 8})
    assert near.keys() == {7} and 0 < near[7][0] < 1
    assert revival.cut_off(new, index, [7]) == near
    # Without the post the room between the two is plainly empty: two things.
    mapper.locate(bar_behind_a_post(slice(0, 0)), None, 3)
    empty = bar_behind_a_post(slice(0, 0))
    assert empty.depth is not None
    empty.depth[50:70, 75:85] = 2.0
    mapper.locate(empty, None, 4)
    assert revival.cut_off(new, index, [7]) == {7: {}}


def test_in_plain_view_is_what_has_its_surface_there() -> None:
    mapper = Mapper(Settings().geometry)
    revival = MapRevival(mapper)
    shown = np.zeros((120, 160), np.uint16)
    shown[50:70, 60:100] = 7
    for number in range(2):
        mapper.locate(bar_behind_a_post(slice(0, 0)), None, number)
        mapper.remember(shown, {7})
    assert revival.in_plain_view({7, 8}) == {7}
    mapper.locate(bar_behind_a_post(slice(55, 120)), None, 2)
    assert revival.in_plain_view({7}) == set(), "hidden"
    gone = bar_behind_a_post(slice(0, 0))
    assert gone.depth is not None
    gone.depth[:] = 2.0
    mapper.locate(gone, None, 3)
    assert revival.in_plain_view({7}) == set(), "taken away"


def two_bars() -> tuple[Mapper, MapRevival, Identities, int, int, np.ndarray]:
    """The map after some frames of two ids, the left and the right half of the bar; what was shown."""
    mapper, identities = Mapper(Settings().geometry), Identities(Settings().tracker)
    left, right = (identities.born(1.0, sure=True) for _ in range(2))
    shown = np.zeros((120, 160), np.uint16)
    shown[50:70, 60:80], shown[50:70, 80:100] = left, right
    for number in range(5):
        mapper.locate(bar_behind_a_post(slice(0, 0)), None, number)
        mapper.remember(shown, {left, right})
    mapper.locate(bar_behind_a_post(slice(0, 0)), None, 5)
    return mapper, MapRevival(mapper), identities, left, right, shown


def test_a_mask_that_slid_onto_another_thing_is_that_things() -> None:
    _, revival, identities, left, right, shown = two_bars()
    active = [left, right]
    assert revival.put_right(shown, active, identities) is None
    # The left one's mask has slid over to the right, whose own mask is gone.
    identities.disappear(right)
    active = [left]
    table = revival.put_right((shown == right).astype(np.int64), active, identities)
    assert active == [left, right] and table is not None and table.tolist() == [0, 2]
    assert identities[right].state is TrackState.TRACKED


def test_what_lies_on_a_things_voxels_was_part_of_it_and_nothing_else() -> None:
    _, revival, _, left, right, shown = two_bars()
    new = torch.zeros(120, 160, dtype=torch.int64)
    new[52:68, 62:78] = 1
    new[10:30, 10:40] = 2
    parents, held = revival.origins(new, [1, 0], [False, True], [left, right])
    assert parents == [0, 0] and held == [True, False]
    nowhere = MapRevival(Mapper(Settings().geometry))
    assert nowhere.origins(new, [1, 0], [False, True], [left, right]) == ([1, 0], [False, True])


def test_a_lost_thing_is_recognised_where_the_camera_measures_no_depth() -> None:
    mapper, revival, _, left, right, shown = two_bars()
    holes = bar_behind_a_post(slice(0, 0))
    assert holes.depth is not None
    holes.depth[48:72, 60:80] = 0
    mapper.locate(holes, None, 6)
    new = torch.from_numpy((shown == left).astype(np.int64))
    assert revival.recognise(new, 1, {left, right}) == {0: left}
    dark = bar_behind_a_post(slice(0, 0))
    assert dark.depth is not None
    dark.depth[48:72, 60:80], dark.image[:] = 0, 0
    mapper.locate(dark, None, 7)
    assert revival.recognise(new, 1, {left, right}) == {}, "it has another colour"


def test_a_small_mask_is_recognised_by_few_pixels_if_they_are_hardly_anothers() -> None:
    _, revival, _, left, right, _ = two_bars()
    new = torch.zeros(120, 160, dtype=torch.int64)
    new[56:64, 64:68] = 1  # 4x2 pixels are looked up
    assert revival.recognise(new, 1, {left, right}) == {0: left}
    new[:] = 0
    new[56:64, 78:82] = 1
    assert revival.recognise(new, 1, {left, right}) == {}, "half of it is the other's"


def test_what_nobody_was_told_of_goes_on_as_what_another_camera_shows() -> None:
    ids, world = IdCounter(), World(Settings().geometry)
    rear, front = (Identities(Settings().tracker, ids, world.constraints) for _ in range(2))
    mappers = [Mapper(Settings().geometry, world, identities) for identities in (rear, front)]
    around = rear.born(0.8, sure=True)
    young, known = rear.born(0.8, around), front.born(0.8, sure=True)
    shown = np.zeros((120, 160), np.uint16)
    shown[50:70, 60:100] = known
    for number in range(3):
        mappers[1].locate(bar_behind_a_post(slice(0, 0)), None, number)
        mappers[1].remember(shown, {known})
    mappers[0].locate(bar_behind_a_post(slice(0, 0)), None, 0)
    index = torch.where(torch.from_numpy(shown == known), 2, 1)
    assert MapRevival(mappers[0]).reunite(index, [around, young], rear) == [around, known]
    assert not rear.exists(young) and rear[known].state is TrackState.TRACKED
    assert [(event.kind, event.id) for event in rear.events][1:] == [(EventKind.REVIVED, known)]
    assert all(not front.exists(join.id) for join in mappers[1].member.joins)
