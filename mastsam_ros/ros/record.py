"""Records topics into a rosbag2 (mcap): `python -m mastsam_ros.ros.record FOLDER TOPIC...`.

Messages are stored as they arrive, unread; custom types bring their definition along. The log time is the system's
time on arrival, as `ros2 bag record` has it. When the disk is about to be full, the bag is finished while it can be.
"""

from __future__ import annotations

import argparse
import shutil
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
from mastsam_ros.types import InputError, MastsamError, OutputError

QUEUE = 200
"""Messages that may wait while one is being written."""
RESERVE_MB = 64.0
"""What recording leaves free: the disk is the robot's too."""


class Recorder:
    """Subscribes topics and writes what comes to a new bag folder.

    reserve_mb: recording ends when the disk has less than this left, so that the bag can be finished; `failure` then
    says so. Raises InputError if the folder exists.
    """

    def __init__(self, folder: Path, reserve_mb: float = RESERVE_MB) -> None:
        if folder.exists():
            raise InputError(f"cannot record to {folder}: it exists; remove it or choose another name")
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._node = Node("mastsam_recorder")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._stopped = False
        self._folder, self._reserve = folder, reserve_mb * 1e6
        self.failure: OutputError | None = None
        """Why recording ended before it was stopped."""
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
            if self.failure is not None:
                return
            free = shutil.disk_usage(self._folder).free
            if free < self._reserve + len(raw):
                self._fail(f"the disk is almost full, {free / 1e6:.0f} MB are left")
                return
            try:
                self._writer.write(connection, time.time_ns(), bytes(raw))
            except OSError as error:
                self._fail(error.strerror or str(error))
                return
            self.counts[topic] += 1
            self.last_arrival = time.monotonic()

        self._node.create_subscription(message_class(kind), topic, store, qos, raw=True)

    def _fail(self, reason: str) -> None:
        self.failure = OutputError(f"recording to {self._folder} ended: {reason}; {_told(self.counts)} were written")
        self._stopped = True

    def record(self) -> None:
        """Writes until `stop`, and then what has already arrived. Raises OutputError if it cannot go on writing."""
        while not self._stopped:
            self._executor.spin_once(timeout_sec=0.1)
        begin = time.monotonic()
        while self.failure is None and time.monotonic() - max(begin, self.last_arrival) < 0.3:
            self._executor.spin_once(timeout_sec=0.05)
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Makes `record` return."""
        self._stopped = True

    def close(self) -> None:
        """Finishes the bag. Raises OutputError if it cannot be."""
        self._executor.shutdown()
        self._node.destroy_node()
        try:
            self._writer.close()
        except OSError as error:
            # What follows a failed write is told already.
            if self.failure is None:
                raise OutputError(f"cannot finish {self._folder}: {error.strerror or error}") from error


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{topic}: {count}" for topic, count in counts.items())


def main(argv: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mastsam_ros.ros.record", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="bag to write; must not exist")
    parser.add_argument("topics", nargs="+", help="topics, with their namespace")
    parser.add_argument("--timeout", type=float, default=60.0, help="how long to wait for the topics, seconds")
    parser.add_argument(
        "--reserve", type=float, default=RESERVE_MB, metavar="MB", help="end when the disk has less than this left"
    )
    arguments = parser.parse_args(argv)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    recorder = None
    try:
        recorder = Recorder(arguments.folder, arguments.reserve)

        def stop(number: int, frame: FrameType | None) -> None:
            recorder.stop()

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        try:
            recorder.subscribe(arguments.topics, arguments.timeout)
            sys.stdout.write("recording\n")
            sys.stdout.flush()
            recorder.record()
        finally:
            recorder.close()
    except MastsamError as error:
        sys.stderr.write(f"record: {error}\n")
        return 1
    finally:
        rclpy.try_shutdown()
    sys.stdout.write(_told(recorder.counts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
