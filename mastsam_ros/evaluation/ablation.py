"""The paper's Table II for this system: what each part is worth, for each kind of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mastsam_ros.evaluation.measured import FIGURES, KINDS, RGB, RGB_D, VIDEO, Figures, Measured, Source
from mastsam_ros.evaluation.tables import table
from mastsam_ros.setting_fields import Scalar

ABLATIONS: dict[str, tuple[Mapping[str, Scalar], tuple[str, ...]]] = {
    "all parts": ({}, KINDS),
    # The tracker, step by step
    "masks are not carried": ({"tracker.carry": False}, KINDS),
    "no filter of motion": ({"tracker.motion_filter": False}, KINDS),
    "no connectivity filter": ({"tracker.connectivity_filter": False}, KINDS),
    "no representative selection": ({"tracker.representative_selection": False}, KINDS),
    "no negative prompts": ({"tracker.negative_prompts": 0}, KINDS),
    "segmenter not asked again": ({"tracker.reprompt": False}, KINDS),
    "candidate by score alone": ({"tracker.score_only": True}, KINDS),
    "candidate by agreement alone": ({"tracker.score_weight": 0.0}, KINDS),
    "no overlap filtering": ({"tracker.overlap_filtering": False}, KINDS),
    "no discovery": ({"tracker.discovery": False}, KINDS),
    "no settled outlines": ({"tracker.settle_outlines": False}, KINDS),
    "outlines not sharpened": ({"tracker.sharpen_outlines": False}, KINDS),
    # Identity
    "pieces are not joined": ({"tracker.join_pieces": False}, (VIDEO, RGB)),
    "parts are not joined": ({"tracker.join_parts": False}, (VIDEO, RGB)),
    "new masks shown at once": ({"tracker.confirm_after": 1, "tracker.confirm_part_after": 1}, KINDS),
    "no coasting": ({"tracker.coast_frames": 0}, KINDS),
    "no recognition by looks": ({"tracker.revival": False}, KINDS),
    "none by histograms": ({"tracker.revival_histogram": 0.0}, (VIDEO, RGB)),
    "no memory of views": ({"tracker.recall": False}, (VIDEO, RGB)),
    "no map": ({"geometry.map": False}, (RGB_D,)),
    # The embedded segmenter
    "no motion in it": ({"regions.use_motion": False}, (VIDEO, RGB)),
    "no steps of the flow in it": ({"regions.use_flow_steps": False}, (RGB,)),
    "none in small regions": ({"regions.use_notches": False}, (RGB,)),
    "no depth in it": ({"regions.use_depth": False}, (RGB_D,)),
    "tracks do not steady its cut": ({"regions.prior_weight": 0.0}, KINDS),
    "merged without edges": ({"regions.contrast_weight": 0.0}, KINDS),
    "merged without lightness": ({"regions.lightness_weight": 0.0}, KINDS),
}
"""Row -> the settings that differ from the default, and the kinds of data that it can change anything for."""


def ablate(sources: Sequence[Source], measured: Measured) -> tuple[dict[str, dict[str, Figures]], list[str]]:
    """Every source with every part switched off in turn.

    Returns row -> name of the source -> its figures, and a line for each row that failed.
    """
    wanted = {
        row: [(source, tuple(changes.items())) for source in sources if source.kind in kinds]
        for row, (changes, kinds) in ABLATIONS.items()
    }
    failures = measured.prepare(pair for of_row in wanted.values() for pair in of_row)
    return {row: {pair[0].name: measured.figures(*pair) for pair in of_row} for row, of_row in wanted.items()}, failures


def ablation_table(figures: Mapping[str, Mapping[str, Figures]], sources: Sequence[Source]) -> str:
    """A row per part that is switched off, means over the sources of each kind; -: it changes nothing there."""
    columns = [(kind, column) for kind in KINDS if any(s.kind == kind for s in sources) for column in FIGURES[kind]]
    rows: list[tuple[str, list[Any]]] = []
    for row, of_row in figures.items():
        cells = []
        for kind, column in columns:
            values = [of_row.get(source.name, {}).get(column.head) for source in sources if source.kind == kind]
            known = [value for value in values if value is not None]
            cells.append(float(np.mean(known)) if known else None)
        rows.append((row, cells))
    heads = ["ablation", *(f"{kind} {column.head}" for kind, column in columns)]
    return table(heads, rows, " ".join(column.format for _, column in columns))
