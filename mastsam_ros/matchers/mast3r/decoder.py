"""The decoder's block: every view looks at itself, then at the other view (CroCo v2; DUSt3R, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mastsam_ros.matchers.mast3r.encoder import NORM_EPS, Mlp, SelfAttention
from mastsam_ros.matchers.mast3r.rope import RotaryTable


class CrossAttention(nn.Module):
    """Multi-head attention of one view's tokens to the other view's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(width, width)
        self.projk = nn.Linear(width, width)
        self.projv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, tokens: torch.Tensor, other: torch.Tensor, rotary: RotaryTable, rotary_other: RotaryTable
    ) -> torch.Tensor:
        """tokens (B, N, C), other (B, M, C) -> (B, N, C)."""
        query = rotary.rotate(self._split(self.projq(tokens)))
        key = rotary_other.rotate(self._split(self.projk(other)))
        attended = F.scaled_dot_product_attention(query, key, self._split(self.projv(other)))
        return self.proj(attended.transpose(1, 2).flatten(2))

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DecoderBlock(nn.Module):
    """Pre-norm block: self-attention, cross-attention, MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_y = nn.LayerNorm(width, eps=NORM_EPS)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(
        self, tokens: torch.Tensor, other: torch.Tensor, rotary: RotaryTable, rotary_other: RotaryTable
    ) -> torch.Tensor:
        """tokens (B, N, C), other (B, M, C) -> (B, N, C)."""
        tokens = tokens + self.attn(self.norm1(tokens), rotary)
        tokens = tokens + self.cross_attn(self.norm2(tokens), self.norm_y(other), rotary, rotary_other)
        return tokens + self.mlp(self.norm3(tokens))
