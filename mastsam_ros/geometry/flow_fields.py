"""What every user of a dense flow (H, W, 2), in pixels, needs of it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled


@compiled("UniTuple(float32[:, ::1], 2)(Array(float32, 3, 'C', readonly=True))")
def led_to(flow: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """x and y, (H, W) float32 each, of where a flow (H, W, 2) leads, in pixels: the two maps of cv2.remap."""
    height, width = flow.shape[:2]
    to_x, to_y = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            to_x[y, x], to_y[y, x] = np.float32(x) + flow[y, x, 0], np.float32(y) + flow[y, x, 1]
    return to_x, to_y


def resized(field: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A field (H, W) or (H, W, C) at another size (height, width), linear in between; the field itself if it has it.

    The numbers stay as they are: a flow is still in pixels of its old size.
    """
    if field.shape[:2] == size:
        return field
    return np.asarray(cv2.resize(field, size[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.float32)
