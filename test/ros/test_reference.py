"""The tables of topics, services and parameters: the page is up to date, and the running node is what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mastsam_ros.ros.interface import DIAGNOSTICS, EVIDENCE, INPUTS, OUTPUTS, SERVICES, TF
from mastsam_ros.ros.reference import reference
from mastsam_ros.settings import Settings
from mastsam_ros.types import EventKind

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the installed package has no docs")
def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python -m mastsam_ros.ros.reference docs/reference.md"


def test_every_setting_topic_and_service_is_in_it():
    text = reference()
    named = [info.path for info in Settings.infos()]
    named += [f"~/{name}" for name in (*OUTPUTS, *SERVICES)]
    assert [name for name in named if f"`{name}`" not in text] == []
    parameters = {i.parameter for i in INPUTS if not i.parameter.startswith("/")}
    assert parameters <= {info.path for info in Settings.infos()}
    assert set(EVIDENCE) == set(EventKind)


def test_the_running_node_has_these_and_no_others(start_node, robot):
    pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not there: make build")
    start_node("-p", "node.depth_topic:=depth", "-p", "node.pose_topic:=vio", "-p", "node.publish_tf:=true")
    wanted = {f"/mastsam/{topic.name}": [topic.type] for topic in OUTPUTS.values()}
    wanted |= {DIAGNOSTICS.name: [DIAGNOSTICS.type], TF.name: [TF.type]}
    services = {f"/mastsam/{service.name}": [service.type] for service in SERVICES.values()}
    inputs = {"/image", "/depth", "/camera_info", "/vio", "/tf", "/tf_static"}

    def of_ros(name: str, types: list[str]) -> bool:
        return types[0].startswith(("rcl_interfaces/", "lifecycle_msgs/", "type_description_interfaces/"))

    def published() -> dict[str, list[str]]:
        found = robot.node.get_publisher_names_and_types_by_node("mastsam", "/")
        return {name: types for name, types in found if not of_ros(name, types)}

    robot.wait_until(lambda: "mastsam" in robot.node.get_node_names() and len(published()) >= len(wanted))
    assert published() == wanted
    found = robot.node.get_service_names_and_types_by_node("mastsam", "/")
    assert {name: types for name, types in found if not of_ros(name, types)} == services

    def listened_to() -> dict[str, list[str]]:
        return dict(robot.node.get_subscriber_names_and_types_by_node("mastsam", "/"))

    robot.wait_until(lambda: inputs <= listened_to().keys())
    heard = listened_to()
    assert inputs <= heard.keys()
    kinds = {kind for i in INPUTS for kind in i.types}
    assert {heard[name][0] for name in inputs} <= kinds
