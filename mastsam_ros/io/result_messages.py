"""Results as messages, made the same way for the node's topics and for bags that are written without ROS."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros.io import point_cloud2
from mastsam_ros.types import EventKind, FrameResult, LabelledCloud, Track, TrackEvent, TrackState

LABELS, POINTS = "sensor_msgs/msg/Image", "sensor_msgs/msg/PointCloud2"
INSTANCES, EVENTS = "mastsam_ros/msg/InstanceArray", "mastsam_ros/msg/TrackEvent"

STATES = {TrackState.TENTATIVE: 1, TrackState.TRACKED: 2, TrackState.LOST: 3}
KINDS = {
    EventKind.BORN: 1,
    EventKind.LOST: 2,
    EventKind.REVIVED: 3,
    EventKind.MERGED: 4,
    EventKind.REMOVED: 5,
    EventKind.RESET: 6,
    EventKind.RENAMED: 7,
}
"""The constants of msg/Instance.msg and msg/TrackEvent.msg."""


class ResultMessages:
    """Fills messages in.

    message_class: the class of `package/msg/Name`, which takes its fields by name (rclpy's and rosbags' do).
    octets: (N,) uint8 in the form that such a class takes for uint8[].
    """

    def __init__(
        self,
        message_class: Callable[[str], Any],
        octets: Callable[[npt.NDArray[np.uint8]], Any] = lambda pixels: pixels,
    ) -> None:
        self._class = cache(message_class)
        self._octets = octets

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """std_msgs/Header."""
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        stamp = self._class("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
        return self._class("std_msgs/msg/Header")(stamp=stamp, frame_id=frame_id)

    def labels(self, labels: npt.NDArray[np.uint16], header: Any) -> Any:
        """A label image (H, W) uint16 as mono16."""
        height, width = labels.shape
        return self._image(header, height, width, "mono16", 2 * width, labels)

    def rgb(self, image: npt.NDArray[np.uint8], header: Any) -> Any:
        """An RGB image (H, W, 3) uint8 as rgb8."""
        height, width = image.shape[:2]
        return self._image(header, height, width, "rgb8", 3 * width, image)

    def cloud(self, cloud: LabelledCloud, header: Any) -> Any:
        """A labelled cloud as PointCloud2 with x, y, z, rgb, instance and confidence."""
        field = self._class("sensor_msgs/msg/PointField")
        fields = [field(name=f.name, offset=f.offset, datatype=f.datatype, count=f.count) for f in point_cloud2.FIELDS]
        return self._class(POINTS)(
            header=header,
            height=1,
            width=len(cloud),
            fields=fields,
            is_bigendian=False,
            point_step=point_cloud2.POINT_STEP,
            row_step=point_cloud2.POINT_STEP * len(cloud),
            data=self._octets(point_cloud2.pack(cloud)),
            is_dense=True,
        )

    def instances(self, result: FrameResult, header: Any) -> Any:
        """Every track of a result, by id, as InstanceArray."""
        height, width = result.labels.shape
        instances = [self._instance(track) for track in result.tracks]
        return self._class(INSTANCES)(header=header, width=width, height=height, instances=instances)

    def event(self, event: TrackEvent, header: Any) -> Any:
        """One change in the set of tracks as TrackEvent."""
        return self._class(EVENTS)(
            header=header,
            kind=KINDS[event.kind],
            id=event.id,
            other_id=event.other_id,
            evidence=float(event.evidence),
            reason=event.reason,
        )

    def _instance(self, track: Track) -> Any:
        left, top, width, height = track.box_xywh
        position, size = (
            {axis: float(value) for axis, value in zip("xyz", values or (0, 0, 0), strict=True)}
            for values in (track.position, track.size)
        )
        return self._class("mastsam_ros/msg/Instance")(
            id=track.id,
            state=STATES[track.state],
            label=track.label,
            score=float(track.score),
            area=track.area,
            box_x=left,
            box_y=top,
            box_width=width,
            box_height=height,
            age=track.age,
            has_position=track.position is not None,
            position=self._class("geometry_msgs/msg/Point")(**position),
            size=self._class("geometry_msgs/msg/Vector3")(**size),
        )

    def _image(self, header: Any, height: int, width: int, encoding: str, step: int, pixels: npt.NDArray[Any]) -> Any:
        return self._class("sensor_msgs/msg/Image")(
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=int(sys.byteorder == "big"),
            step=step,
            data=self._octets(np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)),
        )
