"""What people point at, as regions: bodies and regions of the cut under their points, or inside their box."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mastsam_ros.segmenters.regions.hierarchy import RegionHierarchy
from mastsam_ros.segmenters.regions.partition_tree import in_common
from mastsam_ros.segmenters.regions.superpixels import RegionGraph

_INSIDE = 0.5
"""Share of a region that must lie in a box for it to be a part of what the box holds."""


def body_at(bodies: npt.NDArray[np.int32], on: npt.NDArray[np.int64], beside: npt.NDArray[np.int64]) -> npt.NDArray:
    """(H, W) bool: the body that holds most of the points `on` (K, 2: row, column); empty if it holds one `beside`."""
    hit = np.bincount(bodies[on[:, 0], on[:, 1]])
    body = int(hit.argmax()) if len(hit) else 0
    if body == 0 or (bodies[beside[:, 0], beside[:, 1]] == body).any():
        return np.zeros(bodies.shape, bool)
    return bodies == body


def regions_at(
    graph: RegionGraph,
    hierarchy: RegionHierarchy,
    cut: npt.NDArray[np.int64],
    on: npt.NDArray[np.int64],
    beside: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """(H, W) bool: under each point `on` the largest node of the tree within its region of `cut` (S,) that holds no
    point `beside`. on, beside: (K, 2) row, column."""
    parents = hierarchy.parents
    unwanted = np.zeros(graph.count)
    unwanted[graph.labels[beside[:, 0], beside[:, 1]]] = 1
    allowed = (in_common(hierarchy.children, cut) >= 0) & (hierarchy.accumulate(unwanted) == 0)
    chosen = np.zeros(graph.count, bool)
    for leaf in np.unique(graph.labels[on[:, 0], on[:, 1]]).tolist():
        node = leaf
        while parents[node] != node and allowed[parents[node]]:
            node = int(parents[node])
        if allowed[node]:
            chosen |= _leaves_of(node, parents, graph.count)
    return chosen[graph.labels]


def regions_inside(
    image: npt.NDArray[np.int64], box: npt.NDArray[np.float64], beside: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """(H, W) bool: the values of `image` (H, W), >= 0, that lie in the box (x0, y0, x1, y1) for the most part and hold
    no point `beside` (K, 2: row, column)."""
    x0, y0, x1, y1 = np.rint(box).astype(int)
    size = int(image.max()) + 1
    whole = np.bincount(image.ravel(), minlength=size)
    inside = np.bincount(image[y0 : y1 + 1, x0 : x1 + 1].ravel(), minlength=size)
    part = (inside > 0) & (inside >= _INSIDE * whole)
    part[image[beside[:, 0], beside[:, 1]]] = False
    return part[image]


def _leaves_of(node: int, parents: npt.NDArray[np.int64], leaves: int) -> npt.NDArray[np.bool_]:
    """(leaves,) bool: those below a node. Parents have larger numbers than their children."""
    current = np.arange(leaves)
    while True:
        below = current < node
        if not below.any():
            return np.asarray(current == node)
        current[below] = parents[current[below]]
