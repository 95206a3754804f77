"""Where the outline of one thing goes on in the other's there is no notch, and what hides both says nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mastsam_ros.touching import FIRST, SECOND, UNKNOWN, Touch, around, margin, symmetry

HEIGHT, WIDTH = 200, 300


def seen(sides: npt.NDArray[np.uint8]) -> Touch:
    touch = Touch.of(sides, sides.size)
    assert touch is not None
    return touch


def halves() -> npt.NDArray[np.uint8]:
    sides = np.zeros((HEIGHT, WIDTH), np.uint8)
    sides[60:100, 120:160], sides[100:140, 120:160] = FIRST, SECOND
    return sides


def one_before_the_other() -> npt.NDArray[np.uint8]:
    sides = np.zeros((HEIGHT, WIDTH), np.uint8)
    sides[60:100, 100:200], sides[85:140, 130:160] = FIRST, SECOND
    return sides


def test_halves_make_no_notch_and_one_before_the_other_does() -> None:
    half, notch = seen(halves()), seen(one_before_the_other())
    assert half.corner == pytest.approx(0.55, abs=0.07) and notch.corner > 0.7
    assert half.convexity == pytest.approx(1, abs=0.02) and notch.convexity < 0.85
    assert half.contact == pytest.approx(40 / 160)
    assert half.area.tolist() == [1600, 1600]


def test_what_does_not_touch_has_no_contact() -> None:
    sides = halves()
    sides[100] = 0
    assert Touch.of(sides, sides.size) is None


def test_what_lies_before_both_says_nothing_of_their_outline() -> None:
    """A ball before the right ends of both halves takes a bite out of them."""
    sides = halves()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ball = (y - 100) ** 2 + (x - 165) ** 2 < 25**2
    bitten, hidden = sides.copy(), sides.copy()
    bitten[ball], hidden[ball] = 0, UNKNOWN
    whole = seen(sides)
    assert seen(hidden).corner == pytest.approx(whole.corner, abs=0.02)
    assert seen(hidden).convexity > 0.97 > 0.85 > seen(bitten).convexity


@pytest.mark.parametrize("make", [halves, one_before_the_other])
def test_the_part_of_the_picture_around_both_is_enough(make) -> None:  # type: ignore[no-untyped-def]
    sides = make()
    rows, columns = np.nonzero(sides)
    there = around(np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]), sides.shape)
    cut = np.ascontiguousarray(sides[there])
    assert cut.size < sides.size and cut.shape[0] == np.ptp(rows) + 1 + 2 * margin(sides.size)
    part, whole = Touch.of(cut, sides.size), seen(sides)
    assert part is not None
    assert (part.corner, part.contact, part.convexity) == (whole.corner, whole.contact, whole.convexity)


def test_at_the_edge_of_the_picture_it_goes_on_as_there() -> None:
    sides = np.zeros((HEIGHT, WIDTH), np.uint8)
    sides[:40, 120:160], sides[40:80, 120:160] = FIRST, SECOND
    assert seen(sides).corner == pytest.approx(seen(halves()).corner)


@pytest.mark.parametrize("turned", [0, 1, 2, 3])
def test_what_lies_on_one_axis_is_its_own_mirror_image_however_it_is_held(turned: int) -> None:
    assert symmetry(np.ascontiguousarray(np.rot90(halves(), turned))) == 1
    sides = one_before_the_other()
    off = symmetry(sides)
    assert off < 0.75
    assert symmetry(np.ascontiguousarray(np.rot90(sides, turned))) == pytest.approx(off, abs=0.02)
    sides[sides == SECOND] = 0
    sides[60:100, 100:200], sides[100:140, 135:165] = FIRST, SECOND
    assert symmetry(np.ascontiguousarray(np.rot90(sides, turned))) == 1, "a mushroom is, though it has notches"


def test_what_leans_is_alike_on_both_sides_of_its_own_axis() -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    along, across = (x - 150) * 0.6 + (y - 100) * 0.8, (x - 150) * 0.8 - (y - 100) * 0.6
    sides = np.where((abs(across) < 20) & (abs(along) < 50), np.where(along < 10, FIRST, SECOND), 0).astype(np.uint8)
    assert symmetry(sides) > 0.95


def test_things_around_each_other_have_no_axis() -> None:
    sides = np.zeros((HEIGHT, WIDTH), np.uint8)
    sides[60:141, 100:181], sides[90:111, 130:151] = FIRST, SECOND
    assert symmetry(sides) == 0
