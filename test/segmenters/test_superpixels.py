"""Superpixels: a partition that follows outlines, and the graph of its contacts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mastsam_ros.segmenters.regions.superpixels import (
    RegionGraph,
    build_region_graph,
    compressed_lab,
    gradient_magnitude,
)


def blobs(height: int = 120, width: int = 160, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture of three discs on grey, low in contrast, and the discs' mask (0 = background)."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((height, width), np.uint8)
    for index, (x, y, radius) in enumerate(((40, 40, 22), (110, 50, 30), (70, 95, 17)), start=1):
        cv2.circle(truth, (x, y), radius, index, -1)
    colours = np.array([[110, 110, 110], [135, 118, 100], [100, 130, 112], [108, 112, 140]])
    return np.clip(colours[truth] + rng.normal(0, 3, (height, width, 3)), 0, 255).astype(np.uint8), truth


def test_every_superpixel_is_one_connected_piece() -> None:
    graph = build_region_graph(blobs()[0])
    assert graph.labels.dtype == np.int32
    assert np.array_equal(np.bincount(graph.labels.ravel(), minlength=graph.count), graph.area)
    assert graph.area.min() >= 1
    for index in range(0, graph.count, 7):
        assert cv2.connectedComponents((graph.labels == index).astype(np.uint8), connectivity=4)[0] == 2


@pytest.mark.parametrize("spacing", [6, 8])
def test_weak_outlines_are_followed(spacing: int) -> None:
    image, truth = blobs()
    graph = build_region_graph(image, spacing)
    votes = np.stack([graph.sum(truth == k) for k in range(4)], 1)
    best = votes.argmax(1)[graph.labels]
    for k in (1, 2, 3):
        assert np.sum((best == k) & (truth == k)) / np.sum((best == k) | (truth == k)) > 0.93


@pytest.mark.parametrize("size", [(120, 160), (61, 83)])
def test_the_mean_of_cells_is_that_of_their_pixels(size: tuple[int, int]) -> None:
    graph = build_region_graph(blobs(*size)[0])
    cells = np.random.default_rng(2).random(graph.cells.shape).astype(np.float32)
    rest = [(0, length % 2) for length in size]
    pixels = np.pad(cells.repeat(2, axis=0).repeat(2, axis=1), rest, mode="edge")
    assert np.allclose(graph.mean_of_cells(cells), graph.mean(pixels))


def test_contacts_are_counted_as_a_loop_over_pixels_counts_them() -> None:
    image = blobs(30, 41)[0]
    gradient = np.random.default_rng(1).random((30, 41)).astype(np.float32)
    graph = build_region_graph(image, gradient=gradient)
    pairs: dict[tuple[int, int], list[float]] = {}
    for y in range(30):
        for x in range(41):
            for v, u in ((y, x + 1), (y + 1, x)):
                if v < 30 and u < 41 and graph.labels[y, x] != graph.labels[v, u]:
                    key = tuple(sorted((int(graph.labels[y, x]), int(graph.labels[v, u]))))
                    pairs.setdefault(key, []).append(max(gradient[y, x], gradient[v, u]))
    assert {tuple(edge) for edge in graph.edges.tolist()} == set(pairs)
    for edge, boundary, contrast in zip(graph.edges.tolist(), graph.boundary, graph.contrast, strict=True):
        assert boundary == len(pairs[tuple(edge)])
        assert contrast == pytest.approx(np.mean(pairs[tuple(edge)]), rel=1e-5)


def test_means_sums_and_components() -> None:
    labels = np.array([[0, 0, 1, 1], [2, 2, 3, 3]], np.int32)
    edges = np.array([[0, 1], [0, 2], [1, 3], [2, 3]], np.int32)
    graph = RegionGraph(labels, 4, np.full(4, 2.0), edges, np.array([1.0, 2, 2, 1]), np.zeros(4))
    values = np.arange(8.0).reshape(2, 4)
    assert graph.sum(values).tolist() == [1, 5, 9, 13]
    assert graph.mean(np.dstack([values, -values])).tolist() == [[0.5, -0.5], [2.5, -2.5], [4.5, -4.5], [6.5, -6.5]]
    number, group = graph.components(np.array([1, 0, 1, 0]))
    assert number == 2
    assert group[0] == group[2] != group[1] == group[3]
    assert graph.components(np.zeros(4), np.array([True, False, False, True]))[0] == 2


@pytest.mark.parametrize("shape", [(2, 2), (5, 90), (7, 7), (48, 3)])
def test_small_pictures_and_flat_ones(shape: tuple[int, int]) -> None:
    graph = build_region_graph(np.full((*shape, 3), 90, np.uint8))
    assert graph.labels.min() == 0
    assert graph.labels.max() == graph.count - 1


def test_the_same_picture_gives_the_same_bytes() -> None:
    image = blobs()[0]
    first, second = build_region_graph(image), build_region_graph(image.copy())
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.edges.tobytes() == second.edges.tobytes()


def test_compressed_lab_keeps_lightness_within_100() -> None:
    lab = compressed_lab(np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8))
    assert lab.dtype == np.float32
    assert lab[0, :, 0] == pytest.approx([100, 0, 53.3], abs=0.5)
    assert lab[0, 0, 1:] == pytest.approx([128, 128])


def test_gradients_are_opencv_s() -> None:
    lab = compressed_lab(blobs(33, 47)[0])
    slopes = [cv2.Sobel(lab, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))]
    expected = np.sqrt((slopes[0] ** 2 + slopes[1] ** 2).sum(axis=2))
    np.testing.assert_allclose(gradient_magnitude(lab), expected, rtol=1e-6)


def banded(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    """A grey picture with two bands, three pixels wide, side by side: both lie in one row of seeds."""
    image = np.full((42, 56, 3), 200, np.uint8)
    image[19:22], image[22:25] = low, high
    return image


def superpixels_of_both(image: np.ndarray, split: bool = True) -> np.ndarray:
    """(S,) whether a superpixel has pixels of both bands."""
    graph = build_region_graph(image, 7, lab=compressed_lab(image) if split else None)
    band = np.zeros(image.shape[:2], np.float32)
    band[19:22], band[22:25] = 1, 2
    held = [np.bincount(graph.labels[band == n], minlength=graph.count) > 0 for n in (1, 2)]
    return held[0] & held[1]


def test_what_holds_two_colours_is_split() -> None:
    brown_beside_yellow = banded((120, 97, 65), (157, 121, 35))
    assert superpixels_of_both(brown_beside_yellow, split=False).any()
    assert not superpixels_of_both(brown_beside_yellow).any()


def test_what_is_split_is_a_graph_without_gaps() -> None:
    image = banded((120, 97, 65), (157, 121, 35))
    whole, split = build_region_graph(image, 7), build_region_graph(image, 7, lab=compressed_lab(image))
    assert split.count > whole.count
    assert np.array_equal(np.bincount(split.labels.ravel(), minlength=split.count), split.area)
    assert split.area.min() >= 1
    # Nothing is joined: each superpixel lies in one of those before.
    pairs = np.unique(np.stack([split.labels.ravel(), whole.labels.ravel()]), axis=1)
    assert pairs.shape[1] == split.count
    assert set(np.unique(split.edges)) == set(range(split.count))


@pytest.mark.parametrize(
    "image",
    [
        blobs()[0],
        np.tile(np.linspace(60, 200, 56).astype(np.uint8)[None, :, None], (42, 1, 3)),
        np.full((42, 56, 3), 90, np.uint8),
    ],
    ids=["noise", "ramp", "flat"],
)
def test_noise_and_what_changes_slowly_is_not_split(image: np.ndarray) -> None:
    graph = build_region_graph(image, 7, lab=compressed_lab(image))
    assert graph.count == build_region_graph(image, 7).count
