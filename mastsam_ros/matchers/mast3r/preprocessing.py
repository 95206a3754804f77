"""From a camera's image to the network's and back: resampling, crop, and the exact mapping of pixels.

What the network says comes back at the camera's pixels, so the camera's K holds for it as it is.

As the released model was trained (with long side 512): Lanczos when shrinking and bicubic when growing, centre crop to
multiples of the patch size (a square becomes 4:3), RGB in [-1, 1].
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mastsam_ros.device import constant, upload
from mastsam_ros.types import InputError


@dataclass(frozen=True)
class ImageMapping:
    """How a frame's pixels lie in the network's image: resized to (resized_width, resized_height), then cropped.

    All sizes are in pixels; (left, top) is the crop's first pixel in the resized image, and (width, height) is
    the size of the network's image.
    """

    frame_width: int
    frame_height: int
    resized_width: int
    resized_height: int
    left: int
    top: int
    width: int
    height: int

    @staticmethod
    def of_size(frame_width: int, frame_height: int, long_side: int, patch_size: int) -> ImageMapping:
        """The mapping that brings a frame's long side to `long_side` and crops to whole patches.

        Raises InputError for a frame that is so narrow that no patch is left.
        """
        scale = long_side / max(frame_width, frame_height)
        resized_width, resized_height = round(frame_width * scale), round(frame_height * scale)
        width = resized_width // patch_size * patch_size
        height = resized_height // patch_size * patch_size
        if width == height:
            height = height * 3 // 4 // patch_size * patch_size
        if width == 0 or height == 0:
            raise InputError(
                f"MASt3R needs images of at least {patch_size} pixels' width once their long side is {long_side},"
                f" got {frame_width}x{frame_height}"
            )
        left, top = (resized_width - width) // 2, (resized_height - height) // 2
        return ImageMapping(frame_width, frame_height, resized_width, resized_height, left, top, width, height)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the network's image per pixel of the frame, in x and in y."""
        return self.resized_width / self.frame_width, self.resized_height / self.frame_height

    def to_network(self, xy: torch.Tensor) -> torch.Tensor:
        """Pixels of the frame (..., 2) float -> pixels of the network's image."""
        scale, crop = constant(self.scale, xy.device), constant((self.left, self.top), xy.device)
        return (xy + 0.5) * scale - 0.5 - crop

    def to_frame(self, xy: torch.Tensor) -> torch.Tensor:
        """Pixels of the network's image (..., 2) float -> pixels of the frame."""
        scale, crop = constant(self.scale, xy.device), constant((self.left, self.top), xy.device)
        return (xy + crop + 0.5) / scale - 0.5


def network_image(image: torch.Tensor, mapping: ImageMapping) -> torch.Tensor:
    """image (H, W, 3) uint8 RGB -> (1, 3, height, width) float32 in [-1, 1], on the image's device.

    Rounded to 8 bits after each direction, as the images were on which the model was trained.
    """
    pixels = image.permute(2, 0, 1).float()
    shrink = mapping.frame_width * mapping.frame_height > mapping.resized_width * mapping.resized_height
    if mapping.resized_width != mapping.frame_width or mapping.resized_height != mapping.frame_height:
        across = _resampling(mapping.frame_width, mapping.resized_width, shrink, image.device)
        down = _resampling(mapping.frame_height, mapping.resized_height, shrink, image.device)
        pixels = (pixels @ across.T).round().clamp(0, 255)
        pixels = (down @ pixels).round().clamp(0, 255)
    rows = slice(mapping.top, mapping.top + mapping.height)
    columns = slice(mapping.left, mapping.left + mapping.width)
    return (pixels[:, rows, columns] / 127.5 - 1)[None].contiguous()


def pointmap_on_frame(
    points: torch.Tensor, confidence: torch.Tensor, mapping: ImageMapping
) -> tuple[torch.Tensor, torch.Tensor]:
    """The network's points (h, w, 3) and confidence (h, w) at the pixels of the frame: (H, W, 3), (H, W) float32.

    Interpolated linearly on surfaces; where the neighbours are apart (an edge in depth) the nearest pixel's point
    is taken, so that no point hangs between two surfaces. Confidence is 0 outside the network's image.
    """
    device = points.device
    y, x = torch.meshgrid(
        torch.arange(mapping.frame_height, device=device, dtype=torch.float32),
        torch.arange(mapping.frame_width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    at = mapping.to_network(torch.stack([x, y], dim=-1))
    size = constant((mapping.width, mapping.height), device)
    inside = ((at >= -0.5) & (at <= size - 0.5)).all(dim=-1)
    grid = (2 * at / (size - 1) - 1)[None]
    planes = torch.cat([points, confidence[..., None]], dim=-1).permute(2, 0, 1)[None]
    smooth = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=True)[0]
    nearest = F.grid_sample(planes, grid, mode="nearest", padding_mode="border", align_corners=True)[0]
    apart = (smooth[:3] - nearest[:3]).norm(dim=0) > _EDGE_RATIO * nearest[:3].norm(dim=0)
    chosen = torch.where(apart, nearest, smooth)
    return chosen[:3].permute(1, 2, 0).contiguous(), torch.where(inside, chosen[3], 0.0)


_EDGE_RATIO = 0.02
"""Neighbouring points of one surface differ by less than this share of their distance, but at grazing angles."""


@functools.lru_cache(maxsize=16)
def _resampling(size: int, resized: int, shrink: bool, device: torch.device) -> torch.Tensor:
    """(resized, size) float32: row i holds the weights of the input's pixels in output pixel i."""
    step = size / resized
    spread = max(1.0, step)
    centre = (torch.arange(resized, dtype=torch.float64)[:, None] + 0.5) * step - 0.5
    distance = ((torch.arange(size, dtype=torch.float64) - centre) / spread).abs()
    weights = _lanczos(distance) if shrink else _bicubic(distance)
    return upload((weights / weights.sum(dim=1, keepdim=True)).float(), device)


def _lanczos(distance: torch.Tensor) -> torch.Tensor:
    return torch.where(distance < 3, torch.sinc(distance) * torch.sinc(distance / 3), 0.0)


def _bicubic(distance: torch.Tensor) -> torch.Tensor:
    """Cubic convolution with slope -1/2 (Keys 1981)."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
