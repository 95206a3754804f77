"""How long each stage of a step takes, and a second core that does some of them beside the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")


class StageTimer:
    """Milliseconds per stage, on a clock that gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._spent: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._clock()
        yield
        self._spent[stage] = self._spent.get(stage, 0.0) + (self._clock() - start) * 1e3

    def milliseconds(self) -> dict[str, float]:
        """Stage -> milliseconds, and "total" since the timer was made."""
        total = (self._clock() - self._start) * 1e3
        return {stage: round(spent, 3) for stage, spent in (*self._spent.items(), ("total", total))}


class SecondCore:
    """One thread, started with its first work, that does what it is given in turn. It ends with this object."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mastsam")

    def start(self, work: Callable[[], Result]) -> Future[Result]:
        """Does the work as soon as what was given before is done."""
        return self._thread.submit(work)

    def finish(self) -> None:
        """Waits until nothing is left to do, whether it went well or not."""
        self._thread.submit(lambda: None).result()

    @contextmanager
    def meanwhile(self, timer: StageTimer, stage: str, work: Callable[[], None]) -> Iterator[None]:
        """Does the work of a stage while the body runs. What the body's end waits for is the stage's time.

        A fault of either is raised here, when both have ended.
        """
        done = self.start(work)
        try:
            yield
        finally:
            with timer(stage):
                wait([done])
        done.result()
