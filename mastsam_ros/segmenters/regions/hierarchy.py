"""A tree of regions over the superpixels, and the cut through it that describes the picture in the fewest bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.segmenters.regions.partition_tree import (
    cheapest_cut,
    climbed,
    colour_costs,
    in_common,
    outlines,
    summed,
)
from mastsam_ros.segmenters.regions.superpixels import RegionGraph
from mastsam_ros.segmenters.regions.votes import gathered

_NEVER = 1e15
_BESIDE = 0.5
"""Regions smaller than this share of another one are no measure of how firm it is: they may be its own parts."""
_EDGE = 2.0
"""Gradient, in units of Lab per pixel, that is an edge rather than texture or shading."""


@dataclass(frozen=True)
class DescriptionLength:
    """The cost of a region of area A, perimeter P and colour covariance C, in nats:
    A / 2 * log det(C + noise^2 I) + boundary * P / 2 + region. The logarithm makes texture cheap."""

    noise: float
    boundary: float
    region: float


def outline_lengths(graph: RegionGraph, contrast_weight: float) -> npt.NDArray[np.float64]:
    """(E,) as how many pixels of outline each contact counts: its length where an edge runs along it, up to
    1 + contrast_weight times that where there is none, so that no outline crosses what only changes slowly."""
    flat = np.exp(-((graph.contrast / _EDGE) ** 2))
    return graph.boundary * (1 + contrast_weight * flat)


class RegionHierarchy:
    """Binary partition tree of one frame. Nodes are numbered from the leaves (superpixels) to the root.

    children: (S - 1, 2) int64, what each node beyond the leaves is made of. area, perimeter, energy: (nodes,).
    """

    def __init__(
        self,
        graph: RegionGraph,
        moments: npt.NDArray[np.float64],
        outline: npt.NDArray[np.float64],
        barrier: npt.NDArray[np.int64] | None,
        cost: DescriptionLength,
    ) -> None:
        """moments: (S, 10), `RegionGraph.moments` of the colours. outline: (E,), as how many pixels of outline each
        contact counts. barrier: (S,) >= 0, superpixels with different values are merged last, or None."""
        self._graph, self._moments, self._outline, self._barrier, self._cost = graph, moments, outline, barrier, cost
        sides = np.zeros(graph.count, np.int64) if barrier is None else barrier
        self.children, contact = climbed(
            graph.edges, outline, moments, sides, cost.noise**2, cost.boundary, cost.region
        )
        self.perimeter = outlines(self.children, graph.edges, outline, contact)
        sums = self.accumulate(moments)
        self.area = sums[:, 0].copy()
        self._colours = self._colour_cost(sums)
        self.energy = self._colours + self.boundary_cost()
        if barrier is not None:
            # A region that mixes two sides of the barrier is never chosen.
            self.energy[in_common(self.children, sides) < 0] = _NEVER

    def steadied(self, factor: npt.NDArray[np.float64]) -> RegionHierarchy:
        """The same superpixels in another tree: outlines along each contact cost `factor` (E,) times as much."""
        return RegionHierarchy(self._graph, self._moments, self._outline * factor, self._barrier, self._cost)

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

    def margins(self) -> npt.NDArray[np.float64]:
        """(S - 1,) of each node beyond the leaves: what its colours cost more than those of what it is made of, as a
        multiple of what one outline and one region less save. Below 1 they are cheaper as one."""
        one, other = self.children.T
        nodes = np.arange(len(self.children) + 1, len(self.area))
        contact = (self.perimeter[one] + self.perimeter[other] - self.perimeter[nodes]) / 2
        more = self._colours[nodes] - self._colours[one] - self._colours[other]
        return more / (self._cost.boundary * contact + self._cost.region)

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
        contact = np.bincount(place.ravel(), self._outline[apart], len(which))
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
        return colour_costs(np.ascontiguousarray(moments), self._cost.noise**2)

    def optimal_cut(self, discount: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.int64]:
        """Region 0..R-1 of every superpixel (S,) in the cut of least total cost; discount (nodes,) is taken off."""
        energy = self.energy if discount is None else self.energy - discount
        # What was merged last comes first.
        return np.unique(-cheapest_cut(self.children, energy), return_inverse=True)[1].ravel().astype(np.int64)
