"""When uncovered regions are segmented anew, and what becomes of the answer."""

from __future__ import annotations

import pytest
import torch

from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.discovery import new_masks, solid, uncovered_region
from mastsam_ros.tracker.parents import parents_of
from mastsam_ros.types import CandidateMasks

SETTINGS = TrackerSettings(update_interval=10, urgent_share=0.3, min_area_share=0.01)


def index_with_hole(width: int) -> torch.Tensor:
    index = torch.ones(50, 100, dtype=torch.int64)
    index[:, :width] = 0
    return index


def test_due_at_the_interval_and_at_once_where_much_is_uncovered() -> None:
    small, large = index_with_hole(5), index_with_hole(40)
    assert uncovered_region(small, 250, 7, SETTINGS) is None
    region = uncovered_region(small, 250, 20, SETTINGS)
    assert region is not None and torch.equal(region, small == 0)
    assert uncovered_region(large, 2000, 7, SETTINGS) is not None


def test_nothing_uncovered_or_switched_off() -> None:
    assert uncovered_region(index_with_hole(0), 0, 0, SETTINGS) is None
    assert uncovered_region(index_with_hole(40), 2000, 0, TrackerSettings(discovery=False)) is None


def test_parts_lie_on_wholes_and_crumbs_are_dropped() -> None:
    masks = torch.zeros(3, 1, 50, 100, dtype=torch.bool)
    masks[0, 0, 10:30, 10:30] = True
    masks[1, 0, :, :60] = True
    masks[2, 0, 45:48, 90:93] = True
    index, scores, areas = new_masks(CandidateMasks(masks, torch.tensor([[0.3], [0.6], [0.9]])), None, SETTINGS)
    assert len(scores) == 2 and sorted(areas) == [20 * 20, 50 * 60 - 20 * 20]
    assert scores[index[15, 15] - 1] == pytest.approx(0.3)
    assert scores[index[40, 5] - 1] == pytest.approx(0.6)
    assert int(index[46, 91]) == 0


def test_masks_are_cut_to_the_region() -> None:
    masks = torch.ones(1, 1, 50, 100, dtype=torch.bool)
    region = torch.zeros(50, 100, dtype=torch.bool)
    region[:, 80:] = True
    index, *_ = new_masks(CandidateMasks(masks, torch.ones(1, 1)), region, SETTINGS)
    assert torch.equal(index > 0, region)


def test_an_empty_answer() -> None:
    empty = CandidateMasks(torch.zeros(0, 1, 50, 100, dtype=torch.bool), torch.zeros(0, 1))
    index, scores, areas = new_masks(empty, None, SETTINGS)
    assert int(index.sum()) == 0 and scores == areas == []


def between_two() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A new mask between two tracks, the index of those, and a picture in which it looks like the second."""
    index = torch.zeros(50, 100, dtype=torch.int64)
    index[:, :40], index[:, 60:] = 1, 2
    new = torch.zeros_like(index)
    new[:, 40:60] = 1
    image = torch.zeros(50, 100, 3, dtype=torch.uint8)
    image[:, :40], image[:, 40:60], image[:, 60:] = 10, 180, 200
    return new, index, image


def test_the_parent_is_the_neighbour_that_looks_alike() -> None:
    new, index, image = between_two()
    assert parents_of(new, 1, index, 2, None, image) == ([1], [False])
    assert parents_of(new, 1, torch.zeros_like(index), 0, None, image) == ([-1], [False])


def test_what_lies_beyond_a_sure_outline_is_no_part_of_it() -> None:
    new, index, image = between_two()
    for outlined, parent in (([False, True], 0), ([True, False], 1), ([True, True], -1)):
        assert parents_of(new, 1, index, 2, None, image, torch.tensor(outlined))[0] == [parent]


def test_slivers_are_told_from_what_has_a_middle() -> None:
    new = torch.zeros(60, 80, dtype=torch.int64)
    new[5:20, 5:20] = 1
    new[30:34, 5:75] = 2
    new[40:58, 40:58] = 3
    assert solid(new, 4) == [True, False, True, False]
