"""Outlines that hold still: where the segmenter's outline moves by a pixel for no reason, the carried one stays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from mastsam_ros.compiled import compiled
from mastsam_ros.device import looking_is_free
from mastsam_ros.tracker.parents import mean_colours


def settled(index: torch.Tensor, carried: torch.Tensor, outlined: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """The index (H, W) int64 in which pixels at an outline keep the track they were carried from.

    Superpixels are made anew for every picture, so outlines that no edge holds jump to and fro. A pixel keeps its
    track where that track is one of its eight neighbours and its colour is at least as close to that track's mean
    colour: an outline never lags by more than one pixel. carried: (H, W) int64, n + 1 = track n, 0 for none.
    outlined: (N,) bool, tracks whose outline the segmenter is sure of: theirs stay. image: (H, W, 3) uint8.
    """
    height, width = index.shape
    if looking_is_free(index.device):
        colour = mean_colours(index, len(outlined), image)
        arrays = [part.contiguous().numpy() for part in (index, carried, outlined, image, colour)]
        return torch.from_numpy(_settled_in_one_pass(*arrays))
    changed = ((carried != index) & (carried > 0) & (index > 0)).flatten()
    pixels = torch.arange(len(changed), device=index.device)
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


@compiled(
    "int64[:, ::1](Array(int64, 2, 'C', readonly=True), Array(int64, 2, 'C', readonly=True),"
    " Array(bool_, 1, 'C', readonly=True), Array(uint8, 3, 'C', readonly=True), Array(float64, 2, 'C', readonly=True))"
)
def _settled_in_one_pass(
    index: npt.NDArray[np.int64],
    carried: npt.NDArray[np.int64],
    outlined: npt.NDArray[np.bool_],
    image: npt.NDArray[np.uint8],
    colour: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """As `settled`. colour: (N, 3), the tracks' means."""
    height, width = index.shape
    result = index.copy()
    for y in range(height):
        for x in range(width):
            before, now = carried[y, x] - 1, index[y, x] - 1
            if before == now or before < 0 or now < 0 or outlined[before] or outlined[now]:
                continue
            beside = False
            for row in range(max(y - 1, 0), min(y + 2, height)):
                for column in range(max(x - 1, 0), min(x + 2, width)):
                    beside |= index[row, column] == before + 1
            from_before, from_now = 0.0, 0.0
            for c in range(3):
                from_before += (image[y, x, c] - colour[before, c]) ** 2
                from_now += (image[y, x, c] - colour[now, c]) ** 2
            if beside and np.sqrt(from_before) <= np.sqrt(from_now):
                result[y, x] = before + 1
    return result
