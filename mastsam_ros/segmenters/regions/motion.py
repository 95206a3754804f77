"""What moves on its own: residual motion against the rigid scene, gathered over frames and cut out
along superpixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from mastsam_ros.segmenters.regions.dominant_motion import fit_quadratic
from mastsam_ros.segmenters.regions.parallax import ParallaxGate
from mastsam_ros.segmenters.regions.superpixels import RegionGraph, gradient_magnitude

TEXTURE_WINDOW = 9
TEXTURE_NOISE = 0.25
"""Slopes of L per pixel that noise and compression make on a blank wall."""
SIGMAS = 3.0
"""Residuals this many times the background's spread speak for neither side."""
FLOOR_PX = 0.3
"""Residuals below this are never called motion."""
RELATIVE_ERROR = 0.03
"""Flow errors grow with the flow; SIGMAS times this share of it is not called motion either."""
OBJECT_SHARE = 0.5
"""Inside the previous mask, half of the median residual is the threshold: slow limbs of a fast body stay."""
VOTE_WEIGHT = 0.5
VOTE_SCALES = (0.7, 2.0)
HIDDEN_WEIGHT = 0.3
"""Flow that fails the forward-backward check is guessed: its evidence counts less."""
DECAY = 0.6
LIMIT = 4.0
"""Evidence is forgotten fast and bounded: with slower forgetting the flow's halo leaves a trail."""
FEEDBACK = 0.3
COLOUR_WEIGHT = 1.0
COLOUR_LIMIT = 3.0
COLOUR_DECAY = 0.9
CUT_WEIGHT = 2.0
CUT_PRECISION = 100
"""Max-flow takes integers: capacities are rounded to a hundredth."""
MAX_SHARE = 0.6
BINS = 16


@dataclass(frozen=True, eq=False)
class MotionEvidence:
    """What moves on its own in one frame.

    evidence: (S,) float64 per superpixel, > 0 for own motion, about -7..7. moving: (S,) bool after the cut.
    components: (S,) int32, 1..count for each connected moving body above the minimum size, else 0.
    labels: (H, W) int32, the components with their outline smoothed at pixel level. residual: (S, 2)
    float64, mean flow (current -> previous) that the background's motion does not explain, pixels.
    """

    evidence: npt.NDArray[np.float64]
    moving: npt.NDArray[np.bool_]
    components: npt.NDArray[np.int32]
    count: int
    labels: npt.NDArray[np.int32]
    residual: npt.NDArray[np.float64]


class MotionLayer:
    """Finds what moves on its own; its state goes from frame to frame."""

    def __init__(self, min_share: float = 0.0015) -> None:
        """min_share: smaller moving bodies are dropped, share of the image's pixels."""
        self._min_share = min_share
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next frame has no past."""
        self._evidence: npt.NDArray[np.float32] | None = None
        self._mask: npt.NDArray[np.bool_] | None = None
        self._object_colours = np.zeros(BINS**3)
        self._background_colours = np.zeros(BINS**3)
        self._gate = ParallaxGate()

    def update(
        self,
        graph: RegionGraph,
        lab: npt.NDArray[np.float32],
        flow_back: npt.NDArray[np.float32],
        visible: npt.NDArray[np.bool_],
        rigid_flow_back: npt.NDArray[np.float32] | None = None,
    ) -> MotionEvidence:
        """Evidence for the current frame.

        lab: (H, W, 3), see `compressed_lab`. flow_back: (H, W, 2) pixels, current -> previous. visible:
        (H, W), pixels that the previous frame saw too. rigid_flow_back: (H, W, 2), the flow of a scene at
        rest, from depth and camera motion (NaN where unknown); replaces the background model.
        """
        height, width = graph.labels.shape
        flow = _median_filtered(flow_back)
        if self._evidence is None or self._evidence.shape != (height, width):
            self.reset()
            prior, previous = _centre_prior(height, width), None
            carried = np.zeros((height, width), np.float32)
        else:
            carried = _warped(self._evidence, flow_back)
            prior = carried
            previous = _warped(self._mask.astype(np.float32), flow_back) > 0.5
        trust = visible * _texture(lab)
        weight = trust / (1 + np.exp(prior)) + 1e-3
        background = fit_quadratic(flow, weight)
        residual = flow - background.flow
        size = np.sqrt((residual**2).sum(2))
        threshold = np.sqrt(
            (SIGMAS * background.noise) ** 2 + (SIGMAS * RELATIVE_ERROR) ** 2 * (background.flow**2).sum(2) + FLOOR_PX**2
        )
        if previous is not None and np.count_nonzero(previous) > 100:
            threshold = np.maximum(threshold, OBJECT_SHARE * np.median(size[previous]))
        observed = 1 - 2 * np.exp(-((size / threshold) ** 2))
        observed += VOTE_WEIGHT * (2 * _inside_votes(flow) - 1)
        observed *= np.where(visible, 1, HIDDEN_WEIGHT)
        evidence = np.clip(DECAY * carried + observed, -LIMIT, LIMIT)

        bins = _colour_bins(lab)
        total = graph.mean(evidence)
        if self._object_colours.any():
            ratio = _log_ratio(self._object_colours, self._background_colours)
            total += COLOUR_WEIGHT * graph.mean(ratio[bins])
        moving = _cut(graph, graph.mean(lab), total)
        if graph.area[moving].sum() > MAX_SHARE * graph.area.sum():
            moving &= total > np.quantile(total, 1 - MAX_SHARE)
        mask = moving[graph.labels]
        self._evidence = np.clip(evidence + np.where(mask, FEEDBACK, -FEEDBACK), -LIMIT, LIMIT).astype(np.float32)
        self._mask = mask
        self._learn_colours(bins, mask)

        components, count = self._bodies(graph, moving)
        at_rest = self._gate.at_rest(components[graph.labels], count, flow, size, trust)
        kept = np.concatenate([[False], ~at_rest])
        components, count = (np.cumsum(kept, dtype=np.int32) * kept)[components], int(kept.sum())
        return MotionEvidence(
            total, moving, components, count, _smooth_outlines(components[graph.labels]), graph.mean(residual)
        )

    def _learn_colours(self, bins: npt.NDArray[np.int32], mask: npt.NDArray[np.bool_]) -> None:
        inside = np.count_nonzero(mask)
        if inside > 30:
            seen = np.bincount(bins[mask], minlength=BINS**3) / inside
            self._object_colours = COLOUR_DECAY * self._object_colours + seen * min(1, inside / 200)
        seen = np.bincount(bins[~mask], minlength=BINS**3) / max(mask.size - inside, 1)
        self._background_colours = COLOUR_DECAY * self._background_colours + seen

    def _bodies(self, graph: RegionGraph, moving: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], int]:
        number, group = graph.components(moving)
        area = np.bincount(group, graph.area, number)
        kept = np.zeros(number, bool)
        kept[group[moving]] = True
        kept &= area >= self._min_share * graph.area.sum()
        index = np.cumsum(kept, dtype=np.int32) * kept
        return index[group].astype(np.int32), int(kept.sum())


def _warped(values: npt.NDArray[np.float32], flow_back: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`values` (H, W) of the previous frame, brought to the current one."""
    height, width = values.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(values, x + flow_back[..., 0], y + flow_back[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _median_filtered(flow: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.dstack([cv2.medianBlur(np.ascontiguousarray(flow[..., axis]), 5) for axis in (0, 1)])


def _texture(lab: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far the picture around each pixel pins the flow down, (H, W) in [0, 1): 0 on blank walls."""
    energy = cv2.blur(gradient_magnitude(lab[..., 0]) ** 2, (TEXTURE_WINDOW, TEXTURE_WINDOW))
    return energy / (energy + TEXTURE_NOISE**2)


def _centre_prior(height: int, width: int) -> npt.NDArray[np.float32]:
    """Log odds for an object before anything is known: what moves on its own is seldom cut off by the border."""
    y = np.minimum(np.arange(height), height - 1 - np.arange(height)) / height
    x = np.minimum(np.arange(width), width - 1 - np.arange(width)) / width
    inward = np.minimum(np.minimum(x[None, :], y[:, None]) * 2.4 + 0.2, 1)
    share = 0.7 * inward
    return np.log(share / (1 - share)).astype(np.float32)


def _inside_votes(flow: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Share of 8 rays that cross motion boundaries an odd number of times, (H, W) float32 in [0, 1].

    After Papazoglou and Ferrari, Fast object segmentation in unconstrained video, ICCV 2013.
    """
    height, width = flow.shape[:2]
    half = cv2.resize(flow, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    steps = np.sqrt(
        (cv2.Sobel(half, cv2.CV_32F, 1, 0, scale=1 / 16) ** 2 + cv2.Sobel(half, cv2.CV_32F, 0, 1, scale=1 / 16) ** 2).sum(2)
    )
    votes = sum(_odd_crossings(1 - np.exp(-sensitivity * steps) > 0.5) for sensitivity in VOTE_SCALES)
    return cv2.resize(votes.astype(np.float32), (width, height)) / (8 * len(VOTE_SCALES))


def _odd_crossings(boundary: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """For each pixel, how many of the 8 rays to the border cross an odd number of boundaries."""
    votes = np.zeros(boundary.shape, np.int32)
    height, width = boundary.shape
    for view, result in ((boundary, votes), (boundary.T, votes.T)):
        result += _odd_down(view) + _odd_down(view[::-1])[::-1]
    for mirror in (slice(None), slice(None, None, -1)):
        # Shearing turns diagonals into columns: rows of a padded array, read back one pixel shorter.
        padded = np.zeros((height, width + height), bool)
        padded[:, :width] = boundary[:, mirror]
        sheared = padded.ravel()[: height * (width + height - 1)].reshape(height, width + height - 1)
        odd = _odd_down(sheared) + _odd_down(sheared[::-1])[::-1]
        back = np.zeros(height * (width + height), np.int32)
        back[: odd.size] = odd.ravel()
        votes += back.reshape(height, width + height)[:, :width][:, mirror]
    return votes


def _odd_down(boundary: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """1 where the ray to the top row has met an odd number of boundaries, each counted where it starts."""
    starts = boundary.astype(np.int32)
    starts[1:] &= ~boundary[:-1]
    return np.cumsum(starts, axis=0, dtype=np.int32) & 1


def _colour_bins(lab: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Cell of the 16 x 16 x 16 colour histogram, (H, W) int32."""
    cells = np.clip((lab - [0, 80, 80]) / [6.26, 6, 6], 0, BINS - 1).astype(np.int32)
    return (cells[..., 0] * BINS + cells[..., 1]) * BINS + cells[..., 2]


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
    contacts = CUT_WEIGHT * graph.boundary * (np.exp(-distance / (2 * distance.mean() + 1e-6)) + 0.05)
    spacing = np.sqrt(graph.area.mean())
    links = np.round(CUT_PRECISION * contacts).astype(np.int32)
    terminal = np.round(CUT_PRECISION * evidence * graph.area / spacing).astype(np.int32)
    inside, outside = np.flatnonzero(terminal > 0), np.flatnonzero(terminal < 0)
    source, sink = graph.count, graph.count + 1
    capacity = csr_matrix(
        (
            np.concatenate([links, links, terminal[inside], -terminal[outside]]),
            (
                np.concatenate([first, second, np.full(len(inside), source), outside]),
                np.concatenate([second, first, inside, np.full(len(outside), sink)]),
            ),
        ),
        shape=(graph.count + 2, graph.count + 2),
    )
    left = capacity - maximum_flow(capacity, source, sink).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    moving = np.zeros(graph.count + 2, bool)
    moving[breadth_first_order(left, source, return_predecessors=False)] = True
    return moving[: graph.count]


def _smooth_outlines(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return cv2.medianBlur(np.minimum(labels, 255).astype(np.uint8), 5).astype(np.int32)
