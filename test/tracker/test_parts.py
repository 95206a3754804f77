"""Parts of one thing are one instance from birth, things that only touch are not, and what turns out apart parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings, TrackerSettings
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.parts import contacts, join_parts
from mastsam_ros.types import EventKind, Frame, TrackState

HEIGHT, WIDTH = 240, 320
TABLE, RED, ORANGE, BLUE = (180, 140, 100), (180, 60, 40), (190, 110, 50), (50, 70, 150)


def picture(index: npt.NDArray[np.int64], colours: list[tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(5).normal(0, 2, (*index.shape, 3))
    return (np.array([(0, 0, 0), *colours])[index] + noise).clip(0, 255).astype(np.uint8)


def carton() -> npt.NDArray[np.int64]:
    """On a table, 1, an upright carton with an upper half, 2, and a lower one, 3."""
    index = np.full((HEIGHT, WIDTH), 1)
    index[100:140, 150:180], index[140:180, 150:180] = 2, 3
    return index


def box_before_a_box() -> npt.NDArray[np.int64]:
    """On a table, 1, a narrow box, 3, that stands before a wide one, 2."""
    index = np.full((HEIGHT, WIDTH), 1)
    index[100:140, 120:200], index[125:180, 150:170] = 2, 3
    return index


def begun(count: int, scores: dict[int, float] | None = None) -> Identities:
    """So many tracks, all of them shown for the first time."""
    identities = Identities(TrackerSettings())
    identities.begin_frame()
    identities.end_frame([identities.born((scores or {}).get(n + 1, 0.8), sure=True) for n in range(count)])
    return identities


def judged(index: npt.NDArray[np.int64], colours: list[tuple[int, int, int]], **about) -> list[int]:
    """The instances that the tracks of a first frame are."""
    identities = begun(len(colours), **about)
    join_parts(index, identities.active, picture(index, colours), identities)
    instances = [identities.constraints.instance(id) for id in identities.active]
    born = {event.id for event in identities.events if event.kind is EventKind.BORN}
    assert born == set(instances), "nobody hears of parts"
    return instances


def test_the_halves_of_a_carton_are_one_thing() -> None:
    assert judged(carton(), [TABLE, RED, ORANGE]) == [1, 2, 2]


def test_a_box_before_another_one_is_another_thing() -> None:
    assert judged(box_before_a_box(), [TABLE, RED, ORANGE]) == [1, 2, 3]


def test_two_boxes_side_by_side_of_unlike_height_are_two_things() -> None:
    index = np.full((HEIGHT, WIDTH), 1)
    index[100:180, 120:160], index[150:180, 160:190] = 2, 3
    assert judged(index, [TABLE, RED, BLUE]) == [1, 2, 3]


def test_the_bands_of_a_can_are_one_thing() -> None:
    index = carton()
    index[165:180, 150:180] = 4
    instances = judged(index, [TABLE, RED, ORANGE, RED])
    assert len(set(instances[1:])) == 1 and instances[0] == 1


def test_what_is_large_is_no_part_and_has_none() -> None:
    index = np.full((HEIGHT, WIDTH), 1)
    index[:, 160:] = 2
    assert judged(index, [TABLE, RED]) == [1, 2]


def test_the_part_that_nobody_has_heard_of_takes_the_id_that_is_there() -> None:
    index, colours = carton(), [TABLE, RED, ORANGE]
    index[120:140, 150:180] = 3
    identities = begun(2)
    join_parts(np.where(index == 3, 0, index), identities.active, picture(index, colours), identities)
    identities.begin_frame()
    active = [1, 2, identities.born(0.8, sure=True)]
    identities.end_frame(active)
    join_parts(index, active, picture(index, colours), identities)
    assert identities.constraints.instance(3) == 2 and not identities.events, "though it is the larger one"


def test_ids_that_were_heard_of_never_change() -> None:
    identities = begun(3)
    identities.begin_frame()
    assert not contacts(carton(), identities.active, picture(carton(), [TABLE, RED, ORANGE]), identities)
    join_parts(carton(), identities.active, picture(carton(), [TABLE, RED, ORANGE]), identities)
    assert not identities.constraints.pieces and not identities.events


def test_what_people_told_apart_stays_apart() -> None:
    index, identities = carton(), begun(3)
    identities.constraints.tell_apart(2, 3)
    join_parts(index, identities.active, picture(index, [TABLE, RED, ORANGE]), identities)
    assert not identities.constraints.pieces
    identities = begun(3)
    identities.constraints.shaped.add(3)
    join_parts(index, identities.active, picture(index, [TABLE, RED, ORANGE]), identities)
    assert not identities.constraints.pieces


def test_what_the_segmenter_is_sure_of_is_the_whole() -> None:
    assert judged(carton(), [TABLE, RED, ORANGE], scores={2: 0.95}) == [1, 2, 3]


def test_what_motion_told_from_what_it_touches_is_no_part_of_that() -> None:
    identities = begun(3)
    identities[3].told_apart = 8
    join_parts(carton(), identities.active, picture(carton(), [TABLE, RED, ORANGE]), identities)
    assert not identities.constraints.pieces


def test_parts_are_carried_by_themselves() -> None:
    identities = begun(3)
    join_parts(carton(), identities.active, picture(carton(), [TABLE, RED, ORANGE]), identities)
    assert identities.active == [1, 2, 3]
    assert all(identities[id].state is TrackState.TRACKED for id in (1, 2, 3))


@pytest.mark.parametrize("apart", [False, True])
def test_what_later_views_show_apart_is_told_as_a_thing_by_itself(apart: bool) -> None:
    """Two boxes in one line, as they look from one side; from another one they do not touch."""
    colours, identities = [TABLE, RED, ORANGE], begun(3)
    join_parts(carton(), identities.active, picture(carton(), colours), identities)
    (part,) = identities.constraints.pieces
    whole = identities.constraints.pieces[part]
    later = carton()
    if apart:
        later[100:140, 150:180], later[100:140, 100:130] = 1, 2
    told = []
    for _ in range(12):
        identities.begin_frame()
        for id in identities.active:
            identities.seen(id, 1.0, 0.8)
        identities.end_frame([1, 2, 3])
        join_parts(later, identities.active, picture(later, colours), identities)
        told += identities.events
    assert identities.constraints.instance(part) == (part if apart else whole)
    assert [(event.kind, event.id) for event in told] == [(EventKind.BORN, part)] * apart, "told once, joined once"


def test_a_part_of_which_hardly_anything_is_in_view_says_nothing() -> None:
    colours, identities = [TABLE, RED, ORANGE], begun(3)
    join_parts(carton(), identities.active, picture(carton(), colours), identities)
    (part,) = identities.constraints.pieces
    later = np.where(carton() == part, 1, carton())
    later[20:24, 20:24] = part
    for _ in range(12):
        identities.begin_frame()
        join_parts(later, identities.active, picture(later, colours), identities)
    assert part in identities.constraints.pieces


@pytest.mark.parametrize("turned", [0, 1, 2, 3])
def test_how_a_picture_is_held_changes_nothing(turned: int) -> None:
    for index in (carton(), box_before_a_box()):
        image = picture(index, [TABLE, RED, ORANGE])
        upright, held = (
            {(c.first, c.second): c.features for c in contacts(index, [1, 2, 3], image, begun(3))}
            for index, image in (
                (index, image),
                (np.ascontiguousarray(np.rot90(index, turned)), np.ascontiguousarray(np.rot90(image, turned))),
            )
        )
        assert upright.keys() == held.keys() == {(2, 3)}
        np.testing.assert_allclose(upright[2, 3], held[2, 3], atol=1e-6)


@pytest.mark.parametrize("joined", [True, False])
def test_the_labels_of_the_embedded_default_show_a_carton_as_one_thing_unless_that_is_off(joined: bool) -> None:
    image = picture(carton(), [TABLE, RED, ORANGE])
    labels = create_mastsam(Settings().with_assignments([f"tracker.join_parts={joined}"])).step(Frame(image)).labels
    assert (labels[120, 165] == labels[160, 165]) == joined
    assert labels[20, 20] not in (0, labels[120, 165], labels[160, 165])


def test_the_corner_is_half_full_where_an_outline_goes_on_straight() -> None:
    (straight,) = contacts(carton(), [1, 2, 3], picture(carton(), [TABLE, RED, ORANGE]), begun(3))
    index = box_before_a_box()
    (notch,) = contacts(index, [1, 2, 3], picture(index, [TABLE, RED, ORANGE]), begun(3))
    assert straight.features[0] == pytest.approx(0.55, abs=0.07) and notch.features[0] > 0.7
    # 30 of the 2 x (30 + 40) pairs of pixels around a half.
    assert straight.features[1] == pytest.approx(30 / 140)


@pytest.mark.parametrize(
    ("lower", "shared"),
    [(RED, True), ((120, 40, 27), True), (BLUE, False), ((150, 150, 150), False)],
    ids=["same", "in the shade", "other hue", "grey"],
)
def test_hues_are_shared_whatever_the_light_and_greys_have_none(lower: tuple[int, int, int], shared: bool) -> None:
    (contact,) = contacts(carton(), [1, 2, 3], picture(carton(), [TABLE, RED, lower]), begun(3))
    least, most = np.log([0.1, 1.1])
    assert contact.features[2] > most - 0.7 if shared else contact.features[2] < least + 0.1


def test_two_greys_share_no_hue() -> None:
    (contact,) = contacts(carton(), [1, 2, 3], picture(carton(), [TABLE, (90, 90, 90), (150, 150, 150)]), begun(3))
    assert contact.features[2] < np.log(0.15)


def test_what_stands_on_the_middle_of_another_thing_in_other_colours_is_another_thing() -> None:
    index = np.full((HEIGHT, WIDTH), 1)
    index[140:180, 130:200], index[100:140, 150:180] = 2, 3
    assert judged(index, [TABLE, RED, BLUE]) == [1, 2, 3]
