"""A tree of regions over the superpixels, and the cut through it that describes the picture in the fewest bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.segmenters.regions.partition_tree import average_linkage, cheapest_cut, outlines, summed
from mastsam_ros.segmenters.regions.superpixels import RegionGraph
from mastsam_ros.segmenters.regions.votes import gathered

_BARRIER = 1e6
"""Cost of a contact that must not be crossed: it is merged after all others."""
_NEVER = 1e15
_BESIDE = 0.5
"""Regions smaller than this share of another one are no measure of how firm it is: they may be its own parts."""
_COVARIANCES = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Places in a symmetric matrix, in the order of `RegionGraph.moments`."""


@dataclass(frozen=True)
class DescriptionLength:
    """The cost of a region of area A, perimeter P and colour covariance C, in nats:
    A / 2 * log det(C + noise^2 I) + boundary * P / 2 + region. The logarithm makes texture cheap."""

    noise: float
    boundary: float
    region: float


class RegionHierarchy:
    """Binary partition tree of one frame. Nodes are numbered from the leaves (superpixels) to the root.

    children: (S - 1, 2) int64, what each node beyond the leaves is made of. area, perimeter, energy: (nodes,); mean,
    covariance: (nodes, 3), (nodes, 3, 3) of the colours.
    """

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
        self._cost, self._graph = cost, graph
        first, second = graph.edges.T
        means = graph.mean(smooth)
        weight = contrast_weight * graph.contrast + np.linalg.norm(means[first] - means[second], axis=1)
        if barrier is not None:
            weight = weight + _BARRIER * (barrier[first] != barrier[second])
        self.children, altitude, contact = average_linkage(graph.count, graph.edges, weight, graph.boundary)
        self.perimeter = outlines(self.children, graph.edges, graph.boundary, contact)
        self._moments = graph.moments(colours)
        moments = self.accumulate(self._moments)
        self.area = moments[:, 0].copy()
        self.mean = moments[:, 1:4] / self.area[:, None]
        self.covariance = _covariance(moments)
        self.energy = self._colour_cost(moments) + self.boundary_cost()
        if barrier is not None:
            # A region that mixes two sides of the barrier is never chosen.
            self.energy[graph.count :][altitude >= _BARRIER / 100] = _NEVER

    @property
    def parents(self) -> npt.NDArray[np.int64]:
        """(nodes,): what each node is merged into, the root into itself."""
        leaves = len(self.children) + 1
        parents = np.arange(2 * leaves - 1)
        parents[self.children] = np.arange(leaves, 2 * leaves - 1)[:, None]
        return parents

    def accumulate(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sums of superpixel values (S,) or (S, C) over every node, (nodes,) or (nodes, C)."""
        sums = summed(self.children, np.ascontiguousarray(values, np.float64).reshape(len(values), -1))
        return sums.reshape(len(sums), *values.shape[1:])

    def boundary_cost(self) -> npt.NDArray[np.float64]:
        """What the outline and the existence of each node cost, (nodes,)."""
        return self._cost.boundary * self.perimeter / 2 + self._cost.region

    def firmness(self, cut: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(R,) of each region of a cut (S,): what its colours would cost more if it were one with a neighbour, as a
        multiple of what that would save, for the neighbour where this is least. Inf for what has no neighbour.

        What is joined as soon as outlines cost a little more is near 1; what stands out is far above it.
        """
        graph, regions = self._graph, int(cut.max()) + 1
        pairs = np.sort(cut[graph.edges], axis=1)
        apart = pairs[:, 0] != pairs[:, 1]
        which, place = np.unique(pairs[apart, 0] * regions + pairs[apart, 1], return_inverse=True)
        first, second = which // regions, which % regions
        contact = np.bincount(place.ravel(), graph.boundary[apart], len(which))
        moments = gathered(self._moments, cut, regions)
        alone = self._colour_cost(moments)
        more = self._colour_cost(moments[first] + moments[second]) - alone[first] - alone[second]
        margin = more / (self._cost.boundary * contact + self._cost.region)
        firmness = np.full(regions, np.inf)
        for one, other in ((first, second), (second, first)):
            beside = moments[other, 0] >= _BESIDE * moments[one, 0]
            np.minimum.at(firmness, one[beside], margin[beside])
        return firmness

    def _colour_cost(self, moments: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What the colours of regions with moments (N, 10) cost, (N,)."""
        floor = self._cost.noise**2
        determinant = _determinant(_covariance(moments), floor)
        return moments[:, 0] / 2 * np.log(np.maximum(determinant, 0.5 * floor**3))

    def optimal_cut(self, discount: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.int64]:
        """Region 0..R-1 of every superpixel (S,) in the cut of least total cost; discount (nodes,) is taken off."""
        energy = self.energy if discount is None else self.energy - discount
        # What was merged last comes first.
        return np.unique(-cheapest_cut(self.children, energy), return_inverse=True)[1].ravel().astype(np.int64)


def _covariance(moments: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, 3, 3) of the colours, from `RegionGraph.moments` (N, 10)."""
    area = moments[:, 0]
    mean = moments[:, 1:4] / area[:, None]
    covariance = np.empty((len(moments), 3, 3))
    for (a, b), column in zip(_COVARIANCES, moments[:, 4:].T, strict=True):
        covariance[:, a, b] = column / area - mean[:, a] * mean[:, b]
        covariance[:, b, a] = covariance[:, a, b]
    return covariance


def _determinant(symmetric: npt.NDArray[np.float64], floor: float) -> npt.NDArray[np.float64]:
    """Determinants (N,) of symmetric matrices (N, 3, 3) with `floor` added along the diagonal."""
    xx, yy, zz = (symmetric[:, n, n] + floor for n in range(3))
    xy, xz, yz = symmetric[:, 0, 1], symmetric[:, 0, 2], symmetric[:, 1, 2]
    return xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
