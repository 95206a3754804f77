"""The tree is that of always merging the nearest two; sums and cuts over it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mastsam_ros.segmenters.regions.partition_tree import average_linkage, cheapest_cut, in_common, outlines, summed


def grid(rows: int, columns: int) -> npt.NDArray[np.int32]:
    """(E, 2): neighbours in a grid."""
    number = np.arange(rows * columns).reshape(rows, columns)
    across = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], 1)
    down = np.stack([number[:-1].ravel(), number[1:].ravel()], 1)
    return np.concatenate([across, down]).astype(np.int32)


def merged_one_by_one(
    count: int, edges: npt.NDArray[np.int32], weight: npt.NDArray[np.float64], length: npt.NDArray[np.float64]
) -> list[tuple[frozenset[int], float, float]]:
    """The merged regions in order, each with the distance and the contact of its two parts."""
    regions = [frozenset([n]) for n in range(count)]
    merged = []
    while len(regions) > 1:
        found = []
        for i, a in enumerate(regions):
            for b in regions[:i]:
                between = [n for n, (s, t) in enumerate(edges) if (s in a and t in b) or (s in b and t in a)]
                if between:
                    contact = length[between].sum()
                    found.append((float((weight[between] * length[between]).sum() / contact), contact, a, b))
        distance, contact, a, b = min(found, key=lambda pair: pair[0])
        regions = [region for region in regions if region not in (a, b)] + [a | b]
        merged.append((a | b, distance, contact))
    return merged


@pytest.mark.parametrize("seed", range(3))
def test_it_always_merges_the_nearest_two(seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = grid(4, 6)
    weight, length = rng.uniform(1, 2, len(edges)), rng.integers(1, 9, len(edges)).astype(np.float64)
    children, altitude, contact = average_linkage(24, edges, weight, length)
    leaves = [frozenset([n]) for n in range(24)]
    for pair, apart, along, (region, distance, touched) in zip(
        children, altitude, contact, merged_one_by_one(24, edges, weight, length), strict=True
    ):
        leaves.append(leaves[pair[0]] | leaves[pair[1]])
        assert leaves[-1] == region
        assert apart == pytest.approx(distance)
        assert along == touched


def test_equal_distances_end_in_one_region() -> None:
    edges = grid(20, 30)
    children, altitude, contact = average_linkage(600, edges, np.zeros(len(edges)), np.ones(len(edges)))
    assert sorted(children.ravel().tolist()) == list(range(2 * 600 - 2))
    assert (children < np.arange(600, 1199)[:, None]).all()
    assert (altitude == 0).all()
    assert contact.sum() == len(edges)


def test_one_leaf_is_a_tree() -> None:
    children, _, _ = average_linkage(1, np.zeros((0, 2), np.int32), np.zeros(0), np.zeros(0))
    assert children.shape == (0, 2)
    assert cheapest_cut(children, np.array([3.0])).tolist() == [0]


CHILDREN = np.array([[0, 1], [2, 3], [4, 5]])
"""Four leaves, merged in pairs."""


def test_sums_and_outlines() -> None:
    sums = summed(CHILDREN, np.array([[1.0, 0], [2, 0], [3, 1], [4, 0]]))
    assert sums.tolist() == [[1, 0], [2, 0], [3, 1], [4, 0], [3, 0], [7, 1], [10, 1]]
    edges = np.array([[0, 1], [2, 3], [0, 2], [1, 3]], np.int32)
    whole = outlines(CHILDREN, edges, np.array([1.0, 1, 5, 7]), np.array([1.0, 1, 12]))
    assert whole.tolist() == [6, 8, 6, 8, 12, 12, 0]


def test_what_all_leaves_of_a_node_have() -> None:
    assert in_common(CHILDREN, np.array([5, 5, 0, 0])).tolist() == [5, 5, 0, 0, 5, 0, -1]


def test_a_node_that_costs_as_much_as_its_parts_is_taken() -> None:
    assert cheapest_cut(CHILDREN, np.array([1.0, 1, 1, 1, 2, 2.5, 9])).tolist() == [4, 4, 2, 3]
    assert cheapest_cut(CHILDREN, np.array([1.0, 1, 1, 1, 2, 2.5, 4])).tolist() == [6, 6, 6, 6]
