"""What is missing is counted: images that DDS lost, and those overwritten in its queue before anybody saw them."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from mastsam_ros.ros.diagnostics import Statistics
from mastsam_ros.ros.inputs import Inputs, MessageInfo
from mastsam_ros.ros.log import Complaints
from mastsam_ros.settings import Settings


@pytest.fixture
def node(ros_domain):
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("listener", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.mark.skipif(MessageInfo is None, reason="this ROS does not number messages")
def test_images_that_were_overwritten_in_the_queue_are_counted_as_lost(node, robot, picture):
    settings = Settings().updated({"node.reliability": "reliable", "node.queue_depth": 3}).node
    statistics, delivered = Statistics(), []
    inputs = Inputs(node, settings, statistics, Complaints(node.get_logger()), delivered.append)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    images = robot.node.create_publisher(Image, "/image", QoSProfile(depth=50))
    assert robot.wait_until(images.get_subscription_count)

    def receive(count: int) -> None:
        for _ in range(400):
            if statistics.counts.received >= count:
                return
            executor.spin_once(timeout_sec=0.05)
        raise AssertionError(statistics.counts)

    images.publish(robot.image(picture(), 0))
    receive(1)
    for number in range(1, 21):  # nobody looks meanwhile
        images.publish(robot.image(picture(), number))
    robot.wait_until(lambda: False, 1.0)
    receive(4)
    images.publish(robot.image(picture(), 21))
    receive(5)
    counts = statistics.counts
    assert counts.received == len(delivered) and counts.received + counts.lost == 22, counts
    assert counts.lost >= 10
    inputs.close()
