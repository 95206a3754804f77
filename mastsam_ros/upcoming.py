"""What a step can do for the next one where its frame is known already: on the second core, beside its own end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

from mastsam_ros.stages import SecondCore
from mastsam_ros.types import Frame, Matches

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Prepared:
    """view: the frame at working size; matches: from the view `previous` to it, None if they were left to its step."""

    view: Frame
    previous: Frame
    matches: Matches | None


class Upcoming:
    """The frame that comes next, and what the second core does for it; one at a time."""

    def __init__(self, second_core: SecondCore) -> None:
        self._second_core = second_core
        self._begun: tuple[Frame, Future[Prepared]] | None = None

    def prepare(self, frame: Frame, work: Callable[[], Prepared]) -> None:
        """Does the work for this frame as soon as the second core is done with what it was given before."""
        self._begun = frame, self._second_core.start(work)

    def wait(self) -> None:
        """Until the work is done, whether it went well or not."""
        if self._begun is not None:
            wait([self._begun[1]])

    def take(self, frame: Frame) -> Prepared | None:
        """What was done for this frame; None if it was another one, or failed: then its step meets the fault."""
        begun, self._begun = self._begun, None
        if begun is None or begun[0] is not frame or begun[1].exception() is not None:
            return None
        return begun[1].result()

    def forget(self) -> None:
        """What was done is not what the next step would do."""
        self._begun = None


def with_upcoming(items: Iterable[Item]) -> Iterator[tuple[Item, Item | None]]:
    """Each item and the one after it, None after the last. A fault of their source comes after what was before it."""
    iterator = iter(items)
    item = next(iterator, None)
    while item is not None:
        try:
            upcoming = next(iterator, None)
        except Exception:
            yield item, None
            raise
        yield item, upcoming
        item = upcoming
