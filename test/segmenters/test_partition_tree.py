"""The tree is that of always merging what costs the least more; sums and cuts over it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mastsam_ros.segmenters.regions.partition_tree import (
    cheapest_cut,
    climbed,
    in_common,
    leaves_in_order,
    met_in,
    outlines,
    summed,
)


def grid(rows: int, columns: int) -> npt.NDArray[np.int32]:
    """(E, 2): neighbours in a grid."""
    number = np.arange(rows * columns).reshape(rows, columns)
    across = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], 1)
    down = np.stack([number[:-1].ravel(), number[1:].ravel()], 1)
    return np.concatenate([across, down]).astype(np.int32)


FLOOR, BOUNDARY, REGION = 16.0, 3.0, 9.0


def cost_of(colours: npt.NDArray[np.float64]) -> float:
    """What the colours (N, 3) of a region cost."""
    covariance = np.cov(colours.T, bias=True) + FLOOR * np.eye(3)
    return float(len(colours) / 2 * np.log(np.linalg.det(covariance)))


def moments_of(colours: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """(S, 10) of the colours (N, 3) of every leaf."""
    rows, columns = np.triu_indices(3)
    return np.array([[len(c), *c.sum(0), *(c.T @ c)[rows, columns]] for c in colours])


def merged_one_by_one(
    colours: list[npt.NDArray[np.float64]], edges: npt.NDArray[np.int32], length: npt.NDArray[np.float64]
) -> list[tuple[frozenset[int], float]]:
    """The merged regions in order, each with the contact of its two parts."""
    regions = [frozenset([n]) for n in range(len(colours))]
    cost = {region: cost_of(np.concatenate([colours[n] for n in region])) for region in regions}
    merged = []
    while len(regions) > 1:
        found = []
        for i, a in enumerate(regions):
            for b in regions[:i]:
                contact = sum(length[n] for n, (s, t) in enumerate(edges) if (s in a and t in b) or (s in b and t in a))
                if contact:
                    both = cost_of(np.concatenate([colours[n] for n in a | b]))
                    found.append(((both - cost[a] - cost[b]) / (BOUNDARY * contact + REGION), contact, both, a, b))
        _, contact, both, a, b = min(found, key=lambda pair: pair[0])
        cost[a | b] = both
        regions = [region for region in regions if region not in (a, b)] + [a | b]
        merged.append((a | b, contact))
    return merged


@pytest.mark.parametrize("seed", range(3))
def test_it_always_merges_the_two_that_cost_the_least_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = grid(4, 6)
    length = rng.integers(1, 9, len(edges)).astype(np.float64)
    colours = [rng.normal(rng.uniform(0, 60, 3), rng.uniform(1, 9), (int(rng.integers(5, 60)), 3)) for _ in range(24)]
    sides = np.zeros(24, np.int64)
    children, contact = climbed(edges, length, moments_of(colours), sides, FLOOR, BOUNDARY, REGION)
    leaves = [frozenset([n]) for n in range(24)]
    for pair, along, (region, touched) in zip(
        children, contact, merged_one_by_one(colours, edges, length), strict=True
    ):
        leaves.append(leaves[pair[0]] | leaves[pair[1]])
        assert leaves[-1] == region
        assert along == touched


def test_what_is_on_two_sides_is_merged_last() -> None:
    edges, flat = grid(20, 30), [np.full((9, 3), 50.0)] * 600
    left = (np.arange(600) % 30 < 12).astype(np.int64)
    children, contact = climbed(edges, np.ones(len(edges)), moments_of(flat), left, FLOOR, BOUNDARY, REGION)
    assert sorted(children.ravel().tolist()) == list(range(2 * 600 - 2))
    assert (children < np.arange(600, 1199)[:, None]).all()
    assert contact.sum() == len(edges)
    assert in_common(children, left)[600:].tolist().count(-1) == 1
    assert contact[-1] == 20


def test_one_leaf_is_a_tree() -> None:
    children, _ = climbed(
        np.zeros((0, 2), np.int32), np.zeros(0), np.ones((1, 10)), np.zeros(1, np.int64), FLOOR, BOUNDARY, REGION
    )
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


def test_leaves_stand_together_and_edges_meet_where_their_ends_are_merged() -> None:
    rng = np.random.default_rng(11)
    leaves = 40
    roots, children = list(range(leaves)), []
    for n in range(leaves - 1):
        first, second = (roots.pop(rng.integers(len(roots))) for _ in range(2))
        children.append(sorted((first, second)))
        roots.append(leaves + n)
    tree = np.array(children, np.int64)
    held = [{leaf} for leaf in range(leaves)]
    for first, second in children:
        held.append(held[first] | held[second])
    order, start, count = leaves_in_order(tree)
    for node, of_node in enumerate(held):
        assert set(order[start[node] : start[node] + count[node]].tolist()) == of_node
    edges = np.array([pair for pair in rng.integers(0, leaves, (80, 2)).tolist() if pair[0] != pair[1]], np.int32)
    wanted = [next(node for node, of_node in enumerate(held) if of_node.issuperset(pair)) for pair in edges.tolist()]
    assert met_in(tree, edges).tolist() == wanted
