"""RVL: what image_transport's coder wrote is read, and nothing else is taken for an image."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mastsam_ros.io.rvl import decode_rvl
from mastsam_ros.types import InputError

from .conftest import rvl_of

MAX_PIXELS = 100_000
DEPTH = np.array([[0, 0, 500, 501, 499], [65535, 1, 0, 1234, 0]], np.uint16)
CODE = bytes.fromhex("050000000200000023f18d25bff38e8bac11f3ff000010e4")
"""DEPTH as compressed_depth_image_transport's own coder (ROS 2, compiled) writes it, after its size."""


def test_what_image_transport_writes() -> None:
    assert np.array_equal(decode_rvl(CODE, MAX_PIXELS), DEPTH)
    assert rvl_of(DEPTH) == CODE, "so that the tests' coder is the same one"


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 20), width=st.integers(1, 20), holes=st.floats(0, 1))
def test_every_image_comes_back(seed: int, height: int, width: int, holes: float) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.integers(0, rng.choice([3, 2000, 65536]), (height, width)).astype(np.uint16)
    depth[rng.random(depth.shape) < holes] = 0
    assert np.array_equal(decode_rvl(rvl_of(depth), MAX_PIXELS), depth)


def test_a_picture_without_depth_and_one_without_holes() -> None:
    for depth in (np.zeros((30, 40), np.uint16), np.full((30, 40), 65535, np.uint16)):
        assert np.array_equal(decode_rvl(rvl_of(depth), MAX_PIXELS), depth)


@pytest.mark.parametrize("kept", range(4, len(CODE)))
def test_what_is_cut_off_is_refused(kept: int) -> None:
    with pytest.raises(InputError):
        decode_rvl(CODE[:kept], MAX_PIXELS)


def test_sizes_and_runs_that_do_not_add_up() -> None:
    for size in ((0, 4), (4, 0), (60000, 60000)):
        with pytest.raises(InputError, match=f"got {size[0]}x{size[1]}"):
            decode_rvl(struct.pack("<II", *size) + CODE[8:], MAX_PIXELS)
    with pytest.raises(InputError, match="4x2 is cut off or damaged"):
        decode_rvl(struct.pack("<II", 4, 2) + CODE[8:], MAX_PIXELS)
    with pytest.raises(InputError, match="cut off or damaged"):
        decode_rvl(struct.pack("<II", 5, 2) + bytes(4000), MAX_PIXELS)
    with pytest.raises(InputError, match="nibbles"):
        decode_rvl(struct.pack("<II", 5, 2) + b"\xff" * 40 + bytes(4), MAX_PIXELS)


@settings(max_examples=200, deadline=None)
@given(width=st.integers(0, 50), height=st.integers(0, 50), code=st.binary(max_size=300))
def test_any_code_gives_an_image_or_an_input_error(width: int, height: int, code: bytes) -> None:
    try:
        depth = decode_rvl(struct.pack("<II", width, height) + code, MAX_PIXELS)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert depth.shape == (height, width) and depth.dtype == np.uint16
