"""The paper's Table II for this system: what each step of the tracker is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mastsam_ros.evaluation.columns import ALWAYS, COLUMNS, mean_of
from mastsam_ros.evaluation.datasets import LabelledSequence
from mastsam_ros.evaluation.runs import Run, SequenceTask, run_tasks
from mastsam_ros.evaluation.tables import table
from mastsam_ros.evaluation.workers import Failure
from mastsam_ros.settings import Settings

ABLATIONS: dict[str, Mapping[str, Any]] = {
    "all steps": {},
    "no discovery": {"tracker.discovery": False},
    "no overlap filtering": {"tracker.overlap_filtering": False},
    "no representative selection": {"tracker.representative_selection": False},
    "no connectivity filter": {"tracker.connectivity_filter": False},
    "candidate by score alone": {"tracker.score_only": True},
}
"""Row -> the settings that differ from the default."""

_PROTOCOLS = ("best-mask", "best-track", "consistency")


def ablate(
    sequences: Sequence[LabelledSequence], settings: Settings, workers: int | None = 1, ray_address: str | None = None
) -> tuple[dict[str, list[Run]], list[str]]:
    """Every sequence with every step switched off in turn; depth and K are used where there are any.

    Returns the runs of each row, and a line for each that failed. workers, ray_address: as for `run_tasks`.
    """
    names = [name for name in ABLATIONS for _ in sequences]
    with TemporaryDirectory() as folder:  # the flow of the consistency metric is the same for every row
        tasks = [
            SequenceTask(
                sequence,
                settings.updated(changes),
                sequence.kind == "scene",
                _PROTOCOLS,
                flow_folder=Path(folder) if ray_address is None else None,
            )
            for changes in ABLATIONS.values()
            for sequence in sequences
        ]
        results = run_tasks(tasks, workers, ray_address)
    runs: dict[str, list[Run]] = {name: [] for name in ABLATIONS}
    failures = []
    for name, task, result in zip(names, tasks, results, strict=True):
        if isinstance(result, Failure):
            failures.append(f"{name}, {task.sequence.name}: {result.reason}")
        else:
            runs[name].append(result.run)
    return runs, failures


def ablation_table(runs: Mapping[str, Sequence[Run]]) -> str:
    """A row per ablation, means over the sequences."""
    columns = [*(column for protocol in _PROTOCOLS for column in COLUMNS[protocol]), *ALWAYS]
    scores = {name: [run.score for run in runs_of] for name, runs_of in runs.items()}
    shown = [column for column in columns if any(mean_of(column, of_row) is not None for of_row in scores.values())]
    rows = [(name, [mean_of(column, of_row) for column in shown]) for name, of_row in scores.items()]
    return table(["ablation", *(column.head for column in shown)], rows, " ".join(column.format for column in shown))
