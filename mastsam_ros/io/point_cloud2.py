"""The labelled cloud as the bytes of a sensor_msgs/PointCloud2 and back, with numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.types import InputError, LabelledCloud


@dataclass(frozen=True)
class Field:
    """A PointField: datatype is PointField's number, offset is in bytes."""

    name: str
    offset: int
    datatype: int
    count: int = 1


UINT32, FLOAT32 = 6, 7
FIELDS = (
    Field("x", 0, FLOAT32),
    Field("y", 4, FLOAT32),
    Field("z", 8, FLOAT32),
    Field("rgb", 12, FLOAT32),
    Field("instance", 16, UINT32),
    Field("confidence", 20, FLOAT32),
)
"""Layout of `pack`. rgb holds the bits 0x00RRGGBB in a float, as PCL and RViz expect."""
POINT_STEP = 24

# PointField's INT8 .. FLOAT64
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", UINT32: "u4", FLOAT32: "f4", 8: "f8"}


def pack(cloud: LabelledCloud) -> npt.NDArray[np.uint8]:
    """The cloud as (M * POINT_STEP,) bytes, little-endian, in the layout of FIELDS."""
    # Six columns of four bytes: three times as fast as a structured array.
    points = np.empty((len(cloud), POINT_STEP // 4), dtype="<f4")
    points[:, :3] = cloud.xyz
    blue_green_red_0 = np.zeros((len(cloud), 4), np.uint8)
    blue_green_red_0[:, :3] = cloud.rgb[:, ::-1]
    points.view("<u4")[:, 3] = blue_green_red_0.view("<u4")[:, 0]
    points.view("<u4")[:, 4] = cloud.instance
    points[:, 5] = cloud.confidence
    return points.reshape(-1).view(np.uint8)


def unpack(
    fields: Sequence[Field],
    point_step: int,
    count: int,
    data: bytes | npt.NDArray[np.uint8],
    is_bigendian: bool = False,
) -> LabelledCloud:
    """A cloud from the bytes of a PointCloud2 without row padding; other fields and paddings are skipped.

    Raises InputError if x, y, z, rgb, instance or confidence is not there, or the bytes do not suffice.
    """
    missing = [field.name for field in FIELDS if field.name not in {given.name for given in fields}]
    if missing:
        raise InputError(f"cloud needs the fields {', '.join(f.name for f in FIELDS)}; missing: {', '.join(missing)}")
    if len(data) < count * point_step:
        raise InputError(f"cloud of {count} points needs {count * point_step} bytes, got {len(data)}")
    structure = _structure(fields, point_step, ">" if is_bigendian else "<")
    points = np.frombuffer(data, dtype=structure, count=count)
    colour = np.ascontiguousarray(points["rgb"]).view(points["rgb"].dtype.str.replace("f", "u")).astype(np.uint32)
    return LabelledCloud(
        xyz=np.stack([points[name] for name in "xyz"], axis=1).astype(np.float32),
        rgb=np.stack([colour >> 16 & 255, colour >> 8 & 255, colour & 255], axis=1).astype(np.uint8),
        instance=points["instance"].astype(np.uint32),
        confidence=points["confidence"].astype(np.float32),
    )


def _structure(fields: Sequence[Field], point_step: int, order: str) -> np.dtype[np.void]:
    unknown = [field for field in fields if field.datatype not in _TYPES]
    if unknown:
        raise InputError(f"cloud field {unknown[0].name} has the unknown datatype {unknown[0].datatype}")
    formats = [(order + _TYPES[field.datatype], (max(field.count, 1),)) for field in fields]
    try:
        return np.dtype(
            {
                "names": [field.name for field in fields],
                "formats": [kind if shape == (1,) else (kind, shape) for kind, shape in formats],
                "offsets": [field.offset for field in fields],
                "itemsize": point_step,
            }
        )
    except ValueError as error:
        raise InputError(f"cloud fields do not fit: {error}") from error
