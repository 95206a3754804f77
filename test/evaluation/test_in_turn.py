"""Two versions' speed compared in turn: bench/in_turn.py as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mastsam_ros.io.sample_scene import SampleScene

CHECKOUT = Path(__file__).resolve().parents[2]


def compared(other: Path, data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    SampleScene(path="orbit", frames=6, width=160, height=120).write_scene_folder(data / "orbit")
    command = [sys.executable, str(CHECKOUT / "bench" / "in_turn.py"), str(other), str(data), *options]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("option", ["--depth", "--upcoming"])
def test_a_version_against_itself_has_the_same_labels(option: str, tmp_path: Path) -> None:
    done = compared(CHECKOUT, tmp_path, option)
    assert done.returncode == 0, done.stderr
    told = r"orbit: ([\d.]+) ms there, ([\d.]+) ms here, times ([\d.]+), median [\d.]+; labels the same\n"
    line = re.fullmatch(told, done.stdout)
    assert line is not None, done.stdout
    there, here, ratio = map(float, line.groups())
    assert here > 0 and abs(ratio - here / there) < 0.01


def test_a_version_that_ends_early_is_an_error_that_says_so(tmp_path: Path) -> None:
    broken = tmp_path / "other" / "mastsam_ros"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise SystemExit(7)\n")
    done = compared(broken.parent, tmp_path / "data")
    assert done.returncode != 0 and "a version ended: 7" in done.stderr
