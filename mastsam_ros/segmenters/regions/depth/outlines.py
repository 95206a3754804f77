"""Segments with their holes filled and, where noise blurs outlines, outlines that follow the picture's colours."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.segmenters.regions.depth.connected import Floats, Ints, distance_inside
from mastsam_ros.segmenters.regions.depth.planes import PLANE_SIGMAS
from mastsam_ros.segmenters.regions.depth.surface import Surface, median_of_some

FILL_RADIUS_PX = 8
"""Missing depth is filled up to this far from something measured; wider holes stay unlabelled."""
LARGEST_BAND_PX = 3


def fill(labels: Ints, surface: Surface, lab: Floats | None) -> Ints:
    """Gives pixels without a label, and where noise blurs outlines those too, to the neighbour of like colour.

    Watershed from what is sure; where depth is missing over a wide area the label stays 0.
    """
    count = int(labels.max())
    if count == 0:
        return labels
    markers = labels.copy()
    if lab is None:
        picture = np.zeros((*labels.shape, 3), np.uint8)
    else:
        picture = np.clip(lab + 0.5, 0, 255).astype(np.uint8)
        z = 1 / median_of_some(surface.w[surface.valid])
        # An outline is unsure by as many pixels as the distance that noise hides.
        hidden = PLANE_SIGMAS * surface.smooth_noise * z * surface.focal
        band = int(np.clip(np.rint(hidden), 0, LARGEST_BAND_PX))
        if band:
            inside = distance_inside(labels)
            thickest = np.zeros(count + 1, np.float32)
            np.maximum.at(thickest, labels.ravel(), inside.ravel())
            markers[(inside <= band) & (inside <= 0.6 * thickest[labels])] = 0
    far = cv2.distanceTransform((labels == 0).astype(np.uint8), cv2.DIST_L2, 3) > FILL_RADIUS_PX
    markers[far] = count + 1
    # OpenCV never floods the outermost pixels: a frame round the image keeps them.
    framed = np.zeros((labels.shape[0] + 2, labels.shape[1] + 2), np.int32)
    framed[1:-1, 1:-1] = markers
    cv2.watershed(cv2.copyMakeBorder(picture, 1, 1, 1, 1, cv2.BORDER_REPLICATE), framed)
    filled = np.ascontiguousarray(framed[1:-1, 1:-1])
    _close_lines(filled, picture)
    filled[filled > count] = 0
    return filled


def _close_lines(labels: Ints, picture: npt.NDArray[np.uint8]) -> None:
    """Gives the lines that a watershed leaves (-1) to the neighbour of most similar colour; changed in place."""
    height, width = labels.shape
    flat, colours = labels.ravel(), picture.reshape(-1, 3).astype(np.int32)
    lines = np.flatnonzero(flat < 0)
    while len(lines):
        y, x = np.divmod(lines, width)
        best = np.full(len(lines), np.iinfo(np.int32).max)
        found = np.full(len(lines), -1, np.int32)
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            at = np.clip(y + dy, 0, height - 1) * width + np.clip(x + dx, 0, width - 1)
            distance = np.abs(colours[at] - colours[lines]).sum(1)
            better = (flat[at] > 0) & (distance < best)
            best[better], found[better] = distance[better], flat[at][better]
        if (found < 0).all():
            flat[lines] = 0
            return
        flat[lines] = found
        lines = lines[found < 0]
