"""Rotary position embedding of image patches in two dimensions (CroCo v2, section 3.2; RoFormer)."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class RotaryTable:
    """Cosines and sines for a grid of patches, each (height * width, head_width) float32, row by row.

    sin: negative for the first half of each plane's channels, so that a turn is two products and a sum.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    @staticmethod
    @functools.lru_cache(maxsize=16)
    def of_grid(height: int, width: int, head_width: int, base: float, device: torch.device) -> RotaryTable:
        """The table of a (height, width) grid: half of a head's channels turn with y, half with x.

        Within each half of n channels, channels i and i + n/2 are one plane that turns by
        position / base^(2i/n).
        """
        half = head_width // 2
        speed = base ** (-torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)
        y = torch.arange(height, device=device, dtype=torch.float32)[:, None, None] * speed
        x = torch.arange(width, device=device, dtype=torch.float32)[None, :, None] * speed
        y = y.expand(height, width, -1)
        x = x.expand(height, width, -1)
        angle = torch.cat([y, y, x, x], dim=-1).reshape(height * width, head_width)
        sign = torch.cat([-torch.ones_like(y), torch.ones_like(y)], dim=-1).repeat(1, 1, 2).flatten(0, 1)
        return RotaryTable(angle.cos(), angle.sin() * sign)

    def rotate(self, heads: torch.Tensor) -> torch.Tensor:
        """Turns `heads` (..., heads, N, head_width) by every token's position; same shape and dtype.

        The products are formed in float32, so that half precision loses nothing here.
        """
        y0, y1, x0, x1 = heads.chunk(4, dim=-1)
        turned = torch.cat([y1, y0, x1, x0], dim=-1)
        return (heads * self.cos + turned * self.sin).to(heads.dtype)
