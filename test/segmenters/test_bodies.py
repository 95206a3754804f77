"""Numbers of bodies over time, and bodies that touch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mastsam_ros.segmenters.regions.bodies import Bodies


def squares(*lefts: int) -> npt.NDArray[np.int32]:
    segments = np.zeros((40, 120), np.int32)
    for number, left in enumerate(lefts, start=1):
        segments[10:30, left : left + 20] = number
    return segments


def uniform_flow(dx: float) -> npt.NDArray[np.float32]:
    return np.full((40, 120, 2), (dx, 0), np.float32)


def test_a_moving_body_keeps_its_number() -> None:
    bodies = Bodies()
    first = bodies.update(squares(10), None)
    for step in range(1, 6):
        image = bodies.update(squares(10 + 4 * step), uniform_flow(-4))
        assert image[20, 20 + 4 * step] == first[20, 20]


def test_bodies_that_were_apart_stay_apart_when_they_touch() -> None:
    bodies = Bodies()
    for _ in range(10):
        apart = bodies.update(squares(10, 60), None)
    left, right = apart[20, 20], apart[20, 70]
    touching = (squares(10, 60) > 0).astype(np.int32)
    touching[15:25, 30:60] = 1
    image = bodies.update(touching, None)
    assert image[20, 20] == left and image[20, 70] == right and left != right
    assert image[20, 32] == left and image[20, 57] == right
    assert not image[touching == 0].any()


def test_bodies_that_touch_for_longer_than_they_were_apart_become_one() -> None:
    bodies = Bodies()
    touching = squares(10, 60)
    touching[15:25, 30:60] = 1
    touching[touching == 2] = 1
    for _ in range(12):
        bodies.update(squares(10, 60), None)
    two = [len(np.unique(bodies.update(touching, None))) == 3 for _ in range(8)]
    assert two == [True] * 5 + [False] * 3, "eight frames make them two, four more let them be so for four more"


def test_parts_that_were_never_apart_are_one() -> None:
    bodies = Bodies()
    two = bodies.update(squares(10, 60), None)
    joined = (squares(10, 60) > 0).astype(np.int32)
    joined[15:25, 30:60] = 1
    image = bodies.update(joined, None)
    assert len(np.unique(image)) == 2 and image.max() in (two[20, 20], two[20, 70])


def test_a_new_body_has_no_number_that_is_in_view_and_numbers_stay_small() -> None:
    bodies = Bodies()
    bodies.update(squares(5, 90), None)
    for step in range(60):
        image = bodies.update(squares(5, 40 if step % 2 else 90), None)
        assert image[20, 10] == 1 and image.max() <= 3
        assert len(np.unique(image)) == 3


def test_another_size_starts_anew() -> None:
    bodies = Bodies()
    bodies.update(squares(10), None)
    assert bodies.update(np.ones((20, 30), np.int32), None).shape == (20, 30)
