"""What goes wrong in the model: a frame is dropped and told of, or the node ends with one line."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")

import rclpy
import torch
from rclpy.executors import SingleThreadedExecutor

from mastsam_ros.types import IdsExhaustedError, ModelError


@pytest.fixture
def make_node(ros_domain):
    from mastsam_ros.ros.node import MastsamNode

    nodes = []
    rclpy.init(args=["--ros-args", "-p", "node.reliability:=reliable"])
    executor = SingleThreadedExecutor()

    def make(create):
        nodes.append(MastsamNode(create))
        executor.add_node(nodes[-1])
        return executor

    yield make
    for node in nodes:
        assert node.close()
        node.destroy_node()
    rclpy.shutdown()


def spin_until(executor, condition, count=400):
    for _ in range(count):
        if condition():
            return
        executor.spin_once(timeout_sec=0.05)
    raise AssertionError("it did not happen")


def test_a_step_that_fails_costs_one_frame(make_node, robot, picture):
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import Image

    from mastsam_ros.msg import TrackEvent
    from mastsam_ros.pipeline import create_mastsam

    faults = [torch.cuda.OutOfMemoryError("CUDA out of memory"), IdsExhaustedError("no ids"), ZeroDivisionError("bug")]
    pipelines = []

    def create(settings, like, ids, world):
        mastsam = create_mastsam(settings, like, ids, world)
        set_frame = mastsam.segmenter.set_frame

        def failing_set_frame(frame, matches):
            if faults and frame.stamp_ns >= 2_000_000_000:
                raise faults.pop(0)
            set_frame(frame, matches)

        mastsam.segmenter.set_frame = failing_set_frame
        pipelines.append(mastsam)
        return mastsam

    executor = make_node(create)
    robot.listen(Image, "/mastsam/labels")
    robot.listen(TrackEvent, "/mastsam/events")
    robot.listen(DiagnosticArray, "/diagnostics")
    images = robot.publisher(Image, "/image", wait=False)
    spin_until(executor, images.get_subscription_count)
    spin_until(executor, lambda: len(robot.received["/diagnostics"]) > 0)
    for number, stamp in enumerate((1, 2, 3, 4, 5)):  # the three in the middle fail
        images.publish(robot.image(picture(), stamp * 1_000_000_000))
        spin_until(
            executor,
            lambda wanted=number + 1: (
                robot.counts()["received"] == str(wanted)
                and int(robot.counts()["processed"]) + int(robot.counts()["failed"]) == wanted
            ),
        )
    assert robot.counts()["failed"] == "3" and robot.counts()["processed"] == "2"
    before, after = (set(np.frombuffer(m.data, "<u2").tolist()) - {0} for m in robot.wait("/mastsam/labels", 2))
    assert before and before & after, "the ids outlive what failed between them"
    assert not [event for event in robot.received["/mastsam/events"] if event.kind == TrackEvent.KIND_RESET]


def test_a_result_that_cannot_be_published_costs_one_frame(make_node, robot, picture):
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import Image

    from mastsam_ros.pipeline import create_mastsam

    executor = make_node(create_mastsam)
    outputs = executor.get_nodes()[0]._cameras[0].outputs
    publish, faults = outputs.publish, [IndexError("bug")]

    def failing_publish(*arguments):
        if faults:
            raise faults.pop()
        publish(*arguments)

    outputs.publish = failing_publish
    robot.listen(DiagnosticArray, "/diagnostics")
    images = robot.publisher(Image, "/image", wait=False)
    spin_until(executor, images.get_subscription_count)
    for number, outcome in ((1, "failed"), (2, "processed")):
        images.publish(robot.image(picture(), number * 1_000_000_000))
        spin_until(executor, lambda outcome=outcome: robot.counts().get(outcome) == "1")


@pytest.mark.parametrize("error", [ModelError("weights are damaged"), ImportError("no module named 'sam'")])
def test_a_model_that_does_not_load_ends_the_node(make_node, error):
    def create(settings, like, ids, world):
        raise error

    executor = make_node(create)
    with pytest.raises(ModelError, match=str(error)):
        spin_until(executor, lambda: False, 100)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_one_line(start_node):
    node = start_node("-p", "device:=cuda", ready=False)
    assert node.process.wait(40) == 1
    node.end()
    assert [line for line in node.lines if line.startswith("mastsam_node: device is 'cuda'")], node.log
    assert "Traceback" not in node.log
