"""The watershed: OpenCV's, to the bit, with its lines given away."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mastsam_ros.segmenters.regions.watershed import watershed


@pytest.mark.parametrize("size", [(60, 80), (1, 9), (9, 1), (37, 41)])
def test_the_watershed_is_opencvs_with_its_lines_given_away(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    image = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), np.uint8), (0, 0), 1.5).reshape(*size, 3)
    seeds = np.where(rng.random(size) < 0.03, 1, 0).astype(np.int32)
    seeds[0, 0] = 1
    seeds[seeds > 0] = np.arange(1, seeds.sum() + 1)
    theirs = np.pad(seeds, 1)
    cv2.watershed(np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge"), theirs)
    theirs = theirs[1:-1, 1:-1]
    ours = watershed(image, seeds)
    np.testing.assert_array_equal(ours[theirs > 0], theirs[theirs > 0])
    assert (ours > 0).all()
    for y, x in np.argwhere(theirs < 0):
        around = [(y + dy, x + dx) for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))]
        around = [(v, u) for v, u in around if 0 <= v < size[0] and 0 <= u < size[1] and theirs[v, u] > 0]
        apart = {(v, u): ((image[v, u].astype(int) - image[y, x].astype(int)) ** 2).sum() for v, u in around}
        nearest = {theirs[at] for at in around if apart[at] == min(apart.values())}
        assert not nearest or ours[y, x] in nearest


def test_the_outline_is_where_the_colour_changes() -> None:
    image = np.full((20, 30, 3), 40, np.uint8)
    image[:, 17:] = 200
    seeds = np.zeros((20, 30), np.int32)
    seeds[10, 2], seeds[4, 28] = 1, 2
    labels = watershed(image, seeds)
    assert (labels[:, :17] == 1).all() and (labels[:, 17:] == 2).all()


def test_each_seed_grows_one_piece_that_holds_it() -> None:
    rng = np.random.default_rng(5)
    image = cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 2)
    seeds = np.zeros((48, 64), np.int32)
    at = rng.choice(seeds.size, 25, replace=False)
    seeds.ravel()[at] = np.arange(1, 26)
    labels = watershed(image, seeds)
    np.testing.assert_array_equal(labels.ravel()[at], np.arange(1, 26))
    pieces = [cv2.connectedComponents((labels == n).astype(np.uint8), connectivity=4)[0] - 1 for n in range(1, 26)]
    assert pieces == [1] * 25
