"""ROS messages to a `Frame`, and a `FrameResult` to ROS messages. Pixels are never copied twice."""

from __future__ import annotations

import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image

from mastsam_ros.io.encodings import decode_compressed, decode_compressed_depth, depth_to_metres, image_to_rgb
from mastsam_ros.io.result_messages import ResultMessages
from mastsam_ros.ros.message_types import message_class
from mastsam_ros.types import Frame, InputError


@dataclass(frozen=True, eq=False)
class Input:
    """The messages of one frame, and when they arrived on the steady clock (nanoseconds)."""

    image: Image | CompressedImage
    depth: Image | CompressedImage | None
    arrived_ns: int


def stamp_nanoseconds(stamp: Time) -> int:
    """A ROS stamp in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def pixels_of(message: Image | CompressedImage) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. Raises InputError for a damaged message or an unknown encoding."""
    if isinstance(message, CompressedImage):
        return decode_compressed(message.format, message.data)
    return image_to_rgb(
        message.encoding, message.height, message.width, message.step, message.is_bigendian, message.data
    )


def depth_of(message: Image | CompressedImage) -> npt.NDArray[np.float32]:
    """(H, W) float32 metres, 0 = none. Raises InputError for a damaged message or an unknown encoding."""
    if isinstance(message, CompressedImage):
        return decode_compressed_depth(message.format, message.data)
    return depth_to_metres(
        message.encoding, message.height, message.width, message.step, message.is_bigendian, message.data
    )


def frame_of(
    messages: Input,
    camera: Callable[[int, int], npt.NDArray[np.float64] | None],
    place: Callable[[str, int], npt.NDArray[np.float64] | None] = lambda _frame_id, _stamp_ns: None,
) -> Frame:
    """The frame that these messages are. camera: K (3, 3) for an image of this width and height, or None. place: pose
    (4, 4) in the world of the camera's frame at this stamp, or None.

    Raises InputError for what cannot be used.
    """
    header = messages.image.header
    image = pixels_of(messages.image)
    depth = None
    if messages.depth is not None:
        depth = depth_of(messages.depth)
        if depth.shape != image.shape[:2]:
            raise InputError(
                f"depth image is {depth.shape[1]}x{depth.shape[0]}, the colour image "
                f"{image.shape[1]}x{image.shape[0]}; subscribe to the depth that is registered to colour"
            )
    K = camera(image.shape[1], image.shape[0])
    stamp_ns = stamp_nanoseconds(header.stamp)
    return Frame(image, stamp_ns, header.frame_id, K, depth, place(header.frame_id, stamp_ns))


def _octets(pixels: npt.NDArray[np.uint8]) -> array.array[int]:
    """The one form that message fields take without looking at every byte."""
    content = array.array("B")
    content.frombytes(pixels)  # type: ignore[arg-type]
    return content


_MESSAGES = ResultMessages(message_class, _octets)
labels_message, rgb_message = _MESSAGES.labels, _MESSAGES.rgb
cloud_message, points_message = _MESSAGES.cloud, _MESSAGES.points
instances_message, event_message = _MESSAGES.instances, _MESSAGES.event
map_header, map_instances_message = _MESSAGES.map_header, _MESSAGES.map_instances
odometry_message, transforms_message = _MESSAGES.odometry, _MESSAGES.transforms
