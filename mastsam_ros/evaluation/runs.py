"""A whole sequence through `step`, timed and scored, without labels on disk."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import defaultdict
from collections.abc import Collection
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from mastsam_ros.evaluation.datasets import LabelledSequence
from mastsam_ros.evaluation.protocols import FlowCache, SequenceScore, SequenceScorer
from mastsam_ros.types import Frame, FrameResult


class Steps(Protocol):
    """What is measured: `Mastsam`, or anything with its `step`."""

    def step(self, frame: Frame) -> FrameResult:
        """Labels of one frame, with the ids of the frames before."""


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
) -> Run:
    """Every frame through `system.step`. geometry: frames carry depth and K. Raises InputError."""
    scorer = SequenceScorer(sequence, protocols, flow_cache)
    step_ms: list[float] = []
    stages: dict[str, float] = defaultdict(float)
    frames = tqdm(sequence.frames, desc=sequence.name, unit="frame", leave=False, disable=not sys.stderr.isatty())
    for index, files in enumerate(frames):
        frame = sequence.frame(index, geometry)
        start = time.perf_counter()
        result = system.step(frame)
        step_ms.append(1000 * (time.perf_counter() - start))
        for stage, spent in result.timings_ms.items():
            stages[stage] += spent
        scorer.add(files, result.labels, frame.image)
    return Run(scorer.score(), tuple(step_ms), {stage: spent / len(step_ms) for stage, spent in stages.items()})
