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
from mastsam_ros.segmenters.regions.flow_steps import Parts, with_parts
from mastsam_ros.segmenters.regions.hierarchy import DescriptionLength, RegionHierarchy, outline_lengths
from mastsam_ros.segmenters.regions.motion import Cues, MotionLayer
from mastsam_ros.segmenters.regions.pointed import body_at, regions_at, regions_inside
from mastsam_ros.segmenters.regions.superpixels import (
    RegionGraph,
    build_region_graph,
    compressed_lab,
    gradient_magnitude,
    smoothed,
)
from mastsam_ros.segmenters.regions.two_in_one import Followed
from mastsam_ros.segmenters.regions.votes import agreement, gathered, held_together, votes_of
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
"""Share of a carried mask that a region must hold for the mask to be in it; and of a region that a mask must hold."""
_STANDS_OUT = 2.0
"""Firmness of a region from which on it is no mere part of what was carried."""
_THING = 0.02
"""Share of the picture up to which such a region is a thing rather than a piece of floor, wall or table."""
_ONE_REGION = 0.8
"""IoU from which on regions of two cuts are one."""
_BODY_MAJORITY = 0.5
"""Share of a carried mask inside bodies for the track to be one."""
_SMALLEST_SHARE = 3e-4
"""Regions below this share of the picture are no answer to `everything`."""
_SMALLEST_SIDE = 24
"""Pixels; a smaller picture has too few flow vectors to tell a dominant motion."""
_SCORE_MOVING, _SCORE_DEPTH, _SCORE_REGION, _SCORE_CARRIED = 0.95, 0.85, 0.8, 0.4


@dataclass(frozen=True, eq=False)
class _Still:
    """What one frame shows without the one before: segments (H, W) int32 that depth sets apart, 0 for the rest, or None
    without depth; superpixels, None where depth leaves nothing to them.

    follows: whether there is a frame before it. cues: for the motion layer, None where depth tells more.
    """

    frame: Frame
    follows: bool
    superpixels: _Superpixels | None
    segments: npt.NDArray[np.int32] | None
    cues: Cues | None


@dataclass(frozen=True, eq=False)
class _Superpixels:
    """Of one frame; smooth_lab (H, W, 3), of the smoothed image; moments (S, 10), of the colours as regions weigh them;
    pixels (H, W) int64, the superpixel of each; hierarchy: as it is where there are no bodies, if that is likely."""

    graph: RegionGraph
    smooth_lab: npt.NDArray[np.float32]
    moments: npt.NDArray[np.float64]
    pixels: torch.Tensor
    hierarchy: RegionHierarchy | None


@dataclass(frozen=True, eq=False)
class _Regions:
    """The hierarchy of one frame, its best cut (S,), and pixels (H, W) int64, the superpixel of each.

    parts: of regions of the cut, what may be things in front of the rest of them; None where no flow tells.
    """

    graph: RegionGraph
    hierarchy: RegionHierarchy
    cut: npt.NDArray[np.int64]
    pixels: torch.Tensor
    parts: Parts | None


@dataclass(frozen=True, eq=False)
class _Seen:
    """The regions R of the cut that knows of no carried mask, beside N tracks: shared (R, N), pixels that were carried
    from each; area, firmness (R,); alike (R, N), IoU; whole (N,), pixels of each carried mask; cut (S,), the region of
    each superpixel; apart: those regions that the flow told from what is behind them, the superpixels of each."""

    shared: npt.NDArray[np.float64]
    area: npt.NDArray[np.float64]
    firmness: npt.NDArray[np.float64]
    alike: npt.NDArray[np.float64]
    whole: npt.NDArray[np.float64]
    cut: npt.NDArray[np.int64]
    apart: dict[int, npt.NDArray[np.int64]]

    @staticmethod
    def of(made: _Regions, votes: npt.NDArray[np.float64]) -> _Seen:
        """votes: (S, N), pixels of each superpixel that were carried from each track."""
        cut, parts, least = made.cut, list[npt.NDArray[np.int64]](), np.empty(0)
        if made.parts is not None:
            parts, least = made.parts.told_apart(votes)
            cut = with_parts(cut, parts)
        shared = gathered(votes, cut, int(cut.max()) + 1)
        area = np.bincount(cut, made.graph.area, len(shared)).astype(np.float64)
        whole, firmness = votes.sum(axis=0), made.hierarchy.firmness(cut)
        apart = {int(cut[part[0]]): part for part in parts}
        firmness[list(apart)] = np.maximum(firmness[list(apart)], least)
        return _Seen(shared, area, firmness, agreement(shared, area, whole), whole, cut, apart)

    def unprompted(self, rests: npt.NDArray[np.bool_]) -> Unprompted:
        """What it says of the tracks. rests: (N,), False for bodies, which are followed by themselves."""
        holder = self.shared.argmax(axis=0)
        held = (self.shared.max(axis=0, initial=0) >= _HELD * np.maximum(self.whole, 1)) & rests
        members = np.where(held[None] & (holder[None] == np.arange(len(self.area))[:, None]), self.whole[None], -1)
        leader = np.where(held, members.argmax(axis=1)[holder], -1)
        sure, best = 1 - 1 / np.maximum(self.firmness, 1), self.alike.argmax(axis=0)
        return Unprompted(self.alike.max(axis=0, initial=0), leader, sure[best], np.isin(best, list(self.apart)))

    def things_apart(self, votes: npt.NDArray[np.float64]) -> list[npt.NDArray[np.int64]]:
        """The superpixels of each region that the flow told apart and that is a track, or nobody's, by votes (S, N)."""
        known = self.alike.max(axis=1, initial=0) >= _AGREES
        return [part for region, part in self.apart.items() if known[region] or not votes[part].any()]

    def plainly(
        self, cut: npt.NDArray[np.int64], region_of: npt.NDArray[np.int64], area: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        """(N,) tracks that without doubt are their region of another cut: both cuts see it, it is a small thing that
        stands out, and what else was carried from the track lies mostly in what is something else. What was taken in
        once from what is behind a thing would be carried on for ever.

        cut: (S,); region_of: (N,) its regions, -1 for none; area: (S,) pixels.
        """
        regions, tracks, best = int(cut.max()) + 1, np.arange(len(region_of)), self.alike.argmax(axis=0)
        both = np.bincount(self.cut * regions + cut, area, len(self.area) * regions).reshape(-1, regions)
        shared = both[best, region_of]
        same = shared >= _ONE_REGION * (self.area[best] + both.sum(axis=0)[region_of] - shared)
        thing = (self.firmness >= _STANDS_OUT) & (self.area <= _THING * self.area.sum())
        own = self.shared[best].argmax(axis=1) == tracks
        elsewhere = np.where(self.shared < (1 - _HELD) * self.area[:, None], self.shared, 0.0)
        elsewhere[best, tracks] = 0
        rest = self.whole - self.shared[best, tracks]
        given_back = (rest > 0) & (2 * elsewhere.sum(axis=0) >= rest)
        return (region_of >= 0) & same & thing[best] & own & given_back

    def things_in_others(self) -> npt.NDArray[np.bool_]:
        """(R,) what stands out, is small, lies in a track that is something else, and is no track itself: two things
        that were taken for one in some frame would be carried on as one for ever."""
        if not self.shared.shape[1]:
            return np.zeros(len(self.area), bool)
        size = self.area / self.area.sum()
        holder, rows = self.shared.argmax(axis=1), np.arange(len(self.area))
        inside = (self.shared[rows, holder] >= _HELD * self.area) & (self.alike.argmax(axis=0)[holder] != rows)
        small = (size >= 2 * _SMALLEST_SHARE) & (size <= _THING)
        return inside & small & (self.alike.max(axis=1) < _AGREES) & (self.firmness >= _STANDS_OUT)


class RegionSegmenter:
    """Answers prompts with bodies, where motion or depth sets one apart, and with regions of a hierarchy elsewhere.

    Candidates per prompt: the body or the region of the best cut that agrees with the carried mask, and the carried
    mask itself, superpixel by superpixel. Keeps what moves from frame to frame; one object serves one camera.
    """

    masks_suffice: Literal[True] = True
    rough_outlines: Literal[True] = True

    def __init__(self, settings: RegionsSettings | None = None) -> None:
        self._settings = settings or RegionsSettings()
        self._motion = MotionLayer()
        self._depth = DepthLayer(self._settings)
        self._bodies_over_time = Bodies()
        self._ahead: _Still | None = None
        self._shown: _Still | None = None
        self._made: _Regions | None = None
        self._are_bodies = False
        """In the last frame whose regions were made. If there were none, the next one most likely has none."""
        self._bodies: npt.NDArray[np.int32]
        self._body_score = _SCORE_MOVING
        self._only_bodies = False
        """Bodies cover the picture: nobody sees its regions but who points into one."""
        self._cut: npt.NDArray[np.int64]
        self._followed: Followed | None = None
        """Of the last frame, if its regions were made."""
        self._flow: tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.bool_] | None]

    def look_ahead(self, frame: Frame, follows: bool) -> None:
        """What does not depend on the matches, for the next `set_frame`. follows: whether it will be given any."""
        self._ahead = self._still(frame, follows)

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        """Superpixels, bodies and hierarchy of one frame. Without matches the past is forgotten."""
        still, follows = self._ahead, matches is not None
        if still is None or still.frame is not frame or still.follows != follows:
            still = self._still(frame, follows)
        self._ahead = None
        if not follows:
            self._motion.reset()
            self._bodies_over_time.reset()
        self._flow = _dense_flow_back(matches, frame)
        self._bodies = self._find_bodies(still)
        self._shown, self._made = still, None
        self._only_bodies = bool(self._bodies.all())
        if not self._only_bodies:
            self._regions()
        else:
            self._followed = None

    @one_thread()
    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        """Two candidates per prompt: masks (N, 2, H, W) bool, scores (N, 2); three where nothing was carried, and one
        where bodies cover the picture."""
        self._current()
        count = len(prompts)
        if prompts.carried is None:
            return self._pointed(prompts)
        carried = np.ascontiguousarray(prompts.carried.cpu().numpy(), np.int64)
        body_of = np.array(_body_of(carried, self._bodies, count), np.int64)
        if self._only_bodies:
            return self._candidate_bodies(body_of)
        regions_ = self._regions()
        graph, hierarchy = regions_.graph, regions_.hierarchy
        votes = votes_of(graph.labels, carried, graph.count, count)
        seen = _Seen.of(regions_, votes)
        votes[seen.things_in_others()[seen.cut]] = 0
        whole = votes.sum(axis=0)
        trust = np.ones(count) if prompts.confidence is None else prompts.confidence.cpu().numpy()
        together = held_together(votes, graph.area, trust, graph.edges)
        steadied = hierarchy.steadied(1 + self._settings.prior_weight * together)
        iou = agreement(steadied.accumulate(votes), steadied.area, whole)
        # Few regions agree with any track.
        node, track = np.nonzero(iou > _AGREES)
        preferred = np.zeros(len(iou))
        np.maximum.at(preferred, node, (iou[node, track] - _AGREES) / (1 - _AGREES) * trust[track])
        cut = steadied.optimal_cut(self._settings.prior_weight * steadied.boundary_cost() * preferred)
        self._cut = with_parts(cut, seen.things_apart(votes))
        regions = int(self._cut.max()) + 1
        region_votes = gathered(votes, self._cut, regions)
        region_area = np.bincount(self._cut, graph.area, regions).astype(np.float64)
        region_iou = agreement(region_votes, region_area, whole)
        region_of = np.where(region_iou.max(axis=0) >= _SAME, region_iou.argmax(axis=0), -1)
        voted = self._voted(votes, region_votes, region_area)
        plainly = seen.plainly(self._cut, region_of, graph.area) & (body_of == 0)
        return self._candidates(voted, region_of, body_of, plainly, seen.unprompted(body_of == 0))

    @one_thread()
    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        """Every body and every region of the cut, (N, 1, H, W); cut to `region` (H, W) bool if it is given."""
        self._current()
        # 0 is outside the region, then come the regions of the cut, then the bodies.
        bodies = torch.from_numpy(self._bodies)
        if self._only_bodies:
            regions, image = 0, bodies.to(torch.int64)
        else:
            regions = int(self._cut.max()) + 1
            image = torch.where(
                bodies > 0, regions + bodies, look_up(torch.from_numpy(self._cut + 1), self._regions().pixels)
            )
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

    def _current(self) -> _Still:
        if self._shown is None:
            raise SegmentationOrderError("set_frame must be called before predict and everything")
        return self._shown

    def _regions(self) -> _Regions:
        """Of the current frame, made when they are first asked for."""
        if self._made is None:
            self._made = self._make_regions(self._current())
            self._cut = self._made.cut
        return self._made

    def _make_regions(self, still: _Still) -> _Regions:
        self._are_bodies = bool(self._bodies.any())
        superpixels = still.superpixels or self._superpixels(still.frame, compressed_lab(still.frame.image))
        graph, hierarchy = superpixels.graph, superpixels.hierarchy
        if hierarchy is None or self._are_bodies:
            barrier = graph.mean(self._bodies > 0).round().astype(np.int64) if self._are_bodies else None
            hierarchy = self._hierarchy(graph, superpixels.moments, barrier)
        cut, (flow_back, visible) = hierarchy.optimal_cut(), self._flow
        parts = None
        if self._settings.use_flow_steps and still.segments is None and flow_back is not None and visible is not None:
            parts = Parts.of(graph, hierarchy, cut, flow_back, visible, self._followed, self._settings.use_notches)
        self._followed = None if parts is None else parts.followed
        return _Regions(graph, hierarchy, cut, superpixels.pixels, parts)

    def _hierarchy(
        self, graph: RegionGraph, moments: npt.NDArray[np.float64], barrier: npt.NDArray[np.int64] | None
    ) -> RegionHierarchy:
        settings = self._settings
        ratio = graph.labels.size / _REFERENCE_PIXELS
        boundary = settings.boundary_cost * np.sqrt(ratio)
        cost = DescriptionLength(settings.noise, boundary, settings.region_cost * settings.boundary_cost * ratio)
        return RegionHierarchy(graph, moments, outline_lengths(graph, settings.contrast_weight), barrier, cost)

    def _superpixels(self, frame: Frame, lab: npt.NDArray[np.float32]) -> _Superpixels:
        """lab: (H, W, 3) of the frame, is changed."""
        smooth = smoothed(frame.image)
        smooth_lab = compressed_lab(smooth)
        graph = build_region_graph(
            smooth, self._settings.superpixel_spacing, gradient_magnitude(smooth_lab), smooth_lab
        )
        lab[..., 0] *= self._settings.lightness_weight
        moments = graph.moments(lab)
        # Without torch: threads that it starts here would stay and take turns with the caller's.
        pixels = torch.from_numpy(graph.labels.astype(np.int64))
        hierarchy = None if self._are_bodies else self._hierarchy(graph, moments, None)
        return _Superpixels(graph, smooth_lab, moments, pixels, hierarchy)

    def _still(self, frame: Frame, follows: bool) -> _Still:
        if not follows:
            self._depth.reset()
        lab = compressed_lab(frame.image)
        if frame.depth is not None and frame.K is not None and self._settings.use_depth:
            segments = self._depth.update(frame.depth, frame.K, lab).labels
            superpixels = None if segments.all() else self._superpixels(frame, lab)
            return _Still(frame, follows, superpixels, segments, None)
        superpixels, cues = self._superpixels(frame, lab), None
        if follows and self._settings.use_motion and min(lab.shape[:2]) >= _SMALLEST_SIDE:
            cues = Cues.of(superpixels.graph, superpixels.smooth_lab)
        return _Still(frame, follows, superpixels, None, cues)

    def _find_bodies(self, still: _Still) -> npt.NDArray[np.int32]:
        """(H, W) int32: what depth or, without depth, motion sets apart; 0 for the rest."""
        frame, (flow_back, visible) = still.frame, self._flow
        if still.segments is not None:
            segments = still.segments
            self._body_score = _SCORE_DEPTH
        elif flow_back is not None and visible is not None and still.cues is not None and still.superpixels is not None:
            segments = self._motion.update(still.superpixels.graph, still.cues, flow_back, visible).labels
            self._body_score = _SCORE_MOVING
        else:
            return np.zeros(frame.image.shape[:2], np.int32)
        return self._bodies_over_time.update(segments.astype(np.int32), flow_back)

    def _voted(
        self, votes: npt.NDArray[np.float64], region_votes: npt.NDArray[np.float64], area: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """(S,) track + 1 of every superpixel: its own vote, else its region's; 0 where neither says enough."""
        graph = self._regions().graph
        best = votes.argmax(axis=1)
        own = np.where(votes[np.arange(graph.count), best] >= _VOTE * graph.area, best + 1, 0)
        leader = region_votes.argmax(axis=1)
        inherited = np.where(region_votes.sum(axis=1) >= _INHERIT * area, leader + 1, 0)
        return np.where(own > 0, own, inherited[self._cut])

    def _candidate_bodies(self, body_of: npt.NDArray[np.int64]) -> CandidateMasks:
        """The body of each track (N,), where there is nothing but bodies."""
        wanted = torch.from_numpy(np.where(body_of > 0, body_of, -1))[:, None]
        scores = torch.where(wanted > 0, self._body_score, 0.0).to(torch.float32)
        return PartitionMasks(torch.from_numpy(self._bodies).to(torch.int16)[None], wanted.to(torch.int16), scores)

    def _candidates(
        self,
        voted: npt.NDArray[np.int64],
        region_of: npt.NDArray[np.int64],
        bodies_of: npt.NDArray[np.int64],
        plainly: npt.NDArray[np.bool_],
        unprompted: Unprompted,
    ) -> CandidateMasks:
        count = len(region_of)
        bodies = torch.from_numpy(self._bodies)
        rest = bodies == 0
        regions = int(self._cut.max()) + 1
        # The narrower the numbers, the faster they are compared.
        number = torch.int16 if regions + len(voted) < 32_000 else torch.int32
        by_region = look_up(torch.from_numpy(self._cut).to(number), self._regions().pixels)
        # Bodies are numbered behind the regions.
        by_region = torch.where(rest, by_region, (regions + bodies).to(number))
        by_vote = torch.where(rest, look_up(torch.from_numpy(voted).to(number), self._regions().pixels), 0)
        body_of = torch.from_numpy(bodies_of)
        is_body = body_of > 0
        wanted = torch.stack(
            [
                torch.where(is_body, regions + body_of, torch.from_numpy(region_of)),
                torch.where(is_body | torch.from_numpy(plainly), -1, torch.arange(1, count + 1)),
            ],
            dim=1,
        ).to(number)
        scores = torch.tensor([_SCORE_REGION, _SCORE_CARRIED]).repeat(count, 1)
        scores[is_body, 0] = self._body_score
        scores[wanted < 0] = 0.0
        return PartitionMasks(torch.stack([by_region, by_vote]), wanted, scores, unprompted)

    def _pointed(self, prompts: PointPrompts) -> CandidateMasks:
        """What people point at: the body under the points, the regions under them, what lies in the box."""
        graph, hierarchy, cut = (made := self._regions()).graph, made.hierarchy, self._cut
        height, width = graph.labels.shape
        # Bodies are numbered behind the regions.
        image = np.where(self._bodies > 0, cut.max() + self._bodies, cut[graph.labels])
        masks = np.zeros((len(prompts), 3, height, width), bool)
        for n, (points, labels) in enumerate(zip(prompts.xy.cpu().numpy(), prompts.labels.cpu().numpy(), strict=True)):
            places = points[:, ::-1].round().astype(np.int64).clip(0, (height - 1, width - 1))
            on, beside = places[labels == 1], places[labels == 0]
            if len(on):
                masks[n, 0] = body_at(self._bodies, on, beside)
                masks[n, 1] = regions_at(graph, hierarchy, cut, on, beside)
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
    return flow_back, np.ascontiguousarray(matches.visible.cpu().numpy())
