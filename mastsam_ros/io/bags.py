"""Frames from a rosbag2: the image topic, its intrinsics and the depth that belongs to each image. Needs no ROS."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros.io.bag_poses import BagPoses
from mastsam_ros.io.camera_info import intrinsics_of
from mastsam_ros.io.encodings import (
    DEPTH_ENCODINGS,
    decode_compressed,
    decode_compressed_depth,
    depth_to_metres,
    image_to_rgb,
    is_compressed_depth,
)
from mastsam_ros.io.sources import BAG_SUFFIXES, Source
from mastsam_ros.types import Frame, InputError, MastsamError, MissingPackageError

_LOG = logging.getLogger(__name__)

_IMAGE = "sensor_msgs/msg/Image"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"

DEPTH_TOLERANCE_NS = 20_000_000
"""Depth belongs to an image whose stamp is at most this far away."""
_WAITING_IMAGES = 30
"""So many images wait for depth that comes later in the bag."""


@dataclass(frozen=True)
class _Waiting:
    """An image that may still find its depth."""

    stamp_ns: int
    message: Any
    info: Any


class BagSource(Source):
    """Every image of one topic, in the order of recording; stems are the frame's number, stamps the header's.

    path: a bag folder, .mcap or .db3. Without `image_topic` the only colour image is taken, without
    `depth_topic` the only depth image. An image without depth of its time goes without.
    poses: a topic of nav_msgs/Odometry, or `tf`, and the frame in which the camera's poses are wanted; without it
    frames have none.

    Raises InputError for a damaged bag and a topic that is not there, not an image or not the only one,
    MissingPackageError without rosbags.
    """

    def __init__(
        self,
        path: Path,
        image_topic: str | None,
        depth_topic: str | None,
        use_depth: bool,
        poses: tuple[str, str] | None = None,
    ) -> None:
        try:
            from rosbags.rosbag2 import Reader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise MissingPackageError("reading a rosbag2 needs rosbags: pip install rosbags") from error
        self.name = path.name
        # The message types are the same in every distribution, so that definitions in the bag are not needed.
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        with self._readable("open"):
            self._reader = Reader(storage_of(path))
            self._reader.open()
        self._topics = {connection.topic: connection.msgtype for connection in self._reader.connections}
        self._kinds = {
            topic: self._kind(topic) for topic, kind in self._topics.items() if kind in (_IMAGE, _COMPRESSED)
        }
        try:
            self.image_topic = self._check(image_topic, ("color", "grey16")) if image_topic else self._only_image()
            self.depth_topic = None
            if use_depth:
                self.depth_topic = self._check(depth_topic, ("depth",)) if depth_topic else self._only_depth()
            self._poses = BagPoses(*poses, self._topics) if poses is not None else None
        except MastsamError:
            self.close()
            raise
        self.rectified = "rect" in self.image_topic.rsplit("/", 1)[-1]
        """The images are rectified, as their topic's name says."""
        self.camera_info_topic = self._camera_info_of(self.image_topic) if use_depth else None
        self._depth_is_chosen = bool(depth_topic)
        self._warned: set[str] = set()
        seconds = self._reader.duration / 1e9
        self.frame_count = sum(c.msgcount for c in self._reader.connections if c.topic == self.image_topic)
        self.fps = (self.frame_count - 1) / seconds if self.frame_count > 1 and seconds > 0 else 30.0

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        self._read_poses()
        info = self._first(self.camera_info_topic) if self.camera_info_topic else None
        waiting: deque[_Waiting] = deque()
        depths: deque[tuple[int, Any]] = deque(maxlen=_WAITING_IMAGES)
        index = 0
        for topic, stamp_ns, message in self._messages():
            if topic == self.camera_info_topic:
                info = message
            elif topic == self.depth_topic:
                depths.append((stamp_ns, message))
            else:
                waiting.append(_Waiting(stamp_ns, message, info))
            while waiting and self._is_ready(waiting, depths):
                yield f"{index:06d}", self._frame(waiting.popleft(), depths, index)
                index += 1
        for image in waiting:
            yield f"{index:06d}", self._frame(image, depths, index)
            index += 1

    def _read_poses(self) -> None:
        """All of them before the first image: what lies between two images is told by the pose after it, too."""
        if self._poses is None:
            return
        with self._readable("read the poses in"):
            connections = [one for one in self._reader.connections if one.topic in self._poses.topics]
            for connection, _, raw in self._reader.messages(connections=connections) if connections else ():
                self._poses.take(connection.topic, self._types.deserialize_cdr(raw, connection.msgtype))

    def is_compressed(self, topic: str) -> bool:
        """Whether a topic carries CompressedImage."""
        return self._topics.get(topic) == _COMPRESSED

    def close(self) -> None:
        """Closes the bag."""
        if self._reader.is_open:
            self._reader.close()

    def _is_ready(self, waiting: deque[_Waiting], depths: deque[tuple[int, Any]]) -> bool:
        """Whether no later depth can fit the first waiting image better."""
        if self.depth_topic is None or len(waiting) > _WAITING_IMAGES:
            return True
        return bool(depths) and depths[-1][0] >= waiting[0].stamp_ns

    def _frame(self, image: _Waiting, depths: deque[tuple[int, Any]], index: int) -> Frame:
        try:
            pixels = self._pixels(image.message)
            depth = None
            nearest = min(depths, key=lambda item: abs(item[0] - image.stamp_ns), default=None)
            if nearest is not None and abs(nearest[0] - image.stamp_ns) <= DEPTH_TOLERANCE_NS:
                depth = self._registered_depth(nearest[1], pixels.shape[:2])
            K = self._intrinsics(image.info, pixels.shape[1], pixels.shape[0])
            frame_id = image.message.header.frame_id
            T = self._poses.at(frame_id, image.stamp_ns) if self._poses is not None else None
            return Frame(pixels, image.stamp_ns, frame_id, K, depth, T)
        except InputError as error:
            raise InputError(f"{self.name}: image {index} of {self.image_topic}: {error}") from error

    def _registered_depth(self, message: Any, size: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
        depth = self._depth(message)
        if depth.shape == size:
            return depth
        mismatch = (
            f"depth of {self.depth_topic} is {depth.shape[1]}x{depth.shape[0]}, the image {size[1]}x{size[0]}: "
            "not registered to the image"
        )
        if self._depth_is_chosen:
            raise InputError(mismatch)
        _LOG.warning("%s; going on without depth", mismatch)
        self.depth_topic = None
        return None

    def _intrinsics(self, info: Any, width: int, height: int) -> npt.NDArray[np.float64] | None:
        if info is None:
            return None
        try:
            return intrinsics_of(info, width, height, self.rectified)
        except InputError as error:
            if str(error) not in self._warned:
                _LOG.warning("%s: %s", self.camera_info_topic, error)
                self._warned.add(str(error))
            return None

    def _messages(self) -> Iterator[tuple[str, int, Any]]:
        wanted = (self.image_topic, self.depth_topic, self.camera_info_topic)
        connections = [connection for connection in self._reader.connections if connection.topic in wanted]
        messages = self._reader.messages(connections=connections)
        while True:
            with self._readable("read on in"):
                item = next(messages, None)
                if item is None:
                    return
                connection, recorded_ns, raw = item
                message: Any = self._types.deserialize_cdr(raw, connection.msgtype)
            stamp = message.header.stamp
            stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
            yield connection.topic, stamp_ns or recorded_ns, message

    def _first(self, topic: str) -> Any:
        """The first message of a topic, or None."""
        with self._readable("read"):
            connections = [connection for connection in self._reader.connections if connection.topic == topic]
            for connection, _, raw in self._reader.messages(connections=connections):
                return self._types.deserialize_cdr(raw, connection.msgtype)
        return None

    @contextmanager
    def _readable(self, action: str) -> Iterator[None]:
        """A damaged bag shows as many kinds of errors, in rosbags and below it."""
        try:
            yield
        except MastsamError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"cannot {action} bag {self.name}: {reason} (cut off or damaged? 'ros2 bag reindex' or 'mcap recover' "
                "may repair it)"
            ) from error

    def _kind(self, topic: str) -> str:
        """depth, color, or grey16 (a label image, as often as a camera), as the first message tells; or empty."""
        message = self._first(topic)
        if message is None:
            return "empty"
        if self._topics[topic] == _COMPRESSED:
            if is_compressed_depth(message.format, message.data):
                return "depth"
            return "grey16" if message.format.startswith("mono16") else "color"
        if message.encoding in DEPTH_ENCODINGS:
            return "depth"
        return "grey16" if message.encoding == "mono16" else "color"

    def _check(self, topic: str, kinds: tuple[str, ...]) -> str:
        if topic not in self._topics:
            raise InputError(f"{self.name} has no topic {topic}; {self._there()}")
        if topic not in self._kinds:
            raise InputError(f"{topic} in {self.name} is no image but {self._topics[topic]}; {self._there()}")
        if self._kinds[topic] == "empty":
            raise InputError(f"{topic} in {self.name} holds no message; {self._there()}")
        if self._kinds[topic] not in kinds:
            what = "a colour image" if self._kinds[topic] != "depth" else "a depth image"
            raise InputError(f"{topic} in {self.name} is {what}, which is not what it is chosen for; {self._there()}")
        return topic

    def _only_image(self) -> str:
        for kind in ("color", "grey16"):
            found = self._of_kind(kind)
            if len(found) == 1:
                return found[0]
            if found:
                raise InputError(f"{self.name} has several images, choose with --image-topic: {', '.join(found)}")
        raise InputError(f"{self.name} has no colour image; {self._there()}")

    def _only_depth(self) -> str | None:
        found = self._of_kind("depth")
        if len(found) > 1:
            raise InputError(
                f"{self.name} has several depth images, choose with --depth-topic or leave them with --no-depth: "
                f"{', '.join(found)}"
            )
        return found[0] if found else None

    def _of_kind(self, kind: str) -> list[str]:
        """Topics of a kind; of an image and its compressed copies the first of raw, compressedDepth, compressed."""
        best: dict[str, str] = {}
        for topic in sorted((topic for topic, its in self._kinds.items() if its == kind), key=_by_quality):
            best.setdefault(topic.removesuffix("/compressed").removesuffix("/compressedDepth"), topic)
        return sorted(best.values())

    def _camera_info_of(self, image_topic: str) -> str | None:
        infos = [topic for topic, kind in self._topics.items() if kind == _CAMERA_INFO]
        base = image_topic.removesuffix("/compressed")
        sibling = f"{base.rpartition('/')[0]}/camera_info"
        return sibling if sibling in infos else infos[0] if len(infos) == 1 else None

    def _there(self) -> str:
        images = sorted(self._kinds)
        if images:
            return f"its image topics: {', '.join(images)}"
        return f"its topics, none an image: {', '.join(sorted(self._topics)) or 'none'}"

    def _pixels(self, message: Any) -> npt.NDArray[np.uint8]:
        if message.__msgtype__ == _COMPRESSED:
            return decode_compressed(message.format, message.data)
        return image_to_rgb(*_fields(message))

    def _depth(self, message: Any) -> npt.NDArray[np.float32]:
        if message.__msgtype__ == _COMPRESSED:
            return decode_compressed_depth(message.format, message.data)
        return depth_to_metres(*_fields(message))


def _by_quality(topic: str) -> int:
    return topic.endswith("/compressedDepth") + 2 * topic.endswith("/compressed")


def _fields(message: Any) -> tuple[str, int, int, int, int, npt.NDArray[np.uint8]]:
    return message.encoding, message.height, message.width, message.step, message.is_bigendian, message.data


def storage_of(path: Path) -> Path:
    """What rosbags opens: a folder with metadata, or the one storage file of a folder that has lost them."""
    if path.is_file() or (path / "metadata.yaml").exists():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in BAG_SUFFIXES)
    if len(files) != 1:
        raise InputError(
            f"bag {path.name} has {len(files)} storage files and no metadata.yaml: run 'ros2 bag reindex {path.name}'"
        )
    return files[0]
