"""The paper's Table II for this system: what each step of the tracker is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mastsam_ros.evaluation.columns import ALWAYS, COLUMNS, mean_of
from mastsam_ros.evaluation.datasets import LabelledSequence
from mastsam_ros.evaluation.protocols import FlowCache
from mastsam_ros.evaluation.runs import Run, run_sequence
from mastsam_ros.evaluation.tables import table
from mastsam_ros.pipeline import create_mastsam
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


def ablate(sequences: Sequence[LabelledSequence], settings: Settings) -> dict[str, list[Run]]:
    """Every sequence with every step switched off in turn; depth and K are used where there are any."""
    with TemporaryDirectory() as folder:  # the flow of the consistency metric is the same for every row
        flow = FlowCache(Path(folder))
        return {
            name: [
                run_sequence(
                    sequence, create_mastsam(settings.updated(changes)), sequence.kind == "scene", _PROTOCOLS, flow
                )
                for sequence in sequences
            ]
            for name, changes in ABLATIONS.items()
        }


def ablation_table(runs: Mapping[str, Sequence[Run]]) -> str:
    """A row per ablation, means over the sequences."""
    columns = [*(column for protocol in _PROTOCOLS for column in COLUMNS[protocol]), *ALWAYS]
    scores = {name: [run.score for run in runs_of] for name, runs_of in runs.items()}
    shown = [column for column in columns if any(mean_of(column, of_row) is not None for of_row in scores.values())]
    rows = [(name, [mean_of(column, of_row) for column in shown]) for name, of_row in scores.items()]
    return table(["ablation", *(column.head for column in shown)], rows, " ".join(column.format for column in shown))
