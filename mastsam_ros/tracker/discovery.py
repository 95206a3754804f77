"""Step 7 of the method: regions that no mask covers are segmented anew, so that masks do not only grow and merge."""

from __future__ import annotations

import torch

from mastsam_ros.masks import look_up, select
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.propagation import occurrences
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
    scores = answer.scores.gather(1, best[:, None])[:, 0] if len(answer) else answer.scores.new_zeros(0)
    masks = select(answer, best, torch.ones_like(best, dtype=torch.bool))
    if region is not None:
        masks = masks.within(region)
    sizes = masks.areas().tolist()
    smallest = settings.min_area_share * masks.shape.numel()
    order = sorted((n for n, size in enumerate(sizes) if size >= smallest), key=lambda n: -sizes[n])
    owner = masks.owners(order)
    area = occurrences(owner.flatten(), len(masks) + 1)[1:]
    kept = torch.nonzero(area >= smallest).flatten()
    table = torch.zeros(len(masks) + 1, dtype=torch.int64, device=owner.device)
    table[kept + 1] = torch.arange(1, len(kept) + 1, device=owner.device)
    return look_up(table, owner), scores[kept]
