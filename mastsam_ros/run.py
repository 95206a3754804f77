"""`mastsam run`: every frame of a source through `Mastsam.step`, in order, none dropped; results into a folder."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mastsam_ros
from mastsam_ros.backends import explained
from mastsam_ros.interrupts import interrupts_told, interrupts_wait
from mastsam_ros.io.prompts import Prompts
from mastsam_ros.io.rerun_recording import RerunRecording
from mastsam_ros.io.sinks import RunFolder
from mastsam_ros.io.sources import Source, open_source
from mastsam_ros.settings import Settings
from mastsam_ros.settings_arguments import add_settings_arguments, settings_from
from mastsam_ros.types import Frame, FrameResult, InputError
from mastsam_ros.unordered import plan, stepped_without_order, without_order
from mastsam_ros.upcoming import with_upcoming

if TYPE_CHECKING:
    from mastsam_ros.pipeline import Mastsam

_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="directory of images, video, scene folder (rgb/, depth/, scene.json) or rosbag2 (folder, .mcap, .db3)",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--video", action="store_true", help="write overlay.mp4")
    parser.add_argument(
        "--points", action="store_true", help="write points/<stem>.ply where there is depth, a pointmap, or K"
    )
    parser.add_argument(
        "--rerun",
        action="store_true",
        help="write run.rrd for the Rerun viewer: image, masks, cloud, map, ids over time (needs rerun-sdk)",
    )
    parser.add_argument(
        "--map",
        type=Path,
        metavar="FILE",
        help="go on with the map of instances in FILE.ply, .json and .npz where it exists, and save it there",
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE.json",
        help="instances to add, split, merge, remove and rename at given frames (docs/corrections.md)",
    )
    parser.add_argument(
        "--unordered",
        action="store_true",
        help="the images are views without order: each is matched with each, and segmented from its best neighbour,"
        " beginning with the one that the first prompt is made in",
    )
    parser.add_argument("--no-depth", action="store_true", help="use neither depth nor intrinsics")
    parser.add_argument("--image-topic", metavar="TOPIC", help="of a rosbag2 with several images")
    parser.add_argument("--depth-topic", metavar="TOPIC", help="of a rosbag2 with several depth images")
    parser.add_argument(
        "--pose-topic",
        metavar="TOPIC|tf",
        help="of a rosbag2: nav_msgs/Odometry, or tf, that tells where the camera is in node.map_frame, in place of own"
        " odometry",
    )
    add_settings_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns the exit status; raises MastsamError for what the user can cure."""
    settings, chosen = explained(settings_from(arguments))
    if arguments.unordered:
        if arguments.map is not None:
            raise InputError("--unordered keeps no map: leave --map out")
        settings, chosen = explained(without_order(settings))
    with open_source(
        arguments.source,
        image_topic=arguments.image_topic,
        depth_topic=arguments.depth_topic,
        use_depth=not arguments.no_depth,
        poses=(arguments.pose_topic, settings.node.map_frame) if arguments.pose_topic else None,
    ) as source:
        sys.stdout.write(f"{chosen}\n")
        return _run(source, settings, arguments)


def _run(source: Source, settings: Settings, arguments: argparse.Namespace) -> int:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from mastsam_ros.pipeline import create_mastsam

    prompts = Prompts(arguments.prompts) if arguments.prompts is not None else None
    mastsam = create_mastsam(settings)
    if arguments.pose_topic:
        mastsam.expect_poses()
    if arguments.map is not None:
        mastsam.load_map(arguments.map)
    about = {"source": str(arguments.source), "settings": mastsam.settings.to_mapping(), "versions": versions()}
    video_fps = min(max(source.fps, 1.0), 120.0) if arguments.video else None
    status = 0
    with RunFolder(arguments.output, video_fps=video_fps, points=arguments.points, about=about) as folder:
        if arguments.rerun:
            folder.add(RerunRecording(arguments.output / "run.rrd", mastsam.world_map))
        try:
            with (
                interrupts_told(),
                logging_redirect_tqdm(),
                # None: only on a terminal
                tqdm(source, total=source.frame_count, desc=source.name, unit="frame", disable=None) as frames,
            ):
                if arguments.unordered:
                    _write_without_order(mastsam, list(frames), prompts, folder)
                else:
                    for index, (stem, frame, result) in enumerate(stepped(mastsam, frames, foresight=True)):
                        folder.write(stem, frame, _corrected(mastsam, prompts, stem, index, frame, result))
        except KeyboardInterrupt:
            status = _INTERRUPTED
    if arguments.map is not None:
        mastsam.save_map(arguments.map)
    _tell(folder, status, arguments.points)
    if prompts is not None and not status:
        prompts.finish()
    return status


def _corrected(
    mastsam: Mastsam, prompts: Prompts | None, stem: str, index: int, frame: Frame, result: FrameResult
) -> FrameResult:
    """The last step's result, with the edits that are due at this frame."""
    if prompts is not None and prompts.apply(mastsam, stem, index):
        return mastsam.corrected(frame, result)
    return result


def _write_without_order(
    mastsam: Mastsam, views: list[tuple[str, Frame]], prompts: Prompts | None, folder: RunFolder
) -> None:
    """All views of a set, in the order in which each is reached best."""
    from tqdm import tqdm

    stems, frames = [stem for stem, _ in views], [frame for _, frame in views]
    root = None if prompts is None else prompts.first(stems)
    pairs = len(frames) * (len(frames) - 1) // 2
    with tqdm(total=pairs, desc="matching", unit="pair", disable=None) as bar:
        order = plan(mastsam, frames, root, bar.update)
    folder.about["order"] = [
        [stems[step.view], None if step.origin is None else stems[step.origin], step.strength] for step in order
    ]

    def correct(view: int, result: FrameResult) -> FrameResult:
        return _corrected(mastsam, prompts, stems[view], view, frames[view], result)

    for view, result in stepped_without_order(mastsam, frames, order, correct):
        folder.write(stems[view], frames[view], result)


def stepped(
    mastsam: Mastsam, frames: Iterable[tuple[str, Frame]], foresight: bool = False
) -> Iterator[tuple[str, Frame, FrameResult]]:
    """Every frame and its result; the tracks start anew where stamps jump back, as in the node.

    foresight: each step knows the next frame, and prepares it. That takes less time in all; but the times of steps are
    then not those of a camera's, whose next frame is not there yet.
    """
    last_stamp_ns = None
    for (stem, frame), following in with_upcoming(frames):
        if last_stamp_ns is not None and frame.stamp_ns < last_stamp_ns:
            mastsam.reset(f"stamps jumped back by {(last_stamp_ns - frame.stamp_ns) / 1e9:.3f} s")
        last_stamp_ns = frame.stamp_ns
        with interrupts_wait():
            result = mastsam.step(frame, following[1] if foresight and following is not None else None)
        yield stem, frame, result


def _tell(folder: RunFolder, status: int, points: bool) -> None:
    summary = folder.summary()
    how = "stopped after" if status else "done:"
    sys.stdout.write(
        f"{how} {_counted(summary['frames'], 'frame')}, {summary['fps'] or 0:.1f} frames/s,"
        f" {_counted(summary['tracks'], 'track')}"
        f" -> {folder.folder}\n"
    )
    if points and not folder.cloud_count:
        sys.stdout.write(
            "no points: the source has neither depth nor intrinsics nor motion, or geometry.points is off\n"
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def versions() -> dict[str, str]:
    """Versions of this package and of what decides its results."""
    import cv2
    import numpy as np
    import torch

    found: dict[str, Any] = {
        "mastsam_ros": mastsam_ros.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
    return {name: str(version) for name, version in found.items()}
