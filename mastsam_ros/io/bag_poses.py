"""Poses that a rosbag2 holds: /tf, or a topic of odometry, as one tree of frames over the whole recording."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.transforms import Transforms, transform
from mastsam_ros.types import InputError

_LOG = logging.getLogger(__name__)

FROM_TF = "tf"
"""In place of a topic's name: /tf."""
TOLERANCE_NS = 100_000_000
"""A pose may be so far from the image in time."""
_TREES = {"/tf": "tf2_msgs/msg/TFMessage", "/tf_static": "tf2_msgs/msg/TFMessage"}
_ODOMETRY = "nav_msgs/msg/Odometry"


class BagPoses:
    """Where the camera was in `map_frame`. topic: of nav_msgs/Odometry, or `tf`. known: the bag's topics and types.

    /tf_static leads from the frame that is told of to the camera's. Raises InputError for a topic that holds no poses.
    """

    def __init__(self, topic: str, map_frame: str, known: dict[str, str]) -> None:
        wanted = dict(_TREES) if topic == FROM_TF else {"/tf_static": _TREES["/tf_static"], topic: _ODOMETRY}
        source = "/tf" if topic == FROM_TF else topic
        if known.get(source) != wanted[source]:
            there = sorted(name for name, kind in known.items() if kind == _ODOMETRY) + ["tf"] * ("/tf" in known)
            raise InputError(
                f"{source} carries {known.get(source, 'nothing')}, expected {wanted[source]}; poses are on:"
                f" {', '.join(there) or 'no topic'}"
            )
        self.topics = tuple(name for name in wanted if name in known)
        self._map_frame = map_frame
        self._tree = Transforms(kept_ns=None)
        self._said: set[str] = set()

    def take(self, topic: str, message: Any) -> None:
        """Takes a message of one of the topics in. What is no pose is left out, with a warning."""
        try:
            if topic in _TREES:
                for stamped in message.transforms:
                    pose = stamped.transform
                    T = _matrix(pose.translation, pose.rotation)
                    stamp_ns = None if topic == "/tf_static" else _nanoseconds(stamped.header.stamp)
                    self._tree.put(stamped.header.frame_id, stamped.child_frame_id, T, stamp_ns)
            else:
                pose = message.pose.pose
                T, stamp_ns = _matrix(pose.position, pose.orientation), _nanoseconds(message.header.stamp)
                self._tree.put(message.header.frame_id, message.child_frame_id, T, stamp_ns)
        except InputError as error:
            self._warn(f"{topic}: pose left out: {error}")

    def at(self, frame_id: str, stamp_ns: int) -> npt.NDArray[np.float64] | None:
        """`T_map_camera` (4, 4), or None: what is missing has been said."""
        try:
            return self._tree.look_up(self._map_frame, frame_id, stamp_ns, TOLERANCE_NS)
        except InputError as error:
            self._warn(f"no pose from the bag: {error}")
            return None

    def _warn(self, text: str) -> None:
        kind = "".join(sign for sign in text if not sign.isdigit())
        if kind not in self._said:
            self._said.add(kind)
            _LOG.warning("%s", text)


def _matrix(place: Any, turn: Any) -> npt.NDArray[np.float64]:
    return transform((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
