"""Plays a bag's topics over DDS at the bag's own pace: `python -m mastsam_ros.ros.play BAG`.

The serialized messages go out as they are in the bag; only topics whose type is installed are played.
"""

from __future__ import annotations

import argparse
import json
import signal
import struct
import sys
import time
from pathlib import Path
from types import FrameType

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock

from mastsam_ros.io.bags import storage_of
from mastsam_ros.ros.message_types import message_class
from mastsam_ros.types import InputError, MastsamError, MissingPackageError

CLOCK_PERIOD_S = 0.02
SETTLE_S = 1.0
"""The subscriber's side of a connection may come up later than ours, and would miss the first best effort message.

DDS does not tell when it is up: waited is so long, or as long again as our side took, at most LONGEST_SETTLE_S.
"""
LONGEST_SETTLE_S = 5.0
ANSWER_TIMEOUT_S = 10.0
"""An image without an answer by then was dropped; the next one is sent."""


class Player:
    """Publishes what a bag holds.

    rate: speed, 1 is the bag's own. topics: only these; all by default. clock: publishes the bag's time on
    /clock, for nodes with use_sim_time. Raises InputError for a bag that cannot be read or a topic that is not there.
    """

    def __init__(self, bag: Path, rate: float = 1.0, topics: list[str] | None = None, clock: bool = False) -> None:
        if rate <= 0:
            raise InputError(f"the playing rate must be above 0, got {rate}")
        try:
            self._reader = AnyReader([storage_of(bag)], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            self._reader.open()
        except (AnyReaderError, OSError) as error:
            raise InputError(f"cannot read the bag {bag}: {error}") from error
        self._rate = rate
        self._stopped = False
        self._node = Node("mastsam_player")
        self._executor = SingleThreadedExecutor()
        self._followed = ""
        self._answered_ns = 0
        self._clock = self._node.create_publisher(Clock, "/clock", 10) if clock else None
        known = {connection.topic for connection in self._reader.connections}
        for topic in topics or ():
            if topic not in known:
                raise InputError(f"the bag {bag} has no topic {topic}; it has {', '.join(sorted(known))}")
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._publishers: dict[str, Publisher] = {}
        for connection in self._reader.connections:
            if topics and connection.topic not in topics:
                continue
            try:
                kind = message_class(connection.msgtype)
            except MissingPackageError as error:
                self._node.get_logger().warning(f"{connection.topic} is not played: {error}")
                continue
            self._publishers[connection.topic] = self._node.create_publisher(kind, connection.topic, qos)
        self.sent: dict[str, list[tuple[int, int]]] = {topic: [] for topic in self._publishers}
        """Per topic: the header's stamp (log time without header), and the system's time on sending; nanoseconds."""
        self._has_header = {
            topic: next(iter(publisher.msg_type.get_fields_and_field_types().values()), "") == "std_msgs/Header"
            for topic, publisher in self._publishers.items()
        }

    def wait_for_subscriber(self, topic: str, timeout_s: float) -> None:
        """Until somebody listens to `topic`. Raises InputError if nobody does within `timeout_s`."""
        publisher = self._clock if topic == "/clock" else self._publishers.get(topic)
        if publisher is None:
            raise InputError(f"{topic} is not played; played are {', '.join(sorted(self._publishers))}")
        end = time.monotonic() + timeout_s
        while not publisher.get_subscription_count():
            if time.monotonic() > end:
                raise InputError(f"nobody subscribed to {topic} within {timeout_s:g} s: is the node running?")
            if self._stopped:
                return
            time.sleep(0.05)

    def follow(self, topic: str, answers: str) -> None:
        """Has `play` wait, after every message of `topic`, for one on `answers` with its stamp: nobody falls behind.

        Raises MissingPackageError if the type of `answers` is not installed, InputError if nobody publishes it.
        """
        kinds = dict(self._node.get_topic_names_and_types()).get(answers)
        if not kinds:
            raise InputError(f"nobody publishes {answers}, which the player is to follow")

        def note(raw: bytes) -> None:
            self._answered_ns = _header_stamp(raw)

        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._node.create_subscription(message_class(kinds[0]), answers, note, qos, raw=True)
        self._executor.add_node(self._node)
        self._followed = topic

    def stop(self) -> None:
        """Makes `play` return after the message that is being sent."""
        self._stopped = True

    def play(self) -> None:
        """Sends everything, each message when it is due, and waits until it has arrived."""
        chosen = [connection for connection in self._reader.connections if connection.topic in self._publishers]
        begin, first = time.monotonic(), None
        for connection, stamp_ns, raw in self._reader.messages(chosen):
            first = stamp_ns if first is None else first
            if self._followed:  # time lost with waiting is not made up for in a burst
                begin = max(begin, time.monotonic() - (stamp_ns - first) / 1e9 / self._rate)
            self._wait_until(begin, first, stamp_ns)
            if self._stopped:
                return
            own_ns = _header_stamp(raw) if self._has_header[connection.topic] else stamp_ns
            self.sent[connection.topic].append((own_ns, time.time_ns()))
            self._publishers[connection.topic].publish(bytes(raw))
            if connection.topic == self._followed:
                self._wait_for_answer(own_ns)
        for publisher in self._publishers.values():
            if publisher.get_subscription_count():
                publisher.wait_for_all_acked(Duration(seconds=5))

    def _wait_until(self, begin: float, first_ns: int, stamp_ns: int) -> None:
        while not self._stopped:
            passed = time.monotonic() - begin
            left = (stamp_ns - first_ns) / 1e9 / self._rate - passed
            if self._clock is not None:
                now_ns = stamp_ns if left <= 0 else first_ns + int(passed * self._rate * 1e9)
                clock = Clock()
                clock.clock.sec, clock.clock.nanosec = divmod(now_ns, 1_000_000_000)
                self._clock.publish(clock)
            if left <= 0:
                return
            time.sleep(min(left, CLOCK_PERIOD_S))

    def _wait_for_answer(self, stamp_ns: int) -> None:
        end = time.monotonic() + ANSWER_TIMEOUT_S
        while self._answered_ns < stamp_ns and time.monotonic() < end and not self._stopped:
            self._executor.spin_once(timeout_sec=CLOCK_PERIOD_S)

    def close(self) -> None:
        """Ends the node and the reader."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._reader.close()


def _header_stamp(raw: bytes | memoryview) -> int:
    """Nanoseconds of the stamp that a serialized message with a header begins with."""
    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] else ">iI", raw, 4)  # after the encapsulation's 4 bytes
    return seconds * 1_000_000_000 + nanoseconds


def main(argv: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mastsam_ros.ros.play", description=__doc__.split("\n")[0])
    parser.add_argument("bag", type=Path, help="rosbag2: directory or file")
    parser.add_argument("--rate", type=float, default=1.0, help="speed; 1 is the bag's own")
    parser.add_argument("--topics", nargs="+", help="only these topics")
    parser.add_argument("--clock", action="store_true", help="publish /clock")
    parser.add_argument("--wait-for", nargs="+", default=[], metavar="TOPIC", help="start when these have subscribers")
    parser.add_argument(
        "--follow",
        nargs=2,
        metavar=("TOPIC", "ANSWERS"),
        help="after each message of TOPIC wait for one on ANSWERS with its stamp",
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="how long to wait for each, seconds")
    parser.add_argument("--log", type=Path, help="write when each message was sent to this JSON file")
    arguments = parser.parse_args(argv)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    player = None
    try:
        player = Player(arguments.bag, arguments.rate, arguments.topics, arguments.clock)

        def stop(number: int, frame: FrameType | None) -> None:
            player.stop()

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        begin = time.monotonic()
        sys.stdout.write("waiting\n")
        sys.stdout.flush()
        for topic in arguments.wait_for:
            player.wait_for_subscriber(topic, arguments.timeout)
        if arguments.wait_for:
            time.sleep(min(max(SETTLE_S, time.monotonic() - begin), LONGEST_SETTLE_S))
        sys.stdout.write("playing\n")
        sys.stdout.flush()
        if arguments.follow:
            player.follow(*arguments.follow)
        player.play()
        if arguments.log:
            arguments.log.write_text(json.dumps(player.sent), encoding="utf-8")
    except MastsamError as error:
        sys.stderr.write(f"play: {error}\n")
        return 1
    finally:
        if player is not None:
            player.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
