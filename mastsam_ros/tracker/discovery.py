"""Step 7 of the method: regions that no mask covers are segmented anew, so that masks do not only grow and merge."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from mastsam_ros.device import looking_is_free, on_host, places, upload
from mastsam_ros.masks import look_up, select
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.propagation import occurrences
from mastsam_ros.types import CandidateMasks

_CORE, _CORE_SHARE = 5, 0.35
"""Share of a mask's pixels that must lie in the middle of 5x5 of its own for it not to be a sliver."""


def uncovered_region(index: torch.Tensor, uncovered: int, frame: int, settings: TrackerSettings) -> torch.Tensor | None:
    """The region (H, W) bool to segment anew, or None if it is not yet time (paper, section IV-E).

    uncovered: pixels of it, as the host knows them already. It is time every `update_interval` frames, and at once
    where more than `urgent_share` of the picture is uncovered.
    """
    if not settings.discovery:
        return None
    smallest = settings.min_area_share * index.numel()
    due = frame % settings.update_interval == 0 or uncovered > settings.urgent_share * index.numel()
    return index == 0 if due and uncovered >= smallest else None


def new_masks(
    answer: CandidateMasks, region: torch.Tensor | None, settings: TrackerSettings
) -> tuple[torch.Tensor, list[float], list[int]]:
    """Automatic masks without overlap: (H, W) int64, m + 1 where new mask m is, their scores and areas in pixels, M.

    Masks are cut to the region (H, W) bool. Where they overlap, the smaller one keeps the pixel: a part in front
    of a whole. What is left of a mask must have `min_area_share` of the picture.
    """
    best = answer.scores.argmax(dim=1) if len(answer) else answer.scores.new_zeros(0, dtype=torch.int64)
    scores = answer.scores.gather(1, best[:, None])[:, 0] if len(answer) else answer.scores.new_zeros(0)
    masks = select(answer, best, torch.ones_like(best, dtype=torch.bool))
    shape = masks.shape
    smallest = settings.min_area_share * shape.numel()
    pixels = None
    if region is not None:
        # A region is mostly a small part of the picture.
        pixels = places(region.flatten())
        masks = masks.at(pixels, region.flatten().index_select(0, pixels))
    sizes = masks.areas()
    # The largest first, and of equal ones the first; what is too small owns nothing.
    order = sizes.argsort(descending=True, stable=True)
    rank = torch.zeros_like(order).scatter_(0, order, torch.arange(1, len(order) + 1, device=order.device))
    owner = masks.owners(torch.where(sizes >= smallest, rank, 0))
    area, sure = on_host(occurrences(owner.flatten(), len(masks) + 1)[1:], scores)
    kept = area >= smallest
    table = np.append(0, np.where(kept, np.cumsum(kept), 0))
    new = look_up(upload(table, owner.device), owner)
    if pixels is not None:
        new = new.new_zeros(shape.numel()).index_copy_(0, pixels, new.flatten()).view(shape)
    return new, sure[kept].tolist(), area[kept].tolist()


def solid(new: torch.Tensor, count: int) -> list[bool]:
    """Of each of `count` new masks (n + 1 in new (H, W)) whether it is more than a sliver, as outlines leave them."""
    if looking_is_free(new.device):
        image = new.numpy().astype(np.float32)
        square = np.ones((_CORE, _CORE), np.uint8)
        core = torch.where(torch.from_numpy(cv2.dilate(image, square) == cv2.erode(image, square)), new, 0)
    else:
        image = new.to(torch.float32)[None, None]
        highest = F.max_pool2d(image, _CORE, 1, _CORE // 2)[0, 0]
        lowest = -F.max_pool2d(-image, _CORE, 1, _CORE // 2)[0, 0]
        core = torch.where(highest == lowest, new, 0)
    share = occurrences(core.flatten(), count + 1)[1:] / occurrences(new.flatten(), count + 1)[1:].clamp(min=1)
    return on_host(share >= _CORE_SHARE)[0].tolist()
