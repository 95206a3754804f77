"""Pixels that belong together: components over links between neighbours, and growth along such links."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


def components(inside: Bools, across: Bools, down: Bools) -> tuple[int, Ints]:
    """Connected components of the pixels `inside` over the open links: their number, and (H, W) int32, 0 outside.

    Pixels and links are drawn as one image of twice the size.
    """
    height, width = inside.shape
    grid = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    grid[::2, ::2] = inside
    grid[::2, 1::2] = across
    grid[1::2, ::2] = down
    count, labels = cv2.connectedComponents(grid, connectivity=4)
    return count - 1, np.ascontiguousarray(labels[::2, ::2])


def neighbour_slices(step: int) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of index expressions: pixels, and their neighbours `step` to the right, left, below, above."""
    everything, near, far = slice(None), slice(0, -step), slice(step, None)
    across = ((everything, near), (everything, far))
    down = ((near, everything), (far, everything))
    return [across, across[::-1], down, down[::-1]]


def grow(parts: Ints, loose: Bools, across: Bools, down: Bools, steps: int) -> None:
    """Lets parts grow over open links into loose pixels that have none; changed in place."""
    width = loose.shape[1]
    flat = parts.ravel()
    links = np.zeros((4, *loose.shape), bool)
    links[0, :, :-1], links[1, :, 1:] = across, across
    links[2, :-1], links[3, 1:] = down, down
    links = links.reshape(4, -1)
    empty = np.flatnonzero(loose.ravel() & (flat == 0))
    for _ in range(steps):
        found = np.zeros(len(empty), np.int32)
        for link, offset in zip(links, (1, -1, width, -width), strict=True):
            open_ = link[empty] & (found == 0)
            found[open_] = flat[empty[open_] + offset]
        if not found.any():
            return
        flat[empty] = found
        empty = empty[found == 0]


def distance_inside(labels: npt.NDArray) -> Floats:
    """(H, W): distance in pixels to the nearest pixel with another label."""
    edge = np.zeros(labels.shape, bool)
    for first, second in neighbour_slices(1):
        edge[first] |= labels[first] != labels[second]
    return cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 3) + 1
