"""Figures of many sequences under many settings: measured by worker processes, and kept, so that none is made twice.

What is kept goes by the pictures, the settings and the version of the code: an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mastsam_ros.evaluation.columns import COLUMNS, Column
from mastsam_ros.evaluation.datasets import LabelledSequence
from mastsam_ros.evaluation.protocols import FlowCache
from mastsam_ros.evaluation.runs import Steps, run_sequence
from mastsam_ros.evaluation.workers import Failure, run_in_processes, run_on_ray
from mastsam_ros.setting_fields import Scalar
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame, FrameResult, MastsamError

VIDEO, RGB, RGB_D = KINDS = ("video", "RGB", "RGB-D")
"""What data are like for the system: pictures of what moves by itself, of a scene at rest, and these with its depth."""
_PROTOCOLS = {
    VIDEO: ("best-mask", "best-track", "consistency"),
    RGB: ("identity", "consistency"),
    RGB_D: ("identity", "consistency"),
}
_SCENE = tuple(c for c in COLUMNS["identity"] if c.head in ("found", "tube IoU", "kept own", "ids made"))
FIGURES: dict[str, tuple[Column, ...]] = {
    VIDEO: (*COLUMNS["best-mask"][:2], *COLUMNS["best-track"], COLUMNS["consistency"][0]),
    RGB: (*_SCENE, COLUMNS["consistency"][1]),
    RGB_D: (*_SCENE, COLUMNS["consistency"][1]),
}
_MATTERS = (
    *("geometry/", "matchers/", "segmenters/", "tracker/", "pipeline.py", "compiled.py", "masks.py", "types.py"),
    *(f"evaluation/{name}.py" for name in ("consistency", "datasets", "identity", "masks", "measured", "overlaps")),
    *(f"evaluation/{name}.py" for name in ("protocols", "runs")),
)
"""How the paths of the files begin that the figures can depend on."""
Changes = tuple[tuple[str, Scalar], ...]
"""Settings that differ from those that were given, as pairs of path and value."""
Figures = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Source:
    """A sequence as the system sees it: kind, one of KINDS. origin: where it comes from, for the table."""

    sequence: LabelledSequence
    kind: str
    origin: str = ""

    @property
    def name(self) -> str:
        """Of the sequence, and how it is seen."""
        return self.sequence.name if self.kind == VIDEO else f"{self.sequence.name} {self.kind}"


def sources_of(sequences: Iterable[LabelledSequence], origin: str = "") -> list[Source]:
    """Videos as they are; scenes without their depth, and with it."""
    return [
        Source(sequence, kind, origin)
        for sequence in sequences
        for kind in ((VIDEO,) if sequence.kind == "video" else (RGB, RGB_D))
    ]


class Measured:
    """The figures of sources under settings, in a folder.

    workers: processes at the same time. ray_address: a Ray cluster instead, whose machines see the same folder.
    """

    def __init__(self, settings: Settings, folder: Path, workers: int = 1, ray_address: str | None = None) -> None:
        self._settings, self._folder, self._workers, self._ray_address = settings, folder, workers, ray_address
        self._version = code_version()

    def prepare(self, wanted: Iterable[tuple[Source, Changes]]) -> list[str]:
        """Measures what is not there yet, a process for each choice of settings. A line for each that failed."""
        missing: dict[Changes, dict[Path, Source]] = {}
        for source, changes in wanted:
            entry = self._entry(source, changes)
            if not entry.is_file():
                missing.setdefault(changes, {})[entry] = source
        tasks = [
            MeasureTask(self._settings.updated(dict(changes)), entries, self._folder / "flow", self._version)
            for changes, entries in missing.items()
        ]
        frames = [sum(len(source.sequence.frames) for source in task.entries.values()) for task in tasks]
        with tqdm(total=sum(frames), unit="frame", leave=False, disable=not sys.stderr.isatty()) as progress:
            if self._ray_address is not None:
                results = run_on_ray(tasks, measure, self._ray_address, frames, progress)
            else:
                results = run_in_processes(tasks, measure, self._workers, [], progress)
        return [
            f"{', '.join(f'{path}={value}' for path, value in changes) or 'the defaults'}: {result.reason}"
            for changes, result in zip(missing, results, strict=True)
            if isinstance(result, Failure)
        ]

    def figures(self, source: Source, changes: Changes) -> Figures:
        """What was measured; nothing where that failed."""
        entry = self._entry(source, changes)
        return dict(json.loads(entry.read_text(encoding="utf-8"))) if entry.is_file() else {}

    def _entry(self, source: Source, changes: Changes) -> Path:
        """The file of the figures: named by all that they depend on."""
        paths = [files.image or files.truth for files in source.sequence.frames]
        stamps = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        key = [self._version, source.kind, stamps, self._settings.updated(dict(changes)).to_mapping()]
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
        return self._folder / f"{source.sequence.name}_{digest}.json"


def code_version() -> str:
    """A digest of the files that the figures can depend on."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).as_posix().startswith(_MATTERS):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class MeasureTask:
    """Sources under one choice of settings, for a worker. entries: where the figures go -> of which source. version: of
    the code that the figures are meant to be of."""

    settings: Settings
    entries: dict[Path, Source]
    flow_folder: Path
    version: str


@dataclass(frozen=True, eq=False)
class _Telling:
    """The system, which tells of every frame."""

    system: Steps
    tell: Callable[[], None]

    def step(self, frame: Frame, upcoming: Frame | None = None) -> FrameResult:
        result = self.system.step(frame, upcoming)
        self.tell()
        return result


def measure(task: MeasureTask, tell: Callable[[], None]) -> None:
    """Measures one source after the other, and writes the figures of each as soon as they are there.

    Raises MastsamError if the code has changed since the task was made.
    """
    from mastsam_ros.pipeline import create_mastsam

    if task.version != code_version():
        raise MastsamError("the code was changed meanwhile: start again; what was measured before is kept apart")
    for entry, source in task.entries.items():
        system, flow = _Telling(create_mastsam(task.settings), tell), FlowCache(task.flow_folder)
        run = run_sequence(source.sequence, system, source.kind == RGB_D, _PROTOCOLS[source.kind], flow)
        values = {column.head: column.value(run.score) for column in FIGURES[source.kind]}
        figures = {head: value if value is not None and np.isfinite(value) else None for head, value in values.items()}
        entry.parent.mkdir(parents=True, exist_ok=True)
        part = entry.with_suffix(".part")
        part.write_text(json.dumps(figures), encoding="utf-8")
        part.replace(entry)
