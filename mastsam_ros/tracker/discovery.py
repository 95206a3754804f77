"""Step 7 of the method: regions that no mask covers are segmented anew, so that masks do not only grow and merge."""

from __future__ import annotations

import torch

from mastsam_ros.settings import TrackerSettings
from mastsam_ros.types import CandidateMasks


def uncovered_region(index: torch.Tensor, frame: int, settings: TrackerSettings) -> torch.Tensor | None:
    """The region (H, W) bool to segment anew, or None if it is not yet time (paper, section IV-E).

    It is time every `update_interval` frames, and at once where more than `urgent_share` of the picture is uncovered.
    """
    if not settings.discovery:
        return None
    region = index == 0
    uncovered = int(region.sum())
    smallest = settings.min_area_share * region.numel()
    due = frame % settings.update_interval == 0 or uncovered > settings.urgent_share * region.numel()
    return region if due and uncovered >= smallest else None


def new_masks(
    answer: CandidateMasks, region: torch.Tensor | None, settings: TrackerSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Automatic masks without overlap, cut to the region: (M, H, W) bool, and scores (M,), the large ones first.

    Where masks overlap, the smaller one keeps the pixel: a part in front of a whole. What is left of a mask must
    have `min_area_share` of the picture.
    """
    best = answer.scores.argmax(dim=1) if answer.scores.shape[1] else answer.scores.new_zeros(len(answer)).long()
    rows = torch.arange(len(answer), device=answer.masks.device)
    masks, scores = answer.masks[rows, best], answer.scores[rows, best]
    if region is not None:
        masks = masks & region
    order = torch.argsort(masks.flatten(1).sum(dim=1), descending=True, stable=True)
    masks, scores = masks[order], scores[order]
    owner = torch.zeros(masks.shape[1:], dtype=torch.int64, device=masks.device)
    for n in range(len(masks)):
        owner.masked_fill_(masks[n], n + 1)
    area = torch.bincount(owner.flatten(), minlength=len(masks) + 1)[1:]
    kept = torch.nonzero(area >= settings.min_area_share * owner.numel()).flatten()
    return owner[None] == (kept + 1)[:, None, None], scores[kept]
