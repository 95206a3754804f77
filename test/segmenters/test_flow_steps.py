"""Things in the colours of what is behind them are told apart where the flow makes a step, and only there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mastsam_ros.segmenters.regions.flow_steps import Parts, with_parts
from mastsam_ros.segmenters.regions.hierarchy import DescriptionLength, RegionHierarchy, outline_lengths
from mastsam_ros.segmenters.regions.superpixels import (
    RegionGraph,
    build_region_graph,
    compressed_lab,
    gradient_magnitude,
    smoothed,
)

HEIGHT, WIDTH = 300, 400
TOP, BOTTOM, LEFT, RIGHT = 60, 116, 100, 140
"""The carton, before a wall of nearly its colour."""
Flow = npt.NDArray[np.float32]


def carton() -> npt.NDArray[np.bool_]:
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[TOP:BOTTOM, LEFT:RIGHT] = True
    return inside


@pytest.fixture(scope="module")
def regions() -> tuple[RegionGraph, RegionHierarchy, npt.NDArray[np.int64]]:
    """Of a picture of the carton, in which its colours are cheaper as one with the wall's."""
    image = np.where(carton()[..., None], (164, 168, 162), (176, 176, 178))
    noise = np.random.default_rng(3).normal(0, 4, image.shape)
    image = (image + noise).clip(0, 255).astype(np.uint8)
    smooth = smoothed(image)
    graph = build_region_graph(smooth, 7, gradient_magnitude(compressed_lab(smooth)))
    cost = DescriptionLength(noise=4.0, boundary=17.0, region=51.0)
    outline = outline_lengths(graph, 2.0)
    hierarchy = RegionHierarchy(graph, graph.moments(compressed_lab(image)), outline, None, cost)
    cut = hierarchy.optimal_cut()
    of_carton = cut[graph.labels][carton()]
    assert (cut[graph.labels] == np.bincount(of_carton).argmax()).mean() > 0.5, "it is one with the wall"
    return graph, hierarchy, cut


def flow_of(thing: tuple[float, float], wall: tuple[float, float] = (4.0, 0.5)) -> Flow:
    flow = np.empty((HEIGHT, WIDTH, 2), np.float32)
    flow[:] = wall
    flow[carton()] = thing
    return flow + np.random.default_rng(4).normal(0, 0.05, flow.shape).astype(np.float32)


def told_apart(
    regions: tuple[RegionGraph, RegionHierarchy, npt.NDArray[np.int64]],
    flow: Flow,
    visible: npt.NDArray[np.bool_] | None = None,
    votes: npt.NDArray[np.float64] | None = None,
) -> list[float]:
    """IoU with the carton of each part that is told apart."""
    graph, hierarchy, cut = regions
    visible = np.ones((HEIGHT, WIDTH), bool) if visible is None else visible
    votes = np.zeros((graph.count, 0)) if votes is None else votes
    parts, firmness = Parts.of(graph, hierarchy, cut, flow, visible).told_apart(votes)
    assert len(parts) == len(firmness) and (firmness >= 2).all()
    assert len(np.concatenate([*parts, np.empty(0, np.int64)])) == sum(len(set(part.tolist())) for part in parts)
    masks = [np.isin(graph.labels, part) for part in parts]
    return [float((mask & carton()).sum() / (mask | carton()).sum()) for mask in masks]


def test_what_moves_unlike_what_is_behind_it_is_a_part(
    regions: tuple[RegionGraph, RegionHierarchy, npt.NDArray[np.int64]],
) -> None:
    assert max(told_apart(regions, flow_of((7.0, 0.5)))) > 0.8
    assert max(told_apart(regions, flow_of((4.0, 3.0)))) > 0.8


def test_what_moves_alike_is_none(regions: tuple[RegionGraph, RegionHierarchy, npt.NDArray[np.int64]]) -> None:
    assert told_apart(regions, flow_of((4.0, 0.5))) == []


def test_what_grows_from_place_to_place_is_no_step(
    regions: tuple[RegionGraph, RegionHierarchy, npt.NDArray[np.int64]],
) -> None:
    """A camera that comes nearer to a wall."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    assert told_apart(regions, np.dstack([(x - WIDTH / 2) / 12, (y - HEIGHT / 2) / 12])) == []


def test_flow_that_is_not_believed_tells_nothing(
    regions: tuple[RegionGraph, RegionHierarchy, npt.NDArray[np.int64]],
) -> None:
    assert told_apart(regions, flow_of((7.0, 0.5)), ~carton()) == []


def test_what_is_a_track_needs_a_smaller_step(
    regions: tuple[RegionGraph, RegionHierarchy, npt.NDArray[np.int64]],
) -> None:
    graph = regions[0]
    votes = np.stack([graph.sum(carton()), graph.sum(~carton())], axis=1)
    smallest = [
        next(step for step in np.arange(0.05, 3, 0.05) if told_apart(regions, flow_of((4.0 + step, 0.5)), votes=v))
        for v in (votes, None)
    ]
    assert smallest[0] < 0.7 * smallest[1]


def test_the_regions_of_a_cut_with_parts_have_no_gaps() -> None:
    cut = np.array([0, 0, 1, 1, 2])
    assert with_parts(cut, []) is cut
    assert with_parts(cut, [np.array([4]), np.array([0])]).tolist() == [3, 0, 1, 1, 2]
