"""The embedded default's segmenter: no weights, CPU. Superpixels, a hierarchy of regions, motion and depth evidence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.segmenters.regions.hierarchy import DescriptionLength, RegionHierarchy
from mastsam_ros.segmenters.regions.superpixels import (
    RegionGraph,
    build_region_graph,
    compressed_lab,
    gradient_magnitude,
    smoothed,
)
from mastsam_ros.settings import RegionsSettings
from mastsam_ros.types import CandidateMasks, Frame, Matches, PointPrompts

_VOTE = 0.25
"""Share of a superpixel that must have been carried from a track for it to vote."""


class RegionSegmenter:
    """Answers point prompts with regions of a hierarchy over superpixels."""

    def __init__(self, settings: RegionsSettings | None = None) -> None:
        self._settings = settings or RegionsSettings()
        self._graph: RegionGraph | None = None
        self._hierarchy: RegionHierarchy
        self._cut: npt.NDArray[np.int64]

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        s = self._settings
        lab = compressed_lab(frame.image)
        smooth = compressed_lab(smoothed(frame.image))
        graph = build_region_graph(frame.image, s.superpixel_spacing, gradient_magnitude(smooth))
        scale = np.sqrt(frame.image.shape[0] * frame.image.shape[1] / 307200)
        colours = lab * np.array([s.lightness_weight, 1, 1], np.float32)
        cost = DescriptionLength(s.noise, s.boundary_cost * scale, s.boundary_cost * s.region_cost * scale * scale)
        self._graph = graph
        self._hierarchy = RegionHierarchy(graph, smooth, colours, None, cost, s.contrast_weight)
        self._cut = self._hierarchy.optimal_cut()

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        graph, hierarchy = self._graph, self._hierarchy
        n = len(prompts)
        carried = self._carried_index(prompts)
        votes = np.bincount(
            graph.labels.ravel().astype(np.int64) * (n + 1) + carried.ravel(), minlength=graph.count * (n + 1)
        ).reshape(graph.count, n + 1).astype(np.float64)
        tree_votes = hierarchy.accumulate(votes)
        known = tree_votes[:, 1:].sum(1)
        whole = tree_votes[-1, 1:]
        inside = tree_votes[:, 1:]
        iou = inside / np.maximum(known[:, None] + whole[None] - inside, 1)
        iou = np.where((known / hierarchy.area > 0.4)[:, None], iou, 0)
        confidence = prompts.confidence.cpu().numpy() if prompts.confidence is not None else np.ones(n)
        prior = (np.clip((iou - 0.4) / 0.6, 0, 1) * confidence).max(1)
        cut = hierarchy.optimal_cut(self._settings.prior_weight * hierarchy.boundary_cost() * prior)
        self._cut = cut
        regions = int(cut.max()) + 1
        region_votes = np.stack([np.bincount(cut, votes[:, k], regions) for k in range(n + 1)], 1)
        region_area = np.bincount(cut, graph.area, regions)
        region_known = region_votes[:, 1:].sum(1)
        region_iou = region_votes[:, 1:] / np.maximum(region_known[:, None] + whole[None] - region_votes[:, 1:], 1)
        # Candidate 0: what the carried mask says, superpixel by superpixel.
        best = votes[:, 1:].argmax(1) + 1
        share = votes[np.arange(graph.count), best] / graph.area
        voted = np.where(share >= _VOTE, best, 0)
        region_best = region_votes[:, 1:].argmax(1) + 1
        enough = region_votes[np.arange(regions), region_best] >= 0.3 * region_area
        voted = np.where(voted == 0, np.where(enough, region_best, 0)[cut], voted)
        # Candidate 1: the region of the cut that agrees best.
        region_of_track = region_iou.argmax(0)
        labels = torch.from_numpy(graph.labels).long()
        voted_image = torch.from_numpy(voted)[labels]
        cut_image = torch.from_numpy(cut)[labels]
        tracks = torch.arange(1, n + 1)
        masks = torch.stack(
            [voted_image[None] == tracks[:, None, None], cut_image[None] == torch.from_numpy(region_of_track)[:, None, None]],
            dim=1,
        )
        scores = torch.tensor([0.4, 0.8]).expand(n, 2).contiguous()
        return CandidateMasks(masks, scores)

    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        labels = torch.from_numpy(self._graph.labels).long()
        image = torch.from_numpy(self._cut)[labels]
        if region is not None:
            image = torch.where(region, image, -1)
        present = torch.unique(image)
        present = present[present >= 0]
        masks = image[None] == present[:, None, None]
        return CandidateMasks(masks[:, None], torch.full((len(masks), 1), 0.5))

    def _carried_index(self, prompts: PointPrompts) -> npt.NDArray[np.int64]:
        if prompts.masks is not None:
            n = torch.arange(1, len(prompts) + 1)
            return (prompts.masks * n[:, None, None]).amax(0).numpy()
        index = np.zeros(self._graph.labels.shape, np.int64)
        for k, (xy, label) in enumerate(zip(prompts.xy.numpy(), prompts.labels.numpy())):
            for x, y in xy[label == 1]:
                index[self._graph.labels == self._graph.labels[int(round(y)), int(round(x))]] = k + 1
        return index
