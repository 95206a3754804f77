"""`mastsam evaluate`: scores predicted labels against the truth, as tables, JSON and a page."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mastsam_ros.evaluation.columns import ALWAYS, COLUMNS, mean_of
from mastsam_ros.evaluation.datasets import LabelledSequence, open_sequences, read_labels
from mastsam_ros.evaluation.protocols import PROTOCOLS, Scored, SequenceScore, SequenceScorer
from mastsam_ros.evaluation.tables import table, write_json, write_text
from mastsam_ros.types import InputError

_LOG = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mastsam evaluate`."""
    parser.add_argument(
        "prediction", metavar="PRED", nargs="?", type=Path, help="a labels/ folder, or a folder with one per sequence"
    )
    parser.add_argument(
        "--ground-truth",
        metavar="DIR",
        type=Path,
        help="DAVIS-style folders of PNG, a scene folder, or a ScanNet export",
    )
    parser.add_argument("--protocol", choices=(*PROTOCOLS, "all"), default="all", help="what to measure (default: all)")
    parser.add_argument("--sequences", metavar="A,B", help="only these, separated by commas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a self-contained HTML page")
    parser.add_argument(
        "--compare", action="append", default=[], metavar="NAME=DIR", help="other predictions beside PRED (repeatable)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="sequences scored at the same time")
    parser.add_argument(
        "--ablate",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="instead of scoring PRED: run the system on data with truth, its steps switched off one by one",
    )
    parser.add_argument("--frames", type=int, help="with --ablate: only the first so many frames of each sequence")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="with --ablate: change a setting"
    )


def run(arguments: argparse.Namespace) -> int:
    """Scores, prints the tables and writes what was asked for. Raises MastsamError."""
    names = arguments.sequences.split(",") if arguments.sequences else None
    if arguments.ablate:
        return _run_ablation(arguments, names)
    if arguments.prediction is None or arguments.ground_truth is None:
        raise InputError("nothing to score: give PRED and --ground-truth DIR, or --ablate SOURCE")
    protocols = chosen_protocols(arguments.protocol)
    sequences = open_sequences(arguments.ground_truth, names)
    own_folder = arguments.prediction.resolve()
    own_name = own_folder.parent.name if own_folder.name == "labels" else own_folder.name
    compared = _compared(arguments.compare)
    if own_name in compared:
        raise InputError(f"'{own_name}' is the name of PRED's folder: give the predictions to compare another name")
    folders = {own_name: arguments.prediction, **compared}
    systems = {
        name: score_all(paired(folder, sequences), protocols, arguments.workers) for name, folder in folders.items()
    }
    scores = {name: [scored.score for scored in of] for name, of in systems.items()}
    own = next(iter(scores.values()))
    sys.stdout.write(protocol_tables(scores, protocols))
    if arguments.json:
        others = {name: as_mapping(of, protocols) for name, of in scores.items() if of is not own}
        write_json(arguments.json, {**as_mapping(own, protocols), "compared": others})
    if arguments.report:
        from mastsam_ros.evaluation.report import report

        write_text(arguments.report, report(systems, protocols))
    return 0


def _compared(assignments: Sequence[str]) -> dict[str, Path]:
    folders = {}
    for text in assignments:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise InputError(f"expected --compare NAME=DIR, got '{text}'")
        folders[name] = Path(folder)
    return folders


def _run_ablation(arguments: argparse.Namespace, names: Sequence[str] | None) -> int:
    from mastsam_ros.evaluation.ablation import ablate, ablation_table
    from mastsam_ros.settings import Settings

    sequences = [
        sequence.first(arguments.frames) for source in arguments.ablate for sequence in open_sequences(source, names)
    ]
    runs = ablate(sequences, Settings().with_assignments(arguments.set))
    sys.stdout.write(ablation_table(runs) + "\n")
    if arguments.json:
        write_json(
            arguments.json, {name: {run.score.name: run.to_mapping() for run in of} for name, of in runs.items()}
        )
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
            f"{prediction} holds no labels for {', '.join(without)};"
            " expected <sequence>/*.png or <sequence>/labels/*.png"
        )
    if without:
        _LOG.warning("no predictions, left out: %s", ", ".join(without))
    return pairs


def _pngs(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.png"))} if folder.is_dir() else {}


def score_all(
    pairs: Sequence[tuple[LabelledSequence, dict[str, Path]]], protocols: Sequence[str], workers: int = 1
) -> list[Scored]:
    """The sequences scored, in their order, whatever order the workers finish in."""
    frames = sum(len(sequence.frames) for sequence, _ in pairs)
    with (
        tqdm(total=frames, unit="frame", leave=False, disable=not sys.stderr.isatty()) as bar,
        ThreadPoolExecutor(max(1, min(workers, len(pairs)))) as pool,
    ):

        def scored(pair: tuple[LabelledSequence, dict[str, Path]]) -> Scored:
            sequence, labels = pair
            scorer = SequenceScorer(sequence, protocols)
            for files in sequence.frames:
                scorer.add(files, read_labels(labels[files.stem]))
                bar.update()
            return Scored(sequence, labels, scorer.score(), scorer.overlaps, scorer.pairs)

        return list(pool.map(scored, pairs))


def chosen_protocols(name: str) -> tuple[str, ...]:
    """All of them for "all". Raises InputError for a protocol that is none."""
    if name not in (*PROTOCOLS, "all"):
        raise InputError(f"unknown protocol '{name}'; known: {', '.join((*PROTOCOLS, 'all'))}")
    return PROTOCOLS if name == "all" else (name,)


def protocol_tables(systems: Mapping[str, Sequence[SequenceScore]], protocols: Sequence[str]) -> str:
    """The tables of all protocols, and what must be said beside them."""
    tables = [protocol_table(protocol, systems) + "\n\n" for protocol in protocols]
    return "".join([*tables, *(f"{remark}\n" for scores in systems.values() for remark in remarks(scores))])


def protocol_table(protocol: str, systems: Mapping[str, Sequence[SequenceScore]]) -> str:
    """One protocol's figures, a row per sequence and one for the mean; always with masks per frame and coverage.

    systems: name -> scores; the names of all but the first stand behind the sequence's.
    """
    every = [score for scores in systems.values() for score in scores]
    columns = [
        column for column in (*COLUMNS[protocol], *ALWAYS) if column in ALWAYS or mean_of(column, every) is not None
    ]
    rows: list[tuple[str, list[Any]]] = []
    for place, (system, scores) in enumerate(systems.items()):
        suffix = f" ({system})" if place else ""
        for score in scores:
            name = score.name + suffix + (" *" if score.degenerate else "")
            rows.append((name, [column.value(score) for column in columns]))
        if len(scores) > 1:
            rows.append((f"mean{suffix}", [mean_of(column, scores) for column in columns]))
    return table([protocol, *(column.head for column in columns)], rows, " ".join(column.format for column in columns))


def remarks(scores: Sequence[SequenceScore]) -> list[str]:
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
