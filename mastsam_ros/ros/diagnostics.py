"""What the node says about itself: counts, rates, latencies per stage, memory and the model's state."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from mastsam_ros.ros.memory import heap_megabytes, resident_megabytes
from mastsam_ros.settings import NodeSettings
from mastsam_ros.types import SelfCheck

_WINDOW = 300
"""Frames that latencies and rates are taken over."""


@dataclass(frozen=True)
class Counts:
    """Images by what became of them.

    received = processed + skipped + failed + unpaired + those that wait or are in work. lost: missing between two that
    came, lost on the way or overwritten in the queue before the node looked. unpaired_depth: depth images
    without an image.
    """

    received: int = 0
    processed: int = 0
    skipped: int = 0
    failed: int = 0
    lost: int = 0
    unpaired: int = 0
    unpaired_depth: int = 0


class Statistics:
    """Counts and times of the running node; any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()
        self._milliseconds: dict[str, deque[float]] = {}
        self._arrivals: deque[float] = deque(maxlen=_WINDOW)
        self._results: deque[float] = deque(maxlen=_WINDOW)
        self._checks: deque[SelfCheck] = deque(maxlen=_WINDOW)
        self._switches = 0

    def add(self, **counts: int) -> None:
        """Adds to the counts named."""
        with self._lock:
            new = {name: getattr(self._counts, name) + count for name, count in counts.items()}
            self._counts = replace(self._counts, **new)
            if counts.get("received"):
                self._arrivals.append(time.monotonic())

    def processed(self, timings_ms: Mapping[str, float], check: SelfCheck | None = None) -> None:
        """A frame is done; milliseconds per stage, and how good its result looks."""
        with self._lock:
            if check is not None:
                self._checks.append(check)
                self._switches += check.switches
            self._counts = replace(self._counts, processed=self._counts.processed + 1)
            self._results.append(time.monotonic())
            for stage, milliseconds in timings_ms.items():
                self._milliseconds.setdefault(stage, deque(maxlen=_WINDOW)).append(milliseconds)

    @property
    def counts(self) -> Counts:
        """The counts so far."""
        with self._lock:
            return self._counts

    def rates(self) -> tuple[float, float]:
        """Images received and processed per second, lately; 0 when they have stopped."""
        with self._lock:
            return _rate(self._arrivals), _rate(self._results)

    def percentiles(self) -> dict[str, tuple[float, float]]:
        """Stage -> (p50, p95) in milliseconds, lately."""
        with self._lock:
            stages = {stage: list(values) for stage, values in self._milliseconds.items()}
        return {stage: (float(p[0]), float(p[1])) for stage, v in stages.items() for p in [np.percentile(v, [50, 95])]}

    def quality(self) -> Quality | None:
        """How good the results look, lately; None before the first."""
        with self._lock:
            checks, switches = list(self._checks), self._switches
        if not checks:
            return None
        consistency = [check.consistency for check in checks if check.consistency is not None]
        return Quality(
            float(np.mean(consistency)) if consistency else None,
            float(np.mean([check.uncovered for check in checks])),
            float(np.mean([check.largest for check in checks])),
            sum(check.switches for check in checks) / len(checks),
            switches,
        )


@dataclass(frozen=True)
class Quality:
    """Means of the self-checks over the last frames, and the number of ids that ever seemed to switch."""

    consistency: float | None
    uncovered: float
    largest: float
    switches_per_frame: float
    switches: int

    def values(self) -> dict[str, str]:
        """As /diagnostics shows them."""
        return {
            "consistency %": "" if self.consistency is None else f"{100 * self.consistency:.1f}",
            "uncovered %": f"{100 * self.uncovered:.1f}",
            "largest mask %": f"{100 * self.largest:.1f}",
            "suspected id switches": str(self.switches),
            "suspected id switches per frame": f"{self.switches_per_frame:.2f}",
        }

    def problem(self, settings: NodeSettings) -> str:
        """What is out of its bounds and what helps, or an empty text."""
        if self.largest > settings.warn_largest:
            return (
                f"one mask covers {100 * self.largest:.0f} % of the picture: is it sharp and lit? is"
                " tracker.discovery on?"
            )
        if self.uncovered > settings.warn_uncovered:
            return (
                f"{100 * self.uncovered:.0f} % of the picture have no label: the segmenter finds little;"
                " see tracker.discovery, sam.min_iou"
            )
        if self.consistency is not None and self.consistency < settings.warn_consistency:
            return (
                f"only {100 * self.consistency:.0f} % of the matched pixels keep their id: the camera moves too far"
                " between two processed images"
            )
        if self.switches_per_frame > settings.warn_switches:
            return f"{self.switches_per_frame:.1f} ids per frame seem to switch: see tracker.join_iou, tracker.revival"
        return ""


def status_message(
    name: str, statistics: Statistics, state: str, problem: str, extra: Mapping[str, str]
) -> DiagnosticStatus:
    """One status of /diagnostics. state: the model's. problem: a warning for people, or empty. extra: more values."""
    received, processed = statistics.rates()
    in_use = heap_megabytes()
    values = {
        "model state": state,
        **{key.replace("_", " "): str(count) for key, count in vars(statistics.counts).items()},
        "received per second": f"{received:.2f}",
        "processed per second": f"{processed:.2f}",
        **{
            f"{stage} ms p50, p95": f"{median:.1f}, {high:.1f}"
            for stage, (median, high) in statistics.percentiles().items()
        },
        "memory MB": f"{resident_megabytes():.0f}",
        "memory in use MB": "" if in_use is None else f"{in_use:.0f}",
        **extra,
    }
    level = DiagnosticStatus.WARN if problem else DiagnosticStatus.OK
    message = problem or f"{state}, {processed:.1f} frames per second"
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, values=pairs)


def _rate(times: deque[float]) -> float:
    """Events per second over the last ten seconds or fewer."""
    now = time.monotonic()
    recent = [t for t in times if now - t <= 10.0]
    if len(recent) < 2:
        return 0.0
    return (len(recent) - 1) / max(now - recent[0], 1e-3)
