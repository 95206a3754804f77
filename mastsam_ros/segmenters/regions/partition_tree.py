"""The binary partition tree: regions merged two by two, the cheapest first, and sums and cuts over it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LAST = 1e12
"""Dearer than all else: what must not be merged before everything that may."""


@compiled("float64(float64[::1], float64)")
def colour_cost(moments: Floats, floor: float) -> float:
    """What the colours of a region cost in nats: half its pixels times the logarithm of its colours' covariance's
    determinant, `floor` added along the diagonal. moments: (10,), see `RegionGraph.moments`."""
    area = moments[0]
    x, y, z = moments[1] / area, moments[2] / area, moments[3] / area
    xx, xy, xz = moments[4] / area - x * x + floor, moments[5] / area - x * y, moments[6] / area - x * z
    yy, yz, zz = moments[7] / area - y * y + floor, moments[8] / area - y * z, moments[9] / area - z * z + floor
    determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    return area / 2 * np.log(max(determinant, 0.5 * floor * floor * floor))


@compiled("float64[::1](float64[:, ::1], float64)")
def colour_costs(moments: Floats, floor: float) -> Floats:
    """`colour_cost` of regions with moments (N, 10): (N,)."""
    costs = np.empty(len(moments))
    for n in range(len(moments)):
        costs[n] = colour_cost(moments[n], floor)
    return costs


@compiled("void(int64[::1], int64[::1], float64[::1], int64)")
def _rise(heap: Ints, place: Ints, price: Floats, at: int) -> None:
    """Moves what stands `at` a place of the heap up, past what is dearer (of equal ones: has a higher number)."""
    risen = heap[at]
    while at > 0:
        above = (at - 1) // 2
        other = heap[above]
        if price[other] < price[risen] or (price[other] == price[risen] and other < risen):
            break
        heap[at], place[other] = other, at
        at = above
    heap[at], place[risen] = risen, at


@compiled("void(int64[::1], int64[::1], float64[::1], int64, int64)")
def _sink(heap: Ints, place: Ints, price: Floats, size: int, at: int) -> None:
    """As `_rise`, down, past what is cheaper, in a heap of so many."""
    sunk = heap[at]
    while 2 * at + 1 < size:
        below = 2 * at + 1
        other = heap[below]
        if below + 1 < size:
            second = heap[below + 1]
            if price[second] < price[other] or (price[second] == price[other] and second < other):
                below, other = below + 1, second
        if price[sunk] < price[other] or (price[sunk] == price[other] and sunk < other):
            break
        heap[at], place[other] = other, at
        at = below
    heap[at], place[sunk] = sunk, at


@compiled("int64(int64[::1], int64[::1], float64[::1], int64, int64)")
def _taken_out(heap: Ints, place: Ints, price: Floats, size: int, gone: int) -> int:
    """The size of the heap without one that may be in it."""
    at = place[gone]
    if at < 0:
        return size
    place[gone] = -1
    last = heap[size - 1]
    if last != gone:
        heap[at], place[last] = last, at
        _rise(heap, place, price, at)
        _sink(heap, place, price, size - 1, place[last])
    return size - 1


@compiled(
    "Tuple((int64[:, ::1], float64[::1]))"
    "(int32[:, ::1], float64[::1], float64[:, ::1], int64[::1], float64, float64, float64)"
)
def climbed(
    edges: npt.NDArray[np.int32],
    length: Floats,
    moments: Floats,
    sides: Ints,
    floor: float,
    boundary: float,
    region: float,
) -> tuple[Ints, Floats]:
    """Merges leaves that form a connected graph until one region is left: always those two whose colours cost the
    least more together, for each unit that one outline and one region less save (Guigues et al., Scale-sets image
    analysis, IJCV 2006). So the tree holds the cuts that are cheap at any price of outlines.

    edges: (E, 2) leaves that touch, each pair once, along length (E,); moments: (S, 10) of their colours; sides: (S,),
    what is on different ones is merged last. floor, boundary, region: the noise, and what a pixel of outline and a
    region cost. Returns children (S - 1, 2), what each merged node is made of, and contact (S - 1,), how long they
    touched. Nodes are numbered in the order of merging, behind the leaves.
    """
    count, number_of_edges = len(moments), len(edges)
    sums, side, contact = moments.copy(), sides.copy(), length.copy()
    cost, both = np.empty(count), np.empty(10)
    for n in range(count):
        cost[n] = colour_cost(sums[n], floor)
    # Half edge 2e leads from the first leaf of edge e to the second, 2e + 1 back: linked in a list for each region.
    target = np.empty(2 * number_of_edges, np.int64)
    after = np.full(2 * number_of_edges, -1)
    before = np.full(2 * number_of_edges, -1)
    first = np.full(count, -1)
    degree = np.zeros(count, np.int64)
    for e in range(number_of_edges):
        for end in range(2):
            half, one = 2 * e + end, edges[e, end]
            target[half] = edges[e, 1 - end]
            after[half] = first[one]
            if first[one] >= 0:
                before[first[one]] = half
            first[one] = half
            degree[one] += 1
    # How dear each edge is, the cheapest first: a heap, and where in it each edge stands, -1 when it is gone.
    price = np.empty(number_of_edges)
    for e in range(number_of_edges):
        a, b = edges[e, 0], edges[e, 1]
        for c in range(10):
            both[c] = sums[a, c] + sums[b, c]
        more = (colour_cost(both, floor) - cost[a] - cost[b]) / (boundary * contact[e] + region)
        price[e] = more if side[a] == side[b] and side[a] >= 0 else more + _LAST
    heap, place, size = np.arange(number_of_edges), np.arange(number_of_edges), number_of_edges
    for at in range(size // 2 - 1, -1, -1):
        _sink(heap, place, price, size, at)
    node = np.arange(count)
    met = np.full(count, -1)
    children = np.empty((count - 1, 2), np.int64)
    met_along = np.empty(count - 1)
    merged = 0
    while merged < count - 1:
        link = heap[0]
        size = _taken_out(heap, place, price, size, link)
        kept, lost = target[2 * link + 1], target[2 * link]
        if degree[lost] > degree[kept]:
            kept, lost = lost, kept
        children[merged, 0] = min(node[kept], node[lost])
        children[merged, 1] = max(node[kept], node[lost])
        met_along[merged] = contact[link]
        node[kept] = count + merged
        merged += 1
        for c in range(10):
            sums[kept, c] += sums[lost, c]
        cost[kept] = colour_cost(sums[kept], floor)
        if side[kept] != side[lost]:
            side[kept] = -1
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
                size = _taken_out(heap, place, price, size, half // 2)
                if neighbour != kept:
                    contact[mine // 2] += contact[half // 2]
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
            e, other = half // 2, target[half]
            met[other] = -1
            for c in range(10):
                both[c] = sums[kept, c] + sums[other, c]
            more = (colour_cost(both, floor) - cost[kept] - cost[other]) / (boundary * contact[e] + region)
            price[e] = more + _LAST if side[kept] != side[other] or side[kept] < 0 else more
            _rise(heap, place, price, place[e])
            _sink(heap, place, price, size, place[e])
            half = after[half]
        met[lost] = -1
    return children, met_along


@compiled("int64[::1](int64[:, ::1], int32[:, ::1])")
def met_in(children: Ints, edges: npt.NDArray[np.int32]) -> Ints:
    """The node (E,) in which both ends of each edge (E, 2) between leaves are merged. children: (S - 1, 2)."""
    leaves = len(children) + 1
    parent = np.empty(leaves + len(children), np.int64)
    for n in range(len(children)):
        parent[children[n, 0]] = parent[children[n, 1]] = leaves + n
    met = np.empty(len(edges), np.int64)
    for e in range(len(edges)):
        one, other = np.int64(edges[e, 0]), np.int64(edges[e, 1])
        # What was merged later has the higher number.
        while one != other:
            if one < other:
                one = parent[one]
            else:
                other = parent[other]
        met[e] = one
    return met


@compiled("Tuple((int64[::1], int64[::1], int64[::1]))(int64[:, ::1])")
def leaves_in_order(children: Ints) -> tuple[Ints, Ints, Ints]:
    """The leaves (S,) so that those of each node stand together: where (2 S - 1,), and how many (2 S - 1,)."""
    leaves = len(children) + 1
    start, count = np.zeros(2 * leaves - 1, np.int64), np.ones(2 * leaves - 1, np.int64)
    for n in range(len(children)):
        count[leaves + n] = count[children[n, 0]] + count[children[n, 1]]
    for n in range(len(children) - 1, -1, -1):
        start[children[n, 0]] = start[leaves + n]
        start[children[n, 1]] = start[leaves + n] + count[children[n, 0]]
    order = np.empty(leaves, np.int64)
    for leaf in range(leaves):
        order[start[leaf]] = leaf
    return order, start, count


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
