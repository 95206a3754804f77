"""ROS messages to a `Frame`, and a `FrameResult` to ROS messages. Pixels are never copied twice."""

from __future__ import annotations

import array
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from mastsam_ros.io import point_cloud2
from mastsam_ros.io.encodings import decode_compressed, depth_to_metres, image_to_rgb
from mastsam_ros.types import Frame, InputError, LabelledCloud

_BIG_ENDIAN = sys.byteorder == "big"


@dataclass(frozen=True, eq=False)
class Input:
    """The messages of one frame, and when they arrived on the steady clock (nanoseconds)."""

    image: Image | CompressedImage
    depth: Image | None
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


def depth_of(message: Image) -> npt.NDArray[np.float32]:
    """(H, W) float32 metres, 0 = none. Raises InputError for a damaged message or an unknown encoding."""
    return depth_to_metres(
        message.encoding, message.height, message.width, message.step, message.is_bigendian, message.data
    )


def frame_of(messages: Input, camera: Callable[[int, int], npt.NDArray[np.float64] | None]) -> Frame:
    """The frame that these messages are. camera: K (3, 3) for an image of this width and height, or None.

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
    return Frame(image, stamp_nanoseconds(header.stamp), header.frame_id, K, depth)


def labels_message(labels: npt.NDArray[np.uint16], header: Header) -> Image:
    """A label image (H, W) uint16 as mono16."""
    height, width = labels.shape
    return _image(header, height, width, "mono16", 2 * width, labels)


def rgb_message(image: npt.NDArray[np.uint8], header: Header) -> Image:
    """An RGB image (H, W, 3) uint8 as rgb8."""
    height, width = image.shape[:2]
    return _image(header, height, width, "rgb8", 3 * width, image)


def _image(header: Header, height: int, width: int, encoding: str, step: int, pixels: npt.NDArray) -> Image:
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(_BIG_ENDIAN),
        step=step,
        data=_bytes(pixels),
    )


def cloud_message(cloud: LabelledCloud, header: Header) -> PointCloud2:
    """A labelled cloud with x, y, z, rgb, instance and confidence."""
    fields = [PointField(name=f.name, offset=f.offset, datatype=f.datatype, count=f.count) for f in point_cloud2.FIELDS]
    return PointCloud2(
        header=header,
        height=1,
        width=len(cloud),
        fields=fields,
        is_bigendian=False,
        point_step=point_cloud2.POINT_STEP,
        row_step=point_cloud2.POINT_STEP * len(cloud),
        data=_bytes(point_cloud2.pack(cloud)),
        is_dense=True,
    )


def _bytes(pixels: npt.NDArray) -> array.array[int]:
    """The one form that message fields take without looking at every byte."""
    content = array.array("B")
    content.frombytes(np.ascontiguousarray(pixels).view(np.uint8))  # type: ignore[arg-type]
    return content
