"""Pixels that belong together: components over links between neighbours, and growth along such links."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@compiled("Tuple((int64, int32[:, ::1]))(bool_[:, ::1], bool_[:, ::1], bool_[:, ::1])")
def components(inside: Bools, across: Bools, down: Bools) -> tuple[int, Ints]:
    """Connected components of the pixels `inside` over the open links between them, to the right and down.

    Their number, and (H, W) int32, 1.. in the order of their first pixels, 0 outside.
    """
    height, width = inside.shape
    labels = np.zeros((height, width), np.int32)
    root = np.zeros(height * width + 1, np.int32)
    number = 0
    for v in range(height):
        for u in range(width):
            if not inside[v, u]:
                continue
            a = labels[v, u - 1] if u > 0 and across[v, u - 1] else 0
            b = labels[v - 1, u] if v > 0 and down[v - 1, u] else 0
            if a == 0 and b == 0:
                number += 1
                root[number] = number
                a = number
            elif a == 0:
                a = b
            elif b != 0 and a != b:
                while root[a] != a:
                    a = root[a]
                while root[b] != b:
                    root[b] = root[root[b]]
                    b = root[b]
                a, b = min(a, b), max(a, b)
                root[b] = a
            labels[v, u] = a
    count = 0
    for n in range(1, number + 1):
        if root[n] == n:
            count += 1
            root[n] = count
        else:
            # Roots are lower than what hangs on them.
            root[n] = root[root[n]]
    for v in range(height):
        for u in range(width):
            labels[v, u] = root[labels[v, u]]
    return count, labels


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
