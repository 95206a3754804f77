"""Union-find of coinciding masks, and one id per pixel."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from mastsam_ros.geometry.instance_map import Separation
from mastsam_ros.masks import TrackMasks
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.overlap import OverlapFilter, one_id_per_pixel, union_find

SETTINGS = TrackerSettings()


def join(
    overlap: OverlapFilter, ids: list[int], ages: list[int], masks: TrackMasks, agreement: list[float], *separation: Any
) -> tuple[dict[int, int], set[int]]:
    return overlap.join(ids, ages, overlap.shared_iou(masks).numpy(), agreement, *separation)


def rectangle(left: int, right: int) -> torch.Tensor:
    mask = torch.zeros(40, 100, dtype=torch.bool)
    mask[:, left:right] = True
    return mask


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20), st.permutations(range(12)))
def test_union_find_equals_connected_components(pairs: list[tuple[int, int]], seniority: list[int]) -> None:
    groups = [{n} for n in range(12)]
    for a, b in pairs:
        joined = groups[a] | groups[b]
        for n in joined:
            groups[n] = joined
    expected = {n: min(groups[n], key=seniority.index) for n in range(12)}
    assert union_find(12, pairs, seniority) == expected


def test_the_oldest_id_survives() -> None:
    masks = TrackMasks(torch.stack([rectangle(0, 50), rectangle(0, 48), rectangle(60, 90)]))
    overlap = OverlapFilter(SETTINGS)
    assert join(overlap, [5, 2, 9], [3, 20, 20], masks, [0.8] * 3) == ({5: 2}, set())
    assert overlap.iou.keys() == {5, 2} and abs(overlap.iou[5] - 48 / 50) < 0.05, "what spoke for it"
    join(overlap, [2, 9], [20, 20], TrackMasks(torch.stack([rectangle(0, 48), rectangle(60, 90)])), [0.8] * 2)
    assert overlap.iou == {}


def test_grown_up_tracks_are_joined_only_after_some_frames() -> None:
    masks = TrackMasks(torch.stack([rectangle(0, 50), rectangle(0, 50)]))
    overlap = OverlapFilter(SETTINGS)
    for _ in range(SETTINGS.join_after - 1):
        assert join(overlap, [1, 2], [50, 40], masks, [0.8, 0.8]) == ({}, set())
    assert join(overlap, [1, 2], [50, 40], masks, [0.8, 0.8]) == ({2: 1}, set())


def test_a_hidden_track_is_not_joined_with_a_third_whose_mask_coincides_with_what_hides_it() -> None:
    masks = TrackMasks(torch.stack([rectangle(0, 50), rectangle(0, 50), rectangle(0, 48)]))

    def separation(first: int, second: int) -> Separation:
        return Separation.APART if {first, second} == {1, 2} else Separation.UNKNOWN

    ends, hidden = join(OverlapFilter(SETTINGS), [1, 2, 3], [50, 50, 2], masks, [0.1, 0.9, 0.2], separation)
    assert (ends, hidden) == ({3: 2}, {1}), "1 is behind 2, of which 3 is a piece"


def test_young_tracks_are_joined_at_once_unless_they_are_known_to_be_two() -> None:
    masks = TrackMasks(torch.stack([rectangle(0, 50), rectangle(0, 50)]))
    assert join(OverlapFilter(SETTINGS), [1, 2], [3, 2], masks, [0.6, 0.4]) == ({2: 1}, set())
    overlap = OverlapFilter(SETTINGS)
    for _ in range(SETTINGS.join_after - 1):
        assert join(overlap, [1, 2], [3, 2], masks, [0.6, 0.4], lambda *_: Separation.TOUCHING) == ({}, set())
    assert join(overlap, [1, 2], [3, 2], masks, [0.6, 0.4], lambda *_: Separation.TOUCHING) == ({2: 1}, set())
    for _ in range(2 * SETTINGS.join_after):
        assert join(overlap, [1, 2], [3, 2], masks, [0.6, 0.4], lambda *_: Separation.APART) == ({}, set())


def test_two_things_are_not_joined_by_way_of_a_third() -> None:
    masks = TrackMasks(torch.stack([rectangle(0, 50)] * 3))

    def separation(first: int, second: int) -> Separation:
        return Separation.APART if {first, second} == {1, 2} else Separation.UNKNOWN

    ends, hidden = join(OverlapFilter(SETTINGS), [1, 2, 3], [50, 40, 1], masks, [0.6, 0.6, 0.5], separation)
    assert ends == {3: 1} and not hidden


def test_an_interrupted_overlap_starts_anew() -> None:
    same = TrackMasks(torch.stack([rectangle(0, 50), rectangle(0, 50)]))
    apart = TrackMasks(torch.stack([rectangle(0, 50), rectangle(50, 99)]))
    overlap = OverlapFilter(SETTINGS)
    for _ in range(3):
        for _ in range(SETTINGS.join_after - 1):
            assert join(overlap, [1, 2], [50, 40], same, [0.8, 0.8]) == ({}, set())
        assert join(overlap, [1, 2], [50, 40], apart, [0.8, 0.8]) == ({}, set())


def test_switched_off() -> None:
    masks = TrackMasks(torch.stack([rectangle(0, 50), rectangle(0, 50)]))
    off = OverlapFilter(TrackerSettings(overlap_filtering=False))
    assert join(off, [1, 2], [1, 1], masks, [0.8, 0.8]) == ({}, set())


def test_a_hidden_track_gives_way_to_what_hides_it() -> None:
    masks = TrackMasks(torch.stack([rectangle(0, 50), rectangle(0, 50)]))
    overlap = OverlapFilter(SETTINGS)
    for _ in range(3 * SETTINGS.join_after):
        assert join(overlap, [1, 2], [50, 40], masks, [0.1, 0.9]) == ({}, {1})


def test_each_pixel_has_the_id_with_the_highest_priority_or_the_carried_one() -> None:
    masks = TrackMasks(torch.stack([rectangle(0, 60), rectangle(40, 100)]))
    by_priority = one_id_per_pixel(masks, torch.tensor([0.2, 0.9]), None)
    assert by_priority[0].tolist() == [1] * 40 + [2] * 60
    carried = torch.zeros(40, 100, dtype=torch.int64)
    carried[:, 35:50] = 1
    carried[:, 95:] = 1  # not claimed by mask 1 any more
    kept = one_id_per_pixel(masks, torch.tensor([0.2, 0.9]), carried)
    assert kept[0].tolist() == [1] * 50 + [2] * 50


def test_no_mask_at_all() -> None:
    empty = TrackMasks(torch.zeros(0, 4, 5, dtype=torch.bool))
    assert int(one_id_per_pixel(empty, torch.zeros(0), torch.zeros(4, 5, dtype=torch.int64)).sum()) == 0
