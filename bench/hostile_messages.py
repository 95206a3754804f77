"""Messages that no camera should send, from a seed: what bench/faults.py and its test throw at the node."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from mastsam_ros.io.encodings import DEPTH_ENCODINGS, IMAGE_ENCODINGS

HUGE = 2**32 - 1
BYTES_PER_PIXEL = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "mono16": 2, "16UC1": 2, "32FC1": 4}
BYTES_PER_PIXEL |= {"yuv422": 2, "uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2}
FLOATS = (0.5, 2.0, np.nan, np.inf, -np.inf, -1.0, 1e38, 1e-40)
IMAGE_FAULTS = "none none none none none none none none size huge overflow cut empty step encoding kind line".split()
STRANGE = ("", "nonsense", "64FC9", "rgb8\n", "x" * 5000, "compressedDepth", "bayer_rggb16", "Ünïcode ☃")


class HostileMessages:
    """Draws messages; the same seed draws the same ones."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def pairs(
        self, count: int, compressed: float = 0.25, with_depth: float = 0.6
    ) -> Iterator[tuple[Any, Any, CameraInfo]]:
        """So many times an image, a depth image or None, and intrinsics.

        compressed: share of images and of depth images that are. with_depth: share of images that have some.
        """
        for number in range(count):
            header = self._header(number)
            drawn = []
            for depth in (False, True):
                draw = self._compressed if self._chance(compressed) else self._image
                drawn.append(draw(header, depth))
            yield drawn[0], drawn[1] if self._chance(with_depth) else None, self._camera_info()

    def _chance(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def _pick(self, *values: Any) -> Any:
        return values[int(self._rng.integers(len(values)))]

    def _bytes(self, count: int) -> bytes:
        return self._rng.integers(0, 256, count, dtype=np.uint8).tobytes()

    def _header(self, number: int) -> Header:
        stamp = Time(sec=1000 + number // 30, nanosec=number % 30 * 33_000_000)
        if self._chance(0.02):  # the clock jumps, or is none
            stamp = Time(sec=self._pick(0, 1, -(2**31), 2**31 - 1), nanosec=self._pick(0, 999_999_999, HUGE))
        return Header(stamp=stamp, frame_id=self._pick("camera", "camera", "", "a b", "x" * 300))

    def _size(self, depth: bool) -> tuple[int, int]:
        """Height and width: now and then the camera changes its own."""
        if depth or self._chance(0.95):
            return 32, 48
        height, width = self._rng.integers(2, 49, 2).tolist()
        return height, width

    def _image(self, header: Header, depth: bool) -> Image:
        height, width = self._size(depth)
        encoding = self._pick(*DEPTH_ENCODINGS) if depth else self._pick(*IMAGE_ENCODINGS)
        step = width * BYTES_PER_PIXEL.get(encoding, 1) + self._pick(0, 0, 0, 5)
        data = self._bytes(step * height)
        if encoding == "32FC1":
            values = self._rng.choice(
                np.array([0.5, 2, np.nan, np.inf, -np.inf, -1, 1e38, 1e-40], np.float32), (height, width)
            )
            data = b"".join(row.tobytes().ljust(step, b"\0") for row in values)
        message = Image(header=header, height=height, width=width, step=step, encoding=encoding, data=data)
        message.is_bigendian = self._pick(0, 0, 0, 1, 255)
        fault = self._pick(*IMAGE_FAULTS)
        if fault == "size":
            message.height, message.width = (int(n) for n in self._rng.integers(0, 60, 2))
        elif fault == "huge":
            message.height, message.width = self._pick((HUGE, HUGE), (1, HUGE), (HUGE, 1), (70_000, 70_000))
            message.step = self._pick(0, HUGE, message.step)
        elif fault == "overflow":  # 65536 x 65536 is 0 in 32 bits
            message.height, message.width, message.step = 65_536, 65_536, self._pick(0, 65_536)
        elif fault == "cut":
            message.data = data[: int(self._rng.integers(len(data)))]
        elif fault == "empty":
            message = self._pick(Image(header=header), Image(header=header, encoding=encoding, height=height))
        elif fault == "step":
            message.step = self._pick(0, 1, step - 1, step + 1, HUGE)
        elif fault == "encoding":
            message.encoding = self._pick(*STRANGE)
        elif fault == "kind":
            message.encoding = self._pick(*(IMAGE_ENCODINGS if depth else DEPTH_ENCODINGS))
        elif fault == "line":
            message.height, message.width = self._pick((1, 1), (1, 2), (2, 1), (1, 48), (48, 1))
        return message

    def _compressed(self, header: Header, depth: bool) -> CompressedImage:
        height, width = self._size(depth)
        kind = np.uint16 if depth else np.uint8
        pixels = self._rng.integers(0, np.iinfo(kind).max, (height, width) if depth else (height, width, 3), dtype=kind)
        suffix = "png" if depth else self._pick("png", "jpeg")
        content = bytearray(cv2.imencode(f".{suffix}", pixels)[1].tobytes())
        form = self._pick("16UC1; compressedDepth png", "32FC1; compressedDepth png", "png") if depth else suffix
        if "compressedDepth" in form:
            content = (
                bytearray(struct.pack("<Iff", 0, *self._pick((100.0, 2.0), (np.nan, np.inf), (0.0, 0.0)))) + content
            )
        fault = self._pick(*["none"] * 6, "cut", "noise", "flips", "format", "forged", "empty", "rvl")
        if fault == "cut":
            content = content[: int(self._rng.integers(len(content)))]
        elif fault == "noise":
            content = bytearray(self._bytes(int(self._rng.integers(1, 400))))
        elif fault == "flips":
            for place in self._rng.integers(0, len(content), 10):
                content[int(place)] ^= 1 << int(self._rng.integers(8))
        elif fault == "format":
            form = self._pick(*STRANGE, "jpeg", "png", "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth rvl")
        elif fault == "forged":  # a PNG that says it is 4 billion pixels wide
            content[16:24] = struct.pack(">II", HUGE, self._pick(1, HUGE))
        elif fault == "empty":
            content = bytearray()
        elif fault == "rvl":
            form = "16UC1; compressedDepth rvl"
            size = self._pick((32, 48), (HUGE, HUGE), (0, 0), (20_000, 20_000))
            content = bytearray(struct.pack("<IffII", 0, 1.0, 0.0, *size) + self._bytes(60))
        return CompressedImage(header=header, format=form, data=bytes(content))

    def _camera_info(self) -> CameraInfo:
        info = CameraInfo(width=48, height=32, k=[40.0, 0, 23.5, 0, 40, 15.5, 0, 0, 1])
        fault = self._pick("none", "none", "k", "d", "size", "roi", "binning", "empty")
        if fault == "k":
            info.k = self._rng.choice([np.nan, np.inf, -1.0, 0.0, 1e-300, 1e300, 40.0], 9).tolist()
        elif fault == "d":
            info.d = self._rng.choice([np.nan, 0.1, 1e300], int(self._rng.integers(0, 30))).tolist()
        elif fault == "size":
            info.width, info.height = self._pick((0, 0), (HUGE, HUGE), (32, 48), (96, 64))
        elif fault == "roi":
            info.roi.x_offset = info.roi.y_offset = self._pick(1, HUGE)
            info.roi.width = info.roi.height = self._pick(0, 1, HUGE)
        elif fault == "binning":
            info.binning_x, info.binning_y = self._pick((2, 2), (HUGE, HUGE), (0, 7))
        elif fault == "empty":
            info = CameraInfo()
        return info
