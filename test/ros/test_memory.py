"""The node's memory: what is free goes back to the system, and what DDS keeps for slow subscribers is bounded."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import PointCloud2

import mastsam_ros.ros.node as node_module
from mastsam_ros import __main__ as program
from mastsam_ros.geometry import odometry
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.ros import memory
from mastsam_ros.ros.interface import OUTPUTS
from mastsam_ros.ros.memory import free_messages, give_back, heap_megabytes, resident_megabytes
from mastsam_ros.ros.outputs import create_publisher
from mastsam_ros.settings import Settings

CLOUD_MB = 1.8
"""A cloud of 76,800 points, as images of 640x480 give."""
NEVER_READS = """
import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2
rclpy.init()
node = rclpy.create_node("slow")
node.create_subscription(PointCloud2, "/points", lambda message: None, QoSProfile(depth=5))
rclpy.spin(node)
"""
PUBLISHES = """
import os, signal, sys, time
import rclpy
from sensor_msgs.msg import PointCloud2
from mastsam_ros.ros.interface import OUTPUTS
from mastsam_ros.ros.memory import free_messages, heap_megabytes, one_arena
from mastsam_ros.ros.outputs import create_publisher

one_arena()
if sys.argv[2] == "frees":
    assert free_messages()
slow = int(sys.argv[1])
rclpy.init()
publisher = create_publisher(rclpy.create_node("fast"), OUTPUTS["points"], "/")
while not publisher.get_subscription_count():
    time.sleep(0.02)
cloud = PointCloud2()
cloud.data.frombytes(bytes(int(float(sys.argv[3]) * 2**20)))
publisher.publish(cloud)
time.sleep(1)
os.kill(slow, signal.SIGSTOP)
for _ in range(20):
    publisher.publish(cloud)
held = heap_megabytes()
os.kill(slow, signal.SIGCONT)
end = time.monotonic() + 5
while time.monotonic() < end and heap_megabytes() > held - 2 * float(sys.argv[3]):
    time.sleep(0.1)
print(held - heap_megabytes(), flush=True)
os._exit(0)
"""


def sieve() -> list[np.ndarray]:
    """Blocks that keep 180 MB of free memory between them."""
    blocks = [np.ones(100_000, np.uint8) for _ in range(2000)]
    return blocks[::10]


def happens(condition: Callable[[], object], timeout_s: float = 20.0) -> bool:
    """True once the condition holds, False after the timeout."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_free_memory_between_blocks_in_use_is_given_back():
    if not give_back() or heap_megabytes() is None:
        pytest.skip("malloc is not glibc's")
    before, used = resident_megabytes(), heap_megabytes()
    kept = sieve()
    assert resident_megabytes() - before > 120, "glibc keeps it"
    assert heap_megabytes() - used == pytest.approx(20, abs=8), "and knows that it is not in use"
    give_back()
    assert resident_megabytes() - before < 60, "a tenth of it is in use"
    assert all(block.all() for block in kept)


def test_what_the_pipeline_keeps_does_not_grow_with_the_frames(monkeypatch):
    """Once the views, lost tracks and keyframes that it may keep are full: no more objects, no more bytes in use."""
    if heap_megabytes() is None:
        pytest.skip("malloc is not glibc's")
    monkeypatch.setattr(odometry, "_MOST_KEYFRAMES", 4)
    scene = SampleScene(seed=5, frames=12, width=96, height=72)
    views = [dataclasses.replace(view.frame, T_world_camera=None) for view in scene]
    to_and_fro = [*views, *views[-2:0:-1]]
    mastsam = create_mastsam(Settings().updated({"tracker.recall_views": 4, "tracker.forget_after": 20}))
    seen: list[tuple[float, Counter[str]]] = []
    for number in range(1, 177):
        mastsam.step(dataclasses.replace(to_and_fro[number % len(to_and_fro)], stamp_ns=number * 100_000_000))
        if number % 88 == 0:
            gc.collect()
            seen.append((heap_megabytes() or 0.0, Counter(type(item).__name__ for item in gc.get_objects())))
    (before, had), (after, has) = seen
    assert {name: count - had[name] for name, count in has.items() if count - had[name] >= 44} == {}, (
        "one in two frames"
    )
    assert after - before < 0.4, "5 KB a frame; a picture of this size has 7"


def arenas_of_threads(pid: int) -> int:
    """How many arenas a process has beside the main one: 64 MB each, at a multiple of that, the rest of it reserved."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    maps = [(*(int(place, 16) for place in line.split()[0].split("-")), line.split()[1]) for line in lines]
    return sum(
        start % (64 << 20) == 0 and rights == "rw-p" and following[2] == "---p" and following[1] == start + (64 << 20)
        for (start, _, rights), following in itertools.pairwise(maps)
    )


def test_the_node_has_one_arena(start_node, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    assert arenas_of_threads(start_node().process.pid) > 0, "what the environment says goes before"
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    assert arenas_of_threads(start_node().process.pid) == 0


def test_the_node_gives_free_memory_back_by_itself(ros_domain, monkeypatch):
    if not give_back():
        pytest.skip("malloc is not glibc's")
    monkeypatch.setattr(node_module, "_GIVE_BACK_INTERVAL_S", 0.5)
    rclpy.init(args=["--ros-args", "-p", "node.autostart:=false"])
    node = node_module.MastsamNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        kept = sieve()
        full = resident_megabytes()
        assert happens(lambda: executor.spin_once(timeout_sec=0.1) or full - resident_megabytes() > 120) and kept
    finally:
        executor.shutdown()
        node.close()
        node.destroy_node()
        rclpy.shutdown()


def test_dds_keeps_little_for_a_subscriber_that_hangs(ros_domain):
    if heap_megabytes() is None:
        pytest.skip("malloc is not glibc's")
    slow = subprocess.Popen([sys.executable, "-c", NEVER_READS])
    rclpy.init(args=[])
    node = rclpy.create_node("fast")
    try:
        publisher = create_publisher(node, OUTPUTS["points"], "/")
        assert happens(publisher.get_subscription_count)
        cloud = PointCloud2()
        cloud.data.frombytes(bytes(int(CLOUD_MB * 2**20)))
        publisher.publish(cloud)
        os.kill(slow.pid, signal.SIGSTOP)
        before = heap_megabytes()
        for _ in range(20):
            publisher.publish(cloud)
        assert heap_megabytes() - before < 3 * CLOUD_MB, "a cloud in hand and two that wait"
    finally:
        slow.kill()
        slow.wait()
        node.destroy_node()
        rclpy.shutdown()


@pytest.mark.parametrize("frees", [True, False])
def test_dds_frees_what_a_subscriber_has_taken_at_last(ros_domain, monkeypatch, frees):
    if heap_megabytes() is None:
        pytest.skip("malloc is not glibc's")
    forget_profiles(monkeypatch)
    slow = subprocess.Popen([sys.executable, "-c", NEVER_READS])
    arguments = [str(slow.pid), "frees" if frees else "keeps", str(CLOUD_MB)]
    try:
        done = subprocess.run([sys.executable, "-c", PUBLISHES, *arguments], capture_output=True, text=True, timeout=60)
    finally:
        slow.kill()
        slow.wait()
    freed = float(done.stdout.splitlines()[-1]) if done.returncode == 0 else pytest.fail(done.stderr)
    assert freed > 1.9 * CLOUD_MB if frees else freed < 0.1 * CLOUD_MB, "by itself Fast DDS keeps it for good"


def forget_profiles(monkeypatch) -> None:
    for name in [name for name in os.environ if name.startswith(("FASTDDS_", "FASTRTPS_", "RMW_FASTRTPS_"))]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "chosen", ["FASTRTPS_DEFAULT_PROFILES_FILE", "RMW_FASTRTPS_PUBLICATION_MODE", "DEFAULT_FASTDDS_PROFILES.xml", ""]
)
def test_profiles_that_somebody_has_chosen_go_before(monkeypatch, tmp_path, chosen):
    forget_profiles(monkeypatch)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(tmp_path)
    if chosen.endswith(".xml"):
        Path(chosen).touch()
    elif chosen:
        os.environ[chosen] = "theirs"
    before = dict(os.environ)
    assert free_messages() == (not chosen)
    assert (os.environ == before) == bool(chosen)


@pytest.mark.parametrize(("distribution", "version"), [("humble", "FASTRTPS"), ("jazzy", "FASTRTPS"), ("", "FASTDDS")])
def test_each_version_of_fast_dds_is_told_by_the_name_that_it_knows(monkeypatch, tmp_path, distribution, version):
    forget_profiles(monkeypatch)
    monkeypatch.setattr(os, "environ", {**os.environ, "ROS_DISTRO": distribution})
    monkeypatch.chdir(tmp_path)
    assert free_messages()
    named = {name: value for name, value in os.environ.items() if name.endswith("_DEFAULT_PROFILES_FILE")}
    assert list(named) == [f"{version}_DEFAULT_PROFILES_FILE"] and Path(*named.values()).is_file()


def test_the_node_has_dds_free_messages(monkeypatch):
    called = []
    monkeypatch.setattr(memory, "free_messages", lambda: called.append("free_messages"))
    monkeypatch.setattr(node_module, "main", lambda: called.append("node") or 0)
    monkeypatch.setattr(memory, "one_arena", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert program.main() == 0 and called == ["free_messages", "node"]
