"""Which candidate becomes the mask, and how it is shown."""

from __future__ import annotations

import numpy as np
import torch

from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.outlines import enlarge, without_crumbs
from mastsam_ros.tracker.propagation import Carried, carry
from mastsam_ros.tracker.selection import choose, keep_carried
from mastsam_ros.types import CandidateMasks


def box(left: int, right: int) -> torch.Tensor:
    mask = torch.zeros(40, 100, dtype=torch.bool)
    mask[10:30, left:right] = True
    return mask


def carried_box(left: int, right: int) -> Carried:
    return carry(box(left, right).long(), 1, None, TrackerSettings())


def candidates(*masks: torch.Tensor, scores: list[float]) -> CandidateMasks:
    return CandidateMasks(torch.stack(masks)[None], torch.tensor([scores]))


def test_agreement_outweighs_the_score() -> None:
    answer = candidates(box(20, 52), box(0, 100), box(20, 30), scores=[0.5, 0.9, 0.9])
    chosen = choose(answer, carried_box(20, 50), TrackerSettings())
    assert torch.equal(chosen.masks.dense[0], box(20, 52)) and bool(chosen.found[0])
    assert abs(float(chosen.agreement[0]) - 30 / 32) < 0.02


def test_the_score_decides_between_equals_and_alone_where_asked() -> None:
    answer = candidates(box(20, 52), box(20, 53), scores=[0.2, 0.9])
    assert torch.equal(choose(answer, carried_box(20, 50), TrackerSettings()).masks.dense[0], box(20, 53))
    answer = candidates(box(20, 50), box(0, 100), scores=[0.5, 0.9])
    ablated = choose(answer, carried_box(20, 50), TrackerSettings(score_only=True))
    assert torch.equal(ablated.masks.dense[0], box(0, 100))


def test_a_candidate_elsewhere_is_no_answer() -> None:
    answer = candidates(box(60, 90), box(40, 90), scores=[1.0, 0.0])
    chosen = choose(answer, carried_box(20, 50), TrackerSettings())
    assert not bool(chosen.found[0]) and not bool(chosen.masks.dense.any())


def test_pixels_without_a_match_do_not_count_against_a_candidate() -> None:
    carried = carried_box(20, 50)
    matched = torch.ones(40, 100, dtype=torch.bool)
    matched[:, 50:] = False
    seen = Carried(carried.index, matched, carried.xy, carried.track, carried.interior, 1)
    chosen = choose(candidates(box(20, 70), scores=[0.5]), seen, TrackerSettings())
    assert float(chosen.agreement[0]) == 1.0


def test_without_prompting_the_carried_mask_is_the_answer() -> None:
    chosen = keep_carried(carried_box(20, 50))
    assert torch.equal(chosen.masks.dense[0], box(20, 50)) and bool(chosen.found[0])


def test_specks_are_filled_and_regions_are_not() -> None:
    labels = np.full((40, 60), 7, np.uint16)
    labels[:, 30:] = 9
    labels[5:7, 5:7] = 0
    labels[20:35, 10:25] = 0
    filled = without_crumbs(labels, 10)
    assert (filled[5:7, 5:7] == 7).all() and (filled[20:35, 10:25] == 0).all()
    assert (without_crumbs(np.zeros((4, 4), np.uint16), 100) == 0).all()


def test_enlarging_keeps_every_id_and_place() -> None:
    labels = np.zeros((30, 40), np.uint16)
    labels[10:20, 10:30] = 65535
    large = enlarge(labels, np.zeros((60, 80, 3), np.uint8))
    assert set(np.unique(large)) == {0, 65535} and (large[20:40, 20:60] == 65535).all()
    assert large.sum() // 65535 == 20 * 40
