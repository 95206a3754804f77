"""The whole pipeline and `mastsam run` on MASt3R and Segment Anything, tiny models of random weights on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mastsam_ros.cli import main
from mastsam_ros.matchers.mast3r.matcher import Mast3rMatcher
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.segmenters.prompted import PromptedSegmenter
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame


def _frames(count: int) -> list[Frame]:
    rng = np.random.default_rng(3)
    wide = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return [Frame(np.ascontiguousarray(wide[:, 3 * n : 3 * n + 128])) for n in range(count)]


def test_every_frame_gets_labels_and_the_same_ones_twice(tiny_models: dict[str, Any]) -> None:
    settings = Settings.from_mapping(tiny_models)
    runs = []
    for _ in range(2):
        mastsam = create_mastsam(settings)
        runs.append([mastsam.step(frame) for frame in _frames(4)])
    assert all(result.labels.shape == (96, 128) and result.labels.dtype == np.uint16 for result in runs[0])
    assert runs[0][0].labels.any()
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first.labels, second.labels)


def test_cameras_share_the_networks_and_nothing_else(tiny_models: dict[str, Any]) -> None:
    settings = Settings.from_mapping(tiny_models)
    alone = create_mastsam(settings)
    expected = [alone.step(frame).labels for frame in _frames(3)]
    first = create_mastsam(settings)
    second = create_mastsam(first.settings, like=first)
    assert isinstance(first.matcher, Mast3rMatcher) and isinstance(second.matcher, Mast3rMatcher)
    assert isinstance(first.segmenter, PromptedSegmenter) and isinstance(second.segmenter, PromptedSegmenter)
    assert first.matcher.network is second.matcher.network and first.segmenter.network is second.segmenter.network
    mirrored = [Frame(np.ascontiguousarray(frame.image[:, ::-1])) for frame in _frames(3)]
    for frame, other, labels in zip(_frames(3), mirrored, expected, strict=True):
        second.step(other)  # what the other camera sees changes nothing
        np.testing.assert_array_equal(first.step(frame).labels, labels)


def test_run_writes_what_the_pipeline_gives(tiny_models: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    frames = _frames(3)
    for n, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / "images" / f"{n:03}.png"), frame.image[..., ::-1])
    settings = [f"--set={path}={json.dumps(value)}" for path, value in tiny_models.items()]
    assert main(["run", str(tmp_path / "images"), "--output", str(tmp_path / "out"), *settings]) == 0
    mastsam = create_mastsam(Settings.from_mapping(tiny_models))
    for n, frame in enumerate(frames):
        labels = cv2.imread(str(tmp_path / "out" / "labels" / f"{n:03}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels, mastsam.step(frame).labels)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"]["matcher"]["name"] == "mast3r" and summary["settings"]["segmenter"]["name"] == "hf_sam"
