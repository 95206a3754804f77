"""Foundation models of random weights at work on a still picture, whose truth is then taken for their answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mastsam_ros.matchers import Matcher
from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.heads import ViewPrediction
from mastsam_ros.matchers.mast3r.matcher import Mast3rMatcher
from mastsam_ros.matchers.mast3r.network import EncodedView, Mast3rNetwork
from mastsam_ros.segmenters import Segmenter
from mastsam_ros.segmenters.prompted import LogitMasks, PromptedSegmenter
from mastsam_ros.settings import Mast3rSettings
from mastsam_ros.types import CandidateMasks, Frame, Matches, MissingPackageError, Pointmap, PointPrompts

Timer = Callable[[str], AbstractContextManager[None]]
"""Times a stage, by its name."""


@dataclass(frozen=True)
class Models:
    """Sizes of a pair of models and of the picture they see. decoder_width: channels of SAM's decoder."""

    name: str
    sam: dict[str, Any]
    mast3r: Mast3rConfig
    mast3r_side: int = 512
    width: int = 640
    height: int = 480
    decoder_width: int = 256


_VIT = {"h": (1280, 32, 16, (7, 15, 23, 31)), "b": (768, 12, 12, (2, 5, 8, 11))}
"""Segment Anything's encoders: width, blocks, heads, and the blocks that see the whole picture."""


def full_size(kind: str) -> Models:
    """SAM ViT-H or ViT-B ("h" or "b") with MASt3R ViT-L, as released."""
    width, blocks, heads, whole = _VIT[kind]
    sam = {"hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": heads, "mlp_dim": 4 * width}
    return Models(f"SAM ViT-{kind.upper()} + MASt3R ViT-L", {**sam, "global_attn_indexes": list(whole)}, Mast3rConfig())


def small() -> Models:
    """The same structure for a CPU: as with ViT-H, both encoders work as much as about 2,000 prompts of the decoder."""
    sam: dict[str, Any] = {
        "hidden_size": 384,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "mlp_dim": 1536,
        "image_size": 256,
    }
    sam |= {"output_channels": 64, "num_pos_feats": 32, "global_attn_indexes": [3, 7]}
    return Models("small models", sam, Mast3rConfig.tiny(), 128, decoder_width=64)


class StillPicture:
    """A textured picture before a fronto-parallel wall, cut into `tracks` tiles."""

    def __init__(self, models: Models, tracks: int, device: torch.device) -> None:
        rng = np.random.default_rng(0)
        self._noise = rng.integers(0, 256, (models.height, models.width, 3), dtype=np.uint8)
        height, width = models.height, models.width
        across = int(np.ceil(np.sqrt(tracks * width / height)))
        down = int(np.ceil(tracks / across))
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        # Where the grid has more cells than there are tracks, the last tile takes the rest.
        self.tile = ((y * down // height) * across + x * across // width).clamp(max=tracks - 1).to(device)
        self.masks = self.tile == torch.arange(tracks, device=device)[:, None, None]
        grid = torch.stack([x[2::4, 2::4], y[2::4, 2::4]], dim=-1).reshape(-1, 2).float().to(device)
        self.K = np.array([[500.0, 0, (width - 1) / 2], [0, 500.0, (height - 1) / 2], [0, 0, 1]])
        rays = torch.stack([(x - self.K[0, 2]) / 500, (y - self.K[1, 2]) / 500, torch.ones(height, width)], dim=-1)
        wall = Pointmap((2 * rays).float().to(device), torch.ones(height, width, device=device))
        self.matches = Matches(grid, grid, torch.ones(len(grid), device=device), pointmap0=wall, pointmap1=wall)

    def frame(self) -> Frame:
        """A new frame of it: nothing of the last one may be taken for this one."""
        return Frame(self._noise.copy(), K=self.K)


class StillMatcher:
    """Lets the matcher work and answers that nothing moved."""

    def __init__(self, matcher: Matcher, picture: StillPicture, clock: Timer) -> None:
        self._matcher, self._picture, self._clock = matcher, picture, clock

    def match(self, previous: Frame, current: Frame) -> Matches:
        """Every fourth pixel in x and y is where it was."""
        with self._clock("match"):
            self._matcher.match(previous, current)
        return self._picture.matches


class StillSegmenter:
    """Lets the segmenter work and answers with the tile that the first point of a prompt is on."""

    def __init__(self, segmenter: Segmenter, picture: StillPicture, clock: Timer) -> None:
        self._segmenter, self._picture, self._clock = segmenter, picture, clock

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        """The encoder's work."""
        with self._clock("encode"):
            self._segmenter.set_frame(frame, matches)

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        """The decoder's work for every prompt; its answers in the form it gave them, but three times the tile."""
        with self._clock("predict"):
            answer = self._segmenter.predict(prompts)
        first = prompts.xy[:, 0].round().long()
        tile = self._picture.tile[first[:, 1], first[:, 0]]
        sure = torch.ones(len(tile), 3, device=tile.device)
        if isinstance(answer, LogitMasks):
            square = answer.mapping.on_square(self._picture.tile + 1, answer.logits.shape[-1])
            # Outlines meet on the outer side of a cell's middle, so that no seam between two tiles is left uncovered.
            logits = torch.where(square == tile[:, None, None] + 1, 10.0, -5.0)
            return LogitMasks(answer.mapping, logits[:, None].expand(-1, 3, -1, -1), sure)
        return CandidateMasks(self._picture.masks[tile][:, None].expand(-1, 3, -1, -1), sure)

    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        """All tiles, without the segmenter: only the first frame asks."""
        masks = self._picture.masks if region is None else self._picture.masks & region
        return CandidateMasks(masks[:, None], torch.ones(len(masks), 1, device=masks.device))


class PlainMatcher(Mast3rMatcher):
    """MASt3R as it is put together at first: both views encoded every time, features matched on the host."""

    def __init__(self, settings: Mast3rSettings, device: torch.device, network: Mast3rNetwork) -> None:
        super().__init__(settings, device, network)
        on_device = self._decode

        def decode(first: EncodedView, second: EncodedView) -> tuple[ViewPrediction, ViewPrediction]:
            view0, view1 = on_device(first, second)
            return _on_host(view0), _on_host(view1)

        self._decode = decode

    def match(self, previous: Frame, current: Frame) -> Matches:
        """As the parent's, on the CPU."""
        self._kept = None
        return super().match(previous, current)


class PlainSegmenter(PromptedSegmenter):
    """Segment Anything as its own predictor gives answers: all three masks of every prompt at full size."""

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        """As the parent's, in dense masks."""
        answer = super().predict(prompts)
        return CandidateMasks(answer.masks, answer.scores)


def _on_host(view: ViewPrediction) -> ViewPrediction:
    return ViewPrediction(
        view.points.cpu(), view.confidence.cpu(), view.descriptors.cpu(), view.descriptor_confidence.cpu()
    )


def random_sam(models: Models, device: torch.device) -> Any:
    """Segment Anything of that size with random weights. Raises MissingPackageError without transformers."""
    try:
        from transformers import SamConfig, SamModel
    except ImportError as error:
        raise MissingPackageError("the bench of the models needs transformers: pip install transformers") from error
    width = models.decoder_width
    prompts = {"hidden_size": width, "image_size": models.sam.get("image_size", 1024)}
    decoder = {"hidden_size": width, "mlp_dim": 8 * width, "iou_head_hidden_dim": width}
    config = SamConfig(vision_config=models.sam, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    torch.manual_seed(0)
    with device:
        return SamModel(config).eval().requires_grad_(False)


def random_mast3r(models: Models, device: torch.device) -> Mast3rNetwork:
    """MASt3R of that size with random weights."""
    torch.manual_seed(0)
    with device:
        return Mast3rNetwork(models.mast3r)
