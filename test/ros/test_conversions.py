"""Messages to frames and results to messages, on good, odd and broken input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from mastsam_ros.io import point_cloud2
from mastsam_ros.io.camera_info import intrinsics_of
from mastsam_ros.io.encodings import DEPTH_ENCODINGS, IMAGE_ENCODINGS
from mastsam_ros.io.result_messages import KINDS, STATES
from mastsam_ros.ros.conversions import (
    Input,
    cloud_message,
    depth_of,
    frame_of,
    labels_message,
    pixels_of,
    rgb_message,
)
from mastsam_ros.types import Frame, InputError, LabelledCloud

HEADER = Header(stamp=Time(sec=12, nanosec=345), frame_id="optical")


def camera_info(**fields) -> CameraInfo:
    info = CameraInfo(width=640, height=480, k=[500.0, 0, 319.5, 0, 510.0, 239.5, 0, 0, 1])
    info.p = [400.0, 0, 300.0, 0, 0, 400.0, 200.0, 0, 0, 0, 1, 0]
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def test_images_survive_the_way_to_a_message_and_back():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(pixels_of(rgb_message(image, HEADER)), image)
    labels = rng.integers(0, 65536, (5, 7), dtype=np.uint16)
    message = labels_message(labels, HEADER)
    assert (message.encoding, message.step, message.header) == ("mono16", 14, HEADER)
    assert np.array_equal(np.frombuffer(message.data, "<u2").reshape(5, 7), labels)
    assert np.array_equal(
        np.frombuffer(labels_message(labels[:, ::2], HEADER).data, "<u2").reshape(5, 4), labels[:, ::2]
    )


def test_a_frame_takes_stamp_and_frame_id_from_the_image():
    image = np.zeros((4, 6, 3), np.uint8)
    depth = Image(height=4, width=6, step=12, encoding="16UC1", data=np.full((4, 6), 1500, "<u2").tobytes())
    frame = frame_of(Input(rgb_message(image, HEADER), depth, 0), lambda width, height: np.diag([width, height, 1.0]))
    assert (frame.stamp_ns, frame.frame_id) == (12_000_000_345, "optical")
    assert frame.depth is not None and np.allclose(frame.depth, 1.5)
    assert frame.K is not None and (frame.K[0, 0], frame.K[1, 1]) == (6, 4)


def test_depth_of_another_size_names_the_cure():
    depth = Image(height=2, width=6, step=12, encoding="16UC1", data=bytes(24))
    with pytest.raises(InputError, match=r"6x2.*6x4.*registered"):
        frame_of(Input(rgb_message(np.zeros((4, 6, 3), np.uint8), HEADER), depth, 0), lambda width, height: None)


def test_intrinsics_follow_resizing_binning_and_region():
    K = intrinsics_of(camera_info(), 640, 480, rectified=False)
    assert np.allclose(K, [[500, 0, 319.5], [0, 510, 239.5], [0, 0, 1]])
    half = intrinsics_of(camera_info(), 320, 240, rectified=False)
    assert np.allclose(half, [[250, 0, 159.5], [0, 255, 119.5], [0, 0, 1]])
    assert np.allclose(intrinsics_of(camera_info(binning_x=2, binning_y=2), 320, 240, rectified=False), half)
    info = camera_info()
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 50, 200, 100
    assert np.allclose(intrinsics_of(info, 200, 100, rectified=False)[:2, 2], [219.5, 189.5])
    assert np.allclose(intrinsics_of(camera_info(), 640, 480, rectified=True)[:2, 2], [300, 200])


def test_intrinsics_that_cannot_be_used_say_why():
    with pytest.raises(InputError, match="calibrat"):
        intrinsics_of(CameraInfo(width=640, height=480), 640, 480, rectified=False)
    with pytest.raises(InputError, match=r"distortion.*node.rectified"):
        intrinsics_of(camera_info(d=[0.1, 0, 0, 0, 0]), 640, 480, rectified=False)
    intrinsics_of(camera_info(d=[0.1, 0, 0, 0, 0]), 640, 480, rectified=True)
    with pytest.raises(InputError, match=r"640x480.*640x360"):
        intrinsics_of(camera_info(), 640, 360, rectified=False)


def test_cloud_message_describes_every_field():
    cloud = LabelledCloud(
        np.arange(9, dtype=np.float32).reshape(3, 3),
        np.array([[1, 2, 3], [255, 0, 0], [0, 255, 9]], np.uint8),
        np.array([0, 1, 65535], np.uint32),
        np.array([0, 0.5, 1], np.float32),
    )
    message = cloud_message(cloud, HEADER)
    assert {f.name: f.datatype for f in message.fields}["instance"] == 6  # UINT32
    fields = [point_cloud2.Field(f.name, f.offset, f.datatype, f.count) for f in message.fields]
    back = point_cloud2.unpack(fields, message.point_step, message.width, message.data)
    for name in ("xyz", "rgb", "instance", "confidence"):
        assert np.array_equal(getattr(back, name), getattr(cloud, name)), name
    assert message.row_step == len(message.data) == 3 * message.point_step
    empty = LabelledCloud(*(getattr(cloud, name)[:0] for name in ("xyz", "rgb", "instance", "confidence")))
    assert len(cloud_message(empty, HEADER).data) == 0


def test_numbers_are_the_constants_of_the_messages():
    messages = pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")
    for state, number in STATES.items():
        assert getattr(messages.Instance, f"STATE_{state.name}") == number
    for kind, number in KINDS.items():
        assert getattr(messages.TrackEvent, f"KIND_{kind.name}") == number


any_image = st.builds(
    Image,
    height=st.integers(0, 9) | st.just(2**32 - 1),
    width=st.integers(0, 9) | st.just(2**32 - 1),
    step=st.integers(0, 40) | st.just(2**32 - 1),
    encoding=st.sampled_from([*IMAGE_ENCODINGS, *DEPTH_ENCODINGS, "", "nonsense", "64FC4"]),
    is_bigendian=st.integers(0, 255),
    data=st.binary(max_size=300),
)


@settings(max_examples=300, deadline=None)
@given(any_image)
def test_any_message_is_an_image_or_one_line(message):
    for convert, dtype in ((pixels_of, np.uint8), (depth_of, np.float32)):
        try:
            pixels = convert(message)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert pixels.shape[:2] == (message.height, message.width) and pixels.dtype == dtype


@settings(max_examples=100, deadline=None)
@given(st.builds(CompressedImage, format=st.sampled_from(["jpeg", "png", "", "?"]), data=st.binary(max_size=200)))
def test_any_compressed_message_is_an_image_or_one_line(message):
    with pytest.raises(InputError) as raised:
        pixels_of(message)
    assert "\n" not in str(raised.value)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(allow_nan=True, width=64), min_size=9, max_size=9),
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.integers(0, 4),
    st.integers(0, 2**32 - 1),
)
def test_any_camera_info_is_a_camera_or_one_line(k, width, height, binning, offset):
    info = CameraInfo(k=k, width=width, height=height, binning_x=binning)
    info.roi.x_offset = offset
    try:
        K = intrinsics_of(info, 640, 480, rectified=False)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert Frame(np.zeros((480, 640, 3), np.uint8), K=K).K is not None
