"""Results as messages, made the same way for the node's topics and for bags that are written without ROS."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.transforms import quaternion_xyzw
from mastsam_ros.io import point_cloud2
from mastsam_ros.types import (
    EventKind,
    FrameResult,
    InputError,
    LabelledCloud,
    MapInstance,
    PoseState,
    Track,
    TrackEvent,
    TrackState,
    WorldMap,
)

LABELS, POINTS = "sensor_msgs/msg/Image", "sensor_msgs/msg/PointCloud2"
INSTANCES, EVENTS = "mastsam_ros/msg/InstanceArray", "mastsam_ros/msg/TrackEvent"
MAP_INSTANCES = "mastsam_ros/msg/MapInstanceArray"
ODOMETRY, TRANSFORMS = "nav_msgs/msg/Odometry", "tf2_msgs/msg/TFMessage"
UNSCALED = "_unscaled"
"""Added to the name of the map's frame where lengths have no scale: nothing metric can be mixed with it by mistake."""

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


_DEVIATION_M, _DEVIATION_RAD = 0.02, 0.02
"""Standard deviation that own odometry from depth is told with, to each axis."""
_UNMEASURED = 1e6
"""Variance of what is not measured, m2/s2 and rad2/s2: fusing filters then give it no weight."""


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

    def map_header(self, world: WorldMap, stamp_ns: int, map_frame: str) -> Any:
        """Header of the map's messages: the stamp of the last frame entered, and the map's frame."""
        return self.header(stamp_ns, map_frame if world.cloud.metric else map_frame + UNSCALED)

    def map_instances(self, world: WorldMap, header: Any) -> Any:
        """The instances of the map, by id, as MapInstanceArray."""
        instances = [self._map_instance(instance) for instance in world.instances]
        return self._class(MAP_INSTANCES)(header=header, metric=world.cloud.metric, instances=instances)

    def points(self, cloud: LabelledCloud, stamp_ns: int, frame_id: str) -> Any:
        """A frame's cloud in the camera's frame; in one of another name where its lengths are not metres."""
        return self.cloud(cloud, self.header(stamp_ns, frame_id if cloud.metric else frame_id + UNSCALED))

    def odometry(self, result: FrameResult, stamp_ns: int, map_frame: str, frame_id: str) -> Any:
        """The camera's pose in the map's frame as Odometry; both frames have other names where it is up to scale.

        Covariance: of own odometry, what it is measured to stay within on generated rooms, the same for every frame; of
        poses from outside it is not known, all zeros. The twist is not measured: zeros with a variance that says so.
        Raises InputError if the pose is not known.
        """
        T_map_camera = result.T_world_camera
        if T_map_camera is None:
            raise InputError("a result without a pose has no odometry")
        suffix = UNSCALED if result.pose is PoseState.UP_TO_SCALE else ""
        header, child_frame_id = self.header(stamp_ns, map_frame + suffix), frame_id + suffix
        deviation = [_DEVIATION_M] * 3 + [_DEVIATION_RAD] * 3 if result.pose is PoseState.OWN else [0.0] * 6
        covariance, unmeasured = np.diag(np.square(deviation)).ravel(), (_UNMEASURED * np.eye(6)).ravel()
        pose = self._class("geometry_msgs/msg/Pose")(
            position=self._vector("Point", T_map_camera[:3, 3]), orientation=self._orientation(T_map_camera)
        )
        twist = self._class("geometry_msgs/msg/Twist")(
            linear=self._vector("Vector3", (0, 0, 0)), angular=self._vector("Vector3", (0, 0, 0))
        )
        return self._class(ODOMETRY)(
            header=header,
            child_frame_id=child_frame_id,
            pose=self._class("geometry_msgs/msg/PoseWithCovariance")(pose=pose, covariance=covariance),
            twist=self._class("geometry_msgs/msg/TwistWithCovariance")(twist=twist, covariance=unmeasured),
        )

    def transforms(self, T_parent_child: npt.NDArray[np.float64], header: Any, child_frame_id: str) -> Any:
        """One transform (4, 4), child into the header's frame, as TFMessage."""
        transform = self._class("geometry_msgs/msg/Transform")(
            translation=self._vector("Vector3", T_parent_child[:3, 3]), rotation=self._orientation(T_parent_child)
        )
        stamped = self._class("geometry_msgs/msg/TransformStamped")(
            header=header, child_frame_id=child_frame_id, transform=transform
        )
        return self._class(TRANSFORMS)(transforms=[stamped])

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
            position=self._vector("Point", track.position or (0, 0, 0)),
            size=self._vector("Vector3", track.size or (0, 0, 0)),
        )

    def _map_instance(self, instance: MapInstance) -> Any:
        seconds, nanoseconds = divmod(instance.last_seen_ns, 1_000_000_000)
        return self._class("mastsam_ros/msg/MapInstance")(
            id=instance.id,
            label=instance.label,
            position=self._vector("Point", instance.position),
            size=self._vector("Vector3", instance.size),
            voxels=instance.voxels,
            views=instance.views,
            last_seen=self._class("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds),
        )

    def _vector(self, kind: str, values: Iterable[float]) -> Any:
        """A geometry_msgs Point or Vector3."""
        x, y, z = (float(value) for value in values)
        return self._class(f"geometry_msgs/msg/{kind}")(x=x, y=y, z=z)

    def _orientation(self, T: npt.NDArray[np.float64]) -> Any:
        x, y, z, w = quaternion_xyzw(T[:3, :3]).tolist()
        return self._class("geometry_msgs/msg/Quaternion")(x=x, y=y, z=z, w=w)

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
