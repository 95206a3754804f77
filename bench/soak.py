"""The node under load for a long time: python bench/soak.py [--minutes 20].

A made-up camera sends images of 640x480, with depth and intrinsics, at 30 Hz over DDS to a node of its own, while
subscribers of its topics come and go. Prints how its memory grew after the first minute, what became of every image,
and how old results are when they are published, against the time of a step. Exit status 1 if the node ended, memory
grew by 2 % or more, an image is unaccounted for, or results are older than 1.3 steps (95th percentiles).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.msg import InstanceArray
from mastsam_ros.node_session import process
from mastsam_ros.ros.conversions import rgb_message
from mastsam_ros.ros.memory import resident_megabytes
from mastsam_ros.types import MastsamError

READY_TIMEOUT_S = 120.0
SETTLE_S = 60.0
"""Memory is compared with what it was after so long; of a shorter soak, after a third."""
TOPICS = {"labels": Image, "instances": InstanceArray, "points": PointCloud2, "overlay": Image}
COUNTS = ("received", "processed", "skipped", "failed", "unpaired", "lost")


class Camera:
    """Sends the sample scene to and fro, at a steady rate."""

    def __init__(self, node: Any, rate_hz: float, width: int, depth: bool) -> None:
        scene = SampleScene(seed=5, frames=45, width=width, height=width * 3 // 4, rate_hz=rate_hz)
        self._period_s, self._depth = 1 / rate_hz, depth
        self._messages = []
        for view in scene:
            message = Image(height=view.frame.depth.shape[0], width=view.frame.depth.shape[1], encoding="16UC1")
            message.step = 2 * message.width
            message.data.frombytes(np.round(view.frame.depth * 1000).astype("<u2").tobytes())
            self._messages.append((rgb_message(view.frame.image, Header()), message))
        self._info = CameraInfo(width=scene.width, height=scene.height, k=scene.K.ravel().tolist())
        self.images = node.create_publisher(Image, "/image", QoSProfile(depth=5))
        self._depths = node.create_publisher(Image, "/depth", QoSProfile(depth=5))
        self._infos = node.create_publisher(CameraInfo, "/camera_info", QoSProfile(depth=5))
        self.sent = 0

    def run(self, stop: threading.Event, end: float) -> None:
        """Until `end` (monotonic) or `stop`."""
        next_s = time.monotonic()
        count = len(self._messages)
        while not stop.is_set() and time.monotonic() < end:
            place = self.sent % (2 * count - 2)
            image, depth = self._messages[min(place, 2 * count - 2 - place)]
            now = time.time_ns()
            header = Header(frame_id="camera")
            header.stamp.sec, header.stamp.nanosec = divmod(now, 1_000_000_000)
            for message, publisher in ((depth, self._depths), (self._info, self._infos), (image, self.images)):
                if publisher is not self._depths or self._depth:
                    message.header = header
                    publisher.publish(message)
            self.sent += 1
            next_s += self._period_s
            if next_s < time.monotonic() - 1:  # the machine is too busy for this rate: no bursts to catch up
                next_s = time.monotonic()
            stop.wait(max(0.0, next_s - time.monotonic()))


class Visitors:
    """Subscribers that come and go, one that stays and measures the age of results, and the node's diagnostics."""

    def __init__(self, node: Any) -> None:
        self._node, self._random = node, random.Random(0)
        self._there: list[Any] = []
        self.visits = 0
        self.ages_ms: list[float] = []
        self.counts: dict[str, int] = {}
        self.values: dict[str, str] = {}
        node.create_subscription(InstanceArray, "/mastsam/instances", self._on_instances, QoSProfile(depth=5))
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=5))

    def come_or_go(self) -> None:
        """One subscriber comes, or goes."""
        if self._there and self._random.random() < 0.5:
            self._node.destroy_subscription(self._there.pop(self._random.randrange(len(self._there))))
        else:
            name = self._random.choice(list(TOPICS))
            self._there.append(
                self._node.create_subscription(TOPICS[name], f"/mastsam/{name}", lambda raw: None, 5, raw=True)
            )
            self.visits += 1

    def _on_instances(self, message: InstanceArray) -> None:
        stamp = message.header.stamp
        self.ages_ms.append((time.time_ns() - stamp.sec * 1_000_000_000 - stamp.nanosec) / 1e6)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.values = {pair.key: pair.value for pair in message.status[0].values}
        self.counts = {name: int(self.values[name]) for name in COUNTS}


def soak(minutes: float, rate_hz: float, width: int, depth: bool, logs: Path) -> dict[str, Any]:
    """The figures of one soak. Raises MastsamError if the node ends or does not start."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")
    rclpy.init(args=[])
    robot = rclpy.create_node("robot")
    executor = SingleThreadedExecutor()
    executor.add_node(robot)
    visitors, camera = Visitors(robot), Camera(robot, rate_hz, width, depth)
    stop = threading.Event()
    arguments = ["-p", "node.depth_topic:=depth"] if depth else []
    sender: threading.Thread | None = None
    memory: list[tuple[float, float, float]] = []
    try:
        with process("node", ["mastsam_ros", "--ros-args", *arguments], os.environ, logs) as node:
            deadline = time.monotonic() + READY_TIMEOUT_S
            while not (camera.images.get_subscription_count() and visitors.counts):
                executor.spin_once(timeout_sec=0.1)
                node.check()
                if time.monotonic() > deadline:
                    raise MastsamError(f"the node is not ready after {READY_TIMEOUT_S:g} s: see {node.log}")
            time.sleep(1.0)
            start = time.monotonic()
            end = start + minutes * 60
            sender = threading.Thread(target=camera.run, args=(stop, end))
            sender.start()
            tick, seconds = start, 0
            while time.monotonic() < end:
                executor.spin_once(timeout_sec=0.05)
                # Often, for what a step takes and gives back is more than what is to be seen.
                held = (resident_megabytes(node.child.pid, shared) for shared in (False, True))
                memory.append((time.monotonic() - start, *held))
                if time.monotonic() >= tick:
                    tick, seconds = tick + 1.0, seconds + 1
                    node.check()
                    if random.Random(seconds).random() < 0.5:
                        visitors.come_or_go()
            sender.join()
            steps = _milliseconds(visitors.values, "total")
            settled = time.monotonic() + 10
            while not _accounted(visitors.counts, camera.sent) and time.monotonic() < settled:
                executor.spin_once(timeout_sec=0.1)
        text = node.log.read_text(encoding="utf-8", errors="replace")
    finally:
        stop.set()
        if sender is not None:
            sender.join()
        executor.shutdown()
        robot.destroy_node()
        rclpy.try_shutdown()
    settle = min(SETTLE_S, minutes * 20)
    spans = ((settle - 10, settle + 5), (minutes * 30 - 5, minutes * 30 + 5), (minutes * 60 - 10, np.inf))
    held, shared = (
        tuple(float(np.median([row[part] for row in memory if begin <= row[0] <= end])) for begin, end in spans)
        for part in (1, 2)
    )
    ages = np.percentile(visitors.ages_ms[5:], [50, 95])
    return {
        "sent": camera.sent,
        **visitors.counts,
        "accounted": _accounted(visitors.counts, camera.sent),
        "subscribers": visitors.visits,
        "memory MB, settled, half way, at the end": held,
        "of it shared memory, with messages": shared,
        "growth": held[2] / held[0] - 1,
        "step ms": steps,
        "age ms": (float(ages[0]), float(ages[1])),
        "published ms": _milliseconds(visitors.values, "latency"),
        "clean": node.child.returncode == 0 and "Traceback" not in text and "[ERROR]" not in text,
        "log": text,
    }


def _accounted(counts: dict[str, int], sent: int) -> bool:
    """True if each image that was sent is one of the node's counts."""
    done = sum(counts[name] for name in ("processed", "skipped", "failed", "unpaired"))
    return sent == counts["received"] + counts["lost"] and counts["received"] == done


def _milliseconds(values: dict[str, str], stage: str) -> tuple[float, float]:
    """Median and 95th percentile of the last 300 frames, as the node's diagnostics say."""
    median, high = values[f"{stage} ms p50, p95"].split(", ")
    return float(median), float(high)


def main() -> int:
    """Exit status: 0 held, 1 did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=30.0, help="images per second")
    parser.add_argument("--width", type=int, default=640, help="of the images, 4:3; small ones give many frames")
    parser.add_argument("--no-depth", dest="depth", action="store_false", help="images alone")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    try:
        with tempfile.TemporaryDirectory() as logs:
            figures = soak(arguments.minutes, arguments.rate, arguments.width, arguments.depth, Path(logs))
    except MastsamError as error:
        sys.stderr.write(f"soak: {error}\n")
        return 1
    text, ratio = figures.pop("log"), figures["published ms"][1] / figures["step ms"][1]
    print(
        f"{arguments.minutes:g} minutes at {arguments.rate:g} Hz;"
        f" load of the machine before {load:.1f}, after {os.getloadavg()[0]:.1f}"
    )
    for name, value in figures.items():
        print(f"{name}: {value if not isinstance(value, float) else round(value, 4)}")
    print(f"age at publication / step, 95th percentiles: {ratio:.2f}")
    if not figures["clean"]:
        print(text[-4000:])
    held = figures["clean"] and figures["accounted"] and figures["growth"] < 0.02 and ratio <= 1.3
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
