"""What cameras send, as arrays: the encodings of ROS image messages and compressed images, without ROS.

Every function takes the fields of a message as they are and raises InputError for anything that does not add up.
"""

from __future__ import annotations

import array
import io
import struct
import zlib
from typing import Any, Union

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from mastsam_ros.io.rvl import decode_rvl
from mastsam_ros.types import InputError

Buffer = Union[bytes, bytearray, memoryview, "array.array[int]", npt.NDArray[np.uint8]]

MAX_PIXELS = 100_000_000
"""Larger images are refused: no camera sends them, and a forged header must not fill the memory."""

# Encoding -> bytes per pixel, and the OpenCV conversion to RGB (None: the bytes are RGB already).
# 8UC1 and 8UC3 carry no colour order; what writes them is OpenCV, whose order is BGR.
_CONVERSIONS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "mono16": (2, cv2.COLOR_GRAY2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    # OpenCV names a Bayer pattern by its second row, ROS by its first.
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
}
IMAGE_ENCODINGS = tuple(_CONVERSIONS)
"""Encodings that `image_to_rgb` reads."""

_DEPTH_TYPES = {"32FC1": "f4", "16UC1": "u2"}
DEPTH_ENCODINGS = tuple(_DEPTH_TYPES)
"""Encodings that `depth_to_metres` reads: 32FC1 metres, 16UC1 millimetres."""

_COMPRESSED_DEPTH_FORMATS = ("16UC1; compressedDepth png", "16UC1; compressedDepth rvl", "the same with 32FC1", "png")
_DEPTH_HEADER = struct.Struct("<iff")  # of compressedDepth: what it is, scale and offset of inverse depth


def image_to_rgb(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool | int, data: Buffer
) -> npt.NDArray[np.uint8]:
    """The pixels of a sensor_msgs/Image as (H, W, 3) uint8 RGB.

    `step` is the length of a row in bytes, padding included. rgb8 without padding is not copied
    unless `data` is read-only: the result then shares memory with it. mono16 keeps its upper eight bits.

    Raises InputError for an encoding that is not in IMAGE_ENCODINGS, and for sizes that `data` does not hold.
    """
    if encoding not in _CONVERSIONS:
        raise _unknown("image encoding", encoding, IMAGE_ENCODINGS)
    channels, conversion = _CONVERSIONS[encoding]
    if conversion in (cv2.COLOR_YUV2RGB_UYVY, cv2.COLOR_YUV2RGB_YUY2) and width % 2:
        raise InputError(f"{encoding} image must have an even width, got {width}x{height}")
    rows = _rows(encoding, height, width, step, data, channels)
    pixels: npt.NDArray[np.uint8] = rows.reshape((height, width, channels))
    if encoding == "mono16":
        pixels = pixels[:, :, 0 if is_bigendian else 1 :: 2]
    if conversion is None:
        return np.require(pixels, requirements=("C", "W"))
    pixels = np.ascontiguousarray(pixels)
    return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)


def depth_to_metres(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool | int, data: Buffer
) -> npt.NDArray[np.float32]:
    """The pixels of a depth image message as (H, W) float32 metres; 0, NaN, infinity and negatives become 0.

    Raises InputError for an encoding that is not in DEPTH_ENCODINGS, and for sizes that `data` does not hold.
    """
    if encoding not in _DEPTH_TYPES:
        raise _unknown("depth encoding", encoding, DEPTH_ENCODINGS)
    kind = np.dtype((">" if is_bigendian else "<") + _DEPTH_TYPES[encoding])
    rows = np.ascontiguousarray(_rows(encoding, height, width, step, data, kind.itemsize))
    return _metres(rows.view(kind))


def decode_compressed(format: str, data: Buffer) -> npt.NDArray[np.uint8]:
    """The pixels of a sensor_msgs/CompressedImage (JPEG or PNG) as (H, W, 3) uint8 RGB.

    `format` is the message's text, such as "jpeg" or "rgb8; jpeg compressed bgr8".

    Raises InputError for another format, a damaged or cut-off image, and an image of more than MAX_PIXELS.
    """
    if "compressedDepth" in format or not any(name in format.lower() for name in ("jpeg", "jpg", "png")):
        raise _unknown("compressed image format", format, ("jpeg", "png"))
    # Intrinsics hold for the pixels as they are stored, so a rotation flag in the file is not followed.
    return _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def decode_compressed_depth(format: str, data: Buffer) -> npt.NDArray[np.float32]:
    """The pixels of a compressed depth message as (H, W) float32 metres, 0 = none.

    `format` is the message's text: of image_transport's compressedDepth ("16UC1; compressedDepth png", or with rvl),
    whose pixels stand after a header of 12 bytes; or of a plain 16-bit PNG ("16UC1; png compressed ", "png").
    compressedDepth keeps 32FC1 as quantised inverse depth, so that far values come back coarser.

    Raises InputError for another format, pixels that are not 16-bit grey, a damaged or cut-off image, and one of
    more than MAX_PIXELS.
    """
    content = bytes(data)
    encoding, _, codec = format.partition(";")
    if "compressedDepth" not in format:
        if "png" not in format.lower():
            raise _unknown("compressed depth format", format, _COMPRESSED_DEPTH_FORMATS)
        return _metres(_depth_png(content))
    codec = codec.partition("compressedDepth")[2].strip().lower()
    if codec not in ("", "png", "rvl"):  # early versions name none: PNG
        raise _unknown("compressed depth format", format, _COMPRESSED_DEPTH_FORMATS)
    if len(content) < _DEPTH_HEADER.size:
        raise InputError(f"compressed depth image needs a header of 12 bytes, got {len(content)} bytes")
    _, scale, offset = _DEPTH_HEADER.unpack_from(content)
    content = content[_DEPTH_HEADER.size :]
    values = decode_rvl(content, MAX_PIXELS) if codec == "rvl" else _depth_png(content)
    if encoding.strip() != "32FC1":
        return _metres(values)
    with np.errstate(all="ignore"):
        return _metres(np.where(values > 0, np.float32(scale) / (values - np.float32(offset)), np.float32(0)))


def is_compressed_depth(format: str, data: Buffer) -> bool:
    """Whether a CompressedImage holds depth: its `format` says so, or says no encoding and the PNG is 16-bit grey."""
    if "compressedDepth" in format:
        return True
    encoding, separator, _ = format.partition(";")
    if separator:
        return encoding.strip() in DEPTH_ENCODINGS
    head = bytes(data[:26])
    return head.startswith(b"\x89PNG\r\n\x1a\n") and head[24:26] == b"\x10\x00"


def decode_image(data: Buffer) -> npt.NDArray[np.uint8]:
    """The content of an image file as (H, W, 3) uint8 RGB, turned upright where the file says how.

    Raises InputError for a damaged or cut-off image, and an image of more than MAX_PIXELS.
    """
    return _decode(data, cv2.IMREAD_COLOR)


def decode_depth_image(data: Buffer) -> npt.NDArray[np.float32]:
    """The content of a 16-bit depth PNG in millimetres as (H, W) float32 metres. Raises InputError."""
    return _metres(_depth_png(data))


def metres_to_millimetres(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Depth (H, W) metres as uint16 millimetres, 0 = none; what is farther than 65.535 m does not fit, and is none."""
    millimetres = np.rint(depth * 1000)
    return np.where(millimetres <= 65535, millimetres, 0).astype(np.uint16)


def _depth_png(data: Buffer) -> npt.NDArray[np.uint16]:
    values = _decode(data, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2 or values.dtype != np.uint16:
        raise InputError(f"depth image must be a 16-bit grey PNG, got shape {values.shape} {values.dtype}")
    return values


def _unknown(what: str, name: str, supported: tuple[str, ...]) -> InputError:
    return InputError(f"unknown {what} {str(name)[:60]!r}; supported: {', '.join(supported)}")


def _rows(
    encoding: str, height: int, width: int, step: int, data: Buffer, bytes_per_pixel: int
) -> npt.NDArray[np.uint8]:
    """(H, W * bytes per pixel) uint8 view of `data`, row padding skipped."""
    if height <= 0 or width <= 0 or height * width > MAX_PIXELS:
        raise InputError(f"{encoding} image must have between 1 and {MAX_PIXELS} pixels, got {width}x{height}")
    row = width * bytes_per_pixel
    if step < row:
        raise InputError(f"{encoding} image {width}x{height} needs a step of at least {row} bytes, got {step}")
    content = np.frombuffer(data, dtype=np.uint8) if len(data) else np.empty(0, np.uint8)
    # Some drivers leave out the padding of the last row.
    needed = step * (height - 1) + row
    if content.size < needed:
        raise InputError(
            f"{encoding} image {width}x{height} with step {step} needs {needed} bytes of data, got {content.size}"
        )
    return np.lib.stride_tricks.as_strided(content, (height, row), (step, 1))


def _metres(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Millimetres (uint16) or metres (float32), as float32 metres with 0 for none."""
    if values.dtype.kind == "u":
        return values.astype(np.float32) * np.float32(0.001)
    metres = values.astype(np.float32)
    metres[~(np.isfinite(metres) & (metres > 0))] = 0
    return metres


def _decode(data: Buffer, flags: int) -> npt.NDArray[Any]:
    content = bytes(data)
    _check_image_file(content)
    if content.startswith(_JPEG):
        return _decode_jpeg(content, flags)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"damaged image: {error.err or 'cannot be decoded'}") from error
    if pixels is None:
        raise InputError(f"damaged or unknown image: {len(content)} bytes that cannot be decoded")
    return np.asarray(pixels if flags == cv2.IMREAD_UNCHANGED else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"


def _decode_jpeg(content: bytes, flags: int) -> npt.NDArray[np.uint8]:
    """The same pixels as OpenCV's, without the lines that its libjpeg writes to stderr for each damaged image."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            turned = image if flags & cv2.IMREAD_IGNORE_ORIENTATION else ImageOps.exif_transpose(image)
            return np.array(turned.convert("RGB"))
    except UnidentifiedImageError as error:
        raise InputError(f"damaged image: {len(content)} bytes that begin as a JPEG and are none") from error
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise InputError(f"damaged image: {error}") from error


def _check_image_file(content: bytes) -> None:
    """Refuses what OpenCV would take: a cut-off file (it pads with grey) and a forged size."""
    if not content:
        raise InputError("empty image: 0 bytes")
    complete, size = True, None
    if content.startswith(_PNG):
        size = struct.unpack_from(">II", content, 16) if len(content) >= 24 else None
    elif content.startswith(_JPEG):
        size, complete = _scan_jpeg(content)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise InputError(f"image must have at most {MAX_PIXELS} pixels, got {size[0]}x{size[1]}")
    if not complete or (content.startswith(_PNG) and not _scan_png(content)):
        raise InputError(f"image is cut off after {len(content)} bytes")


def _scan_png(content: bytes) -> bool:
    """Whether a PNG goes on to its end. Raises InputError for bytes that were changed on the way.

    libpng would notice these too, but tell of them in lines of its own on stderr, one for every image.
    """
    position = 8
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        if end + 4 > len(content):
            return False
        if zlib.crc32(content[position + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise InputError(f"damaged image: the checksum of its PNG chunk {kind.decode('latin-1')!r} does not hold")
        if kind == b"IEND":
            return True
        position = end + 4
    return False


def _scan_jpeg(content: bytes) -> tuple[tuple[int, int] | None, bool]:
    """Width and height from a JPEG's frame header, and whether an end marker follows its pixels."""
    size = None
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and position + 9 <= len(content):
            height, width = struct.unpack_from(">HH", content, position + 5)
            size = (width, height)
        position += 2 + length
        if marker == 0xDA:  # start of scan: 0xFF inside the pixels is escaped, so the next end marker is the end
            return size, content.find(b"\xff\xd9", position) >= 0
    return size, False
