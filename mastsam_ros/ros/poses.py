"""Poses from outside, and /tf: where a camera was at an image's stamp, and what is told to the tree of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from mastsam_ros.geometry.transforms import Transforms, pose_matrix, transform
from mastsam_ros.ros.conversions import stamp_nanoseconds, transforms_message
from mastsam_ros.ros.interface import TF
from mastsam_ros.ros.log import Complaints
from mastsam_ros.ros.message_types import message_class
from mastsam_ros.ros.outputs import create_publisher
from mastsam_ros.ros.qos import output_qos
from mastsam_ros.settings import NodeSettings
from mastsam_ros.types import InputError, SettingsError

FROM_TF = "tf"


class Poses:
    """The node's tree of frames, shared by its cameras. Subscribes and publishes only what the settings ask for.

    Raises SettingsError for a topic name that is none, MissingPackageError where the message types are not installed.
    """

    def __init__(self, node: Node, settings: NodeSettings, complaints: Complaints) -> None:
        self.settings = settings
        self._complaints = complaints
        self._transforms = Transforms()
        self._by_odometry: set[str] = set()
        self._tf = create_publisher(node, TF) if settings.publish_tf else None
        if settings.pose_topic or (settings.publish_tf and settings.tf_child_frame):
            kind = message_class(TF.type)
            node.create_subscription(kind, "/tf", self._on_tf, output_qos(TF.depth))
            node.create_subscription(kind, "/tf_static", self._on_tf_static, output_qos(TF.depth, latched=True))
        if self.given and settings.pose_topic != FROM_TF:
            # Best effort takes what reliable publishers send, too.
            qos = QoSProfile(depth=TF.depth, reliability=ReliabilityPolicy.BEST_EFFORT)
            try:
                node.create_subscription(
                    message_class("nav_msgs/msg/Odometry"), settings.pose_topic, self._on_odometry, qos
                )
            except InvalidTopicNameException as error:
                reason = " ".join(str(error).split())
                raise SettingsError(
                    f"node.pose_topic '{settings.pose_topic}' is neither tf nor a topic name: {reason}"
                ) from error

    @property
    def given(self) -> bool:
        """True if poses come from outside."""
        return bool(self.settings.pose_topic)

    def clear(self) -> None:
        """Time has jumped back: what is known of moving frames is of another time."""
        self._transforms.clear()

    def at(self, frame_id: str, stamp_ns: int) -> npt.NDArray[np.float64]:
        """`T_map_camera` (4, 4) as it is given from outside. Raises InputError that says what is missing."""
        return self._look_up(self.settings.map_frame, frame_id, stamp_ns)

    def between(self, target: str, source: str, stamp_ns: int) -> npt.NDArray[np.float64]:
        """`T_target_source` (4, 4) from /tf. Raises InputError that says what is missing."""
        return self._look_up(target, source, stamp_ns)

    def tell(self, T_map_camera: npt.NDArray[np.float64], header: Any, frame_id: str) -> None:
        """Publishes own odometry on /tf where asked for. header: of the map's frame, with the image's stamp.

        Raises InputError where the frame to be told of is not connected with the camera's.
        """
        if self._tf is None or self.given:
            return
        child, T = self.settings.tf_child_frame or frame_id, T_map_camera
        if child != frame_id:
            T = T @ self._look_up(frame_id, child, stamp_nanoseconds(header.stamp))
        self._tf.publish(transforms_message(T, header, child))

    def _look_up(self, target: str, source: str, stamp_ns: int) -> npt.NDArray[np.float64]:
        tolerance_s = self.settings.pose_tolerance_ms / 1e3
        return self._transforms.look_up(target, source, stamp_ns, round(tolerance_s * 1e9), wait_s=tolerance_s)

    def _on_tf(self, message: Any) -> None:
        for stamped in message.transforms:
            if stamped.child_frame_id.lstrip("/") not in self._by_odometry:
                self._put(stamped, stamp_nanoseconds(stamped.header.stamp))

    def _on_tf_static(self, message: Any) -> None:
        for stamped in message.transforms:
            self._put(stamped, None)

    def _put(self, stamped: Any, stamp_ns: int | None) -> None:
        move, turn = stamped.transform.translation, stamped.transform.rotation
        try:
            T = transform((move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w))
            self._transforms.put(stamped.header.frame_id, stamped.child_frame_id, T, stamp_ns)
        except InputError as error:
            self._complaints.warn("transform", f"transform of '{stamped.child_frame_id}' dropped: {error}")

    def _on_odometry(self, message: Any) -> None:
        child = message.child_frame_id
        try:
            T = pose_matrix(message.pose.pose)
            self._by_odometry.add(child.lstrip("/"))
            self._transforms.put(message.header.frame_id, child, T, stamp_nanoseconds(message.header.stamp))
        except InputError as error:
            self._complaints.warn("odometry", f"{self.settings.pose_topic}: pose dropped: {error}")
