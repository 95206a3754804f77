"""The node's publishers: labels, instances, points, overlay and events, with the input's stamp and frame_id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Point, Vector3
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from mastsam_ros.msg import Instance, InstanceArray, TrackEvent
from mastsam_ros.ros.conversions import cloud_message, labels_message, rgb_message
from mastsam_ros.ros.qos import output_qos
from mastsam_ros.types import EventKind, FrameResult, Track, TrackState
from mastsam_ros.types import TrackEvent as Event
from mastsam_ros.viz import overlay

_STATES = {
    TrackState.TENTATIVE: Instance.STATE_TENTATIVE,
    TrackState.TRACKED: Instance.STATE_TRACKED,
    TrackState.LOST: Instance.STATE_LOST,
}
_KINDS = {
    EventKind.BORN: TrackEvent.KIND_BORN,
    EventKind.LOST: TrackEvent.KIND_LOST,
    EventKind.REVIVED: TrackEvent.KIND_REVIVED,
    EventKind.MERGED: TrackEvent.KIND_MERGED,
    EventKind.REMOVED: TrackEvent.KIND_REMOVED,
    EventKind.RESET: TrackEvent.KIND_RESET,
}


class Outputs:
    """Publishes results. Large messages are made only while somebody subscribes to them."""

    def __init__(self, node: Node) -> None:
        self._labels = node.create_publisher(Image, "~/labels", output_qos())
        self._instances = node.create_publisher(InstanceArray, "~/instances", output_qos())
        self._points = node.create_publisher(PointCloud2, "~/points", output_qos())
        self._overlay = node.create_publisher(Image, "~/overlay", output_qos())
        # One frame can tell of hundreds of tracks, and none of it may be overtaken.
        self._events = node.create_publisher(TrackEvent, "~/events", output_qos(depth=1000))

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


def instances_message(result: FrameResult, header: Header) -> InstanceArray:
    """Every track of a result, by id."""
    height, width = result.labels.shape
    return InstanceArray(
        header=header, width=width, height=height, instances=[instance_message(track) for track in result.tracks]
    )


def instance_message(track: Track) -> Instance:
    """One track."""
    x, y, width, height = track.box_xywh
    message = Instance(
        id=track.id,
        state=_STATES[track.state],
        score=float(track.score),
        area=track.area,
        box_x=x,
        box_y=y,
        box_width=width,
        box_height=height,
        age=track.age,
        has_position=track.position is not None,
    )
    if track.position is not None:
        message.position = Point(x=track.position[0], y=track.position[1], z=track.position[2])
    if track.size is not None:
        message.size = Vector3(x=track.size[0], y=track.size[1], z=track.size[2])
    return message


def event_message(event: Event, header: Header) -> TrackEvent:
    """One change in the set of tracks."""
    return TrackEvent(header=header, kind=_KINDS[event.kind], id=event.id, other_id=event.other_id, reason=event.reason)
