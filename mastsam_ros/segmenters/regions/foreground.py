"""A foreground gathered over frames: decaying evidence per cell, colour models, and a minimum cut over superpixels.

A pixel here is one of the motion layer's cells, 2 x 2 of the picture's.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.segmenters.regions.minimum_cut import source_side
from mastsam_ros.segmenters.regions.superpixels import RegionGraph

DECAY = 0.6
LIMIT = 4.0
"""Evidence is forgotten fast and bounded: with slower forgetting the flow's halo leaves a trail."""
FEEDBACK = 0.3
"""What the cut decided stays a little more likely."""
COLOUR_WEIGHT = 0.8
COLOUR_LIMIT = 4.0
COLOUR_DECAY = 0.9
SURE_EVIDENCE = 0.5 * LIMIT
"""Pixels with less evidence of their own do not teach the object's colours: water and shadows drift in that way."""
SURENESS = 10
"""... and of the others, those count most that show the most: half the weight at 93 % of it."""
RING = 0.06
RING_SHARE = 0.3
"""The surroundings of the object, this share of the picture's width, are this share of the background's colours."""
FEW_PIXELS = 50
"""Objects smaller than this teach their colours more slowly."""
CUT_WEIGHT = 5.0
ALIKE_FLOOR = 0.035
"""An outline has a price even along the strongest edge."""
CUT_PRECISION = 100
"""Max-flow takes integers: capacities are rounded to a hundredth."""
MAX_SHARE = 0.6
"""More than this share of the picture is not all foreground: the cut has run over, the best evidence stays."""
MIN_SUPPORT = 0.25
"""Share of a body that has to show evidence of its own where colour does not suffice."""
BINS = 16


class Foreground:
    """Log odds that each pixel is foreground, carried along the flow, and the colours of both sides.

    evidence: (H, W) float32, and mask: (H, W) bool, of the frame last seen, or None before the first one.
    After `carry` they are those of the previous frame where the current one shows them.
    """

    def __init__(self, colour_suffices: bool = True) -> None:
        """colour_suffices: whether a body stays that no longer shows any evidence but its colours."""
        self._colour_suffices = colour_suffices
        self.evidence: npt.NDArray[np.float32] | None = None
        self.mask: npt.NDArray[np.bool_] | None = None
        self._inside = np.zeros(BINS**3)
        self._outside = np.zeros(BINS**3)

    def carry(self, came_from: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]) -> None:
        """Brings what is known to the current frame. came_from: x and y (H, W), where each pixel was, see `led_to`."""
        if self.evidence is None or self.mask is None:
            return
        self.evidence, mask = (
            cv2.remap(image, *came_from, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for image in (self.evidence, self.mask.astype(np.float32))
        )
        self.mask = mask > 0.5

    def background_share(self, height: int, width: int) -> npt.NDArray[np.float32]:
        """(H, W) in 0..1: how likely each pixel is background."""
        log_odds = _centre_prior(height, width) if self.evidence is None else self.evidence
        return np.asarray(1 / (1 + np.exp(log_odds)), np.float32)

    def update(
        self,
        graph: RegionGraph,
        colours: npt.NDArray[np.float64],
        bins: npt.NDArray[np.int32],
        observed: npt.NDArray[np.float32],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Adds this frame's evidence (H, W), > 0 for foreground; gives total evidence (S,) and the cut (S,) bool.

        colours: (S, 3) mean Lab of the superpixels. bins: (H, W), see `colour_bins`.
        """
        evidence = observed if self.evidence is None else DECAY * self.evidence + observed
        evidence = np.clip(evidence, -LIMIT, LIMIT)
        shown = graph.mean_of_cells(evidence)
        total = shown.copy()
        if self._inside.any():
            total += COLOUR_WEIGHT * graph.mean_of_cells(_log_ratio(self._inside, self._outside).take(bins))
        chosen = _cut(graph, colours, total)
        if graph.area[chosen].sum() > MAX_SHARE * graph.area.sum():
            chosen &= total > np.quantile(total, 1 - MAX_SHARE)
        if not self._colour_suffices:
            number, group = graph.components(chosen)
            support = np.bincount(group, graph.area * (shown > 0), number) / np.bincount(group, graph.area, number)
            chosen &= support[group] > MIN_SUPPORT
        self.mask = chosen.take(graph.cells)
        feedback = np.where(self.mask, np.float32(FEEDBACK), np.float32(-FEEDBACK))
        self.evidence = np.clip(evidence + feedback, -LIMIT, LIMIT).astype(np.float32)
        self._learn(bins, self.mask, self.evidence)
        return total, chosen

    def _learn(
        self, bins: npt.NDArray[np.int32], mask: npt.NDArray[np.bool_], evidence: npt.NDArray[np.float32]
    ) -> None:
        outside = _shares(bins[~mask])
        sure = mask & (evidence > SURE_EVIDENCE)
        if sure.any():
            self._inside *= COLOUR_DECAY
            weight = (evidence[sure] / evidence[sure].max()) ** SURENESS
            self._inside += np.bincount(bins[sure], weight, BINS**3) / max(weight.sum(), FEW_PIXELS)
            around = ~mask & (_spread(mask, round(RING * mask.shape[1])) > 0)
            outside = (1 - RING_SHARE) * outside + RING_SHARE * _shares(bins[around])
        self._outside *= COLOUR_DECAY
        self._outside += outside


@compiled("int32[:, ::1](float32[:, :, ::1])")
def colour_bins(lab: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Cell of the 16 x 16 x 16 colour histogram, (H, W) int32. lab: (H, W, 3), see `compressed_lab`."""
    height, width = lab.shape[:2]
    bins = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            cell = 0
            for c in range(3):
                lowest, size = (0.0, 6.26) if c == 0 else (80.0, 6.0)
                place = (lab[y, x, c] - np.float32(lowest)) * (np.float32(1) / np.float32(size))
                cell = cell * BINS + int(min(max(place, np.float32(0)), np.float32(BINS - 1)))
            bins[y, x] = cell
    return bins


@lru_cache(maxsize=4)
def _centre_prior(height: int, width: int) -> npt.NDArray[np.float32]:
    """Log odds for an object before anything is known: what moves on its own is seldom cut off by the border."""
    y = np.minimum(np.arange(height), height - 1 - np.arange(height)) / height
    x = np.minimum(np.arange(width), width - 1 - np.arange(width)) / width
    inward = np.minimum(np.minimum(x[None, :], y[:, None]) * 2.4 + 0.2, 1)
    share = 0.7 * inward
    return np.log(share / (1 - share)).astype(np.float32)


def _shares(bins: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Share of the pixels in each colour cell, 0 for no pixels."""
    return np.bincount(bins, minlength=BINS**3) / max(len(bins), 1)


def _spread(mask: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.uint8]:
    """The mask (H, W), grown by `reach` pixels in x and in y."""
    row = np.ones((1, 2 * reach + 1), np.uint8)
    return cv2.dilate(cv2.dilate(mask.astype(np.uint8), row), row.T)


def _log_ratio(inside: npt.NDArray[np.float64], outside: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Log odds of object against background for each colour cell, bounded."""
    densities = []
    for histogram in (inside, outside):
        cube = histogram.reshape(BINS, BINS, BINS)
        for axis in range(3):
            before = np.take(cube, np.maximum(np.arange(BINS) - 1, 0), axis)
            after = np.take(cube, np.minimum(np.arange(BINS) + 1, BINS - 1), axis)
            cube = 0.5 * cube + 0.25 * (before + after)
        cube = cube.ravel() + 0.025 * cube.mean()
        densities.append(cube / cube.sum())
    return np.clip(np.log(densities[0] / densities[1]), -COLOUR_LIMIT, COLOUR_LIMIT)


def _cut(graph: RegionGraph, colours: npt.NDArray, evidence: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Superpixels on the object's side of the minimum cut: evidence against contacts between like colours."""
    first, second = graph.edges.T
    distance = ((colours[first] - colours[second]) ** 2).sum(1)
    # Alike on both sides, and no edge between them; a graph without contrasts has all of them equal.
    edge = (graph.contrast + 1e-6) / (graph.contrast.mean() + 1e-6)
    alike = np.exp(-distance / (2 * distance.mean() + 1e-6) - edge)
    contacts = CUT_WEIGHT * graph.boundary * (alike + ALIKE_FLOOR)
    spacing = np.sqrt(graph.area.mean())
    links = np.round(CUT_PRECISION * contacts).astype(np.int64)
    terminal = np.round(CUT_PRECISION * evidence * graph.area / spacing).astype(np.int64)
    return source_side(graph.count, graph.edges, links, terminal)
