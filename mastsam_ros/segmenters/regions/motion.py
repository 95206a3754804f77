"""What moves on its own: the motion that a rigid scene does not explain, gathered over frames.

All of it is worked out in cells of 2 x 2 pixels, lengths too: flow is no sharper than that, and in the end it is the
means over superpixels that count.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.geometry.flow_fields import led_to
from mastsam_ros.segmenters.regions.dominant_motion import (
    GRID,
    MIN_NOISE,
    EpipolarMotion,
    fit_epipolar,
    fit_quadratic,
    weighted_median,
)
from mastsam_ros.segmenters.regions.foreground import Foreground, colour_bins
from mastsam_ros.segmenters.regions.parallax import ParallaxGate, beyond_all, certain_pixels
from mastsam_ros.segmenters.regions.superpixels import RegionGraph, gradient_magnitude, in_cells

TEXTURE_WINDOW = 9
TEXTURE_NOISE = 0.25
"""Slopes of L per pixel that noise and compression make on a blank wall."""
SIGMAS = 3.0
"""Residuals this many times the background's spread speak for neither side."""
FLOOR = 0.15
"""Residuals below this, cells, are never called motion."""
RELATIVE_ERROR = 0.03
"""Flow errors grow with the flow; SIGMAS times this share of it is not called motion either."""
OBJECT_SHARE = 0.5
"""Inside the previous mask, half of the median residual is the threshold: the halo of a fast body is not body."""
FEW_PIXELS = 25
VOTE_WEIGHT = 0.5
VOTE_SCALES = (0.7, 2.0)
"""Motion boundaries are where the flow's slope is above ln 2 / scale."""
HIDDEN_WEIGHT = 0.3
"""Flow that fails the forward-backward check is guessed: its evidence counts less."""
RELUCTANCE = 0.2
"""Evidence against motion that the deep reading starts from, and all it has where the flow is not certain."""


@dataclass(frozen=True, eq=False)
class MotionEvidence:
    """What moves on its own in one frame.

    evidence: (S,) float64 per superpixel, > 0 for own motion, about -7..7. moving: (S,) bool after the cut.
    components: (S,) int32, 1..count for each connected moving body above the minimum size, else 0.
    labels: (H, W) int32, the components with their outline smoothed at pixel level.
    """

    evidence: npt.NDArray[np.float64]
    moving: npt.NDArray[np.bool_]
    components: npt.NDArray[np.int32]
    count: int
    labels: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Cues:
    """What one picture alone tells the motion layer.

    colours: (S, 3) float64, mean Lab of the superpixels. Of each cell, (H // 2, W // 2): bins, int32, see
    `colour_bins`, and texture, float32, how far the picture around it pins the flow down, in [0, 1): 0 on blank walls.
    """

    colours: npt.NDArray[np.float64]
    bins: npt.NDArray[np.int32]
    texture: npt.NDArray[np.float32]

    @staticmethod
    def of(graph: RegionGraph, lab: npt.NDArray[np.float32]) -> Cues:
        """lab: (H, W, 3), `compressed_lab` of the smoothed image."""
        return Cues(graph.mean(lab), colour_bins(np.ascontiguousarray(in_cells(lab))), in_cells(_texture(lab)))


class MotionLayer:
    """Finds what moves on its own; its state goes from frame to frame.

    Two readings of the picture: the flat one calls motion what the dominant motion does not explain; the deep one, at
    work once the scene has shown parallax, calls motion what leaves the epipolar lines, or leads along them to beyond
    all that is at rest. The parallax gate says which of them to believe.
    """

    def __init__(self, min_share: float = 0.0015) -> None:
        """min_share: smaller moving bodies are dropped, share of the image's pixels."""
        self._min_share = min_share
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next frame has no past."""
        self._shape: tuple[int, ...] = ()
        self._flat, self._deep = Foreground(), Foreground(colour_suffices=False)
        self._gate = ParallaxGate()
        self._epipolar: EpipolarMotion | None = None

    def update(
        self,
        graph: RegionGraph,
        cues: Cues,
        flow_back: npt.NDArray[np.float32],
        visible: npt.NDArray[np.bool_],
    ) -> MotionEvidence:
        """Evidence for the current frame.

        flow_back: (H, W, 2) pixels, current -> previous. visible: (H, W), pixels that the previous frame saw too.
        """
        height, width = graph.labels.shape
        if self._shape != (height, width):
            self.reset()
            self._shape = (height, width)
        flow_back, visible = _halved(flow_back), in_cells(visible)
        flow = _median_filtered(flow_back)
        trust = visible * cues.texture
        colours, bins = cues.colours, cues.bins
        came_from = led_to(flow_back)
        self._flat.carry(came_from)
        likely_rest = self._flat.background_share(*visible.shape)
        background = fit_quadratic(flow, trust * likely_rest + 1e-3)
        residual = flow - background.flow
        size = lengths(residual)
        observed = _evidence(size, background.noise, background.flow, self._flat.mask)
        observed += VOTE_WEIGHT * (2 * _inside_votes(flow) - 1)
        observed *= np.where(visible, np.float32(1), np.float32(HIDDEN_WEIGHT))
        total, moving = self._flat.update(graph, colours, bins, observed)
        components, count = self._components(graph, moving)
        if not count and not self._gate.shows_parallax:
            return self._answer(graph, total, moving)

        certain = certain_pixels(trust)
        self._deep.carry(came_from)
        likely_rest = self._deep.background_share(*visible.shape)
        self._epipolar = fit_epipolar(flow, trust, self._epipolar)
        lines, bodies = self._epipolar.explain(flow), components.take(graph.cells)
        beyond = beyond_all(lines, certain, bodies, self._deep.mask)
        at_rest = self._gate.at_rest(bodies, count, flow, size, lines.error, beyond, certain)
        if not self._gate.shows_parallax:
            self._deep = Foreground(colour_suffices=False)
            return self._answer(graph, total, moving & ~np.append(False, at_rest)[components])
        noise = _noise(lines.error, likely_rest * trust)
        observed = _evidence(np.maximum(lines.error, beyond), noise, flow, self._deep.mask)
        observed = certain * observed - RELUCTANCE
        total, moving = self._deep.update(graph, colours, bins, observed)
        return self._answer(graph, total, moving)

    def _answer(
        self, graph: RegionGraph, evidence: npt.NDArray[np.float64], moving: npt.NDArray[np.bool_]
    ) -> MotionEvidence:
        components, count = self._components(graph, moving)
        labels = _smooth_outlines(components.take(graph.labels))
        return MotionEvidence(evidence, components > 0, components, count, labels)

    def _components(self, graph: RegionGraph, moving: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], int]:
        """(S,) int32, 1..count for each connected group of moving superpixels that is large enough, and the count."""
        number, group = graph.components(moving)
        area = np.bincount(group, graph.area, number)
        kept = np.zeros(number, bool)
        kept[group[moving]] = True
        kept &= area >= self._min_share * graph.area.sum()
        return (np.cumsum(kept, dtype=np.int32) * kept)[group], int(kept.sum())


def lengths(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(H, W) of vectors (H, W, 2)."""
    x, y = vectors[..., 0], vectors[..., 1]
    return np.sqrt(x * x + y * y)


def _noise(size: npt.NDArray[np.float32], weight: npt.NDArray) -> float:
    """Robust standard deviation of residuals `size` (H, W)."""
    some = (slice(None, None, GRID), slice(None, None, GRID))
    values, weights = size[some].ravel().astype(np.float64), weight[some].ravel() + np.float64(1e-6)
    return max(1.4826 * weighted_median(values, weights), MIN_NOISE)


def _evidence(
    size: npt.NDArray[np.float32],
    noise: float,
    background: npt.NDArray[np.float32],
    previous: npt.NDArray[np.bool_] | None,
) -> npt.NDArray[np.float32]:
    """-1 where nothing is left of the motion, towards 1 where residuals (H, W) are far above the expected ones."""
    threshold = background[..., 0] ** 2 + background[..., 1] ** 2
    threshold *= (SIGMAS * RELATIVE_ERROR) ** 2
    threshold += (SIGMAS * noise) ** 2 + FLOOR**2
    if previous is not None and np.count_nonzero(previous) > FEW_PIXELS:
        threshold = np.maximum(threshold, (OBJECT_SHARE * np.median(size[previous])) ** 2)
    return 1 - 2 * np.exp(-(size**2) / threshold)


def _halved(flow: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The flow (H, W, 2) in cells, (H // 2, W // 2, 2)."""
    height, width = flow.shape[0] // 2, flow.shape[1] // 2
    return cv2.resize(flow[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA) / 2


def _median_filtered(flow: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.dstack([cv2.medianBlur(np.ascontiguousarray(flow[..., axis]), 3) for axis in (0, 1)])


def _texture(lab: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """As `Cues.texture`, of every pixel."""
    energy = cv2.blur(gradient_magnitude(lab[..., 0]) ** 2, (TEXTURE_WINDOW, TEXTURE_WINDOW))
    return energy / (energy + TEXTURE_NOISE**2)


def _inside_votes(flow: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Share of 8 rays that cross motion boundaries an odd number of times, (H, W) float32 in [0, 1].

    After Papazoglou and Ferrari, Fast object segmentation in unconstrained video, ICCV 2013.
    """
    across, down = (cv2.Sobel(flow, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    squared = across * across + down * down
    squared = squared[..., 0] + squared[..., 1]
    boundary = sum(((squared > (np.log(2) / scale) ** 2).astype(np.uint8) << n) for n, scale in enumerate(VOTE_SCALES))
    return _odd_crossings(boundary).astype(np.float32) / np.float32(8 * len(VOTE_SCALES))


@compiled("int32[:, ::1](uint8[:, ::1])")
def _odd_crossings(boundary: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """For each pixel (H, W), how many of the 8 rays to the border cross an odd number of boundaries, each counted
    where it starts. Every bit of `boundary` is a picture of its own; their votes are added up."""
    height, width = boundary.shape
    votes = np.zeros((height, width), np.int32)
    odd = np.zeros((4, height + 1, width + 2), np.uint8)
    # From the upper left to the lower right: rays that come from the left and from the three pixels above; then back.
    for turn in range(2):
        odd[:] = 0
        for row in range(height):
            y = height - 1 - row if turn else row
            for column in range(width):
                x = width - 1 - column if turn else column
                here = boundary[y, x]
                for ray in range(4):
                    back, side = (0, -1) if ray == 3 else (1, ray - 1)
                    by, bx = row - back, column + side
                    before = 0
                    if by >= 0 and 0 <= bx < width:
                        before = boundary[height - 1 - by, width - 1 - bx] if turn else boundary[by, bx]
                    crossed = odd[ray, by + 1, bx + 1] ^ (here & ~before)
                    odd[ray, row + 1, column + 1] = crossed
                    while crossed:
                        votes[y, x] += crossed & 1
                        crossed >>= 1
    return votes


def _smooth_outlines(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return cv2.medianBlur(np.minimum(labels, 255).astype(np.uint8), 5).astype(np.int32)
