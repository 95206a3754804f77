"""The node's benchmarks run; what they measure is for people to read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")

BENCH = Path(__file__).parents[2] / "bench"


def test_overhead_names_its_parts_and_their_sum(ros_domain):
    command = [sys.executable, str(BENCH / "node_overhead.py"), "--frames", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=dict(os.environ))
    parts = {
        name: float(spent) for name, spent in re.findall(r"^\| ((?:in|out): [^|]+) \| ([0-9.]+) \|$", done.stdout, re.M)
    }
    together = re.findall(r"\*\*([0-9.]+)\*\* \|$", done.stdout, re.M)
    assert len(parts) == 10 and len(together) == 1, done.stdout + done.stderr
    assert abs(sum(parts.values()) - float(together[0])) < 0.1
    assert done.returncode == int(float(together[0]) > 6.0)
