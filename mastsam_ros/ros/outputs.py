"""The node's publishers: what each frame gives, with the input's stamp and frame_id, and the map of the world."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSPolicyKind
from std_msgs.msg import Header

from mastsam_ros.ros.conversions import (
    cloud_message,
    event_message,
    instances_message,
    labels_message,
    map_header,
    map_instances_message,
    odometry_message,
    points_message,
    rgb_message,
    stamp_nanoseconds,
)
from mastsam_ros.ros.interface import MAP, OUTPUTS, Topic
from mastsam_ros.ros.log import Complaints
from mastsam_ros.ros.message_types import message_class
from mastsam_ros.ros.qos import incompatible_subscriber_warning, output_qos
from mastsam_ros.types import FrameResult, WorldMap
from mastsam_ros.viz import overlay

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks


class Outputs:
    """Publishes one camera's results. Large messages are made only while somebody subscribes to them.

    prefix: what the topics' names begin with, `~/` or `~/NAME/`. map_prefix: the same of the map's, or None where
    another camera publishes it. map_frame: the frame of the odometry and the map.
    """

    def __init__(self, node: Node, prefix: str, map_prefix: str | None, map_frame: str, complaints: Complaints) -> None:
        prefixes = {name: map_prefix if name in MAP else prefix for name in OUTPUTS}
        self._publishers = {
            name: create_publisher(node, OUTPUTS[name], where, complaints)
            for name, where in prefixes.items()
            if where is not None
        }
        self._map_frame = map_frame
        self._map_listeners = 0
        self._map_published_s = -np.inf

    def publish(self, result: FrameResult, image: npt.NDArray[np.uint8], header: Header) -> None:
        """One frame's result. image: (H, W, 3) uint8 RGB, what the overlay is painted on."""
        stamp_ns = stamp_nanoseconds(header.stamp)
        for event in result.events:
            self._publish("events", event_message(event, header))
        self._publish("instances", instances_message(result, header))
        if self._heard("labels"):
            self._publish("labels", labels_message(result.labels, header))
        if result.points is not None and self._heard("points"):
            self._publish("points", points_message(result.points, stamp_ns, header.frame_id))
        if self._heard("overlay"):
            names = {track.id: track.label for track in result.tracks if track.label}
            self._publish("overlay", rgb_message(overlay(image, result.labels, names=names), header))
        if result.T_world_camera is not None:
            self._publish("odometry", odometry_message(result, stamp_ns, self._map_frame, header.frame_id))

    def map_is_due(self, interval_s: float) -> bool:
        """True if somebody listens to the map, and it was not published for so long or not since they came."""
        listeners = sum(self._heard(name) for name in MAP)
        new, self._map_listeners = listeners > self._map_listeners, listeners
        return listeners > 0 and (new or time.monotonic() - self._map_published_s >= interval_s)

    def publish_map(self, world: WorldMap, stamp_ns: int) -> None:
        """The map as it is after the frame of this stamp."""
        header = map_header(world, stamp_ns, self._map_frame)
        self._publish("map_instances", map_instances_message(world, header))
        if self._heard("map"):
            self._publish("map", cloud_message(world.cloud, header))
        self._map_published_s = time.monotonic()

    def _heard(self, name: str) -> int:
        publisher = self._publishers.get(name)
        return int(publisher.get_subscription_count()) if publisher is not None else 0

    def _publish(self, name: str, message: Any) -> None:
        self._publishers[name].publish(message)


def create_publisher(node: Node, topic: Topic, prefix: str = "", complaints: Complaints | None = None) -> Publisher:
    """The publisher that the table of topics declares. complaints: says that a subscriber hears nothing; without, rclpy
    does, once for each."""
    name = topic.name if topic.name.startswith("/") else prefix + topic.name
    events = PublisherEventCallbacks()
    if complaints is not None:

        def on_incompatible_qos(event: Any) -> None:
            policy = QoSPolicyKind(int(event.last_policy_kind))
            complaints.warn(f"qos {name}", incompatible_subscriber_warning(name, policy, topic.latched))

        events = PublisherEventCallbacks(incompatible_qos=on_incompatible_qos)
    qos = output_qos(topic.depth, topic.latched)
    return node.create_publisher(message_class(topic.type), name, qos, event_callbacks=events)
