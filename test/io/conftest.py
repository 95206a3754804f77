"""Small bags written message by message."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types

Item = tuple[str, int, Any]
"""Topic, stamp in nanoseconds, message."""


def header(stamp_ns: int) -> Any:
    """A header of frame "optical"."""
    return TYPES["std_msgs/msg/Header"](
        TYPES["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 1_000_000_000)), "optical"
    )


def image(stamp_ns: int, pixels: np.ndarray, encoding: str = "rgb8") -> Any:
    """An Image."""
    flat = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    height, width = pixels.shape[:2]
    return TYPES["sensor_msgs/msg/Image"](header(stamp_ns), height, width, encoding, 0, len(flat) // height, flat)


def compressed(stamp_ns: int, content: bytes, format: str) -> Any:
    """A CompressedImage."""
    return TYPES["sensor_msgs/msg/CompressedImage"](header(stamp_ns), format, np.frombuffer(content, np.uint8))


def camera_info(stamp_ns: int, width: int, height: int, focal: float = 50.0, distortion: float = 0.0) -> Any:
    """A CameraInfo whose P has twice the focal length of its K."""
    K = np.array([focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1.0])
    P = np.array([2 * focal, 0, width / 2, 0, 0, 2 * focal, height / 2, 0, 0, 0, 1.0, 0])
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header(stamp_ns), height, width, "plumb_bob", np.full(5, distortion), K, np.eye(3).ravel(), P, 0, 0, region
    )


def rvl_of(depth: np.ndarray) -> bytes:
    """(H, W) uint16 as RVL with its size, coded nibble by nibble as the paper describes it."""
    nibbles: list[int] = []

    def number(value: int) -> None:
        while value > 7:
            nibbles.append(value & 7 | 8)
            value >>= 3
        nibbles.append(value)

    values, place, before = depth.ravel().tolist(), 0, 0
    while place < len(values):
        first = next((i for i in range(place, len(values)) if values[i]), len(values))
        place, begin = next((i for i in range(first, len(values)) if not values[i]), len(values)), place
        number(first - begin)
        number(place - first)
        for value in values[first:place]:
            number(2 * (value - before) if value >= before else 2 * (before - value) - 1)
            before = value
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)]
    return struct.pack(f"<{2 + len(words)}I", depth.shape[1], depth.shape[0], *words)


WriteBag = Callable[..., Path]


@pytest.fixture
def write_bag(tmp_path: Path) -> WriteBag:
    """Writes messages to a bag folder, in this order."""

    def write(items: Iterable[Item], name: str = "bag", storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
        folder = tmp_path / name
        with Writer(folder, version=9, storage_plugin=storage) as writer:
            connections: dict[str, Any] = {}
            for topic, stamp_ns, message in items:
                kind = message.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
                writer.write(connections[topic], stamp_ns, STORE.serialize_cdr(message, kind))
        return folder

    return write
