"""How far groups of points reach."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.geometry.extents import group_extents


def test_each_group_has_numpys_percentiles() -> None:
    rng = np.random.default_rng(1)
    points, group = rng.normal(0, 3, (400, 3)).astype(np.float32), rng.choice([0, 2, 3, 7], 400)
    of_group = dict(group_extents(points, group))
    assert list(of_group) == [0, 2, 3, 7]
    for number, extent in of_group.items():
        np.testing.assert_allclose(extent, np.percentile(points[group == number], (5, 50, 95), axis=0), rtol=1e-6)


@pytest.mark.parametrize(("fewest", "reported"), [(1, [1, 4, 5]), (2, [4, 5]), (3, [5]), (4, [])])
def test_groups_of_fewer_points_are_left_out(fewest: int, reported: list[int]) -> None:
    points = np.arange(18, dtype=np.float32).reshape(6, 3)
    assert [number for number, _ in group_extents(points, np.array([5, 4, 1, 5, 4, 5]), fewest)] == reported


def test_one_point_reaches_from_itself_to_itself() -> None:
    ((_, extent),) = group_extents(np.array([[1, 2, 3]], np.float32), np.array([0]))
    np.testing.assert_array_equal(extent, [[1, 2, 3]] * 3)


def test_no_points_are_no_groups() -> None:
    assert list(group_extents(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))) == []
