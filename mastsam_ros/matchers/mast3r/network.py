"""The whole network: encode each view once, decode two views together, predict each pixel of both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.decoder import DecoderBlock
from mastsam_ros.matchers.mast3r.encoder import NORM_EPS, EncoderBlock, PatchEmbedding
from mastsam_ros.matchers.mast3r.heads import ViewHead, ViewPrediction
from mastsam_ros.matchers.mast3r.rope import RotaryTable
from mastsam_ros.types import InputError


@dataclass(frozen=True, eq=False)
class EncodedView:
    """The encoder's tokens (B, N, C) of an image of (height, width) pixels; kept while the frame is in the buffer."""

    tokens: torch.Tensor
    height: int
    width: int


class Mast3rNetwork(nn.Module):
    """MASt3R with the released checkpoint's parameter names.

    Example:
        first, second = network(image0, image1)  # images (B, 3, H, W) in [-1, 1], H and W multiples of 16
        first.points  # (B, H, W, 3) metres, in the first view's camera; so are second.points
    """

    def __init__(self, config: Mast3rConfig | None = None) -> None:
        super().__init__()
        config = config or Mast3rConfig()
        self.config = config
        # Used in pre-training only; the released checkpoint carries it.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_width))
        self.patch_embed = PatchEmbedding(config.patch_size, config.encoder_width)
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(config.encoder_width, config.encoder_heads, config.mlp_ratio)
            for _ in range(config.encoder_depth)
        )
        self.enc_norm = nn.LayerNorm(config.encoder_width, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(config.encoder_width, config.decoder_width)
        self.dec_blocks = _decoder_blocks(config)
        self.dec_norm = nn.LayerNorm(config.decoder_width, eps=NORM_EPS)
        self.dec_blocks2 = _decoder_blocks(config)
        self.downstream_head1 = ViewHead(config)
        self.downstream_head2 = ViewHead(config)

    def encode(self, image: torch.Tensor) -> EncodedView:
        """image (B, 3, H, W) float in [-1, 1] -> its tokens. Raises InputError if H or W is not whole patches."""
        height, width = int(image.shape[-2]), int(image.shape[-1])
        patch = self.config.patch_size
        if height % patch or width % patch or image.ndim != 4 or image.shape[1] != 3:
            raise InputError(f"expected (B, 3, H, W) with multiples of {patch}, got {tuple(image.shape)}")
        tokens = self.patch_embed(image.to(self.mask_token.dtype))
        rotary = self._rotary(height, width, self.config.encoder_width // self.config.encoder_heads)
        for block in self.enc_blocks:
            tokens = block(tokens, rotary)
        return EncodedView(self.enc_norm(tokens), height, width)

    def decode(self, first: EncodedView, second: EncodedView) -> tuple[ViewPrediction, ViewPrediction]:
        """What the network says of both views; all points are in the first view's camera."""
        head_width = self.config.decoder_width // self.config.decoder_heads
        rotary1 = self._rotary(first.height, first.width, head_width)
        rotary2 = self._rotary(second.height, second.width, head_width)
        tokens1, tokens2 = self.decoder_embed(first.tokens), self.decoder_embed(second.tokens)
        depth = self.config.decoder_depth
        # The dense head reads the encoder and the decoder at half, three quarters and all of its depth.
        hooked = (depth // 2, depth * 3 // 4)
        depths1, depths2 = [first.tokens], [second.tokens]
        for index, (block1, block2) in enumerate(zip(self.dec_blocks, self.dec_blocks2, strict=True), start=1):
            tokens1, tokens2 = (
                block1(tokens1, tokens2, rotary1, rotary2),
                block2(tokens2, tokens1, rotary2, rotary1),
            )
            if index in hooked:
                depths1.append(tokens1)
                depths2.append(tokens2)
        depths1.append(self.dec_norm(tokens1))
        depths2.append(self.dec_norm(tokens2))
        return (
            self.downstream_head1(depths1, first.height, first.width),
            self.downstream_head2(depths2, second.height, second.width),
        )

    def forward(self, image1: torch.Tensor, image2: torch.Tensor) -> tuple[ViewPrediction, ViewPrediction]:
        """Two images (B, 3, H, W) float in [-1, 1] -> what the network says of each."""
        return self.decode(self.encode(image1), self.encode(image2))

    def _rotary(self, height: int, width: int, head_width: int) -> RotaryTable:
        patch = self.config.patch_size
        device = self.mask_token.device
        return RotaryTable.of_grid(height // patch, width // patch, head_width, self.config.rope_base, device)


def _decoder_blocks(config: Mast3rConfig) -> nn.ModuleList:
    return nn.ModuleList(
        DecoderBlock(config.decoder_width, config.decoder_heads, config.mlp_ratio) for _ in range(config.decoder_depth)
    )
