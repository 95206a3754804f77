"""Identity metrics by hand, by brute force, and against the trackeval package."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mastsam_ros.evaluation import identity
from mastsam_ros.evaluation.overlaps import tube_overlap


def frames(*rows: str) -> list[np.ndarray]:
    return [np.array([[int(c) for c in row]], np.uint16) for row in rows]


def test_tube_iou_by_hand(overlaps_of):
    tubes = tube_overlap(overlaps_of(frames("1122", "1122"), frames("1122", "1112")))
    score = identity.tube_score(tubes)
    assert score.iou == pytest.approx({1: 4 / 5, 2: 3 / 4})
    assert score.found == 1.0 and score.mean_iou == pytest.approx((0.8 + 0.75) / 2)
    assert score.ids == {1: 1, 2: 2}


def test_one_id_serves_one_instance_only(overlaps_of):
    score = identity.tube_score(tube_overlap(overlaps_of(frames("111"), frames("112"))))
    assert score.iou == pytest.approx({1: 2 / 3, 2: 0.0}) and score.ids == {1: 1, 2: 0}
    assert score.found == 0.5


def test_only_objects_count_but_all_instances_compete(overlaps_of):
    tubes = tube_overlap(overlaps_of(frames("1111"), frames("1112")))
    assert identity.tube_score(tubes, objects={2}).mean_iou == 0.0
    assert math.isnan(identity.tube_score(tubes, objects={9}).found)


def test_scene_pq_by_hand(overlaps_of):
    tubes = tube_overlap(overlaps_of(frames("1123"), frames("1122")))
    # id 1 finds instance 1; id 2 has IoU 1/2 with instance 2, which is not above one half.
    assert identity.scene_pq(tubes) == pytest.approx(1.0 / (1 + (2 + 1) / 2))


def test_ids_kept(overlaps_of):
    truth = frames(*["1122"] * 20)
    kept_one = frames(*["3344"] * 10, *["3355"] * 10)
    assert identity.ids_kept(overlaps_of(kept_one, truth)) == 0.5
    assert identity.ids_kept(overlaps_of(kept_one, truth), objects={1}) == 1.0
    flicker = frames(*["3344"] * 8, *["6677"] * 4, *["3344"] * 8)
    assert identity.ids_kept(overlaps_of(flicker, truth)) == 1.0


def test_an_id_that_others_have_too_is_kept_but_not_own(overlaps_of):
    truth = frames(*["1122334"] * 8)
    never_told_apart = frames(*["5555667"] * 8)
    assert identity.ids_kept(overlaps_of(never_told_apart, truth)) == 1.0
    assert identity.ids_kept(overlaps_of(never_told_apart, truth), own=True) == 0.5
    assert identity.ids_kept(overlaps_of(never_told_apart, truth), objects={1, 3}, own=True) == 0.5
    merged_later = frames(*["5566778"] * 6, *["5566668"] * 2)
    assert identity.ids_kept(overlaps_of(merged_later, truth)) == 0.75
    assert identity.ids_kept(overlaps_of(merged_later, truth), own=True) == 0.5


def test_mostly_unlabelled_is_not_kept(overlaps_of):
    truth = frames(*["1111"] * 8)
    assert identity.ids_kept(overlaps_of(frames(*["3000"] * 8), truth)) == 0.0


def test_objects_that_leave_for_good_do_not_count_as_kept_or_lost(overlaps_of):
    overlaps = overlaps_of(frames(*["34"] * 8), frames(*["12"] * 4, *["10"] * 4))
    assert identity.ids_kept(overlaps) == 1.0


def test_ids_kept_after_leaving(overlaps_of):
    truth = frames(*["12"] * 6, *["10"] * 5, *["12"] * 6)
    assert identity.ids_kept_after_leaving(overlaps_of(frames(*["34"] * 17), truth)) == 1.0
    renamed = frames(*["34"] * 11, *["35"] * 6)
    assert identity.ids_kept_after_leaving(overlaps_of(renamed, truth)) == 0.0
    assert math.isnan(identity.ids_kept_after_leaving(overlaps_of(renamed[:11], truth[:11])))
    blink = frames(*["12"] * 6, *["10"] * 2, *["12"] * 6)
    assert math.isnan(identity.ids_kept_after_leaving(overlaps_of(frames(*["34"] * 14), blink)))


def test_switches_by_hand(overlaps_of):
    truth = frames(*["1111"] * 5)
    assert identity.id_switches(overlaps_of(frames("2222", "2222", "3333", "3333", "2222"), truth)) == 2
    assert identity.id_switches(overlaps_of(frames("2222", "0000", "2222", "2222", "2222"), truth)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_association_quality_pixel_by_pixel(seed, random_labels, overlaps_of):
    """STEP's definition: the mean over instances of the IoU of the tubes that each of its pixels lies in."""
    predictions, truths = map(np.stack, random_labels(seed))
    expected = []
    for instance in set(np.unique(truths)) - {0}:
        true = truths == instance
        ious = [
            (true & (predictions == id)).sum() / (true | (predictions == id)).sum() if id else 0.0
            for id in predictions[true]
        ]
        expected.append(np.mean(ious))
    tubes = tube_overlap(overlaps_of(list(predictions), list(truths)))
    assert identity.association_quality(tubes) == pytest.approx(np.mean(expected))


def test_perfect_answer_under_other_names(random_labels, overlaps_of):
    _, truths = random_labels(0)
    predictions = [np.where(truth > 0, truth + 7, 0).astype(np.uint16) for truth in truths]
    score = identity.identity_score(overlaps_of(predictions, truths))
    ones = (score.found, score.tube_iou, score.kept, score.scene_pq, score.idf1, score.hota, score.ass_a, score.owta)
    assert ones == pytest.approx((1.0,) * 8)
    assert score.association_quality == pytest.approx(1.0)
    assert score.switches == 0 and score.ids_made == score.ids_true


def test_no_prediction_at_all(random_labels, overlaps_of):
    _, truths = random_labels(0)
    score = identity.identity_score(overlaps_of([np.zeros_like(truth) for truth in truths], truths))
    assert (score.found, score.idf1, score.hota, score.scene_pq, score.ids_made) == (0.0, 0.0, 0.0, 0.0, 0)


@pytest.mark.parametrize("case", range(6))
def test_equal_to_trackeval(case, overlaps_of):
    """Figures that the trackeval package gave, recorded by record_trackeval.py."""
    recorded = np.load(Path(__file__).parent / "trackeval_cases.npz")
    overlaps = overlaps_of(list(recorded[f"{case}/predictions"]), list(recorded[f"{case}/truths"]))
    score = identity.hota(overlaps)
    mine = {"HOTA": score.hota, "DetA": score.det_a, "DetRe": score.det_re, "AssA": score.ass_a, "OWTA": score.owta}
    mine |= {"IDF1": identity.idf1(overlaps), "IDSW": identity.id_switches(overlaps)}
    assert mine == pytest.approx({name: float(recorded[f"{case}/{name}"]) for name in mine}, abs=1e-9)
    assert mine["IDSW"] > 0 and 0.1 < mine["HOTA"] < 0.9  # or the comparison says little
