"""The life of ids: birth, proof, loss, return, merging, removal."""

from __future__ import annotations

import pytest

from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.types import EventKind, IdsExhaustedError, TrackState

SETTINGS = TrackerSettings(confirm_after=3, confirm_part_after=6, coast_frames=2, mature_after=2, forget_after=4)


def kinds(identities: Identities) -> list[tuple[EventKind, int]]:
    return [(event.kind, event.id) for event in identities.events]


def test_a_tentative_track_is_shown_as_its_parent_until_it_has_proven_itself() -> None:
    identities = Identities(SETTINGS)
    identities.begin_frame()
    parent = identities.born(0.8, sure=True)
    child = identities.born(0.8, parent)
    identities.end_frame([parent, child])
    assert identities.shown_as(child) == parent
    assert kinds(identities) == [(EventKind.BORN, parent)]
    for _ in range(2):
        identities.begin_frame()
        identities.seen(child, 0.9, 0.8)
    assert identities.shown_as(child) == child
    assert kinds(identities) == [(EventKind.BORN, child)]


def test_a_tentative_track_that_vanishes_leaves_no_trace() -> None:
    identities = Identities(SETTINGS)
    parent = identities.born(0.8, sure=True)
    child = identities.born(0.8, parent)
    identities.begin_frame()
    identities.disappear(child)
    assert not identities.exists(child) and identities.events == []


def test_an_orphan_stands_on_its_own() -> None:
    identities = Identities(SETTINGS)
    parent = identities.born(0.8, sure=True)
    child = identities.born(0.8, parent)
    identities.disappear(parent)
    identities.end_frame([child])
    assert identities.shown_as(child) == child


def test_the_pieces_that_are_left_stay_pieces_of_the_one_in_view() -> None:
    identities = Identities(SETTINGS)
    whole, hidden, seen = (identities.born(0.8, sure=True) for _ in range(3))
    identities.disappear(hidden)
    for piece in (hidden, seen):
        identities.piece_of(piece, whole)
    identities.begin_frame()
    identities.no_piece(whole)
    assert [identities.constraints.instance(id) for id in (whole, hidden, seen)] == [1, seen, seen]
    assert kinds(identities) == [(EventKind.BORN, seen)]


def test_lost_revived_removed() -> None:
    identities = Identities(SETTINGS)
    id = identities.born(0.8, sure=True)
    identities.begin_frame()
    identities.disappear(id)
    assert identities.lost() == [id] and kinds(identities) == [(EventKind.LOST, id)]
    identities.begin_frame()
    identities.revive(id, "looks alike")
    assert identities[id].state is TrackState.TRACKED and kinds(identities) == [(EventKind.REVIVED, id)]
    identities.begin_frame()
    identities.disappear(id)
    for _ in range(SETTINGS.forget_after):
        identities.begin_frame()
        identities.end_frame([])
    assert not identities.exists(id) and kinds(identities) == [(EventKind.REMOVED, id)]


def test_merging_keeps_the_survivor_and_hands_children_over() -> None:
    identities = Identities(SETTINGS)
    a, b = identities.born(0.8, sure=True), identities.born(0.8, sure=True)
    child = identities.born(0.8, b)
    identities.begin_frame()
    identities.merge(b, a)
    assert not identities.exists(b)
    assert identities.shown_as(child) == a
    assert [(e.kind, e.id, e.other_id) for e in identities.events] == [(EventKind.MERGED, b, a)]


def test_only_mature_tracks_coast_and_not_for_ever() -> None:
    identities = Identities(SETTINGS)
    id = identities.born(0.8, sure=True)
    assert not identities.coasted(id)
    identities.seen(id, 1.0, 0.8)
    assert [identities.coasted(id) for _ in range(3)] == [True, True, False]


def test_a_carried_mask_stands_in_for_a_doubted_one_for_as_long() -> None:
    identities = Identities(SETTINGS)
    id = identities.born(0.9, sure=True)
    for _ in range(SETTINGS.mature_after):
        identities.seen(id, 0.9, 0.9)
    stood_in = []
    for _ in range(SETTINGS.coast_frames + 1):
        identities.seen(id, 0.0, 0.9)
        stood_in.append(identities.doubted(id))
    assert stood_in == [True] * SETTINGS.coast_frames + [False]
    identities.seen(id, 0.9, 0.9)
    identities.seen(id, 0.9, 0.9)
    assert identities.doubted(id), "two good frames end the doubt"


def test_what_was_never_part_of_its_parent_is_shown_once_it_is_large() -> None:
    identities = Identities(SETTINGS)
    parent = identities.born(0.9, sure=True)
    part, free = identities.born(0.8, parent, part=True), identities.born(0.85, parent, free=True)
    identities.grown(free)
    assert identities.shown_as(free) == parent, "what one frame shows may be noise"
    for id in (part, free):
        identities.seen(id, 0.9, 0.8)
        identities.seen(id, 0.9, 0.8)
        identities.grown(id)
    assert identities.shown_as(part) == parent and identities.shown_as(free) == free


def test_ids_are_never_reused_and_running_out_is_an_error() -> None:
    identities = Identities(SETTINGS)
    for expected in range(1, 65536):
        assert identities.born(0.5, sure=True) == expected
        identities.reset("test")
    with pytest.raises(IdsExhaustedError, match="65535"):
        identities.born(0.5)


def test_events_tell_how_sure_they_are() -> None:
    identities = Identities(TrackerSettings(confirm_after=3, confirm_quality=0.5))
    identities.begin_frame()
    sure, part = identities.born(0.75), identities.born(0.6, parent=1)
    identities.end_frame([sure, part])
    assert [(event.id, event.evidence) for event in identities.told()] == [(sure, 0.75)], "the segmenter's score"
    for _ in range(2):
        identities.begin_frame()
        for id in (sure, part):
            identities.seen(id, 0.5, 0.9)
        identities.end_frame([sure, part])
    quality = 0.8 * (0.8 * 1 + 0.2 * 0.5) + 0.2 * 0.5
    assert [(event.id, event.evidence) for event in identities.told()] == [(part, pytest.approx(quality, abs=1e-4))]

    identities.begin_frame()
    identities.disappear(part)
    identities.end_frame([sure])
    assert [event.evidence for event in identities.told()] == [pytest.approx(quality, abs=1e-4)], "its agreement"
    identities.begin_frame()
    identities.revive(part, "here it is")
    identities.weigh(EventKind.REVIVED, part, 0.3)
    identities.merge(part, sure)
    identities.weigh(EventKind.MERGED, part, 1.2)
    assert [(event.kind, event.evidence) for event in identities.told()] == [
        (EventKind.REVIVED, 0.3),
        (EventKind.MERGED, 1.0),
    ]
    identities.begin_frame()
    assert identities.told() == ()


def test_a_part_of_a_known_thing_has_to_prove_itself_for_longer() -> None:
    identities = Identities(SETTINGS)
    whole = identities.born(0.8, sure=True)
    part, stranger = identities.born(0.8, whole, part=True), identities.born(0.8, whole)
    identities.end_frame([whole, part, stranger])
    for hits, shown in ((3, [whole, stranger]), (5, [whole, stranger]), (6, [part, stranger])):
        while identities[part].hits < hits:
            identities.seen(part, 0.9, 0.8)
            identities.seen(stranger, 0.9, 0.8)
        assert [identities.shown_as(part), identities.shown_as(stranger)] == shown
