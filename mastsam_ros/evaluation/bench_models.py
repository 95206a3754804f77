"""`mastsam bench --models`: what a step costs with the foundation models, beside the plain composition and the floor.

The weights are random: they cost the same as the released ones and know nothing. So each network does its work, and
what it answers is then replaced by the truth of a still picture of tiles, one track each. On a GPU the models have full
size; on a CPU they are about 200 times smaller, in the same proportions of work. Times on a CPU are CPU time.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mastsam_ros.device import looking_is_free, one_thread, out_of_memory_told, torch_device
from mastsam_ros.evaluation.bench_growth import long_run
from mastsam_ros.evaluation.host_reads import HostReads, PretendedDevice
from mastsam_ros.evaluation.random_models import (
    Models,
    PlainMatcher,
    PlainSegmenter,
    StillMatcher,
    StillPicture,
    StillSegmenter,
    full_size,
    random_mast3r,
    random_sam,
    small,
)
from mastsam_ros.evaluation.tables import table, write_json, write_text
from mastsam_ros.matchers.mast3r.matcher import Mast3rMatcher
from mastsam_ros.matchers.mast3r.network import Mast3rNetwork
from mastsam_ros.pipeline import Mastsam
from mastsam_ros.segmenters.hf_sam import TransformersNetwork
from mastsam_ros.segmenters.prompted import PromptedSegmenter
from mastsam_ros.settings import Settings
from mastsam_ros.types import (
    ModelError,
)

_WARM_UP = 3
_PLAIN_TRACKS = 32
NETWORK_STAGES = ("match", "encode", "predict")
_COLUMNS = ("step", *NETWORK_STAGES, "rest", "floor", "x floor", "x plain", "GB", "reads")
PLAIN = {"sam.precision": "float32", "sam.prompts_per_call": 1, "mast3r.precision": "float32"}
"""Settings of the plain composition; its matcher and segmenter are `PlainMatcher` and `PlainSegmenter`."""


@dataclass
class Timings:
    """Milliseconds of every frame, per stage and for the whole step; peak memory; the networks' work per stage.

    host_reads: how often one step waits for the device because the host reads from it; image_reads: of these, how
    often more than a byte per pixel; uploads: how often it waits for what it takes there.
    """

    step: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    tracks: int = 0
    peak_gb: float | None = None
    flops: dict[str, int] = field(default_factory=dict)
    weight_bytes: dict[str, int] = field(default_factory=dict)
    host_reads: int = 0
    image_reads: int = 0
    uploads: int = 0

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
            "uploads": self.uploads,
        }


class Clock:
    """Times stages with the device idle before and after; counts their operations instead while `counting`, and does
    neither while `resting`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.timings = Timings()
        self.counting = False
        self.resting = False

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        from torch.utils.flop_counter import FlopCounterMode

        if self.counting:
            with FlopCounterMode(display=False) as counter:
                yield
            self.timings.flops[stage] = int(counter.get_total_flops())
            return
        if self.resting:
            yield
            return
        start = self.now_ms()
        yield
        self.timings.stages[stage].append(self.now_ms() - start)

    def now_ms(self) -> float:
        """The steady clock once a GPU has nothing left to do; of a CPU, its time spent here: others may use it too."""
        if looking_is_free(self.device):
            return time.process_time() * 1e3
        torch.cuda.synchronize(self.device)
        return time.perf_counter() * 1e3


def measure(models: Models, tracks: int, settings: Settings, frames: int, plain: bool = False) -> Timings:
    """Times `frames` steps with so many tracks.

    plain: the plain composition, that is float32, no kept encodings, one mask per decoder call, all of its candidates
    at full size, matching on the host. Raises ModelError where the GPU's memory is too small.
    """
    device = torch_device(settings.device)
    values: dict[str, Any] = {"mast3r.image_size": models.mast3r_side, "frame.working_pixels": 0}
    settings = settings.updated({**values, "mast3r.min_confidence": 0.0, **(PLAIN if plain else {})})
    memory = PeakMemory(device)
    with out_of_memory_told("this row needs a larger one"):
        sam, mast3r = random_sam(models, device), random_mast3r(models, device)
        composed = _Composed(models, tracks, settings, sam, mast3r, plain)
        mastsam, picture, clock = composed.on(device)
        for _ in range(_WARM_UP):
            mastsam.step(picture.frame())
        clock.counting = True
        with HostReads() as reads:
            mastsam.step(picture.frame())
        clock.counting = False
        timings = clock.timings
        if looking_is_free(device):
            reads = composed.reads_of_a_gpu()
            gc.collect()
        timings.host_reads, timings.uploads = reads.total, reads.uploads.total()
        timings.image_reads = sum(size > models.height * models.width for size in reads.transfers)
        encoder = _bytes(sam.vision_encoder)
        timings.weight_bytes = {"match": _bytes(mast3r), "encode": encoder, "predict": _bytes(sam) - encoder}
        timings.stages.clear()
        memory.restart()
        timings.tracks = _time_steps(mastsam, picture, clock, frames)
    timings.peak_gb = memory.peak_gb()
    return timings


@dataclass(frozen=True)
class _Composed:
    """The pipeline with these networks round a picture of so many tracks."""

    models: Models
    tracks: int
    settings: Settings
    sam: Any
    mast3r: Mast3rNetwork
    plain: bool

    def on(self, device: torch.device) -> tuple[Mastsam, StillPicture, Clock]:
        """With everything on the device."""
        settings, clock = self.settings, Clock(device)
        matcher = (PlainMatcher if self.plain else Mast3rMatcher)(settings.mast3r, device, self.mast3r)
        network = TransformersNetwork(self.sam)
        segmenter = (PlainSegmenter if self.plain else PromptedSegmenter)(network, settings.sam, device)
        picture = StillPicture(self.models, self.tracks, device)
        still = StillMatcher(matcher, picture, clock), StillSegmenter(segmenter, picture, clock)
        mastsam = Mastsam(*still, settings)
        mastsam.device = device
        return mastsam, picture, clock

    def reads_of_a_gpu(self) -> HostReads:
        """What a step would read from a GPU, and take there and wait for, counted without one."""
        cpu = torch.device("cpu")
        pretending = replace(self, sam=random_sam(self.models, cpu), mast3r=random_mast3r(self.models, cpu))
        with PretendedDevice() as reads:
            mastsam, picture, clock = pretending.on(reads.device)
            clock.resting = True
            for _ in range(_WARM_UP):
                reads.restart()
                mastsam.step(picture.frame())
        return reads


def _time_steps(mastsam: Mastsam, picture: StillPicture, clock: Clock, frames: int) -> int:
    """Whole steps first, then again with the stages timed: waiting at their ends keeps a GPU from running ahead.

    Returns the number of tracks of the last frame.
    """
    timings = clock.timings
    clock.resting = True
    for _ in range(frames):
        frame = picture.frame()
        start = clock.now_ms()
        mastsam.step(frame)
        timings.step.append(clock.now_ms() - start)
    clock.resting = False
    for _ in range(frames):
        frame = picture.frame()
        start = clock.now_ms()
        mastsam.step(frame)
        networks = sum(timings.stages[stage][-1] for stage in NETWORK_STAGES)
        timings.stages["rest"].append(clock.now_ms() - start - networks)
    moment = mastsam.moment()
    return 0 if moment is None else len(moment.active)


class PeakMemory:
    """The most memory used since `restart`: of a GPU what torch allocates there, else what the process holds."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()  # what the last row left behind
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def restart(self) -> None:
        """From here on. Linux forgets a process's peak when 5 is written to this file."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak_gb(self) -> float | None:
        """10^9 bytes, None where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e9
        try:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM")), None)


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
        name = torch.cuda.get_device_name(device) if on_gpu else cpu_name()
        clock, side = Clock(device), 8192 if on_gpu else 1024
        rates = {}
        for dtype in (torch.bfloat16, torch.float32) if on_gpu else (torch.float32,):
            matrix = torch.ones(side, side, dtype=dtype, device=device)
            rates[dtype] = 2 * side**3 / _best_seconds(clock, lambda m=matrix: m @ m)  # type: ignore[misc]
        block = torch.ones(1 << (28 if on_gpu else 23), device=device)
        return Machine(name, rates, 2 * 4 * len(block) / _best_seconds(clock, block.clone))

    def floor_ms(self, timings: Timings) -> dict[str, float]:
        """Per stage of the networks, the time that its operations or one reading of its weights takes at best."""
        rate = max(self.rates.values())
        return {
            stage: 1e3 * max(count / rate, timings.weight_bytes[stage] / self.bandwidth)
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
    """The tables and the figures: full size on a GPU; without one it says so, and small models stand there instead."""
    device = torch_device(settings.device)
    on_gpu = device.type == "cuda"
    with one_thread(device):
        machine = Machine.measured(device)
        rows: list[tuple[str, list[Any]]] = []
        figures: dict[str, Any] = {}
        if not on_gpu:
            for models in (full_size("h"), full_size("b")):
                rows.append((f"{models.name}: not run, no GPU", [None] * len(_COLUMNS)))
        for models, counts in (
            ((full_size("h"), (8, 32, 128)), (full_size("b"), (32,))) if on_gpu else ((small(), (8, 32, 128)),)
        ):
            rows += _rows_of(models, counts, settings, frames or (50 if on_gpu else 6), machine, figures)
        growth = long_run(settings)
    figures["frames_500"] = growth.to_mapping()
    about = about_this_machine(machine, settings)
    what = "ms" if on_gpu else "ms of CPU time, one thread"
    heads = [f"models on {machine.name}", *_COLUMNS]
    text = table(heads, rows, "s s s s s .1f .1f .1f .2f d")
    rates = ", ".join(f"{str(dtype)[6:]} {rate / 1e12:.2f} T/s" for dtype, rate in machine.rates.items())
    lines = [
        f"{what}, p50/p95. Measured: {rates}, copies {machine.bandwidth / 1e9:.0f} GB/s. {about['date']}.",
        *figures.pop("remarks", []),
        growth.line(),
    ]
    return text + "\n" + "\n".join(lines), {**about, "rows": figures}


def _rows_of(
    models: Models,
    counts: tuple[int, ...],
    settings: Settings,
    frames: int,
    machine: Machine,
    figures: dict[str, Any],
) -> list[tuple[str, list[Any]]]:
    """One row for each number of tracks, and the plain composition's with `_PLAIN_TRACKS`; also into `figures`."""
    names = {tracks: f"{models.name}, {tracks} tracks" for tracks in counts}
    done: dict[str, Timings | None] = {}
    for tracks in counts:
        done[names[tracks]] = _measured(names[tracks], figures, models, tracks, settings, frames)
    plain_name = f"{names[_PLAIN_TRACKS]}, plain"
    done[plain_name] = _measured(plain_name, figures, models, _PLAIN_TRACKS, settings, max(2, frames // 10), plain=True)
    rows = []
    for name, timings in done.items():
        if timings is None:
            rows.append((f"{name}: failed", [None] * len(_COLUMNS)))
            figures.setdefault("remarks", []).append(f"{name}: {figures[name]['failed']}.")
            continue
        plain = done[plain_name] if name == names[_PLAIN_TRACKS] else None
        faster = _p(50, plain.step) / _p(50, timings.step) if plain is not None else None
        figures[name] = {**timings.to_mapping(), "floor_ms": machine.floor_ms(timings), "times_as_fast": faster}
        rows.append(_row(name, timings, machine, faster))
    few, many = done[names[counts[0]]], done[names[counts[-1]]]
    if len(counts) > 1 and few is not None and many is not None:
        grown = {stage: _p(50, many.stages[stage]) / _p(50, few.stages[stage]) for stage in (*NETWORK_STAGES, "rest")}
        step = _p(50, many.step) / _p(50, few.step)
        parts = ", ".join(f"{stage} x {times:.2f}" for stage, times in grown.items())
        line = f"{models.name}, from {counts[0]} to {counts[-1]} tracks: step x {step:.2f} ({parts})."
        figures.setdefault("remarks", []).append(line)
        figures[names[counts[-1]]]["times_the_fewest_tracks"] = {"step": step, **grown}
    return rows


def _measured(name: str, figures: dict[str, Any], *measured: Any, **options: Any) -> Timings | None:
    """`measure`, or None and the reason in the figures: the GPU's memory is too small, or numbers are not finite."""
    try:
        return measure(*measured, **options)
    except ModelError as error:
        figures[name] = {"failed": str(error)}
        return None


def about_this_machine(machine: Machine, settings: Settings) -> dict[str, Any]:
    """What a reader of the figures must know: machine, date of the clock, versions, what was set and what was not."""
    packages = {}
    for package in ("mastsam_ros", "torch", "transformers", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            packages[package] = version(package)
    default = Settings().flat()
    return {
        "machine": machine.name,
        "cores": os.cpu_count(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **packages, "cuda": torch.version.cuda},
        "changed_settings": {path: value for path, value in settings.flat().items() if value != default[path]},
        "settings": settings.flat(),
        "bandwidth": machine.bandwidth,
        "rates": {str(dtype): rate for dtype, rate in machine.rates.items()},
    }


def write_results(folder: Path, text: str, figures: dict[str, Any]) -> Path:
    """Both into `folder`, under the machine's name: <name>.md and <name>.json. Returns the first. Raises InputError."""
    path = folder / (re.sub(r"[^a-z0-9]+", "-", figures["machine"].lower()).strip("-") + ".md")
    versions = ", ".join(f"{package} {number}" for package, number in figures["versions"].items() if number)
    changed = ", ".join(f"{name}={value}" for name, value in figures["changed_settings"].items()) or "the defaults"
    head = f"# `mastsam bench --models` on {figures['machine']}\n\n{figures['date']}, {figures['cores']} CPU cores."
    write_text(path, f"{head} {versions}. Settings: {changed}.\n\n{text}\n")
    write_json(path.with_suffix(".json"), figures)
    return path


def cpu_name() -> str:
    """The CPU's own name where Linux tells it, else the kind of machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names and names[0] else platform.machine()} CPU"


def _row(name: str, timings: Timings, machine: Machine, faster: float | None) -> tuple[str, list[Any]]:
    stages = [timings.step, *(timings.stages[stage] for stage in (*NETWORK_STAGES, "rest"))]
    floor = sum(machine.floor_ms(timings).values())
    times = [f"{_p(50, ms):.1f}/{_p(95, ms):.1f}" for ms in stages]
    return name, [*times, floor, _p(50, timings.step) / floor, faster, timings.peak_gb, timings.host_reads]


def _p(percent: int, values: list[float]) -> float:
    return float(np.percentile(values, percent))


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
