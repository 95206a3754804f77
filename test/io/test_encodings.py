"""Message encodings to arrays: every encoding against values worked out by hand, and no input that breaks it."""

from __future__ import annotations

import array
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mastsam_ros.io.encodings import (
    DEPTH_ENCODINGS,
    IMAGE_ENCODINGS,
    MAX_PIXELS,
    decode_compressed,
    decode_compressed_depth,
    decode_depth_image,
    decode_image,
    depth_to_metres,
    image_to_rgb,
    is_compressed_depth,
)
from mastsam_ros.types import InputError

from .conftest import rvl_of

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
ALPHA = np.full((4, 6, 1), 7, np.uint8)
GREY = RGB[:, :, 0]


def padded(rows: np.ndarray, padding: int) -> tuple[int, bytes]:
    """Rows as bytes with `padding` bytes of noise after each, and the step."""
    flat = np.ascontiguousarray(rows).view(np.uint8).reshape(rows.shape[0], -1)
    return flat.shape[1] + padding, np.pad(flat, ((0, 0), (0, padding)), constant_values=99).tobytes()


@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB, RGB[:, :, ::-1]),
        ("8UC3", RGB, RGB[:, :, ::-1]),
        ("rgba8", np.concatenate([RGB, ALPHA], 2), RGB),
        ("bgra8", np.concatenate([RGB, ALPHA], 2), RGB[:, :, ::-1]),
        ("mono8", GREY, np.stack([GREY] * 3, 2)),
        ("8UC1", GREY, np.stack([GREY] * 3, 2)),
    ],
)
def test_eight_bit_encodings_give_rgb(encoding: str, pixels: np.ndarray, expected: np.ndarray, padding: int) -> None:
    step, data = padded(pixels, padding)
    np.testing.assert_array_equal(image_to_rgb(encoding, 4, 6, step, 0, data), expected)


@pytest.mark.parametrize("big", [0, 1])
def test_mono16_keeps_the_upper_byte_in_both_byte_orders(big: int) -> None:
    values = np.array([[0, 255, 256], [40000, 65535, 513]], dtype=">u2" if big else "<u2")
    step, data = padded(values, 3)
    np.testing.assert_array_equal(image_to_rgb("mono16", 2, 3, step, big, data)[:, :, 1], [[0, 0, 1], [156, 255, 2]])


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "UYVY"), ("uyvy", "UYVY"), ("yuv422_yuy2", "YUYV"), ("yuyv", "YUYV")]
)
def test_packed_yuv(encoding: str, order: str) -> None:
    # BT.601 video range: these luma and chroma values are white, black and pure red.
    for (y, u, v), rgb in {(235, 128, 128): 255, (16, 128, 128): 0, (81, 90, 240): (255, 0, 0)}.items():
        pair = bytes({"Y": y, "U": u, "V": v}[letter] for letter in order)
        image = image_to_rgb(encoding, 2, 4, 8, 0, pair * 4)
        assert image.shape == (2, 4, 3)
        assert np.abs(image.astype(int) - np.array(rgb)).max() <= 2


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_pattern_is_named_by_its_first_two_rows(pattern: str) -> None:
    colour = {"r": 200, "g": 120, "b": 30}
    mosaic = np.tile(np.array([colour[c] for c in pattern], np.uint8).reshape(2, 2), (4, 4))
    image = image_to_rgb(f"bayer_{pattern}8", 8, 8, 8, 0, mosaic.tobytes())
    np.testing.assert_array_equal(image[2:-2, 2:-2].reshape(-1, 3), np.tile([200, 120, 30], (16, 1)))


def test_rgb8_without_padding_is_not_copied() -> None:
    data = array.array("B", RGB.tobytes())
    assert np.shares_memory(image_to_rgb("rgb8", 4, 6, 18, 0, data), np.frombuffer(data, np.uint8))


def test_last_row_may_come_without_its_padding() -> None:
    step, data = padded(RGB, 5)
    np.testing.assert_array_equal(image_to_rgb("rgb8", 4, 6, step, 0, data[:-5]), RGB)
    with pytest.raises(InputError, match="needs 87 bytes of data, got 86"):
        image_to_rgb("rgb8", 4, 6, step, 0, data[:-6])


@pytest.mark.parametrize("big", [0, 1])
@pytest.mark.parametrize("padding", [0, 3])
def test_depth_in_metres_and_millimetres(big: int, padding: int) -> None:
    order = ">" if big else "<"
    metres = np.array([[1.5, np.nan, np.inf], [-1.0, 0.0, 0.25]], order + "f4")
    step, data = padded(metres, padding)
    np.testing.assert_array_equal(depth_to_metres("32FC1", 2, 3, step, big, data), [[1.5, 0, 0], [0, 0, 0.25]])
    step, data = padded(np.array([[0, 1, 1500]], order + "u2"), padding)
    depth = depth_to_metres("16UC1", 1, 3, step, big, data)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[0, 0.001, 1.5]], rtol=1e-6)


def test_unknown_encodings_are_named_beside_the_known_ones() -> None:
    with pytest.raises(InputError, match="'rgb16'.*bgr8.*mono16"):
        image_to_rgb("rgb16", 1, 1, 6, 0, bytes(6))
    with pytest.raises(InputError, match="'mono8'.*32FC1, 16UC1"):
        depth_to_metres("mono8", 1, 1, 1, 0, bytes(1))
    with pytest.raises(InputError, match="'h264'.*jpeg, png"):
        decode_compressed("h264", b"\0\0\0\1")
    with pytest.raises(InputError, match="zstd.*png.*rvl"):
        decode_compressed_depth("16UC1; compressedDepth zstd", bytes(40))


@pytest.mark.parametrize(
    ("height", "width", "step", "length", "message"),
    [
        (0, 6, 18, 72, "got 6x0"),
        (4, 0, 18, 72, "got 0x4"),
        (4, 6, 17, 72, "step of at least 18 bytes, got 17"),
        (4, 6, 18, 71, "needs 72 bytes of data, got 71"),
        (2**32 - 1, 2**32 - 1, 2**32 - 1, 72, "pixels"),
        (4, 6, 18, 0, "got 0"),
    ],
)
def test_sizes_that_do_not_add_up(height: int, width: int, step: int, length: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        image_to_rgb("rgb8", height, width, step, 0, bytes(length))


def test_odd_width_has_no_packed_yuv() -> None:
    with pytest.raises(InputError, match="even width, got 3x1"):
        image_to_rgb("yuv422", 1, 3, 6, 0, bytes(6))


def encoded(extension: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(extension, pixels)[1].tobytes()


def test_compressed_images() -> None:
    smooth = cv2.resize(RGB, (60, 40))
    png, jpeg = encoded(".png", smooth[:, :, ::-1]), encoded(".jpg", smooth[:, :, ::-1])
    np.testing.assert_array_equal(decode_compressed("png", png), smooth)
    np.testing.assert_array_equal(decode_image(png), smooth)
    for name in ("jpeg", "jpg", "rgb8; jpeg compressed bgr8"):
        assert np.abs(decode_compressed(name, np.frombuffer(jpeg, np.uint8)).astype(int) - smooth).mean() < 12


@pytest.mark.parametrize("extension", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_cut_off_images_are_refused(extension: str, share: float) -> None:
    content = encoded(extension, np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8))
    with pytest.raises(InputError):
        decode_compressed(extension, content[: int(len(content) * share)])


def test_a_forged_size_does_not_fill_the_memory() -> None:
    png = bytearray(encoded(".png", RGB))
    png[16:24] = struct.pack(">II", 60000, 60000)
    with pytest.raises(InputError, match=f"at most {MAX_PIXELS} pixels, got 60000x60000"):
        decode_compressed("png", bytes(png))
    jpeg = bytearray(encoded(".jpg", RGB))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(InputError, match=f"at most {MAX_PIXELS} pixels, got 60000x60000"):
        decode_compressed("jpeg", bytes(jpeg))


def test_compressed_depth() -> None:
    millimetres = np.array([[0, 500], [1234, 65535]], np.uint16)
    png = encoded(".png", millimetres)
    expected = millimetres * np.float32(0.001)
    np.testing.assert_allclose(decode_depth_image(png), expected)
    np.testing.assert_allclose(decode_compressed_depth("png", png), expected)
    np.testing.assert_allclose(decode_compressed_depth("16UC1; compressedDepth png", bytes(12) + png), expected)

    # image_transport keeps 32FC1 as scale / depth + offset.
    scale, offset = 1000.0, 10.0
    metres = np.array([[0.5, 2.0], [4.0, 0.0]], np.float32)
    with np.errstate(divide="ignore"):
        quantised = np.where(metres > 0, scale / metres + offset, 0).astype(np.uint16)
    message = struct.pack("<iff", 0, scale, offset) + encoded(".png", quantised)
    np.testing.assert_allclose(decode_compressed_depth("32FC1; compressedDepth png", message), metres, rtol=1e-3)

    with pytest.raises(InputError, match="16-bit grey"):
        decode_compressed_depth("png", encoded(".png", RGB))
    with pytest.raises(InputError, match="12 bytes"):
        decode_compressed_depth("16UC1; compressedDepth png", b"abc")


def test_compressed_depth_as_rvl() -> None:
    code = np.array([[0, 500], [1234, 65535]], np.uint16)
    content = rvl_of(code)
    header = struct.pack("<iff", 0, 1000.0, 10.0)
    found = decode_compressed_depth("16UC1; compressedDepth rvl", header + content)
    np.testing.assert_allclose(found, code * np.float32(0.001))
    found = decode_compressed_depth("32FC1; compressedDepth rvl", header + content)
    np.testing.assert_allclose(found, [[0, 1000 / 490], [1000 / 1224, 1000 / 65525]], rtol=1e-5)


def test_which_compressed_images_are_depth() -> None:
    depth, grey = encoded(".png", np.full((2, 3), 700, np.uint16)), encoded(".png", GREY)
    for format, content, expected in (
        ("16UC1; compressedDepth png", depth, True),
        ("32FC1; compressedDepth rvl", b"", True),
        ("16UC1; png compressed ", depth, True),
        ("mono16; png compressed ", depth, False),
        ("rgb8; jpeg compressed bgr8", depth, False),
        ("png", depth, True),
        ("png", grey, False),
        ("png", encoded(".png", RGB), False),
        ("jpeg", encoded(".jpg", RGB), False),
    ):
        assert is_compressed_depth(format, content) is expected, format
    np.testing.assert_allclose(decode_compressed_depth("16UC1; png compressed ", depth), np.full((2, 3), 0.7))


SIZES = st.integers(-3, 40) | st.sampled_from([2**16, 2**31, 2**32 - 1])


@settings(max_examples=400, deadline=None)
@given(
    encoding=st.sampled_from(IMAGE_ENCODINGS) | st.text(max_size=12),
    height=SIZES,
    width=SIZES,
    step=SIZES,
    big=st.booleans(),
    data=st.binary(max_size=4000),
)
def test_any_image_message_gives_an_image_or_an_input_error(
    encoding: str, height: int, width: int, step: int, big: bool, data: bytes
) -> None:
    try:
        image = image_to_rgb(encoding, height, width, step, big, data)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8


@settings(max_examples=300, deadline=None)
@given(
    encoding=st.sampled_from(IMAGE_ENCODINGS),
    height=st.integers(1, 12),
    pairs=st.integers(1, 6),
    padding=st.integers(0, 7),
    big=st.booleans(),
    content=st.data(),
)
def test_padding_and_repetition_do_not_change_the_pixels(
    encoding: str, height: int, pairs: int, padding: int, big: bool, content: st.DataObject
) -> None:
    width = 2 * pairs
    bytes_per_pixel = {"mono16": 2}.get(encoding, 2 if "yu" in encoding or "uyvy" in encoding else 0)
    if not bytes_per_pixel:
        bytes_per_pixel = 4 if "a8" in encoding else 3 if encoding in ("rgb8", "bgr8", "8UC3") else 1
    row = width * bytes_per_pixel
    seed = content.draw(st.integers(0, 2**32 - 1))
    rows = np.random.default_rng(seed).integers(0, 256, (height, row), np.uint8)
    step, data = padded(rows, padding)
    plain = image_to_rgb(encoding, height, width, row, big, rows.tobytes())
    np.testing.assert_array_equal(image_to_rgb(encoding, height, width, step, big, data), plain)


@settings(max_examples=300, deadline=None)
@given(
    encoding=st.sampled_from(DEPTH_ENCODINGS) | st.text(max_size=8),
    height=SIZES,
    width=SIZES,
    step=SIZES,
    big=st.booleans(),
    data=st.binary(max_size=4000),
)
def test_any_depth_message_gives_finite_metres_or_an_input_error(
    encoding: str, height: int, width: int, step: int, big: bool, data: bytes
) -> None:
    try:
        depth = depth_to_metres(encoding, height, width, step, big, data)
    except InputError:
        return
    assert depth.shape == (height, width)
    assert depth.dtype == np.float32
    assert np.isfinite(depth).all()
    assert (depth >= 0).all()


def test_a_jpeg_has_the_pixels_that_opencv_gives_and_a_damaged_one_says_nothing_on_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    for picture in (noise, noise[:, :, 0]):
        content = encoded(".jpg", picture)
        expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        np.testing.assert_array_equal(decode_image(content), expected)
    refused = 0
    for position in range(2, len(content), 37):
        damaged = bytearray(content)
        damaged[position : position + 3] = b"\xff\x00\x7f"
        try:
            decode_image(bytes(damaged))
        except InputError:
            refused += 1
    assert 0 < refused < len(range(2, len(content), 37))
    assert capfd.readouterr().err == ""


@settings(max_examples=200, deadline=None)
@given(
    extension=st.sampled_from([".png", ".jpg"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    keep=st.floats(0.0, 1.0),
)
def test_damaged_compressed_images_give_an_image_or_an_input_error(
    extension: str, changes: list[tuple[float, int]], keep: float
) -> None:
    content = bytearray(encoded(extension, RGB))
    for where, value in changes:
        content[int(where * (len(content) - 1))] = value
    try:
        image = decode_compressed(extension[1:], bytes(content[: int(keep * len(content))]))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert image.ndim == 3
        assert image.dtype == np.uint8


@settings(max_examples=100, deadline=None)
@given(format=st.text(max_size=30), data=st.binary(max_size=200))
def test_any_compressed_message_is_refused_in_one_line(format: str, data: bytes) -> None:
    for decode in (decode_compressed, decode_compressed_depth):
        for name in (format, "jpeg", "png", "32FC1; compressedDepth png", "16UC1; compressedDepth h264"):
            with pytest.raises(InputError):
                decode(name, data)
