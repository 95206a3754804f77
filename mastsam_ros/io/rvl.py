"""RVL, the run-length code of 16-bit depth images that image_transport's compressedDepth offers beside PNG."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from mastsam_ros.types import InputError

_LONGEST = 10
"""Nibbles of the longest number: a run over 2^30 pixels. Depth differences need six."""


def decode_rvl(content: bytes, max_pixels: int) -> npt.NDArray[np.uint16]:
    """(H, W) uint16 values of a depth image, 0 = none (Wilson, "Fast Lossless Depth Image Compression", 2017).

    content: width and height as uint32, then the code, in 32-bit words, all little-endian. Numbers stand there as
    nibbles, most significant first in a word: three bits of the number, its lowest first, and a bit that says that
    more follow. Zeros and values alternate in runs, their lengths before them; a value is its difference to the last
    one, with the sign as lowest bit.

    Raises InputError for a size of nothing or of more than max_pixels, and for a code that is cut off or damaged.
    """
    if len(content) < 8:
        raise InputError(f"RVL image needs 8 bytes for its size, got {len(content)} bytes")
    width, height = struct.unpack_from("<II", content)
    pixels = width * height
    if not 0 < pixels <= max_pixels:
        raise InputError(f"RVL image must have between 1 and {max_pixels} pixels, got {width}x{height}")
    numbers = _numbers(content[8:])
    values = np.zeros(pixels, np.uint16)
    is_value, differences = np.zeros(pixels, bool), []
    place = pixel = 0
    while pixel < pixels:
        zeros, run = numbers[place : place + 2].tolist() if place + 2 <= len(numbers) else (0, 0)
        begin, place = pixel + zeros, place + 2 + run
        pixel = begin + run
        if zeros + run == 0 or pixel > pixels or place > len(numbers):
            raise InputError(f"RVL image {width}x{height} is cut off or damaged: {len(content)} bytes")
        is_value[begin:pixel] = True
        differences.append(numbers[place - run : place])
    signed = np.concatenate(differences)
    values[is_value] = np.cumsum((signed >> 1) ^ -(signed & 1)).astype(np.uint16)  # 16 bits, as the coder computes
    return values.reshape(height, width)


def _numbers(code: bytes) -> npt.NDArray[np.int64]:
    """The whole numbers of the code; one that is cut off at its end is left out."""
    octets = np.frombuffer(code[: len(code) // 4 * 4], np.uint8).reshape(-1, 4)[:, ::-1].ravel()
    nibbles = np.stack([octets >> 4, octets & 15], axis=1).ravel()
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise InputError(f"RVL image is damaged: a number of {lengths.max()} nibbles")
    numbers = (nibbles[starts] & 7).astype(np.int64)
    for nibble in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > nibble)
        numbers[longer] |= (nibbles[starts[longer] + nibble] & np.int64(7)) << (3 * nibble)
    return numbers
