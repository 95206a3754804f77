"""The embedded default's segmenter: no weights, CPU. Superpixels, a hierarchy of regions, motion and depth evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.device import one_thread
from mastsam_ros.masks import PartitionMasks, look_up
from mastsam_ros.segmenters.regions.bodies import Bodies
from mastsam_ros.segmenters.regions.depth import DepthLayer
from mastsam_ros.segmenters.regions.hierarchy import DescriptionLength, RegionHierarchy
from mastsam_ros.segmenters.regions.motion import Cues, MotionLayer
from mastsam_ros.segmenters.regions.pointed import body_at, regions_at, regions_inside
from mastsam_ros.segmenters.regions.superpixels import (
    RegionGraph,
    build_region_graph,
    compressed_lab,
    gradient_magnitude,
    smoothed,
)
from mastsam_ros.segmenters.regions.votes import agreement, gathered, votes_of
from mastsam_ros.settings import RegionsSettings
from mastsam_ros.types import (
    CandidateMasks,
    Frame,
    Matches,
    PointPrompts,
    SegmentationOrderError,
    Unprompted,
)

_REFERENCE_PIXELS = 640 * 480
"""Costs of outlines and regions are meant for a picture of this size."""
_VOTE = 0.25
"""Share of a superpixel that must have been carried from a track for it to vote."""
_INHERIT = 0.3
"""Share of a region that must have been carried from somewhere for its superpixels without a vote to go to the track
that most of it was carried from: what comes into view beside many parts of one region is none of its own."""
_AGREES = 0.4
"""IoU with a carried mask from which on a region is preferred."""
_SAME = 0.25
"""IoU with a carried mask below which the best region is not that track's any more."""
_HELD = 0.7
"""Share of a carried mask that a region must hold for the mask to be in it."""
_BODY_MAJORITY = 0.5
"""Share of a carried mask inside bodies for the track to be one."""
_SMALLEST_SHARE = 6e-4
"""Regions below this share of the picture are no answer to `everything`."""
_SMALLEST_SIDE = 24
"""Pixels; a smaller picture has too few flow vectors to tell a dominant motion."""
_SCORE_MOVING, _SCORE_DEPTH, _SCORE_REGION, _SCORE_CARRIED = 0.95, 0.85, 0.8, 0.4


@dataclass(frozen=True, eq=False)
class _Still:
    """What one frame shows without the one before: lab, smooth_lab (H, W, 3) of the image and of the smoothed one; the
    superpixels; segments (H, W) int32 that depth sets apart, 0 for the rest, or None without depth.

    follows: whether there is a frame before it. cues: for the motion layer, None where depth tells more.
    """

    frame: Frame
    follows: bool
    lab: npt.NDArray[np.float32]
    smooth_lab: npt.NDArray[np.float32]
    graph: RegionGraph
    segments: npt.NDArray[np.int32] | None
    cues: Cues | None


class RegionSegmenter:
    """Answers prompts with bodies, where motion or depth sets one apart, and with regions of a hierarchy elsewhere.

    Candidates per prompt: the body or the region of the best cut that agrees with the carried mask, and the carried
    mask itself, superpixel by superpixel. Keeps what moves from frame to frame; one object serves one camera.
    """

    masks_suffice: Literal[True] = True

    def __init__(self, settings: RegionsSettings | None = None) -> None:
        self._settings = settings or RegionsSettings()
        self._motion = MotionLayer()
        self._depth = DepthLayer(self._settings)
        self._bodies_over_time = Bodies()
        self._ahead: _Still | None = None
        self._graph: RegionGraph | None = None
        self._hierarchy: RegionHierarchy
        self._bodies: npt.NDArray[np.int32]
        self._body_score = _SCORE_MOVING
        self._cut: npt.NDArray[np.int64]
        self._plain_cut: npt.NDArray[np.int64]
        self._pixels: torch.Tensor

    def look_ahead(self, frame: Frame, follows: bool) -> None:
        """What does not depend on the matches, for the next `set_frame`. follows: whether it will be given any."""
        self._ahead = self._still(frame, follows)

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        """Superpixels, bodies and hierarchy of one frame. Without matches the past is forgotten."""
        settings, still, follows = self._settings, self._ahead, matches is not None
        if still is None or still.frame is not frame or still.follows != follows:
            still = self._still(frame, follows)
        self._ahead = None
        graph, lab, smooth_lab = still.graph, still.lab, still.smooth_lab
        if not follows:
            self._motion.reset()
            self._bodies_over_time.reset()
        self._bodies = self._find_bodies(still, matches)
        self._graph = graph
        # Without torch: threads that it starts here would stay and take turns with the caller's.
        self._pixels = torch.from_numpy(graph.labels.astype(np.int64))
        ratio = frame.image.shape[0] * frame.image.shape[1] / _REFERENCE_PIXELS
        boundary = settings.boundary_cost * np.sqrt(ratio)
        cost = DescriptionLength(settings.noise, boundary, settings.region_cost * settings.boundary_cost * ratio)
        colours = lab
        colours[..., 0] *= settings.lightness_weight
        barrier = graph.mean(self._bodies > 0).round().astype(np.int64) if self._bodies.any() else None
        self._hierarchy = RegionHierarchy(graph, smooth_lab, colours, barrier, cost, settings.contrast_weight)
        self._cut = self._plain_cut = self._hierarchy.optimal_cut()

    @one_thread()
    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        """Two candidates per prompt: masks (N, 2, H, W) bool, scores (N, 2); three where nothing was carried."""
        graph, hierarchy = self._ready(), self._hierarchy
        count = len(prompts)
        if prompts.carried is None:
            return self._pointed(prompts)
        carried = np.ascontiguousarray(prompts.carried.cpu().numpy(), np.int64)
        votes = votes_of(graph.labels, carried, graph.count, count)
        whole = votes.sum(axis=0)
        iou = agreement(hierarchy.accumulate(votes), hierarchy.area, whole)
        trust = np.ones(count) if prompts.confidence is None else prompts.confidence.cpu().numpy()
        # Few regions agree with any track.
        node, track = np.nonzero(iou > _AGREES)
        preferred = np.zeros(len(iou))
        np.maximum.at(preferred, node, (iou[node, track] - _AGREES) / (1 - _AGREES) * trust[track])
        self._cut = hierarchy.optimal_cut(self._settings.prior_weight * hierarchy.boundary_cost() * preferred)
        regions = int(self._cut.max()) + 1
        region_votes = gathered(votes, self._cut, regions)
        region_area = np.bincount(self._cut, graph.area, regions).astype(np.float64)
        region_iou = agreement(region_votes, region_area, whole)
        region_of = np.where(region_iou.max(axis=0) >= _SAME, region_iou.argmax(axis=0), -1)
        voted = self._voted(votes, region_votes, region_area)
        body_of = np.array(_body_of(carried, self._bodies, count), np.int64)
        return self._candidates(voted, region_of, body_of, self._unprompted(votes, body_of))

    @one_thread()
    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        """Every body and every region of the cut, (N, 1, H, W); cut to `region` (H, W) bool if it is given."""
        self._ready()
        # 0 is outside the region, then come the regions of the cut, then the bodies.
        regions = int(self._cut.max()) + 1
        image = look_up(torch.from_numpy(self._cut + 1), self._pixels)
        bodies = torch.from_numpy(self._bodies)
        image = torch.where(bodies > 0, regions + bodies, image)
        if region is not None:
            image = torch.where(region.cpu(), image, 0)
        size = torch.bincount(image.flatten(), minlength=regions + 1)
        size[1 : regions + 1] *= size[1 : regions + 1] >= _SMALLEST_SHARE * image.numel()
        size[0] = 0
        present = torch.nonzero(size).flatten()
        is_body = present > regions
        wanted = torch.cat([present[is_body].flip(0), present[~is_body]])
        scores = torch.where(wanted > regions, self._body_score, _SCORE_REGION)
        return PartitionMasks(image[None], wanted[:, None], scores[:, None])

    def _ready(self) -> RegionGraph:
        if self._graph is None:
            raise SegmentationOrderError("set_frame must be called before predict and everything")
        return self._graph

    def _still(self, frame: Frame, follows: bool) -> _Still:
        if not follows:
            self._depth.reset()
        smooth = smoothed(frame.image)
        lab, smooth_lab = compressed_lab(frame.image), compressed_lab(smooth)
        graph = build_region_graph(smooth, self._settings.superpixel_spacing, gradient_magnitude(smooth_lab))
        segments, cues = None, None
        if frame.depth is not None and frame.K is not None and self._settings.use_depth:
            segments = self._depth.update(frame.depth, frame.K, lab).labels
        elif follows and self._settings.use_motion and min(graph.labels.shape) >= _SMALLEST_SIDE:
            cues = Cues.of(graph, smooth_lab)
        return _Still(frame, follows, lab, smooth_lab, graph, segments, cues)

    def _find_bodies(self, still: _Still, matches: Matches | None) -> npt.NDArray[np.int32]:
        """(H, W) int32: what depth or, without depth, motion sets apart; 0 for the rest."""
        frame = still.frame
        flow_back, visible = _dense_flow_back(matches, frame)
        if still.segments is not None:
            segments = still.segments
            self._body_score = _SCORE_DEPTH
        elif flow_back is not None and visible is not None and still.cues is not None:
            segments = self._motion.update(still.graph, still.cues, flow_back, visible).labels
            self._body_score = _SCORE_MOVING
        else:
            return np.zeros(frame.image.shape[:2], np.int32)
        return self._bodies_over_time.update(segments.astype(np.int32), flow_back)

    def _voted(
        self, votes: npt.NDArray[np.float64], region_votes: npt.NDArray[np.float64], area: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """(S,) track + 1 of every superpixel: its own vote, else its region's; 0 where neither says enough."""
        graph = self._ready()
        best = votes.argmax(axis=1)
        own = np.where(votes[np.arange(graph.count), best] >= _VOTE * graph.area, best + 1, 0)
        leader = region_votes.argmax(axis=1)
        inherited = np.where(region_votes.sum(axis=1) >= _INHERIT * area, leader + 1, 0)
        return np.where(own > 0, own, inherited[self._cut])

    def _unprompted(self, votes: npt.NDArray[np.float64], body_of: npt.NDArray[np.int64]) -> Unprompted:
        """What the cut says that knows of no carried mask; nothing of bodies, which are followed by themselves."""
        regions = int(self._plain_cut.max()) + 1
        shared = gathered(votes, self._plain_cut, regions)
        area = np.bincount(self._plain_cut, self._ready().area, regions).astype(np.float64)
        whole = votes.sum(axis=0)
        holder = shared.argmax(axis=0)
        held = (shared.max(axis=0, initial=0) >= _HELD * np.maximum(whole, 1)) & (body_of == 0)
        members = np.where(held[None] & (holder[None] == np.arange(regions)[:, None]), whole[None], -1)
        leader = np.where(held, members.argmax(axis=1)[holder], -1)
        alike = agreement(shared, area, whole)
        sure = 1 - 1 / np.maximum(self._hierarchy.firmness(self._plain_cut), 1)
        return Unprompted(alike.max(axis=0, initial=0), leader, sure[alike.argmax(axis=0)])

    def _candidates(
        self,
        voted: npt.NDArray[np.int64],
        region_of: npt.NDArray[np.int64],
        bodies_of: npt.NDArray[np.int64],
        unprompted: Unprompted,
    ) -> CandidateMasks:
        count = len(region_of)
        bodies = torch.from_numpy(self._bodies)
        rest = bodies == 0
        regions = int(self._cut.max()) + 1
        # The narrower the numbers, the faster they are compared.
        number = torch.int16 if regions + len(voted) < 32_000 else torch.int32
        by_region = look_up(torch.from_numpy(self._cut).to(number), self._pixels)
        # Bodies are numbered behind the regions.
        by_region = torch.where(rest, by_region, (regions + bodies).to(number))
        by_vote = torch.where(rest, look_up(torch.from_numpy(voted).to(number), self._pixels), 0)
        body_of = torch.from_numpy(bodies_of)
        is_body = body_of > 0
        wanted = torch.stack(
            [
                torch.where(is_body, regions + body_of, torch.from_numpy(region_of)),
                torch.where(is_body, -1, torch.arange(1, count + 1)),
            ],
            dim=1,
        ).to(number)
        scores = torch.tensor([_SCORE_REGION, _SCORE_CARRIED]).repeat(count, 1)
        scores[is_body, 0] = self._body_score
        scores[wanted < 0] = 0.0
        return PartitionMasks(torch.stack([by_region, by_vote]), wanted, scores, unprompted)

    def _pointed(self, prompts: PointPrompts) -> CandidateMasks:
        """What people point at: the body under the points, the regions under them, what lies in the box."""
        graph = self._ready()
        height, width = graph.labels.shape
        # Bodies are numbered behind the regions.
        image = np.where(self._bodies > 0, self._cut.max() + self._bodies, self._cut[graph.labels])
        masks = np.zeros((len(prompts), 3, height, width), bool)
        for n, (points, labels) in enumerate(zip(prompts.xy.cpu().numpy(), prompts.labels.cpu().numpy(), strict=True)):
            places = points[:, ::-1].round().astype(np.int64).clip(0, (height - 1, width - 1))
            on, beside = places[labels == 1], places[labels == 0]
            if len(on):
                masks[n, 0] = body_at(self._bodies, on, beside)
                masks[n, 1] = regions_at(graph, self._hierarchy, self._cut, on, beside)
            if prompts.boxes is not None:
                masks[n, 2] = regions_inside(image, prompts.boxes[n].cpu().numpy().astype(np.float64), beside)
        scores = np.array([self._body_score, _SCORE_REGION, _SCORE_REGION]) * masks.any(axis=(2, 3))
        return CandidateMasks(torch.from_numpy(masks), torch.from_numpy(scores))


def _body_of(carried: npt.NDArray[np.int64], bodies: npt.NDArray[np.int32], count: int) -> list[int]:
    """For each of `count` tracks the body that holds most of it, 0 if most of it is outside all of them."""
    shared = votes_of(bodies, carried, int(bodies.max(initial=0)) + 1, count).T
    whole = shared.sum(axis=1)
    shared[:, 0] = 0
    in_bodies = shared.sum(axis=1) >= np.maximum(1, _BODY_MAJORITY * whole)
    return np.where(in_bodies, shared.argmax(axis=1), 0).tolist()


def _dense_flow_back(
    matches: Matches | None, frame: Frame
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.bool_] | None]:
    """Flow current -> previous (H, W, 2) and where it is believed (H, W); both None where the matcher is sparse."""
    if matches is None or matches.flow_back is None:
        return None, None
    flow_back = np.ascontiguousarray(matches.flow_back.cpu().numpy())
    if matches.visible is None:
        return flow_back, np.ones(frame.image.shape[:2], dtype=bool)
    return flow_back, matches.visible.cpu().numpy()
