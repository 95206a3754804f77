"""`mastsam bench`: the embedded default on videos and scenes, the tracker alone, the map; the README's tables."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mastsam_ros.evaluation.bench_map import MapRun, map_table, measure_map, sensed
from mastsam_ros.evaluation.columns import ALWAYS, COLUMNS, mean_of
from mastsam_ros.evaluation.datasets import LabelledSequence, open_sequences
from mastsam_ros.evaluation.generated import generated_sequences, held_out_sequences, held_out_videos
from mastsam_ros.evaluation.oracles import TruthMatcher, TruthSegmenter
from mastsam_ros.evaluation.protocols import FlowCache
from mastsam_ros.evaluation.runs import Run, run_sequence
from mastsam_ros.evaluation.tables import table, write_json
from mastsam_ros.io.depth_sensors import SENSORS
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import InputError

_LOG = logging.getLogger(__name__)
DEFAULT_DATA = Path("../shared/data")
GENERATED = Path("out") / "bench_data"
RESULTS = Path("bench") / "results"
FLOW_CACHE = Path("out") / "bench_cache"
CROSS_VALIDATION = Path("out") / "cross_validation"
SCENE_PROTOCOLS = ("identity", "consistency")


def measured(
    sequence: LabelledSequence, system: Mastsam, geometry: bool, protocols: Sequence[str], live: bool = False
) -> Run:
    """One run, with the flow of the consistency metric kept on disk."""
    return run_sequence(sequence, system, geometry, protocols, FlowCache(FLOW_CACHE), live)


def bench_davis(sequences: list[LabelledSequence], settings: Settings, live: bool = False) -> dict[str, Run]:
    """The paper's protocol on videos, the embedded default."""
    wanted = ("best-mask", "best-track", "consistency")
    return {s.name: measured(s, create_mastsam(settings), False, wanted, live) for s in sequences}


def davis_table(runs: dict[str, Run]) -> str:
    """The table of the videos; the mean's frames per second are all frames by all time."""
    columns = [
        *COLUMNS["best-mask"],
        *COLUMNS["best-track"],
        COLUMNS["consistency"][0],
        COLUMNS["consistency"][3],
        *ALWAYS,
    ]
    rows: list[tuple[str, list[Any]]] = [
        (name, [*(column.value(run.score) for column in columns), run.frames_per_second]) for name, run in runs.items()
    ]
    steps = [step for run in runs.values() for step in run.step_ms]
    scores = [run.score for run in runs.values()]
    rows.append(("mean", [*(mean_of(column, scores) for column in columns), 1000 * len(steps) / sum(steps)]))
    return table(["DAVIS", *(c.head for c in columns), "fps"], rows, " ".join([*(c.format for c in columns), ".1f"]))


def bench_scenes(sequences: list[LabelledSequence], settings: Settings, live: bool = False) -> dict[str, Run]:
    """Static scenes, RGB alone and with depth and K."""
    runs = {}
    for geometry, kind in ((False, "RGB"), (True, "RGB-D")):
        for sequence in sequences:
            system = create_mastsam(settings)
            runs[f"{sequence.name} {kind}"] = measured(sequence, system, geometry, SCENE_PROTOCOLS, live)
    return runs


def scenes_table(runs: dict[str, Run]) -> str:
    """The table of the scenes."""
    shown = ("found", "tube IoU", "kept", "kept own", "scene PQ", "ids made", "ids true")
    columns = [*(column for column in COLUMNS["identity"] if column.head in shown), COLUMNS["consistency"][1], *ALWAYS]
    rows = [
        (name, [*(column.value(run.score) for column in columns), float(np.mean(run.step_ms))])
        for name, run in runs.items()
    ]
    return table(["scenes", *(c.head for c in columns), "ms"], rows, " ".join([*(c.format for c in columns), ".0f"]))


def bench_map(sequences: list[LabelledSequence], settings: Settings) -> dict[str, MapRun]:
    """Pose, map and ids with depth and K: the scenes, with noise too, and generated ones of other and harder kinds."""
    generated = [replace(s, name=f"generated {s.name}") for s in generated_sequences(GENERATED / "hard")]
    every = [
        *sequences,
        *(sensed(sequence, sensor) for sensor in SENSORS for sequence in sequences),
        *generated,
        *(sensed(sequence, "noise") for sequence in generated),
    ]
    return {s.name: measure_map(s, settings, FlowCache(FLOW_CACHE)) for s in every}


TRACKER_RUNS: dict[str, Callable[[LabelledSequence], TruthMatcher]] = {
    "true matches": TruthMatcher,
    "2 px noise, 20 % outliers": lambda sequence: TruthMatcher(sequence, noise_px=2.0, outliers=0.2),
}


def bench_tracker(sequences: list[LabelledSequence], settings: Settings, live: bool = False) -> dict[str, Run]:
    """The tracker alone: masks from the truth without ids, matches from the truth.

    At full size: shrunk masks would measure the resampling.
    """
    settings = settings.updated({"frame.working_pixels": 0})
    runs = {}
    for kind, matcher in TRACKER_RUNS.items():
        for sequence in sequences:
            mastsam = Mastsam(matcher(sequence), TruthSegmenter(sequence), settings)
            runs[f"{sequence.name}, {kind}"] = measured(sequence, mastsam, False, SCENE_PROTOCOLS, live)
    return runs


def stages_line(runs: dict[str, Run]) -> str:
    """Milliseconds per stage, mean over all frames."""
    frames = sum(len(done.step_ms) for done in runs.values())
    stages: dict[str, float] = defaultdict(float)
    for done in runs.values():
        for stage, spent in done.stages_ms.items():
            stages[stage] += spent * len(done.step_ms) / frames
    stages["total"] = stages.pop("total", 0.0)  # last
    return "ms per stage: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in stages.items())


def open_data(data: Path | None, names: list[str] | None) -> tuple[list[LabelledSequence], list[LabelledSequence]]:
    """Videos and scenes in DATA, which holds `davis/` and `scenes/` or is one of the two itself."""
    if data is None:
        data = DEFAULT_DATA if DEFAULT_DATA.is_dir() else generated_scenes()
    parts = [part for part in (data / "davis", data / "scenes") if part.is_dir()] or [data]
    found = [sequence for part in parts for sequence in open_sequences(part)]
    if names is not None:
        missing = set(names) - {sequence.name for sequence in found}
        if missing:
            raise InputError(f"no sequence '{sorted(missing)[0]}' in {data}")
        found = [sequence for sequence in found if sequence.name in names]
    return [s for s in found if s.kind == "video"], [s for s in found if s.kind == "scene"]


def generated_scenes() -> Path:
    """The sample scene along its three paths, written once, for machines without other data."""
    for path, frames in (("orbit", 60), ("look_away", 60), ("wide_baseline", 24)):
        if not (GENERATED / "scenes" / path / "scene.json").is_file():
            _LOG.info("rendering the sample scene '%s'", path)
            SampleScene(path=path, frames=frames).write_scene_folder(GENERATED / "scenes" / path)
    return GENERATED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mastsam bench`."""
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        type=Path,
        help=f"DAVIS, scenes, or a folder with davis/ and scenes/ (default: {DEFAULT_DATA}, else generated scenes)",
    )
    parser.add_argument(
        "--only",
        choices=("davis", "scenes", "tracker", "map", "generated"),
        help="one of the tables; map: with depth, generated scenes too, and generated: videos that nothing was chosen"
        " on, both only if asked for",
    )
    parser.add_argument("--sequences", metavar="A,B", help="only these, separated by commas")
    parser.add_argument("--frames", type=int, metavar="N", help="only the first so many frames of each sequence")
    parser.add_argument(
        "--live",
        action="store_true",
        help="no step knows the next frame, as with a camera; otherwise each prepares it, as in `mastsam run`",
    )
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change a setting")
    parser.add_argument("--models", action="store_true", help="instead: times of the foundation models, random weights")
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help=f"with --models: folder of <machine>.md and <machine>.json (default: {RESULTS})",
    )
    parser.add_argument("--profile", action="store_true", help="instead: CPU time of each stage beside its floor")
    parser.add_argument(
        "--pixels", type=int, metavar="N", help="with --profile: resize the frames to so many pixels first"
    )
    parser.add_argument(
        "--cross-validate",
        action="store_true",
        help="instead: settings chosen on all sequences but one, generated ones among them, and scored on that one",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="with --cross-validate: processes at the same time (default: 1)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")


def run(arguments: argparse.Namespace) -> int:
    """Measures what was asked for and prints the tables. Raises MastsamError."""
    settings = Settings().with_assignments(arguments.set)
    if arguments.models:
        return _run_models(settings, arguments)
    if arguments.only == "generated":
        return _run_generated(settings, arguments)
    names = arguments.sequences.split(",") if arguments.sequences else None
    videos, scenes = open_data(arguments.data, names)
    if arguments.profile:
        return _run_profile(videos, scenes, settings, arguments)
    if arguments.cross_validate:
        return _run_cross_validation([*videos, *scenes], settings, arguments)
    figures: dict[str, Any] = {}
    for kind, sequences, measure, show in (
        ("davis", videos, bench_davis, davis_table),
        ("scenes", scenes, bench_scenes, scenes_table),
        ("tracker", scenes, bench_tracker, scenes_table),
    ):
        if sequences and arguments.only in (None, kind):
            runs = measure([sequence.first(arguments.frames) for sequence in sequences], settings, arguments.live)
            sys.stdout.write(f"{show(runs)}\n{stages_line(runs)}\n\n")
            sys.stdout.flush()
            figures[kind] = {name: done.to_mapping() for name, done in runs.items()}
    if arguments.only == "map":
        placed = bench_map([sequence.first(arguments.frames) for sequence in scenes], settings)
        sys.stdout.write(f"{map_table(placed)}\n{stages_line({name: done.run for name, done in placed.items()})}\n")
        figures["map"] = {name: done.to_mapping() for name, done in placed.items()}
    if not figures:
        kind = "videos" if arguments.only == "davis" else "scenes"
        raise InputError(f"there are no {kind} in {arguments.data or DEFAULT_DATA} to measure")
    if arguments.json:
        write_json(arguments.json, figures)
    return 0


def _run_profile(
    videos: list[LabelledSequence], scenes: list[LabelledSequence], settings: Settings, arguments: argparse.Namespace
) -> int:
    """The first video, and the first scene with its depth."""
    from mastsam_ros.evaluation.profile import profile, profile_table

    figures, frames = {}, 20 if arguments.frames is None else arguments.frames
    for sequence, geometry in [*((video, False) for video in videos[:1]), *((scene, True) for scene in scenes[:1])]:
        stages = profile(sequence, settings, geometry, frames, arguments.pixels)
        name = f"{sequence.name} {'RGB-D' if geometry else 'RGB'}"
        sys.stdout.write(f"{profile_table(name, stages)}\n\n")
        sys.stdout.flush()
        figures[name] = [dataclasses.asdict(stage) for stage in stages]
    if arguments.json:
        write_json(arguments.json, figures)
    return 0


def _run_generated(settings: Settings, arguments: argparse.Namespace) -> int:
    """The generated videos that nothing was chosen on."""
    videos = [video.first(arguments.frames) for video in held_out_videos(GENERATED / "held_out")]
    runs = bench_davis(videos, settings)
    sys.stdout.write(f"{davis_table(runs)}\n{stages_line(runs)}\n")
    if arguments.json:
        write_json(arguments.json, {"generated": {name: done.to_mapping() for name, done in runs.items()}})
    return 0


def _run_cross_validation(sequences: list[LabelledSequence], settings: Settings, arguments: argparse.Namespace) -> int:
    """The sequences of DATA and the generated ones; the measurements are kept in `CROSS_VALIDATION`."""
    from mastsam_ros.evaluation.cross_validation import cross_validate, folds_table, spread_table
    from mastsam_ros.evaluation.measured import Measured, sources_of

    if arguments.workers < 1:
        raise InputError(f"--workers must be at least 1, got {arguments.workers}")
    generated = held_out_sequences(GENERATED / "held_out")
    sources = [
        *sources_of((sequence.first(arguments.frames) for sequence in sequences), "given"),
        *sources_of((sequence.first(arguments.frames) for sequence in generated), "generated"),
    ]
    folds = cross_validate(sources, settings, Measured(settings, CROSS_VALIDATION, arguments.workers))
    sys.stdout.write(f"{folds_table(folds)}\n\n{spread_table(folds, sources)}\n")
    if arguments.json:
        write_json(arguments.json, {fold.left_out: dataclasses.asdict(fold) for fold in folds})
    return 0


def _run_models(settings: Settings, arguments: argparse.Namespace) -> int:
    from mastsam_ros.evaluation.bench_models import bench_models, write_results

    text, figures = bench_models(settings, arguments.frames)
    sys.stdout.write(f"{text}\n-> {write_results(arguments.results, text, figures)}\n")
    if arguments.json:
        write_json(arguments.json, figures)
    return 0
