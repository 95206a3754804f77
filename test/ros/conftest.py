"""Every test of this folder has a ROS domain of its own on this machine, and the node runs as its own process."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mastsam_ros.geometry.transforms import quaternion_xyzw

_domains = itertools.count(os.getpid())


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """A domain that no other test uses. Up to 100: above, DDS would take ports that the system hands out."""
    domain = next(_domains) % 100 + 1
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "ros_log"))
    monkeypatch.delenv("FASTDDS_BUILTIN_TRANSPORTS", raising=False)
    return domain


class NodeProcess:
    """`python -m mastsam_ros` with these ROS arguments; its log is read as it comes."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mastsam_ros", "--ros-args", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, timeout_s: float = 120.0) -> None:
        wait_until(lambda: text in self.log or self.process.poll() is not None, timeout_s)
        assert text in self.log, f"'{text}' was not said:\n{self.log}"

    def end(self, number: int = signal.SIGINT, timeout_s: float = 40.0) -> int:
        """Sends the signal; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout_s)
        self._reader.join(5)
        return status


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0) -> bool:
    """True once the condition holds, False after the timeout."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


@pytest.fixture
def start_node(ros_domain: int) -> Iterator[Callable[..., NodeProcess]]:
    """Starts the node and waits until it is ready; it does not outlive the test."""
    processes: list[NodeProcess] = []

    def start(*arguments: str, ready: bool = True) -> NodeProcess:
        process = NodeProcess(*arguments)
        processes.append(process)
        if ready:
            process.wait_for("ready: ")
        return process

    yield start
    for process in processes:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait(10)


class Robot:
    """The other side of the node: publishes images and keeps what comes back, by topic."""

    def __init__(self, domain: int) -> None:
        self.received: dict[str, list[Any]] = {}
        self._domain = domain
        self._listened: list[tuple[Any, str]] = []
        self._publishes = False
        self._join()

    def _join(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=self._domain)
        self.node = rclpy.create_node("robot", context=self._context)
        for kind, topic in self._listened:
            self.node.create_subscription(kind, topic, self.received[topic].append, 1000)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        # The thread first: a wait set made while its context goes away raises in the thread.
        self._closing.set()
        self._thread.join(20)
        self.node.destroy_node()
        self._context.try_shutdown()

    def listen(self, kind: Any, *topics: str) -> None:
        for topic in topics:
            self.received[topic] = []
            self._listened.append((kind, topic))
            self.node.create_subscription(kind, topic, self.received[topic].append, 1000)

    def publisher(self, kind: Any, topic: str, wait: bool = True) -> Any:
        """A reliable publisher, matched with the node's subscription and the listeners with the node's publishers.

        Rarely, DDS leaves two processes half known to each other for ever: the robot then joins anew.
        """
        publisher = self.node.create_publisher(kind, topic, 10)
        if wait and not self._publishes and not wait_until(lambda: not self._unmatched(publisher), 20):
            self.close()
            self._join()
            publisher = self.node.create_publisher(kind, topic, 10)
        if wait:
            assert wait_until(lambda: not self._unmatched(publisher)), f"not matched: {self._unmatched(publisher)}"
            time.sleep(0.3)  # matching is not symmetric in time
        self._publishes = True
        return publisher

    def _unmatched(self, publisher: Any) -> list[str]:
        heard = [publisher.topic_name] if publisher.get_subscription_count() else []
        told = [topic for topic in self.received if self.node.count_publishers(topic)]
        return [topic for topic in (publisher.topic_name, *self.received) if topic not in heard + told]

    def wait(self, topic: str, count: int, timeout_s: float = 60.0) -> list[Any]:
        """The messages of a topic, once there are so many."""
        wait_until(lambda: len(self.received[topic]) >= count, timeout_s)
        assert len(self.received[topic]) >= count, f"{len(self.received[topic])} messages on {topic}, expected {count}"
        return self.received[topic]

    def image(self, image: np.ndarray, stamp_ns: int) -> Any:
        """An rgb8 message."""
        from mastsam_ros.ros.conversions import rgb_message

        return rgb_message(image, self.header(stamp_ns))

    def header(self, stamp_ns: int) -> Any:
        from builtin_interfaces.msg import Time
        from std_msgs.msg import Header

        stamp = Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
        return Header(stamp=stamp, frame_id="camera_optical")

    def transform(self, parent: str, child: str, T: np.ndarray, stamp_ns: int) -> Any:
        """A TransformStamped of a pose (4, 4) of the child in the parent."""
        from geometry_msgs.msg import TransformStamped

        message = TransformStamped(header=self.header(stamp_ns), child_frame_id=child)
        message.header.frame_id = parent
        move, turn = message.transform.translation, message.transform.rotation
        move.x, move.y, move.z = T[:3, 3].tolist()
        turn.x, turn.y, turn.z, turn.w = quaternion_xyzw(T[:3, :3]).tolist()
        return message

    def call(self, kind: Any, service: str, request: Any, timeout_s: float = 60.0) -> Any:
        """The answer of a service of the node."""
        client = self.node.create_client(kind, service)
        assert client.wait_for_service(timeout_s)
        time.sleep(0.5)  # matching is not symmetric in time: DDS drops an answer to whom the node does not know yet
        future = client.call_async(request)
        assert wait_until(future.done, timeout_s), f"{service} does not answer"
        return future.result()

    def settled_counts(self, received: int, timeout_s: float = 60.0) -> dict[str, int]:
        """The node's counts once every image that it received has been dealt with."""
        names = ("processed", "skipped", "failed", "unpaired")

        def settled() -> bool:
            counts = self.counts()
            return int(counts.get("received", 0)) >= received and int(counts["received"]) == sum(
                int(counts[name]) for name in names
            )

        wait_until(settled, timeout_s)
        counts = self.counts()
        assert settled(), f"the counts do not add up: {counts}"
        return {name: int(counts[name]) for name in ("received", *names, "lost")}

    wait_until = staticmethod(wait_until)

    def counts(self) -> dict[str, str]:
        """The values of the node's last diagnostics."""
        if not self.received["/diagnostics"]:
            return {}
        status = self.received["/diagnostics"][-1].status[0]
        return {pair.key: pair.value for pair in status.values}


@pytest.fixture
def robot(ros_domain: int) -> Iterator[Robot]:
    robot = Robot(ros_domain)
    yield robot
    robot.close()


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    """Makes (H, W, 3) uint8: three coloured boxes on a rough ground, moved to the right by `shift` pixels."""

    def make(shift: int = 0, width: int = 160, height: int = 120) -> np.ndarray:
        rng = np.random.default_rng(3)
        image = rng.integers(90, 110, (height, width, 3), dtype=np.uint8)
        for n, colour in enumerate(((200, 40, 40), (40, 200, 40), (40, 40, 220))):
            left = width * (10 + n * 28) // 100 + shift
            image[height * (25 + n * 8) // 100 : height * (60 + n * 8) // 100, left : left + width // 5] = colour
        return image

    return make
