"""Pose, map and ids of small generated scenes through `mastsam bench --only map`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mastsam_ros.evaluation import bench_map, generated
from mastsam_ros.evaluation.datasets import open_sequences
from mastsam_ros.geometry.transforms import transform
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import InputError


@pytest.fixture(scope="module")
def sequences(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("scenes")
    small = {"frames": 6, "width": 240, "height": 180}
    with pytest.MonkeyPatch.context() as patch:
        kinds = {"stacked": {"seed": 34, "stacked": True, **small}, "walker": {"seed": 37, "walker": True, **small}}
        patch.setattr(generated, "GENERATED", kinds)
        return generated.generated_sequences(folder)


@pytest.fixture(scope="module")
def measured(sequences) -> bench_map.MapRun:
    """The first scene's."""
    return bench_map.measure_map(sequences[0], Settings())


def test_scores_of_a_scene_with_things_that_touch(sequences, measured) -> None:
    stacked, walker = sequences
    assert len(stacked.touching) == 4 and not stacked.moving and len(walker.moving) == 1
    done = measured
    assert done.ate_m < 0.02 and done.lost == 0 and done.near > 0.9
    assert done.apart is not None and done.apart > 0.3
    printed = bench_map.map_table({"stacked": done})
    assert "touching apart" in printed and "| stacked" in printed
    assert done.to_mapping()["touching_told_apart"] == done.apart


def test_the_true_surface_is_what_rests(sequences) -> None:
    _, walker = sequences
    (instance,) = walker.moving
    rests = bench_map.true_surface(walker)
    everything = bench_map.true_surface(dataclasses.replace(walker, moving=frozenset()))
    assert (walker.truth(walker.frames[3]) == instance).sum() > 100
    assert len(rests) < len(everything)
    assert np.abs(rests).max() < 4


def test_poses_are_compared_after_the_first_is_aligned(sequences, measured, monkeypatch) -> None:
    """A system whose world lies elsewhere has no other error."""

    def elsewhere(settings: Settings) -> Mastsam:
        mastsam = create_mastsam(settings)
        mastsam.map.odometry.origin = transform((3.0, -1.0, 0.5), (0.0, 0.6, 0.0, 0.8))
        mastsam.map.odometry.reset()
        return mastsam

    monkeypatch.setattr(bench_map, "create_mastsam", elsewhere)
    done = bench_map.measure_map(sequences[0], Settings())
    assert done.ate_m == pytest.approx(measured.ate_m, abs=1e-3) and done.near == pytest.approx(measured.near, abs=0.02)


def test_frames_without_a_pose_are_counted(sequences) -> None:
    stacked, _ = sequences
    done = bench_map.measure_map(stacked, Settings().updated({"geometry.map": False}))
    assert done.lost == 6 and np.isnan(done.ate_m) and np.isnan(done.near)


def test_a_sequence_as_a_depth_camera_measures_it(sequences) -> None:
    plain = sequences[0].frame(0, True)
    for sensor in ("noise", "structured light", "stereo"):
        sequence = bench_map.sensed(sequences[0], sensor)
        measured = sequence.frame(0, True)
        assert sequence.name == f"stacked, {sensor}" and (measured.depth == 0).mean() > 0.01
        assert np.array_equal(measured.depth, sequence.frame(0, True).depth)
        assert np.array_equal(measured.image, plain.image) and sequence.frame(0, False).depth is None


def test_the_folder_says_what_touches_and_what_moves(tmp_path) -> None:
    scene = SampleScene(34, stacked=True, frames=1, width=64, height=48)
    (read,) = open_sequences(scene.write_scene_folder(tmp_path / "scene"))
    assert read.touching == scene.touching
    with pytest.raises(InputError, match="no generated scene 'kitchen'"):
        generated.generated_sequences(tmp_path, ["kitchen"])
