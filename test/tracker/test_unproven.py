"""New tracks that the segmenter keeps seeing as parts end in what they are parts of; known ones do not."""

from __future__ import annotations

import numpy as np

from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.unproven import parts_of_wholes
from mastsam_ros.types import TrackState, Unprompted

AS_PART = Unprompted(np.array([0.9, 0.1]), np.array([0, 0]))
AS_ITSELF = Unprompted(np.array([0.9, 0.8]), np.array([0, 1]))


def tracks(second_is_sure: bool) -> tuple[Identities, list[int]]:
    identities = Identities(TrackerSettings())
    whole = identities.born(0.8, sure=True)
    return identities, [whole, identities.born(0.8, parent=whole, sure=second_is_sure)]


def frames_until_it_ends(identities: Identities, active: list[int], seen: Unprompted, most: int = 100) -> int | None:
    return next(
        (n for n in range(1, most) if parts_of_wholes(active, [9, 5], seen, identities) == [(0, 1)]),
        None,
    )


def test_a_new_part_that_is_never_seen_alone_ends_after_a_few_frames() -> None:
    assert frames_until_it_ends(*tracks(second_is_sure=False), AS_PART) == 4


def test_what_is_shown_under_its_own_id_does_not_end() -> None:
    assert frames_until_it_ends(*tracks(second_is_sure=True), AS_PART) is None


def test_being_seen_alone_counts_for_later() -> None:
    identities, active = tracks(second_is_sure=False)
    for _ in range(10):
        assert parts_of_wholes(active, [9, 5], AS_ITSELF, identities) == []
    assert frames_until_it_ends(identities, active, AS_PART) == 14


def test_where_nothing_is_said_nothing_ends() -> None:
    nothing = Unprompted(np.zeros(2), np.array([-1, -1]))
    assert frames_until_it_ends(*tracks(second_is_sure=False), nothing) is None


def test_two_that_are_shown_do_not_become_one_by_way_of_a_new_one() -> None:
    identities = Identities(TrackerSettings())
    first, second = identities.born(0.8, sure=True), identities.born(0.8, sure=True)
    active = [first, second, identities.born(0.8, parent=first)]
    all_in_the_new_one = Unprompted(np.array([0.1, 0.1, 0.9]), np.array([2, 2, 2]))
    only_the_first = Unprompted(np.array([0.1, 0.9, 0.9]), np.array([2, 1, 2]))
    for _ in range(10):
        assert parts_of_wholes(active, [9, 9, 5], all_in_the_new_one, identities) == []
    assert parts_of_wholes(active, [9, 9, 5], only_the_first, identities) == [(2, 0)], "the oldest goes on"
    assert parts_of_wholes(active, [5, 9, 9], only_the_first, identities) == [], "what is shown would end"


def frames_until_it_is_shown(sure: float, agreement: float = 0.9, leader: int = 1, moved: float = 0.0) -> int | None:
    identities, active = tracks(second_is_sure=False)
    seen = Unprompted(np.array([0.9, agreement]), np.array([0, leader]), np.array([1.0, sure]))
    for frame in range(1, 30):
        parts_of_wholes(active, [9, 5], seen, identities, moved)
        identities.seen(active[1], 0.9, 0.8)
        if identities[active[1]].state is not TrackState.TENTATIVE:
            return frame
    return None


def test_what_stands_out_is_shown_sooner() -> None:
    clear, doubtful = frames_until_it_is_shown(0.9), frames_until_it_is_shown(0.0)
    assert clear is not None and doubtful is not None
    assert clear <= 2 < TrackerSettings().confirm_after < doubtful <= 12
    assert frames_until_it_is_shown(0.9, agreement=0.1, leader=0) is None, "another segment stands out"


def test_a_picture_that_moved_on_proves_more() -> None:
    resting, moving = frames_until_it_is_shown(0.3), frames_until_it_is_shown(0.3, moved=0.05)
    assert resting is not None and moving is not None
    assert moving == -(-resting // 2)


def test_what_holds_a_known_track_has_to_wait() -> None:
    identities, active = tracks(second_is_sure=False)
    seen = Unprompted(np.array([0.2, 0.9]), np.array([1, 1]), np.array([0.9, 0.9]))
    assert parts_of_wholes(active, [9, 5], seen, identities) == []
    assert identities[active[1]].proof == 1.0


def test_frames_in_which_motion_told_a_track_apart_are_counted() -> None:
    identities, active = tracks(second_is_sure=False)
    seen = {
        told: Unprompted(np.array([0.9, 0.8]), np.array([0, 1]), told_apart=np.array([False, told]))
        for told in (False, True)
    }
    counted = []
    for told in (True, True, True, False, True, False, False, False, False):
        parts_of_wholes(active, [9, 5], seen[told], identities)
        counted.append(identities[active[1]].told_apart)
    assert counted == [1, 2, 3, 2, 3, 2, 1, 0, 0] and identities[active[0]].told_apart == 0
    of_something_else = Unprompted(np.array([0.9, 0.2]), np.array([0, 0]), told_apart=np.array([False, True]))
    parts_of_wholes(active, [9, 5], of_something_else, identities)
    assert identities[active[1]].told_apart == 0
