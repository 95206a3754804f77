"""J, F and their statistics against the recorded cases and against plain definitions."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from mastsam_ros.evaluation import davis
from mastsam_ros.types import InputError


def recorded(shared):
    folder = shared("fixtures/davis")
    arrays = np.load(folder / "region_boundary_cases.npz")
    for case in json.loads((folder / "region_boundary_cases.json").read_text()):
        height, width = case["shape"]
        masks = [
            np.unpackbits(arrays[f"{case['case']}/{part}"])[: height * width].reshape(height, width).astype(bool)
            for part in ("prediction", "truth")
        ]
        yield case, *masks


def test_recorded_cases(shared):
    count, spent = 0, []
    for case, prediction, truth in recorded(shared):
        assert davis.region_similarity(prediction, truth) == pytest.approx(case["J"], abs=1e-9)
        start = time.process_time()
        assert davis.boundary_accuracy(prediction, truth) == pytest.approx(case["F"], abs=1e-9)
        spent.append(time.process_time() - start)
        count += 1
    assert count == 56
    assert np.median(spent) < 0.010


def boundary_f_by_definition(prediction, truth):
    """Every boundary pixel against a disk's dilation, as the measure is written down."""
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    offset = np.arange(-radius, radius + 1)
    disk = offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2

    def outline(mask):
        y, x = np.indices(mask.shape)
        bottom, right = mask.shape[0] - 1, mask.shape[1] - 1
        below, beside = np.minimum(y + 1, bottom), np.minimum(x + 1, right)
        return (mask != mask[below, x]) | (mask != mask[y, beside]) | (mask != mask[below, beside])

    mine, true = outline(prediction), outline(truth)
    if not mine.any() and not true.any():
        return 1.0
    if not mine.any() or not true.any():
        return 0.0
    precision = (mine & binary_dilation(true, disk)).sum() / mine.sum()
    recall = (true & binary_dilation(mine, disk)).sum() / true.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_boundary_measure_equals_its_definition(seed, random_labels):
    predictions, truths = random_labels(seed, frames=5 if seed == 0 else 12, size=80 if seed == 0 else 40)
    for labels, truth in zip(predictions, truths, strict=True):
        fast = davis.boundary_accuracies(labels, truth)
        for instance in np.unique(truth[truth > 0]):
            for id in np.unique(labels[labels > 0]):
                expected = boundary_f_by_definition(labels == id, truth == instance)
                assert davis.boundary_accuracy(labels == id, truth == instance) == pytest.approx(expected, abs=1e-12)
                assert fast.get((int(instance), int(id)), 0.0) == pytest.approx(expected, abs=1e-12)


def test_empty_masks():
    empty, square = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    square[5:10, 5:10] = True
    assert davis.region_similarity(empty, empty) == 1.0 and davis.boundary_accuracy(empty, empty) == 1.0
    assert davis.region_similarity(square, empty) == 0.0 and davis.boundary_accuracy(square, empty) == 0.0
    assert davis.boundary_accuracy(empty, square) == 0.0


def test_two_that_fill_the_picture_agree():
    truth, labels = np.full((20, 30), 3, np.uint16), np.full((20, 30), 7, np.uint16)
    assert davis.boundary_accuracy(labels == 7, truth == 3) == 1.0
    assert davis.boundary_accuracies(labels, truth) == {(3, 7): 1.0}
    assert davis.boundary_accuracies(np.zeros_like(labels), truth) == {}


def test_sizes_must_agree():
    with pytest.raises(InputError, match="one size"):
        davis.region_similarity(np.zeros((2, 2), bool), np.zeros((3, 2), bool))


def test_statistics_by_hand():
    result = davis.statistics([1.0, 0.9, 0.8, 0.7, 0.4, 0.3, 0.2, 0.1])
    # Quarters share their ends, as in DAVIS: frames 1-3 and 6-8 of eight (edges 1, 2.75, 4.5, 6.25, 8 rounded).
    assert result.mean == pytest.approx(0.55)
    assert result.recall == 0.5
    assert result.decay == pytest.approx(np.mean([1.0, 0.9, 0.8]) - np.mean([0.3, 0.2, 0.1]))


def test_statistics_of_nothing_is_nan():
    assert math.isnan(davis.statistics([]).mean)


@pytest.mark.parametrize("seed", range(3))
def test_scorer_equals_measuring_every_pair(seed, random_labels, overlaps_of):
    from itertools import permutations

    predictions, truths = random_labels(seed)
    scorer = davis.DavisScorer()
    for labels, truth, overlap in zip(predictions, truths, overlaps_of(predictions, truths), strict=True):
        scorer.add(labels, truth, overlap)
    score = scorer.score()

    ids, instances = sorted(set(np.unique(predictions)) - {0}), sorted(set(np.unique(truths)) - {0})
    measured = {
        (i, p): np.array(
            [
                (davis.region_similarity(a == p, b == i), davis.boundary_accuracy(a == p, b == i))
                for a, b in zip(predictions, truths, strict=True)
            ]
        )
        for i in instances
        for p in ids
    }
    best = max(
        permutations(ids, len(instances)),
        key=lambda chosen: sum(measured[i, p].mean() for i, p in zip(instances, chosen, strict=True)),
    )
    values = [measured[i, p] for i, p in zip(instances, best, strict=True)]
    assert score.j.mean == pytest.approx(np.mean([v[:, 0].mean() for v in values]))
    assert score.f.mean == pytest.approx(np.mean([v[:, 1].mean() for v in values]))
    assert score.j_and_f == pytest.approx(np.mean([v.mean() for v in values]))
    assert score.j.recall == pytest.approx(np.mean([(v[:, 0] > 0.5).mean() for v in values]))


def test_object_without_an_id(overlaps_of):
    truth = np.zeros((20, 20), np.uint16)
    truth[4:9, 4:9] = 1
    labels = np.zeros_like(truth)
    scorer = davis.DavisScorer()
    for now in (truth, np.zeros_like(truth)):
        scorer.add(labels, now, overlaps_of([labels], [now])[0])
    score = scorer.score()
    assert score.ids == {1: 0}
    assert score.j.mean == 0.5  # right where there is nothing to find
