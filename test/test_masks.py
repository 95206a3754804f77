"""Compact masks answer as dense ones do, and counts are those of the pixels."""

from __future__ import annotations

import pytest
import torch

from mastsam_ros.masks import (
    PartitionMasks,
    PartitionTrackMasks,
    TrackMasks,
    count_true,
    index_masks,
    overlap_counts,
    select,
)
from mastsam_ros.types import CandidateMasks, PointPrompts


def test_compact_candidates_answer_as_dense_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 6, (2, 30, 40), generator=generator, dtype=torch.int16)
    wanted = torch.tensor([[0, 3], [5, -1], [2, 2], [9, 1]], dtype=torch.int16)
    scores = torch.rand(4, 2, generator=generator)
    compact = PartitionMasks(images, wanted, scores)
    dense = CandidateMasks(compact.masks, scores)
    carried = torch.randint(0, 5, (30, 40), generator=generator)
    matched = torch.rand(30, 40, generator=generator) > 0.3
    for ours, theirs in zip(
        compact.overlap_counts(carried, matched, 1), overlap_counts(dense, carried, matched, 1), strict=True
    ):
        assert torch.equal(ours, theirs)
    best, found = torch.tensor([1, 0, 1, 0]), torch.tensor([True, True, False, True])
    assert torch.equal(compact.select(best, found).dense, select(dense, best, found).dense)
    assert len(compact) == len(dense) == 4 and compact.to(torch.device("cpu")) is compact


def test_compact_masks_of_tracks_answer_as_dense_ones() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 6, (2, 30, 40), generator=generator, dtype=torch.int16)
    compact: TrackMasks = PartitionTrackMasks(images, torch.tensor([0, 1, 1, 0, 0]), torch.tensor([5, 3, -1, 5, 9]))
    index = torch.randint(0, 6, (30, 40), generator=generator)
    region = torch.rand(30, 40, generator=generator) > 0.4
    pixels, rank = torch.nonzero(region.flatten()).flatten(), torch.tensor([3, 4, 5, 1, 2])
    there = torch.rand(len(pixels), generator=generator) > 0.2
    for change in (
        lambda masks: masks,
        lambda masks: masks.at(pixels, there),
        lambda masks: masks.replaced(torch.tensor([False, False, True, True, False]), index),
        lambda masks: masks.emptied(torch.tensor([True, False, True, True, True])).at(pixels, there),
    ):
        ours, theirs = change(compact), change(TrackMasks(compact.dense))
        assert torch.equal(ours.dense, theirs.dense) and bool(ours.dense.any())
        assert len(ours) == len(theirs) == 5 and ours.shape == theirs.shape in ((30, 40), (1, len(pixels)))
        assert torch.equal(ours.areas(), theirs.areas())
        assert torch.equal(ours.shared(3), theirs.shared(3))
        assert torch.equal(ours.owners(rank), theirs.owners(rank))
        assert torch.equal(ours.owners(torch.where(rank < 4, rank, 0)), theirs.owners(torch.where(rank < 4, rank, 0)))
        there_now = index if ours.shape == index.shape else index.flatten()[pixels][None]
        assert torch.equal(ours.hold(there_now), theirs.hold(there_now))
    at = compact.at(pixels, there)
    assert torch.equal(at.dense[:, 0], compact.dense.flatten(1)[:, pixels] & there)


def test_counts_are_those_of_the_pixels() -> None:
    masks = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    masks[0, 0, :, :6] = True
    carried = torch.zeros(10, 10, dtype=torch.int64)
    carried[:, 4:] = 1
    matched = torch.ones(10, 10, dtype=torch.bool)
    matched[:, 0] = False
    inside, visible, whole = overlap_counts(CandidateMasks(masks, torch.ones(1, 1)), carried, matched, 1)
    assert (float(inside), float(visible), float(whole)) == (20.0, 50.0, 60.0)


def test_prompts_give_their_carried_masks() -> None:
    index = torch.tensor([[0, 1], [2, 2]])
    prompts = PointPrompts(torch.zeros(2, 1, 2), torch.ones(2, 1), index)
    assert prompts.masks is not None and torch.equal(prompts.masks, index_masks(index, 2))
    assert prompts.masks[1].tolist() == [[False, False], [True, True]]
    assert PointPrompts(torch.zeros(2, 1, 2), torch.ones(2, 1)).masks is None


@pytest.mark.parametrize("places", [1, 7, 8, 2040, 2041, 5000])
def test_counting_eight_at_a_time_is_the_sum(places: int) -> None:
    pixels = torch.rand(2, 3, places, generator=torch.Generator().manual_seed(places)) < 0.9
    assert torch.equal(count_true(pixels), pixels.sum(dim=-1))
    assert torch.equal(count_true(torch.ones_like(pixels)), torch.full((2, 3), places))
