"""`mastsam evaluate`: scores predicted labels against the truth, as tables, JSON and a page."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from tqdm import tqdm

from mastsam_ros.evaluation.columns import ALWAYS, COLUMNS, mean_of
from mastsam_ros.evaluation.datasets import LabelledSequence, open_sequences, read_labels
from mastsam_ros.evaluation.predictions import Predicted, paired
from mastsam_ros.evaluation.protocols import PROTOCOLS, FlowCache, Scored, SequenceScore, SequenceScorer
from mastsam_ros.evaluation.tables import table, write_json, write_text
from mastsam_ros.io.sources import is_bag
from mastsam_ros.settings_arguments import add_settings_arguments, settings_from
from mastsam_ros.types import InputError

_SYSTEM = "mastsam"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mastsam evaluate`."""
    parser.add_argument(
        "prediction",
        metavar="PRED",
        nargs="?",
        type=Path,
        help="a labels/ folder or a bag of results, or a folder with one per sequence",
    )
    parser.add_argument(
        "--ground-truth",
        metavar="DIR",
        type=Path,
        help="DAVIS-style folders of PNG, a scene folder, or a ScanNet export",
    )
    parser.add_argument("--protocol", choices=(*PROTOCOLS, "all"), default="all", help="what to measure (default: all)")
    parser.add_argument(
        "--exact", action="store_true", help="measure H by radius search too (paper, eq. 4-6), which takes time"
    )
    parser.add_argument("--sequences", metavar="A,B", help="only these, separated by commas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a self-contained HTML page")
    parser.add_argument(
        "--compare", action="append", default=[], metavar="NAME=DIR", help="other predictions beside PRED (repeatable)"
    )
    parser.add_argument(
        "--run",
        nargs="+",
        type=Path,
        metavar="DATA",
        help="run the system on data with truth (as for --ground-truth) and score what it gives, instead of PRED",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="with --run: keep the labels, a folder per sequence; with --ablate: keep the figures, to go on later",
    )
    parser.add_argument(
        "--ablate",
        nargs="+",
        type=Path,
        metavar="DATA",
        help="the same with the system's parts switched off one by one",
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="with --run, --ablate: the first so many frames of each sequence"
    )
    parser.add_argument("--no-depth", action="store_true", help="with --run: use neither depth nor intrinsics")
    add_settings_arguments(parser)
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="sequences at the same time (default: one per core to score, with --run one per GPU or per two cores)",
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="with --run, --ablate: hand the sequences to a Ray cluster (auto, local, ...)"
    )
    parser.add_argument(
        "--truth", metavar="TOPIC|FOLDER", help="where the data is a rosbag2: its topic of true labels, or a folder"
    )
    parser.add_argument("--image-topic", metavar="TOPIC", help="of a rosbag2 with several images")


def run(arguments: argparse.Namespace) -> int:
    """Scores, prints the tables and writes what was asked for. Raises MastsamError."""
    if arguments.workers is not None and arguments.workers < 1:
        raise InputError(f"--workers must be at least 1, got {arguments.workers}")
    with TemporaryDirectory() as folder:
        if arguments.ablate:
            return _run_ablation(arguments, Path(folder))
        if arguments.run:
            return _run_system(arguments, Path(folder))
        if arguments.prediction is None or arguments.ground_truth is None:
            raise InputError(
                "nothing to score: give PRED and --ground-truth DIR, or --run DATA to run the system, or --ablate DATA"
            )
        return _score_predictions(arguments, Path(folder))


def _score_predictions(arguments: argparse.Namespace, folder: Path) -> int:
    protocols = chosen_protocols(arguments.protocol)
    sequences = _sequences([arguments.ground_truth], arguments, folder)
    own_folder = arguments.prediction.resolve()
    own_name = own_folder.parent.name if own_folder.name == "labels" else own_folder.stem
    compared = _compared(arguments.compare)
    if own_name in compared:
        raise InputError(f"'{own_name}' is the name of PRED's folder: give the predictions to compare another name")
    systems = _predicted({own_name: arguments.prediction, **compared}, sequences, folder)
    workers = arguments.workers or os.cpu_count() or 1
    _tell(score_all(sequences, systems, protocols, workers, arguments.exact), arguments)
    return 0


def _run_system(arguments: argparse.Namespace, folder: Path) -> int:
    """The system on every sequence, by workers; a sequence that fails is reported, the others are kept."""
    from mastsam_ros.evaluation.runs import SequenceTask, run_tasks
    from mastsam_ros.evaluation.workers import Failure

    protocols, settings = chosen_protocols(arguments.protocol), settings_from(arguments)
    sequences = _sequences(arguments.run, arguments, folder)
    names = [sequence.name for sequence in sequences]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two sequences are named '{twice}': run them apart, or choose with --sequences")
    compared, output = _compared(arguments.compare), arguments.output or folder / "labels"
    if _SYSTEM in compared:
        raise InputError(f"'{_SYSTEM}' is what runs: give the predictions to compare another name")
    tasks = [
        SequenceTask(
            s, settings, s.kind == "scene" and not arguments.no_depth, protocols, output / s.name, exact=arguments.exact
        )
        for s in sequences
    ]
    results = run_tasks(tasks, arguments.workers, arguments.ray)
    done = [result for result in results if not isinstance(result, Failure)]
    failures = {name: result.reason for name, result in zip(names, results, strict=True) if isinstance(result, Failure)}
    if done:
        systems = _predicted(compared, sequences, folder)
        others = score_all(sequences, systems, protocols, 1, arguments.exact)
        speed = {result.scored.score.name: result.run.frames_per_second for result in done}
        more = {"frames_per_second": speed, "settings": settings.to_mapping(), "failed": failures}
        _tell({_SYSTEM: [result.scored for result in done], **others}, arguments, more)
        sys.stdout.write("frames/s: " + ", ".join(f"{name} {value:.1f}" for name, value in speed.items()) + "\n")
    return _failed([f"{name}: {reason}" for name, reason in failures.items()])


def _predicted(
    folders: Mapping[str, Path], sequences: Sequence[LabelledSequence], folder: Path
) -> dict[str, list[Predicted]]:
    """The predictions of every system; those in bags are unpacked into `folder`."""
    return {
        name: paired(of, sequences, folder / f"predictions{number}")
        for number, (name, of) in enumerate(folders.items())
    }


def _failed(failures: Sequence[str]) -> int:
    """Says which sequences failed. Returns the exit status."""
    sys.stderr.writelines(f"mastsam: failed: {failure}\n" for failure in failures)
    return 1 if failures else 0


def _sequences(roots: Sequence[Path], arguments: argparse.Namespace, folder: Path) -> list[LabelledSequence]:
    """The sequences of all roots that were asked for; bags are unpacked into `folder`."""
    wanted = arguments.sequences.split(",") if arguments.sequences else None
    found = []
    for number, root in enumerate(roots):
        if root.exists() and is_bag(root):
            if arguments.truth is None:
                raise InputError(f"{root} is a rosbag2: name its true labels with --truth TOPIC or --truth FOLDER")
            from mastsam_ros.evaluation.bag_data import bag_sequence

            unpacked = folder / f"bag{number}"
            found.append(bag_sequence(root, arguments.truth, unpacked, image_topic=arguments.image_topic))
        else:
            found += open_sequences(root)
    names = [sequence.name for sequence in found]
    missing = next((name for name in wanted or () if name not in names), None)
    if missing is not None:
        raise InputError(f"no sequence '{missing}' in {', '.join(map(str, roots))}; there are: {', '.join(names)}")
    return [sequence.first(arguments.frames) for sequence in found if wanted is None or sequence.name in wanted]


def _tell(
    systems: Mapping[str, Sequence[Scored]], arguments: argparse.Namespace, more: Mapping[str, Any] | None = None
) -> None:
    """Prints the tables, and writes JSON and the page where asked for. The first system is the one in question."""
    protocols = chosen_protocols(arguments.protocol)
    scores = {name: [scored.score for scored in of] for name, of in systems.items()}
    own, *_ = scores.values()
    sys.stdout.write(protocol_tables(scores, protocols))
    if arguments.json:
        others = {name: as_mapping(of, protocols) for name, of in scores.items() if of is not own}
        write_json(arguments.json, {**as_mapping(own, protocols), "compared": others, **(more or {})})
    if arguments.report:
        from mastsam_ros.evaluation.report import report

        write_text(arguments.report, report(systems, protocols))


def _compared(assignments: Sequence[str]) -> dict[str, Path]:
    folders = {}
    for text in assignments:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise InputError(f"expected --compare NAME=DIR, got '{text}'")
        folders[name] = Path(folder)
    return folders


def _run_ablation(arguments: argparse.Namespace, folder: Path) -> int:
    from mastsam_ros.evaluation.ablation import ablate, ablation_table
    from mastsam_ros.evaluation.measured import Measured, sources_of

    sources = sources_of(_sequences(arguments.ablate, arguments, folder))
    workers = arguments.workers or max(1, (os.cpu_count() or 1) // 2)
    measured = Measured(settings_from(arguments), arguments.output or folder / "measured", workers, arguments.ray)
    figures, failures = ablate(sources, measured)
    sys.stdout.write(ablation_table(figures, sources) + "\n")
    if arguments.json:
        write_json(arguments.json, figures)
    return _failed(failures)


def score_all(
    sequences: Sequence[LabelledSequence],
    systems: Mapping[str, Sequence[Predicted]],
    protocols: Sequence[str],
    workers: int = 1,
    exact: bool = False,
) -> dict[str, list[Scored]]:
    """Every system's sequences scored, in the order of `sequences`, whatever order the workers finish in.

    systems: name -> predictions. The systems go through a sequence side by side, so that what does not depend on their
    labels is done once. exact: H by radius search too.
    """
    by_name = {name: {one.sequence.name: one for one in of} for name, of in systems.items()}
    frames = sum(len(one.sequence.frames) for of in systems.values() for one in of)
    with (
        tqdm(total=frames, unit="frame", leave=False, disable=not sys.stderr.isatty()) as bar,
        ThreadPoolExecutor(max(1, min(workers, len(sequences)))) as pool,
    ):
        stop = Event()

        def scored(sequence: LabelledSequence) -> dict[str, Scored]:
            flow = FlowCache()
            predicted = {name: of[sequence.name] for name, of in by_name.items() if sequence.name in of}
            scorers = {
                name: SequenceScorer(one.sequence, protocols, flow, exact=exact) for name, one in predicted.items()
            }
            for files in sequence.frames:
                if stop.is_set():
                    return {}
                for name, one in predicted.items():
                    if files.stem in one.labels:
                        scorers[name].add(files, read_labels(one.labels[files.stem]))
                        bar.update()
            return {name: _scored(one, scorers[name]) for name, one in predicted.items()}

        try:
            every = list(pool.map(scored, sequences))
        except BaseException:  # Ctrl-C, or a fault that the other sequences need not be waited for
            stop.set()
            raise
    return {name: [of[name] for of in every if name in of] for name in systems}


def _scored(predicted: Predicted, scorer: SequenceScorer) -> Scored:
    score = scorer.score()
    score = dataclasses.replace(score, notes=(*predicted.notes, *score.notes))
    return Scored(predicted.sequence, predicted.labels, score, scorer.curves())


def chosen_protocols(name: str) -> tuple[str, ...]:
    """All of them for "all". Raises InputError for a protocol that is none."""
    if name not in (*PROTOCOLS, "all"):
        raise InputError(f"unknown protocol '{name}'; known: {', '.join((*PROTOCOLS, 'all'))}")
    return PROTOCOLS if name == "all" else (name,)


def protocol_tables(systems: Mapping[str, Sequence[SequenceScore]], protocols: Sequence[str]) -> str:
    """The tables of the protocols that the data allow, and what must be said beside them."""
    every = [score for scores in systems.values() for score in scores]
    shown = [p for p in protocols if len(protocols) == 1 or any(mean_of(c, every) is not None for c in COLUMNS[p])]
    tables = [protocol_table(protocol, systems) + "\n\n" for protocol in shown]
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
