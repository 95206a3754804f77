"""Labelled clouds as PointCloud2 bytes: every field keeps its own type and every bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mastsam_ros.io.point_cloud2 import FIELDS, POINT_STEP, Field, pack, unpack
from mastsam_ros.types import InputError, LabelledCloud


@given(st.integers(0, 20).flatmap(lambda n: st.tuples(
    arrays.arrays(np.float32, (n, 3), elements=st.floats(width=32, allow_nan=False)),
    arrays.arrays(np.uint8, (n, 3)),
    arrays.arrays(np.uint32, (n,)),
    arrays.arrays(np.float32, (n,), elements=st.floats(0, 1, width=32)),
)))  # fmt: skip
def test_what_is_packed_comes_back_bit_for_bit(columns):
    cloud = LabelledCloud(*columns)
    data = pack(cloud)
    assert len(data) == len(cloud) * POINT_STEP
    back = unpack(FIELDS, POINT_STEP, len(cloud), data)
    for name in ("xyz", "rgb", "instance", "confidence"):
        assert getattr(back, name).tobytes() == getattr(cloud, name).tobytes(), name


def test_colour_has_the_layout_of_pcl():
    cloud = LabelledCloud(
        np.zeros((1, 3), np.float32), np.array([[1, 2, 3]], np.uint8), np.array([7], np.uint32), np.ones(1, np.float32)
    )
    assert pack(cloud)[12:16].tobytes() == bytes([3, 2, 1, 0])
    assert pack(cloud)[16:20].tobytes() == bytes([7, 0, 0, 0])


def test_other_fields_and_big_endian_are_read():
    columns = {"pad": "V4", "instance": ">u2", "confidence": ">f8", "x": ">f4", "y": ">f4", "z": ">f4", "rgb": ">u4"}
    kind = np.dtype(list(columns.items()))
    points = np.zeros(2, kind)
    points["instance"], points["confidence"], points["x"], points["rgb"] = (5, 6), 0.5, (1, 2), 0x102030
    numbers = {">u2": 4, ">f8": 8, ">f4": 7, ">u4": 6}
    fields = [Field(n, kind.fields[n][1], numbers[kind.fields[n][0].str], 1) for n in kind.names[1:]]
    cloud = unpack(fields, kind.itemsize, 2, points.tobytes(), is_bigendian=True)
    assert cloud.instance.tolist() == [5, 6] and cloud.xyz[:, 0].tolist() == [1, 2]
    assert cloud.rgb.tolist() == [[16, 32, 48]] * 2 and cloud.confidence.tolist() == [0.5, 0.5]


def test_a_cloud_that_is_not_labelled_says_what_is_missing():
    with pytest.raises(InputError, match="missing: instance, confidence"):
        unpack(FIELDS[:4], POINT_STEP, 0, b"")
    with pytest.raises(InputError, match="needs 48 bytes, got 24"):
        unpack(FIELDS, POINT_STEP, 2, bytes(24))
    with pytest.raises(InputError, match="datatype 99"):
        unpack([*FIELDS, Field("odd", 0, 99)], POINT_STEP, 1, bytes(24))
    with pytest.raises(InputError, match="do not fit"):
        unpack(FIELDS, 8, 1, bytes(24))
