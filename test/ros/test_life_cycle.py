"""The managed life cycle, its transitions called over DDS by the standard services."""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

MANAGED = ("-p", "node.reliability:=reliable", "-p", "node.autostart:=false")


def change(robot, label: str) -> bool:
    request = ChangeState.Request()
    request.transition.label = label
    return robot.call(ChangeState, "/mastsam/change_state", request, timeout_s=60.0).success


def state(robot) -> str:
    return robot.call(GetState, "/mastsam/get_state", GetState.Request()).current_state.label


def test_every_transition_does_what_its_name_says(start_node, robot, picture):
    node = start_node(*MANAGED, ready=False)
    robot.listen(Image, "/mastsam/labels")
    robot.listen(DiagnosticArray, "/diagnostics")
    robot.listen(TransitionEvent, "/mastsam/transition_event")
    images = robot.publisher(Image, "/image", wait=False)

    assert state(robot) == "unconfigured"
    robot.wait_until(lambda: robot.counts().get("model state") == "unconfigured")
    assert robot.counts()["model state"] == "unconfigured" and "matcher" not in robot.counts()
    answer = robot.call(Trigger, "/mastsam/reset", Trigger.Request())
    assert not answer.success and "configure the node first" in answer.message
    assert not change(robot, "activate"), "there is no model yet"

    assert change(robot, "configure") and state(robot) == "inactive"
    assert images.get_subscription_count() == 0 and "ready: " not in node.log
    robot.wait_until(lambda: robot.counts().get("matcher") == "flow")
    assert robot.counts()["model state"] == "inactive"
    assert robot.call(Trigger, "/mastsam/reset", Trigger.Request()).success

    assert change(robot, "activate") and state(robot) == "active"
    node.wait_for("ready: matcher flow, segmenter regions, device cpu; waiting for images on /image")
    assert robot.wait_until(images.get_subscription_count)

    def send(number: int) -> set[int]:
        images.publish(robot.image(picture(number), number * 1_000_000_000))
        message = robot.wait("/mastsam/labels", number)[number - 1]
        return set(np.frombuffer(message.data, "<u2").tolist()) - {0}

    robot.wait_until(lambda: robot.node.count_publishers("/mastsam/labels"))
    first = send(1)
    assert first and send(2) & first

    assert change(robot, "deactivate") and state(robot) == "inactive"
    assert robot.wait_until(lambda: images.get_subscription_count() == 0)
    images.publish(robot.image(picture(), 3_000_000_000))
    assert change(robot, "activate") and robot.wait_until(images.get_subscription_count)
    assert send(3) & first, "the ids go on after a pause"

    assert change(robot, "deactivate") and change(robot, "cleanup") and state(robot) == "unconfigured"
    assert robot.wait_until(lambda: robot.counts()["model state"] == "unconfigured")
    assert change(robot, "configure") and change(robot, "activate")
    assert robot.wait_until(images.get_subscription_count)
    images.publish(robot.image(picture(), 1_000_000_000))
    assert robot.wait("/mastsam/labels", 4), "to the new pipeline any stamp is the first one"
    assert "stamps jumped back" not in node.log
    counts = robot.settled_counts(4)
    assert counts["received"] == counts["processed"] == 4, "the image of the pause was not received"

    assert change(robot, "shutdown") and state(robot) == "finalized"
    robot.wait_until(lambda: robot.received["/mastsam/transition_event"][-1].goal_state.label == "finalized")
    labels = [event.goal_state.label for event in robot.received["/mastsam/transition_event"]]
    stable = ["inactive", "active", "inactive", "active", "inactive", "unconfigured", "inactive", "active", "finalized"]
    assert [label for label in labels if label in {*stable}] == stable
    assert node.end(signal.SIGINT) == 0 and "Traceback" not in node.log, node.log


def test_what_does_not_load_fails_configure_in_one_line_and_the_node_stays(start_node, robot):
    arguments = ("-p", "matcher.name:=mast3r", "-p", "mast3r.checkpoint:=/no/such.pth")
    node = start_node(*MANAGED, *arguments, ready=False)
    for _ in range(2):
        assert not change(robot, "configure")
        assert state(robot) == "unconfigured"
    node.wait_for("configure failed: ")
    said = [line for line in node.lines if "configure failed: " in line]
    assert len(said) == 2 and all("/no/such.pth" in line for line in said)
    assert "Traceback" not in node.log and node.process.poll() is None
    assert node.end(signal.SIGTERM) == 0 and "Traceback" not in node.log, node.log


def test_a_wrong_topic_fails_activate_in_one_line(start_node, robot):
    node = start_node(*MANAGED, "-p", "node.image_topic:=no topic", ready=False)
    assert change(robot, "configure")
    assert not change(robot, "activate") and state(robot) == "inactive"
    node.wait_for("activate failed: node.image_topic 'no topic' is not a topic name")
    assert change(robot, "cleanup") and state(robot) == "unconfigured"
    assert node.end() == 0 and "Traceback" not in node.log, node.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_configures_ends_it(start_node, robot, number):
    node = start_node(*MANAGED, ready=False)
    client = robot.node.create_client(ChangeState, "/mastsam/change_state")
    assert client.wait_for_service(30)
    request = ChangeState.Request()
    request.transition.label = "configure"
    client.call_async(request)
    node.end(number)
    assert "Traceback" not in node.log, node.log
