"""How good the results look, as /diagnostics tells it: means over the last frames, and what is out of its bounds."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from mastsam_ros.ros.diagnostics import Statistics, status_message
from mastsam_ros.settings import Settings
from mastsam_ros.types import SelfCheck

GOOD = SelfCheck(0.97, 0.01, 0.4, 0)


def statistics(*checks: SelfCheck) -> Statistics:
    result = Statistics()
    for check in checks:
        result.processed({"total": 10.0}, check)
    return result


def test_nothing_is_said_before_the_first_frame():
    assert statistics().quality() is None


def test_means_and_totals():
    quality = statistics(SelfCheck(None, 0.2, 0.5, 0), SelfCheck(0.9, 0.4, 0.3, 3)).quality()
    assert quality is not None
    assert quality.consistency == 0.9, "the first frame has none"
    assert (quality.uncovered, quality.largest) == (pytest.approx(0.3), pytest.approx(0.4))
    assert (quality.switches, quality.switches_per_frame) == (3, 1.5)
    assert quality.values()["consistency %"] == "90.0" and quality.values()["suspected id switches"] == "3"


def test_only_the_last_frames_count_but_switches_are_never_forgotten():
    quality = statistics(*[SelfCheck(0.1, 1.0, 0.0, 2)] * 10, *[GOOD] * 300).quality()
    assert quality is not None and quality.consistency == pytest.approx(0.97)
    assert (quality.switches, quality.switches_per_frame) == (20, 0)


@pytest.mark.parametrize(
    ("check", "setting", "words"),
    [
        (GOOD, "", ""),
        (SelfCheck(1.0, 0.0, 0.99, 0), "node.warn_largest", "one mask covers 99 % of the picture"),
        (SelfCheck(0.97, 0.6, 0.3, 0), "node.warn_uncovered", "60 % of the picture have no label"),
        (SelfCheck(0.5, 0.0, 0.3, 0), "node.warn_consistency", "only 50 % of the matched pixels keep their id"),
        (SelfCheck(0.97, 0.0, 0.3, 2), "node.warn_switches", "2.0 ids per frame seem to switch"),
    ],
)
def test_what_is_out_of_its_bounds_is_said_and_the_bounds_can_be_set(check, setting, words):
    quality = statistics(check).quality()
    assert quality is not None
    said = quality.problem(Settings().node)
    assert said.startswith(words) and bool(said) == bool(words) and "\n" not in said
    if setting:
        tolerant = Settings().updated({setting: 0.0 if setting == "node.warn_consistency" else 1.0})
        if setting == "node.warn_switches":
            tolerant = tolerant.updated({setting: 5.0})
        assert quality.problem(tolerant.node) == ""


def test_the_values_are_in_the_status():
    counted = statistics(GOOD)
    quality = counted.quality()
    assert quality is not None
    status = status_message("mastsam: tracking", counted, "ready", "", quality.values())
    values = {pair.key: pair.value for pair in status.values}
    assert values["consistency %"] == "97.0" and values["largest mask %"] == "40.0"
