"""How two things in a picture touch: whether the outline of one goes on in the other's, or there is a notch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

Ints = npt.NDArray[np.int64]
Sides = npt.NDArray[np.uint8]

DISC = 0.02
"""Radius, as a share of the root of the picture's pixels, of the discs at the ends of a contact."""
_SAME_END = 3
"""Pixels, to the side or down, from one to the next at one end of a contact, at most."""
FIRST, SECOND, UNKNOWN = 1, 2, 3
"""Of the pixels around two things: which are the one's, which are the other's, and which are of something else, behind
which both may go on."""


@dataclass(frozen=True)
class Touch:
    """area: (2,) pixels of both. corner: how much of the discs around the ends of their contact both fill, the fullest
    one: half where an outline goes on straight, or where there are no ends, more in a notch. contact: the share of the
    larger one's outline at which they touch. convexity: how much of their convex hull both fill."""

    area: Ints
    corner: float
    contact: float
    convexity: float

    @staticmethod
    def of(sides: Sides, pixels: int) -> Touch | None:
        """sides: (h, w), `FIRST`, `SECOND`, `UNKNOWN` or 0; the part of a picture of so many pixels that both lie in,
        with `margin` around them as far as the picture reaches. None if they do not touch."""
        area, outline, length, rim, corner = _measured(sides, margin(pixels) - 1)
        if not length:
            return None
        hull = cv2.convexHull(rim)
        # It goes through the middles of pixels.
        whole = cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1
        unknown = sides == UNKNOWN
        if unknown.any():
            whole -= (cv2.fillConvexPoly(np.zeros_like(sides), hull, 1) > 0)[unknown].sum()
        return Touch(area, corner, float(length / outline[area.argmax()]), float(area.sum() / whole))


def margin(pixels: int) -> int:
    """Pixels around two things that `Touch.of` looks at, in a picture of so many."""
    return max(2, round(DISC * math.sqrt(pixels))) + 1


def around(box: Ints, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The part of a picture (H, W) that `Touch.of` needs of what lies in a box: first row and column, and those behind
    the last (4,)."""
    more, (height, width) = margin(shape[0] * shape[1]), shape
    top, left, bottom, right = (int(edge) for edge in box)
    return slice(max(top - more, 0), min(bottom + more, height)), slice(max(left - more, 0), min(right + more, width))


@compiled("float64(uint8[:, ::1])")
def symmetry(sides: Sides) -> float:
    """IoU of two things with their mirror image in the line through the middles of both.

    sides: (h, w), as for `Touch.of`, both are there. The parts of a thing often lie on its axis; things of which one
    stands beside the other or before it seldom have one. 0 where both middles are the same.
    """
    rows, columns = sides.shape
    count, x_sum, y_sum = np.zeros(3), np.zeros(3), np.zeros(3)
    for y in range(rows):
        for x in range(columns):
            side = sides[y, x]
            if side in (FIRST, SECOND):
                count[side] += 1
                x_sum[side] += x
                y_sum[side] += y
    x0, y0 = x_sum[FIRST] / count[FIRST], y_sum[FIRST] / count[FIRST]
    along_x, along_y = x_sum[SECOND] / count[SECOND] - x0, y_sum[SECOND] / count[SECOND] - y0
    length = math.hypot(along_x, along_y)
    if length == 0:
        return 0.0
    along_x, along_y = along_x / length, along_y / length
    filled = 0
    for y in range(rows):
        for x in range(columns):
            if sides[y, x] in (FIRST, SECOND):
                twice = 2 * ((x - x0) * along_x + (y - y0) * along_y)
                mirrored_x = round(twice * along_x - (x - x0) + x0)
                mirrored_y = round(twice * along_y - (y - y0) + y0)
                if 0 <= mirrored_x < columns and 0 <= mirrored_y < rows:
                    filled += sides[mirrored_y, mirrored_x] in (FIRST, SECOND)
    return filled / (2 * (count[FIRST] + count[SECOND]) - filled)


@compiled("Tuple((int64[::1], int64[::1], int64, int32[:, ::1], float64))(uint8[:, ::1], int64)")
def _measured(sides: Sides, radius: int) -> tuple[Ints, Ints, int, npt.NDArray[np.int32], float]:
    """As `Touch.of`: pixels of both and how long their outlines are, (2,), how long their contact is, in pairs of
    pixels; the outermost pixels of both in every row, (x, y); and how much both fill of the discs of this radius."""
    rows, columns = sides.shape
    area, outline, length = np.zeros(2, np.int64), np.zeros(2, np.int64), 0
    rim, ends = np.empty((2 * rows, 2), np.int32), np.empty((rows * columns, 2), np.int32)
    outermost, count = 0, 0
    for y in range(rows):
        first, last = -1, -1
        for x in range(columns):
            here = sides[y, x]
            if here in (0, UNKNOWN):
                continue
            first, last = (x if first < 0 else first), x
            area[here - 1] += 1
            at_contact, at_rim = False, False
            for ny in range(max(0, y - 1), min(rows, y + 2)):
                for nx in range(max(0, x - 1), min(columns, x + 2)):
                    there = sides[ny, nx]
                    at_rim |= there == 0
                    if there != here and (ny == y or nx == x):
                        outline[here - 1] += 1
                        at_contact |= there in (FIRST, SECOND)
                        length += here == FIRST and there == SECOND
            if at_contact and at_rim:
                ends[count, 0], ends[count, 1] = x, y
                count += 1
        if first >= 0:
            rim[outermost, 0], rim[outermost, 1] = first, y
            rim[outermost + 1, 0], rim[outermost + 1, 1] = last, y
            outermost += 2
    # The ends: pixels that lie next to each other are one.
    group = np.arange(count)
    for n in range(count):
        for other in range(n):
            if max(abs(ends[n, 0] - ends[other, 0]), abs(ends[n, 1] - ends[other, 1])) <= _SAME_END:
                old, new = group[n], group[other]
                if old != new:
                    for member in range(n + 1):
                        if group[member] == old:
                            group[member] = new
    filled, members = np.zeros(count), np.zeros(count)
    for n in range(count):
        inside, disc = 0, 0
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if dy * dy + dx * dx <= radius * radius:
                    y, x = min(max(ends[n, 1] + dy, 0), rows - 1), min(max(ends[n, 0] + dx, 0), columns - 1)
                    side = sides[y, x]
                    inside += side in (FIRST, SECOND)
                    disc += side != UNKNOWN
        filled[group[n]] += inside / disc
        members[group[n]] += 1
    corner = 0.0 if count else 0.5
    for n in range(count):
        if members[n]:
            corner = max(corner, filled[n] / members[n])
    return area, outline, length, rim[:outermost].copy(), corner
