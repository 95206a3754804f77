"""Segment Anything (Kirillov et al. 2023) by the package segment-anything, with the published .pth weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from mastsam_ros.segmenters.prompted import PromptedSegmenter
from mastsam_ros.settings import SamSettings
from mastsam_ros.types import MissingPackageError, ModelError
from mastsam_ros.weights import read_weights, require_fit

_MODELS = {1280: "vit_h", 1024: "vit_l", 768: "vit_b"}
"""Width of the image encoder -> the package's name of the model."""


class SamNetwork:
    """The package's model behind the seam of `PromptedSegmenter`."""

    keeps_aspect = True

    def __init__(self, model: Any) -> None:
        self._model = model
        self.side = int(model.image_encoder.img_size)
        self.mask_side = int(model.prompt_encoder.mask_input_size[0])
        self._dtype = torch.float32
        self._positions: torch.Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Moves there; the image encoder's weights in that precision."""
        self._model.to(device)
        self._model.image_encoder.to(dtype)
        self._dtype, self._positions = dtype, None

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """image (1, 3, side, side) -> features (1, C, side / 16, side / 16)."""
        # The package makes the indices of its relative positions anew in every block: there, not on the host.
        with image.device:
            return self._model.image_encoder(image.to(self._dtype)).to(self._dtype)

    def decode(
        self,
        features: torch.Tensor,
        xy: torch.Tensor,
        labels: torch.Tensor,
        masks: torch.Tensor | None,
        boxes: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """xy (N, K, 2), labels (N, K), masks (N, m, m) -> logits (N, 3, side / 4, side / 4), predicted IoU (N, 3)."""
        with torch.autocast(features.device.type, enabled=False):
            if self._positions is None:
                self._positions = self._model.prompt_encoder.get_dense_pe()
            sparse, dense = self._embedded(xy, labels, boxes), self._dense(masks, len(xy))
        return self._model.mask_decoder(
            image_embeddings=features,
            image_pe=self._positions.to(self._dtype),
            sparse_prompt_embeddings=sparse.to(self._dtype),
            dense_prompt_embeddings=dense.to(self._dtype),
            multimask_output=True,
        )

    def _embedded(self, xy: torch.Tensor, labels: torch.Tensor, boxes: bool) -> torch.Tensor:
        """Points (N, K, 2) as tokens (N, K or K + 1, C), as the package embeds them; it waits six times for the device.

        Without boxes one more stands there that is no point, as in training.
        """
        encoder = self._model.prompt_encoder
        at, kind = xy + 0.5, labels[..., None]
        if not boxes:
            at, kind = F.pad(at, (0, 0, 0, 1)), F.pad(kind, (0, 0, 0, 1), value=-1)
        negative, positive, first_corner, last_corner = (encoder.point_embeddings[n].weight for n in range(4))
        placed = encoder.pe_layer.forward_with_coords(at, encoder.input_image_size)
        corner = torch.where(kind == 2, first_corner, last_corner)
        placed = placed + torch.where(kind > 1, corner, torch.where(kind == 1, positive, negative))
        return torch.where(kind < 0, encoder.not_a_point_embed.weight, placed)

    def _dense(self, masks: torch.Tensor | None, count: int) -> torch.Tensor:
        """Mask prompts (N, m, m) as features (N, C, h, w); without them the package's "no mask"."""
        encoder = self._model.prompt_encoder
        if masks is not None:
            return encoder.mask_downscaling(masks[:, None])
        return encoder.no_mask_embed.weight[:, :, None, None].expand(count, -1, *encoder.image_embedding_size)


def create_sam_segmenter(settings: SamSettings, device: torch.device) -> PromptedSegmenter:
    """A segmenter with the weights `settings.checkpoint`, ViT-H, ViT-L or ViT-B as the file says.

    Raises MissingPackageError without segment-anything, ModelError for a file that is absent or does not fit.
    """
    if not settings.checkpoint:
        raise ModelError(
            "no weights for SAM: set sam.checkpoint to the published .pth file,"
            " or run `mastsam weights fetch sam_vit_h`"
        )
    registry = _registry()
    weights = read_weights(settings.checkpoint)
    patches = weights.get("image_encoder.patch_embed.proj.weight")
    width = 0 if patches is None else int(patches.shape[0])
    if width not in _MODELS:
        raise ModelError(
            f"{settings.checkpoint}: not SAM's weights: expected 'image_encoder.patch_embed.proj.weight' with"
            f" {', '.join(str(w) for w in _MODELS)} channels, got {width or 'none'}"
        )
    model = registry[_MODELS[width]]()
    try:
        require_fit(f"SAM {_MODELS[width]}", model.state_dict(), weights)
    except ModelError as error:
        raise ModelError(f"{settings.checkpoint}: {error}") from None
    model.load_state_dict(weights)
    return PromptedSegmenter(SamNetwork(model.eval().requires_grad_(False)), settings, device)


def _registry() -> Any:
    try:
        from segment_anything import sam_model_registry
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch fails with RuntimeError
        cause = str(error).splitlines()[0]
        raise MissingPackageError(
            "segmenter 'sam' needs segment-anything and a torchvision that fits torch:"
            f" pip install segment-anything torchvision ({cause})"
        ) from error
    return sam_model_registry
