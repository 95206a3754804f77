"""Recognising a lost track by its looks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mastsam_ros.settings import GeometrySettings, TrackerSettings
from mastsam_ros.tracker.arrivals import Arrivals
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.map_revival import MapRevival
from mastsam_ros.tracker.mapper import Mapper
from mastsam_ros.tracker.revival import Appearance, LostTracks, appearances, jensen_shannon
from mastsam_ros.types import EventKind, Matches, TrackState


def scene(left: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(90, 110, (80, 120, 3), generator=generator, dtype=torch.uint8)
    index = torch.zeros(80, 120, dtype=torch.int64)
    index[20:50, left : left + 30] = 1
    image[20:50, left : left + 30, 0] = 200
    return index, image


def test_appearance_is_mean_covariance_area_and_centre() -> None:
    index, image = scene(40)
    look = appearances(index, 1, image)
    pixels = image[20:50:2, 40:70:2].reshape(-1, 3).double()
    assert float(look.area[0]) == 900.0
    assert torch.allclose(look.centre[0], torch.tensor([54.0, 34.0], dtype=torch.float64))
    assert torch.allclose(look.mean[0], pixels.mean(0))
    expected = torch.cov(pixels.T, correction=0) + torch.eye(3, dtype=torch.float64) * 64
    assert torch.allclose(look.covariance[0], expected)


def test_divergence_is_zero_for_equals_and_grows_with_the_difference() -> None:
    mean, covariance = torch.zeros(3, 3).double(), torch.eye(3).double().expand(3, 3, 3) * 100
    other = torch.tensor([[0.0, 0, 0], [10, 0, 0], [40, 0, 0]]).double()
    value = jensen_shannon(other, covariance, mean[0], covariance[0])
    assert abs(float(value[0])) < 1e-12 and 0 < float(value[1]) < float(value[2])


def test_a_lost_track_is_recognised_where_the_matches_lead() -> None:
    settings = TrackerSettings()
    index, image = scene(20)
    lost = LostTracks(settings)
    seen = appearances(index, 1, image)
    lost.remember([7], seen, seen.area.tolist())
    here = torch.tensor([[x, y] for x in range(0, 120, 4) for y in range(0, 80, 4)]).float()
    lost.move([7], Matches(here, here + torch.tensor([50.0, 0.0]), torch.ones(len(here))))
    index, image = scene(70)
    assert lost.recognise([7], appearances(index, 1, image)) == {0: 7}
    alike = lost.likeness[7, 0]
    assert 0.9 < alike <= 1
    image[20:50, 70:100, 0] = 195
    assert lost.recognise([7], appearances(index, 1, image)) == {0: 7}
    assert 0 <= lost.likeness[7, 0] < alike, "another shade is less sure"
    image[20:50, 70:100] = torch.tensor([20, 20, 220], dtype=torch.uint8)
    assert lost.recognise([7], appearances(index, 1, image)) == {}


def test_far_away_is_somebody_else() -> None:
    index, image = scene(0)
    lost = LostTracks(TrackerSettings())
    seen = appearances(index, 1, image)
    lost.remember([7], seen, seen.area.tolist())
    index, image = scene(90)
    assert lost.recognise([7], appearances(index, 1, image)) == {}


def test_the_farther_its_surroundings_moved_the_farther_off_it_may_be() -> None:
    index, image = scene(20)
    lost = LostTracks(TrackerSettings())
    seen = appearances(index, 1, image)
    lost.remember([7], seen, seen.area.tolist())
    index, image = scene(90)
    assert lost.recognise([7], appearances(index, 1, image)) == {}, "70 pixels off, where nothing has moved"
    here = torch.tensor([[x, y] for x in range(0, 120, 4) for y in range(0, 80, 4)]).float()
    lost.move([7], Matches(here, here + torch.tensor([30.0, 0.0]), torch.ones(len(here))))
    assert lost.recognise([7], appearances(index, 1, image)) == {0: 7}, "nearer than what is behind it: 40 pixels more"


def test_a_mask_that_only_stands_in_is_not_remembered() -> None:
    index, image = scene(20)
    lost = LostTracks(TrackerSettings())
    seen = appearances(index, 1, image)
    lost.remember([7], seen, seen.area.tolist())
    image[20:50, 20:50] = torch.tensor([20, 20, 220], dtype=torch.uint8)
    other = appearances(index, 1, image)
    lost.remember([7], other, other.area.tolist(), [False])
    assert lost.recognise([7], seen) == {0: 7} and lost.recognise([7], other) == {}
    lost.remember([7], other, other.area.tolist(), [True])
    assert lost.recognise([7], seen) == {} and lost.recognise([7], other) == {0: 7}


def test_an_expected_place_moves_once_a_frame() -> None:
    index, image = scene(20)
    lost = LostTracks(TrackerSettings())
    seen = appearances(index, 1, image)
    lost.remember([7], seen, seen.area.tolist())
    here = torch.tensor([[x, y] for x in range(0, 120, 4) for y in range(0, 80, 4)]).float()
    matches = Matches(here, here + torch.tensor([20.0, 0.0]), torch.ones(len(here)))
    nobody = seen.of([])
    for frame in (1, 2):
        for _ in range(3):
            lost.move([7], matches)
        index, image = scene(20 + 20 * frame)
        lost.recognise([7], appearances(index, 1, image))
        assert lost.likeness[7, 0] > 0.99, "exactly where it is expected"
        lost.remember([], nobody, [])


def speckled(share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A grey thing on a blue ground, this share of it red, and the picture."""
    index = torch.zeros(80, 120, dtype=torch.int64)
    index[20:60, 20:60] = 1
    image = torch.full((80, 120, 3), 100, dtype=torch.uint8)
    image[index == 0] = torch.tensor(BLUE, dtype=torch.uint8)
    image[20 : 20 + int(40 * share), 20:60] = torch.tensor([250, 100, 100], dtype=torch.uint8)
    return index, image


def test_the_same_colours_in_other_shares_are_recognised() -> None:
    """Half hidden, a thing shows more of one of its colours: the mean and the spread change, the colours do not."""
    lost = LostTracks(TrackerSettings())
    seen = appearances(*_with_count(speckled(0.05)), colours=True)
    lost.remember([7], seen, seen.area.tolist())
    now = appearances(*_with_count(speckled(0.3)), colours=True)
    assert lost.recognise([7], replace(now, colours=None)) == {}
    assert lost.recognise([7], now) == {0: 7}
    assert 0 < lost.likeness[7, 0] < 1
    lost.remember([9], now, now.area.tolist())
    assert lost.recognise([7], now, wholes=[{9}]) == {}, "a piece of what looks the same"
    assert lost.recognise([7], seen, wholes=[{9}]) == {0: 7}
    farther = replace(now, centre=now.centre + 8 * 28)
    assert lost.recognise([7], farther) == {}, "eight times as far off as a lost track may be"
    assert lost.recognise([7], replace(now, area=6 * now.area)) == {}, "six times as large"


def test_what_is_known_of_the_colours_follows_them() -> None:
    lost = LostTracks(TrackerSettings())
    before, after = (appearances(*_with_count(speckled(share)), colours=True) for share in (0.0, 0.9))
    lost.remember([7], before, before.area.tolist())
    sliver = replace(after, area=after.area / 10)
    for _ in range(5):
        lost.remember([7], sliver, sliver.area.tolist())
    assert lost.recognise([7], after) == {}, "a sliver says nothing of the whole"
    for _ in range(5):
        lost.remember([7], after, after.area.tolist(), [False])
    assert lost.recognise([7], after) == {}, "nor does a mask that stands in"
    lost.reset()
    for look in (before, after, after, after):
        lost.remember([7], look, look.area.tolist())
    assert lost.recognise([7], after) == {0: 7}
    assert lost.recognise([7], before) == {0: 7}, "nor are the old ones forgotten at once"
    lost.keep_only(set())
    assert lost.recognise([7], after) == {}


def _with_count(picture: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, int, torch.Tensor]:
    index, image = picture
    return index, int(index.max()), image


def at_rest() -> tuple[LostTracks, Identities, Arrivals, Matches]:
    """Nothing is known yet, and nothing moves."""
    settings = TrackerSettings()
    lost, identities = LostTracks(settings), Identities(settings)
    still = torch.tensor([[x, y] for x in range(0, 120, 4) for y in range(0, 80, 4)]).float()
    arrivals = Arrivals(settings, identities, lost, MapRevival(Mapper(GeometrySettings())))
    return lost, identities, arrivals, Matches(still, still, torch.ones(len(still)))


def test_what_was_lost_is_met_again_in_what_was_born_since() -> None:
    lost, identities, arrivals, matches = at_rest()
    index, image = scene(20)
    looks = appearances(index, 1, image)
    old = identities.born(0.8, sure=True)
    lost.remember([old], looks, looks.area.tolist())
    identities.end_frame([old])
    assert arrivals.met_again([old], looks, matches, np.zeros(1), PIXELS) == {}

    beside = identities.born(0.8, sure=True)
    identities.begin_frame()
    identities.disappear(old)
    assert arrivals.met_again([beside], looks, matches, np.zeros(1), PIXELS) == {}, "both began in one frame"
    young = identities.born(0.8, sure=True)
    both = appearances(2 * index, 2, image)
    assert arrivals.met_again([beside, young], both, matches, np.zeros(2), PIXELS) == {young: old}
    assert not identities.exists(young) and identities[old].state is TrackState.TRACKED
    assert [event.kind for event in identities.events][-2:] == [EventKind.REVIVED, EventKind.MERGED]


@pytest.mark.parametrize(("share_of_parent", "found"), [(0.0, True), (0.3, False)])
def test_what_came_out_of_something_that_looks_the_same_is_a_piece_of_it(share_of_parent: float, found: bool) -> None:
    lost, identities, arrivals, matches = at_rest()
    old, parent = identities.born(0.8, sure=True), identities.born(0.8, sure=True)
    for id, share in ((old, 0.05), (parent, share_of_parent)):
        looks = appearances(*_with_count(speckled(share)), colours=True)
        lost.remember([id], looks, looks.area.tolist())
    identities.begin_frame()
    identities.disappear(old)
    young = identities.born(0.8, parent)
    index, image = speckled(0.3)
    looks = appearances(2 * index, 2, image, colours=True)
    again = arrivals.met_again([parent, young], looks, matches, np.zeros(2), PIXELS)
    assert again == ({young: old} if found else {})


def test_what_a_carried_mask_stands_in_for_is_met_again_too() -> None:
    settings = TrackerSettings()
    identities = Identities(settings)
    old = identities.born(0.8, sure=True)
    identities.begin_frame()
    identities.coasted(old)
    young = identities.born(0.8, old)
    identities.active = [old, young]
    identities.found_as(young, old, "looks as it did when it was lost")
    assert identities.active == [old] and identities[old].missing == 0 and not identities.exists(young)


def two_things(first: tuple[int, int, int], second: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """1 on the left and 2 beside it, each in its colour, and the picture."""
    index = torch.zeros(80, 120, dtype=torch.int64)
    index[20:50, 30:50], index[20:50, 50:70] = 1, 2
    image = torch.full((80, 120, 3), 90, dtype=torch.uint8)
    image[index == 1], image[index == 2] = (
        torch.tensor(first, dtype=torch.uint8),
        torch.tensor(second, dtype=torch.uint8),
    )
    return index, image


MATURE = TrackerSettings().mature_after
PIXELS = 30_000
"""Of a picture of which the things are a fiftieth."""
RED, BLUE = (200, 40, 40), (40, 60, 200)


@pytest.mark.parametrize(("share", "found"), [(0.02, True), (0.3, False)])
def test_a_mask_that_went_over_to_another_thing_comes_back(share: float, found: bool) -> None:
    """The red thing passed behind the blue one, whose mask it has now; what is new is red."""
    lost, identities, arrivals, matches = at_rest()
    red = identities.born(0.8, sure=True)
    index, image = two_things(RED, BLUE)
    for _ in range(MATURE):
        identities.begin_frame()
        identities.seen(red, 0.9, 0.8)
        looks = appearances((index == 1).long(), 1, image)
        assert arrivals.met_again([red], looks, matches, np.array([share * PIXELS]), PIXELS) == {}
        lost.remember([red], looks, looks.area.tolist())
        identities.end_frame([red])
    identities.begin_frame()
    identities.seen(red, 0.9, 0.8)
    young = identities.born(0.8, sure=True)
    identities.active = [red, young]
    looks = appearances(index, 2, image)
    swapped = Appearance(*(getattr(looks, name).flip(0) for name in ("area", "centre", "mean", "covariance")))
    assert arrivals.met_again([red, young], swapped, matches, np.full(2, share * PIXELS), PIXELS) == (
        {young: red} if found else {}
    )
    assert identities.exists(young) != found and identities.active == ([red] if found else [red, young])


@pytest.mark.parametrize(
    ("born", "size", "found"),
    [(1, 300, True), (1, 40, False), (MATURE + 3, 300, False)],
    ids=["rest", "less", "before"],
)
def test_the_rest_of_a_sliver_is_met_again(born: int, size: int, found: bool) -> None:
    """The red thing goes behind something step by step; beside what is left of it something red is born, so many frames
    before the last one."""
    lost, identities, arrivals, matches = at_rest()
    index, image = two_things(RED, RED)
    both = appearances(index, 2, image)
    red, area = identities.born(0.8, sure=True), 600.0
    active = [red]
    for left in range(MATURE + 6, 0, -1):
        identities.begin_frame()
        for id in active:
            identities.seen(id, 0.9, 0.8)
        if left == born:
            active.append(identities.born(0.8, sure=True))
        area *= 1 if left > 6 else 0.7
        areas = np.array([area, size])[: len(active)]
        now = replace(both.of(list(range(len(active)))), area=torch.tensor(areas))
        identities.active = active
        again = arrivals.met_again(active, now, matches, areas, PIXELS)
        if left > 1:
            assert again == {}
            lost.remember(active, now, areas.tolist())
            identities.end_frame(active)
    assert again == ({active[1]: red} if found else {})


def test_a_mask_that_went_over_to_what_was_lost_gives_its_id_back_and_no_more() -> None:
    """As above, where the blue thing had an id of its own once: the mask cannot be both."""
    lost, identities, arrivals, matches = at_rest()
    index, image = two_things(RED, BLUE)
    both = appearances(index, 2, image)
    blue = identities.born(0.8, sure=True)
    for _ in range(MATURE):
        identities.begin_frame()
        identities.seen(blue, 0.9, 0.8)
        lost.remember([blue], both.of([1]), [600.0])
        identities.end_frame([blue])
    identities.disappear(blue)
    red = identities.born(0.8, sure=True)
    for _ in range(MATURE):
        identities.begin_frame()
        identities.seen(red, 0.9, 0.8)
        assert arrivals.met_again([red], both.of([0]), matches, np.array([600.0]), PIXELS) == {}
        lost.remember([red], both.of([0]), [600.0])
        identities.end_frame([red])
    identities.begin_frame()
    identities.seen(red, 0.9, 0.8)
    young = identities.born(0.8, sure=True)
    identities.active = [red, young]
    assert arrivals.met_again([red, young], both.of([1, 0]), matches, np.full(2, 600.0), PIXELS) == {young: red}
    assert identities.exists(red) and not identities.exists(young) and identities.active == [red]
    assert identities[blue].state is TrackState.LOST


def test_what_looks_like_something_else_for_long_has_changed() -> None:
    lost = LostTracks(TrackerSettings())
    index, image = two_things(RED, BLUE)
    before = appearances((index == 1).long(), 1, image)
    after = appearances((index == 1).long(), 1, two_things(BLUE, RED)[1])
    lost.remember([7], before, before.area.tolist())
    counted = []
    for _ in range(7):
        counted.append(lost.strangers([7, 8], after.of([0, 0])))
        lost.remember([7], after, after.area.tolist())
    assert counted == [{7: 1}, {7: 2}, {7: 3}, {7: 4}, {}, {}, {}]
    lost.strangers([7], before)
    lost.reset()
    assert lost.strangers([7], after) == {}
