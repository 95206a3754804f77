"""Frames as a rosbag2, on the topics of a camera: what the player sends to the node. Needs no ROS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.transforms import pose_matrix, quaternion_xyzw
from mastsam_ros.io.encodings import metres_to_millimetres
from mastsam_ros.types import Frame, InputError

TOPICS = {
    "image": "/camera/color/image_raw",
    "depth": "/camera/depth/image_raw",
    "camera_info": "/camera/color/camera_info",
    "odometry": "/camera/odometry",
    "truth": "/truth/instances",
}
"""Image rgb8, depth 16UC1 millimetres, CameraInfo, the camera's pose in the world, instance ids mono16."""
_TYPES = {"camera_info": "sensor_msgs/msg/CameraInfo", "odometry": "nav_msgs/msg/Odometry"}
_IMAGE = "sensor_msgs/msg/Image"


class FrameBag:
    """Writes frames to a bag folder (mcap); a topic appears with the first frame that has something for it.

    Raises InputError if `folder` exists.
    """

    def __init__(self, folder: str | Path) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        folder = Path(folder)
        if folder.exists():
            raise InputError(f"cannot write a bag to {folder}: it exists; remove it or choose another name")
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> FrameBag:
        self._writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, frame: Frame, instance: npt.NDArray[np.uint16] | None = None) -> None:
        """Writes a frame, and its true instances (H, W) uint16; log time and stamp are the frame's stamp_ns."""
        for name, message in self._messages(frame, instance).items():
            kind = _TYPES.get(name, _IMAGE)
            if name not in self._connections:
                self._connections[name] = self._writer.add_connection(TOPICS[name], kind, typestore=self._store)
            raw = self._store.serialize_cdr(message, kind)
            self._writer.write(self._connections[name], frame.stamp_ns, raw)

    def _messages(self, frame: Frame, instance: npt.NDArray[np.uint16] | None) -> dict[str, Any]:
        """In the order in which a driver sends them: the image last, so that its partners are there."""
        types = self._store.types
        stamp = types["builtin_interfaces/msg/Time"](*divmod(frame.stamp_ns, 1_000_000_000))
        header = types["std_msgs/msg/Header"](stamp, frame.frame_id)
        messages: dict[str, Any] = {}
        if frame.K is not None:
            region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
            P = np.hstack([frame.K, np.zeros((3, 1))])
            messages["camera_info"] = types["sensor_msgs/msg/CameraInfo"](
                header, frame.height, frame.width, "plumb_bob", np.zeros(5),
                frame.K.ravel(), np.eye(3).ravel(), P.ravel(), 0, 0, region,
            )  # fmt: skip
        if frame.T_world_camera is not None:
            messages["odometry"] = self._odometry(stamp, frame.frame_id, frame.T_world_camera)
        if frame.depth is not None:
            messages["depth"] = self._image(header, metres_to_millimetres(frame.depth), "16UC1")
        if instance is not None:
            messages["truth"] = self._image(header, instance, "mono16")
        messages["image"] = self._image(header, frame.image, "rgb8")
        return messages

    def _image(self, header: Any, pixels: npt.NDArray[Any], encoding: str) -> Any:
        height, width = pixels.shape[:2]
        data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
        return self._store.types[_IMAGE](header, height, width, encoding, 0, len(data) // height, data)

    def _odometry(self, stamp: Any, frame_id: str, T_world_camera: npt.NDArray[np.float64]) -> Any:
        types = self._store.types
        x, y, z = (float(value) for value in T_world_camera[:3, 3])
        turned = types["geometry_msgs/msg/Quaternion"](*quaternion_xyzw(T_world_camera[:3, :3]).tolist())
        pose = types["geometry_msgs/msg/Pose"](types["geometry_msgs/msg/Point"](x, y, z), turned)
        zero = types["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
        return types["nav_msgs/msg/Odometry"](
            types["std_msgs/msg/Header"](stamp, "world"),
            frame_id,
            types["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36)),
            types["geometry_msgs/msg/TwistWithCovariance"](types["geometry_msgs/msg/Twist"](zero, zero), np.zeros(36)),
        )


def read_frames(folder: str | Path) -> Iterator[tuple[Frame, npt.NDArray[np.uint16] | None]]:
    """The frames of a FrameBag with everything it holds, and the true instances (H, W) uint16 where there are any.

    Raises InputError if the bag cannot be read.
    """
    from rosbags.highlevel import AnyReader, AnyReaderError

    names = {topic: name for name, topic in TOPICS.items()}
    try:
        with AnyReader([Path(folder)]) as reader:
            parts: dict[str, Any] = {}
            connections = [connection for connection in reader.connections if connection.topic in names]
            for connection, stamp_ns, raw in reader.messages(connections):
                message: Any = reader.deserialize(raw, connection.msgtype)
                name = names[connection.topic]
                parts[name] = message
                if name == "image":  # the last of its frame
                    yield _frame(stamp_ns, parts), _pixels(parts["truth"], np.uint16) if "truth" in parts else None
                    parts = {}
    except (AnyReaderError, OSError) as error:
        raise InputError(f"cannot read the bag {folder}: {error}") from error


def _frame(stamp_ns: int, parts: dict[str, Any]) -> Frame:
    image = parts["image"]
    depth = _pixels(parts["depth"], np.uint16) / np.float32(1000) if "depth" in parts else None
    K = parts["camera_info"].k.reshape(3, 3) if "camera_info" in parts else None
    T_world_camera = None
    if "odometry" in parts:
        T_world_camera = pose_matrix(parts["odometry"].pose.pose)
    pixels = image.data.reshape(image.height, image.width, 3)
    return Frame(pixels, stamp_ns, image.header.frame_id, K, depth, T_world_camera)


def _pixels(message: Any, kind: type[np.generic]) -> Any:
    return message.data.view(kind).reshape(message.height, message.width)
