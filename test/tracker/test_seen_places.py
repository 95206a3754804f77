"""Labels of earlier views, drawn where they lie in space as another view would show them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mastsam_ros.geometry.flow_depth import GRID, InverseDepth
from mastsam_ros.geometry.structure import LocatedView
from mastsam_ros.io.sample_scene import SampleScene, SceneView
from mastsam_ros.tracker.propagation import Carried
from mastsam_ros.tracker.seen_places import SeenPlaces

HEIGHT, WIDTH = 240, 320


@pytest.fixture(scope="module")
def views() -> list[SceneView]:
    """The table, the same from a little aside, and something else."""
    scene = SampleScene(2, "look_away", 30, WIDTH, HEIGHT)
    return [scene.render(index) for index in (0, 2, 15)]


def placed(view: SceneView, world: int = 1) -> LocatedView:
    frame = view.frame
    seen = replace(frame, depth=None, K=None, T_world_camera=None)
    return LocatedView(seen, frame.K, frame.T_world_camera, 2.0, world)


def after(*views: SceneView, ids: list[np.ndarray], off: float = 0.02) -> SeenPlaces:
    """off: standard deviation of inverse depth, as a share of it."""
    places = SeenPlaces()
    for view, labels in zip(views, ids, strict=True):
        w = np.ascontiguousarray(1 / np.maximum(view.frame.depth[::GRID, ::GRID], 0.05))
        depth = InverseDepth(w, np.float32(off) * w, np.diag([1 / GRID, 1 / GRID, 1]) @ view.frame.K)
        for _ in range(5):
            places.remember(placed(view), depth, labels.astype(np.uint16))
    return places


def nothing_matched(count: int) -> Carried:
    index = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    points = torch.zeros(0, dtype=torch.int64)
    return Carried(index, torch.zeros_like(index, dtype=torch.bool), torch.zeros(0, 2), points, points > 0, count)


def test_what_comes_into_view_again_has_the_labels_that_it_had(views: list[SceneView]) -> None:
    table, aside, elsewhere = views
    places = after(table, elsewhere, ids=[table.instance, 0 * elsewhere.instance])
    active = [id for id in np.unique(table.instance).tolist() if id]
    carried = places.carried_too(placed(aside), active, nothing_matched(len(active)))
    filled = carried.index > 0
    assert filled.float().mean() > 0.5
    ids = np.array([0, *active])[carried.index.numpy()]
    assert (ids == aside.instance)[filled.numpy()].mean() > 0.95


def test_what_has_a_match_what_is_small_and_outlines_are_left_alone(views: list[SceneView]) -> None:
    table, aside, _ = views
    active = [id for id in np.unique(table.instance).tolist() if id]
    places = after(table, ids=[table.instance])
    matched = replace(nothing_matched(len(active)), matched=torch.ones(HEIGHT, WIDTH, dtype=torch.bool))
    assert not places.carried_too(placed(aside), active, matched).index.any()
    filled = places.carried_too(placed(aside), active, nothing_matched(len(active))).index.numpy()
    areas = np.bincount(table.instance.ravel())
    assert all(areas[active[n - 1]] > 0.008 * HEIGHT * WIDTH for n in np.unique(filled).tolist() if n)
    first, second = filled[:, :-1], filled[:, 1:]
    assert not ((first != second) & (first > 0) & (second > 0)).any()


def test_other_worlds_other_colours_and_unsure_depth_say_nothing(views: list[SceneView]) -> None:
    table, aside, elsewhere = views
    active = [id for id in np.unique(table.instance).tolist() if id]
    ids = [table.instance, 0 * elsewhere.instance]
    carried = nothing_matched(len(active))
    places = after(table, elsewhere, ids=ids)
    assert not places.carried_too(placed(aside, world=2), active, carried).index.any()
    assert not places.carried_too(None, active, carried).index.any()
    for other in (aside.frame.image // 3, 255 - (255 - aside.frame.image) // 3):
        strange = placed(aside)
        strange = replace(strange, view=replace(strange.view, image=other))
        assert (places.carried_too(strange, active, carried).index > 0).float().mean() < 0.1
    unsure = after(table, elsewhere, ids=ids, off=0.5)
    assert not unsure.carried_too(placed(aside), active, carried).index.any()


def test_merged_ids_are_drawn_as_what_they_became_and_ended_ones_not_at_all(views: list[SceneView]) -> None:
    table, aside, elsewhere = views
    places = after(table, elsewhere, ids=[table.instance, 0 * elsewhere.instance])
    ids, counts = np.unique(table.instance[table.instance > 0], return_counts=True)
    largest, second = ids[np.argsort(-counts)[:2]].tolist()
    alone = places.carried_too(placed(aside), [largest], nothing_matched(1)).index
    assert set(np.unique(alone).tolist()) == {0, 1}
    places.merge(second, largest)
    both = places.carried_too(placed(aside), [largest], nothing_matched(1)).index
    assert (both > 0).sum() > (alone > 0).sum() and not ((alone > 0) & (both == 0)).any()
