"""The label image as it is shown: without crumbs, at the camera's size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled


def enlarge(labels: npt.NDArray[np.uint16], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Labels (h, w) uint16 at the size of `image` (H, W, 3); unchanged if they have that size already."""
    height, width = image.shape[:2]
    if labels.shape == (height, width):
        return labels
    return np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint16)


def without_crumbs(labels: npt.NDArray[np.uint16], largest: float) -> npt.NDArray[np.uint16]:
    """Labels (H, W) uint16 in which unlabelled specks of less than `largest` pixels have the nearest label.

    Such specks are too small to be tracks of their own; larger unlabelled regions stay unlabelled.
    """
    empty = (labels == 0).astype(np.uint8)
    _, component, stats, _ = cv2.connectedComponentsWithStats(empty, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < largest
    small[0] = False
    if not small.any() or not labels.any():
        return labels
    _, nearest = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    return _filled(labels, component, small, nearest)


@compiled("uint16[:, ::1](uint16[:, ::1], int32[:, ::1], bool_[::1], int32[:, ::1])")
def _filled(
    labels: npt.NDArray[np.uint16],
    component: npt.NDArray[np.int32],
    small: npt.NDArray[np.bool_],
    nearest: npt.NDArray[np.int32],
) -> npt.NDArray[np.uint16]:
    """Labels (H, W), and those of the nearest pixels in the components (H, W) that are small. nearest: (H, W), the same
    number for a labelled pixel and the unlabelled ones to which it is the nearest."""
    height, width = labels.shape
    owner = np.zeros(nearest.max() + 1, np.uint16)
    for y in range(height):
        for x in range(width):
            if labels[y, x] > 0:
                owner[nearest[y, x]] = labels[y, x]
    filled = labels.copy()
    for y in range(height):
        for x in range(width):
            if small[component[y, x]]:
                filled[y, x] = owner[nearest[y, x]]
    return filled


def bounding_boxes(labels: npt.NDArray[np.uint16]) -> dict[int, tuple[int, tuple[int, int, int, int]]]:
    """Per id of a label image (H, W): its area in pixels and its box (x, y, width, height)."""
    table = _extents(np.ascontiguousarray(labels), int(labels.max(initial=0)) + 1)
    ids = np.flatnonzero(table[1:, 0]) + 1
    return {
        id: (area, (left, top, right - left + 1, bottom - top + 1))
        for id, (area, left, top, right, bottom) in zip(ids.tolist(), table[ids].tolist(), strict=True)
    }


@compiled("int64[:, ::1](uint16[:, ::1], int64)")
def _extents(labels: npt.NDArray[np.uint16], count: int) -> npt.NDArray[np.int64]:
    """(count, 5): pixels, left, top, right and bottom of each label."""
    height, width = labels.shape
    table = np.zeros((count, 5), np.int64)
    table[:, 1], table[:, 2] = width, height
    for y in range(height):
        begin = 0
        for x in range(1, width + 1):
            if x < width and labels[y, x] == labels[y, begin]:
                continue
            of = table[labels[y, begin]]
            of[0] += x - begin
            of[1], of[2] = min(of[1], begin), min(of[2], y)
            of[3], of[4] = max(of[3], x - 1), max(of[4], y)
            begin = x
    return table
