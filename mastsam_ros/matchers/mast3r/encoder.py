"""The image encoder: a vision transformer with rotary positions, shared by both views (DUSt3R, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mastsam_ros.matchers.mast3r.rope import RotaryTable

NORM_EPS = 1e-6


class PatchEmbedding(nn.Module):
    """Cuts an image into square patches and projects each to one token."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """image (B, 3, H, W) -> tokens (B, H/P * W/P, C), row by row."""
        return self.proj(image).flatten(2).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor, rotary: RotaryTable) -> torch.Tensor:
        """tokens (B, N, C) -> (B, N, C)."""
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.heads, width // self.heads)
        qkv = qkv.permute(2, 0, 3, 1, 4)
        query, key = rotary.rotate(qkv[:2])
        attended = F.scaled_dot_product_attention(query, key, qkv[2])
        return self.proj(attended.transpose(1, 2).reshape(batch, count, width))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, on every token alone."""

    def __init__(self, width: int, hidden: int, output: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, output or width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens (B, N, C) -> (B, N, output)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, tokens: torch.Tensor, rotary: RotaryTable) -> torch.Tensor:
        """tokens (B, N, C) -> (B, N, C)."""
        tokens = tokens + self.attn(self.norm1(tokens), rotary)
        return tokens + self.mlp(self.norm2(tokens))
