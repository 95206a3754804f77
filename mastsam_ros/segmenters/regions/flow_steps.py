"""Small things in the colours of what is behind them: the flow makes a step where one ends and the other goes on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.segmenters.regions.dominant_motion import robust_weight, solve
from mastsam_ros.segmenters.regions.hierarchy import RegionHierarchy
from mastsam_ros.segmenters.regions.partition_tree import in_common, leaves_in_order, met_in, outlines
from mastsam_ros.segmenters.regions.superpixels import RegionGraph
from mastsam_ros.segmenters.regions.two_in_one import SURE, Followed, judged, suspects
from mastsam_ros.segmenters.regions.votes import agreement

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SMALLEST = 60
"""Pixels; what is smaller has too little flow of its own."""
_SMALL, _LARGE = 0.02, 0.02
"""Shares of the picture up to which something may be a thing, and from which on a region may be what is behind it. A
smaller one may be a thing itself, or two: the faces of a thing have steps between them, too (`two_in_one.py`)."""
_TWO = 0.002
"""Share of the picture from which on a region may be two things."""
_TIMES = 3.0
"""By so much what is behind it must be larger."""
_ANY_STEP = -1.0
"""Score from which on a part of a small region may be a thing: outlines say more."""
_REACH, _AROUND = 1.5, 15.0
"""How far from their contact the flow of both is looked at: times the side of the smaller one, and pixels."""
_FEW_INSIDE, _FEW_BEHIND = 3, 4
"""Superpixels with flow that there must be, of the smaller one and of the larger one."""
_HALO = 0.1
"""What the flow of superpixels behind the outline counts: it is blurred there, and that of the thing in front."""
_STIFF = 1.0
"""Pixels, a hundred pixels from where the two touch, that speak against a flow that grows from place to place."""
_ROUNDS = 4
_SPREAD, _LEAST_NOISE = 0.6, 0.02
"""Scale of the residuals for the robust fits, times their median, and at least so many pixels."""
_NOISE = 0.1
"""Pixels by which flow errs without showing it."""
_TEXTURE = 0.3
"""Gradient, in units of Lab per pixel, that is added to that of an outline."""
_TOLD = 1.5
"""Score from which on a thing is told apart."""
_BONUS, _ALIKE, _SAME = 1.5, 0.4, 0.8
"""What is added to the score of what was carried as a track of its own, in full from the second IoU with the carried
mask on, nothing below the first."""
_ALL_OF_IT = 0.7
"""IoU with a carried mask from which on a part is that track, not a part of it."""
_HOPELESS = 3.0
"""The most that a step is thought to add to a score: what is too far below is not looked at."""
_SURE, _SUREST = 2.0, 3.0
"""Firmness of what is just told apart, and the excess of the score up to which it grows."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Nodes of a hierarchy that may be things in front of the rest of their region of the cut, K of them.

    area: (K,) pixels. score: (K,), the logarithm of: the step of the flow along the contact, in pixels; the same as a
    multiple of what the flow errs; how strong an edge runs there; how far from one the colours are, as in
    `RegionHierarchy.margins`; and the roundness of the outline. Of parts of small regions, how far they are above what
    makes them things by themselves (`two_in_one.py`), from the same value on. leaves: of each, its superpixels. rests:
    those of the rest of its region if that is small, or None. followed: those parts of small regions, to be told in the
    next frame.
    """

    area: Floats
    score: Floats
    leaves: list[Ints]
    rests: list[Ints | None]
    followed: Followed | None

    @staticmethod
    def of(
        graph: RegionGraph,
        hierarchy: RegionHierarchy,
        cut: Ints,
        flow: npt.NDArray[np.float32],
        visible: npt.NDArray[np.bool_],
        followed: Followed | None = None,
        in_small: bool = True,
    ) -> Parts:
        """flow: (H, W, 2) towards the previous frame; visible: (H, W), where it is believed; cut: (S,); followed: of
        the previous frame; in_small: whether to look for parts in small regions, too."""
        order, start, count = leaves_in_order(hierarchy.children)
        behind, inside, score, edges, end = _likely(
            hierarchy.children,
            hierarchy.area,
            hierarchy.margins(),
            count,
            cut,
            graph.edges,
            graph.boundary,
            graph.contrast,
        )
        pairs = behind, inside, order, start, count, edges, end
        step, noise = _steps(*pairs, *_superpixel_flow(graph.labels, graph.area, flow, visible))
        score += 2 * np.log(np.maximum(step, 1e-6)) - np.log(noise + _NOISE)
        leaves = [order[start[n] : start[n] + count[n]] for n in inside]
        region = np.bincount(cut, graph.area)[cut]
        small = np.array([region[part[0]] < _LARGE * graph.labels.size for part in leaves], bool)
        things = np.flatnonzero(~small & (score + _BONUS >= _TOLD))
        maybe = np.flatnonzero(small & (score >= _ANY_STEP) & in_small)
        found = suspects(graph, cut, [leaves[n] for n in maybe], score[maybe])
        found, odds, followed = judged(graph, found, followed, flow, visible)
        score = np.concatenate([score[things], _TOLD + odds - SURE])
        leaves = [leaves[n] for n in things] + [suspect.leaves for suspect in found]
        rests = [*[None] * len(things), *[suspect.rest for suspect in found]]
        area = np.array([graph.area[part].sum() for part in leaves], np.float64)
        return Parts(area, score, leaves, rests, followed)

    def told_apart(self, votes: Floats) -> tuple[list[Ints], Floats]:
        """The superpixels of each part that is told apart, none in two of them, and how firm each is.

        votes: (S, N), pixels of each superpixel that were carried from each track: what was told apart once and is
        carried since then needs a smaller step, for the camera may move little in this frame. A part of a small region
        that was carried from another track than the rest is apart already: it is told if it is all of that track.
        """
        held = np.array([votes[part].sum(axis=0) for part in self.leaves]).reshape(len(self.leaves), votes.shape[1])
        alike = agreement(held, self.area, votes.sum(axis=0)).max(axis=1, initial=0)
        score = self.score + _BONUS * np.clip((alike - _ALIKE) / (_SAME - _ALIKE), 0, 1) - _TOLD
        for n, rest in enumerate(self.rests):
            if rest is not None and alike[n] < _ALL_OF_IT and _of_two_tracks(held[n], votes[rest].sum(axis=0)):
                score[n] = -np.inf
        taken = np.zeros(len(votes), bool)
        parts, firmness = [], []
        for n in np.argsort(-score, kind="stable"):
            if score[n] >= 0 and not taken[self.leaves[n]].any():
                taken[self.leaves[n]] = True
                parts.append(self.leaves[n])
                firmness.append(_SURE * np.exp(min(score[n], _SUREST)))
        return parts, np.array(firmness)


def _of_two_tracks(one: Floats, other: Floats) -> bool:
    """Whether two were carried from tracks, most of each from another one. one, other: (N,), pixels from each."""
    return bool(one.any() and other.any() and one.argmax() != other.argmax())


def with_parts(cut: Ints, parts: list[Ints]) -> Ints:
    """A cut (S,) in which the superpixels of each part are a region of their own; regions are numbered without gaps."""
    if not parts:
        return cut
    apart = cut.copy()
    for n, part in enumerate(parts):
        apart[part] = int(cut.max()) + 1 + n
    return np.unique(apart, return_inverse=True)[1].ravel().astype(np.int64)


@compiled(
    "Tuple((int64[::1], int64[::1], float64[::1], int32[:, ::1], int64[::1]))(int64[:, ::1], float64[::1],"
    " float64[::1], int64[::1], int64[::1], int32[:, ::1], float64[::1], float64[::1])"
)
def _likely(
    children: Ints,
    area: Floats,
    margins: Floats,
    count: Ints,
    cut: Ints,
    edges: npt.NDArray[np.int32],
    boundary: Floats,
    contrast: Floats,
) -> tuple[Ints, Ints, Floats, npt.NDArray[np.int32], Ints]:
    """Pairs of nodes that are merged within a region of the cut (S,), of which the smaller one may be a thing.

    margins: `RegionHierarchy.margins`. count: of `leaves_in_order`. edges (E, 2), boundary, contrast (E,): as
    `RegionGraph`'s. Returns of K pairs the larger node and the smaller one (K,), their score as far as the picture
    tells (K,), and the edges at which they touch (C, 2), one pair's after the other's, with where each pair's end (K,).
    """
    leaves, merged = len(children) + 1, len(children)
    met = met_in(children, edges)
    contact, strength = np.zeros(merged), np.zeros(merged)
    for e in range(len(edges)):
        contact[met[e] - leaves] += boundary[e]
        strength[met[e] - leaves] += boundary[e] * contrast[e]
    outline = outlines(children, edges, boundary, contact)
    region = in_common(children, cut)
    of_region = np.zeros(leaves)
    for leaf in range(leaves):
        of_region[cut[leaf]] += area[leaf]
    pixels = area[-1]
    pair = np.full(merged, -1)
    behind, inside, score = np.empty(merged, np.int64), np.empty(merged, np.int64), np.empty(merged)
    found = 0
    for n in range(merged):
        large, small = children[n, 0], children[n, 1]
        if area[large] < area[small]:
            large, small = small, large
        if region[leaves + n] < 0 or of_region[region[leaves + n]] < _TWO * pixels:
            continue
        times = _TIMES if of_region[region[leaves + n]] >= _LARGE * pixels else 1.0
        if not _SMALLEST <= area[small] <= _SMALL * pixels or area[large] < times * area[small]:
            continue
        if count[small] < _FEW_INSIDE or count[large] < _FEW_BEHIND:
            continue
        roundness = 4 * np.pi * area[small] / outline[small] ** 2
        told = np.log((strength[n] / contact[n] + _TEXTURE) * max(margins[n], 1e-3) * roundness)
        if told + _HOPELESS + _BONUS >= _TOLD:
            behind[found], inside[found], score[found] = large, small, told
            pair[n] = found
            found += 1
    end = np.zeros(found, np.int64)
    for e in range(len(edges)):
        if pair[met[e] - leaves] >= 0:
            end[pair[met[e] - leaves]] += 1
    end = np.cumsum(end)
    touching = np.empty((end[-1] if found else 0, 2), np.int32)
    place = end.copy()
    for e in range(len(edges)):
        k = pair[met[e] - leaves]
        if k >= 0:
            place[k] -= 1
            touching[place[k]] = edges[e]
    return behind[:found].copy(), inside[:found].copy(), score[:found].copy(), touching, end


@compiled(
    "Tuple((float64[:, ::1], float64[:, ::1], float64[::1]))(int32[:, ::1], float64[::1], float32[:, :, ::1],"
    " bool_[:, ::1])"
)
def _superpixel_flow(
    labels: npt.NDArray[np.int32], area: Floats, flow: npt.NDArray[np.float32], visible: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats]:
    """Of superpixels: centres (S, 2), mean flow (S, 2), and how many pixels of it are believed (S,), 0 if too few."""
    at, mean, weight = np.zeros((len(area), 2)), np.zeros((len(area), 2)), np.zeros(len(area))
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            at[label, 0] += x
            at[label, 1] += y
            if visible[y, x]:
                mean[label, 0] += flow[y, x, 0]
                mean[label, 1] += flow[y, x, 1]
                weight[label] += 1
    for n in range(len(area)):
        for c in range(2):
            at[n, c] /= area[n]
            mean[n, c] /= max(weight[n], 1.0)
        if 2 * weight[n] < area[n]:
            weight[n] = 0.0
    return at, mean, weight


@compiled(
    "Tuple((float64[:, ::1], float64))(float64[:, ::1], float64[:, ::1], float64[::1], float64[::1], float64[:, ::1])"
)
def _affine(at: Floats, flow: Floats, weight: Floats, origin: Floats, prior: Floats) -> tuple[Floats, float]:
    """The affine flow (3, 2) that fits flow (N, 2) at places (N, 2) best, and the median residual, in pixels.

    Its rows are the flow at the origin (2,), and by how much it grows over a hundred pixels in x and in y; these stay
    near the prior's (3, 2) where little speaks for others. Outliers count little (Geman and McClure).
    """
    number = len(at)
    model, counts, residual, middle = prior.copy(), weight.copy(), np.empty(number), 0.0
    for _ in range(_ROUNDS):
        normal, target = np.zeros((3, 3)), np.zeros((3, 2))
        normal[0, 0] = 1e-9
        normal[1, 1] = normal[2, 2] = _STIFF
        for n in range(number):
            x, y = (at[n, 0] - origin[0]) / 100, (at[n, 1] - origin[1]) / 100
            normal[0, 0] += counts[n]
            normal[0, 1] += counts[n] * x
            normal[0, 2] += counts[n] * y
            normal[1, 1] += counts[n] * x * x
            normal[1, 2] += counts[n] * x * y
            normal[2, 2] += counts[n] * y * y
            for c in range(2):
                left = counts[n] * (flow[n, c] - prior[0, c] - prior[1, c] * x - prior[2, c] * y)
                target[0, c] += left
                target[1, c] += left * x
                target[2, c] += left * y
        solve(normal, target)
        model = prior + target
        for n in range(number):
            x, y = (at[n, 0] - origin[0]) / 100, (at[n, 1] - origin[1]) / 100
            across = flow[n, 0] - model[0, 0] - model[1, 0] * x - model[2, 0] * y
            down = flow[n, 1] - model[0, 1] - model[1, 1] * x - model[2, 1] * y
            residual[n] = np.sqrt(across * across + down * down)
        middle = float(np.median(residual))
        scale = max(middle * _SPREAD, _LEAST_NOISE)
        for n in range(number):
            counts[n] = weight[n] * robust_weight(residual[n], scale)
    return model, middle


@compiled(
    "Tuple((float64[::1], float64[::1]))(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int32[:, ::1],"
    " int64[::1], float64[:, ::1], float64[:, ::1], float64[::1])"
)
def _steps(
    behind: Ints,
    inside: Ints,
    order: Ints,
    start: Ints,
    count: Ints,
    edges: npt.NDArray[np.int32],
    end: Ints,
    at: Floats,
    flow: Floats,
    weight: Floats,
) -> tuple[Floats, Floats]:
    """Of K pairs of nodes that are merged, behind and inside (K,): the step of the flow from one to the other, in
    pixels, the median along their contact, -1 where there is too little flow; and the sum of both median residuals.

    order, start, count: `leaves_in_order`. edges: (E, 2), those of pair k end before end[k]. at, flow, weight:
    of the leaves, (S, 2), (S, 2), (S,).
    """
    steps, noise = np.full(len(behind), -1.0), np.zeros(len(behind))
    part = np.zeros(len(weight), np.int64)
    origin = np.empty(2)
    for k in range(len(behind)):
        begin = end[k - 1] if k else 0
        contacts = end[k] - begin
        for n in range(start[inside[k]], start[inside[k]] + count[inside[k]]):
            part[order[n]] = k + 1
        # Where the two touch, and the superpixels behind that lie there.
        middle, beside = np.empty((contacts, 2)), np.empty(contacts, np.int64)
        for e in range(contacts):
            one, other = edges[begin + e, 0], edges[begin + e, 1]
            middle[e] = (at[one] + at[other]) / 2
            beside[e] = other if part[one] == k + 1 else one
        pixels = 0.0
        for n in range(start[inside[k]], start[inside[k]] + count[inside[k]]):
            pixels += weight[order[n]]
        reach = _REACH * np.sqrt(pixels) + _AROUND
        left, right = middle[:, 0].min() - reach, middle[:, 0].max() + reach
        top, bottom = middle[:, 1].min() - reach, middle[:, 1].max() + reach
        origin[0], origin[1] = middle[:, 0].mean(), middle[:, 1].mean()
        for e in range(contacts):
            part[beside[e]] = -(k + 1)
        found = 0
        both = np.empty((count[behind[k]] + count[inside[k]], 5))
        of_inside = 0
        for node in (inside[k], behind[k]):
            for n in range(start[node], start[node] + count[node]):
                leaf = order[n]
                x, y = at[leaf, 0], at[leaf, 1]
                if weight[leaf] > 0 and left <= x <= right and top <= y <= bottom:
                    counts = weight[leaf] * (_HALO if part[leaf] == -(k + 1) else 1.0)
                    both[found, 0], both[found, 1], both[found, 4] = x, y, counts
                    both[found, 2], both[found, 3] = flow[leaf, 0], flow[leaf, 1]
                    found += 1
            if node == inside[k]:
                of_inside = found
        if of_inside < _FEW_INSIDE or found - of_inside < _FEW_BEHIND:
            continue
        near, far = both[:of_inside], both[of_inside:found]
        prior = np.zeros((3, 2))
        prior[0, 0], prior[0, 1] = np.median(far[:, 2]), np.median(far[:, 3])
        ground, of_ground = _affine(far[:, :2].copy(), far[:, 2:4].copy(), far[:, 4].copy(), origin, prior)
        prior = ground.copy()
        for c in range(2):
            x, y = (near[:, 0] - origin[0]) / 100, (near[:, 1] - origin[1]) / 100
            prior[0, c] += np.median(near[:, 2 + c] - ground[0, c] - ground[1, c] * x - ground[2, c] * y)
        thing, of_thing = _affine(near[:, :2].copy(), near[:, 2:4].copy(), near[:, 4].copy(), origin, prior)
        apart = np.empty(contacts)
        for e in range(contacts):
            x, y = (middle[e, 0] - origin[0]) / 100, (middle[e, 1] - origin[1]) / 100
            gap = thing[0] - ground[0] + (thing[1] - ground[1]) * x + (thing[2] - ground[2]) * y
            apart[e] = np.sqrt(gap[0] * gap[0] + gap[1] * gap[1])
        steps[k], noise[k] = np.median(apart), of_ground + of_thing
    return steps, noise
