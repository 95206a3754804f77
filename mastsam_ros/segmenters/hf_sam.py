"""SAM, SAM-HQ, SAM 2 and EdgeTAM by the package transformers, from a folder with config.json and weights."""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from mastsam_ros.segmenters.prompted import PromptedSegmenter
from mastsam_ros.settings import SamSettings
from mastsam_ros.types import MissingPackageError, ModelError

_CLASSES = {
    "sam": "SamModel",
    "sam_hq": "SamHQModel",
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",
    "edgetam": "EdgeTamModel",
    "edgetam_video": "EdgeTamModel",
}
"""`model_type` of config.json -> the class that segments single images."""


class TransformersNetwork:
    """One of these models behind the seam of `PromptedSegmenter`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._is_hq = model.config.model_type == "sam_hq"
        self.keeps_aspect = model.config.model_type in ("sam", "sam_hq")
        size = model.config.prompt_encoder_config.image_size
        self.side = size if isinstance(size, int) else int(size[0])
        self._dtype = torch.float32
        self.mask_side = 4 * int(model.prompt_encoder.image_embedding_size[0])
        for module in (model.prompt_encoder, model.shared_image_embedding):
            module.forward = _outside_autocast(module.forward)
        for module in model.vision_encoder.modules():
            if callable(read := getattr(module, "get_rel_pos", None)):
                module.get_rel_pos = functools.partial(_kept, {}, read)

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Moves there; the image encoder's weights in that precision."""
        self._model.to(device)
        self._model.vision_encoder.to(dtype)
        self._dtype = dtype

    def encode(self, image: torch.Tensor) -> dict[str, Any]:
        """image (1, 3, side, side) -> what the model's forward takes in place of the image."""
        features = self._model.get_image_embeddings(image.to(self._dtype))
        if self._is_hq:
            embeddings, levels = features
            return {"image_embeddings": embeddings.to(self._dtype), "intermediate_embeddings": self._all(levels)}
        return {"image_embeddings": features.to(self._dtype) if self.keeps_aspect else self._all(features)}

    def _all(self, levels: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        return [level.to(self._dtype) for level in levels]

    def decode(
        self,
        features: dict[str, Any],
        xy: torch.Tensor,
        labels: torch.Tensor,
        masks: torch.Tensor | None,
        boxes: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """xy (N, K, 2), labels (N, K), masks (N, m, m) -> logits (N, 3, side / 4, side / 4), predicted IoU (N, 3)."""
        if masks is None:
            told = {"input_boxes": xy[None, :, -2:].flatten(2)} if boxes else {}
            if boxes:
                xy, labels = xy[:, :-2], labels[:, :-2]
            if labels.shape[1]:
                told |= {"input_points": xy[None], "input_labels": labels[None]}
            answer = self._model(**told, multimask_output=True, **features)
            return answer.pred_masks[0], answer.iou_scores[0]
        # The models take one mask prompt per image of a batch: the image stands there once for each prompt.
        image = features["image_embeddings"]
        repeated = (
            image.expand(len(xy), -1, -1, -1)
            if self.keeps_aspect
            else [level.expand(len(xy), -1, -1, -1) for level in image]
        )
        answer = self._model(
            input_points=xy[:, None],
            input_labels=labels[:, None],
            input_masks=masks[:, None],
            multimask_output=True,
            **{**features, "image_embeddings": repeated},
        )
        return answer.pred_masks[:, 0], answer.iou_scores[:, 0]


def _kept(
    known: dict[Any, torch.Tensor], read: Callable[..., torch.Tensor], rows: int, columns: int, table: torch.Tensor
) -> torch.Tensor:
    """What SAM's attention reads off its table of relative positions, kept: the same in every frame.

    It reads by an index made on the host, which a GPU would wait for in every block.
    """
    key = rows, columns, id(table), table.dtype, table.device, table._version
    if key not in known:
        with table.device:
            known[key] = read(rows, columns, table)
    return known[key]


def _outside_autocast(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The same in float32, its results in the precision of autocast."""

    @functools.wraps(forward)
    def exact(*args: Any, **named: Any) -> Any:
        given = next(value for value in (*args, *named.values()) if isinstance(value, torch.Tensor))
        kind = given.device.type
        if not torch.is_autocast_enabled(kind):
            return forward(*args, **named)
        with torch.autocast(kind, enabled=False):
            results = forward(*args, **named)
        dtype = torch.get_autocast_dtype(kind)
        return tuple(r.to(dtype) for r in results) if isinstance(results, tuple) else results.to(dtype)

    return exact


def create_hf_sam_segmenter(settings: SamSettings, device: torch.device) -> PromptedSegmenter:
    """A segmenter with the model in the folder `settings.checkpoint`; nothing is downloaded.

    Raises MissingPackageError without transformers, ModelError for a folder that holds no such model.
    """
    if not settings.checkpoint:
        raise ModelError("no weights for hf_sam: set sam.checkpoint to a folder with config.json and model.safetensors")
    model = _load(Path(settings.checkpoint).expanduser())
    return PromptedSegmenter(TransformersNetwork(model.eval().requires_grad_(False)), settings, device)


def _load(folder: Path) -> Any:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, vision = config.get("model_type"), config.get("vision_config") or {}
        backbone = (vision.get("backbone_config") or {}).get("model_type", "timm_wrapper")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder} is not a folder of a model of transformers: no readable config.json") from error
    if kind not in _CLASSES:
        raise ModelError(f"{folder} holds a model of type '{kind}', expected one of {', '.join(_CLASSES)}")
    try:
        import transformers
        from safetensors import SafetensorError

        model_class = getattr(transformers, _CLASSES[kind])
    except (ImportError, AttributeError) as error:
        raise MissingPackageError(
            f"segmenter 'hf_sam' needs transformers with {_CLASSES[kind]}: pip install 'transformers>=4.57'"
        ) from error
    if kind.startswith("edgetam") and backbone == "timm_wrapper":
        _require_timm()
    try:
        model, found = model_class.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise ModelError(
            f"{folder} cannot be loaded as {_CLASSES[kind]}: {str(error).splitlines()[0][:200]}"
        ) from error
    missing, misshapen = sorted(found["missing_keys"]), sorted(str(key) for key in found["mismatched_keys"])
    if missing or misshapen:
        raise ModelError(
            f"{folder}: the weights do not fit {_CLASSES[kind]}: {len(missing)} missing,"
            f" {len(misshapen)} of another shape, the first '{(missing + misshapen)[0]}'"
        )
    return model


def _require_timm() -> None:
    """The image encoder of the released EdgeTAM is a model of timm, which imports torchvision."""
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch fails with RuntimeError
        cause = str(error).splitlines()[0]
        raise MissingPackageError(
            f"EdgeTAM needs timm and a torchvision that fits torch: pip install timm torchvision ({cause})"
        ) from error
