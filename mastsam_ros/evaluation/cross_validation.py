"""`mastsam bench --cross-validate`: settings chosen on all sequences but one, and scored on that one, for each in turn.

What was measured is kept, per source, settings and version of the code: an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mastsam_ros.evaluation.columns import COLUMNS, Column
from mastsam_ros.evaluation.datasets import LabelledSequence
from mastsam_ros.evaluation.protocols import FlowCache
from mastsam_ros.evaluation.runs import run_sequence
from mastsam_ros.evaluation.tables import table
from mastsam_ros.evaluation.workers import Failure, run_in_processes
from mastsam_ros.settings import Scalar, Settings
from mastsam_ros.types import MastsamError

KINDS = ("video", "RGB", "RGB-D")
GRID: dict[str, tuple[tuple[Scalar, ...], tuple[str, ...]]] = {
    "regions.boundary_cost": ((12.0, 17.0, 24.0), KINDS),
    "regions.contrast_weight": ((1.0, 2.0, 4.0), KINDS),
    "regions.prior_weight": ((0.3, 0.6, 1.2), KINDS),
    "tracker.confirm_part_after": ((12, 24, 48), KINDS),
    "tracker.join_iou": ((0.6, 0.7, 0.8), KINDS),
    "regions.crease_angle_deg": ((30.0, 40.0, 50.0), ("RGB-D",)),
}
"""Setting -> the values to choose from, and the kinds of source that it can change anything for; in this order."""
_SCENE = tuple(c for c in COLUMNS["identity"] if c.head in ("found", "tube IoU", "ids made"))
FIGURES: dict[str, tuple[Column, ...]] = {
    "video": (COLUMNS["best-mask"][0], *COLUMNS["best-track"], COLUMNS["consistency"][0]),
    "RGB": (*_SCENE, COLUMNS["consistency"][1]),
    "RGB-D": (*_SCENE, COLUMNS["consistency"][1]),
}
_PROTOCOLS = {
    "video": ("best-mask", "best-track", "consistency"),
    "RGB": ("identity", "consistency"),
    "RGB-D": ("identity", "consistency"),
}
_MERIT = {"best track IoU": 1.0, "consistency %": 0.01, "tube IoU": 1.0, "H %": 0.01}
"""What settings are chosen by: how well things are found and how well they keep their ids, in equal parts."""
_SOURCES_OF_RESULTS = ("evaluation", "geometry", "matchers", "segmenters", "tracker", "pipeline.py", "types.py")
Changes = tuple[tuple[str, Scalar], ...]
"""Settings that differ from those that were given, as pairs of path and value."""
Figures = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Source:
    """A sequence as the system sees it: kind, one of KINDS. origin: where it comes from, for the table."""

    sequence: LabelledSequence
    kind: str
    origin: str

    @property
    def name(self) -> str:
        """Of the sequence, and how it is seen."""
        return self.sequence.name if self.kind == "video" else f"{self.sequence.name} {self.kind}"

    def relevant(self, changes: Changes) -> Changes:
        """Those that can change anything for this source."""
        return tuple(change for change in changes if self.kind in GRID[change[0]][1])


def sources_of(sequences: Iterable[LabelledSequence], origin: str) -> list[Source]:
    """Videos as they are; scenes without their depth, and with it."""
    return [
        Source(sequence, kind, origin)
        for sequence in sequences
        for kind in (("video",) if sequence.kind == "video" else ("RGB", "RGB-D"))
    ]


class Measured:
    """The figures of sources under settings; what is missing is measured by worker processes and kept in a folder."""

    def __init__(self, settings: Settings, folder: Path, workers: int) -> None:
        self._settings, self._folder, self._workers = settings, folder, workers
        self._version = code_version()

    def prepare(self, wanted: Iterable[tuple[Source, Changes]]) -> None:
        """Measures what is not there yet, a process for each choice of settings. Raises MastsamError if one fails."""
        missing: dict[Changes, dict[Path, Source]] = {}
        for source, changes in wanted:
            changes = source.relevant(changes)
            if not self._entry(source, changes).is_file():
                missing.setdefault(changes, {})[self._entry(source, changes)] = source
        tasks = [
            MeasureTask(self._settings.updated(dict(changes)), entries, self._folder / "flow")
            for changes, entries in missing.items()
        ]
        frames = sum(len(source.sequence.frames) for task in tasks for source in task.entries.values())
        with tqdm(total=frames, unit="frame", leave=False, disable=not sys.stderr.isatty()) as progress:
            results = run_in_processes(tasks, measure, self._workers, [], progress)
        for result in results:
            if isinstance(result, Failure):
                raise MastsamError(f"cross-validation stopped (what was measured is kept): {result.reason}")

    def figures(self, source: Source, changes: Changes) -> Figures:
        """What was measured before."""
        return dict(json.loads(self._entry(source, source.relevant(changes)).read_text(encoding="utf-8")))

    def _entry(self, source: Source, changes: Changes) -> Path:
        """The file of one figure: named by all that it depends on."""
        files = [files.image or files.truth for files in source.sequence.frames]
        stamps = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        key = [self._version, source.kind, stamps, self._settings.updated(dict(changes)).to_mapping()]
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
        return self._folder / f"{source.sequence.name}_{digest}.json"


def code_version() -> str:
    """A digest of the files that the figures can depend on."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] in _SOURCES_OF_RESULTS:
            digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class MeasureTask:
    """Sources under one choice of settings, for a worker. entries: where the figures go -> of which source."""

    settings: Settings
    entries: dict[Path, Source]
    flow_folder: Path


def measure(task: MeasureTask, tell: Callable[[], None]) -> None:
    """Measures one source after the other, and writes the figures of each as soon as they are there."""
    from mastsam_ros.pipeline import create_mastsam

    for entry, source in task.entries.items():
        system = create_mastsam(task.settings)
        cache, protocols = FlowCache(task.flow_folder), _PROTOCOLS[source.kind]
        score = run_sequence(source.sequence, system, source.kind == "RGB-D", protocols, cache).score
        values = {column.head: column.value(score) for column in FIGURES[source.kind]}
        figures = {head: value if value is not None and np.isfinite(value) else None for head, value in values.items()}
        entry.parent.mkdir(parents=True, exist_ok=True)
        part = entry.with_suffix(".part")
        part.write_text(json.dumps(figures), encoding="utf-8")
        part.replace(entry)
        for _ in source.sequence.frames:
            tell()


@dataclass(frozen=True)
class Fold:
    """One sequence left out. chosen: the settings that were chosen on the others, where they are not the defaults.

    figures, defaults: source -> its figures with them, and with the defaults.
    """

    left_out: str
    chosen: Changes
    figures: dict[str, Figures]
    defaults: dict[str, Figures]


def merit(figures: Mapping[str, float | None]) -> float:
    """One number in [0, 1] to choose by."""
    return float(np.mean([weight * (figures[head] or 0.0) for head, weight in _MERIT.items() if head in figures]))


def cross_validate(sources: Sequence[Source], settings: Settings, measured: Measured) -> list[Fold]:
    """Leaves out every sequence in turn, and chooses one setting after the other on the rest; a fold per sequence.

    A value is taken instead of the default if the mean merit over the kinds of source is higher with it.
    """
    left_out = list(dict.fromkeys(source.sequence.name for source in sources))
    defaults = settings.flat()
    chosen: dict[str, Changes] = dict.fromkeys(left_out, ())
    for path, (grid, kinds) in GRID.items():
        values = list(dict.fromkeys((defaults[path], *grid)))
        choices = {
            name: [changes, *((*changes, (path, value)) for value in values[1:])] for name, changes in chosen.items()
        }
        rest = {name: [source for source in sources if source.sequence.name != name] for name in left_out}
        measured.prepare((source, one) for name in left_out for one in choices[name] for source in rest[name])
        for name in left_out:
            relevant = [source for source in rest[name] if source.kind in kinds]
            scores = [_mean_merit(relevant, changes, measured) for changes in choices[name]]
            chosen[name] = choices[name][int(np.argmax(np.round(scores, 6)))]  # the default, where nothing is better
    measured.prepare((source, changes) for source in sources for changes in ((), chosen[source.sequence.name]))
    return [
        Fold(
            name,
            chosen[name],
            {s.name: measured.figures(s, chosen[name]) for s in sources if s.sequence.name == name},
            {s.name: measured.figures(s, ()) for s in sources if s.sequence.name == name},
        )
        for name in left_out
    ]


def _mean_merit(sources: Sequence[Source], changes: Changes, measured: Measured) -> float:
    """Mean over the kinds of the mean over the sources of that kind, so that no kind outvotes another."""
    of_kind: dict[str, list[float]] = {}
    for source in sources:
        of_kind.setdefault(source.kind, []).append(merit(measured.figures(source, changes)))
    return float(np.mean([np.mean(values) for values in of_kind.values()])) if of_kind else 0.0


def folds_table(folds: Sequence[Fold]) -> str:
    """What was chosen without each sequence, and what that is worth on it."""
    rows: list[tuple[str, list[Any]]] = []
    for fold in folds:
        with_chosen, with_defaults = (np.mean([merit(f) for f in of.values()]) for of in (fold.figures, fold.defaults))
        said = ", ".join(f"{path.partition('.')[2]} {value:g}" for path, value in fold.chosen) or "the defaults"
        rows.append((fold.left_out, [said, float(with_chosen), float(with_defaults)]))
    return table(["left out", "chosen on the others", "merit", "defaults"], rows, "s .3f .3f")


def spread_table(folds: Sequence[Fold], sources: Sequence[Source]) -> str:
    """Mean and standard deviation over the sources of each origin and kind: held out, and with the defaults."""
    held_out = {name: figures for fold in folds for name, figures in fold.figures.items()}
    defaults = {name: figures for fold in folds for name, figures in fold.defaults.items()}
    heads = list(dict.fromkeys(column.head for columns in FIGURES.values() for column in columns))
    digits = {column.head: column.format for columns in FIGURES.values() for column in columns}
    rows: list[tuple[str, list[Any]]] = []
    for origin, kind in dict.fromkeys((source.origin, source.kind) for source in sources):
        names = [source.name for source in sources if (source.origin, source.kind) == (origin, kind)]
        for title, figures in (("chosen on the others", held_out), ("defaults", defaults)):
            cells = [_spread([figures[name].get(head) for name in names], digits[head]) for head in heads]
            rows.append((f"{origin} {kind}, {title}", [len(names), *cells]))
    return table(["", "sources", *heads], rows, "d" + " s" * len(heads))


def _spread(values: Sequence[float | None], digits: str) -> str | None:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return f"{np.mean(known):{digits}} ± {np.std(known):{digits}}" if known else None
