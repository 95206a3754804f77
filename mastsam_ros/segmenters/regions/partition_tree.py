"""The binary partition tree: regions merged two by two, the most alike first, and sums and cuts over it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def average_linkage(
    count: int, edges: npt.NDArray[np.int32], weight: Floats, length: Floats
) -> tuple[Ints, Floats, Floats]:
    """Merges `count` leaves that form a connected graph until one region is left, always the two nearest.

    edges: (E, 2) leaves that touch, each pair once; weight, length: (E,), how different they are, and how long they
    touch. The distance of two regions is the mean weight along their contact. Returns children (count - 1, 2), what
    each merged node is made of; altitude (count - 1,), how far apart those were, which never falls; and contact
    (count - 1,), how long they touched. Nodes are numbered in the order of merging, behind the leaves.
    """
    pairs, altitude, contact = _chained(count, np.ascontiguousarray(edges, np.int32), weight, length)
    order = np.argsort(altitude, kind="stable")
    number = np.empty(count, np.int64)
    number[order] = np.arange(count, 2 * count - 1)
    children = pairs[order]
    merged = children >= count
    children[merged] = number[children[merged] - count]
    return children, altitude[order], contact[order]


@compiled("Tuple((int64[:, ::1], float64[::1], float64[::1]))(int64, int32[:, ::1], float64[::1], float64[::1])")
def _chained(count: int, edges: npt.NDArray[np.int32], weight: Floats, length: Floats) -> tuple[Ints, Floats, Floats]:
    """As `average_linkage`, in another order: nearest neighbours are followed until two are each other's.

    Merging two regions brings neither nearer to a third (reducibility), so that such a pair can be merged at once; the
    tree is that of always merging the nearest two. Cf. Murtagh, A survey of recent advances in hierarchical clustering
    algorithms, Computer Journal 1983.
    """
    number_of_edges = len(edges)
    # Half edge 2e leads from the first leaf of edge e to the second, 2e + 1 back: linked in a list for each region.
    target = np.empty(2 * number_of_edges, np.int64)
    after = np.full(2 * number_of_edges, -1)
    before = np.full(2 * number_of_edges, -1)
    first = np.full(count, -1)
    degree = np.zeros(count, np.int64)
    total = np.empty(number_of_edges)
    contact = length.copy()
    distance = np.empty(number_of_edges)
    for e in range(number_of_edges):
        total[e] = weight[e] * length[e]
        distance[e] = weight[e]
        for side in range(2):
            half, region = 2 * e + side, edges[e, side]
            target[half] = edges[e, 1 - side]
            after[half] = first[region]
            if first[region] >= 0:
                before[first[region]] = half
            first[region] = half
            degree[region] += 1
    node = np.arange(count)
    gone = np.zeros(count, np.bool_)
    met = np.full(count, -1)
    chain = np.empty(count, np.int64)
    on_chain = 0
    lowest = 0
    pairs = np.empty((count - 1, 2), np.int64)
    altitude = np.empty(count - 1)
    met_along = np.empty(count - 1)
    merged = 0
    while merged < count - 1:
        if on_chain == 0:
            while gone[lowest]:
                lowest += 1
            chain[0] = lowest
            on_chain = 1
        top = chain[on_chain - 1]
        previous = chain[on_chain - 2] if on_chain > 1 else -1
        nearest, link = np.inf, -1
        half = first[top]
        while half >= 0:
            apart = distance[half // 2]
            # Where several are as near, the one that led here: or the chain would go in circles.
            if apart < nearest or (apart == nearest and target[half] == previous):
                nearest, link = apart, half
            half = after[half]
        other = target[link]
        if other != previous:
            chain[on_chain] = other
            on_chain += 1
            continue
        on_chain -= 2
        kept, lost = (top, other) if degree[top] >= degree[other] else (other, top)
        pairs[merged, 0] = min(node[kept], node[lost])
        pairs[merged, 1] = max(node[kept], node[lost])
        altitude[merged] = nearest
        met_along[merged] = contact[link // 2]
        node[kept] = count + merged
        gone[lost] = True
        merged += 1
        half = first[kept]
        while half >= 0:
            met[target[half]] = half
            half = after[half]
        half = first[lost]
        while half >= 0:
            following = after[half]
            neighbour = target[half]
            back = half ^ 1
            mine = met[neighbour]
            if neighbour == kept or mine >= 0:
                # The half edge from the neighbour to what is gone leaves the neighbour's list.
                if before[back] >= 0:
                    after[before[back]] = after[back]
                else:
                    first[neighbour] = after[back]
                if after[back] >= 0:
                    before[after[back]] = before[back]
                degree[neighbour] -= 1
                if neighbour != kept:
                    a, b = mine // 2, half // 2
                    closest = min(distance[a], distance[b])
                    total[a] += total[b]
                    contact[a] += contact[b]
                    # Not by a rounding error nearer than either was.
                    distance[a] = max(total[a] / contact[a], closest)
            else:
                target[back] = kept
                after[half] = first[kept]
                before[half] = -1
                if first[kept] >= 0:
                    before[first[kept]] = half
                first[kept] = half
                degree[kept] += 1
            half = following
        half = first[kept]
        while half >= 0:
            met[target[half]] = -1
            half = after[half]
        met[lost] = -1
    return pairs, altitude, met_along


@compiled("float64[:, ::1](int64[:, ::1], float64[:, ::1])")
def summed(children: Ints, values: Floats) -> Floats:
    """Sums of the leaves' values (S, C) float64 over every node of a tree, (2 S - 1, C). children: (S - 1, 2)."""
    leaves, columns = values.shape
    sums = np.empty((leaves + len(children), columns))
    sums[:leaves] = values
    for n in range(len(children)):
        a, b = children[n, 0], children[n, 1]
        for c in range(columns):
            sums[leaves + n, c] = sums[a, c] + sums[b, c]
    return sums


@compiled("float64[::1](int64[:, ::1], int32[:, ::1], float64[::1], float64[::1])")
def outlines(children: Ints, edges: npt.NDArray[np.int32], length: Floats, contact: Floats) -> Floats:
    """Length of the outline of every node, (2 S - 1,), from the contacts of the leaves, edges (E, 2) of length (E,),
    and the contact (S - 1,) of each node's children (S - 1, 2)."""
    leaves = len(children) + 1
    outline = np.zeros(leaves + len(children))
    for e in range(len(edges)):
        outline[edges[e, 0]] += length[e]
        outline[edges[e, 1]] += length[e]
    for n in range(len(children)):
        outline[leaves + n] = outline[children[n, 0]] + outline[children[n, 1]] - 2 * contact[n]
    return outline


@compiled("int64[::1](int64[:, ::1], float64[::1])")
def cheapest_cut(children: Ints, cost: Floats) -> Ints:
    """The cut through a tree whose nodes cost the least together: the node (S,) of the cut over each leaf.

    children: (S - 1, 2). cost: (2 S - 1,). Where a node costs as much as what is below, it is taken.
    """
    leaves = len(children) + 1
    best = cost.copy()
    for n in range(len(children)):
        below = best[children[n, 0]] + best[children[n, 1]]
        if below < best[leaves + n]:
            best[leaves + n] = below
    chosen = np.empty(len(cost), np.int64)
    root = len(cost) - 1
    chosen[root] = -1 if best[root] < cost[root] else root
    for n in range(len(children) - 1, -1, -1):
        above = chosen[leaves + n]
        for side in range(2):
            child = children[n, side]
            chosen[child] = above if above >= 0 else (-1 if best[child] < cost[child] else child)
    return chosen[:leaves].copy()


@compiled("int64[::1](int64[:, ::1], int64[::1])")
def in_common(children: Ints, values: Ints) -> Ints:
    """The value >= 0 that all leaves of each node have, (2 S - 1,), -1 where they differ. values: (S,)."""
    leaves = len(values)
    common = np.empty(leaves + len(children), np.int64)
    common[:leaves] = values
    for n in range(len(children)):
        a, b = common[children[n, 0]], common[children[n, 1]]
        common[leaves + n] = a if a == b else -1
    return common
