"""The tree of regions and the cut of least description length."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from mastsam_ros.segmenters.regions.hierarchy import DescriptionLength, RegionHierarchy, outline_lengths
from mastsam_ros.segmenters.regions.superpixels import (
    RegionGraph,
    build_region_graph,
    compressed_lab,
    gradient_magnitude,
    smoothed,
)
from mastsam_ros.segmenters.regions.votes import held_together

COST = DescriptionLength(noise=4.0, boundary=15.0, region=45.0)


def picture() -> npt.NDArray[np.uint8]:
    """Two textured discs on a textured ground."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0:120, 0:160]
    image = np.full((120, 160, 3), (120, 110, 90), float)
    image[(x - 45) ** 2 + (y - 60) ** 2 < 30**2] = (180, 60, 50)
    image[(x - 115) ** 2 + (y - 60) ** 2 < 30**2] = (60, 90, 170)
    return (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)


def hierarchy_of(
    image: npt.NDArray[np.uint8], barrier: npt.NDArray[np.int64] | None = None
) -> tuple[RegionGraph, RegionHierarchy]:
    smooth = compressed_lab(smoothed(image))
    graph = build_region_graph(smoothed(image), 7, gradient_magnitude(smooth))
    moments = graph.moments(compressed_lab(image))
    return graph, RegionHierarchy(graph, moments, outline_lengths(graph, 2.0), barrier, COST)


def test_the_cut_finds_the_discs() -> None:
    image = picture()
    graph, hierarchy = hierarchy_of(image)
    cut = hierarchy.optimal_cut()[graph.labels]
    y, x = np.mgrid[0:120, 0:160]
    for centre in (45, 115):
        disc = (x - centre) ** 2 + (y - 60) ** 2 < 30**2
        region = cut == np.bincount(cut[disc]).argmax()
        assert (region & disc).sum() / (region | disc).sum() > 0.9
    assert cut.max() + 1 <= 6


def test_moments_equal_those_of_the_pixels() -> None:
    image = picture()
    graph, hierarchy = hierarchy_of(image)
    colours = compressed_lab(image).reshape(-1, 3).astype(np.float64)
    root = len(hierarchy.area) - 1
    assert hierarchy.area[root] == image.shape[0] * image.shape[1]
    sums = hierarchy.accumulate(graph.moments(compressed_lab(image)))[root] / hierarchy.area[root]
    products = (colours.T @ colours / len(colours))[np.triu_indices(3)]
    np.testing.assert_allclose(sums, [1, *colours.mean(axis=0), *products])
    assert abs(hierarchy.perimeter[root]) < 1e-6


def test_the_cut_is_optimal_on_a_small_tree() -> None:
    image = picture()[40:61, 20:41]
    graph, hierarchy = hierarchy_of(image)
    parents = hierarchy.parents
    children = {n: np.flatnonzero((parents == n) & (np.arange(len(parents)) != n)) for n in range(len(parents))}

    def cuts(node: int) -> list[tuple[int, ...]]:
        own: list[tuple[int, ...]] = [(node,)]
        if node < graph.count:
            return own
        return own + [a + b for a, b in itertools.product(*(cuts(int(c)) for c in children[node]))]

    best = min(cuts(len(parents) - 1), key=lambda nodes: hierarchy.energy[list(nodes)].sum())
    assert hierarchy.optimal_cut().max() + 1 == len(best)


def test_no_region_crosses_a_barrier() -> None:
    image = np.full((60, 80, 3), 128, np.uint8)  # nothing to see: without a barrier one region
    graph, hierarchy = hierarchy_of(image)
    assert hierarchy.optimal_cut().max() == 0
    left = (graph.mean(np.broadcast_to(np.arange(80) < 40, (60, 80))) > 0.5).astype(np.int64)
    _, divided = hierarchy_of(image, left)
    cut = divided.optimal_cut()
    assert all(len(set(left[cut == region])) == 1 for region in range(cut.max() + 1))


def test_a_discount_keeps_a_region() -> None:
    graph, hierarchy = hierarchy_of(picture())
    inside = hierarchy.energy.copy() * 0
    inside[: graph.count] = 1e6  # every superpixel for itself
    assert hierarchy.optimal_cut(inside).max() + 1 == graph.count


def test_what_stands_out_is_firm_and_half_of_the_ground_is_not() -> None:
    image = picture()
    graph, hierarchy = hierarchy_of(image)
    cut = hierarchy.optimal_cut()
    firmness = hierarchy.firmness(cut)
    at = cut[graph.labels]
    assert firmness[at[60, 45]] > 3 and firmness[at[60, 115]] > 3
    # The ground in two, upper and lower: nothing but their outline tells them apart.
    ground = cut == at[5, 5]
    upper = graph.mean(np.repeat(np.arange(120.0)[:, None], 160, axis=1)) < 60
    halves = np.where(ground & upper, cut.max() + 1, cut)
    firmness = hierarchy.firmness(np.unique(halves, return_inverse=True)[1].ravel())
    at = np.unique(halves, return_inverse=True)[1].ravel()[graph.labels]
    assert firmness[at[5, 5]] < 1 and firmness[at[115, 5]] < 1
    assert firmness[at[60, 45]] > 3


def test_a_region_without_neighbours_is_firm() -> None:
    graph, hierarchy = hierarchy_of(picture())
    assert hierarchy.firmness(np.zeros(graph.count, np.int64)) == [np.inf]


def test_no_outline_runs_where_the_picture_only_grows_darker() -> None:
    light = np.linspace(90, 170, 160)[None, :, None]
    image = (np.broadcast_to(light, (120, 160, 3)) + np.random.default_rng(1).normal(0, 2, (120, 160, 3))).clip(0, 255)
    graph, hierarchy = hierarchy_of(image.astype(np.uint8))
    moments = graph.moments(compressed_lab(image.astype(np.uint8)))
    indifferent = RegionHierarchy(graph, moments, outline_lengths(graph, 0.0), None, COST)
    assert hierarchy.optimal_cut().max() < indifferent.optimal_cut().max()


def test_what_was_carried_together_stays_together() -> None:
    lower = np.arange(120)[:, None, None] >= 60
    image = np.broadcast_to(120 + 12 * lower, (120, 160, 3)).astype(np.uint8)
    graph, hierarchy = hierarchy_of(image)
    upper = graph.mean(np.repeat(np.arange(120.0)[:, None], 160, axis=1)) < 60
    votes = np.stack([upper, ~upper], 1) * graph.area[:, None]
    together = held_together(votes, graph.area, np.array([1.0, 1.0]), graph.edges)
    same = upper[graph.edges[:, 0]] == upper[graph.edges[:, 1]]
    assert together.tolist() == np.where(same, 1.0, -1.0).tolist()
    half = held_together(votes, graph.area, np.array([1.0, 0.5]), graph.edges)
    assert half[~same].tolist() == [-0.5] * int((~same).sum())
    # Hardly anything tells the halves apart; that they were two does.
    assert hierarchy.optimal_cut().max() == 0
    cut = hierarchy.steadied(1 + 0.9 * together).optimal_cut()
    assert cut.max() == 1
    assert (cut[upper] != cut[~upper][0]).all()


def test_nothing_carried_holds_nothing_together() -> None:
    edges = np.array([[0, 1]], np.int32)
    assert held_together(np.zeros((2, 0)), np.ones(2), np.zeros(0), edges).tolist() == [0]


def test_what_is_cheaper_as_one_has_a_margin_below_one() -> None:
    _, hierarchy = hierarchy_of(picture())
    one, other = hierarchy.children.T
    saved = hierarchy.energy[one] + hierarchy.energy[other] - hierarchy.energy[len(hierarchy.children) + 1 :]
    margins = hierarchy.margins()
    assert ((margins < 1) == (saved > 0)).all() and 0 < (margins < 1).mean() < 1
