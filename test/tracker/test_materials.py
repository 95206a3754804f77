"""Pieces of one surface are one instance from birth; objects, and what people decided about, are not touched."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mastsam_ros.settings import GeometrySettings, TrackerSettings
from mastsam_ros.tracker.constraints import Constraints
from mastsam_ros.tracker.edits import Editor
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.map_revival import MapRevival
from mastsam_ros.tracker.mapper import Mapper
from mastsam_ros.tracker.materials import Materials, join_pieces
from mastsam_ros.tracker.parts import join_parts
from mastsam_ros.tracker.pointing import Pointed
from mastsam_ros.types import EventKind

HEIGHT, WIDTH = 120, 160
FLOOR, WALL, CLOTH = (150, 110, 80), (150, 150, 150), (90, 110, 160)


def picture(index: npt.NDArray[np.int64], colours: list[tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(5).normal(0, 2, (*index.shape, 3))
    return (np.array([(0, 0, 0), *colours])[index] + noise).clip(0, 255).astype(np.uint8)


def floor_behind_a_leg() -> npt.NDArray[np.int64]:
    """1 is a floor, 2 a leg from top to bottom, 3 what is beyond it, 4 the wall above all of them."""
    index = np.full((HEIGHT, WIDTH), 1)
    index[:, 90:100], index[:, 100:] = 2, 3
    index[:40] = 4
    return index


def judged(index: npt.NDArray[np.int64], colours: list[tuple[int, int, int]]) -> tuple[Identities, list[int]]:
    """The instances that the tracks of a first frame are."""
    identities = Identities(TrackerSettings())
    identities.begin_frame()
    active = [identities.born(0.8, sure=True) for _ in colours]
    join_pieces(index, active, picture(index, colours), identities)
    return identities, [identities.constraints.instance(id) for id in active]


def test_what_lies_beyond_a_table_leg_is_a_piece_of_the_floor() -> None:
    identities, instances = judged(floor_behind_a_leg(), [FLOOR, CLOTH, FLOOR, WALL])
    assert instances == [1, 2, 1, 4]
    assert {event.id for event in identities.events if event.kind is EventKind.BORN} == {1, 2, 4}, "3 was never seen"
    assert sorted(identities.instances()) == [1, 2, 4]


def test_what_lies_between_two_that_differ_makes_them_one_while_nobody_saw_them() -> None:
    """A floor on which the light changes from one end to the other."""
    ends = [FLOOR, (150, 110, 92)]
    index = np.ones((HEIGHT, WIDTH), np.int64)
    index[:, 70:90], index[:, 90:] = 3, 2
    between = (150, 110, 86)
    assert judged(np.where(index == 3, 0, index), ends)[1] == [1, 2], "too far apart"
    identities, instances = judged(index, [*ends, between])
    assert instances == [1, 1, 1] and [event.id for event in identities.events] == [1]

    seen, _ = judged(np.where(index == 3, 0, index), ends)
    seen.begin_frame()
    active = [1, 2, seen.born(0.8, sure=True)]
    join_pieces(index, active, picture(index, [*ends, between]), seen)
    assert [seen.constraints.instance(id) for id in active[:2]] == [1, 2], "ids that were seen stay"
    assert seen.constraints.instance(active[2]) in (1, 2)


def test_a_shadow_on_the_floor_is_a_piece_of_it() -> None:
    shadow = (107, 79, 57)
    index = np.where(floor_behind_a_leg() == 2, 1, floor_behind_a_leg())
    index[60:80, 20:50] = 2
    assert judged(index, [FLOOR, shadow, CLOTH, WALL])[1] == [1, 1, 3, 4]


def test_other_colours_and_other_textures_are_other_things() -> None:
    assert judged(floor_behind_a_leg(), [FLOOR, CLOTH, (150, 120, 110), WALL])[1] == [1, 2, 3, 4]
    index, identities = floor_behind_a_leg(), Identities(TrackerSettings())
    active = [identities.born(0.8, sure=True) for _ in range(4)]
    image = picture(index, [FLOOR, CLOTH, FLOOR, WALL]).astype(np.float64)
    stripes = 1 + 0.4 * np.sign(np.sin(np.arange(WIDTH) * 0.9))[None, :, None]
    image = np.where((index == 3)[..., None], image * stripes, image).clip(0, 255).astype(np.uint8)
    join_pieces(index, active, image, identities)
    assert not identities.constraints.pieces


def test_what_stands_on_another_thing_is_no_piece_of_the_wall_in_its_colour() -> None:
    index = floor_behind_a_leg()
    index[60:90, 30:60] = 2
    index[40:, 90:100] = 1
    assert judged(index, [FLOOR, WALL, CLOTH, WALL])[1] == [1, 2, 3, 4]
    index[32:90, 30:60] = 2
    assert judged(index, [FLOOR, WALL, CLOTH, WALL])[1][1] in (2, 4), "where it is before the wall nobody can tell"


def test_a_small_compact_thing_in_the_colour_of_the_wall_stays_a_thing() -> None:
    for rows, columns, instance in (
        (slice(50, 58), slice(30, 36), 2),
        (slice(50, 53), slice(30, 50), 2),
        (slice(112, 120), slice(30, 36), 1),
        (slice(40, 60), slice(30, 50), 1),
    ):
        index = np.ones((HEIGHT, WIDTH), np.int64)
        index[rows, columns] = 2
        assert judged(index, [FLOOR, FLOOR])[1] == [1, instance], "unless it is large or at the edge of the picture"
    index = np.ones((HEIGHT, WIDTH), np.int64)
    index[50:62, 30:32], index[60:62, 30:42] = 2, 2
    assert judged(index, [FLOOR, FLOOR])[1] == [1, 1], "a corner of something"


def test_small_things_are_no_surfaces() -> None:
    index = np.ones((HEIGHT, WIDTH), np.int64)
    index[50:60, 20:40], index[50:60, 100:120] = 2, 3
    assert judged(index, [FLOOR, CLOTH, CLOTH])[1] == [1, 2, 3], "two alike things on a floor"


def test_ids_that_were_seen_never_change() -> None:
    index = floor_behind_a_leg()
    identities, before = judged(index, [FLOOR, CLOTH, (90, 160, 90), WALL])
    identities.begin_frame()
    join_pieces(index, before, picture(index, [FLOOR, CLOTH, FLOOR, WALL]), identities)
    assert not identities.constraints.pieces and not identities.events


def test_what_people_decided_is_left_alone() -> None:
    identities = Identities(TrackerSettings())
    active = [identities.born(0.8, sure=True) for _ in range(4)]
    identities.constraints.tell_apart(active[2], active[0])
    index, colours = floor_behind_a_leg(), [FLOOR, CLOTH, FLOOR, WALL]
    join_pieces(index, active, picture(index, colours), identities)
    assert not identities.constraints.pieces


def test_what_the_segmenter_is_sure_of_has_no_pieces_and_is_none() -> None:
    index, colours = floor_behind_a_leg(), [FLOOR, CLOTH, FLOOR, WALL]
    for sure in (0, 2):
        identities = Identities(TrackerSettings())
        active = [identities.born(0.95 if n == sure else 0.8, sure=True) for n in range(4)]
        join_pieces(index, active, picture(index, colours), identities)
        assert not identities.constraints.pieces


def test_pieces_share_what_happens_to_their_instance() -> None:
    identities, _ = judged(floor_behind_a_leg(), [FLOOR, CLOTH, FLOOR, WALL])
    said = identities.constraints
    identities.begin_frame()
    identities.disappear(1)
    assert not identities.events, "a piece of it is still in view"
    identities.disappear(3)
    assert [(event.kind, event.id) for event in identities.events] == [(EventKind.LOST, 1)]
    image = np.array([[1, 2, 3, 4]], np.uint16)
    assert said.as_instances(image).tolist() == [[1, 2, 1, 4]]
    said.merged(1, 4)
    assert said.instance(3) == 4
    said.link(3, 3)
    assert said.instance(3) == 3, "a person said so"


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(2, 2), (2, 60), (40, 40), (64, 3)]),
    blank=st.sampled_from([None, 0, 255]),
    tracks=st.lists(st.tuples(st.booleans(), st.sampled_from([0.8, 0.95])), min_size=1, max_size=5),
    rows=st.sampled_from([1, 8, 64]),
    seed=st.integers(0, 99),
    join=st.sampled_from([join_pieces, join_parts]),
)
def test_any_picture_and_any_masks_leave_pieces_of_what_is_there(shape, blank, tracks, rows, seed, join) -> None:
    """Masks of a pixel and of none, pictures of nothing: pieces are new, and hang on what is no piece itself."""
    places = np.random.default_rng(seed)
    identities = Identities(TrackerSettings())
    for _ in range(2):
        identities.begin_frame()
        active = list(identities.active)
        for hidden, score in tracks:
            active.append(identities.born(score, active[0] if hidden and active else 0))
        index = places.integers(0, len(active) + 1, (-(-shape[0] // rows), shape[1])).repeat(rows, 0)[: shape[0]]
        image = places.integers(0, 255, (*shape, 3)) if blank is None else np.full((*shape, 3), blank)
        identities.end_frame(active)
        born = {event.id for event in identities.events if event.kind is EventKind.BORN}
        pieces = identities.constraints.pieces
        before = set(pieces)
        join(np.ascontiguousarray(index), active, image.astype(np.uint8), identities)
        assert pieces.keys() <= before | born
        assert not pieces.keys() & set(pieces.values()) and 0 not in pieces.values()


@pytest.mark.parametrize("shape", [(40, 60), (41, 61)])
def test_materials_leave_light_alone(shape: tuple[int, int]) -> None:
    index = np.ones(shape, np.int64)
    index[:, 30:] = 2
    image = picture(index, [(160, 120, 80), (80, 60, 40)])
    materials = Materials.of(index, 2, image)
    assert materials.area.sum() == 1
    assert np.abs(materials.colour[0] - materials.colour[1]).max() < 0.06
    assert materials.shade[0] - materials.shade[1] > 0.5


def test_materials_are_asked_off_the_outlines_unless_there_is_nothing_else() -> None:
    index = np.ones((40, 60), np.int64)
    index[:, 30:], index[10:12, 5:25] = 2, 3
    image = picture(index, [FLOOR, WALL, CLOTH])
    alone = Materials.of(index, 3, image)
    image[:, 29:31] = image[9, 5:25] = image[12, 5:25] = 255
    blurred = Materials.of(index, 3, image)
    np.testing.assert_array_equal(blurred.colour, alone.colour)
    np.testing.assert_array_equal(blurred.shade, alone.shade)
    image[10:12, 5:25] = 255
    assert Materials.of(index, 3, image).shade[2] > alone.shade[2] + 0.1


@pytest.mark.parametrize("moves", [2, 0])
def test_what_moves_by_itself_is_no_piece_any_more(moves: int) -> None:
    """The third track has joined the first: whichever of the two it is that moves, they part."""
    index = floor_behind_a_leg()
    identities, instances = judged(index, [FLOOR, CLOTH, FLOOR, WALL])
    assert instances == [1, 2, 1, 4]
    identities.end_frame([1, 2, 3, 4])
    identities.begin_frame()
    for n, id in enumerate(identities.active):
        identities.seen(id, 1.0, 0.95 if n == moves else 0.8)
    join_pieces(index, identities.active, picture(index, [FLOOR, CLOTH, FLOOR, WALL]), identities)
    assert [identities.constraints.instance(id) for id in identities.active] == [1, 2, 3, 4]
    assert [event.id for event in identities.events if event.kind is EventKind.BORN] == [3]
    assert not identities.constraints.pieces


def test_a_piece_that_somebody_points_at_is_a_thing_by_itself() -> None:
    index = floor_behind_a_leg()
    identities, instances = judged(index, [FLOOR, CLOTH, FLOOR, WALL])
    identities.end_frame([1, 2, 3, 4])
    assert instances[2] == 1
    editor = Editor(identities, MapRevival(Mapper(GeometrySettings(), identities=identities)), identities.settings)
    editor.index = torch.from_numpy(index)
    there = Pointed(np.array([[120.0, 100.0]]), np.array([True]))
    assert editor.add(there, lambda _: (torch.from_numpy(index == 3), 0.9), "mat") == 3
    told = [(event.kind, event.id) for event in editor.events]
    assert told == [(EventKind.BORN, 3), (EventKind.RENAMED, 3)] and identities.constraints.cut(1, 3)
    # The floor with its piece is what has an id already.
    identities.constraints.link(3, 1)
    whole = torch.from_numpy((index == 1) | (index == 3))
    assert editor.add(there, lambda _: (whole, 0.9), "floor") == 1


def test_pieces_are_what_they_are_in_a_later_run() -> None:
    identities, _ = judged(floor_behind_a_leg(), [FLOOR, CLOTH, FLOOR, WALL])
    said = identities.constraints
    assert Constraints.from_mapping(json.loads(json.dumps(said.to_mapping()))) == said


def test_what_motion_tells_from_what_is_behind_it_is_no_piece_of_that() -> None:
    """A carton before a wall of its colour."""
    index, colours = floor_behind_a_leg(), [FLOOR, CLOTH, FLOOR, WALL]
    identities = Identities(TrackerSettings())
    identities.begin_frame()
    active = [identities.born(0.8, sure=True) for _ in colours]
    identities[3].told_apart = 3
    join_pieces(index, active, picture(index, colours), identities)
    assert not identities.constraints.pieces


def test_a_piece_that_motion_keeps_telling_apart_is_none_after_all() -> None:
    index, colours = floor_behind_a_leg(), [FLOOR, CLOTH, FLOOR, WALL]
    identities, instances = judged(index, colours)
    assert instances == [1, 2, 1, 4]
    for told_apart, whole in ((7, 1), (8, 3)):
        identities.begin_frame()
        identities[3].told_apart = told_apart
        join_pieces(index, [1, 2, 3, 4], picture(index, colours), identities)
        assert identities.constraints.instance(3) == whole
    assert [event.id for event in identities.events if event.kind is EventKind.BORN] == [3]


def test_what_pieces_belong_to_keeps_them_when_it_is_told_apart() -> None:
    identities, _ = judged(index := floor_behind_a_leg(), colours := [FLOOR, CLOTH, FLOOR, WALL])
    identities.begin_frame()
    identities[1].told_apart = 12
    join_pieces(index, [1, 2, 3, 4], picture(index, colours), identities)
    assert identities.constraints.instance(3) == 1
