"""Boxes of a label image, and the image as it is shown."""

from __future__ import annotations

import numpy as np

from mastsam_ros.tracker.outlines import bounding_boxes


def test_boxes() -> None:
    labels = np.zeros((20, 30), np.uint16)
    labels[3:7, 5:15] = 65535
    labels[0, 0], labels[19, 29], labels[10, 29] = 7, 7, 8
    assert bounding_boxes(labels) == {
        7: (2, (0, 0, 30, 20)),
        8: (1, (29, 10, 1, 1)),
        65535: (40, (5, 3, 10, 4)),
    }
    assert bounding_boxes(np.zeros((4, 5), np.uint16)) == {}
