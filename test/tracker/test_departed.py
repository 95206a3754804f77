"""Things that were moved while nobody looked, in a map of boxes."""

from __future__ import annotations

import numpy as np

from mastsam_ros.geometry.instance_map import InstanceMap
from mastsam_ros.geometry.odometry import Keyframe
from mastsam_ros.settings import GeometrySettings
from mastsam_ros.tracker.departed import Departed, Likeness

K = np.array([[100.0, 0, 49.5], [0, 100.0, 39.5], [0, 0, 1]])
RED, BLUE = (200, 40, 30), (30, 40, 200)
OLD, OTHER, NEW = 3, 4, 9


def enter(map: InstanceMap, id: int, middle: tuple, size: tuple, colour: tuple, frame: int, views: int = 5) -> None:
    """The shell of a box, seen in several frames."""
    u = np.random.default_rng(id).uniform(-0.5, 0.5, (4000, 3))
    side = np.arange(len(u)) % 3
    u[np.arange(len(u)), side] = np.where(np.arange(len(u)) % 2, 0.5, -0.5)
    points = (u * size + middle).astype(np.float32)
    rgb = np.tile(np.uint8(colour), (len(points), 1))
    for n in range(views):
        map.observe(points, np.full(len(points), id, np.int32), rgb, frame + n)


def room() -> InstanceMap:
    """Two things on their places until frame 4; a third, like the first, elsewhere from frame 20 on."""
    map = InstanceMap(GeometrySettings())
    enter(map, OLD, (0, 0, 2), (0.1, 0.2, 0.15), RED, 0)
    enter(map, OTHER, (0.6, 0, 2), (0.1, 0.2, 0.15), BLUE, 0)
    return map


def keyframe(z: float) -> Keyframe:
    """A view from the origin of a wall at depth z."""
    none, places = np.zeros((0, 2)), np.zeros((0, 3))
    depth = np.full((80, 100), z, np.float32)
    return Keyframe(
        np.eye(4), depth.astype(np.uint8), depth, none.astype(np.float32), places, places, places, none, None
    )


def departed(map: InstanceMap, empty: set[int]) -> Departed:
    result = Departed()
    lost = {id: map.instances[id].last_seen for id in (OLD, OTHER) if id in map.instances}
    result.update(map, lost, set())
    result.update(map, lost, empty)
    return result


def test_a_thing_that_is_gone_from_its_place_is_found_elsewhere() -> None:
    map = room()
    gone = departed(map, {OLD})
    enter(map, NEW, (-0.5, 0, 2), (0.2, 0.15, 0.1), RED, 20)  # it also was turned
    (found,) = gone.elsewhere(map, {NEW: 20}, (keyframe(3.0),), K).items()
    assert found[0] == NEW and found[1][0] == OLD and 0.5 < found[1][1] <= 1


def test_only_if_its_own_place_is_empty_and_the_new_one_was() -> None:
    map = room()
    enter(map, NEW, (-0.5, 0, 2), (0.1, 0.2, 0.15), RED, 20)
    assert departed(map, set()).elsewhere(map, {NEW: 20}, (keyframe(3.0),), K) == {}
    gone = departed(map, {OLD})
    assert gone.elsewhere(map, {NEW: 20}, (keyframe(1.9),), K) == {}, "it may have been there all the time"
    assert gone.elsewhere(map, {NEW: 2}, (keyframe(3.0),), K) == {}, "both were in view at once"
    assert gone.elsewhere(map, {NEW: 20}, (), K).keys() == {NEW}
    gone.keep_only({OTHER})
    assert gone.elsewhere(map, {NEW: 20}, (keyframe(3.0),), K) == {}, "it was found again meanwhile"


def test_another_colour_or_size_is_another_thing_and_of_twins_nobody_knows() -> None:
    map = room()
    gone = departed(map, {OLD, OTHER})
    enter(map, NEW, (-0.5, 0, 2), (0.1, 0.2, 0.15), (40, 160, 40), 20)
    enter(map, NEW + 1, (-0.5, 0.6, 2), (0.1, 0.5, 0.15), RED, 20)
    assert gone.elsewhere(map, {NEW: 20, NEW + 1: 20}, (), K) == {}
    enter(map, NEW + 2, (-0.5, -0.6, 2), (0.1, 0.2, 0.15), RED, 20)
    assert gone.elsewhere(map, {NEW + 2: 20}, (), K).keys() == {NEW + 2}
    enter(map, NEW + 3, (0, -0.6, 2), (0.1, 0.2, 0.15), RED, 20)
    assert gone.elsewhere(map, {NEW + 2: 20, NEW + 3: 20}, (), K) == {}


def test_likeness_is_of_size_and_colour() -> None:
    map = room()
    like, other = Likeness.of(map, OLD), Likeness.of(map, OTHER)
    assert like is not None and other is not None and Likeness.of(map, 77) is None
    assert np.abs(like.size - [0.2, 0.15, 0.1]).max() < 0.04
    assert like.difference(like) == 0 and like.difference(other) == np.inf
