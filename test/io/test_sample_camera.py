"""What a real camera adds: each fault does what it says, and without any the picture stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.io.sample_camera import SampleCamera
from mastsam_ros.types import InputError


def bar(time: float) -> np.ndarray:
    """A bright bar that moves by ten pixels a frame."""
    image = np.full((40, 200, 3), 100, np.uint8)
    image[:, round(50 + 10 * time) : round(60 + 10 * time)] = 200
    return image


def test_no_faults_no_change() -> None:
    camera = SampleCamera(1, 10)
    assert np.array_equal(camera.picture(bar, 4), bar(4))
    assert np.array_equal(camera.held(lambda time: np.eye(4))(3.0), np.eye(4))


def test_the_open_shutter_smears_what_moves_along_its_way() -> None:
    row = SampleCamera(1, 10, shutter=1.0).picture(bar, 4)[20, :, 0]
    assert (row[:84] == 100).all() and (row[110:] == 100).all()
    assert 95 <= np.average(np.arange(200), weights=row - 100.0) + 0.5 <= 96 and row.max() < 200


def test_the_hand_shakes_as_much_as_it_should() -> None:
    turns, shifts = [], []
    for seed in range(20):
        pose = SampleCamera(seed, 60, shake_deg=0.5).held(lambda time: np.eye(4))
        for T in (pose(float(index)) for index in range(60)):
            turns.append(np.degrees([T[2, 1], T[0, 2], T[1, 0]]))
            shifts.append(T[:3, 3])
    assert np.std(turns) == pytest.approx(0.5, rel=0.15) and np.std(shifts) == pytest.approx(0.005, rel=0.15)
    steps = [np.abs(pose(t + 0.5) - pose(t)).max() for t in np.arange(0.0, 50.0)]
    assert max(steps) < 0.03, "it moves on, it does not jump"


def test_the_light_goes_down_the_blue_first_and_comes_back_but_for_the_blow() -> None:
    camera = SampleCamera(3, 40, dimming=0.4)
    levels = np.array(
        [camera.picture(lambda time: np.full((4, 4, 3), 200, np.uint8), n).mean((0, 1)) for n in range(40)]
    )
    assert levels[0] == pytest.approx([200, 200, 200]) and levels[20, 0] > levels[20, 1] > levels[20, 2]
    assert levels[20, 1] < 0.62 * 200 and 0.8 * 200 < levels[39, 1] < 0.9 * 200
    assert np.diff(levels[:, 1]).min() < -10


def test_grain_has_its_strength_and_the_same_seed_the_same_bytes() -> None:
    grey = np.full((60, 80, 3), 120, np.uint8)
    first, again = (SampleCamera(5, 3, noise=4.0).picture(lambda time: grey, 2) for _ in range(2))
    assert np.array_equal(first, again) and np.std(first.astype(float) - grey) == pytest.approx(4, rel=0.05)
    assert not np.array_equal(first, SampleCamera(5, 3, noise=4.0).picture(lambda time: grey, 1))


@pytest.mark.parametrize("wrong", [{"noise": -1}, {"shutter": 1.5}, {"dimming": 1.0}, {"shake_deg": -0.1}])
def test_impossible_cameras_are_refused(wrong) -> None:
    with pytest.raises(InputError, match="sample camera"):
        SampleCamera(1, 5, **wrong)
