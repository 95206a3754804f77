"""The counts that all metrics stand on, against counting pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.evaluation.overlaps import frame_overlap, tube_overlap
from mastsam_ros.types import InputError


def test_counts_by_hand():
    prediction = np.array([[7, 7, 0], [7, 9, 9]], np.uint16)
    truth = np.array([[1, 0, 1], [1, 2, 2]], np.uint16)
    overlap = frame_overlap(prediction, truth)
    assert overlap.ids.tolist() == [7, 9] and overlap.areas.tolist() == [3, 2]
    assert overlap.instances.tolist() == [1, 2] and overlap.instance_areas.tolist() == [3, 2]
    assert overlap.shared.tolist() == [[2, 0], [0, 2]]
    assert overlap.iou.tolist() == [[0.5, 0.0], [0.0, 1.0]]
    assert overlap.coverage == pytest.approx(5 / 6)


def test_nothing_predicted_and_no_truth():
    empty, full = np.zeros((3, 3), np.uint16), np.full((3, 3), 65535, np.uint16)
    assert frame_overlap(empty, full).shared.shape == (0, 1)
    assert frame_overlap(full, empty).shared.shape == (1, 0)
    assert frame_overlap(full, full).iou.tolist() == [[1.0]]


def test_sizes_must_agree():
    with pytest.raises(InputError, match=r"\(2, 2\) and \(2, 3\)"):
        frame_overlap(np.zeros((2, 2), int), np.zeros((2, 3), int))


@pytest.mark.parametrize("seed", range(3))
def test_tubes_equal_counting_the_whole_volume(seed, random_labels, overlaps_of):
    predictions, truths = random_labels(seed)
    tubes = tube_overlap(overlaps_of(predictions, truths))
    volume, true_volume = np.stack(predictions), np.stack(truths)
    for row, id in enumerate(tubes.ids):
        mine = volume == id
        assert tubes.areas[row] == mine.sum()
        assert tubes.id_frames[row] == mine.any(axis=(1, 2)).sum()
        for column, instance in enumerate(tubes.instances):
            true = true_volume == instance
            assert tubes.shared[row, column] == (mine & true).sum()
            assert tubes.iou[row, column] == pytest.approx((mine & true).sum() / (mine | true).sum())
    assert set(tubes.ids) == set(np.unique(volume)) - {0}
    assert set(tubes.instances) == set(np.unique(true_volume)) - {0}
    assert tubes.frames == len(predictions)
