"""Measures the embedded default on DAVIS sequences and scenes, and the tracker alone; prints the README's tables.

python bench/run.py [DATA] [--only davis|scenes|tracker] [--sequences a,b] [--frames N] [--set path=value] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mastsam_ros.evaluation.datasets import Sequence as DataSequence  # noqa: E402
from mastsam_ros.evaluation.datasets import open_sequences  # noqa: E402
from mastsam_ros.evaluation.oracles import TruthMatcher, TruthSegmenter  # noqa: E402
from mastsam_ros.evaluation.protocols import FlowCache, SequenceScore, SequenceScorer  # noqa: E402
from mastsam_ros.evaluation.tables import table  # noqa: E402
from mastsam_ros.pipeline import Mastsam, create_mastsam  # noqa: E402
from mastsam_ros.settings import Settings  # noqa: E402
from mastsam_ros.types import InputError, MastsamError  # noqa: E402

DEFAULT_DATA = ROOT.parent / "shared" / "data"
GENERATED = ROOT / "out" / "bench_scenes"
FLOW_CACHE = ROOT / "out" / "bench_cache"


@dataclasses.dataclass(frozen=True)
class Run:
    """One sequence through the pipeline: its score and how long the steps took (metrics and decoding aside)."""

    score: SequenceScore
    step_ms: tuple[float, ...]
    stages_ms: dict[str, float]

    @property
    def frames_per_second(self) -> float:
        """Frames by the time of all steps."""
        return 1000 * len(self.step_ms) / sum(self.step_ms)


def run(sequence: DataSequence, mastsam: Mastsam, geometry: bool, protocols: Sequence[str]) -> Run:
    """Every frame of the sequence through `Mastsam.step`, scored outside the timed part."""
    scorer = SequenceScorer(sequence, protocols, FlowCache(FLOW_CACHE))
    step_ms, stages = [], defaultdict(float)
    for index, files in enumerate(sequence.frames):
        frame = sequence.frame(index, geometry)
        start = time.perf_counter()
        result = mastsam.step(frame)
        step_ms.append(1000 * (time.perf_counter() - start))
        for stage, spent in result.timings_ms.items():
            stages[stage] += spent
        scorer.add(files, result.labels, frame.image)
        if sys.stderr.isatty():
            print(f"\r{sequence.name} {index + 1}/{len(sequence.frames)} ", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return Run(scorer.score(), tuple(step_ms), {s: ms / len(step_ms) for s, ms in stages.items()})


def bench_davis(sequences: list[DataSequence], settings: Settings) -> dict[str, Run]:
    """The paper's protocol on videos, the embedded default."""
    wanted = ("best-mask", "best-track", "consistency")
    return {s.name: run(s, create_mastsam(settings), False, wanted) for s in sequences}


def print_davis(runs: dict[str, Run]) -> None:
    """The table of the videos."""
    heads = ["DAVIS", "IoU", "F1", "precision", "recall", "best track", "consistency %", "masks", "coverage %", "fps"]
    rows = []
    for name, done in runs.items():
        score = done.score
        assert score.best_mask is not None and score.best_track is not None
        best = score.best_mask
        consistency = float("nan") if score.consistency is None else score.consistency
        values = [best.iou, best.f1, best.precision, best.recall, score.best_track, consistency]
        rows.append((name, [*values, score.masks_per_frame, 100 * score.coverage, done.frames_per_second]))
    spent = sum(sum(done.step_ms) for done in runs.values())
    overall_fps = 1000 * sum(len(done.step_ms) for done in runs.values()) / spent
    rows.append(("mean", [*np.mean([values[:-1] for _, values in rows], axis=0), overall_fps]))
    print(table(heads, rows, ".3f .3f .3f .3f .3f .2f .1f .1f .1f"))
    print_stages(runs)


def bench_scenes(sequences: list[DataSequence], settings: Settings) -> dict[str, Run]:
    """Static scenes, RGB alone and with depth and K."""
    runs = {}
    for geometry, kind in ((False, "RGB"), (True, "RGB-D")):
        for sequence in sequences:
            runs[f"{sequence.name} {kind}"] = run(
                sequence, create_mastsam(settings), geometry, ("identity", "consistency")
            )
    return runs


def print_scenes(runs: dict[str, Run]) -> None:
    """The table of the scenes."""
    heads = ["scenes", "found", "tube IoU", "H %", "kept", "ids made/true", "scene PQ", "masks", "coverage %", "ms"]
    rows = []
    for name, done in runs.items():
        score, identity = done.score, done.score.identity
        assert identity is not None
        ids = f"{identity.ids_made}/{identity.ids_true}"
        H = float("nan") if score.H is None else score.H
        values = [identity.found, identity.tube_iou, H, identity.kept, ids, identity.scene_pq, score.masks_per_frame]
        rows.append((name, [*values, 100 * score.coverage, float(np.mean(done.step_ms))]))
    print(table(heads, rows, ".2f .3f .1f .2f s .2f .1f .1f .0f"))
    print_stages(runs)


TRACKER_RUNS: dict[str, Callable[[DataSequence], TruthMatcher]] = {
    "true matches": TruthMatcher,
    "2 px noise, 20 % outliers": lambda sequence: TruthMatcher(sequence, noise_px=2.0, outliers=0.2),
}


def bench_tracker(sequences: list[DataSequence], settings: Settings) -> dict[str, Run]:
    """The tracker alone: masks from the truth without ids, matches from the truth."""
    runs = {}
    for kind, matcher in TRACKER_RUNS.items():
        for sequence in sequences:
            mastsam = Mastsam(matcher(sequence), TruthSegmenter(sequence), settings)
            runs[f"{sequence.name}, {kind}"] = run(sequence, mastsam, False, ("identity", "consistency"))
    return runs


def print_stages(runs: dict[str, Run]) -> None:
    """Milliseconds per stage, mean over all frames."""
    frames = sum(len(done.step_ms) for done in runs.values())
    stages: dict[str, float] = defaultdict(float)
    for done in runs.values():
        for stage, spent in done.stages_ms.items():
            stages[stage] += spent * len(done.step_ms) / frames
    stages["total"] = stages.pop("total", 0.0)  # last
    print("ms per stage: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in stages.items()) + "\n")


def open_data(data: Path | None, names: list[str] | None) -> tuple[list[DataSequence], list[DataSequence]]:
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
    """The scenes that the package makes itself, for machines without other data."""
    raise InputError(f"{DEFAULT_DATA} is not there: name a folder with DAVIS sequences or scenes")


def as_json(runs: dict[str, Run]) -> dict[str, Any]:
    """Plain values of the runs."""
    return {
        name: {
            **dataclasses.asdict(done.score),
            "fps": done.frames_per_second,
            "ms_p50": float(np.percentile(done.step_ms, 50)),
            "ms_p95": float(np.percentile(done.step_ms, 95)),
            "stages_ms": done.stages_ms,
        }
        for name, done in runs.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="DAVIS folder, scenes, or a folder with davis/ and scenes/")
    parser.add_argument("--only", choices=("davis", "scenes", "tracker"), help="one of the three tables")
    parser.add_argument("--sequences", help="only these, separated by commas")
    parser.add_argument("--frames", type=int, help="only the first so many frames of each sequence")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change a setting")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args(arguments)
    try:
        settings = Settings().with_assignments(options.set)
        names = options.sequences.split(",") if options.sequences else None
        videos, scenes = open_data(options.data, names)
        videos, scenes = [s.first(options.frames) for s in videos], [s.first(options.frames) for s in scenes]
        figures: dict[str, Any] = {}
        for kind, sequences, measure, show in (
            ("davis", videos, bench_davis, print_davis),
            ("scenes", scenes, bench_scenes, print_scenes),
            ("tracker", scenes, bench_tracker, print_scenes),
        ):
            if sequences and options.only in (None, kind):
                runs = measure(sequences, settings)
                show(runs)
                figures[kind] = as_json(runs)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    except MastsamError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
