"""Which views of an unordered set show the same, and from which neighbour each is reached best: a spanning tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.matchers import Connecting, Matcher
from mastsam_ros.types import Frame

_CELLS = 16
"""Cells along the long side of the picture that matches are counted in."""


@dataclass(frozen=True)
class Step:
    """One view, by its place in the set, and the earlier one that it is matched with; None where none shows the same.

    strength: how well the two match.
    """

    view: int
    origin: int | None
    strength: float


def connection(matcher: Matcher, first: Frame, second: Frame) -> float:
    """How well a matcher connects two views: cells of the second picture that hold matches, 0 for not at all."""
    if isinstance(matcher, Connecting):
        return matcher.connection(first, second)
    matches = matcher.match(first, second)
    size = max(second.width, second.height) / _CELLS
    cells = np.floor(matches.xy1.cpu().numpy() / size).astype(np.int64)
    return float(len(np.unique(cells, axis=0)))


def connections(
    matcher: Matcher, views: Sequence[Frame], done: Callable[[int], object] = lambda _pairs: None
) -> npt.NDArray[np.float64]:
    """(N, N) how well each two of N views match, symmetric. done: called with the number of pairs after each view."""
    strength = np.zeros((len(views), len(views)))
    for j in range(len(views)):
        for i in range(j):
            strength[i, j] = strength[j, i] = connection(matcher, views[i], views[j])
        done(j)
    return strength


def spanning_order(strength: npt.NDArray[np.float64], root: int | None = None) -> list[Step]:
    """The views in an order in which each is matched with the best of those before it: a maximum spanning tree (Prim).

    strength: (N, N). root: the first view; None: the one with the best connections. Views that match none of the
    others follow at the end, each set of them with a first view of its own. Same input, same order.
    """
    order: list[Step] = []
    left = set(range(len(strength)))
    while left:
        if root is None or root not in left:
            root = max(sorted(left), key=lambda view: strength[view, sorted(left)].sum())
        order.append(Step(root, None, 0.0))
        left.remove(root)
        reached = [root]
        while left:
            pairs = [(strength[origin, view], -view, origin) for origin in reached for view in left]
            best, negative, origin = max(pairs, key=lambda pair: (pair[0], pair[1], -reached.index(pair[2])))
            if best <= 0:
                break
            order.append(Step(-negative, origin, float(best)))
            left.remove(-negative)
            reached.append(-negative)
    return order
