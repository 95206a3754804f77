"""The one thread that owns the model: it does what is asked, and handles the latest item of each camera in turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from mastsam_ros.types import MastsamError

Item = TypeVar("Item")
Model = TypeVar("Model")
Answer = TypeVar("Answer")


class Inbox(Generic[Item]):
    """One slot per camera and a queue of requests.

    A slot holds one item, and a newer one takes its place: who is slow sees the newest, and nothing piles up.
    Requests are all kept, and come before items. Cameras take turns.
    """

    def __init__(self, cameras: int = 1) -> None:
        self._slots: list[Item | None] = [None] * cameras
        self._turn = 0
        self._requests: deque[Callable[[], None]] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Item, camera: int = 0) -> bool:
        """True if an item that nobody had taken was replaced, or the inbox is closed."""
        with self._changed:
            lost = self._closed or self._slots[camera] is not None
            if not self._closed:
                self._slots[camera] = item
                self._changed.notify()
        return lost

    def ask(self, request: Callable[[], None]) -> bool:
        """False if the inbox is closed: the request will not be taken."""
        with self._changed:
            if not self._closed:
                self._requests.append(request)
                self._changed.notify()
            return not self._closed

    def clear(self) -> list[int]:
        """Drops the items that wait; how many of each camera. Requests stay."""
        with self._changed:
            dropped = [int(item is not None) for item in self._slots]
            self._slots = [None] * len(self._slots)
        return dropped

    def close(self) -> None:
        """Drops the items that wait. `take` gives the requests that are left, and then None."""
        with self._changed:
            self._closed = True
            self._slots = [None] * len(self._slots)
            self._changed.notify_all()

    def take(self) -> Callable[[], None] | tuple[int, Item] | None:
        """Waits for a request, or for an item and the number of its camera. None after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._requests or self.full)
            if self._requests:
                return self._requests.popleft()
            for step in range(len(self._slots)):
                camera = (self._turn + step) % len(self._slots)
                item, self._slots[camera] = self._slots[camera], None
                if item is not None:
                    self._turn = camera + 1
                    return camera, item
        return None

    @property
    def full(self) -> bool:
        """True while an item waits."""
        return any(item is not None for item in self._slots)


class ModelWorker(threading.Thread, Generic[Model, Item]):
    """Makes the model, then does what is asked of it and handles the latest items, again and again.

    create: makes the model and warms it up. handle: one item of the camera of this number. failed: called with what
    `handle` raised: the worker ends. All of them run in this thread. cameras: how many of them take turns.
    """

    def __init__(
        self,
        create: Callable[[], Model],
        handle: Callable[[Model, int, Item], None],
        failed: Callable[[Exception], None],
        cameras: int = 1,
    ) -> None:
        # A daemon, so that a model that takes long to load does not hold up the end of the process.
        super().__init__(name="mastsam-model", daemon=True)
        self.inbox: Inbox[Item] = Inbox(cameras)
        self.loading: Future[None] = Future()
        """Done once the model is there; holds the error if it could not be made."""
        self._create, self._handle, self._failed = create, handle, failed
        self._stop_asked = threading.Event()
        self._model: Any = None

    def request(self, change: Callable[[Model], Answer]) -> Future[Answer]:
        """Has `change` called with the model, after the item in work and before the next. The future holds its answer.

        The future raises what `change` raised, and MastsamError if the worker ends before its turn comes.
        """
        answer: Future[Answer] = Future()

        def do() -> None:
            try:
                if self._model is None:
                    raise _ended()
                answer.set_result(change(self._model))
            except Exception as error:  # noqa: BLE001 - it belongs to who asked
                answer.set_exception(error)

        if not self.inbox.ask(do):
            answer.set_exception(_ended())
        return answer

    def stop(self, timeout_s: float) -> bool:
        """Ends after the item in work. False if that takes longer than the timeout."""
        self._stop_asked.set()
        self.inbox.close()
        if self.is_alive():
            self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        """The thread's life."""
        try:
            self._model = self._create()
        except Exception as error:  # noqa: BLE001 - whatever it is, a model that is not there must not go unnoticed
            self.loading.set_exception(error)
        else:
            self.loading.set_result(None)
            self._work()
        # The model goes with its thread, even while somebody still holds the worker.
        self._model = None
        self.inbox.close()
        while callable(request := self.inbox.take()):
            request()

    def _work(self) -> None:
        try:
            while (taken := self.inbox.take()) is not None:
                if not isinstance(taken, tuple):
                    taken()
                elif not self._stop_asked.is_set():
                    camera, item = taken
                    self._handle(self._model, camera, item)
        except Exception as error:  # noqa: BLE001 - nor a worker that is gone
            self._failed(error)


def _ended() -> MastsamError:
    return MastsamError("the model is not there any more: the node was cleaned up or shut down")
