"""The network's dimensions, and how to read them off the shapes of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mastsam_ros.types import ModelError

_HEADS = {(1024, 768): (16, 12), (64, 48): (4, 3)}
"""(encoder width, decoder width) -> attention heads; shapes alone do not tell them."""


@dataclass(frozen=True)
class Mast3rConfig:
    """Dimensions of the network; the defaults are the released ViT-L encoder with base decoders.

    Widths are channels of a token, depths are numbers of transformer blocks. `dpt_channels` are those of the
    dense head's four resolutions (1/4, 1/8, 1/16, 1/32), `dpt_width` those of its fusion.
    """

    encoder_width: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    decoder_width: int = 768
    decoder_depth: int = 12
    decoder_heads: int = 12
    patch_size: int = 16
    mlp_ratio: int = 4
    rope_base: float = 100.0
    descriptor_width: int = 24
    dpt_channels: tuple[int, int, int, int] = (96, 192, 384, 768)
    dpt_width: int = 256

    @staticmethod
    def tiny() -> Mast3rConfig:
        """A model of the same structure that is small enough for tests on a CPU."""
        return Mast3rConfig(
            encoder_width=64, encoder_depth=3, encoder_heads=4, decoder_width=48, decoder_depth=12, decoder_heads=3
        )

    @staticmethod
    def of_state_dict(state: Mapping[str, torch.Tensor]) -> Mast3rConfig:
        """The dimensions that the shapes of `state` (name -> tensor) imply.

        Raises ModelError where the tensors that tell them are absent, or for widths of no known model.
        """
        patches = state.get("patch_embed.proj.weight")
        embedding = state.get("decoder_embed.weight")
        if patches is None or embedding is None or patches.ndim != 4 or embedding.ndim != 2:
            raise ModelError(
                "these are not MASt3R's weights: expected 'patch_embed.proj.weight' (C, 3, P, P) and"
                f" 'decoder_embed.weight' (D, C) among {len(state)} tensors"
            )
        widths = (int(patches.shape[0]), int(embedding.shape[0]))
        if widths not in _HEADS:
            known = " and ".join(f"{encoder} with {decoder}" for encoder, decoder in _HEADS)
            raise ModelError(
                f"unknown MASt3R model: encoder width {widths[0]} with decoder width {widths[1]}; known are {known}"
            )
        return Mast3rConfig(
            encoder_width=widths[0],
            encoder_depth=_block_count(state, "enc_blocks"),
            encoder_heads=_HEADS[widths][0],
            decoder_width=widths[1],
            decoder_depth=_block_count(state, "dec_blocks"),
            decoder_heads=_HEADS[widths][1],
            patch_size=int(patches.shape[-1]),
        )


def _block_count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    pattern = re.compile(rf"{prefix}\.(\d+)\.")
    found = {int(match.group(1)) for name in state if (match := pattern.match(name))}
    return len(found)
