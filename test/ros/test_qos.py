"""When nothing comes, the warning names the reason and the cure."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from rclpy.qos import QoSPolicyKind, ReliabilityPolicy

from mastsam_ros.ros import qos

IMAGE = "sensor_msgs/msg/Image"


def publisher(kind=IMAGE, reliability=ReliabilityPolicy.RELIABLE):
    return SimpleNamespace(topic_type=kind, qos_profile=SimpleNamespace(reliability=reliability))


def why(publishers, reliability=ReliabilityPolicy.BEST_EFFORT, others=()):
    return qos.why_no_image("/image", "node.image_topic", IMAGE, reliability, publishers, others)


def test_a_topic_that_nobody_publishes_lists_the_others():
    text = why([], others=["/camera/color"])
    assert "nobody publishes it" in text and "node.image_topic" in text and "/camera/color" in text


def test_a_topic_of_another_type_is_named():
    assert f"carries std_msgs/msg/String, expected {IMAGE}" in why([publisher("std_msgs/msg/String")])
    assert "node.compressed" in why([publisher("sensor_msgs/msg/CompressedImage")])


def test_quality_of_service_that_cannot_match_is_named():
    offered = [publisher(reliability=ReliabilityPolicy.BEST_EFFORT)]
    assert "incompatible (reliability)" in why(offered, ReliabilityPolicy.RELIABLE)
    assert "node.reliability:=best_effort" in qos.incompatible_qos_warning("/image", QoSPolicyKind.RELIABILITY)
    assert "durability" in qos.incompatible_qos_warning("/image", QoSPolicyKind.DURABILITY)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in (qos.LARGE_DATA, "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"):
        monkeypatch.delenv(name, raising=False)


def test_large_images_lost_best_effort_name_large_data():
    assert "FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA" in why([publisher()])


def test_large_best_effort_is_warned_of_only_where_it_can_fail(monkeypatch):
    best, reliable = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
    fast = "rmw_fastrtps_cpp"
    assert "LARGE_DATA" in (qos.large_best_effort_warning("/image", 921_600, best, fast) or "")
    assert qos.large_best_effort_warning("/image", 921_600, reliable, fast) is None
    assert qos.large_best_effort_warning("/image", 60_000, best, fast) is None
    assert qos.large_best_effort_warning("/image", 921_600, best, "rmw_cyclonedds_cpp") is None
    monkeypatch.setenv(qos.LARGE_DATA, "LARGE_DATA")
    assert qos.large_best_effort_warning("/image", 921_600, best, fast) is None
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    assert "LOCALHOST, which overrules" in (qos.large_best_effort_warning("/image", 921_600, best, fast) or "")
