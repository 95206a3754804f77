"""The two dense heads of a view: DPT for points, a patch-wise MLP for local features.

DPT: Ranftl et al. 2021; points and confidence: DUSt3R, section 3; local features: MASt3R, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.encoder import Mlp


@dataclass(frozen=True, eq=False)
class ViewPrediction:
    """What the network says of every pixel of one view, all float32.

    points: (B, H, W, 3), in the first view's camera. confidence: (B, H, W), 1 and more.
    descriptors: (B, H, W, D), unit length. descriptor_confidence: (B, H, W), above 0.
    """

    points: torch.Tensor
    confidence: torch.Tensor
    descriptors: torch.Tensor
    descriptor_confidence: torch.Tensor


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return features + self.conv2(F.relu(self.conv1(F.relu(features))))


class FusionBlock(nn.Module):
    """Joins the coarser features with this resolution's, and doubles the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resConfUnit1 = ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)
        self.out_conv = nn.Conv2d(width, width, 1)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor | None = None) -> torch.Tensor:
        """coarse (B, C, H, W), and fine of the same shape where there is one -> (B, C, 2H, 2W)."""
        joined = coarse if fine is None else coarse + self.resConfUnit1(fine)
        return self.out_conv(double_size(self.resConfUnit2(joined)))


class FusionStages(nn.Module):
    """The four resolutions brought to one width, and the blocks that fuse them from coarse to fine."""

    def __init__(self, channels: tuple[int, int, int, int], width: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(count, width, 3, padding=1, bias=False) for count in channels]
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = layers
        # Released checkpoints name these four convolutions twice.
        self.layer_rn = nn.ModuleList(layers)
        self.refinenet1 = FusionBlock(width)
        self.refinenet2 = FusionBlock(width)
        self.refinenet3 = FusionBlock(width)
        self.refinenet4 = FusionBlock(width)

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """levels, fine to coarse: (B, C_i, H_i, W_i), each about half as large -> (B, C, 2 H_1, 2 W_1)."""
        fused = self.refinenet4(self.layer_rn[3](levels[3]))
        for index, block in ((2, self.refinenet3), (1, self.refinenet2), (0, self.refinenet1)):
            level = self.layer_rn[index](levels[index])
            # An odd number of patches is rounded up where it is halved, so the doubled map can be one too large.
            fused = block(fused[..., : level.shape[-2], : level.shape[-1]], level)
        return fused


class OutputLayer(nn.Conv2d):
    """A convolution in float32 whatever the precision of the rest: depth is the exponential of what comes out."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, outputs, H, W) float32."""
        bias = self.bias.float() if self.bias is not None else None
        return F.conv2d(input.float(), self.weight.float(), bias)


class DensePredictionHead(nn.Module):
    """DPT: tokens of four depths of the network become one map at the image's resolution."""

    def __init__(self, config: Mast3rConfig, outputs: int) -> None:
        super().__init__()
        c0, c1, c2, c3 = config.dpt_channels
        width = config.dpt_width
        self.patch_size = config.patch_size
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(config.encoder_width, c0, 1), nn.ConvTranspose2d(c0, c0, 4, stride=4)),
                nn.Sequential(nn.Conv2d(config.decoder_width, c1, 1), nn.ConvTranspose2d(c1, c1, 2, stride=2)),
                nn.Sequential(nn.Conv2d(config.decoder_width, c2, 1)),
                nn.Sequential(nn.Conv2d(config.decoder_width, c3, 1), nn.Conv2d(c3, c3, 3, stride=2, padding=1)),
            ]
        )
        self.scratch = FusionStages(config.dpt_channels, width)
        self.head = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1),
            DoubleSize(),
            nn.Conv2d(width // 2, 128, 3, padding=1),
            nn.ReLU(),
            OutputLayer(128, outputs, 1),
        )

    def forward(self, depths: list[torch.Tensor], height: int, width: int) -> torch.Tensor:
        """depths: four (B, N, C_i), from early to late -> (B, outputs, height, width), the image's size."""
        grid = (height // self.patch_size, width // self.patch_size)
        maps = [tokens.transpose(1, 2).unflatten(2, grid) for tokens in depths]
        levels = [process(tokens) for process, tokens in zip(self.act_postprocess, maps, strict=True)]
        return self.head(self.scratch(levels))


class ViewHead(nn.Module):
    """Both heads of one view."""

    def __init__(self, config: Mast3rConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.dpt = DensePredictionHead(config, outputs=4)
        width = config.encoder_width + config.decoder_width
        self.head_local_features = Mlp(width, 4 * width, (config.descriptor_width + 1) * config.patch_size**2)

    def forward(self, depths: list[torch.Tensor], height: int, width: int) -> ViewPrediction:
        """depths: tokens (B, N, C_i) of the encoder and of three depths of the decoder, the last one normalised."""
        dense = self.dpt(depths, height, width).permute(0, 2, 3, 1)
        local = self.head_local_features(torch.cat([depths[0], depths[-1]], dim=-1)).float()
        local = local.transpose(1, 2).unflatten(2, (height // self.patch_size, width // self.patch_size))
        local = F.pixel_shuffle(local, self.patch_size).permute(0, 2, 3, 1)
        return ViewPrediction(
            points=exponential_points(dense[..., :3]),
            confidence=1 + dense[..., 3].exp(),
            descriptors=F.normalize(local[..., :-1], dim=-1),
            descriptor_confidence=local[..., -1].exp(),
        )


class DoubleSize(nn.Module):
    """`double_size` as a layer."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        return double_size(features)


def double_size(features: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W), bilinear, the corners' centres kept in place as in DPT."""
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)


def exponential_points(raw: torch.Tensor) -> torch.Tensor:
    """raw (..., 3) -> points (..., 3): the direction stays, the distance d becomes exp(d) - 1 (DUSt3R, eq. 4 ff.)."""
    distance = raw.norm(dim=-1, keepdim=True)
    return raw / distance.clamp(min=1e-8) * distance.expm1()
