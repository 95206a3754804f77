"""A tree of regions over the superpixels, and the cut through it that describes the picture in the fewest bits."""

from __future__ import annotations

from dataclasses import dataclass

import higra as hg
import numpy as np
import numpy.typing as npt

from mastsam_ros.segmenters.regions.superpixels import RegionGraph

_BARRIER = 1e6
"""Cost of a contact that must not be crossed: it is merged after all others."""
_NEVER = 1e15
_COVARIANCES = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


@dataclass(frozen=True)
class DescriptionLength:
    """The cost of a region of area A, perimeter P and colour covariance C, in nats:
    A / 2 * log det(C + noise^2 I) + boundary * P / 2 + region. The logarithm makes texture cheap."""

    noise: float
    boundary: float
    region: float


class RegionHierarchy:
    """Binary partition tree of one frame. Nodes are numbered from the leaves (superpixels) to the root."""

    def __init__(
        self,
        graph: RegionGraph,
        smooth: npt.NDArray[np.float32],
        colours: npt.NDArray[np.float32],
        barrier: npt.NDArray[np.int64] | None,
        cost: DescriptionLength,
        contrast_weight: float,
    ) -> None:
        """graph with contrast; smooth, colours: (H, W, 3) float32 Lab, filtered (for merging) and as it is (for the
        cost). barrier: (S,) superpixels with different values are merged last, or None."""
        self._cost = cost
        first, second = graph.edges[:, 0].astype(np.int64), graph.edges[:, 1].astype(np.int64)
        means = graph.mean(smooth)
        weight = contrast_weight * graph.contrast + np.linalg.norm(means[first] - means[second], axis=1)
        if barrier is not None:
            weight = weight + _BARRIER * (barrier[first] != barrier[second])
        leaves = hg.UndirectedGraph(graph.count)
        leaves.add_edges(first, second)
        self.tree, altitude = hg.binary_partition_tree_average_linkage(leaves, weight, graph.boundary)
        products = np.stack([colours[..., a] * colours[..., b] for a, b in _COVARIANCES], axis=-1)
        outline = np.bincount(first, graph.boundary, graph.count) + np.bincount(second, graph.boundary, graph.count)
        moments = self.accumulate(
            np.concatenate([graph.area[:, None], graph.sum(colours), graph.sum(products), outline[:, None]], axis=1)
        )
        self.area = moments[:, 0]
        self.mean = moments[:, 1:4] / self.area[:, None]
        self.perimeter = moments[:, 10] - 2 * self._inner_contacts(first, second, graph)
        self.covariance = np.empty((len(moments), 3, 3))
        for (a, b), column in zip(_COVARIANCES, moments[:, 4:10].T, strict=True):
            self.covariance[:, a, b] = column / self.area - self.mean[:, a] * self.mean[:, b]
            self.covariance[:, b, a] = self.covariance[:, a, b]
        floor = cost.noise**2
        determinant = np.linalg.det(self.covariance + floor * np.eye(3))
        self.energy = (
            self.area / 2 * np.log(np.maximum(determinant, 0.5 * floor**3))
            + cost.boundary * self.perimeter / 2
            + cost.region
        )
        if barrier is not None:
            # A region that mixes two sides of the barrier is never chosen.
            self.energy[altitude >= _BARRIER / 100] = _NEVER

    def accumulate(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sums of superpixel values (S, C) over every node, (nodes, C)."""
        return hg.accumulate_sequential(self.tree, np.ascontiguousarray(values, np.float64), hg.Accumulators.sum)

    def boundary_cost(self) -> npt.NDArray[np.float64]:
        """What the outline and the existence of each node cost, (nodes,)."""
        return self._cost.boundary * self.perimeter / 2 + self._cost.region

    def optimal_cut(self, discount: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.int64]:
        """Region 0..R-1 of every superpixel (S,) in the cut of least total cost; discount (nodes,) is taken off."""
        energy = self.energy if discount is None else self.energy - discount
        labels = hg.labelisation_optimal_cut_from_energy(self.tree, energy)
        return np.unique(labels, return_inverse=True)[1].ravel().astype(np.int64)

    def _inner_contacts(
        self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], graph: RegionGraph
    ) -> npt.NDArray[np.float64]:
        """Contacts between superpixels that lie inside each node, (nodes,)."""
        meeting = self.tree.lowest_common_ancestor(first, second)
        own = np.bincount(meeting, graph.boundary, self.tree.num_vertices())
        return hg.accumulate_and_add_sequential(self.tree, own, own[: graph.count], hg.Accumulators.sum)
