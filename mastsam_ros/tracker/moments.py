"""Sums of places and colours over every mask of an index image, and histograms of its colours, from every second pixel
in x and in y."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.compiled import compiled
from mastsam_ros.device import looking_is_free

MOMENTS = 12
"""Pixels; sums of x, y, red, green, blue; and of the products rr, rg, rb, gg, gb, bb."""
COLOURS = 8 * 32 * 32
"""Bins of a histogram: lightness 32 grey levels wide; red less green, and blue less the mean of both, 8 wide."""


def moments(index: torch.Tensor, count: int, image: torch.Tensor) -> torch.Tensor:
    """(count, MOMENTS) float64 of every n in 1..count of `index` (H, W) int64. image: (H, W, 3) uint8.

    Sums of whole numbers, far below 2^53: exact, in whatever order they are added. That is why the CPU, where torch's
    way takes a dozen passes over the picture, may have one of its own.
    """
    if looking_is_free(index.device):
        return torch.from_numpy(_added_up(index.contiguous().numpy(), image.contiguous().numpy(), count)[1:])
    small, pixels = index[::2, ::2], image.permute(2, 0, 1)[:, ::2, ::2].reshape(3, -1).double()
    rows, columns = torch.meshgrid(
        torch.arange(small.shape[0], device=index.device),
        torch.arange(small.shape[1], device=index.device),
        indexing="ij",
    )
    place = torch.stack([columns, rows]).reshape(2, -1).double() * 2
    red, green, blue = pixels
    products = torch.stack([red * red, red * green, red * blue, green * green, green * blue, blue * blue])
    values = torch.cat([torch.ones_like(place[:1]), place, pixels, products])
    totals = torch.zeros(len(values), count + 1, dtype=torch.float64, device=index.device)
    totals.scatter_add_(1, small.flatten().expand(len(values), -1), values)
    return totals[:, 1:].T


@compiled("float64[:, ::1](Array(int64, 2, 'C', readonly=True), Array(uint8, 3, 'C', readonly=True), int64)")
def _added_up(index: npt.NDArray[np.int64], image: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.float64]:
    """As `moments`, with 0 in front."""
    totals = np.zeros((count + 1, MOMENTS))
    for y in range(0, index.shape[0], 2):
        for x in range(0, index.shape[1], 2):
            of = totals[index[y, x]]
            red, green, blue = float(image[y, x, 0]), float(image[y, x, 1]), float(image[y, x, 2])
            of[0] += 1
            of[1] += x
            of[2] += y
            of[3] += red
            of[4] += green
            of[5] += blue
            of[6] += red * red
            of[7] += red * green
            of[8] += red * blue
            of[9] += green * green
            of[10] += green * blue
            of[11] += blue * blue
    return totals


def histograms(index: torch.Tensor, count: int, image: torch.Tensor) -> torch.Tensor:
    """(count, COLOURS) float32: of every n in 1..count of `index` (H, W) int64, the share of its pixels in each bin.

    image: (H, W, 3) uint8.
    """
    if looking_is_free(index.device):
        counted = torch.from_numpy(_counted(index.contiguous().numpy(), image.contiguous().numpy(), count)[1:])
    else:
        red, green, blue = image[::2, ::2].reshape(-1, 3).int().unbind(dim=1)
        bins = (red + green + blue) // 96 * 1024
        bins += ((red - green + 128) // 8).clamp(0, 31) * 32 + ((blue - (red + green) // 2 + 128) // 8).clamp(0, 31)
        counted = torch.zeros((count + 1) * COLOURS, device=index.device)
        counted.scatter_add_(0, index[::2, ::2].flatten() * COLOURS + bins, torch.ones_like(bins, dtype=torch.float32))
        counted = counted.view(count + 1, COLOURS)[1:]
    return counted / counted.sum(dim=1, keepdim=True).clamp(min=1)


@compiled("float32[:, ::1](Array(int64, 2, 'C', readonly=True), Array(uint8, 3, 'C', readonly=True), int64)")
def _counted(index: npt.NDArray[np.int64], image: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.float32]:
    """As `histograms`, with 0 in front, in pixels."""
    counted = np.zeros((count + 1, COLOURS), np.float32)
    for y in range(0, index.shape[0], 2):
        for x in range(0, index.shape[1], 2):
            red, green, blue = int(image[y, x, 0]), int(image[y, x, 1]), int(image[y, x, 2])
            first = min(max((red - green + 128) // 8, 0), 31)
            second = min(max((blue - (red + green) // 2 + 128) // 8, 0), 31)
            counted[index[y, x], (red + green + blue) // 96 * 1024 + first * 32 + second] += 1
    return counted
