"""The launch file: it names every argument, and starts the node with them. Where launch_ros is installed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH_FILE = Path(__file__).parents[2] / "launch" / "mastsam.launch.py"
ARGUMENTS = [
    "image",
    "camera_info",
    "depth",
    "namespace",
    "params_file",
    "use_sim_time",
    "device",
    "autostart",
    "respawn",
]

RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

arguments = [argument.split(":=") for argument in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)]))
sys.exit(service.run())
"""


def test_the_file_compiles():
    compile(LAUNCH_FILE.read_text(encoding="utf-8"), str(LAUNCH_FILE), "exec")


@pytest.fixture
def installed():
    pytest.importorskip("launch_ros", reason="launch_ros is not installed: it comes with a ROS distribution")
    packages = pytest.importorskip("ament_index_python.packages")
    try:
        packages.get_package_prefix("mastsam_ros")
    except packages.PackageNotFoundError:
        pytest.skip("mastsam_ros is not in the ament index: source install/setup.bash")


def test_every_argument_is_declared_and_described(installed):
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from launch import LaunchContext

    description = PythonLaunchDescriptionSource(str(LAUNCH_FILE)).get_launch_description(LaunchContext())
    declared = {argument.name: argument for argument in description.get_launch_arguments()}
    assert {*ARGUMENTS, "segmenter", "rviz"} <= set(declared)
    assert all(argument.description for argument in declared.values())


def test_it_starts_the_node_and_ctrl_c_ends_it(installed, ros_domain):
    arguments = ["namespace:=robot1", "image:=/camera/image", "device:=cpu", "use_sim_time:=true"]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(LAUNCH_FILE), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if "ready: " in line or "ERROR" in line:
                # Ctrl-C reaches everybody in the terminal, and launch counts on that.
                os.killpg(process.pid, signal.SIGINT)
                break
        lines += process.stdout.readlines()
        process.wait(20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    log = "".join(lines)
    assert "robot1.mastsam" in log and "/camera/image" in log, log
    assert "finished cleanly" in log and "Traceback" not in log and "escalating" not in log, log


def test_a_node_that_was_killed_is_started_again_and_becomes_ready(installed, ros_domain):
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(LAUNCH_FILE), "device:=cpu", "respawn:=true", "threads:=1", "publish_tf:=true"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    ready = 0
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            ready += "ready: " in line
            if "ready: " in line and ready == 1:
                started = re.findall(r"process started with pid \[(\d+)\]", "".join(lines))
                os.kill(int(started[-1]), signal.SIGKILL)
            if "ready: " in line and ready == 2:
                os.killpg(process.pid, signal.SIGINT)
                break
        lines += process.stdout.readlines()
        process.wait(20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    log = "".join(lines)
    assert ready == 2 and log.count("process started with pid") == 2, log
    assert "finished cleanly" in log, "Ctrl-C ends it for good\n" + log
