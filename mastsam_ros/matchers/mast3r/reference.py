"""The authors' package `mast3r` in place of this package's network, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.heads import ViewPrediction
from mastsam_ros.matchers.mast3r.network import EncodedView
from mastsam_ros.types import MissingPackageError, ModelError


class ReferenceNetwork(nn.Module):
    """The package's model with the two methods of `Mast3rNetwork`; it computes in float32.

    The package encodes both views in one call, so what `encode` keeps is the image.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.config = Mast3rConfig()
        self._model = model

    def encode(self, image: torch.Tensor) -> EncodedView:
        """image (1, 3, H, W) float in [-1, 1], kept as it is."""
        return EncodedView(image, int(image.shape[-2]), int(image.shape[-1]))

    def decode(self, first: EncodedView, second: EncodedView) -> tuple[ViewPrediction, ViewPrediction]:
        """What the package's model says of both views; all points are in the first view's camera."""
        answer1, answer2 = self._model(_view(first, 0), _view(second, 1))
        return _prediction(answer1, "pts3d"), _prediction(answer2, "pts3d_in_other_view")


def load_reference(path: str | Path) -> ReferenceNetwork:
    """The package's model with the weights of a .pth file, read by the package: only for files that you trust.

    Raises MissingPackageError without the package, ModelError for a file that is absent or that it cannot read.
    """
    try:
        from mast3r.model import AsymmetricMASt3R
    except ImportError as error:
        raise MissingPackageError(
            "mast3r.implementation 'reference' needs the authors' package, see https://github.com/naver/mast3r"
            f" (CC BY-NC-SA 4.0), on the Python path ({error})"
        ) from error
    if not Path(path).is_file():
        raise ModelError(f"no MASt3R checkpoint at '{path}': set mast3r.checkpoint, or `mastsam weights fetch mast3r`")
    try:
        model = AsymmetricMASt3R.from_pretrained(str(path))
    except Exception as error:  # whatever the package raises for a file that it cannot read
        raise ModelError(f"the package mast3r cannot load {path}: {type(error).__name__}: {error}") from error
    return ReferenceNetwork(model)


def _view(view: EncodedView, index: int) -> dict[str, Any]:
    shape = torch.tensor([[view.height, view.width]], device=view.tokens.device)
    return {"img": view.tokens, "true_shape": shape, "idx": [index], "instance": [str(index)]}


def _prediction(answer: dict[str, torch.Tensor], points: str) -> ViewPrediction:
    return ViewPrediction(
        answer[points].float(), answer["conf"].float(), answer["desc"].float(), answer["desc_conf"].float()
    )
