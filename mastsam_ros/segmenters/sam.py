"""Segment Anything (Kirillov et al. 2023) by the package segment-anything, with the published .pth weights."""

from __future__ import annotations

from typing import Any

import torch

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

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """image (1, 3, side, side) -> features (1, C, side / 16, side / 16) float32."""
        return self._model.image_encoder(image).float()

    def decode(
        self, features: torch.Tensor, xy: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """xy (N, K, 2), labels (N, K) -> logits (N, 3, side / 4, side / 4), predicted IoU (N, 3)."""
        sparse, dense = self._model.prompt_encoder(points=(xy, labels), boxes=None, masks=None)
        return self._model.mask_decoder(
            image_embeddings=features,
            image_pe=self._model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )


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
    return PromptedSegmenter(SamNetwork(model.eval().requires_grad_(False).to(device)), settings, device)


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
