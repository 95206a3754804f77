"""Superpixels that follow weak outlines, and the graph of their contacts: what every part of the
embedded default works on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.segmenters.regions.mixed_superpixels import split_mixed
from mastsam_ros.segmenters.regions.watershed import watershed

SPACING = 6
"""Pixels between seeds: small enough for thin limbs at the working size, about 4,500 superpixels."""
BILATERAL_DIAMETER = 5
BILATERAL_COLOUR = 20.0
BILATERAL_SPACE = 3.0
LIGHTNESS_SCALE = 100.0 / 255.0
"""OpenCV stretches L to 0..255 while a and b keep CIE units; shadows should not outweigh colours."""


@dataclass(frozen=True, eq=False)
class RegionGraph:
    """Superpixels of one frame and their contacts.

    labels: (H, W) int32, superpixel index 0..count-1. area: (S,) float64 pixels, >= 1.
    edges: (E, 2) int32 superpixels that touch (4-neighbours), each pair once, edges[:, 0] < edges[:, 1].
    boundary: (E,) float64 contacts, in pairs of pixels. contrast: (E,) float64 mean gradient along the
    contact (the larger of each pair's two pixels), zeros where no gradient image was given.
    """

    labels: npt.NDArray[np.int32]
    count: int
    area: npt.NDArray[np.float64]
    edges: npt.NDArray[np.int32]
    boundary: npt.NDArray[np.float64]
    contrast: npt.NDArray[np.float64]

    def sum(self, values: npt.NDArray) -> npt.NDArray[np.float64]:
        """Sum of `values` (H, W) or (H, W, C) over each superpixel: (S,) or (S, C)."""
        channels = np.ascontiguousarray(values.reshape(*self.labels.shape, -1), np.float32)
        return sums_over(self.labels, channels, self.count).reshape(self.count, *values.shape[2:])

    def moments(self, colours: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """(S, 10): pixels, sums of colours (H, W, 3), and of their products xx, xy, xz, yy, yz, zz."""
        return _moments(self.labels, colours, self.count)

    def mean(self, values: npt.NDArray) -> npt.NDArray[np.float64]:
        """Mean of `values` (H, W) or (H, W, C) over each superpixel: (S,) or (S, C)."""
        return self.sum(values) / (self.area if values.ndim == 2 else self.area[:, None])

    @property
    def cells(self) -> npt.NDArray[np.int32]:
        """The superpixel of each cell, see `in_cells`."""
        return in_cells(self.labels)

    def mean_of_cells(self, values: npt.NDArray) -> npt.NDArray[np.float64]:
        """Mean over each superpixel, (S,), of the values of cells (H // 2, W // 2)."""
        return _sums_over_cells(self.labels, np.ascontiguousarray(values, np.float32), self.count) / self.area

    def components(
        self, key: npt.NDArray, joined: npt.NDArray[np.bool_] | None = None
    ) -> tuple[int, npt.NDArray[np.int32]]:
        """Connected groups of superpixels with equal `key` (S,): their number and each one's group (S,).

        joined: (E,) bool, contacts that may connect at all; by default every one.
        """
        same = key[self.edges[:, 0]] == key[self.edges[:, 1]]
        if joined is not None:
            same &= joined
        return _groups(self.count, self.edges, same)


def build_region_graph(
    smooth: npt.NDArray[np.uint8],
    spacing: int = SPACING,
    gradient: npt.NDArray[np.float32] | None = None,
    lab: npt.NDArray[np.float32] | None = None,
) -> RegionGraph:
    """Seeded watershed of an (H, W, 3) uint8 RGB image (see `smoothed`), one seed in each spacing x spacing cell.

    gradient: (H, W) edge strength to average along the contacts, if wanted. lab: (H, W, 3), `compressed_lab` of the
    image; superpixels that hold two colours are split by it, and need not be connected then.
    """
    seeds, count = _seeds(smooth, spacing)
    labels = watershed(smooth, seeds)
    labels -= 1
    if lab is not None:
        count = split_mixed(labels, lab, _moments(labels, lab, count))
    area = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
    flat = np.zeros(labels.shape, np.float32) if gradient is None else gradient
    edges, boundary, contrast = _contacts(labels, count, np.ascontiguousarray(flat, np.float32))
    return RegionGraph(labels, count, area, edges, boundary, contrast)


def in_cells(image: npt.NDArray) -> npt.NDArray:
    """Of an image (H, W, ...) the upper left pixel of each cell of 2 x 2 pixels, (H // 2, W // 2, ...)."""
    return image[: image.shape[0] // 2 * 2 : 2, : image.shape[1] // 2 * 2 : 2]


def smoothed(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The (H, W, 3) uint8 image without fine texture, its edges kept."""
    return cv2.bilateralFilter(image, BILATERAL_DIAMETER, BILATERAL_COLOUR, BILATERAL_SPACE)


def compressed_lab(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """CIE Lab of an (H, W, 3) uint8 RGB image, (H, W, 3) float32: L in 0..100 (see LIGHTNESS_SCALE), a and b + 128."""
    return _compressed(cv2.cvtColor(image, cv2.COLOR_RGB2Lab))


@compiled("float32[:, :, ::1](uint8[:, :, ::1])")
def _compressed(lab: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """As `compressed_lab`, from OpenCV's."""
    compressed = np.empty(lab.shape, np.float32)
    for y in range(lab.shape[0]):
        for x in range(lab.shape[1]):
            compressed[y, x, 0] = np.float32(lab[y, x, 0]) * np.float32(LIGHTNESS_SCALE)
            compressed[y, x, 1], compressed[y, x, 2] = lab[y, x, 1], lab[y, x, 2]
    return compressed


def gradient_magnitude(image: npt.NDArray) -> npt.NDArray[np.float32]:
    """Edge strength of an (H, W) or (H, W, C) image, (H, W) float32: root of its squared slopes, per pixel."""
    if image.ndim == 3 and image.dtype == np.float32 and min(image.shape[:2]) > 1:
        return _gradient(np.ascontiguousarray(image))
    across, down = (cv2.Sobel(image, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    squared = across * across + down * down
    return cv2.sqrt(squared if image.ndim == 2 else squared.sum(axis=2))


@compiled("void(float32[::1], int64, float32[::1], float32[::1])")
def _filter_row(
    row: npt.NDArray[np.float32], channels: int, slope: npt.NDArray[np.float32], smooth: npt.NDArray[np.float32]
) -> None:
    """Writes the differences of both neighbours, and the sum of both and twice itself, of each value in a row of pixels
    with so many channels; beyond the ends it is mirrored."""
    length = len(row)
    for n in range(channels, length - channels):
        slope[n] = row[n + channels] - row[n - channels]
        smooth[n] = (row[n - channels] + row[n + channels]) + (row[n] + row[n])
    for first in range(channels):
        last = length - channels + first
        slope[first], slope[last] = 0, 0
        smooth[first] = (row[first + channels] + row[first + channels]) + (row[first] + row[first])
        smooth[last] = (row[last - channels] + row[last - channels]) + (row[last] + row[last])


@compiled("float32[:, ::1](float32[:, :, ::1])")
def _gradient(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """As `gradient_magnitude` of (H, W, C), to OpenCV's bits, in one pass over the image; at least 2x2 pixels."""
    height, width, channels = image.shape
    length = width * channels
    rows = image.reshape(height, length)
    # Of the rows above, here and below, each in its place by its number.
    slope, smooth = np.empty((3, length), np.float32), np.empty((3, length), np.float32)
    squared = np.empty(length, np.float32)
    result = np.empty((height, width), np.float32)
    _filter_row(rows[0], channels, slope[0], smooth[0])
    _filter_row(rows[1], channels, slope[1], smooth[1])
    for y in range(height):
        above, below = (y - 1 if y else 1) % 3, (y + 1 if y + 1 < height else height - 2) % 3
        if 0 < y < height - 1:
            _filter_row(rows[y + 1], channels, slope[below], smooth[below])
        before, here, after, over, under = slope[above], slope[y % 3], slope[below], smooth[above], smooth[below]
        for n in range(length):
            across = np.float32(0.125) * (before[n] + after[n]) + np.float32(0.25) * here[n]
            down = np.float32(0.125) * (under[n] - over[n])
            squared[n] = across * across + down * down
        for x in range(width):
            total = squared[x * channels]
            for c in range(1, channels):
                total += squared[x * channels + c]
            result[y, x] = np.sqrt(total)
    return result


def _seeds(image: npt.NDArray[np.uint8], spacing: int) -> tuple[npt.NDArray[np.int32], int]:
    """(H, W) int32: 1, 2, ... at the flattest of the middle pixels of each cell, 0 elsewhere; and how many."""
    height, width = image.shape[:2]
    spacing = max(1, min(spacing, height, width))
    rows, columns = height // spacing, width // spacing
    margin = spacing // 3  # seeds of neighbouring cells stay apart
    inner = spacing - 2 * margin
    # The cells are centred on the image, so that none is cut off.
    top, left = (height - rows * spacing) // 2, (width - columns * spacing) // 2
    gradient = gradient_magnitude(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    gradient = gradient[top : top + rows * spacing, left : left + columns * spacing]
    cells = gradient.reshape(rows, spacing, columns, spacing)[:, margin : margin + inner, :, margin : margin + inner]
    flattest = cells.transpose(0, 2, 1, 3).reshape(rows, columns, -1).argmin(2)
    dy, dx = np.divmod(flattest, inner)
    y = top + margin + dy + spacing * np.arange(rows)[:, None]
    x = left + margin + dx + spacing * np.arange(columns)
    seeds = np.zeros((height, width), np.int32)
    seeds[y, x] = np.arange(1, rows * columns + 1, dtype=np.int32).reshape(rows, columns)
    return seeds, rows * columns


@compiled("Tuple((int64, int32[::1]))(int64, int32[:, ::1], bool_[::1])")
def _groups(
    count: int, edges: npt.NDArray[np.int32], joined: npt.NDArray[np.bool_]
) -> tuple[int, npt.NDArray[np.int32]]:
    """Connected groups of `count` nodes over the joined edges (E, 2): their number, and each node's (count,), by the
    lowest node that they have."""
    root = np.arange(count)
    for e in range(len(edges)):
        if not joined[e]:
            continue
        a, b = edges[e, 0], edges[e, 1]
        while root[a] != a:
            root[a] = root[root[a]]
            a = root[a]
        while root[b] != b:
            root[b] = root[root[b]]
            b = root[b]
        if a < b:
            root[b] = a
        else:
            root[a] = b
    group = np.empty(count, np.int32)
    number = 0
    for n in range(count):
        if root[n] == n:
            group[n] = number
            number += 1
        else:
            # Roots are lower than what hangs on them.
            group[n] = group[root[n]]
    return number, group


@compiled("float64[:, ::1](int32[:, ::1], float32[:, :, ::1], int64)")
def sums_over(labels: npt.NDArray[np.int32], values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float64]:
    """Sums (count, C) of values (H, W, C) over each label."""
    height, width, channels = values.shape
    sums = np.zeros((count, channels))
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                sums[labels[y, x], c] += values[y, x, c]
    return sums


@compiled("float64[::1](int32[:, ::1], float32[:, ::1], int64)")
def _sums_over_cells(
    labels: npt.NDArray[np.int32], values: npt.NDArray[np.float32], count: int
) -> npt.NDArray[np.float64]:
    """Sums (count,) over each label (H, W) of values (H // 2, W // 2): every pixel has that of its cell, or of the last
    one where the size is odd."""
    height, width = labels.shape
    rows, columns = values.shape
    sums = np.zeros(count)
    for y in range(height):
        row = min(y // 2, rows - 1)
        for x in range(width):
            sums[labels[y, x]] += values[row, min(x // 2, columns - 1)]
    return sums


@compiled("float64[:, ::1](int32[:, ::1], float32[:, :, ::1], int64)")
def _moments(labels: npt.NDArray[np.int32], colours: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float64]:
    """As `RegionGraph.moments`."""
    height, width = labels.shape
    moments = np.zeros((count, 10))
    for y in range(height):
        for x in range(width):
            of = moments[labels[y, x]]
            a, b, c = colours[y, x, 0], colours[y, x, 1], colours[y, x, 2]
            of[0] += 1
            of[1] += a
            of[2] += b
            of[3] += c
            of[4] += a * a
            of[5] += a * b
            of[6] += a * c
            of[7] += b * b
            of[8] += b * c
            of[9] += c * c
    return moments


@compiled("Tuple((int32[:, ::1], float64[::1], float64[::1]))(int32[:, ::1], int64, float32[:, ::1])")
def _contacts(
    labels: npt.NDArray[np.int32], count: int, gradient: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Edges (E, 2), number of contact pixel pairs (E,), mean gradient there (E,), by rising edges."""
    height, width = labels.shape
    # The pairs of pixels, sorted by the lower label: `start` says where those of each begin.
    start = np.zeros(count + 1, np.int64)
    for y in range(height):
        for x in range(width):
            here = labels[y, x]
            if x + 1 < width and labels[y, x + 1] != here:
                start[min(here, labels[y, x + 1]) + 1] += 1
            if y + 1 < height and labels[y + 1, x] != here:
                start[min(here, labels[y + 1, x]) + 1] += 1
    for label in range(count):
        start[label + 1] += start[label]
    place = start[:-1].copy()
    higher = np.empty(start[count], np.int32)
    strength = np.empty(start[count], np.float32)
    for y in range(height):
        for x in range(width):
            here = labels[y, x]
            for ny, nx in ((y, x + 1), (y + 1, x)):
                if ny < height and nx < width and labels[ny, nx] != here:
                    low = min(here, labels[ny, nx])
                    higher[place[low]] = max(here, labels[ny, nx])
                    strength[place[low]] = max(gradient[y, x], gradient[ny, nx])
                    place[low] += 1
    edges = np.empty((len(higher), 2), np.int32)
    pairs, total = np.zeros(len(higher)), np.zeros(len(higher))
    last = 0
    for low in range(count):
        begin = last
        for n in range(start[low], start[low + 1]):
            # The few neighbours of a superpixel are kept in order.
            at = begin
            while at < last and edges[at, 1] < higher[n]:
                at += 1
            if at == last or edges[at, 1] != higher[n]:
                for later in range(last, at, -1):
                    edges[later] = edges[later - 1]
                    pairs[later], total[later] = pairs[later - 1], total[later - 1]
                edges[at, 0], edges[at, 1] = low, higher[n]
                pairs[at], total[at] = 0.0, 0.0
                last += 1
            pairs[at] += 1
            total[at] += strength[n]
    return edges[:last].copy(), pairs[:last].copy(), total[:last] / pairs[:last]
