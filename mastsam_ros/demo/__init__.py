"""`mastsam demo`: plays a bag to the real node over DDS, records what it answers, scores it, and writes a page.

Without a source of the user's own it plays the generated sample scene, whose truth is known.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from mastsam_ros.types import MissingPackageError

FRAMES = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mastsam demo`."""
    parser.add_argument("source", nargs="?", help="images, video, scene folder or rosbag2; default: a generated scene")
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder to write to (out/demo)")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"at most so many frames ({FRAMES})")
    parser.add_argument("--rate", type=float, help="playing speed, 1 is real time; default: as the node follows")
    parser.add_argument("--image-topic", help="for a bag with several images")
    parser.add_argument("--depth-topic", help="for a bag with several depth images")
    parser.add_argument("--no-depth", action="store_true", help="leave depth and intrinsics out")
    parser.add_argument("--rerun", action="store_true", help="write demo.rrd for the Rerun viewer (needs rerun-sdk)")
    parser.add_argument("--config", type=Path, help="settings file (YAML)")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change one setting")


def run(arguments: argparse.Namespace) -> int:
    """The command. Returns the exit status; raises MastsamError."""
    if find_spec("rclpy") is None:
        raise MissingPackageError("the demo runs the ROS node: pip install 'mastsam_ros[ros]', or use `mastsam run`")
    from mastsam_ros.demo.bags import own_bag, sample_bag
    from mastsam_ros.demo.outcome import score, versions
    from mastsam_ros.demo.page import demo_page, write_strip
    from mastsam_ros.demo.recording import write_recording
    from mastsam_ros.demo.session import play_to_node
    from mastsam_ros.io.sinks import write_whole
    from mastsam_ros.settings import Settings

    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    settings = Settings.load(arguments.config) if arguments.config else Settings()
    settings = settings.with_assignments(arguments.set)
    if arguments.source:
        name, truth = Path(arguments.source).name, None
        bag = own_bag(
            arguments.source,
            output / "source_bag",
            arguments.frames,
            image_topic=arguments.image_topic,
            depth_topic=arguments.depth_topic,
            use_depth=not arguments.no_depth,
        )
    else:
        name = "A generated scene"
        bag, truth = sample_bag(output, arguments.frames)
    result_bag = output / "result_bag"
    shutil.rmtree(result_bag, ignore_errors=True)
    session = play_to_node(bag, result_bag, output / "logs", settings, arguments.rate, not arguments.no_depth)
    outcome = score(session, truth)
    summary = {
        **outcome.figures(),
        "objects": outcome.objects,
        "settings": session.settings.flat(),
        "versions": versions(),
    }
    page = output / "index.html"
    write_whole(page, demo_page(outcome, name).encode())
    write_whole(output / "summary.json", json.dumps(summary, indent=2).encode())
    write_strip(outcome, output / "strip.jpg")
    if arguments.rerun:
        write_recording(session, outcome.results, output / "demo.rrd")
    width = max(len(label) for label, _, _ in outcome.table())
    lines = [f"{label:<{width}}  {value}" for label, value, _ in outcome.table()]
    sys.stdout.write("\n".join([*lines, "", str(page), ""]))
    return 0
