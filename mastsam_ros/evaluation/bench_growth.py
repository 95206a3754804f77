"""What piles up over many frames: the whole pipeline with tiny models of random weights, its memory read as it goes."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mastsam_ros.device import torch_device
from mastsam_ros.matchers import Matcher
from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.matcher import Mast3rMatcher
from mastsam_ros.matchers.mast3r.network import Mast3rNetwork
from mastsam_ros.pipeline import Mastsam
from mastsam_ros.segmenters.hf_sam import TransformersNetwork
from mastsam_ros.segmenters.prompted import PromptedSegmenter
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame, MissingPackageError

_WIDTH, _HEIGHT = 128, 96
_SAMPLES = 10
_KEPT = {
    "tracker.forget_after": 20,  # what is lost is remembered for a while; the run is to be long beside it
    "mast3r.image_size": 64,
    "mast3r.min_confidence": 0.0,
    "sam.grid_points": 6,
    "sam.min_iou": 0.0,
    "sam.min_stability": 0.0,
}


@dataclass(frozen=True)
class Sample:
    """After `frame` frames: MB resident, MB that torch holds on a GPU, and MB, number of live tensors and objects."""

    frame: int
    resident_mb: float
    gpu_mb: float
    tensor_mb: float
    tensors: int
    objects: int


@dataclass(frozen=True)
class LongRun:
    """The samples of one run, evenly spread."""

    samples: tuple[Sample, ...]

    def means(self, figure: str) -> tuple[float, float]:
        """Mean of a figure over the middle third and over the last: whatever the start was, equal ones are flat."""
        values = [float(getattr(sample, figure)) for sample in self.samples]
        third = len(values) // 3
        return float(np.mean(values[-2 * third : -third])), float(np.mean(values[-third:]))

    def growth(self, figure: str) -> float:
        """The last third's mean over the middle third's; 1 where both are 0."""
        middle, last = self.means(figure)
        return last / middle if middle else 1.0

    def line(self) -> str:
        """For people."""
        names = {"resident_mb": "resident MB", "gpu_mb": "GPU MB", "tensor_mb": "MB in live tensors"}
        names |= {"tensors": "live tensors", "objects": "Python objects"}
        parts = [f"{text} {self.means(name)[0]:.4g} -> {self.means(name)[1]:.4g}" for name, text in names.items()]
        frames = self.samples[-1].frame
        return f"{frames} frames with tiny models, the middle third -> the last: {', '.join(parts)}."

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = ("resident_mb", "gpu_mb", "tensor_mb", "tensors", "objects")
        grown = {name: self.growth(name) for name in names}
        return {"growth": grown, "samples": [asdict(sample) for sample in self.samples]}


def tiny_sam(device: torch.device) -> Any:
    """Segment Anything with random weights that say something, for images of 128 pixels."""
    try:
        from transformers import SamConfig, SamModel
    except ImportError as error:
        raise MissingPackageError("the bench of the models needs transformers: pip install transformers") from error
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    vision |= {"mlp_dim": 64, "image_size": 128, "window_size": 0, "global_attn_indexes": [0], "num_pos_feats": 16}
    config = SamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    )
    torch.manual_seed(1)
    model = SamModel(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.normal_(mean=float("norm" in name and name.endswith("weight")), std=0.3)
    return model.to(device)


def tiny_mast3r(device: torch.device) -> Mast3rNetwork:
    """MASt3R of random weights with a head as small as the rest."""
    torch.manual_seed(0)
    config = Mast3rConfig(
        encoder_width=32,
        encoder_depth=1,
        encoder_heads=2,
        decoder_width=32,
        decoder_depth=4,
        decoder_heads=2,
        dpt_channels=(8, 8, 16, 16),
        dpt_width=8,
    )
    return Mast3rNetwork(config).eval().requires_grad_(False).to(device)


def long_run(
    settings: Settings, frames: int = 500, wrapped: Callable[[Matcher], Matcher] = lambda matcher: matcher
) -> LongRun:
    """Steps through a picture that moves for `frames` frames. wrapped: what to put round the matcher."""
    device = torch_device(settings.device)
    settings = settings.updated(_KEPT)
    matcher = Mast3rMatcher(settings.mast3r, device, tiny_mast3r(device))
    segmenter = PromptedSegmenter(TransformersNetwork(tiny_sam(device)), settings.sam, device)
    mastsam = Mastsam(wrapped(matcher), segmenter, settings)
    samples = []
    for number in range(1, frames + 1):
        mastsam.step(_moving_picture(number))
        if number % max(1, frames // _SAMPLES) == 0:
            samples.append(_sample(number, device))
    return LongRun(tuple(samples))


def _moving_picture(number: int) -> Frame:
    """Large squares of colour that drift to and fro, and some noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 12, 3), dtype=np.uint8)
    wide = coarse.repeat(_HEIGHT // 6, axis=0).repeat(16, axis=1)
    shift = abs(number % 60 - 30)
    noise = np.random.default_rng(number).integers(0, 8, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)
    return Frame(np.minimum(wide[:, shift : shift + _WIDTH], 247) + noise, stamp_ns=number)


def _sample(number: int, device: torch.device) -> Sample:
    gc.collect()
    tensors, size, objects = 0, 0, 0
    for thing in gc.get_objects():  # no list of them is kept: it would keep them alive
        objects += 1
        if type(thing) is torch.Tensor:
            tensors += 1
            size += thing.numel() * thing.element_size()
    resident = 0
    with contextlib.suppress(OSError):
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
    on_gpu = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    return Sample(number, resident / 1e6, on_gpu / 1e6, size / 1e6, tensors, objects)
