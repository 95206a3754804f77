"""Step 5 of the method: of the candidates for a track, the one that agrees best with what was carried."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.masks import PartitionTrackMasks, TrackMasks, overlap_counts, select
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.propagation import Carried
from mastsam_ros.types import CandidateMasks, ModelError


@dataclass(frozen=True, eq=False)
class Chosen:
    """One mask per track: masks; agreement (N,) float32, its IoU with the carried mask over the pixels that have a
    match; score (N,) float32, the segmenter's own; found (N,) bool, False where no candidate holds enough of what
    was carried."""

    masks: TrackMasks
    agreement: torch.Tensor
    score: torch.Tensor
    found: torch.Tensor

    def standing_in(self, may: torch.Tensor, carried: Carried) -> Chosen:
        """The same, where tracks that no candidate answered keep their carried mask if they `may`, (N,) bool."""
        return replace(self, masks=self.masks.replaced(may & ~self.found, carried.index))

    def preference(self) -> torch.Tensor:
        """(N,) float32: where masks overlap, the highest is in front."""
        return self.agreement + self.score

    def numbers(self) -> torch.Tensor:
        """(3, N) float32, what `Figures.of` takes."""
        return torch.stack([self.found.float(), self.agreement, self.score])


@dataclass(frozen=True)
class Figures:
    """`Chosen` as plain numbers, N each, for the host to decide by."""

    found: list[bool]
    agreement: list[float]
    score: list[float]

    @staticmethod
    def of(numbers: npt.NDArray[np.float32]) -> Figures:
        """From `Chosen.numbers`, (3, N). Raises ModelError where a score is not a finite number."""
        if not np.isfinite(numbers).all():
            raise ModelError("the segmenter's network gave no finite numbers: set sam.precision to float32")
        found, agreement, score = numbers.tolist()
        return Figures([there > 0 for there in found], agreement, score)


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


def outlined(ids: list[int], figures: Figures, identities: Identities, settings: TrackerSettings) -> list[bool]:
    """Of each track whether the segmenter is sure of its outline, or of the outline of what it is shown as.

    ids: (N,), the tracks that figures are of, and behind them what is new in this frame.
    """
    sure = {id for id, score in zip(ids, figures.score, strict=False) if score >= settings.confirm_score}
    return [id in sure or identities.shown_as(id) in sure for id in ids]
