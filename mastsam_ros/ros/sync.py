"""Pairs images with depth images by stamp, in bounded queues, and counts what found no partner."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


class StampSync(Generic[First, Second]):
    """Two streams; messages whose stamps differ by at most the tolerance belong together.

    Within a stream stamps rise. A stamp that falls (a bag that loops) empties that stream's queue.
    """

    def __init__(self, queue: int, tolerance_ns: int) -> None:
        self.tolerance_ns = tolerance_ns
        self.unpaired_first = 0
        self.unpaired_second = 0
        self._queue = queue
        self._first: deque[tuple[int, First]] = deque()
        self._second: deque[tuple[int, Second]] = deque()

    def add_first(self, stamp_ns: int, message: First) -> tuple[First, Second] | None:
        """The pair that this message completes, or None: it waits."""
        self.unpaired_first += _append(self._first, stamp_ns, message, self._queue)
        return self._pair(len(self._first) - 1, _nearest(self._second, stamp_ns))

    def add_second(self, stamp_ns: int, message: Second) -> tuple[First, Second] | None:
        """The pair that this message completes, or None: it waits."""
        self.unpaired_second += _append(self._second, stamp_ns, message, self._queue)
        return self._pair(_nearest(self._first, stamp_ns), len(self._second) - 1)

    def give_up_first(self) -> None:
        """Counts what waits of the first stream as unpaired."""
        self.unpaired_first += len(self._first)
        self._first.clear()

    @property
    def waiting(self) -> int:
        """Messages of the first stream that may still find a partner."""
        return len(self._first)

    def _pair(self, first: int | None, second: int | None) -> tuple[First, Second] | None:
        if first is None or second is None:
            return None
        (first_ns, one), (second_ns, other) = self._first[first], self._second[second]
        if abs(first_ns - second_ns) > self.tolerance_ns:
            return None
        # Streams arrive in order, so that what is older than this pair cannot be paired any more.
        self.unpaired_first += first
        self.unpaired_second += second
        _drop(self._first, first + 1)
        _drop(self._second, second + 1)
        return one, other


def _append(queue: deque, stamp_ns: int, message: object, size: int) -> int:
    """Returns how many messages were dropped."""
    dropped = 0
    if queue and stamp_ns < queue[-1][0]:
        dropped = len(queue)
        queue.clear()
    queue.append((stamp_ns, message))
    if len(queue) > size:
        queue.popleft()
        dropped += 1
    return dropped


def _nearest(queue: deque, stamp_ns: int) -> int | None:
    if not queue:
        return None
    return min(range(len(queue)), key=lambda place: abs(queue[place][0] - stamp_ns))


def _drop(queue: deque, count: int) -> None:
    for _ in range(count):
        queue.popleft()
