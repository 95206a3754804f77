"""Colours and overlays: stable, told apart by eye, drawn where the labels are."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from mastsam_ros.types import InputError
from mastsam_ros.viz import colors, overlay


def scene() -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    labels = np.kron(np.arange(48, dtype=np.uint16).reshape(6, 8), np.ones((80, 80), np.uint16))
    return image, labels


def test_colours_are_stable_and_zero_is_black() -> None:
    table = colors(np.arange(65536))
    assert table.shape == (65536, 3)
    assert table.dtype == np.uint8
    np.testing.assert_array_equal(table[0], [0, 0, 0])
    np.testing.assert_array_equal(colors([500, 0, 3]), table[[500, 0, 3]])
    assert colors([]).shape == (0, 3)


@pytest.mark.parametrize("first", [1, 100, 40_000])
def test_colours_of_ids_in_one_picture_are_told_apart(first: int) -> None:
    some = colors(np.arange(first, first + 60))
    lab = cv2.cvtColor(np.float32(some[None]) / 255, cv2.COLOR_RGB2Lab)[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(60)
    assert distance.min() > 12, distance.min()
    assert (lab[:, 0] > 44).all(), "every colour is bright enough to be seen"


def test_overlay_leaves_unlabelled_pixels_and_fills_and_outlines_the_others() -> None:
    image, labels = scene()
    before = image.copy()
    picture = overlay(image, labels, alpha=0.25)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(picture[labels == 0], image[labels == 0])
    np.testing.assert_array_equal(picture[80, 80], colors([9])[0])
    inside = np.rint(0.75 * image[120, 120].astype(float) + 0.25 * colors([9])[0])
    assert np.abs(picture[120, 120] - inside).max() <= 1


def test_overlay_takes_a_read_only_image() -> None:
    image, labels = scene()
    image.flags.writeable = False
    assert overlay(image, labels).shape == image.shape


def test_numbers_change_only_labelled_regions_they_fit_in() -> None:
    image, labels = scene()
    plain, numbered = overlay(image, labels), overlay(image, labels, numbers=True)
    changed = (plain != numbered).any(2)
    assert set(np.unique(labels[changed])) == set(range(1, 48))


def test_overlay_needs_equal_sizes() -> None:
    image, labels = scene()
    with pytest.raises(InputError, match=r"\(480, 640\), got \(479, 640\)"):
        overlay(image, labels[1:])


def test_an_overlay_costs_a_fraction_of_the_plain_formula() -> None:
    image, labels = scene()

    def cpu_s(draw: Callable[[], object]) -> float:
        spent = []
        for _ in range(5):
            start = time.thread_time()
            draw()
            spent.append(time.thread_time() - start)
        return min(spent)

    plain = cpu_s(lambda: (0.5 * image + 0.5 * colors(labels)).astype(np.uint8))
    assert cpu_s(lambda: overlay(image, labels)) < 0.5 * plain  # seen: a tenth
