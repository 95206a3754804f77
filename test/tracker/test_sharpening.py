"""Outlines at the camera's size."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.matchers import create_matcher
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.segmenters.regions import RegionSegmenter
from mastsam_ros.settings import Settings
from mastsam_ros.tracker.outlines import enlarge
from mastsam_ros.tracker.sharpening import sharpened
from mastsam_ros.types import Frame

RED, BLUE = (170, 60, 50), (40, 80, 160)


def painted(labels: np.ndarray, colours: dict[int, tuple[int, int, int]], noise: float = 4.0) -> np.ndarray:
    """A noisy picture of labels, every one in its colour."""
    picture = np.zeros((*labels.shape, 3))
    for label, colour in colours.items():
        picture[labels == label] = colour
    return (picture + np.random.default_rng(3).normal(0, noise, picture.shape)).clip(0, 255).astype(np.uint8)


def disc(height: int, width: int) -> np.ndarray:
    """Labels with a disc in the middle, 7 on 3."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot((y + 0.5) / height - 0.5, ((x + 0.5) / width - 0.5) * width / height) < 0.3
    return np.where(inside, 7, 3).astype(np.uint16)


@pytest.mark.parametrize("scale", [1.0, 1.4, 2.4, 3.6])
def test_outlines_are_those_of_the_picture(scale: float) -> None:
    true = disc(round(100 * scale), round(140 * scale))
    small = np.roll(disc(100, 140), 1, axis=1)
    image = painted(true, {3: RED, 7: BLUE})
    before, after = (np.mean(labels != true) for labels in (enlarge(small, image), sharpened(small, image)))
    assert after < 0.15 * before


def test_an_outline_that_the_picture_does_not_show_stays_about_where_it_is() -> None:
    labels = disc(100, 140)
    after = sharpened(labels, painted(labels, {3: RED, 7: RED}))
    assert np.mean(after != labels) < 0.02 and set(np.unique(after)) == {3, 7}


def test_a_shadow_beside_a_thing_goes_to_what_it_lies_on() -> None:
    labels = np.full((60, 80), 3, np.uint16)
    labels[20:40, 30:50] = 7
    shaded = labels.copy()
    shaded[40:42, 30:50] = 9
    image = painted(shaded, {3: (180, 150, 110), 7: (120, 122, 124), 9: (134, 112, 82)}, 1.0)
    fat = labels.copy()
    fat[40, 30:50] = 7
    assert (fat != labels).sum() == 20
    assert (sharpened(fat, image) != labels).sum() <= 2


def test_what_is_too_thin_to_have_a_colour_stays() -> None:
    labels = np.full((60, 80), 3, np.uint16)
    labels[10:50, 40:42] = 7
    after = sharpened(labels, painted(labels, {3: RED, 7: BLUE}))
    assert (after == labels).all()


def test_no_label_is_new_and_one_alone_fills_the_picture() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 40, (30, 40)).astype(np.uint16)
    image = rng.integers(0, 256, (75, 100, 3)).astype(np.uint8)
    after = sharpened(labels, image)
    assert after.shape == (75, 100) and after.dtype == np.uint16 and set(np.unique(after)) <= set(range(40))
    assert (sharpened(np.full((3, 4), 9, np.uint16), image) == 9).all()
    assert (sharpened(np.full((1, 1), 9, np.uint16), image[:1, :1]) == 9).all()


class WithoutSayingSo:
    """The regions of the embedded default from a segmenter that does not call its outlines rough."""

    def __init__(self) -> None:
        regions = RegionSegmenter()
        self.set_frame, self.predict, self.everything = regions.set_frame, regions.predict, regions.everything


def test_labels_fit_the_things_better_where_the_segmenter_calls_its_outlines_rough() -> None:
    scene = SampleScene(21, "orbit", 2)
    plain = Settings().with_assignments(["tracker.sharpen_outlines=false"])
    runs = {
        "sharp": create_mastsam(Settings()),
        "plain": create_mastsam(plain),
        "not said": Mastsam(create_matcher(plain), WithoutSayingSo()),
    }
    fit: dict[str, list[float]] = {name: [] for name in runs}
    for view in scene:
        labels = {name: mastsam.step(Frame(view.frame.image)).labels for name, mastsam in runs.items()}
        assert (labels["plain"] == labels["not said"]).all() and (labels["plain"] != labels["sharp"]).any()
        for name, found in labels.items():
            for thing in scene.object_ids:
                true = view.instance == thing
                if true.any():
                    best = np.bincount(found[true]).argmax()
                    fit[name].append((true & (found == best)).sum() / (true | (found == best)).sum())
    assert np.mean(fit["sharp"]) > np.mean(fit["plain"]) + 0.01
