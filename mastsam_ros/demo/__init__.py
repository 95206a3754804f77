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

from mastsam_ros.settings_arguments import add_settings_arguments, settings_from
from mastsam_ros.types import MissingPackageError

FRAMES = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `mastsam demo`."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="images, video, scene folder or rosbag2 (default: a generated scene)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("out/demo"), metavar="DIR", help="folder to write to (default: out/demo)"
    )
    parser.add_argument(
        "--frames", type=int, default=FRAMES, metavar="N", help=f"at most so many frames (default: {FRAMES})"
    )
    parser.add_argument("--rate", type=float, help="playing speed, 1 is real time; default: as the node follows")
    parser.add_argument("--image-topic", metavar="TOPIC", help="of a rosbag2 with several images")
    parser.add_argument("--depth-topic", metavar="TOPIC", help="of a rosbag2 with several depth images")
    parser.add_argument("--no-depth", action="store_true", help="use neither depth nor intrinsics")
    parser.add_argument("--rerun", action="store_true", help="write demo.rrd for the Rerun viewer (needs rerun-sdk)")
    add_settings_arguments(parser)


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

    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    settings = settings_from(arguments)
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
