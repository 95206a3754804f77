"""Times of stages, and work on the second core."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from mastsam_ros.stages import SecondCore, StageTimer


def test_the_time_of_a_stage_is_the_sum_of_its_parts() -> None:
    ticks = count()
    timer = StageTimer(lambda: next(ticks) / 1e3)
    for stage in ("match", "carry", "match"):
        with timer(stage):
            pass
    assert timer.milliseconds() == pytest.approx({"match": 2.0, "carry": 1.0, "total": 7.0})


def test_the_body_runs_beside_the_work() -> None:
    met = threading.Barrier(2, timeout=30)
    core, timer = SecondCore(), StageTimer(lambda: 0.0)
    with core.meanwhile(timer, "segment", lambda: bool(met.wait())):
        met.wait()
    assert "segment" in timer.milliseconds()


def test_a_fault_of_the_work_is_raised_when_the_body_has_ended() -> None:
    done: list[str] = []

    def fails() -> None:
        raise ValueError("of the work")

    core, timer = SecondCore(), StageTimer(lambda: 0.0)
    with pytest.raises(ValueError, match="of the work"), core.meanwhile(timer, "map", fails):
        done.append("body")
    assert done == ["body"]


def test_finishing_waits_for_work_that_fails() -> None:
    core, release, done = SecondCore(), threading.Event(), list[int]()

    def fails_late() -> None:
        release.wait(30)
        done.append(1)
        raise ValueError

    started = core.start(fails_late)
    release.set()
    core.finish()
    assert done == [1] and isinstance(started.exception(), ValueError)
