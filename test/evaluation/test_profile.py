"""The profile of a step: every stage is there, its times add up, and floors lie below what is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from mastsam_ros.evaluation.datasets import open_sequences
from mastsam_ros.evaluation.profile import profile, profile_table
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.settings import Settings
from mastsam_ros.types import InputError


def test_stages_add_up_and_lie_above_their_floors(tmp_path: Path) -> None:
    SampleScene(path="orbit", frames=4, width=160, height=120).write_scene_folder(tmp_path / "orbit")
    (scene,) = open_sequences(tmp_path)
    stages = profile(scene, Settings(), True, 4, pixels=200 * 150)
    *parts, total = stages
    assert {"match", "pose", "segment", "carry", "map", "lift", "other"} <= {stage.name for stage in parts}
    assert total.name == "total" and sum(stage.cpu_ms for stage in parts) == pytest.approx(total.cpu_ms)
    assert 0 < total.floor_ms < total.cpu_ms
    lines = profile_table("orbit", stages).splitlines()
    assert lines[0].startswith("| orbit") and len([line for line in lines if line.startswith("| ")]) == len(stages) + 1
    with pytest.raises(InputError, match="at least 2 frames, got 1"):
        profile(scene.first(1), Settings(), True, 4)
