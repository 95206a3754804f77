"""Throws malformed and hostile messages at the node: python bench/faults.py [--count 10000] [--seed 0].

First through conversion and step in this process, then over DDS at a node of its own; prints what became of them.
Exit status 1 if anything crashed, was not counted, or was told of in more than a few lines.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from bench.hostile_messages import HostileMessages
from mastsam_ros.io.camera_info import intrinsics_of
from mastsam_ros.node_session import process
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.ros.conversions import Input, frame_of, rgb_message
from mastsam_ros.ros.memory import resident_megabytes
from mastsam_ros.types import InputError, MastsamError

READY_TIMEOUT_S = 120.0
MESSAGES_PER_SECOND = 100.0


def throw_at_pipeline(count: int, seed: int) -> Counter[str]:
    """So many pairs through conversion and step. Returns outcome -> count; whatever is no MastsamError comes out."""
    outcomes: Counter[str] = Counter()
    mastsam = create_mastsam()
    for image, depth, info in HostileMessages(seed).pairs(count):

        def intrinsics(width: int, height: int, info: CameraInfo = info) -> Any:
            try:
                return intrinsics_of(info, width, height, False)
            except InputError as error:
                outcomes["intrinsics refused"] += _one_line(error)
                return None

        try:
            frame = frame_of(Input(image, depth, 0), intrinsics)
        except InputError as error:
            outcomes["message refused"] += _one_line(error)
            continue
        try:
            result = mastsam.step(frame)
        except MastsamError as error:
            outcomes["frame refused"] += _one_line(error)
            continue
        outcomes["labelled" if result.labels.any() else "without labels"] += 1
    return outcomes


def _one_line(error: Exception) -> int:
    text = str(error)
    if "\n" in text or not 10 < len(text) < 500:
        raise ValueError(f"not one clear line: {text[:2000]!r}") from error
    return 1


class Attacker:
    """The other side of a node over DDS."""

    def __init__(self) -> None:
        rclpy.init(args=[])
        self._node = rclpy.create_node("attacker")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self.counts: dict[str, int] = {}
        self.labels = 0
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._node.create_subscription(Image, "/mastsam/labels", self._on_labels, 10)

    def publisher(self, kind: Any, topic: str) -> Any:
        return self._node.create_publisher(kind, topic, QoSProfile(depth=1000))

    def spin_until(self, condition: Callable[[], object], timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)
        return bool(condition())

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        values = {pair.key: pair.value for pair in message.status[0].values}
        names = ("received", "processed", "skipped", "failed", "unpaired")
        self.counts = {name: int(values[name]) for name in names}

    def _on_labels(self, message: Image) -> None:
        self.labels += 1


def throw_at_node(count: int, seed: int, compressed: bool, logs: Path) -> dict[str, float]:
    """So many pairs over DDS at a node. Returns its counts, its log's lines, and its memory's growth in MB.

    Raises MastsamError if it ended, lost count, or does not label a sound image afterwards.
    """
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    arguments = ["-p", "node.reliability:=reliable", "-p", "node.depth_topic:=depth", "-p", "node.queue_depth:=1000"]
    # Hostile stamps part images from their depth; many may wait.
    arguments += ["-p", f"node.compressed:={compressed}", "-p", f"node.compressed_depth:={compressed}"]
    kind = CompressedImage if compressed else Image
    attacker = Attacker()
    try:
        with process("node", ["mastsam_ros", "--ros-args", *arguments], os.environ, logs) as node:
            images, depths = attacker.publisher(kind, "/image"), attacker.publisher(kind, "/depth")
            infos = attacker.publisher(CameraInfo, "/camera_info")
            matched = lambda: images.get_subscription_count() and depths.get_subscription_count()  # noqa: E731
            if not attacker.spin_until(lambda: matched() and attacker.counts, READY_TIMEOUT_S):
                raise MastsamError(f"the node is not ready after {READY_TIMEOUT_S:g} s: see {node.log}")
            before, start = 0.0, time.monotonic()
            pairs = HostileMessages(seed).pairs(count, compressed=float(compressed), with_depth=0.95)
            for sent, (image, depth, info) in enumerate(pairs, start=1):
                images.publish(image)
                if depth is not None:
                    depths.publish(depth)
                infos.publish(info)
                attacker.spin_until(
                    lambda sent=sent: time.monotonic() >= start + sent / MESSAGES_PER_SECOND, READY_TIMEOUT_S
                )
                if sent == count // 20:
                    before = resident_megabytes(node.child.pid)
                node.check()
            attacker.spin_until(lambda: attacker.counts["received"] >= count, 60.0)
            grown = resident_megabytes(node.child.pid) - before
            _require_labels(attacker, images, depths, infos, compressed)
            node.check()
            counts: dict[str, float] = {"sent": count, **attacker.counts, "grown MB": round(grown, 1)}
        text = node.log.read_text(encoding="utf-8", errors="replace")
    finally:
        attacker.close()
    if "Traceback" in text or node.child.returncode != 0:
        raise MastsamError(f"the node did not end well: status {node.child.returncode}, see {node.log}")
    counts["lines"] = len(text.splitlines())
    counts["seconds"] = round(time.monotonic() - start, 1)
    return counts


def _require_labels(attacker: Attacker, images: Any, depths: Any, infos: Any, compressed: bool) -> None:
    """Sound images until one is labelled, under stamps that rise from now on."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (4, 6, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    infos.publish(CameraInfo(width=48, height=32, k=[40.0, 0, 23.5, 0, 40, 15.5, 0, 0, 1]))
    attacker.labels = 0
    for number in range(200):
        header = Header(frame_id="camera")
        header.stamp.sec = 2_000_000 + number
        image, depth = rgb_message(pixels, header), Image(header=header, height=32, width=48, step=96, encoding="16UC1")
        depth.data = np.full((32, 48), 1500, "<u2").tobytes()
        if compressed:
            image = CompressedImage(header=header, format="png", data=cv2.imencode(".png", pixels)[1].tobytes())
            content = cv2.imencode(".png", np.full((32, 48), 1500, np.uint16))[1].tobytes()
            depth = CompressedImage(header=header, format="png", data=content)
        images.publish(image)
        depths.publish(depth)
        if attacker.spin_until(lambda: attacker.labels, 0.2):
            return
    raise MastsamError("the node labels no sound image any more")


def main() -> int:
    """Exit status: 0 held, 1 did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="messages in each part")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        print(f"conversion and step: {dict(throw_at_pipeline(arguments.count, arguments.seed).most_common())}")
        for compressed in (False, True):
            with tempfile.TemporaryDirectory() as logs:
                counts = throw_at_node(arguments.count, arguments.seed, compressed, Path(logs))
            print(f"over DDS, {'compressed' if compressed else 'raw'}: {counts}")
    except MastsamError as error:
        sys.stderr.write(f"faults: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
