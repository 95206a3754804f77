"""The measure that needs no truth: held to the evaluation's figure, and to results whose faults are known."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.evaluation.consistency import matched_pixels, pair_consistency
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.settings import FlowSettings
from mastsam_ros.tracker.self_check import SelfChecker, sampled_places
from mastsam_ros.types import Frame, Matches


def squares(*ids: int) -> np.ndarray:
    """(40, 120) uint16: a square of 30 pixels for each id, unlabelled around."""
    labels = np.zeros((40, 40 * len(ids)), np.uint16)
    for n, id in enumerate(ids):
        labels[5:35, 5 + 40 * n : 35 + 40 * n] = id
    return labels


def standing_still(labels: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]].reshape(2, -1).astype(np.float32)
    xy = np.stack([x, y], axis=1)
    return sampled_places(Matches(xy, xy, np.ones(len(xy), np.float32))).numpy()


def test_the_first_frame_has_nothing_to_compare_with():
    check = SelfChecker().check(np.repeat(np.repeat(squares(1, 2, 3), 4, axis=0), 4, axis=1), None, {})
    assert check.consistency is None and check.switches == 0
    assert check.uncovered == pytest.approx(1 - 2700 / 4800) and check.largest == pytest.approx(900 / 4800)


@pytest.mark.parametrize(
    ("after", "merged", "switches", "kept_squares"),
    [
        ((1, 2, 3), {}, 0, 3),
        ((1, 2, 9), {}, 1, 2),  # a new id for an old thing
        ((1, 3, 3), {}, 1, 2),  # swallowed, and nobody said so
        ((1, 3, 3), {2: 3}, 0, 2),  # told
        ((1, 3, 2), {}, 2, 1),  # swapped
        ((1, 2, 0), {}, 0, 2),  # lost is not switched
    ],
)
def test_switches_are_suspected_and_told_ones_are_not(after, merged, switches, kept_squares):
    checker = SelfChecker()
    checker.check(squares(1, 2, 3), None, {})
    check = checker.check(squares(*after), standing_still(squares(*after)), merged)
    assert check.switches == switches and type(check.switches) is int  # JSON takes no other
    assert check.consistency == pytest.approx(kept_squares * 900 / 4800, abs=0.03)


def test_a_part_that_gets_its_own_id_is_no_switch():
    before, after = squares(1, 2, 3), squares(1, 2, 3)
    after[5:15, 5:35] = 7
    checker = SelfChecker()
    checker.check(before, None, {})
    assert checker.check(after, standing_still(after), {}).switches == 0


def test_everything_under_one_id_is_seen():
    check = SelfChecker().check(np.full((40, 40), 5, np.uint16), None, {})
    assert check.largest == 1.0 and check.uncovered == 0.0


def test_reset_and_another_size_start_anew():
    checker = SelfChecker()
    for labels in (squares(1, 2, 3), squares(1, 2)):
        assert checker.check(labels, standing_still(labels), {}).consistency is None
    checker.reset()
    assert checker.check(squares(1, 2), standing_still(squares(1, 2)), {}).consistency is None


def test_it_agrees_with_the_evaluation():
    scene = SampleScene(frames=4)
    views = [scene.render(index) for index in (0, 1)]
    first, second = views[0].instance, views[1].instance
    spoiled = second.copy()
    spoiled[: second.shape[0] // 2] += 100
    matches = FlowMatcher(FlowSettings()).match(*(Frame(view.frame.image) for view in views))
    pixels = matched_pixels(views[0].frame.image, views[1].frame.image)
    for labels in (second, spoiled):
        checker = SelfChecker()
        checker.check(first, None, {})
        check = checker.check(labels, sampled_places(matches).numpy(), {})
        assert check.consistency == pytest.approx(pair_consistency(first, labels, pixels), abs=0.03)
