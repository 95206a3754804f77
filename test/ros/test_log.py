"""Lines that are not repeated."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from mastsam_ros.ros import log
from mastsam_ros.ros.log import Complaints


class Said(list):
    """A logger that keeps what is said."""

    def warning(self, text: str) -> None:
        self.append(text)


def test_a_line_is_said_once_in_a_while_with_what_was_held_back(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    said = Said()
    complaints = Complaints(said, interval_s=5.0)
    for n in range(12):
        now[0] = float(n)
        complaints.warn("dark", f"it is\n dark {n}")
    assert said == ["it is dark 0", "it is dark 5 (and 4 more like this)", "it is dark 10 (and 4 more like this)"]


def test_kinds_that_never_come_again_are_forgotten(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    said = Said()
    complaints = Complaints(said, interval_s=5.0)
    for n in range(5000):
        now[0] += 0.1
        complaints.warn(f"frame {n}", f"frame {n}")
        complaints.warn("dark", "dark")
    assert len(complaints._said) <= 1001
    assert sum(text.startswith("dark") for text in said) == 100 and len(said) == 5100
