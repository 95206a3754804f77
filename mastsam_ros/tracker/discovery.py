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
    """Automatic masks without overlap: (H, W) int64, m + 1 where new mask m is, and their scores (M,).

    Masks are cut to the region (H, W) bool. Where they overlap, the smaller one keeps the pixel: a part in front
    of a whole. What is left of a mask must have `min_area_share` of the picture.
    """
    best = answer.scores.argmax(dim=1) if len(answer) else answer.scores.new_zeros(0, dtype=torch.int64)
    rows = torch.arange(len(answer), device=answer.masks.device)
    masks, scores = answer.masks[rows, best], answer.scores[rows, best]
    if region is not None:
        masks = masks & region
    size = masks.flatten(1).sum(dim=1, dtype=torch.int32)
    smallest = settings.min_area_share * masks.shape[1] * masks.shape[2]
    owner = torch.zeros(masks.shape[1:], dtype=torch.int64, device=masks.device)
    sizes = size.tolist()
    for n in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        if sizes[n] >= smallest:
            owner.masked_fill_(masks[n], n + 1)
    area = torch.bincount(owner.flatten(), minlength=len(masks) + 1)[1:]
    kept = torch.nonzero(area >= smallest).flatten()
    table = torch.zeros(len(masks) + 1, dtype=torch.int64, device=masks.device)
    table[kept + 1] = torch.arange(1, len(kept) + 1, device=masks.device)
    return table[owner], scores[kept]
