"""`mastsam evaluate`: scores predicted labels against the truth, as tables, JSON and a page."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mastsam_ros.evaluation.datasets import LabelledSequence, open_sequences, read_labels
from mastsam_ros.evaluation.protocols import PROTOCOLS, SequenceScore, SequenceScorer
from mastsam_ros.evaluation.tables import table, write_json
from mastsam_ros.types import InputError


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mastsam evaluate`."""
    parser.add_argument(
        "prediction", metavar="PRED", type=Path, help="a labels/ folder, or a folder with one per sequence"
    )
    parser.add_argument(
        "--ground-truth",
        metavar="DIR",
        type=Path,
        required=True,
        help="DAVIS-style folders of PNG, a scene folder, or a ScanNet export",
    )
    parser.add_argument("--protocol", choices=(*PROTOCOLS, "all"), default="all", help="what to measure (default: all)")
    parser.add_argument("--sequences", metavar="A,B", help="only these, separated by commas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="sequences scored at the same time")


def run(arguments: argparse.Namespace) -> int:
    """Scores, prints the tables and writes what was asked for. Raises MastsamError."""
    protocols = PROTOCOLS if arguments.protocol == "all" else (arguments.protocol,)
    names = arguments.sequences.split(",") if arguments.sequences else None
    pairs = paired(arguments.prediction, open_sequences(arguments.ground_truth, names))
    scores = score_all(pairs, protocols, arguments.workers)
    for protocol in protocols:
        print(protocol_table(protocol, scores) + "\n")
    for remark in remarks(scores, protocols):
        print(remark)
    if arguments.json:
        write_json(arguments.json, as_mapping(scores, protocols))
    return 0


def paired(prediction: Path, sequences: list[LabelledSequence]) -> list[tuple[LabelledSequence, dict[str, Path]]]:
    """Every sequence that has predictions, with its label images by stem.

    Looks in PRED/<sequence>/labels, PRED/<sequence>, and, for a single sequence or one whose name is in PRED's
    path, in PRED/labels and PRED. Raises InputError if nothing fits or a frame with truth has no prediction.
    """
    if not prediction.is_dir():
        raise InputError(f"{prediction} is not a folder of predictions")
    own_names = {prediction.resolve().name, prediction.resolve().parent.name}
    pairs, without = [], []
    for sequence in sequences:
        folders = [prediction / sequence.name / "labels", prediction / sequence.name]
        if len(sequences) == 1 or sequence.name in own_names:
            folders += [prediction / "labels", prediction]
        labels = next((found for folder in folders if (found := _pngs(folder))), None)
        if labels is None:
            without.append(sequence.name)
            continue
        missing = [files.stem for files in sequence.frames if files.stem not in labels]
        if missing:
            raise InputError(
                f"{sequence.name}: {len(missing)} of {len(sequence.frames)} frames with truth have no label image,"
                f" the first is {missing[0]}.png"
            )
        pairs.append((sequence, labels))
    if not pairs:
        raise InputError(
            f"{prediction} holds no labels for {', '.join(without)}; expected <sequence>/*.png or <sequence>/labels/*.png"
        )
    if without:
        print(f"no predictions, left out: {', '.join(without)}", file=sys.stderr)
    return pairs


def _pngs(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.png"))} if folder.is_dir() else {}


def score_all(
    pairs: Sequence[tuple[LabelledSequence, dict[str, Path]]], protocols: Sequence[str], workers: int = 1
) -> list[SequenceScore]:
    """The scores of the sequences, in their order, whatever order the workers finish in."""
    frames = sum(len(sequence.frames) for sequence, _ in pairs)
    with (
        tqdm(total=frames, unit="frame", leave=False, disable=not sys.stderr.isatty()) as bar,
        ThreadPoolExecutor(max(1, min(workers, len(pairs)))) as pool,
    ):

        def scored(pair: tuple[LabelledSequence, dict[str, Path]]) -> SequenceScore:
            sequence, labels = pair
            scorer = SequenceScorer(sequence, protocols)
            for files in sequence.frames:
                scorer.add(files, read_labels(labels[files.stem]))
                bar.update()
            return scorer.score()

        return list(pool.map(scored, pairs))


def mean_of(column: Column, scores: Sequence[SequenceScore]) -> float | None:
    """Mean over the sequences that have the figure."""
    values = [value for score in scores if (value := column.value(score)) is not None and np.isfinite(value)]
    return float(np.mean(values)) if values else None


def protocol_table(protocol: str, scores: Sequence[SequenceScore]) -> str:
    """One protocol's figures, a row per sequence and one for the mean; always with masks per frame and coverage."""
    columns = [
        column for column in (*COLUMNS[protocol], *ALWAYS) if column in ALWAYS or mean_of(column, scores) is not None
    ]
    rows: list[tuple[str, list[Any]]] = [
        (score.name + (" *" if score.degenerate else ""), [column.value(score) for column in columns])
        for score in scores
    ]
    if len(scores) > 1:
        rows.append(("mean", [mean_of(column, scores) for column in columns]))
    return table([protocol, *(column.head for column in columns)], rows, " ".join(column.format for column in columns))


def remarks(scores: Sequence[SequenceScore], protocols: Sequence[str]) -> list[str]:
    """What a reader must know beside the figures."""
    lines = []
    if any(score.degenerate for score in scores):
        lines.append("* degenerate: nearly everything carries one id, so that consistency says nothing")
    lines += [f"{score.name}: {note}" for score in scores for note in score.notes]
    return lines


def as_mapping(scores: Sequence[SequenceScore], protocols: Sequence[str]) -> dict[str, Any]:
    """The figures as plain values, per sequence and as means."""
    columns = [*(column for protocol in protocols for column in COLUMNS[protocol]), *ALWAYS]
    return {
        "protocols": list(protocols),
        "sequences": {score.name: dataclasses.asdict(score) for score in scores},
        "mean": {column.head: mean_of(column, scores) for column in columns},
    }
