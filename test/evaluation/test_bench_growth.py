"""Nothing piles up over many frames with the foundation models, and what does is seen."""

from __future__ import annotations

import pytest

from mastsam_ros.evaluation.bench_growth import LongRun, Sample, long_run
from mastsam_ros.matchers import Matcher
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame, Matches

pytest.importorskip("transformers")


class Hoarder:
    """A matcher that keeps what it gave."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.kept: list[Matches] = []

    def match(self, previous: Frame, current: Frame) -> Matches:
        self.kept.append(self.matcher.match(previous, current))
        return self.kept[-1]


def test_the_whole_pipeline_stays_as_large_as_it_is() -> None:
    run = long_run(Settings(device="cpu"), 90)
    assert run.samples[-1].frame == 90
    assert run.growth("objects") < 1.001 and run.growth("tensor_mb") < 1.2, run.line()
    assert run.growth("resident_mb") < 1.02, run.line()


def test_what_piles_up_shows() -> None:
    run = long_run(Settings(device="cpu"), 30, Hoarder)
    assert run.growth("tensor_mb") > 1.3 and run.growth("tensors") > 1.1, run.line()


def test_growth_compares_the_last_third_with_the_middle() -> None:
    run = LongRun(tuple(Sample(n, 100.0 if n < 4 else 200.0, 0.0, n, 5, 7) for n in range(1, 10)))
    assert run.means("tensor_mb") == (5.0, 8.0) and run.growth("tensor_mb") == 1.6
    assert run.growth("resident_mb") == 1.0 and run.growth("gpu_mb") == 1.0
    assert "9 frames" in run.line() and "MB in live tensors 5 -> 8" in run.line()
