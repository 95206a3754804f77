"""Intrinsics from the fields of a sensor_msgs/CameraInfo, whoever read the message."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.cameras import scale_intrinsics
from mastsam_ros.types import InputError

_STEEPEST = 100.0
"""Largest tangent of the angle between a pixel's ray and the axis, 89.4 degrees: no flat picture shows more..."""
_LONGEST = 1000.0
"""... and the longest focal length, in sizes of the image."""


def intrinsics_of(info: Any, width: int, height: int, rectified: bool) -> npt.NDArray[np.float64]:
    """K (3, 3) for an image of this size: binning, region of interest and resizing are followed.

    rectified: P holds, else K, and then the lens must not distort.

    Raises InputError for an uncalibrated or distorting camera, and for an image of another shape.
    """
    K = np.array(info.p, dtype=np.float64).reshape(3, 4)[:, :3] if rectified else np.array(info.k).reshape(3, 3)
    if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise InputError("camera_info holds no calibration (focal length 0): calibrate the camera, no points till then")
    if not rectified and np.any(np.abs(np.array(info.d)) > 1e-9):
        raise InputError(
            "camera_info tells of lens distortion: no points; rectify the images (image_proc) and tell the node with "
            "node.rectified:=true"
        )
    K = K.astype(np.float64).copy()
    K[2] = (0, 0, 1)
    K[0, 2] -= info.roi.x_offset
    K[1, 2] -= info.roi.y_offset
    full_width, full_height = info.roi.width or info.width, info.roi.height or info.height
    if full_width == 0 or full_height == 0:
        full_width, full_height = width * max(info.binning_x, 1), height * max(info.binning_y, 1)
    scale_x, scale_y = width / full_width, height / full_height
    # One pixel of rounding either way is still the same picture.
    if abs(scale_x * full_height - height) > 1 and abs(scale_y * full_width - width) > 1:
        raise InputError(
            f"camera_info is for {full_width}x{full_height}, the image is {width}x{height}: "
            "not the same picture resized, no points"
        )
    K = scale_intrinsics(K, scale_x, scale_y)
    size, focal, centre = np.array([width, height]), K[[0, 1], [0, 1]], K[:2, 2]
    steepest = np.maximum(np.abs(centre), np.abs(size - centre)) / focal
    if not (np.isfinite(K).all() and (steepest <= _STEEPEST).all() and (focal <= _LONGEST * size).all()):
        raise InputError(
            f"camera_info is of no lens: focal lengths {focal[0]:.4g}, {focal[1]:.4g} and centre {centre[0]:.4g},"
            f" {centre[1]:.4g} pixels for {width}x{height}: no points; calibrate the camera"
        )
    return K
