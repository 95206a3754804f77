"""Outlines at the camera's size: a pixel beside an outline goes to the instance whose colour nearby it has."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

Labels = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]

_STEP = 2.5
"""Labels are enlarged by at most this factor before their outlines are looked at again."""
_TILE = 4
"""Pixels; all pixels of a tile are compared with the same colours."""
_REACH = 3
"""Pixels beyond the tile from which these colours are."""
_KNOWN = 4
"""Pixels off all outlines that a colour must be of."""
_LABELS = 8
"""Labels that a tile knows colours of."""
_LIGHTNESS = 0.5
"""Weight of lightness beside colour: light and shade on one thing are one colour sooner than two things are."""
_NOISE = 3.0
"""Standard deviation of the colours of one thing within a few pixels, in CIE Lab with lightness weighed."""
_NEIGHBOUR = 1.0
"""Log odds for its own label that each of the eight pixels around a pixel adds."""
_ROUNDS = 2


def sharpened(labels: Labels, image: npt.NDArray[np.uint8]) -> Labels:
    """Labels (h, w) uint16 at the size of `image` (H, W, 3) uint8 RGB, with the outlines that this shows.

    Outlines of superpixels are a pixel or two off, and have stairs where they were found at a smaller size. So every
    pixel at an outline is compared with the mean colours, in CIE Lab, of all labels that touch there, each over what of
    it lies off all outlines within a few pixels, and is given to the nearest, with a say for the pixels around it.
    Larger pictures are reached in several sizes, at each of which outlines move by two pixels at most. What is too thin
    to have such a colour stays as it is.
    """
    height, width = image.shape[:2]
    scale = math.sqrt(height * width / labels.size)
    sizes = max(1, math.ceil(math.log(max(scale, 1.0), _STEP) - 1e-6))
    for left in range(sizes - 1, -1, -1):
        smaller = scale ** (left / sizes)
        size = (round(width / smaller), round(height / smaller))
        picture = image if left == 0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        large = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
        labels = np.ascontiguousarray(large, np.uint16)
        tile_of, at_outline, tiles = _tiles(labels)
        lab = cv2.cvtColor(picture, cv2.COLOR_RGB2Lab)
        known, colours = _colours(labels, lab, tile_of, at_outline, tiles)
        for _ in range(_ROUNDS):
            labels = _moved(labels, lab, tile_of, known, colours)
    return labels


@compiled("Tuple((int32[:, ::1], bool_[:, ::1], int64))(uint16[:, ::1])")
def _tiles(labels: Labels) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], int]:
    """The number of each tile that has pixels of labels (H, W) at an outline or beside such pixels, -1 for the others;
    which pixels (H, W) have another label beside them; and how many such tiles there are."""
    height, width = labels.shape
    at_outline = np.zeros((height, width), np.bool_)
    tile_of = np.full(((height - 1) // _TILE + 1, (width - 1) // _TILE + 1), -1, np.int32)
    count = 0
    for y in range(height):
        below = min(y + 1, height - 1)
        for x in range(width):
            right = min(x + 1, width - 1)
            across, down = labels[y, x] != labels[y, right], labels[y, x] != labels[below, x]
            if not (across or down):
                continue
            at_outline[y, x] = True
            if across:
                at_outline[y, right] = True
            if down:
                at_outline[below, x] = True
            for row in range(max(y - 1, 0) // _TILE, min(y + 2, height - 1) // _TILE + 1):
                for column in range(max(x - 1, 0) // _TILE, min(x + 2, width - 1) // _TILE + 1):
                    if tile_of[row, column] < 0:
                        tile_of[row, column] = count
                        count += 1
    return tile_of, at_outline, count


@compiled(
    "Tuple((int32[:, ::1], float32[:, :, ::1]))(uint16[:, ::1], uint8[:, :, ::1], int32[:, ::1], bool_[:, ::1], int64)"
)
def _colours(
    labels: Labels,
    lab: npt.NDArray[np.uint8],
    tile_of: npt.NDArray[np.int32],
    at_outline: npt.NDArray[np.bool_],
    tiles: int,
) -> tuple[npt.NDArray[np.int32], Floats]:
    """Of each of T tiles the labels (T, K) that have a colour there, -1 for none, and these colours (T, K, 3).

    labels: (H, W). lab: (H, W, 3) as OpenCV stores it, with L in 0..255. tile_of, at_outline, tiles: see `_tiles`.
    """
    height, width = labels.shape
    known = np.full((tiles, _LABELS), -1, np.int32)
    colours = np.zeros((tiles, _LABELS, 3), np.float32)
    names, number, sums = np.zeros(_LABELS, np.int32), np.zeros(_LABELS, np.int32), np.zeros((_LABELS, 3), np.int32)
    for row in range(tile_of.shape[0]):
        for column in range(tile_of.shape[1]):
            tile = tile_of[row, column]
            if tile < 0:
                continue
            top, left, there = row * _TILE, column * _TILE, 0
            for y in range(max(top - _REACH, 0), min(top + _TILE + _REACH, height)):
                for x in range(max(left - _REACH, 0), min(left + _TILE + _REACH, width)):
                    if at_outline[y, x]:
                        continue
                    label = labels[y, x]
                    k = 0
                    while k < there and names[k] != label:
                        k += 1
                    if k == _LABELS:
                        continue
                    if k == there:
                        names[k], number[k] = label, 0
                        sums[k, 0] = sums[k, 1] = sums[k, 2] = 0
                        there += 1
                    number[k] += 1
                    sums[k, 0] += lab[y, x, 0]
                    sums[k, 1] += lab[y, x, 1]
                    sums[k, 2] += lab[y, x, 2]
            for k in range(there):
                if number[k] >= _KNOWN:
                    known[tile, k] = names[k]
                    for c in range(3):
                        colours[tile, k, c] = np.float32(sums[k, c]) / np.float32(number[k])
    return known, colours


@compiled("bool_(uint16[:, ::1], int64, int64)")
def _alone(labels: Labels, y: int, x: int) -> bool:
    """Whether there is no label but a pixel's own in the three by three pixels around it."""
    here = labels[y, x]
    above, below = max(y - 1, 0), min(y + 1, labels.shape[0] - 1)
    left, right = max(x - 1, 0), min(x + 1, labels.shape[1] - 1)
    others = (labels[above, left] ^ here) | (labels[above, x] ^ here) | (labels[above, right] ^ here)
    others |= (labels[y, left] ^ here) | (labels[y, right] ^ here)
    others |= (labels[below, left] ^ here) | (labels[below, x] ^ here) | (labels[below, right] ^ here)
    return others == 0


@compiled("uint16[:, ::1](uint16[:, ::1], uint8[:, :, ::1], int32[:, ::1], int32[:, ::1], float32[:, :, ::1])")
def _moved(
    labels: Labels,
    lab: npt.NDArray[np.uint8],
    tile_of: npt.NDArray[np.int32],
    known: npt.NDArray[np.int32],
    colours: Floats,
) -> Labels:
    """Labels (H, W) in which every pixel of the tiles has the best one of those in the three by three pixels around it;
    where one of these has no known colour, its own.

    lab, tile_of, known (T, K), colours (T, K, 3): see `_colours`.
    """
    height, width = labels.shape
    lightness, noise = np.float32(_LIGHTNESS * 100 / 255), np.float32(2 * _NOISE * _NOISE)
    names, votes = np.zeros(9, np.int32), np.zeros(9, np.int32)
    result = labels.copy()
    for row in range(tile_of.shape[0]):
        for column in range(tile_of.shape[1]):
            tile = tile_of[row, column]
            if tile < 0:
                continue
            for y in range(row * _TILE, min(row * _TILE + _TILE, height)):
                for x in range(column * _TILE, min(column * _TILE + _TILE, width)):
                    if _alone(labels, y, x):
                        continue
                    # The pixel's own label comes first, and the pixel itself has no vote.
                    names[0], votes[0], there = labels[y, x], -1, 1
                    for down in range(max(y - 1, 0), min(y + 2, height)):
                        for across in range(max(x - 1, 0), min(x + 2, width)):
                            label = labels[down, across]
                            n = 0
                            while n < there and names[n] != label:
                                n += 1
                            if n == there:
                                names[n], votes[n] = label, 0
                                there += 1
                            votes[n] += 1
                    best, chosen = np.float32(np.inf), names[0]
                    for n in range(there):
                        k = 0
                        while k < _LABELS and known[tile, k] != names[n]:
                            k += 1
                        if k == _LABELS:
                            chosen = names[0]
                            break
                        apart = lightness * (np.float32(lab[y, x, 0]) - colours[tile, k, 0])
                        square = apart * apart
                        for c in range(1, 3):
                            apart = np.float32(lab[y, x, c]) - colours[tile, k, c]
                            square += apart * apart
                        cost = square / noise - np.float32(_NEIGHBOUR) * np.float32(votes[n])
                        if cost < best:
                            best, chosen = cost, names[n]
                    result[y, x] = chosen
    return result
