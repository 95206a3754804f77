"""Step 5 of the method: of the candidates for a track, the one that agrees best with what was carried."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mastsam_ros.masks import PartitionTrackMasks, TrackMasks, overlap_counts, select
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.propagation import Carried
from mastsam_ros.types import CandidateMasks


@dataclass(frozen=True, eq=False)
class Chosen:
    """One mask per track: masks; agreement (N,) float32, its IoU with the carried mask over the pixels that have a
    match; score (N,) float32, the segmenter's own; found (N,) bool, False where no candidate holds enough of what
    was carried."""

    masks: TrackMasks
    agreement: torch.Tensor
    score: torch.Tensor
    found: torch.Tensor

    def figures(self) -> Figures:
        """What the host decides by, in one transfer from the device."""
        numbers = torch.stack([self.found.float(), self.agreement, self.score, self.agreement + self.score])
        found, agreement, score, together = numbers.tolist()
        return Figures([there > 0 for there in found], agreement, score, together)


@dataclass(frozen=True)
class Figures:
    """`Chosen` as plain numbers, N each: found, agreement, score, and the sum of the last two."""

    found: list[bool]
    agreement: list[float]
    score: list[float]
    together: list[float]


def choose(candidates: CandidateMasks, carried: Carried, settings: TrackerSettings) -> Chosen:
    """Ranks by IoU with the carried mask plus `score_weight` times the segmenter's score (paper, section IV-C).

    A candidate that holds less than `min_carried_share` of the carried mask is no answer to its prompt.
    With `score_only` the segmenter's score alone decides (ablation).
    """
    inside, visible, whole = overlap_counts(candidates, carried.index, carried.matched, settings.agreement_stride)
    whole = whole[:, None]
    agreement = inside / (visible + whole - inside).clamp(min=1)
    held = inside / whole.clamp(min=1)
    scores = candidates.scores
    possible = (scores > 0) & (held >= settings.min_carried_share) & (inside > 0)
    value = scores if settings.score_only else agreement + settings.score_weight * scores
    best = torch.where(possible, value, -torch.inf).argmax(dim=1)
    rows = torch.arange(carried.count, device=scores.device)
    found = possible.any(dim=1)
    return Chosen(
        masks=select(candidates, best, found),
        agreement=agreement[rows, best] * found,
        score=scores[rows, best] * found,
        found=found,
    )


def keep_carried(carried: Carried) -> Chosen:
    """Without re-prompting: the carried mask itself is the answer."""
    track = torch.arange(carried.count, device=carried.index.device)
    masks = PartitionTrackMasks(carried.index[None], torch.zeros_like(track), track + 1)
    found = masks.areas() > 0
    return Chosen(masks, found.float(), found.float(), found)
