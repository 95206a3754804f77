"""The sample video's truth: the mask is what moves, nothing else does, and nothing depends on chance."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from mastsam_ros.evaluation.datasets import open_sequences
from mastsam_ros.io.sample_movers import MOVERS
from mastsam_ros.io.sample_scene import SceneView
from mastsam_ros.io.sample_video import CAMERAS, MOVER_ID, SampleVideo, _camera_way
from mastsam_ros.types import InputError

SMALL: dict[str, Any] = {"frames": 26, "width": 214, "height": 120, "noise": 0.0, "shutter": 0.0}


@cache
def video(mover: str, **options: Any) -> SampleVideo:
    """Its light takes a second to compute: several tests look at the same one."""
    return SampleVideo(1, mover, "still", **SMALL, **options)


def mask(of: SampleVideo, index: int) -> np.ndarray:
    return of.render(index).instance == MOVER_ID


@pytest.mark.parametrize("mover", MOVERS)
def test_the_mover_is_in_view_and_moves_before_a_still_background(mover: str) -> None:
    first, second = (video(mover, shadow=False).render(index) for index in (8, 17))
    before, after = first.instance == MOVER_ID, second.instance == MOVER_ID
    assert 0.01 < before.mean() < 0.5
    middle = [float(np.argwhere(m)[:, 1].mean()) for m in (before, after)]
    assert abs(middle[1] - middle[0]) > 8 or mover == "dancer"  # who stays about where she is
    # Of what both show, nothing differs.
    rests = cv2.erode((~before & ~after).astype(np.uint8), np.ones((3, 3))) > 0
    assert rests.mean() > 0.3 and np.array_equal(first.frame.image[rests], second.frame.image[rests])


@pytest.mark.parametrize(
    ("mover", "changes"), [("car", False), ("animal", True), ("person", True), ("balloon", True), ("dancer", True)]
)
def test_limbs_swing_and_balloons_breathe(mover: str, changes: bool) -> None:
    shapes = []
    for index in (9, 12, 15):
        shown = mask(video(mover, shadow=False), index)
        rows, columns = np.nonzero(shown)
        box = shown[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        shapes.append(box.shape[1] / box.shape[0])
    assert (max(shapes) / min(shapes) > 1.1) == changes, shapes


def test_shadow_and_waves_are_on_the_ground_alone() -> None:
    plain, dark = (video("animal", shadow=shadow).render(13) for shadow in (False, True))
    assert np.array_equal(dark.instance, plain.instance)
    differs = (dark.frame.image != plain.frame.image).any(axis=2)
    assert differs.mean() > 0.005 and not differs[plain.instance == MOVER_ID].any()
    sea = [video("animal", shadow=False, water=True).render(index) for index in (8, 17)]
    rests = cv2.erode(np.all([view.instance != MOVER_ID for view in sea], axis=0).astype(np.uint8), np.ones((5, 5))) > 0
    differs = (sea[0].frame.image != sea[1].frame.image).any(axis=2) & rests
    on_water = np.isin(sea[0].instance, video("animal", shadow=False, water=True)._ground)
    assert differs[on_water].mean() > 0.2 and not differs[~on_water].any()


def contrast(view: SceneView, ground: tuple[int, ...]) -> float:
    """Between the mover's mean colour and the ground's."""
    parts = view.instance == MOVER_ID, np.isin(view.instance, ground)
    return float(np.linalg.norm(np.subtract(*(view.frame.image[part].mean(axis=0) for part in parts))))


def test_it_waits_before_it_goes_and_has_the_colours_of_the_ground() -> None:
    plain, hiding = video("animal", shadow=False), video("animal", shadow=False, waits=0.5, camouflage=True)
    first, last, gone = (mask(hiding, index) for index in (0, 11, 25))
    assert np.array_equal(first, last) and (gone ^ last).sum() > 0.5 * last.sum()
    assert contrast(hiding.render(13), hiding._ground) < 0.7 * contrast(plain.render(13), plain._ground)


def test_onlookers_sway_behind_it_and_haze_takes_contrast_away() -> None:
    crowded = video("dancer", shadow=False, crowd=True, haze=0.6)
    views, alone = [crowded.render(index) for index in (8, 17)], video("dancer", shadow=False).render(8)
    assert np.array_equal(views[0].instance == MOVER_ID, alone.instance == MOVER_ID)
    ids = [number for number, name in crowded.instance_names.items() if "onlooker" in name]
    shown = [np.isin(view.instance, ids) for view in views]
    assert shown[0].mean() > 0.01 and 0 < (shown[0] ^ shown[1]).sum() < 0.6 * shown[0].sum()
    assert contrast(views[0], crowded._ground) == pytest.approx(0.4 * contrast(alone, crowded._ground), rel=0.1)


def test_smoke_hangs_in_the_air_where_it_was() -> None:
    clear, hidden = (video("car", shadow=False, **options).render(20) for options in ({}, {"smoke": True}))
    assert np.array_equal(clear.instance, hidden.instance)
    smoke = np.abs(clear.frame.image.astype(int) - hidden.frame.image).max(axis=2) > 10
    assert smoke.mean() > 0.01
    assert (smoke & (clear.instance == MOVER_ID)).sum() < 0.3 * smoke.sum()


def test_trees_hide_it() -> None:
    areas = [
        [int(mask(video("car", **options), index).sum()) for index in range(0, 26, 5)]
        for options in ({"shadow": False}, {"shadow": False, "occluders": True})
    ]
    assert min(hidden / free for free, hidden in zip(*areas, strict=True)) < 0.9


def test_one_camera_goes_along_one_turns_one_rests() -> None:
    def place(time: float) -> np.ndarray:
        return np.array([0.1 * time, 0, 0])

    moved, turned = {}, {}
    for camera in CAMERAS:
        pose = _camera_way(camera, place, 26, 3.0, np.random.default_rng(0))
        moved[camera] = float(np.linalg.norm(pose(25.0)[:3, 3] - pose(0.0)[:3, 3]))
        turned[camera] = float(np.abs(pose(25.0)[:3, :3] - pose(0.0)[:3, :3]).max())
    assert moved["follow"] == pytest.approx(2.5) and moved["pan"] == moved["still"] == moved["meet"] == 0
    meets = _camera_way("meet", place, 26, 3.0, np.random.default_rng(0))(0.0)[:3, 3]
    assert np.linalg.norm(meets - place(25.0)) < 0.8 * np.linalg.norm(meets - place(0.0))
    assert turned["pan"] > 0.1 and turned["still"] == 0 and turned["follow"] < 1e-9


def test_same_arguments_same_bytes_in_the_layout_of_davis(tmp_path) -> None:
    options = {"frames": 3, "width": 107, "height": 60}
    for root in (tmp_path / "a", tmp_path / "b"):
        SampleVideo(5, "person", "pan", **options).write_davis_folder(root, "someone")
    files = [sorted(p for p in (tmp_path / root).rglob("*") if p.is_file()) for root in ("a", "b")]
    assert len(files[0]) == 6
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    (sequence,) = open_sequences(tmp_path / "a")
    assert sequence.kind == "video" and sequence.binary and sequence.name == "someone"
    assert np.array_equal(sequence.truth(sequence.frames[1]), mask(SampleVideo(5, "person", "pan", **options), 1))
    other = SampleVideo(6, "person", "pan", **options).render(1).frame.image
    assert np.abs(other.astype(int) - sequence.frame(1, False).image).mean() > 10


@pytest.mark.parametrize(
    "wrong", [{"mover": "snail"}, {"camera": "drone"}, {"frames": 0}, {"shutter": 2.0}, {"waits": 1.0}]
)
def test_impossible_videos_are_refused(wrong) -> None:
    with pytest.raises(InputError, match="sample video|sample camera"):
        SampleVideo(**wrong)


def test_there_is_no_frame_behind_the_last() -> None:
    with pytest.raises(InputError, match=r"frames 0\.\.25"):
        video("car", shadow=False).render(26)
