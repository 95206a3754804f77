"""Which figures the tables show: their heads, formats, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mastsam_ros.evaluation.protocols import SequenceScore
from mastsam_ros.evaluation.retrieval import ANGLE_EDGES_DEG


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


def _recall(place: int) -> Callable[[SequenceScore], float | None]:
    """Recall at 1 in one bin of view angles; None where no pair of views is that far apart."""

    def value(score: SequenceScore) -> float | None:
        found = score.retrieval[place] if score.retrieval else None
        return found.recall if found is not None and found.queries else None

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
        Column("kept own", ".2f", _part("identity", "kept_own")),
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
        Column("exact H %", ".2f", lambda score: score.H_exact),
        Column("matched %", ".1f", lambda score: None if score.matched is None else 100 * score.matched),
    ),
    "retrieval": tuple(
        Column(f"{low:.0f}-{high:.0f} deg", ".3f", _recall(place))
        for place, (low, high) in enumerate(pairwise(ANGLE_EDGES_DEG))
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
