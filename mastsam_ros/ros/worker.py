"""The one thread that owns the model, fed through a box that holds the latest frame only."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Model = TypeVar("Model")


class LatestBox(Generic[Item]):
    """Holds one item. A newer one takes its place: who is slow sees the newest, and nothing piles up."""

    def __init__(self) -> None:
        self._item: Item | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Item) -> bool:
        """True if an item that nobody had taken was replaced."""
        with self._changed:
            replaced, self._item = self._item is not None, item
            self._changed.notify()
        return replaced

    def close(self) -> None:
        """Drops what is in the box; `take` returns None from now on."""
        with self._changed:
            self._closed, self._item = True, None
            self._changed.notify_all()

    def take(self) -> Item | None:
        """Waits for an item. None after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed)
            item, self._item = self._item, None
            return item

    @property
    def full(self) -> bool:
        """True while an item waits."""
        with self._changed:
            return self._item is not None


class ModelWorker(threading.Thread, Generic[Model, Item]):
    """Makes the model, then handles the latest item again and again.

    create: makes the model and warms it up. ready: called once it is there. failed: called with what
    `create` or `handle` raised: the worker ends. handle: one item. All of them run in this thread.
    """

    def __init__(
        self,
        create: Callable[[], Model],
        ready: Callable[[], None],
        failed: Callable[[Exception], None],
        handle: Callable[[Model, Item], None],
    ) -> None:
        # A daemon, so that a model that takes long to load does not hold up the end of the process.
        super().__init__(name="mastsam-model", daemon=True)
        self.box: LatestBox[Item] = LatestBox()
        self._requests: queue.SimpleQueue[Callable[[Model], None]] = queue.SimpleQueue()
        self._stop_asked = threading.Event()
        self._create, self._ready, self._failed, self._handle = create, ready, failed, handle

    def request(self, change: Callable[[Model], None]) -> None:
        """Has `change` called with the model before the next item."""
        self._requests.put(change)

    def stop(self, timeout_s: float) -> bool:
        """Ends after the item in work. False if that takes longer than the timeout."""
        self._stop_asked.set()
        self.box.close()
        if self.is_alive():
            self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        """The thread's life."""
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - whatever it is, a worker that is gone must not go unnoticed
            self._failed(error)

    def _work(self) -> None:
        model = self._create()
        if self._stop_asked.is_set():
            return
        self._ready()
        while not self._stop_asked.is_set():
            item = self.box.take()
            if item is None:
                return
            while not self._requests.empty():
                self._requests.get()(model)
            self._handle(model, item)
