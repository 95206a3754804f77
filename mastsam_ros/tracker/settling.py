"""Outlines that hold still: where the segmenter's outline moves by a pixel for no reason, the carried one stays."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mastsam_ros.device import places
from mastsam_ros.tracker.parents import mean_colours


def settled(index: torch.Tensor, carried: torch.Tensor, outlined: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """The index (H, W) int64 in which pixels at an outline keep the track they were carried from.

    Superpixels are made anew for every picture, so outlines that no edge holds jump to and fro. A pixel keeps its
    track where that track is one of its eight neighbours and its colour is at least as close to that track's mean
    colour: an outline never lags by more than one pixel. carried: (H, W) int64, n + 1 = track n, 0 for none.
    outlined: (N,) bool, tracks whose outline the segmenter is sure of: theirs stay. image: (H, W, 3) uint8.
    """
    height, width = index.shape
    changed = ((carried != index) & (carried > 0) & (index > 0)).flatten()
    pixels = places(changed)
    before, now = carried.flatten()[pixels], index.flatten()[pixels]
    framed = F.pad(index, (1, 1, 1, 1)).flatten()
    middle = (pixels // width + 1) * (width + 2) + pixels % width + 1
    steps = [dy * (width + 2) + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dx or dy]
    beside = torch.zeros_like(before, dtype=torch.bool)
    for step in steps:
        beside |= framed[middle + step] == before
    colour = mean_colours(index, len(outlined), image)
    own = image.reshape(-1, 3)[pixels].double()
    alike = (own - colour[before - 1]).norm(dim=1) <= (own - colour[now - 1]).norm(dim=1)
    keeps = changed[pixels] & beside & alike & ~outlined[before - 1] & ~outlined[now - 1]
    result = index.flatten().clone()
    result[pixels] = torch.where(keeps, before, now)
    return result.view(height, width)
