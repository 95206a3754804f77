"""Sums of places and colours over every mask of an index image, from every second pixel in x and in y."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.compiled import compiled
from mastsam_ros.device import looking_is_free

MOMENTS = 12
"""Pixels; sums of x, y, red, green, blue; and of the products rr, rg, rb, gg, gb, bb."""


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
