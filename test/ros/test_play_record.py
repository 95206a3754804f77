"""A bag that is played over DDS and recorded again holds the same messages, to the byte."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rosbags.highlevel import AnyReader

from mastsam_ros.io.frame_bag import TOPICS
from mastsam_ros.io.sample_scene import SampleScene


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return SampleScene(3, frames=12, width=160, height=120, rate_hz=20).write_bag(
        tmp_path_factory.mktemp("play") / "bag"
    )


@pytest.fixture
def environment() -> dict[str, str]:
    own = {"ROS_DOMAIN_ID": str(random.randint(100, 200)), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return {**os.environ, **own}


def start(module: str, *arguments: str, env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"mastsam_ros.ros.{module}", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read(folder):
    with AnyReader([folder]) as reader:
        # DDS fills the last four bytes of a message up with zeros.
        padded = ((c.topic, c.msgtype, bytes(raw).ljust(-len(raw) // 4 * -4, b"\0")) for c, _, raw in reader.messages())
        return sorted(padded)


def test_nothing_is_lost_or_changed(bag, tmp_path, environment) -> None:
    topics = sorted(TOPICS.values())
    recorder = start("record", str(tmp_path / "again"), *topics, env=environment)
    log = tmp_path / "sent.json"
    begin = time.monotonic()
    player = start("play", str(bag), "--wait-for", *topics, "--log", str(log), env=environment)
    try:
        assert recorder.stdout is not None and recorder.stdout.readline() == "recording\n"
        _, complaint = player.communicate(timeout=60)
        assert player.returncode == 0, complaint
        recorder.send_signal(signal.SIGINT)
        told, complaint = recorder.communicate(timeout=20)
        assert recorder.returncode == 0 and not complaint, complaint
    finally:
        for process in (player, recorder):
            process.kill()
    assert time.monotonic() - begin > 11 / 20, "faster than the bag's own pace"
    assert f"{TOPICS['image']}: 12" in told
    assert read(tmp_path / "again") == read(bag)
    assert {len(times) for times in json.loads(log.read_text()).values()} == {12}


def test_a_topic_that_is_not_there_ends_with_one_line(bag, environment) -> None:
    player = start("play", str(bag), "--topics", "/nothing", env=environment)
    _, complaint = player.communicate(timeout=60)
    assert player.returncode == 1
    assert complaint.startswith("play: ") and "/nothing" in complaint and complaint.count("\n") == 1
    assert TOPICS["image"] in complaint


def test_recording_ends_before_the_disk_is_full_and_the_bag_is_whole(bag, tmp_path, environment) -> None:
    free_mb = shutil.disk_usage(tmp_path).free / 1e6
    topic = TOPICS["image"]
    recorder = start("record", str(tmp_path / "again"), topic, "--reserve", f"{free_mb - 30:.0f}", env=environment)
    player = start("play", str(bag), "--rate", "0.5", "--wait-for", topic, env=environment)
    try:
        assert recorder.stdout is not None and recorder.stdout.readline() == "recording\n"
        time.sleep(1)
        (tmp_path / "large").write_bytes(os.urandom(60_000_000))
        _, complaint = recorder.communicate(timeout=30)
    finally:
        for process in (player, recorder):
            process.kill()
    assert recorder.returncode == 1 and complaint.count("\n") == 1, complaint
    assert complaint.startswith("record: ") and "the disk is almost full" in complaint
    written = int(re.findall(rf"{topic}: (\d+)", complaint)[0])
    assert written < 12 and len(read(tmp_path / "again")) == written


def test_a_write_that_fails_is_one_line(bag, tmp_path, environment) -> None:
    def small_files_only() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    # Images of the bag are 57,600 bytes; they reach the file in pieces of a megabyte.
    command = [sys.executable, "-m", "mastsam_ros.ros.record", str(tmp_path / "again"), TOPICS["image"]]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    recorder = subprocess.Popen(command, env=environment, preexec_fn=small_files_only, **pipes)
    player = start("play", str(bag), "--wait-for", TOPICS["image"], env=environment)
    try:
        assert recorder.stdout is not None and recorder.stdout.readline() == "recording\n"
        player.communicate(timeout=60)
        recorder.send_signal(signal.SIGINT)
        _, complaint = recorder.communicate(timeout=30)
    finally:
        for process in (player, recorder):
            process.kill()
    # The limit holds for the shared memory of DDS too, which says so in lines of its own.
    told = [line for line in complaint.splitlines() if "RTPS" not in line]
    assert recorder.returncode == 1 and len(told) == 1, complaint
    assert told[0].startswith("record: cannot finish") and "File too large" in told[0]


def test_recording_over_a_bag_is_refused(bag, environment) -> None:
    recorder = start("record", str(bag), "/any", env=environment)
    _, complaint = recorder.communicate(timeout=60)
    assert recorder.returncode == 1 and "exists" in complaint and complaint.count("\n") == 1


def test_a_topic_that_nobody_publishes_is_named(tmp_path, environment) -> None:
    recorder = start("record", str(tmp_path / "bag"), "/nobody", "--timeout", "1", env=environment)
    _, complaint = recorder.communicate(timeout=60)
    assert recorder.returncode == 1 and "/nobody" in complaint and complaint.count("\n") == 1
    with AnyReader([tmp_path / "bag"]) as reader:
        assert reader.message_count == 0, "the bag is whole, though empty"


def test_the_clock_runs_through_the_bags_own_time(bag, tmp_path, environment) -> None:
    recorder = start("record", str(tmp_path / "again"), "/clock", TOPICS["image"], env=environment)
    player = start("play", str(bag), "--clock", "--rate", "2", "--wait-for", TOPICS["image"], "/clock", env=environment)
    try:
        assert recorder.stdout is not None and recorder.stdout.readline() == "recording\n"
        _, complaint = player.communicate(timeout=60)
        assert player.returncode == 0, complaint
        recorder.send_signal(signal.SIGINT)
        recorder.communicate(timeout=20)
    finally:
        for process in (player, recorder):
            process.kill()
    with AnyReader([tmp_path / "again"]) as reader:
        clocks = [reader.deserialize(raw, c.msgtype).clock for c, _, raw in reader.messages() if c.topic == "/clock"]
    times = [clock.sec + clock.nanosec / 1e9 for clock in clocks]
    assert times == sorted(times) and len(times) > 12
    assert times[0] == pytest.approx(1.0, abs=0.1) and times[-1] == pytest.approx(1 + 11 / 20, abs=0.1)
