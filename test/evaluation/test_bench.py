"""`mastsam bench` end to end on a small rendered scene."""

from __future__ import annotations

import argparse
import json
import re

import pytest

from mastsam_ros.evaluation import bench, generated
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.types import InputError, SettingsError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    SampleScene(frames=3, width=160, height=120).write_scene_folder(root / "scenes" / "orbit")
    return root


def run(*arguments) -> int:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.run(parser.parse_args([str(argument) for argument in arguments]))


def test_tables_and_figures(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(data, "--json", "figures.json") == 0
    printed = capsys.readouterr().out
    for row in (
        "orbit RGB ",
        "orbit RGB-D",
        "orbit, true matches",
        "orbit, 2 px noise, 20 % outliers",
        "ms per stage:",
    ):
        assert row in printed
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {"scenes", "tracker"}
    run_ = figures["scenes"]["orbit RGB-D"]
    assert run_["frames"] == 3 and run_["fps"] > 0 and 0 <= run_["identity"]["found"] <= 1 and run_["H"] > 0
    assert run_["stages_ms"]["total"] > 0
    assert figures["tracker"]["orbit, true matches"]["identity"]["tube_iou"] > 0.5


def test_nothing_to_measure_is_said(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no videos in .*data"):
        run(data, "--only", "davis")
    with pytest.raises(InputError, match="at least 1 frame .* got 0"):
        run(data, "--only", "scenes", "--frames", 0)
    with pytest.raises(InputError, match="a profile needs at least 2 frames, got 1"):
        run(data, "--profile", "--frames", 1)


def test_one_table_and_few_frames(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(data, "--only", "tracker", "--frames", 1, "--set", "tracker.discovery=false")
    assert len(re.findall(r"^\| orbit", capsys.readouterr().out, re.M)) == 2


def test_generated_videos_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = {"seed": 1, "frames": 3, "width": 96, "height": 72}
    monkeypatch.setattr(generated, "HELD_OUT_VIDEOS", {"drift": {"mover": "car", "smoke": True, **small}})
    assert run("--only", "generated", "--frames", 2, "--json", "figures.json") == 0
    assert len(re.findall(r"^\| drift", capsys.readouterr().out, re.M)) == 1
    assert json.loads((tmp_path / "figures.json").read_text())["generated"]["drift"]["frames"] == 2


def test_generated_scenes_where_there_is_nothing_else(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "SampleScene", lambda path, frames: SampleScene(0, path, 1, 64, 48, objects=1))
    videos, scenes = bench.open_data(None, None)
    assert videos == [] and [scene.name for scene in scenes] == ["look_away", "orbit", "wide_baseline"]


def test_wrong_names(data):
    with pytest.raises(InputError, match="no sequence 'cow'"):
        run(data, "--sequences", "cow")
    with pytest.raises(SettingsError, match="unknown setting"):
        run(data, "--set", "tracker.nothing=1")
