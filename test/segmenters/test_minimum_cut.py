"""The minimum cut, held to scipy's maximum flow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from mastsam_ros.segmenters.regions.minimum_cut import source_side


def reachable_after_maximum_flow(
    count: int, edges: npt.NDArray[np.int32], links: npt.NDArray[np.int64], terminal: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    capacity = np.zeros((count + 2, count + 2), np.int32)
    capacity[edges[:, 0], edges[:, 1]] = capacity[edges[:, 1], edges[:, 0]] = links
    capacity[count, :count] = np.maximum(terminal, 0)
    capacity[:count, count + 1] = np.maximum(-terminal, 0)
    sparse = csr_matrix(capacity)
    left = sparse - maximum_flow(sparse, count, count + 1).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    side = np.zeros(count + 2, bool)
    side[breadth_first_order(left, count, return_predecessors=False)] = True
    return side[:count]


@pytest.mark.parametrize("seed", range(40))
def test_it_is_what_a_maximum_flow_leaves_reachable(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 80))
    pairs = rng.integers(0, count, (int(rng.integers(1, 4 * count)), 2))
    edges = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0).astype(np.int32)
    links = rng.integers(0, int(rng.choice([3, 50])), len(edges))
    terminal = rng.integers(-30, 31, count)
    expected = reachable_after_maximum_flow(count, edges, links, terminal)
    np.testing.assert_array_equal(source_side(count, edges, links, terminal), expected)


def test_without_a_source_nothing_is_on_its_side() -> None:
    edges = np.array([[0, 1]], np.int32)
    assert not source_side(2, edges, np.array([5]), np.array([0, -3])).any()
    assert source_side(2, edges, np.array([5]), np.array([0, 3])).all()
