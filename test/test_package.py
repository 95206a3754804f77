"""The package as it is installed: messages and Python module together, files that agree with each other."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import mastsam_ros
from mastsam_ros.types import EventKind, TrackState

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = os.environ.get("MASTSAM_PREFIX")
"""Where colcon has put the package that its tests are to test."""
COLCON = shutil.which("colcon", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

needs_messages = pytest.mark.skipif(
    importlib.util.find_spec("mastsam_ros.msg") is None, reason="the messages are not built: make build"
)


@needs_messages
def test_messages_and_module_are_one_package() -> None:
    code = "import mastsam_ros.msg, mastsam_ros.types; print(mastsam_ros.msg.Instance(id=7).id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout == "7\n", done.stderr


@pytest.mark.skipif(INSTALLED is None, reason="only in colcon test")
def test_the_installed_package_is_tested() -> None:
    assert Path(mastsam_ros.__file__).is_relative_to(str(INSTALLED))


@needs_messages
def test_states_and_kinds_match_the_types() -> None:
    from mastsam_ros.msg import Instance, TrackEvent

    assert {TrackState(s.lower()) for s in _constants(Instance, "STATE_")} == set(TrackState)
    assert {EventKind(k.lower()) for k in _constants(TrackEvent, "KIND_")} == set(EventKind)


def _constants(message: type, prefix: str) -> dict[str, int]:
    names = [name for name in dir(message) if name.startswith(prefix)]
    values = {name.removeprefix(prefix): getattr(message, name) for name in names}
    assert len(set(values.values())) == len(values) and 0 not in values.values()
    return values


@needs_messages
def test_messages_survive_serialization() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    from mastsam_ros.msg import Instance, InstanceArray

    instance = Instance(id=65535, state=Instance.STATE_LOST, score=0.5, area=4_000_000, box_x=-1, has_position=True)
    instance.position.z = 1.25
    sent = InstanceArray(width=640, height=480, instances=[instance])
    sent.header.frame_id = "camera"
    assert deserialize_message(serialize_message(sent), InstanceArray) == sent


def test_the_version_is_the_same_everywhere() -> None:
    assert _manifest().findtext("version") == mastsam_ros.__version__
    assert f"## {mastsam_ros.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_manifest_names_every_ros_package_that_is_imported() -> None:
    declared = {element.text for element in _manifest().iter() if element.tag.endswith("depend")}
    imported = set()
    for source in [*ROOT.glob("mastsam_ros/ros/**/*.py"), *ROOT.glob("launch/*.py")]:
        imported |= set(re.findall(r"^\s*(?:from|import) (\w+)", source.read_text(encoding="utf-8"), re.MULTILINE))
    of_ros = {name for name in imported if re.search(r"rclpy|_msgs|_interfaces|_srvs|^launch|cv_bridge|tf2", name)}
    assert {"rclpy", "sensor_msgs"} <= of_ros
    assert of_ros <= declared


def _manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def test_every_direct_dependency_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    setuptools = pytest.importorskip("setuptools")
    told: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", told.update)
    runpy.run_path(str(ROOT / "setup.py"))
    lists = [told["install_requires"], *told["extras_require"].values()]
    required = {re.split("[<>=!;]", item)[0].lower() for items in lists for item in items}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {name.lower() for name in re.findall(r"^([\w.-]+)==[\w.]+$", pins, re.MULTILINE)}
    assert {"torch", "ros-kilted-rclpy", "colcon-core", "mypy"} <= required
    assert required - pinned == set()


@needs_messages
@pytest.mark.skipif(COLCON is None or INSTALLED is not None, reason="colcon is not installed, or this is its own test")
def test_colcon_workspace_gives_messages_module_and_executable(tmp_path: Path) -> None:
    environment = {**os.environ, "AMENT_PREFIX_PATH": sys.prefix, "CMAKE_PREFIX_PATH": sys.prefix}
    build = [str(COLCON), "--log-base", "log", "build", "--base-paths", str(ROOT), "--packages-select", "mastsam_ros"]
    arguments = ["--cmake-args", f"-DPython3_EXECUTABLE={sys.executable}", "-DBUILD_TESTING=OFF"]
    built = subprocess.run([*build, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr

    code = "import mastsam_ros.msg as m, mastsam_ros.types as t; m.Instance(); print(m.__file__); print(t.__file__)"
    sourced = f'. install/setup.bash; "{sys.executable}" -c "{code}"'
    done = subprocess.run(["bash", "-c", sourced], cwd=tmp_path, env=environment, capture_output=True, text=True)
    files = [Path(line) for line in done.stdout.splitlines()]
    assert [f.name for f in files] == ["__init__.py", "types.py"], done.stderr
    assert all(f.is_relative_to(tmp_path / "install") for f in files)

    prefix = tmp_path / "install" / "mastsam_ros"
    assert os.access(prefix / "lib" / "mastsam_ros" / "mastsam_node", os.X_OK)
    for folder in ("config", "foxglove", "launch", "rviz"):
        assert (prefix / "share" / "mastsam_ros" / folder).is_dir()
