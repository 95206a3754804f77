"""One session with the real node: node, recorder and player, each a process of its own, talk over DDS."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from mastsam_ros.backends import resolved
from mastsam_ros.settings import Settings
from mastsam_ros.types import MastsamError

_LOG = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
DISCOVERY_TIMEOUT_S = 20.0
ATTEMPTS = 3
"""DDS domains that are tried: another session, or what a killed process left behind, can keep two from meeting."""
COMPLAINT = "play: "
"""What the player begins its last line with if it fails."""
LAST_FRAMES_S = 2.0
"""The node may still be at work on the last image, and reports its diagnostics every second."""


@dataclass(frozen=True)
class Session:
    """What was played and recorded. sent: stamp of every image -> the system's time on sending, nanoseconds.

    follows: the player waited for every image's answer. settings: what the node was started with, `auto` resolved.
    """

    bag: Path
    result_bag: Path
    settings: Settings
    follows: bool
    sent: dict[int, int]


def run_session(
    bag: Path,
    result_bag: Path,
    logs: Path,
    settings: Settings,
    *,
    rate: float = 1.0,
    follow: bool = False,
    use_sim_time: bool = False,
) -> Session:
    """Starts the node, plays the input topics that `settings.node` names to it, and records its answers.

    result_bag: must not exist. rate: speed, 1 is the bag's own pace. follow: never send an image before the last
    is answered. use_sim_time: the player publishes the bag's time, and the node lives in it. Raises MastsamError
    if one of the three processes fails, with the last line it said.
    """
    settings = resolved(settings)
    image = settings.node.image_topic
    geometry = [topic for topic in (settings.node.depth_topic, settings.node.camera_info_topic) if topic]
    inputs = [image, *geometry]
    logs.mkdir(parents=True, exist_ok=True)
    parameters, sent = logs / "parameters.yaml", logs / "sent.json"
    values = {**settings.to_mapping(), "use_sim_time": use_sim_time}
    parameters.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}), encoding="utf-8")
    sent.unlink(missing_ok=True)
    answers = ["labels", "instances", "events"]
    if len(geometry) == 2:
        answers += ["points", "odometry", "map", "map_instances"]
    recorder_command = ["mastsam_ros.ros.record", str(result_bag), *(f"/mastsam/{name}" for name in answers)]
    recorder_command += ["/diagnostics"]
    player_command = ["mastsam_ros.ros.play", str(bag), "--topics", *inputs, "--wait-for", *inputs]
    player_command += ["--timeout", f"{START_TIMEOUT_S:g}", "--rate", f"{rate:.6g}", "--log", str(sent)]
    if follow:
        player_command += ["--follow", image, "/mastsam/labels"]
    if use_sim_time:
        player_command += ["--clock"]
    # A domain of its own: a robot on the same network hears and says nothing. ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
    # would do that too, but with it large images get lost.
    environment = {key: value for key, value in os.environ.items() if key != "ROS_AUTOMATIC_DISCOVERY_RANGE"}
    environment["FASTDDS_BUILTIN_TRANSPORTS"] = "LARGE_DATA"
    for attempt in range(ATTEMPTS):
        domain = 1 + (os.getpid() + 37 * attempt) % 100
        environment["ROS_DOMAIN_ID"] = str(domain)
        with (
            process("node", ["mastsam_ros", "--ros-args", "--params-file", str(parameters)], environment, logs) as node,
            process("recorder", recorder_command, environment, logs) as recorder,
        ):
            last = attempt + 1 == ATTEMPTS
            # Only what is at rest is looked for: DDS can lose a node that compiles meanwhile, or loads its weights.
            node.says("ready: ", [recorder])
            met = recorder.says("recording", [node], START_TIMEOUT_S if last else DISCOVERY_TIMEOUT_S)
            if last and not met:
                raise MastsamError(f"the recorder does not hear the node: see {recorder.log}")
            if met:
                with process("player", player_command, environment, logs) as player:
                    player.says("waiting", [node, recorder])
                    met = player.says("playing", [node, recorder], DISCOVERY_TIMEOUT_S)
                    if met or last:
                        met = player.ends([node, recorder], sent)
                time.sleep(LAST_FRAMES_S)
                node.check()
            if met or last:
                break
            _LOG.warning("node, recorder and player do not meet in domain %d: trying another one", domain)
            recorder.stop()
            shutil.rmtree(result_bag, ignore_errors=True)
            sent.unlink(missing_ok=True)
    times = json.loads(sent.read_text(encoding="utf-8"))[image]
    return Session(bag, result_bag, settings, follow, dict(times))


@dataclass
class Process:
    """A child with its output in a log file."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises MastsamError with the last line of the log if it has ended with an error."""
        if self.child.poll() not in (None, 0):
            lines = self.said().strip().splitlines()
            raise MastsamError(
                f"the {self.name} ended with status {self.child.returncode}: {(lines or ['no word'])[-1]}"
            )

    def says(self, words: str, others: list[Process], timeout_s: float = math.inf) -> bool:
        """Waits until its log holds these words. False if it ends without them, or does not say them in that time.
        Raises MastsamError if it or one of the others ends with an error meanwhile."""
        end = time.monotonic() + timeout_s
        while words not in self.said():
            for one in (*others, self):
                one.check()
            if self.child.poll() is not None or time.monotonic() > end:
                return words in self.said()
            time.sleep(0.1)
        return True

    def said(self) -> str:
        """The log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ends(self, others: list[Process], result: Path) -> bool:
        """Waits until it has ended by itself. One that hangs after it has written its result, or said what failed, is
        ended by force, and that is False or raised: the TCP transport of DDS can wait for ever for a lost peer."""
        done = None
        while self.child.poll() is None:
            for one in others:
                one.check()
            if done is None and (result.is_file() or COMPLAINT in self.said()):
                done = time.monotonic()
            if done is not None and time.monotonic() > done + STOP_TIMEOUT_S:
                self.child.kill()
                self.child.wait()
                if result.is_file():
                    return False
            time.sleep(0.1)
        self.check()
        return True

    def stop(self) -> None:
        """Ends it with SIGINT, and by force if that does not help."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
            try:
                self.child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


@contextmanager
def process(name: str, module: list[str], environment: Mapping[str, str], logs: Path) -> Iterator[Process]:
    """`python -m module...`, ended at the latest with the block. In a session of its own: Ctrl-C reaches us alone."""
    path = logs / f"{name}.log"
    with path.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *module],
            env=dict(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started = Process(name, child, path)
        try:
            yield started
        finally:
            started.stop()
