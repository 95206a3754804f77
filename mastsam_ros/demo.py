"""`mastsam demo`: plays a bag to the real node over DDS, records what it answers, scores it, and writes a page.

Without a source of the user's own it plays the generated sample scene, whose truth is known.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml
from tqdm import tqdm

import mastsam_ros
from mastsam_ros.evaluation import masks
from mastsam_ros.evaluation.consistency import LabelConsistency, world_points
from mastsam_ros.evaluation.identity import identity_score, tube_score
from mastsam_ros.evaluation.overlaps import FrameOverlap, frame_overlap, tube_overlap
from mastsam_ros.io import html_page
from mastsam_ros.io.cloud_view import join_clouds, render_cloud
from mastsam_ros.io.frame_bag import TOPICS, FrameBag, read_frames
from mastsam_ros.io.result_bag import RecordedResult, read_clouds, read_diagnostics, read_results
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame, MastsamError, MissingPackageError
from mastsam_ros.viz import overlay

SCENE: dict[str, Any] = {"seed": 0, "path": "orbit", "rate_hz": 5.0}
FRAMES = 80
SOURCE_RATE_HZ = 5.0
"""Frames of the user's own source are played at most this fast, unless --rate says otherwise."""
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
LAST_FRAMES_S = 2.5
"""The node may still be at work on the last image, and reports its diagnostics every second."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mastsam demo`."""
    parser.add_argument(
        "--source", help="images, video, scene folder or rosbag2 of your own; default: a generated scene"
    )
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder to write to (out/demo)")
    parser.add_argument("--frames", type=int, default=None, help=f"at most so many frames ({FRAMES})")
    parser.add_argument("--rate", type=float, help="playing speed, 1 is real time (at most 5 frames/s)")
    parser.add_argument("--image-topic", help="for a bag with several images")
    parser.add_argument("--depth-topic", help="for a bag with several depth images")
    parser.add_argument("--no-depth", action="store_true", help="leave depth and intrinsics out")
    parser.add_argument("--config", type=Path, help="settings file (YAML)")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change one setting")


def run(arguments: argparse.Namespace) -> int:
    """The command. Returns the exit status; raises MastsamError."""
    if find_spec("rclpy") is None:
        raise MissingPackageError("the demo runs the ROS node: pip install 'mastsam_ros[ros]', or use `mastsam run`")
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    settings = Settings.load(arguments.config) if arguments.config else Settings()
    settings = settings.with_assignments(arguments.set)
    if arguments.source:
        bag, name, rate = _own_bag(arguments, output), Path(arguments.source).name, arguments.rate
        rate = rate or min(1.0, SOURCE_RATE_HZ / _frames_per_second(bag))
        scene = None
    else:
        frames = arguments.frames or FRAMES
        bag, scene = _sample_bag(output, frames)
        name, rate = "a generated scene", arguments.rate or 1.0
    has_depth = "depth" in _topics(bag) and not arguments.no_depth
    settings = settings.updated(
        {
            "node.image_topic": TOPICS["image"],
            "node.camera_info_topic": TOPICS["camera_info"] if has_depth else "",
            "node.depth_topic": TOPICS["depth"] if has_depth else "",
        }
    )
    result_bag = output / "result_bag"
    shutil.rmtree(result_bag, ignore_errors=True)
    sent = _play_to_node(bag, result_bag, settings, rate, output, has_depth)
    outcome = _score(bag, result_bag, sent, rate, scene, settings)
    figures = outcome.figures()
    page = output / "index.html"
    page.write_text(_page(outcome, bag, result_bag, name), encoding="utf-8")
    summary = {**figures, "objects": outcome.objects, "settings": settings.flat(), "versions": _versions()}
    (output / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    _write_strip(outcome, bag, output / "strip.jpg")
    width = max(len(label) for label, _, _ in outcome.table())
    lines = [f"{label:<{width}}  {value}" for label, value, _ in outcome.table()]
    sys.stdout.write("\n".join([*lines, "", str(page), ""]))
    return 0


# ---- what is played ---------------------------------------------------------------------------------------------


def _sample_bag(output: Path, frames: int) -> tuple[Path, dict[str, Any]]:
    """The bag of the sample scene, kept from the last time if nothing about it has changed; and its description."""
    parameters: dict[str, Any] = {**SCENE, "frames": frames}
    source = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("io/*sample*.py")))
    source += (Path(__file__).parent / "io/ray_caster.py").read_bytes() + json.dumps(parameters).encode()
    folder = output / f"scene-{hashlib.sha256(source).hexdigest()[:8]}"
    if not folder.exists():
        for old in output.glob("scene-*"):
            shutil.rmtree(old)
        part = output / "scene-part"
        scene = SampleScene(**parameters)
        with FrameBag(part / "bag") as bag:
            for view in _progress(scene, "rendering the sample scene", len(scene)):
                bag.add(view.frame, view.instance)
        (part / "scene.json").write_text(json.dumps(scene.description()), encoding="utf-8")
        part.rename(folder)  # complete, or not there
    return folder / "bag", json.loads((folder / "scene.json").read_text(encoding="utf-8"))


def _own_bag(arguments: argparse.Namespace, output: Path) -> Path:
    """The user's source as a bag with the topics that the node is started for."""
    from mastsam_ros.io.sources import open_source

    folder = output / "source_bag"
    shutil.rmtree(folder, ignore_errors=True)
    topics = {"image_topic": arguments.image_topic, "depth_topic": arguments.depth_topic}
    count = 0
    with open_source(arguments.source, use_depth=not arguments.no_depth, **topics) as source, FrameBag(folder) as bag:
        limit = arguments.frames or FRAMES
        for _, frame in _progress(islice(source, limit), "reading the source", min(limit, source.frame_count or limit)):
            bag.add(frame)
            count += 1
    if count < 2:
        raise MastsamError(f"{arguments.source} holds {count} frame: the demo needs at least two")
    return folder


def _progress(items: Any, title: str, total: int) -> Any:
    return tqdm(items, title, total, unit="frame", leave=False, disable=not sys.stderr.isatty())


def _topics(bag: Path) -> set[str]:
    from rosbags.rosbag2 import Reader

    with Reader(bag) as reader:
        names = {topic: name for name, topic in TOPICS.items()}
        return {names[connection.topic] for connection in reader.connections if connection.msgcount}


def _frames_per_second(bag: Path) -> float:
    from rosbags.rosbag2 import Reader

    with Reader(bag) as reader:
        count = sum(c.msgcount for c in reader.connections if c.topic == TOPICS["image"])
        return max(count - 1, 1) / max(reader.duration / 1e9, 1e-3)


# ---- node, recorder and player, each a process of its own -------------------------------------------------------


def _play_to_node(
    bag: Path, result_bag: Path, settings: Settings, rate: float, output: Path, has_depth: bool
) -> dict[str, list[tuple[int, int]]]:
    """Plays the bag to a fresh node and records its answers. Returns what was sent when (see `ros.play`)."""
    logs = output / "logs"
    logs.mkdir(exist_ok=True)
    parameters = logs / "parameters.yaml"
    parameters.write_text(
        yaml.safe_dump({"/**": {"ros__parameters": _nested(settings.flat())}}, sort_keys=False), encoding="utf-8"
    )
    # A domain of its own: a robot on the same network hears and says nothing. ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
    # would do that too, but with it large images get lost.
    environment = {key: value for key, value in os.environ.items() if key != "ROS_AUTOMATIC_DISCOVERY_RANGE"}
    environment |= {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}
    answers = ["labels", "instances", "events", *(["points"] if has_depth else [])]
    topics = [*(f"/mastsam/{name}" for name in answers), "/diagnostics"]
    sent = logs / "sent.json"
    sent.unlink(missing_ok=True)
    with (
        _process("node", ["mastsam_ros", "--ros-args", "--params-file", str(parameters)], environment, logs) as node,
        _process("recorder", ["mastsam_ros.ros.record", str(result_bag), *topics], environment, logs) as recorder,
    ):
        recorder.wait_for_line("recording", [node])
        play = ["mastsam_ros.ros.play", str(bag), "--rate", f"{rate:.6g}", "--log", str(sent)]
        play += [
            "--wait-for",
            TOPICS["image"],
            *([TOPICS["depth"]] if has_depth else []),
            "--timeout",
            f"{START_TIMEOUT_S:g}",
        ]
        with _process("player", play, environment, logs) as player:
            player.wait_until_done([node, recorder])
        time.sleep(LAST_FRAMES_S)
        node.check()
    return json.loads(sent.read_text(encoding="utf-8"))


@dataclass
class _Process:
    """A child with its output in a log file."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises MastsamError with the last line of the log if it has ended with an error."""
        if self.child.poll() not in (None, 0):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise MastsamError(
                f"the {self.name} ended with status {self.child.returncode}: {(lines or ['no word'])[-1]}"
            )

    def wait_for_line(self, line: str, others: list[_Process]) -> None:
        """Until the log holds this line."""
        end = time.monotonic() + START_TIMEOUT_S
        while line not in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            for process in (*others, self):
                process.check()
            if time.monotonic() > end:
                raise MastsamError(f"the {self.name} is not ready after {START_TIMEOUT_S:g} s: see {self.log}")
            time.sleep(0.1)

    def wait_until_done(self, others: list[_Process]) -> None:
        """Until it has ended by itself."""
        while self.child.poll() is None:
            for process in others:
                process.check()
            time.sleep(0.1)
        self.check()

    def stop(self) -> None:
        """Ends it with SIGINT, and by force if that does not help."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
            try:
                self.child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


@contextmanager
def _process(name: str, module: list[str], environment: Mapping[str, str], logs: Path) -> Iterator[_Process]:
    """`python -m module...`, ended at the latest with the block. In a session of its own: Ctrl-C reaches us alone."""
    path = logs / f"{name}.log"
    with path.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *module],
            env=dict(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        process = _Process(name, child, path)
        try:
            yield process
        finally:
            process.stop()


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        section, _, name = path.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


# ---- what came of it --------------------------------------------------------------------------------------------


@dataclass
class _Outcome:
    """The figures of one run, and what the page needs beside them."""

    settings: Settings
    results: list[RecordedResult]
    sent: int
    rate: float
    seconds: float
    latency_ms: npt.NDArray[np.float64]
    diagnostics: dict[str, str]
    scores: dict[str, float] = field(default_factory=dict)
    objects: list[dict[str, Any]] = field(default_factory=list)
    """Per true object: name, id, tube_iou."""
    object_ids: dict[str, list[int]] = field(default_factory=dict)
    """Per true object: in every frame the id that covers it, 0 where none does, -1 where it is not in view."""

    @property
    def stamps(self) -> list[int]:
        return [item.result.stamp_ns for item in self.results]

    def figures(self) -> dict[str, float | int | None]:
        """Everything that is a number, by name."""
        ids = {int(number) for item in self.results for number in np.unique(item.result.labels) if number}
        answered = len(self.results)
        values: dict[str, float | int | None] = {
            "frames_sent": self.sent,
            "frames_answered": answered,
            "drop_share": 1 - answered / max(self.sent, 1),
            "frames_per_second_sent": self.sent / max(self.seconds, 1e-9),
            "latency_ms_p50": float(np.percentile(self.latency_ms, 50)) if len(self.latency_ms) else None,
            "latency_ms_p95": float(np.percentile(self.latency_ms, 95)) if len(self.latency_ms) else None,
            "ids": len(ids),
            "masks_per_frame": _mean([len(np.unique(i.result.labels[i.result.labels > 0])) for i in self.results]),
            "coverage": _mean([float((i.result.labels > 0).mean()) for i in self.results]),
            **self.scores,
        }
        return {name: None if value is None or not np.isfinite(value) else value for name, value in values.items()}

    def table(self) -> list[tuple[str, str, str]]:
        """Name, value as text, and what it means, of the figures that people want."""
        figures = self.figures()
        rows = []
        for name, (label, form, meaning) in _MEANINGS.items():
            value = figures.get(name)
            if value is not None:
                rows.append((label, form(value), meaning))
        for key, label in (("memory MB", "memory of the node"), ("lost", "images lost on the way")):
            if key in self.diagnostics:
                unit = " MB" if "MB" in key else ""
                rows.append((label, self.diagnostics[key] + unit, "the node's own count, from /diagnostics"))
        return rows


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms"


def _two(value: float) -> str:
    return f"{value:.3f}"


def _count(value: float) -> str:
    return f"{value:.0f}"


_MEANINGS = {
    "objects_found": ("objects found", _percent, "objects on the table with tube IoU above 0.5 under one id"),
    "tube_iou": ("mean tube IoU", _two, "pixels of one id over all frames against one object, objects' mean"),
    "ids_kept": ("ids kept", _percent, "objects with the same id in the first and the last 15 % of the frames"),
    "H": ("consistency H", _percent, "pixels at the same place in space that carry the same id, over all views"),
    "best_mask_iou": ("best mask IoU", _two, "per frame and true instance, the mask that fits best"),
    "best_track_iou": ("best track IoU", _two, "the same with one id for the whole sequence"),
    "scene_pq": ("scene PQ", _two, "panoptic quality of whole tubes, scenery included"),
    "id_switches": ("id switches", _count, "times that the id of a true instance changes"),
    "ids": ("ids in all", _count, "ids that were ever shown"),
    "masks_per_frame": ("masks per frame", lambda v: f"{v:.1f}", "mean number of ids in one frame"),
    "coverage": ("coverage", _percent, "labelled pixels"),
    "frames_sent": ("images sent", _count, "published on the camera topic"),
    "frames_answered": ("frames answered", _count, "label images that came back"),
    "drop_share": ("dropped", _percent, "images that were skipped because a newer one had come"),
    "frames_per_second_sent": ("images per second", lambda v: f"{v:.1f}", "pace at which they were sent"),
    "latency_ms_p50": ("latency p50", _milliseconds, "from the image's publication to the arrival of its labels"),
    "latency_ms_p95": ("latency p95", _milliseconds, "the same, 95th percentile"),
}


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _score(
    bag: Path,
    result_bag: Path,
    sent: dict[str, list[tuple[int, int]]],
    rate: float,
    scene: dict[str, Any] | None,
    settings: Settings,
) -> _Outcome:
    """Figures of what was recorded, against the truth in the bag where there is any."""
    results = read_results(result_bag)
    if not results:
        raise MastsamError(f"the node answered no image: see {result_bag.parent / 'logs' / 'node.log'}")
    sent_at = dict(sent[TOPICS["image"]])
    seconds = (sent[TOPICS["image"]][-1][1] - sent[TOPICS["image"]][0][1]) / 1e9
    latency = [(item.arrived_ns - sent_at[item.result.stamp_ns]) / 1e6 for item in results]
    outcome = _Outcome(settings, results, len(sent_at), rate, seconds, np.array(latency), read_diagnostics(result_bag))
    if scene is None:
        return outcome
    by_stamp = {item.result.stamp_ns: item.result.labels for item in results}
    overlaps: list[FrameOverlap] = []
    voxels = LabelConsistency()
    for frame, instance in read_frames(bag):
        labels = by_stamp.get(frame.stamp_ns)
        if labels is None or instance is None:
            continue
        overlaps.append(frame_overlap(labels, instance))
        if frame.depth is not None and frame.K is not None and frame.T_world_camera is not None:
            voxels.add(labels, world_points(frame.depth, frame.K, frame.T_world_camera))
    objects = [int(number) for number in scene["objects"]]
    names = {int(number): name for number, name in scene["instances"].items()}
    identity = identity_score(overlaps, objects)
    outcome.scores = {
        "objects_found": identity.found,
        "tube_iou": identity.tube_iou,
        "ids_kept": identity.kept,
        "H": voxels.value(),
        "best_mask_iou": masks.best_mask(overlaps).iou,
        "best_track_iou": masks.best_track(overlaps),
        "scene_pq": identity.scene_pq,
        "id_switches": identity.switches,
    }
    tubes = tube_score(tube_overlap(overlaps), objects)
    best = [masks.best_masks(overlap) for overlap in overlaps]
    for number in sorted(tubes.iou, key=lambda n: -tubes.iou[n]):
        outcome.objects.append({"name": names[number], "id": tubes.ids[number], "tube_iou": tubes.iou[number]})
        outcome.object_ids[names[number]] = [frame[number][0] if number in frame else -1 for frame in best]
    return outcome


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"mastsam_ros": mastsam_ros.__version__, "python": platform.python_version()}
    for package in ("numpy", "opencv-python-headless", "torch", "rclpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


# ---- the page ---------------------------------------------------------------------------------------------------


def _page(outcome: _Outcome, bag: Path, result_bag: Path, name: str) -> str:
    figures = outcome.figures()
    seconds = [(stamp - outcome.stamps[0]) / 1e9 for stamp in outcome.stamps]
    blocks = [html_page.tiles(_tiles(outcome, figures))]
    blocks.append(
        html_page.section(
            "What the node saw, and what it said",
            "Camera image on the left, the published labels on the right. A colour is an id: it should stay on its "
            "object while the camera moves.",
            html_page.video(_side_by_side(outcome, bag), _video_rate(outcome), "Every answered frame, in a loop."),
            html_page.film_strip(_strip(outcome, bag, 8)),
        )
    )
    if outcome.object_ids:
        rows = [
            html_page.TimelineRow(entry["name"], outcome.object_ids[entry["name"]], f"{entry['tube_iou']:.2f}")
            for entry in outcome.objects
        ]
        blocks.append(
            html_page.section(
                "The id that each true object carries",
                "One colour from end to end: the object kept its id. Grey: in view, but no id. Nothing: out of view. "
                "On the right the tube IoU.",
                html_page.timeline(rows, seconds),
            )
        )
    blocks.append(
        html_page.section(
            "All ids over time",
            "Every id that was shown in at least three frames, by its first appearance.",
            html_page.timeline(_id_rows(outcome), seconds),
        )
    )
    blocks.extend(_cloud_section(outcome, bag, result_bag))
    blocks.append(
        html_page.section(
            "Figures",
            "Scored on the answered frames; best mask, best track and consistency are always to be read together.",
            html_page.figure_table(("figure", "value", "meaning"), outcome.table()),
        )
    )
    stages = [(key.removesuffix(" ms p50, p95"), *value.split(", ")) for key, value in outcome.diagnostics.items()
              if key.endswith(" ms p50, p95")]  # fmt: skip
    if stages:
        table = html_page.figure_table(("stage", "p50 ms", "p95 ms"), stages, numbers=(1, 2))
        blocks.append(html_page.details("Milliseconds per stage, as the node reports them", table))
    rows_of_settings = [
        (info.path, json.dumps(outcome.settings.flat()[info.path]), info.description) for info in Settings.infos()
    ]
    table = html_page.figure_table(("setting", "value", "meaning"), rows_of_settings)
    blocks.append(html_page.section("Effective settings", "What the node was started with.",
                                    html_page.details("Show all settings", table)))  # fmt: skip
    lead = (
        f"{name[0].upper()}{name[1:]}, {outcome.sent} images, played over DDS to the running ROS 2 node; "
        "this page shows what it published."
    )
    versions = ", ".join(f"{package} {number}" for package, number in _versions().items())
    return html_page.page("mastsam_ros demo", lead, blocks, f"Written by `mastsam demo` with {versions}.")


def _tiles(outcome: _Outcome, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    tiles = []
    if outcome.objects:
        found = round(figures["objects_found"] * len(outcome.objects))
        tiles += [
            ("objects found", f"{found}", f"of {len(outcome.objects)}"),
            ("ids kept to the end", f"{100 * (figures['ids_kept'] or 0):.0f}", "%"),
            ("consistency H", f"{100 * figures['H']:.1f}", "%"),
        ]
    else:
        tiles.append(("ids in all", f"{figures['ids']}", ""))
        tiles.append(("masks per frame", f"{figures['masks_per_frame']:.1f}", ""))
        tiles.append(("labelled pixels", f"{100 * figures['coverage']:.0f}", "%"))
    if figures["latency_ms_p50"] is not None:
        tiles.append(("latency p50 / p95", f"{figures['latency_ms_p50']:.0f} / {figures['latency_ms_p95']:.0f}", "ms"))
    tiles.append(("images dropped", f"{100 * figures['drop_share']:.1f}", f"% of {figures['frames_sent']}"))
    return tiles


def _answered(outcome: _Outcome, bag: Path) -> Iterator[tuple[int, Frame, npt.NDArray[np.uint16]]]:
    """Index, frame and labels of every frame that was answered."""
    by_stamp = {stamp: index for index, stamp in enumerate(outcome.stamps)}
    for frame, _ in read_frames(bag):
        index = by_stamp.get(frame.stamp_ns)
        if index is not None:
            yield index, frame, outcome.results[index].result.labels


def _shrunk(image: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    if image.shape[1] <= width:
        return image
    height = round(image.shape[0] * width / image.shape[1])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _side_by_side(outcome: _Outcome, bag: Path) -> Iterator[npt.NDArray[np.uint8]]:
    for _, frame, labels in _answered(outcome, bag):
        yield np.hstack([_shrunk(frame.image, 640), _shrunk(overlay(frame.image, labels, 0.55), 640)])


def _video_rate(outcome: _Outcome) -> float:
    span = (outcome.stamps[-1] - outcome.stamps[0]) / 1e9
    return float(np.clip((len(outcome.stamps) - 1) / max(span, 1e-3), 2, 30))


def _strip(outcome: _Outcome, bag: Path, count: int) -> list[tuple[npt.NDArray[np.uint8], str]]:
    chosen = set(np.linspace(0, len(outcome.results) - 1, min(count, len(outcome.results))).astype(int).tolist())
    pictures = []
    for index, frame, labels in _answered(outcome, bag):
        if index in chosen:
            time_s = (frame.stamp_ns - outcome.stamps[0]) / 1e9
            pictures.append((_shrunk(overlay(frame.image, labels, 0.55, numbers=True), 640), f"{time_s:.1f} s"))
    return pictures


def _write_strip(outcome: _Outcome, bag: Path, path: Path) -> None:
    """Camera above, labels below, three times: the picture for the README."""
    chosen = set(np.linspace(0, len(outcome.results) - 1, min(3, len(outcome.results))).astype(int).tolist())
    columns = []
    for index, frame, labels in _answered(outcome, bag):
        if index in chosen:
            shown = overlay(frame.image, labels, 0.55)
            gap = np.full((8, min(frame.width, 420), 3), 255, np.uint8)
            columns.append(np.vstack([_shrunk(frame.image, 420), gap, _shrunk(shown, 420)]))
            columns.append(np.full((columns[-1].shape[0], 8, 3), 255, np.uint8))
    picture = np.hstack(columns[:-1])
    cv2.imwrite(str(path), np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])


def _id_rows(outcome: _Outcome, most: int = 48) -> list[html_page.TimelineRow]:
    count = len(outcome.results)
    shown: dict[int, list[int]] = {}
    area: dict[int, int] = {}
    for index, item in enumerate(outcome.results):
        numbers, pixels = np.unique(item.result.labels, return_counts=True)
        for number, size in zip(numbers.tolist(), pixels.tolist(), strict=True):
            if number:
                shown.setdefault(number, [-1] * count)[index] = number
                area[number] = area.get(number, 0) + size
    lasting = [number for number, ids in shown.items() if sum(i > 0 for i in ids) >= min(3, count)]
    largest = sorted(sorted(lasting, key=lambda n: -area[n])[:most])
    return [html_page.TimelineRow(f"id {number}", shown[number]) for number in largest]


def _cloud_section(outcome: _Outcome, bag: Path, result_bag: Path) -> list[str]:
    """The labelled clouds of all frames in one, from two sides; of one frame where no poses are known."""
    poses = {frame.stamp_ns: frame.T_world_camera for _, frame, _ in _answered(outcome, bag)}
    known = {stamp: T for stamp, T in poses.items() if T is not None}
    if known:
        every = max(len(known) // 25, 1)
        chosen = set(sorted(known)[::every])
        cloud = join_clouds((c, known[stamp]) for stamp, c in read_clouds(result_bag) if stamp in chosen)
        eyes = np.stack([T[:3, 3] for T in known.values()])
        target = _common_focus(list(known.values()))
        note = f"The published clouds of {len(chosen)} frames, joined with the camera's true poses."
        up = np.array([0, 0, 1.0])
        middle = eyes[len(eyes) // 2] - target
        views = [
            (target + _turned(middle, 35) * 1.0 + up * 0.15, "From the camera's side."),
            (target + _turned(middle, -75) * 0.75 + up * 1.1, "From above, turned by 110 degrees."),
        ]
    else:
        clouds = list(islice(read_clouds(result_bag), len(outcome.results) // 2 + 1))
        if not clouds:
            return []
        cloud = clouds[-1][1]
        depth = float(np.median(cloud.xyz[:, 2])) if len(cloud) else 1.0
        target, up = np.array([0, 0, depth]), np.array([0, -1.0, 0])
        note = "The published cloud of one frame."
        views = [
            (np.array([0.25 * depth, -0.2 * depth, 0.0]), "From the right of the camera."),
            (np.array([-0.5 * depth, -0.7 * depth, 0.1 * depth]), "From the left, and from above."),
        ]
    if not len(cloud):
        return []
    pictures = [
        html_page.picture(html_page.png(render_cloud(cloud, eye, target, up=up)), caption) for eye, caption in views
    ]
    return [html_page.section("The labelled cloud", note, html_page.pair(*pictures))]


def _turned(vector: npt.NDArray[np.float64], degrees: float) -> npt.NDArray[np.float64]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ vector


def _common_focus(poses: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """The point that is nearest to all optical axes (least squares)."""
    A, b = np.zeros((3, 3)), np.zeros(3)
    for T in poses:
        across = np.eye(3) - np.outer(T[:3, 2], T[:3, 2])
        A += across
        b += across @ T[:3, 3]
    # One pose, or parallel axes: the regularisation keeps the point two metres ahead.
    ahead = np.mean([T[:3, 3] + 2 * T[:3, 2] for T in poses], axis=0)
    return np.linalg.solve(A + 1e-3 * np.eye(3), b + 1e-3 * ahead)
