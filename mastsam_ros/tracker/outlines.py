"""Label images from working size to the camera's size, with outlines that follow the picture."""

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
