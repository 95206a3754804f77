"""The label image as it is shown: without crumbs, at the camera's size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


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
    speck = small[component]
    _, nearest = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    owner = np.zeros(int(nearest.max()) + 1, np.uint16)
    labelled = empty == 0
    owner[nearest[labelled]] = labels[labelled]
    return np.where(speck, owner[nearest], labels)
