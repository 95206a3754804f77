"""The order in which views without order are taken."""

from __future__ import annotations

import numpy as np
import torch

from mastsam_ros.matchers.view_graph import Step, connection, connections, spanning_order
from mastsam_ros.types import Frame, Matches


def strengths(*pairs: tuple[int, int, float], count: int = 5) -> np.ndarray:
    result = np.zeros((count, count))
    for a, b, strength in pairs:
        result[a, b] = result[b, a] = strength
    return result


def test_each_view_is_reached_from_its_best_neighbour() -> None:
    strength = strengths((0, 1, 5), (0, 2, 9), (1, 2, 8), (2, 3, 1), (1, 3, 7), (3, 4, 2), (0, 4, 1))
    assert spanning_order(strength, 0) == [
        Step(0, None, 0), Step(2, 0, 9), Step(1, 2, 8), Step(3, 1, 7), Step(4, 3, 2)
    ]  # fmt: skip
    assert spanning_order(strength)[0].view == 1, "the best connected one, where nobody says where to begin"


def test_views_that_match_none_begin_anew() -> None:
    order = spanning_order(strengths((0, 1, 5), (2, 3, 4)), 1)
    assert [(step.view, step.origin) for step in order] == [(1, None), (0, 1), (2, None), (3, 2), (4, None)]


class Overlap:
    """Views are rows of one long picture: its matcher knows how far each is shifted. It has no `connection`."""

    def match(self, previous: Frame, current: Frame) -> Matches:
        shift = int(current.stamp_ns - previous.stamp_ns)
        x, y = np.meshgrid(np.arange(max(0, shift), min(64, 64 + shift)), np.arange(48))
        xy0 = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
        return Matches(torch.from_numpy(xy0), torch.from_numpy(xy0 - np.float32([shift, 0])), torch.ones(len(xy0)))


def test_any_matcher_connects_views_by_what_it_matches() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    views = [Frame(picture, stamp_ns=shift) for shift in (0, 40, 10, 30, 20)]
    matcher = Overlap()
    assert connection(matcher, views[0], views[2]) > connection(matcher, views[0], views[1]) > 0
    done: list[int] = []
    order = spanning_order(connections(matcher, views, done.append), 0)
    assert [step.view for step in order] == [0, 2, 4, 3, 1] and sum(done) == 10
