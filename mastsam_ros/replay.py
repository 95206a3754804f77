"""`mastsam replay`: a bag's frames through the step, or through the real node, into a bag of results, and its score."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from mastsam_ros.backends import explained
from mastsam_ros.io.bags import BagSource
from mastsam_ros.io.result_bag import ResultBag, clear_result_bag, read_diagnostics, read_labels
from mastsam_ros.io.sources import open_source
from mastsam_ros.run import stepped, versions
from mastsam_ros.settings import Settings
from mastsam_ros.settings_arguments import add_settings_arguments, settings_from
from mastsam_ros.types import InputError, MastsamError, MissingPackageError, PoseState

if TYPE_CHECKING:
    from mastsam_ros.evaluation.datasets import LabelledSequence
    from mastsam_ros.evaluation.protocols import SequenceScore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mastsam replay`."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="rosbag2: folder, .mcap or .db3")
    parser.add_argument(
        "--output", type=Path, metavar="RESULT_BAG", help="bag of the results (default: out/replay/<name of BAG>)"
    )
    parser.add_argument("--image-topic", metavar="TOPIC", help="of a bag with several images")
    parser.add_argument("--depth-topic", metavar="TOPIC", help="of a bag with several depth images")
    parser.add_argument(
        "--pose-topic",
        metavar="TOPIC|tf",
        help="of a rosbag2: nav_msgs/Odometry, or tf, that tells where the camera is in node.map_frame, in place of own"
        " odometry",
    )
    parser.add_argument("--no-depth", action="store_true", help="use neither depth nor intrinsics")
    add_settings_arguments(parser)
    parser.add_argument(
        "--ground-truth", metavar="TOPIC|FOLDER", help="score against a topic of true labels in BAG, or a folder of PNG"
    )
    parser.add_argument("--protocol", default="all", help="with --ground-truth: what to measure, as in `evaluate`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--ros", action="store_true", help="in real time, through topics, against the real node")
    parser.add_argument("--rate", type=float, default=1.0, help="with --ros: playing speed; 1 is the bag's own")
    parser.add_argument("--use-sim-time", action="store_true", help="with --ros: the node lives in the bag's time")


@dataclass(frozen=True)
class Replayed:
    """What came of a bag. latency_ms: of every answered frame; of the step alone without ROS, else from publication.

    settings: what the steps ran with.
    """

    frames: int
    latency_ms: Sequence[float]
    settings: Settings

    def figures(self) -> dict[str, float | int | None]:
        """By name, as JSON has them."""
        p50, p95 = np.percentile(self.latency_ms, [50, 95]).tolist() if self.latency_ms else (None, None)
        answered = len(self.latency_ms)
        return {
            "frames": self.frames,
            "answered": answered,
            "drop_share": 1 - answered / max(self.frames, 1),
            "latency_ms_p50": p50,
            "latency_ms_p95": p95,
        }


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns the exit status; raises MastsamError."""
    settings, chosen = explained(settings_from(arguments))
    output = arguments.output or Path("out") / "replay" / arguments.bag.stem
    topics = {"image_topic": arguments.image_topic, "depth_topic": arguments.depth_topic}
    if arguments.ros and arguments.pose_topic:
        raise InputError("--ros plays images, depth and intrinsics, no poses: leave --pose-topic out")
    poses = (arguments.pose_topic, settings.node.map_frame) if arguments.pose_topic else None
    with (
        open_source(arguments.bag, **topics, use_depth=not arguments.no_depth, poses=poses) as source,
        TemporaryDirectory() as folder,
    ):
        if not isinstance(source, BagSource):
            raise InputError(f"{arguments.bag} is no rosbag2; `mastsam run` takes it")
        truth = _truth(arguments, topics, Path(folder))
        sys.stdout.write(f"{chosen}\n")
        if arguments.ros:
            replayed = replay_to_node(source, arguments.bag, output, settings, arguments.rate, arguments.use_sim_time)
        else:
            replayed = replay(source, output, settings, poses_given=poses is not None)
        figures: dict[str, Any] = replayed.figures()
        if arguments.ros:
            figures["diagnostics"] = read_diagnostics(output)
            figures["lost_on_the_way"] = replayed.frames - int(figures["diagnostics"].get("received", replayed.frames))
        sys.stdout.write(_line(figures, arguments.ros, output))
        if truth is not None:
            from mastsam_ros.evaluation.command import as_mapping, protocol_tables

            sequence, protocols = truth
            score = score_bag(sequence, output, protocols)
            sys.stdout.write(f"\n{protocol_tables({score.name: [score]}, protocols)}")
            figures["scores"] = as_mapping([score], protocols)
    if arguments.json:
        from mastsam_ros.evaluation.tables import write_json

        about = {"settings": replayed.settings.to_mapping(), "versions": versions()}
        write_json(arguments.json, {"bag": str(arguments.bag), "ros": arguments.ros, **figures, **about})
    return 0


def _truth(
    arguments: argparse.Namespace, topics: Mapping[str, str | None], folder: Path
) -> tuple[LabelledSequence, Sequence[str]] | None:
    """What is scored against, and how; None without `--ground-truth`. A wrong name is told before the work."""
    if not arguments.ground_truth:
        return None
    from mastsam_ros.evaluation.bag_data import bag_sequence
    from mastsam_ros.evaluation.command import chosen_protocols

    protocols = chosen_protocols(arguments.protocol)
    return bag_sequence(arguments.bag, arguments.ground_truth, folder, **topics), protocols


def replay(source: BagSource, output: Path, settings: Settings, *, poses_given: bool = False) -> Replayed:
    """Every frame through `Mastsam.step`, none dropped; the same bag and settings give the same bytes (on the CPU)."""
    from tqdm import tqdm

    from mastsam_ros.pipeline import create_mastsam

    mastsam = create_mastsam(settings)
    if poses_given:
        mastsam.expect_poses()
    latency_ms = []
    interval_ns, map_ns = round(settings.node.map_interval_s * 1e9), None
    with (
        ResultBag(output, map_frame=settings.node.map_frame) as bag,
        tqdm(source, total=source.frame_count, desc=source.name, unit="frame", disable=None) as frames,
    ):
        for _, _, result in stepped(mastsam, frames):
            bag.add(result)
            placed = result.T_world_camera is not None and result.pose is not PoseState.UP_TO_SCALE
            if placed and (map_ns is None or abs(result.stamp_ns - map_ns) >= interval_ns):
                bag.add_map(mastsam.world_map(), result.stamp_ns)
                map_ns = result.stamp_ns
            latency_ms.append(result.timings_ms.get("total", sum(result.timings_ms.values())))
        if map_ns not in (None, result.stamp_ns):
            bag.add_map(mastsam.world_map(), result.stamp_ns)
    return Replayed(len(latency_ms), latency_ms, mastsam.settings)


def replay_to_node(
    source: BagSource, bag: Path, output: Path, settings: Settings, rate: float, use_sim_time: bool
) -> Replayed:
    """The bag over DDS to the node at its own pace (times `rate`), and what the node answers into `output`.

    Logs of the three processes are written to `<output>_logs`. Raises MastsamError.
    """
    if find_spec("rclpy") is None:
        raise MissingPackageError("--ros runs the ROS node: pip install 'mastsam_ros[ros]', or leave --ros out")
    from mastsam_ros.node_session import run_session

    depth = source.depth_topic
    settings = settings.updated(
        {
            "node.image_topic": source.image_topic,
            "node.compressed": source.is_compressed(source.image_topic),
            "node.depth_topic": depth or "",
            "node.compressed_depth": bool(depth) and source.is_compressed(depth or ""),
            "node.camera_info_topic": source.camera_info_topic or "",
            "node.rectified": settings.node.rectified or source.rectified,
        }
    )
    clear_result_bag(output)
    logs = output.with_name(f"{output.name}_logs")
    session = run_session(bag, output, logs, settings, rate=rate, use_sim_time=use_sim_time)
    arrived = {stamp_ns: arrived_ns for stamp_ns, arrived_ns, _ in read_labels(output)}
    if not arrived:
        raise MastsamError(f"the node answered no image: see {logs / 'node.log'}")
    latency_ms = [(arrived_ns - session.sent[stamp_ns]) / 1e6 for stamp_ns, arrived_ns in arrived.items()]
    return Replayed(len(session.sent), latency_ms, session.settings)


def score_bag(sequence: LabelledSequence, results: Path, protocols: Sequence[str]) -> SequenceScore:
    """The score of a bag of results against the truth of the bag that was played, as `bag_sequence` gives it.

    Frames that were dropped are not scored. Raises InputError.
    """
    from mastsam_ros.evaluation.protocols import SequenceScorer

    by_stamp = {files.stamp_ns: files for files in sequence.frames}
    scorer = SequenceScorer(sequence, protocols)
    for stamp_ns, _, labels in read_labels(results):
        if stamp_ns in by_stamp:
            scorer.add(by_stamp[stamp_ns], labels)
    return scorer.score()


def _line(figures: dict[str, Any], ros: bool, output: Path) -> str:
    text = f"{figures['answered']} of {figures['frames']} frames"
    if figures["answered"]:
        what = "latency" if ros else "step"
        text += f", {what} p50 {figures['latency_ms_p50']:.0f} ms, p95 {figures['latency_ms_p95']:.0f} ms"
    if ros:
        text += f", dropped {100 * figures['drop_share']:.1f} %"
        if figures["lost_on_the_way"] > 0:
            text += f" ({figures['lost_on_the_way']} never reached the node: --set node.reliability=reliable helps)"
    return f"{text} -> {output}\n"
