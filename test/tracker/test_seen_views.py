"""Views that were seen before, and the tracks that come back in them: no depth, no poses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mastsam_ros.io.sample_scene import SampleScene, SceneView
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.propagation import Carried
from mastsam_ros.tracker.seen_views import Recalled, SeenViews, bring_back
from mastsam_ros.types import EventKind, Frame

SETTINGS = TrackerSettings()


@pytest.fixture(scope="module")
def views() -> list[SceneView]:
    scene = SampleScene(2, "look_away", 30, 320, 240)
    return [scene.render(index) for index in (0, 3, 15)]


def test_labels_of_an_earlier_view_lie_where_its_objects_are_now(views: list[SceneView]) -> None:
    seen = SeenViews(SETTINGS)
    seen.remember(views[0].frame, views[0].instance, 0)
    objects = [id for id in np.unique(views[0].instance).tolist() if (views[0].instance == id).sum() > 300]
    recalled = seen.recall(views[1].frame, set(objects), 40)
    assert recalled is not None and recalled.age == 40
    truth = views[1].instance
    for id in objects:
        both = (recalled.expected == id) & (truth == id)
        assert both.sum() > 0.6 * ((recalled.expected == id) | (truth == id)).sum(), id
    confirmed = recalled.confirmed > 0
    assert (recalled.confirmed == truth)[confirmed].mean() > 0.95


def test_another_view_is_not_recognised_and_nothing_is_looked_for_without_need(views: list[SceneView]) -> None:
    seen = SeenViews(SETTINGS)
    seen.remember(views[0].frame, views[0].instance, 0)
    assert seen.recall(views[2].frame, {1}, 40) is None
    assert seen.recall(views[1].frame, set(), 60) is None
    assert seen.recall(views[1].frame, {9999}, 60) is None


def test_a_view_that_grows_alike_is_looked_at_before_the_pause_ends(views: list[SceneView]) -> None:
    seen = SeenViews(SETTINGS)
    seen.remember(views[0].frame, views[0].instance, 0)
    wanted = set(np.unique(views[0].instance).tolist()) - {0}
    for number in (38, 40, 44):
        assert seen.recall(views[2].frame, wanted, number) is None
    assert seen.recall(views[2].frame, wanted, 46) is None, "the pause lasts until 52"
    assert seen.recall(views[1].frame, wanted, 48) is not None


def test_the_number_of_views_is_bounded_and_different_ones_stay(views: list[SceneView]) -> None:
    seen = SeenViews(TrackerSettings(recall_views=2))
    for number, view in enumerate((views[0], views[2], views[2], views[2])):
        seen.remember(view.frame, view.instance, 8 * number)
    assert len(seen) == 2
    assert seen.recall(views[1].frame, {int(views[0].instance.max())}, 80) is not None


def test_a_picture_without_features_is_neither_described_nor_recognised() -> None:
    blank = Frame(np.full((60, 80, 3), 128, np.uint8))
    seen = SeenViews(SETTINGS)
    seen.remember(blank, np.ones((60, 80), np.uint16), 0)
    assert seen.recall(blank, {1}, 8) is None


def scene_of(*boxes: tuple[slice, slice]) -> tuple[Identities, Carried, torch.Tensor]:
    """Tracks in boxes of a 40x40 picture, one after the other born and seen for ten frames."""
    identities = Identities(SETTINGS)
    index = torch.zeros(40, 40, dtype=torch.int64)
    for number, box in enumerate(boxes, 1):
        index[box] = number
        identities.born(0.9, sure=True)
    identities.active = list(range(1, len(boxes) + 1))
    for _ in range(10):
        identities.begin_frame()
        for id in identities.active:
            identities.seen(id, 1.0, 0.9)
    return identities, carried_of(index, len(boxes)), index


def carried_of(index: torch.Tensor, count: int) -> Carried:
    y, x = torch.nonzero(index[::4, ::4]).T * 4
    track = index[y, x] - 1
    xy = torch.stack([x, y], dim=1).float()
    return Carried(index, index >= 0, xy, track, torch.ones(len(xy), dtype=torch.bool), count)


LEFT, RIGHT = np.s_[10:30, 2:18], np.s_[10:30, 22:38]


def recalled_of(index: np.ndarray, age: int) -> Recalled:
    return Recalled(index, index, age)


def test_a_return_is_as_sure_as_what_shows_again() -> None:
    identities, _, index = scene_of(LEFT, RIGHT)
    identities.begin_frame()
    identities.disappear(1)
    expected, confirmed = np.zeros((40, 40), np.int64), np.zeros((40, 40), np.int64)
    expected[LEFT] = confirmed[10:26, 2:18] = 1
    index = torch.where(index == 2, 1, 0)
    active, _ = bring_back(Recalled(expected, confirmed, 5), [1], [2], carried_of(index, 1), identities, 4)
    assert active == [2, 1]
    assert [event.evidence for event in identities.told() if event.kind is EventKind.REVIVED] == [0.8]


def test_a_lost_track_comes_back_and_new_ones_in_its_place_are_merged_into_it() -> None:
    identities, _, index = scene_of(LEFT, RIGHT)
    identities.disappear(1)
    young = identities.born(0.9, sure=True)
    index = torch.where(index == 1, 2, torch.where(index == 2, 1, 0))
    earlier = np.zeros((40, 40), np.int64)
    earlier[LEFT] = 1
    active, carried = bring_back(recalled_of(earlier, 5), [1], [2, young], carried_of(index, 2), identities, 4)
    assert active == [2, 1]
    assert not identities.exists(young)
    kinds = [(event.kind, event.id, event.other_id) for event in identities.events]
    assert (EventKind.REVIVED, 1, 0) in kinds and (EventKind.MERGED, young, 1) in kinds
    assert (carried.index[LEFT] == 2).all() and (carried.index[RIGHT] == 1).all()
    assert carried.count == 2
    # The points follow: those of the merged track are those of the old one.
    x, y = carried.xy.long().T
    assert (carried.index[y, x] == carried.track + 1).all()
    assert set(carried.track.tolist()) == {0, 1}


def test_a_place_that_is_taken_by_a_track_of_the_same_time_stays_taken() -> None:
    identities, carried, index = scene_of(LEFT, RIGHT)
    identities.disappear(1)
    earlier = np.zeros((40, 40), np.int64)
    earlier[RIGHT] = 1
    active, after = bring_back(recalled_of(earlier, 5), [1], [2], carried_of((index == 2).long(), 1), identities, 4)
    assert active == [2] and after.count == 1
    assert identities.lost() == [1]


def test_a_small_new_track_within_a_large_lost_one_keeps_its_pixels() -> None:
    identities, _, index = scene_of(LEFT)
    identities.disappear(1)
    small = identities.born(0.9, sure=True)
    patch = np.s_[15:20, 8:13]
    index = torch.zeros_like(index)
    index[patch] = 1
    earlier = np.zeros((40, 40), np.int64)
    earlier[LEFT] = 1
    active, carried = bring_back(recalled_of(earlier, 5), [1], [small], carried_of(index, 1), identities, 4)
    assert active == [small, 1]
    assert (carried.index[patch] == 1).all()
    assert (carried.index == 2).sum() == 20 * 16 - 25


def test_what_the_view_does_not_confirm_stays_lost() -> None:
    identities, _, _ = scene_of(LEFT)
    identities.disappear(1)
    expected = np.zeros((40, 40), np.int64)
    expected[LEFT] = 1
    confirmed = expected.copy()
    confirmed[:, 8:] = 0
    nothing = carried_of(torch.zeros(40, 40, dtype=torch.int64), 0)
    active, _ = bring_back(Recalled(expected, confirmed, 5), [1], [], nothing, identities, 4)
    assert active == [] and identities.lost() == [1]
