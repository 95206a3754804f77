"""Superpixels that follow weak outlines, and the graph of their contacts: what every part of the
embedded default works on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csc_matrix
from scipy.sparse.csgraph import connected_components

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
        if values.ndim == 2:
            return np.bincount(self.labels.ravel(), values.ravel(), self.count).astype(np.float64)
        return np.asarray(self._membership @ values.reshape(-1, values.shape[2]))

    @cached_property
    def _membership(self) -> csc_matrix:
        """(S, H * W), 1 where a pixel belongs to a superpixel: adds up all channels in one pass."""
        pixels = self.labels.size
        column = np.arange(pixels + 1, dtype=np.int32)
        return csc_matrix((np.ones(pixels), self.labels.ravel(), column), shape=(self.count, pixels))

    def mean(self, values: npt.NDArray) -> npt.NDArray[np.float64]:
        """Mean of `values` (H, W) or (H, W, C) over each superpixel: (S,) or (S, C)."""
        return self.sum(values) / (self.area if values.ndim == 2 else self.area[:, None])

    def components(
        self, key: npt.NDArray, joined: npt.NDArray[np.bool_] | None = None
    ) -> tuple[int, npt.NDArray[np.int32]]:
        """Connected groups of superpixels with equal `key` (S,): their number and each one's group (S,).

        joined: (E,) bool, contacts that may connect at all; by default every one.
        """
        first, second = self.edges.T
        same = key[first] == key[second]
        if joined is not None:
            same &= joined
        first, second = first[same], second[same]
        links = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(self.count, self.count))
        number, group = connected_components(links, directed=False)
        return int(number), group


def build_region_graph(
    smooth: npt.NDArray[np.uint8], spacing: int = SPACING, gradient: npt.NDArray[np.float32] | None = None
) -> RegionGraph:
    """Seeded watershed of an (H, W, 3) uint8 RGB image (see `smoothed`), one seed in each spacing x spacing cell.

    gradient: (H, W) edge strength to average along the contacts, if wanted.
    """
    labels, count = _watershed(smooth, spacing)
    area = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
    edges, boundary, contrast = _contacts(labels, count, gradient)
    return RegionGraph(labels, count, area, edges, boundary, contrast)


def smoothed(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The (H, W, 3) uint8 image without fine texture, its edges kept."""
    return cv2.bilateralFilter(image, BILATERAL_DIAMETER, BILATERAL_COLOUR, BILATERAL_SPACE)


def compressed_lab(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """CIE Lab of an (H, W, 3) uint8 RGB image, (H, W, 3) float32: L in 0..100 (see LIGHTNESS_SCALE), a and b + 128."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab).astype(np.float32)
    lab[..., 0] *= LIGHTNESS_SCALE
    return lab


def gradient_magnitude(image: npt.NDArray) -> npt.NDArray[np.float32]:
    """Edge strength of an (H, W) or (H, W, C) image, (H, W) float32: root of its squared slopes, per pixel."""
    across, down = (cv2.Sobel(image, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    return cv2.sqrt(_summed(across * across + down * down))


def _summed(channels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sum over the channels of an (H, W) or (H, W, C) image; numpy is slow where the last axis is short."""
    return channels if channels.ndim == 2 else cv2.transform(channels, np.ones((1, channels.shape[2]), np.float32))


def _watershed(image: npt.NDArray[np.uint8], spacing: int) -> tuple[npt.NDArray[np.int32], int]:
    """Labels (H, W) int32 of the seeded watershed, and their number."""
    height, width = image.shape[:2]
    seeds = _seeds(image, spacing)
    # OpenCV never floods the outermost pixels: a frame round the image keeps them.
    markers = np.zeros((height + 2, width + 2), np.int32)
    markers[1:-1, 1:-1] = seeds
    padded = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    cv2.watershed(padded, markers)
    labels = markers[1:-1, 1:-1].copy()
    _give_lines_away(labels, image)
    return labels - 1, int(seeds.max())


def _seeds(image: npt.NDArray[np.uint8], spacing: int) -> npt.NDArray[np.int32]:
    """(H, W) int32: 1, 2, ... at the flattest of the middle pixels of each cell, 0 elsewhere."""
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
    return seeds


def _give_lines_away(labels: npt.NDArray[np.int32], image: npt.NDArray[np.uint8]) -> None:
    """Gives each watershed line pixel of `labels` (<= 0) the label of its most similar 4-neighbour, in place."""
    width = labels.shape[1]
    steps = _colour_steps(image)
    flat = labels.reshape(-1)
    line = np.flatnonzero(flat <= 0)
    while len(line):
        best = np.full(len(line), np.inf, np.float32)
        given = np.zeros(len(line), np.int32)
        for offset, distances in zip((-1, 1, -width, width), steps, strict=True):
            neighbour = flat.take(line + offset, mode="clip")
            distance = distances.take(line)
            better = (neighbour > 0) & (distance < best)
            np.copyto(best, distance, where=better)
            np.copyto(given, neighbour, where=better)
        flat[line] = given
        line = line[given == 0]


def _colour_steps(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], ...]:
    """Squared colour distances (H, W) to the left, right, upper and lower neighbour; infinite outside the image."""
    left, up = (np.full(image.shape[:2], np.inf, np.float32) for _ in range(2))
    for steps, one, other in ((left[:, 1:], image[:, 1:], image[:, :-1]), (up[1:], image[1:], image[:-1])):
        difference = cv2.absdiff(one, other).astype(np.float32)
        steps[:] = _summed(difference * difference)
    right, down = np.full_like(left, np.inf), np.full_like(up, np.inf)
    right[:, :-1], down[:-1] = left[:, 1:], up[1:]
    return left, right, up, down


def _contacts(
    labels: npt.NDArray[np.int32], count: int, gradient: npt.NDArray[np.float32] | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Edges (E, 2), number of contact pixel pairs (E,), mean gradient there (E,)."""
    low, high, weights = [], [], []
    for one, other in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        a, b = labels[one], labels[other]
        touching = np.nonzero(a != b)
        a, b = a[touching], b[touching]
        low.append(np.minimum(a, b))
        high.append(np.maximum(a, b))
        if gradient is not None:
            weights.append(np.maximum(gradient[one][touching], gradient[other][touching]))
    first, second = np.concatenate(low), np.concatenate(high)
    # A sparse matrix adds up equal pairs without sorting all of them; the gradient rides along as imaginary part.
    values = np.ones(len(first), np.complex128)
    if gradient is not None:
        values.imag = np.concatenate(weights)
    table = coo_matrix((values, (first, second)), shape=(count, count)).tocsr()
    table.sort_indices()
    rows = np.repeat(np.arange(count, dtype=np.int32), np.diff(table.indptr))
    edges = np.stack([rows, table.indices.astype(np.int32)], 1)
    return edges, table.data.real.copy(), table.data.imag / table.data.real
