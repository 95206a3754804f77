"""Malformed and hostile messages: a frame or one clear line each; the node lives on (bench/faults.py throws more)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])
    from bench import faults

    return faults


def test_conversion_and_step(faults):
    outcomes = faults.throw_at_pipeline(count=400, seed=1)
    assert outcomes["labelled"] > 50 and outcomes["message refused"] > 50 and outcomes["intrinsics refused"] > 20


@pytest.mark.parametrize("compressed", [False, True])
def test_over_dds(faults, ros_domain, tmp_path, compressed):
    counts = faults.throw_at_node(count=150, seed=2, compressed=compressed, logs=tmp_path)
    log = (tmp_path / "node.log").read_text(encoding="utf-8", errors="replace")
    assert counts["received"] == counts["sent"] == 150, counts
    assert counts["failed"] > 10 and counts["processed"] > 5, counts
    said = [line for line in log.splitlines() if "[mastsam]" in line]
    assert 2 <= len(said) < 20, log
