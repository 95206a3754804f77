"""Records topics into a rosbag2 (mcap): `python -m mastsam_ros.ros.record FOLDER TOPIC...`.

Messages are stored as they arrive, unread; custom types bring their definition along. The log time is the
system's time on arrival, as `ros2 bag record` has it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.rosbag2 import StoragePlugin, Writer

from mastsam_ros.io.message_definitions import store_with
from mastsam_ros.ros.message_types import message_class
from mastsam_ros.types import InputError, MastsamError

QUEUE = 200
"""Messages that may wait while one is being written."""


class Recorder:
    """Subscribes topics and writes what comes to a new bag folder. Raises InputError if the folder exists."""

    def __init__(self, folder: Path) -> None:
        if folder.exists():
            raise InputError(f"cannot record to {folder}: it exists; remove it or choose another name")
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._node = Node("mastsam_recorder")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._stopped = False
        self.counts: dict[str, int] = {}
        """Messages written, per topic."""
        self.last_arrival = time.monotonic()

    def subscribe(self, topics: list[str], timeout_s: float) -> None:
        """Waits until every topic has a publisher, then listens. Raises InputError naming those that do not appear."""
        end = time.monotonic() + timeout_s
        missing = set(topics)
        while missing and not self._stopped:
            self._executor.spin_once(timeout_sec=0.05)
            types = dict(self._node.get_topic_names_and_types())
            for topic in sorted(missing):
                if topic in types and self._node.count_publishers(topic):
                    self._listen(topic, types[topic][0])
                    missing.discard(topic)
            if missing and time.monotonic() > end:
                raise InputError(f"nobody published {', '.join(sorted(missing))} within {timeout_s:g} s")

    def _listen(self, topic: str, kind: str) -> None:
        publishers = self._node.get_publishers_info_by_topic(topic)
        latched = all(info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for info in publishers)
        reliable = all(info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in publishers)
        qos = QoSProfile(
            depth=QUEUE,
            history=HistoryPolicy.KEEP_LAST,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        connection = self._writer.add_connection(topic, kind, typestore=store_with({kind}))
        self.counts[topic] = 0

        def store(raw: Any) -> None:
            self._writer.write(connection, time.time_ns(), bytes(raw))
            self.counts[topic] += 1
            self.last_arrival = time.monotonic()

        self._node.create_subscription(message_class(kind), topic, store, qos, raw=True)

    def record(self) -> None:
        """Writes until `stop`, and then what has already arrived."""
        while not self._stopped:
            self._executor.spin_once(timeout_sec=0.1)
        begin = time.monotonic()
        while time.monotonic() - max(begin, self.last_arrival) < 0.3:
            self._executor.spin_once(timeout_sec=0.05)

    def stop(self) -> None:
        """Makes `record` return."""
        self._stopped = True

    def close(self) -> None:
        """Finishes the bag."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._writer.close()


def main(argv: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mastsam_ros.ros.record", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="bag to write; must not exist")
    parser.add_argument("topics", nargs="+", help="topics, with their namespace")
    parser.add_argument("--timeout", type=float, default=60.0, help="how long to wait for the topics, seconds")
    arguments = parser.parse_args(argv)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    recorder = None
    try:
        recorder = Recorder(arguments.folder)

        def stop(number: int, frame: FrameType | None) -> None:
            recorder.stop()

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        recorder.subscribe(arguments.topics, arguments.timeout)
        sys.stdout.write("recording\n")
        sys.stdout.flush()
        recorder.record()
    except MastsamError as error:
        sys.stderr.write(f"record: {error}\n")
        return 1
    finally:
        if recorder is not None:
            recorder.close()
        rclpy.try_shutdown()
    sys.stdout.write(", ".join(f"{topic}: {count}" for topic, count in recorder.counts.items()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
