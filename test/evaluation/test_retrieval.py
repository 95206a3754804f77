"""Retrieval by view angle, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mastsam_ros.evaluation import retrieval
from mastsam_ros.types import InputError


def turned(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    T = np.eye(4)
    T[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return T


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 179.0])
def test_angle(degrees):
    assert retrieval.rotation_angle_deg(turned(10), turned(10 + degrees)) == pytest.approx(degrees, abs=1e-5)


def test_correct_at_1_by_hand():
    similarity = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.1], [0.1, 0.1, 0.9], [0.0, 0.0, 0.0]])
    # Segment 1 shows instance 2 but looks most like instance 1; segment 2's instance is not in b; 3 finds nothing.
    found = retrieval.correct_at_1(similarity, np.array([1, 2, 5, 3]), np.array([1, 2, 3]))
    assert found == (1, 3)


def test_similarity_must_fit():
    with pytest.raises(InputError, match=r"\(2, 1\)"):
        retrieval.correct_at_1(np.zeros((1, 2)), np.array([1, 2]), np.array([1]))


def test_recall_by_angle_by_hand(overlaps_of):
    truths = [np.array([[1, 1, 2, 2]], np.uint16)] * 3
    predictions = [np.array([row], np.uint16) for row in ([5, 5, 6, 6], [5, 5, 6, 6], [5, 5, 7, 7])]
    poses = [turned(0), turned(30), turned(100)]
    bins = retrieval.recall_by_angle(overlaps_of(predictions, truths), poses, min_pixels=1)
    assert [(b.recall, b.queries, b.pairs) for b in bins[:3]] == [(1.0, 4, 2), (0.5, 4, 2), (0.5, 4, 2)]
    assert bins[3].queries == 0 and math.isnan(bins[3].recall)


def test_one_id_for_all_is_not_found_again(overlaps_of):
    truths = [np.array([[1, 1, 2, 2]], np.uint16)] * 2
    ones = [np.ones((1, 4), np.uint16)] * 2
    bins = retrieval.recall_by_angle(overlaps_of(ones, truths), [turned(0), turned(5)], min_pixels=1)
    assert bins[0].recall == 0.5


def test_poses_must_be_as_many_as_frames(overlaps_of):
    with pytest.raises(InputError, match="got 1"):
        retrieval.recall_by_angle(overlaps_of([np.ones((2, 2), int)] * 2, [np.ones((2, 2), int)] * 2), [np.eye(4)])
