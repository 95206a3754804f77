"""The node's publishers: labels, instances, points, overlay and events, with the input's stamp and frame_id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from mastsam_ros.msg import InstanceArray, TrackEvent
from mastsam_ros.ros.conversions import (
    cloud_message,
    event_message,
    instances_message,
    labels_message,
    rgb_message,
)
from mastsam_ros.ros.qos import output_qos
from mastsam_ros.types import FrameResult
from mastsam_ros.viz import overlay


class Outputs:
    """Publishes one camera's results. Large messages are made only while somebody subscribes to them.

    prefix: what the topics' names begin with, `~/` or `~/NAME/`.
    """

    def __init__(self, node: Node, prefix: str) -> None:
        self._labels = node.create_publisher(Image, f"{prefix}labels", output_qos())
        self._instances = node.create_publisher(InstanceArray, f"{prefix}instances", output_qos())
        self._points = node.create_publisher(PointCloud2, f"{prefix}points", output_qos())
        self._overlay = node.create_publisher(Image, f"{prefix}overlay", output_qos())
        # One frame can tell of hundreds of tracks, and none of it may be overtaken.
        self._events = node.create_publisher(TrackEvent, f"{prefix}events", output_qos(depth=1000))

    def publish(self, result: FrameResult, image: npt.NDArray[np.uint8], header: Header) -> None:
        """One frame's result. image: (H, W, 3) uint8 RGB, what the overlay is painted on."""
        for event in result.events:
            self._events.publish(event_message(event, header))
        self._instances.publish(instances_message(result, header))
        if self._labels.get_subscription_count():
            self._labels.publish(labels_message(result.labels, header))
        if result.points is not None and self._points.get_subscription_count():
            self._points.publish(cloud_message(result.points, header))
        if self._overlay.get_subscription_count():
            self._overlay.publish(rgb_message(overlay(image, result.labels), header))
