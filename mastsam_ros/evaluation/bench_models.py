"""`mastsam bench --models`: what a step costs with the foundation models, beside the plain composition and the floor.

The weights are random: they cost the same as the released ones and know nothing. So each network does its work, and
what it answers is then replaced by the truth of a still picture of tiles, one track each.
"""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from mastsam_ros.device import torch_device
from mastsam_ros.evaluation.host_reads import HostReads
from mastsam_ros.evaluation.tables import table
from mastsam_ros.matchers import Matcher
from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.heads import ViewPrediction
from mastsam_ros.matchers.mast3r.matcher import Mast3rMatcher
from mastsam_ros.matchers.mast3r.network import EncodedView, Mast3rNetwork
from mastsam_ros.pipeline import Mastsam
from mastsam_ros.segmenters import Segmenter
from mastsam_ros.segmenters.hf_sam import TransformersNetwork
from mastsam_ros.segmenters.prompted import PromptedSegmenter
from mastsam_ros.settings import Mast3rSettings, Settings
from mastsam_ros.types import CandidateMasks, Frame, Matches, MissingPackageError, Pointmap, PointPrompts

_WARM_UP = 3
NETWORK_STAGES = ("match", "encode", "predict")
PLAIN = {"sam.precision": "float32", "sam.prompts_per_call": 1, "mast3r.precision": "float32"}
"""Settings of the plain composition; its matcher is `PlainMatcher`."""


@dataclass(frozen=True)
class Models:
    """Sizes of a pair of models and of the picture they see."""

    name: str
    sam: dict[str, Any]
    mast3r: Mast3rConfig
    mast3r_side: int = 512
    width: int = 640
    height: int = 480


_VIT = {"h": (1280, 32, 16, (7, 15, 23, 31)), "b": (768, 12, 12, (2, 5, 8, 11))}
"""Segment Anything's encoders: width, blocks, heads, and the blocks that see the whole picture."""


def full_size(kind: str) -> Models:
    """SAM ViT-H or ViT-B ("h" or "b") with MASt3R ViT-L, as released."""
    width, blocks, heads, whole = _VIT[kind]
    sam = {"hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": heads, "mlp_dim": 4 * width}
    return Models(f"SAM ViT-{kind.upper()} + MASt3R ViT-L", {**sam, "global_attn_indexes": list(whole)}, Mast3rConfig())


def small() -> Models:
    """The same structure for a CPU."""
    sam = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "mlp_dim": 384, "image_size": 256}
    return Models("small models", {**sam, "global_attn_indexes": [3]}, Mast3rConfig.tiny(), 128, 320, 240)


@dataclass
class Timings:
    """Milliseconds of every frame, per stage and for the whole step; peak memory; the networks' work per stage.

    host_reads: how often one step waits for the device because the host reads from it; image_reads: of these, how
    often more than four bytes per pixel.
    """

    step: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    tracks: int = 0
    peak_gb: float | None = None
    flops: dict[str, int] = field(default_factory=dict)
    weight_bytes: dict[str, int] = field(default_factory=dict)
    host_reads: int = 0
    image_reads: int = 0

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        stages = {**self.stages, "step": self.step}
        return {
            "ms": {stage: {"p50": _p(50, ms), "p95": _p(95, ms)} for stage, ms in stages.items()},
            "tracks": self.tracks,
            "peak_gb": self.peak_gb,
            "flops": self.flops,
            "weight_bytes": self.weight_bytes,
            "host_reads": self.host_reads,
            "image_reads": self.image_reads,
        }


class Clock:
    """Times stages with the device idle before and after; counts their operations instead while `counting`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.timings = Timings()
        self.counting = False

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        from torch.utils.flop_counter import FlopCounterMode

        if self.counting:
            with FlopCounterMode(display=False) as counter:
                yield
            self.timings.flops[stage] = int(counter.get_total_flops())
            return
        start = self.now_ms()
        yield
        self.timings.stages[stage].append(self.now_ms() - start)

    def now_ms(self) -> float:
        """The steady clock once the device has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() * 1e3


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

    def __init__(self, matcher: Matcher, picture: StillPicture, clock: Clock) -> None:
        self._matcher, self._picture, self._clock = matcher, picture, clock

    def match(self, previous: Frame, current: Frame) -> Matches:
        """Every fourth pixel in x and y is where it was."""
        with self._clock("match"):
            self._matcher.match(previous, current)
        return self._picture.matches


class StillSegmenter:
    """Lets the segmenter work and answers with the tile that the first point of a prompt is on."""

    def __init__(self, segmenter: Segmenter, picture: StillPicture, clock: Clock) -> None:
        self._segmenter, self._picture, self._clock = segmenter, picture, clock

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        """The encoder's work."""
        with self._clock("encode"):
            self._segmenter.set_frame(frame, matches)

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        """The decoder's work for every prompt; three times the tile."""
        with self._clock("predict"):
            self._segmenter.predict(prompts)
        first = prompts.xy[:, 0].round().long()
        masks = self._picture.masks[self._picture.tile[first[:, 1], first[:, 0]]]
        return CandidateMasks(masks[:, None].expand(-1, 3, -1, -1), torch.ones(len(masks), 3, device=masks.device))

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
    side = {"image_size": models.sam["image_size"]} if "image_size" in models.sam else {}
    torch.manual_seed(0)
    with device:
        return SamModel(SamConfig(vision_config=models.sam, prompt_encoder_config=side)).eval().requires_grad_(False)


def random_mast3r(models: Models, device: torch.device) -> Mast3rNetwork:
    """MASt3R of that size with random weights."""
    torch.manual_seed(0)
    with device:
        return Mast3rNetwork(models.mast3r)


def measure(models: Models, tracks: int, settings: Settings, frames: int, plain: bool = False) -> Timings:
    """Times `frames` steps with so many tracks.

    plain: the plain composition, that is float32, no kept encodings, one mask per decoder call, matching on the host.
    """
    device = torch_device(settings.device)
    values: dict[str, Any] = {"mast3r.image_size": models.mast3r_side, "frame.working_pixels": 0}
    settings = settings.updated({**values, "mast3r.min_confidence": 0.0, **(PLAIN if plain else {})})
    sam, mast3r = random_sam(models, device), random_mast3r(models, device)
    matcher = (PlainMatcher if plain else Mast3rMatcher)(settings.mast3r, device, mast3r)
    clock, picture = Clock(device), StillPicture(models, tracks, device)
    mastsam = Mastsam(
        StillMatcher(matcher, picture, clock),
        StillSegmenter(PromptedSegmenter(TransformersNetwork(sam), settings.sam, device), picture, clock),
        settings,
    )
    for _ in range(_WARM_UP):
        mastsam.step(picture.frame())
    clock.counting = True
    with HostReads() as reads:
        mastsam.step(picture.frame())
    clock.counting = False
    timings = clock.timings
    timings.host_reads = reads.total
    timings.image_reads = sum(size > 4 * models.height * models.width for size in reads.transfers)
    encoder = _bytes(sam.vision_encoder)
    timings.weight_bytes = {"match": _bytes(mast3r), "encode": encoder, "predict": _bytes(sam) - encoder}
    timings.stages.clear()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(frames):
        start = clock.now_ms()
        result = mastsam.step(picture.frame())
        timings.step.append(clock.now_ms() - start)
        networks = sum(timings.stages[stage][-1] for stage in NETWORK_STAGES)
        timings.stages["rest"].append(timings.step[-1] - networks)
    timings.tracks = len(result.tracks)
    if device.type == "cuda":
        timings.peak_gb = torch.cuda.max_memory_allocated(device) / 1e9
    return timings


@dataclass(frozen=True)
class Machine:
    """What this machine does at best: matrix products (operations/s, two per multiply-add) and copies (bytes/s)."""

    name: str
    rates: dict[torch.dtype, float]
    bandwidth: float

    @staticmethod
    def measured(device: torch.device) -> Machine:
        """Times large matrix products and a large copy on the device."""
        on_gpu = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if on_gpu else f"{platform.machine()} CPU"
        clock, side = Clock(device), 8192 if on_gpu else 1024
        rates = {}
        for dtype in (torch.bfloat16, torch.float32) if on_gpu else (torch.float32,):
            matrix = torch.ones(side, side, dtype=dtype, device=device)
            rates[dtype] = 2 * side**3 / _best_seconds(clock, lambda m=matrix: m @ m)  # type: ignore[misc]
        block = torch.ones(1 << (28 if on_gpu else 23), device=device)
        return Machine(name, rates, 2 * 4 * len(block) / _best_seconds(clock, block.clone))

    def floor_ms(self, timings: Timings) -> dict[str, float]:
        """Per stage of the networks, the time that its operations or one reading of its weights takes at best."""
        rate = {"predict": self.rates[torch.float32]}  # the decoder computes in float32
        return {
            stage: 1e3
            * max(count / rate.get(stage, max(self.rates.values())), timings.weight_bytes[stage] / self.bandwidth)
            for stage, count in timings.flops.items()
        }


def _best_seconds(clock: Clock, work: Callable[[], object]) -> float:
    work()
    spent = []
    for _ in range(5):
        start = clock.now_ms()
        work()
        spent.append(clock.now_ms() - start)
    return min(spent) / 1e3


def bench_models(settings: Settings, frames: int | None) -> tuple[str, dict[str, Any]]:
    """The table and the figures: full size on a GPU; without one it says so, and small models stand there instead."""
    device = torch_device(settings.device)
    machine = Machine.measured(device)
    on_gpu = device.type == "cuda"
    rows: list[tuple[str, list[Any]]] = []
    figures: dict[str, Any] = {"machine": machine.name, "bandwidth": machine.bandwidth}
    figures["rates"] = {str(dtype): rate for dtype, rate in machine.rates.items()}
    for models, counts in (
        ((full_size("h"), (32, 8, 128)), (full_size("b"), (32,))) if on_gpu else ((small(), (32, 8)),)
    ):
        plain = measure(models, counts[0], settings, (frames or 10) // (1 if on_gpu else 2), plain=True)
        for tracks in counts:
            done = measure(models, tracks, settings, frames or (50 if on_gpu else 6))
            faster = _p(50, plain.step) / _p(50, done.step) if tracks == counts[0] else None
            rows.append(_row(f"{models.name}, {tracks} tracks", done, machine, faster))
            figures[rows[-1][0]] = {**done.to_mapping(), "floor_ms": machine.floor_ms(done), "times_as_fast": faster}
        rows.append(_row(f"{models.name}, {counts[0]} tracks, plain", plain, machine, None))
        figures[rows[-1][0]] = {**plain.to_mapping(), "floor_ms": machine.floor_ms(plain)}
    if not on_gpu:
        for models in (full_size("b"), full_size("h")):
            rows.insert(0, (f"{models.name}: not run, no GPU", [None] * 8))
    heads = [f"models on {machine.name}", "step", *NETWORK_STAGES, "rest", "floor", "x plain", "GB"]
    text = table(heads, rows, "s s s s s .1f .1f .2f")
    rates = ", ".join(f"{str(dtype)[6:]} {rate / 1e12:.2f} T/s" for dtype, rate in machine.rates.items())
    return f"{text}\nms, p50/p95. Measured: {rates}, copies {machine.bandwidth / 1e9:.0f} GB/s.", figures


def _row(name: str, timings: Timings, machine: Machine, faster: float | None) -> tuple[str, list[Any]]:
    stages = [timings.step, *(timings.stages[stage] for stage in (*NETWORK_STAGES, "rest"))]
    floor = sum(machine.floor_ms(timings).values())
    return name, [*(f"{_p(50, ms):.1f}/{_p(95, ms):.1f}" for ms in stages), floor, faster, timings.peak_gb]


def _p(percent: int, values: list[float]) -> float:
    return float(np.percentile(values, percent))


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
