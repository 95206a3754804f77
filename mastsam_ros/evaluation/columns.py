"""Which figures the tables show: their heads, formats, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mastsam_ros.evaluation.protocols import SequenceScore


@dataclass(frozen=True)
class Column:
    """One figure of the tables: its head, format, and where it comes from."""

    head: str
    format: str
    value: Callable[[SequenceScore], float | int | None]


def _part(part: str, name: str, factor: float = 1.0) -> Callable[[SequenceScore], float | int | None]:
    def value(score: SequenceScore) -> float | int | None:
        owner: Any = getattr(score, part)
        for attribute in name.split("."):
            owner = None if owner is None else getattr(owner, attribute)
        return None if owner is None else owner * factor

    return value


COLUMNS: dict[str, tuple[Column, ...]] = {
    "best-mask": (
        Column("IoU", ".3f", _part("best_mask", "iou")),
        Column("F1", ".3f", _part("best_mask", "f1")),
        Column("precision", ".3f", _part("best_mask", "precision")),
        Column("recall", ".3f", _part("best_mask", "recall")),
    ),
    "best-track": (Column("best track IoU", ".3f", lambda score: score.best_track),),
    "davis": (
        Column("J&F", ".3f", _part("davis", "j_and_f")),
        Column("J mean", ".3f", _part("davis", "j.mean")),
        Column("J recall", ".3f", _part("davis", "j.recall")),
        Column("J decay", ".3f", _part("davis", "j.decay")),
        Column("F mean", ".3f", _part("davis", "f.mean")),
        Column("F recall", ".3f", _part("davis", "f.recall")),
        Column("F decay", ".3f", _part("davis", "f.decay")),
    ),
    "identity": (
        Column("found", ".2f", _part("identity", "found")),
        Column("tube IoU", ".3f", _part("identity", "tube_iou")),
        Column("kept", ".2f", _part("identity", "kept")),
        Column("kept after leaving", ".2f", _part("identity", "kept_after_leaving")),
        Column("scene PQ", ".3f", _part("identity", "scene_pq")),
        Column("ids made", ".0f", _part("identity", "ids_made")),
        Column("ids true", ".0f", _part("identity", "ids_true")),
        Column("switches", ".0f", _part("identity", "switches")),
        Column("IDF1", ".3f", _part("identity", "idf1")),
        Column("HOTA", ".3f", _part("identity", "hota")),
        Column("AssA", ".3f", _part("identity", "ass_a")),
        Column("OWTA", ".3f", _part("identity", "owta")),
        Column("STQ's AQ", ".3f", _part("identity", "association_quality")),
    ),
    "consistency": (
        Column("consistency %", ".2f", lambda score: score.consistency),
        Column("H %", ".2f", lambda score: score.H),
    ),
}
ALWAYS = (
    Column("masks/frame", ".1f", lambda score: score.masks_per_frame),
    Column("coverage %", ".1f", lambda score: 100 * score.coverage),
)


def mean_of(column: Column, scores: Sequence[SequenceScore]) -> float | None:
    """Mean over the sequences that have the figure."""
    values = [value for score in scores if (value := column.value(score)) is not None and np.isfinite(value)]
    return float(np.mean(values)) if values else None
