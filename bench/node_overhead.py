"""What the node adds to the step, per frame at 640x480: python bench/node_overhead.py [--frames 200].

CPU time (a loaded machine stretches wall time): median of the thread that does the work, and for publishing the mean of
the whole process, whose DDS threads send. Every topic has a subscriber in another process.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from mastsam_ros.msg import InstanceArray, TrackEvent
from mastsam_ros.node_session import ATTEMPTS, DISCOVERY_TIMEOUT_S, Process
from mastsam_ros.ros.conversions import (
    Input,
    cloud_message,
    frame_of,
    instances_message,
    labels_message,
    rgb_message,
)
from mastsam_ros.ros.log import Complaints
from mastsam_ros.ros.outputs import Outputs
from mastsam_ros.types import FrameResult, LabelledCloud, Track, TrackState
from mastsam_ros.viz import overlay

LIMIT_MS = 6.0
WIDTH, HEIGHT, TRACKS = 640, 480, 60
HANGS_S = 150.0
"""After so long without an end, beside what the frames take, it is said where it hangs."""
TOPICS = {"labels": Image, "instances": InstanceArray, "points": PointCloud2, "overlay": Image, "events": TrackEvent}
STRANGER = """
import rclpy
from rclpy.executors import ExternalShutdownException
import sys; sys.path.insert(0, {root!r})
from bench.node_overhead import TOPICS
rclpy.init()
node = rclpy.create_node("subscriber")
for name, kind in TOPICS.items():
    node.create_subscription(kind, f"/overhead/{{name}}", lambda raw: None, 5, raw=True)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, ExternalShutdownException):
    pass
"""


def sample() -> tuple[Image, Image, FrameResult]:
    """An rgb8 and a 16UC1 message, and a result with 60 tracks and a cloud of 76,800 points."""
    rng = np.random.default_rng(0)
    header = Header(frame_id="camera")
    image = cv2.resize(
        rng.integers(0, 255, (24, 32, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    millimetres = rng.integers(500, 5000, (HEIGHT, WIDTH), dtype=np.uint16)
    depth = Image(header=header, height=HEIGHT, width=WIDTH, step=2 * WIDTH, encoding="16UC1")
    depth.data.frombytes(millimetres.tobytes())
    small = rng.integers(0, TRACKS + 1, (12, 16), dtype=np.uint16)
    labels = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    ids = labels[::2, ::2].ravel().astype(np.uint32)
    xyz = rng.normal(0, 1, (len(ids), 3)).astype(np.float32)
    rgb = np.ascontiguousarray(image[::2, ::2]).reshape(-1, 3)
    cloud = LabelledCloud(xyz, rgb, ids, np.ones(len(ids), np.float32))
    tracks = tuple(
        Track(id, TrackState.TRACKED, 0.9, 4000, (10, 10, 40, 40), 30, (0.1, 0.2, 1.5), (0.3, 0.3, 0.3))
        for id in range(1, TRACKS + 1)
    )
    return rgb_message(image, header), depth, FrameResult(labels, tracks, (), cloud)


def worked_ms(work: Callable[[], Any], frames: int) -> float:
    """Median CPU time of this thread, milliseconds."""
    spent = []
    for _ in range(frames + 5):
        start = time.thread_time()
        work()
        spent.append(time.thread_time() - start)
    return float(np.median(spent[5:])) * 1e3


def sent_ms(publish: Callable[[], Any], frames: int) -> float:
    """Mean CPU time of the whole process, milliseconds: DDS sends in threads of its own."""
    start = time.process_time()
    for _ in range(frames):
        publish()
        time.sleep(0.01)
    return (time.process_time() - start) / frames * 1e3


def main() -> int:
    """Exit status: 0 within the limit, 1 above it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    frames = parser.parse_args().frames
    faulthandler.dump_traceback_later(HANGS_S + 0.2 * frames, exit=True)
    cv2.setNumThreads(1)
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")
    rclpy.init(args=[])
    node = rclpy.create_node("overhead")
    outputs = Outputs(node, "~/", "~/", "map", Complaints(node.get_logger()))
    try:
        with subscribers(node):
            parts = measured(outputs, node, frames)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    total = sum(parts.values())
    print(f"Node overhead, CPU ms per frame, {WIDTH}x{HEIGHT}, {TRACKS} tracks, {frames} frames\n")
    print("| part | ms |\n|---|---|")
    for name, spent in parts.items():
        print(f"| {name} | {spent:.2f} |")
    print(f"| **together** (limit {LIMIT_MS:g}) | **{total:.2f}** |")
    return 0 if total <= LIMIT_MS else 1


@contextmanager
def subscribers(node: Any) -> Iterator[None]:
    """Another process that subscribes to every topic, and is heard of when the body begins; SystemExit if never."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code = STRANGER.format(root=str(Path(__file__).resolve().parent.parent))
    for _ in range(ATTEMPTS):
        # It must not hold our output open, should it outlive us.
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + DISCOVERY_TIMEOUT_S
            while not (met := all(node.count_subscribers(f"/overhead/{name}") for name in TOPICS)):
                executor.spin_once(timeout_sec=0.1)
                if time.monotonic() > end:
                    break
            if met:
                time.sleep(1.0)
                yield
                return
        finally:
            Process("subscriber", child, Path(os.devnull)).stop()
    raise SystemExit("DDS does not bring this process and the one that subscribes together")


def measured(outputs: Outputs, node: Any, frames: int) -> dict[str, float]:
    """Part -> milliseconds."""
    image, depth, result = sample()
    header = image.header
    raw_image, raw_depth = serialize_message(image), serialize_message(depth)
    frame = frame_of(Input(image, depth, 0), lambda width, height: None)
    cloud = result.points
    assert cloud is not None  # noqa: S101 - made above
    messages = {
        "labels": labels_message(result.labels, header),
        "instances": instances_message(result, header),
        "points": cloud_message(cloud, header),
        "overlay": rgb_message(overlay(frame.image, result.labels), header),
    }
    made = {
        "labels": lambda: labels_message(result.labels, header),
        "instances": lambda: instances_message(result, header),
        "points": lambda: cloud_message(cloud, header),
        "overlay": lambda: rgb_message(overlay(frame.image, result.labels), header),
    }
    parts = {
        "in: image and depth out of their bytes": worked_ms(
            lambda: (deserialize_message(raw_image, Image), deserialize_message(raw_depth, Image)), frames
        ),
        "in: frame from the messages": worked_ms(
            lambda: frame_of(Input(image, depth, 0), lambda width, height: None), frames
        ),
    }
    publishers = {p.topic_name.rpartition("/")[2]: p for p in node.publishers}
    for name, message in messages.items():
        parts[f"out: {name}, message"] = worked_ms(made[name], frames)
        parts[f"out: {name}, publish"] = sent_ms(lambda name=name, m=message: publishers[name].publish(m), frames)
    return parts


if __name__ == "__main__":
    sys.exit(main())
