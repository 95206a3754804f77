"""The minimum cut of a graph with two terminals, after Boykov and Kolmogorov, An experimental comparison of
min-cut/max-flow algorithms for energy minimization in vision, PAMI 2004."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

_FREE, _SOURCE, _SINK = 0, 1, 2
_NONE, _TERMINAL, _ORPHAN = -1, -2, -3
"""Instead of the arc that leads to a node's parent."""


@compiled("bool_[::1](int64, int32[:, ::1], int64[::1], int64[::1])")
def source_side(
    count: int, edges: npt.NDArray[np.int32], links: npt.NDArray[np.int64], terminal: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """(count,): nodes that a maximum flow leaves connected with the source: the smallest source side of all minimum
    cuts.

    edges: (E, 2) nodes, each pair once; links: (E,) >= 0, their capacity in both directions. terminal: (count,)
    capacity from the source where > 0, to the sink where < 0.
    """
    # Arcs leave their node in a row: arc k of node n leads to head[k], back[k] is the same the other way round.
    start = np.zeros(count + 1, np.int64)
    for e in range(len(edges)):
        start[edges[e, 0] + 1] += 1
        start[edges[e, 1] + 1] += 1
    for n in range(count):
        start[n + 1] += start[n]
    place = start[:-1].copy()
    head, back = np.empty(2 * len(edges), np.int64), np.empty(2 * len(edges), np.int64)
    free = np.empty(2 * len(edges), np.int64)
    for e in range(len(edges)):
        a, b = edges[e, 0], edges[e, 1]
        head[place[a]], head[place[b]] = b, a
        back[place[a]], back[place[b]] = place[b], place[a]
        free[place[a]] = free[place[b]] = links[e]
        place[a] += 1
        place[b] += 1
    ends = terminal.copy()
    tree = np.zeros(count, np.int8)
    parent = np.full(count, _NONE)
    marked, far = np.zeros(count, np.int64), np.zeros(count, np.int64)
    waiting, waits = np.empty(count, np.int64), np.zeros(count, np.bool_)
    first, number = 0, 0
    orphans = np.empty(count, np.int64)
    for n in range(count):
        if ends[n] != 0:
            tree[n] = _SOURCE if ends[n] > 0 else _SINK
            parent[n], far[n], waits[n] = _TERMINAL, 1, True
            waiting[number] = n
            number += 1
    now = 0
    while number > 0:
        n = waiting[first]
        if tree[n] == _FREE:
            waits[n] = False
            first, number = (first + 1) % count, number - 1
            continue
        # Grow the tree of n until it touches the other one.
        bridge = -1
        for arc in range(start[n], start[n + 1]):
            if free[arc if tree[n] == _SOURCE else back[arc]] == 0:
                continue
            other = head[arc]
            if tree[other] == _FREE:
                tree[other], parent[other] = tree[n], back[arc]
                marked[other], far[other] = marked[n], far[n] + 1
                if not waits[other]:
                    waits[other] = True
                    waiting[(first + number) % count] = other
                    number += 1
            elif tree[other] != tree[n]:
                bridge = arc if tree[n] == _SOURCE else back[arc]
                break
            elif marked[other] <= marked[n] and far[other] > far[n]:
                parent[other], marked[other], far[other] = back[arc], marked[n], far[n] + 1
        if bridge < 0:
            waits[n] = False
            first, number = (first + 1) % count, number - 1
            continue
        now += 1
        # Send along the path what its narrowest arc lets through; arcs that are full make orphans.
        flow = free[bridge]
        a = head[back[bridge]]
        while parent[a] != _TERMINAL:
            flow = min(flow, free[back[parent[a]]])
            a = head[parent[a]]
        flow = min(flow, ends[a])
        b = head[bridge]
        while parent[b] != _TERMINAL:
            flow = min(flow, free[parent[b]])
            b = head[parent[b]]
        flow = min(flow, -ends[b])
        left = 0
        free[bridge] -= flow
        free[back[bridge]] += flow
        for side in range(2):
            a = head[back[bridge]] if side == 0 else head[bridge]
            while parent[a] != _TERMINAL:
                arc = parent[a]
                above = head[arc]
                down = back[arc] if side == 0 else arc
                free[down] -= flow
                free[back[down]] += flow
                if free[down] == 0:
                    parent[a] = _ORPHAN
                    orphans[left] = a
                    left += 1
                a = above
            ends[a] += -flow if side == 0 else flow
            if ends[a] == 0:
                parent[a] = _ORPHAN
                orphans[left] = a
                left += 1
        # Orphans find another parent in their tree, or leave it.
        while left > 0:
            left -= 1
            n = orphans[left]
            best, nearest = -1, 1 << 60
            for arc in range(start[n], start[n + 1]):
                other = head[arc]
                if tree[other] != tree[n] or free[back[arc] if tree[n] == _SOURCE else arc] == 0:
                    continue
                # How far it is from there to the terminal, if that is where its parents lead.
                steps, at = 0, other
                while steps >= 0:
                    if marked[at] == now:
                        steps += far[at]
                        break
                    steps += 1
                    if parent[at] == _TERMINAL:
                        marked[at], far[at] = now, 1
                        break
                    if parent[at] == _ORPHAN or parent[at] == _NONE:
                        steps = -1
                    else:
                        at = head[parent[at]]
                if steps < 0:
                    continue
                if steps < nearest:
                    best, nearest = arc, steps
                at = other
                while marked[at] != now:
                    marked[at], far[at] = now, steps
                    steps -= 1
                    at = head[parent[at]]
            if best >= 0:
                parent[n], marked[n], far[n] = best, now, nearest + 1
                continue
            for arc in range(start[n], start[n + 1]):
                other = head[arc]
                if tree[other] != tree[n]:
                    continue
                if free[back[arc] if tree[n] == _SOURCE else arc] > 0 and not waits[other]:
                    waits[other] = True
                    waiting[(first + number) % count] = other
                    number += 1
                if parent[other] >= 0 and head[parent[other]] == n:
                    parent[other] = _ORPHAN
                    orphans[left] = other
                    left += 1
            tree[n], parent[n] = _FREE, _NONE
    return tree == _SOURCE
