"""Seeded watershed of a picture, each pixel of whose lines goes to one of its sides."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

Labels = npt.NDArray[np.int32]
Steps = npt.NDArray[np.uint8]

_LEVELS = 256
_NEW, _BEYOND, _WAITING, _LINE = 0, -1, -2, -3


@compiled("uint8(uint8[:, :, ::1], int64, int64, int64, int64)")
def _step(image: npt.NDArray[np.uint8], y0: int, x0: int, y1: int, x1: int) -> np.uint8:
    """The most by which a channel differs between two pixels."""
    most = np.uint8(0)
    for c in range(3):
        low, high = min(image[y0, x0, c], image[y1, x1, c]), max(image[y0, x0, c], image[y1, x1, c])
        most = max(most, np.uint8(high - low))
    return most


@compiled("void(uint8[:, :, ::1], uint8[::1], uint8[::1])")
def _steps(image: npt.NDArray[np.uint8], across: Steps, down: Steps) -> None:
    """Writes, for each pixel of an image (H, W, 3) in a frame of one pixel, the most that a channel changes to its
    right and to its lower neighbour; 0 where that is outside."""
    height, width = image.shape[:2]
    for y in range(height):
        first = (y + 1) * (width + 2) + 1
        for x in range(width - 1):
            across[first + x] = _step(image, y, x, y, x + 1)
        if y + 1 < height:
            for x in range(width):
                down[first + x] = _step(image, y, x, y + 1, x)


@compiled("int64(int32[::1], int32[::1], int32[::1], int32[::1], int64, int64, int64)")
def _wait(labels: Labels, after: Labels, first: Labels, last: Labels, pixel: int, step: int, level: int) -> int:
    """Lets a pixel wait for its turn, behind those whose step is the same; the lower one of step and level."""
    labels[pixel] = _WAITING
    after[pixel] = -1
    if first[step] < 0:
        first[step] = pixel
    else:
        after[last[step]] = pixel
    last[step] = pixel
    return min(step, level)


@compiled("void(int32[::1], uint8[:, :, ::1])")
def _give_away(labels: Labels, image: npt.NDArray[np.uint8]) -> None:
    """Gives the pixels of lines, and what they enclose, the label of their most similar neighbour, in place. Labels
    have a frame of one pixel round the image."""
    row = image.shape[1] + 2
    lines, count = np.empty(len(labels), np.int32), 0
    for p in range(len(labels)):
        lines[count] = p
        count += (labels[p] <= 0) & (labels[p] != _BEYOND)
    given = np.empty(count, np.int32)
    while count > 0:
        for n in range(count):
            p = lines[n]
            y, x = p // row - 1, p % row - 1
            given[n] = 0
            least = 1 << 30
            for to, dy, dx in ((-1, 0, -1), (1, 0, 1), (-row, -1, 0), (row, 1, 0)):
                if labels[p + to] > 0:
                    distance = 0
                    for c in range(3):
                        apart = np.int32(image[y, x, c]) - np.int32(image[y + dy, x + dx, c])
                        distance += apart * apart
                    if distance < least:
                        least, given[n] = distance, labels[p + to]
        # In rounds: what was given in this one does not spread before the next.
        left = 0
        for n in range(count):
            if given[n] > 0:
                labels[lines[n]] = given[n]
            else:
                lines[left] = lines[n]
                left += 1
        if left == count:
            return
        count = left


@compiled("int32[:, ::1](uint8[:, :, ::1], int32[:, ::1])")
def watershed(image: npt.NDArray[np.uint8], seeds: Labels) -> Labels:
    """Labels (H, W) > 0 that grow from seeds (H, W), 0 where there is none, over an image (H, W, 3) (Meyer's flooding).

    They grow over small steps of colour first, over equal ones in the order in which they were reached. What several
    reach at once is a line, over which nothing grows; in the end it goes to the neighbour of the most similar colour.
    To the bit what OpenCV's watershed gives, in four fifths of its time, if its lines are given away like this. Without
    lines, where each pixel goes to the nearest neighbour at once, outlines are a little better and fewer things are
    found.
    """
    height, width = seeds.shape
    row = width + 2
    # A frame round the image spares every pixel the question whether it is at the border.
    labels = np.full((height + 2) * row, _BEYOND, np.int32)
    across, down = np.zeros(len(labels), np.uint8), np.zeros(len(labels), np.uint8)
    _steps(image, across, down)
    for y in range(height):
        for x in range(width):
            labels[(y + 1) * row + 1 + x] = seeds[y, x]
    first, last, after = np.full(_LEVELS, -1, np.int32), np.empty(_LEVELS, np.int32), np.empty(len(labels), np.int32)
    level = _LEVELS
    for p in range(row, len(labels) - row):
        if labels[p] != _NEW:
            continue
        least = _LEVELS
        for q, step in ((p - 1, across[p - 1]), (p + 1, across[p]), (p - row, down[p - row]), (p + row, down[p])):
            if labels[q] > 0:
                least = min(least, step)
        if least < _LEVELS:
            level = _wait(labels, after, first, last, p, least, level)
    while level < _LEVELS:
        p = first[level]
        if p < 0:
            level += 1
            continue
        first[level] = after[p]
        # All is read before anything is written, or the one would wait for the other.
        left, right, above, below = labels[p - 1], labels[p + 1], labels[p - row], labels[p + row]
        to_left, to_right, to_above, to_below = across[p - 1], across[p], down[p - row], down[p]
        label = max(max(left, right), max(above, below))
        several = ((left > 0) & (left != label)) | ((right > 0) & (right != label))
        several |= ((above > 0) & (above != label)) | ((below > 0) & (below != label))
        if several:
            labels[p] = _LINE
            continue
        labels[p] = label
        if left == _NEW:
            level = _wait(labels, after, first, last, p - 1, to_left, level)
        if right == _NEW:
            level = _wait(labels, after, first, last, p + 1, to_right, level)
        if above == _NEW:
            level = _wait(labels, after, first, last, p - row, to_above, level)
        if below == _NEW:
            level = _wait(labels, after, first, last, p + row, to_below, level)
    _give_away(labels, image)
    return labels.reshape(height + 2, row)[1:-1, 1:-1].copy()
