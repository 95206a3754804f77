"""Whole sequences through `step`, timed and scored: one here, or many by workers."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from mastsam_ros.evaluation.datasets import LabelledSequence
from mastsam_ros.evaluation.protocols import FlowCache, Scored, SequenceScore, SequenceScorer
from mastsam_ros.evaluation.workers import Failure, run_in_processes, run_on_ray, visible_gpus
from mastsam_ros.io.sinks import RunFolder
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame, FrameResult
from mastsam_ros.upcoming import with_upcoming


class Steps(Protocol):
    """What is measured: `Mastsam`, or anything with its `step`."""

    def step(self, frame: Frame, upcoming: Frame | None = None) -> FrameResult:
        """Labels of one frame, with the ids of the frames before. upcoming: the next frame, where it is known."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The score of one sequence, and milliseconds per step and (mean) per stage; decoding and metrics aside."""

    score: SequenceScore
    step_ms: tuple[float, ...]
    stages_ms: dict[str, float]

    @property
    def frames_per_second(self) -> float:
        """Frames by the time of all steps."""
        return 1000 * len(self.step_ms) / sum(self.step_ms)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **dataclasses.asdict(self.score),
            "fps": self.frames_per_second,
            "ms_p50": float(np.percentile(self.step_ms, 50)),
            "ms_p95": float(np.percentile(self.step_ms, 95)),
            "stages_ms": self.stages_ms,
        }


def run_sequence(
    sequence: LabelledSequence,
    system: Steps,
    geometry: bool,
    protocols: Collection[str],
    flow_cache: FlowCache | None = None,
    live: bool = False,
) -> Run:
    """Every frame through `system.step`. geometry: frames carry depth and K. live: a step does not know the next frame,
    as a camera's does not. Raises InputError."""
    scorer = SequenceScorer(sequence, protocols, flow_cache)
    frames = len(sequence.frames)
    with tqdm(total=frames, desc=sequence.name, unit="frame", leave=False, disable=not sys.stderr.isatty()) as progress:
        return _measured(sequence, system, geometry, scorer, lambda stem, frame, result: progress.update(), live)


def _measured(
    sequence: LabelledSequence,
    system: Steps,
    geometry: bool,
    scorer: SequenceScorer,
    done: Callable[[str, Frame, FrameResult], Any],
    live: bool = False,
) -> Run:
    step_ms: list[float] = []
    stages: dict[str, float] = defaultdict(float)
    frames = (sequence.frame(index, geometry) for index in range(len(sequence.frames)))
    for files, (frame, upcoming) in zip(sequence.frames, with_upcoming(frames), strict=True):
        start = time.perf_counter()
        result = system.step(frame, None if live else upcoming)
        step_ms.append(1000 * (time.perf_counter() - start))
        for stage, spent in result.timings_ms.items():
            stages[stage] += spent
        scorer.add(files, result.labels, frame.image)
        done(files.stem, frame, result)
    return Run(scorer.score(), tuple(step_ms), {stage: spent / len(step_ms) for stage, spent in stages.items()})


@dataclasses.dataclass(frozen=True)
class SequenceTask:
    """One sequence for a worker. folder: for the labels and the log of the run; None: nothing is written."""

    sequence: LabelledSequence
    settings: Settings
    geometry: bool
    protocols: tuple[str, ...]
    folder: Path | None = None
    flow_folder: Path | None = None
    exact: bool = False


@dataclasses.dataclass(frozen=True)
class SequenceRun:
    """What a worker gives back."""

    run: Run
    scored: Scored


def run_task(task: SequenceTask, tell: Callable[[], None]) -> SequenceRun:
    """Runs and scores one sequence, and calls `tell` after every frame. Raises MastsamError."""
    from mastsam_ros.pipeline import create_mastsam

    sequence = task.sequence
    scorer = SequenceScorer(sequence, task.protocols, FlowCache(task.flow_folder), task.exact)
    about = {"source": sequence.name, "settings": task.settings.to_mapping()}
    labels = {}
    with ExitStack() as stack:
        folder = None
        if task.folder is not None:
            folder = stack.enter_context(RunFolder(task.folder, video_fps=None, points=False, about=about))
            labels = {files.stem: task.folder / "labels" / f"{files.stem}.png" for files in sequence.frames}

        def done(stem: str, frame: Frame, result: FrameResult) -> None:
            if folder is not None:
                folder.write(stem, frame, result)
            tell()

        run = _measured(sequence, create_mastsam(task.settings), task.geometry, scorer, done)
    return SequenceRun(run, Scored(sequence, labels, run.score, scorer.curves()))


def run_tasks(
    tasks: Sequence[SequenceTask], workers: int | None, ray_address: str | None = None
) -> list[SequenceRun | Failure]:
    """Hands the tasks to worker processes, or to a Ray cluster. The results are in the order of the tasks.

    workers: at the same time; None: one per GPU, or one for every two cores. Raises MastsamError.
    """
    frames = [len(task.sequence.frames) for task in tasks]
    gpus = [] if all(task.settings.device == "cpu" for task in tasks) else visible_gpus()
    count = workers or len(gpus) or max(1, (os.cpu_count() or 1) // 2)
    with tqdm(total=sum(frames), unit="frame", leave=False, disable=not sys.stderr.isatty()) as progress:
        if ray_address is not None:
            return run_on_ray(tasks, run_task, ray_address, frames, progress)
        return run_in_processes(tasks, run_task, count, gpus, progress)
