"""Best mask and best track, by hand and against the recorded figures of another system."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mastsam_ros.evaluation import masks
from mastsam_ros.evaluation.datasets import open_sequences, read_labels
from mastsam_ros.evaluation.overlaps import frame_overlap


def frames(*rows: str) -> list[np.ndarray]:
    return [np.array([[int(c) for c in row]], np.uint16) for row in rows]


def test_score_by_hand():
    score = masks.mask_score(shared=2, area=4, true_area=6)
    assert (score.iou, score.precision, score.recall) == (2 / 8, 2 / 4, 2 / 6)
    assert score.f1 == pytest.approx(2 * 0.5 / 3 / (0.5 + 1 / 3))


def test_score_of_nothing_is_zero():
    assert masks.mask_score(0, 0, 0) == masks.MaskScore(0.0, 0.0, 0.0, 0.0)


def test_id_may_change_for_best_mask_but_not_for_best_track(overlaps_of):
    overlaps = overlaps_of(frames("1100", "2200"), frames("1100", "1100"))
    assert masks.best_mask(overlaps).iou == 1.0
    assert masks.best_track(overlaps) == 0.5
    assert masks.best_tracks(overlaps) == {1: (1, 0.5)}


def test_unlabelled_pixels_are_no_mask(overlaps_of):
    overlaps = overlaps_of(frames("0000"), frames("1110"))
    assert masks.best_mask(overlaps) == masks.MaskScore(0.0, 0.0, 0.0, 0.0)
    assert masks.best_tracks(overlaps) == {1: (0, 0.0)}


def test_frames_without_the_object_do_not_count(overlaps_of):
    overlaps = overlaps_of(frames("1100", "1100"), frames("1100", "0000"))
    assert masks.best_mask(overlaps).iou == 1.0
    assert masks.best_track(overlaps) == 1.0


def test_mean_over_objects_not_over_object_frames(overlaps_of):
    overlaps = overlaps_of(frames("1120", "1100", "1100"), frames("1122", "1100", "1100"))
    assert masks.best_mask(overlaps).iou == pytest.approx((1.0 + 0.5) / 2)


def test_no_truth_is_nan(overlaps_of):
    overlaps = overlaps_of(frames("11"), frames("00"))
    assert math.isnan(masks.best_mask(overlaps).iou) and math.isnan(masks.best_track(overlaps))


def test_coverage_masks_per_frame_and_largest_share(overlaps_of):
    overlaps = overlaps_of(frames("1120", "0000"), frames("1111", "1111"))
    assert masks.coverage(overlaps) == 0.375
    assert masks.masks_per_frame(overlaps) == 1.0
    assert masks.largest_share(overlaps) == 0.25


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [("blackswan", 0.921), ("camel", 0.811), ("car-shadow", 0.920), ("dog", 0.919), ("scooter-black", 0.752)],
)
def test_recorded_predictions(sequence, expected, shared):
    predictions = shared("peers/rvos") / sequence
    (truth,) = open_sequences(shared("davis"), [sequence])
    overlaps = [frame_overlap(read_labels(predictions / f"{f.stem}.png"), truth.truth(f)) for f in truth.frames]
    assert masks.best_mask(overlaps).iou == pytest.approx(expected, abs=1e-3)
    assert masks.best_track(overlaps) == pytest.approx(expected, abs=1e-3)
