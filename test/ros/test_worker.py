"""Slots hold the latest item, cameras take turns, requests are all answered, and one thread does it all."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from mastsam_ros.ros.worker import Inbox, ModelWorker
from mastsam_ros.types import MastsamError


def ignore(*_):
    return None


def test_a_slot_keeps_the_newest():
    inbox: Inbox[int] = Inbox()
    assert not inbox.put(1)
    assert inbox.put(2)
    assert inbox.take() == (0, 2)
    assert not inbox.put(3) and inbox.full
    assert inbox.clear() == [1] and not inbox.full
    inbox.close()
    assert inbox.take() is None
    assert inbox.put(4), "what comes after the end is lost"


def test_cameras_take_turns_and_requests_come_first():
    inbox: Inbox[str] = Inbox(cameras=3)
    for item in ("a1", "a2"):
        inbox.put(item, 0)
    inbox.put("b1", 1)
    assert inbox.take() == (0, "a2")
    inbox.put("a3", 0)
    assert inbox.ask(ignore)
    assert inbox.take() is ignore
    assert inbox.take() == (1, "b1"), "camera 0 had its turn"
    inbox.put("b2", 1)
    inbox.put("c1", 2)
    assert [inbox.take() for _ in range(3)] == [(2, "c1"), (0, "a3"), (1, "b2")]


def test_a_busy_worker_sees_the_newest_item_and_no_request_is_lost():
    handled, threads, changes = [], set(), []
    busy, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def handle(model, camera, item):
        threads.add(threading.get_ident())
        handled.append((model, camera, item))
        busy.set()
        go_on.wait(5)
        if item == 9:
            done.set()

    worker: ModelWorker = ModelWorker(lambda: "model", handle, ignore)
    worker.start()
    worker.inbox.put(0)
    assert busy.wait(5)
    replaced = sum(worker.inbox.put(item) for item in range(1, 10))
    answer = worker.request(changes.append)
    assert not answer.done()
    go_on.set()
    assert done.wait(5)
    assert worker.stop(5)
    assert handled == [("model", 0, 0), ("model", 0, 9)]
    assert replaced == 8 and changes == ["model"] and threads == {worker.ident} and answer.done()


def test_requests_are_answered_without_any_item():
    worker: ModelWorker = ModelWorker(lambda: 20, ignore, ignore)
    early: Future = worker.request(lambda model: model + 1)
    worker.start()
    assert early.result(5) == 21
    assert worker.request(lambda model: model + 2).result(5) == 22
    with pytest.raises(ZeroDivisionError):
        worker.request(lambda model: model / 0).result(5)
    assert worker.stop(5)
    with pytest.raises(MastsamError, match="not there any more"):
        worker.request(lambda model: model).result(5)


def test_a_model_that_cannot_be_made_is_reported_and_nobody_waits_for_it():
    def create():
        raise RuntimeError("no weights")

    worker: ModelWorker = ModelWorker(create, ignore, ignore)
    waiting = worker.request(lambda model: model)
    worker.start()
    with pytest.raises(RuntimeError, match="no weights"):
        worker.loading.result(5)
    with pytest.raises(MastsamError, match="not there any more"):
        waiting.result(5)


def test_a_handler_that_fails_is_reported_and_nobody_waits_for_it():
    failures: list[Exception] = []

    def handle(model, camera, item):
        raise RuntimeError("broken")

    worker: ModelWorker = ModelWorker(lambda: "model", handle, failures.append)
    worker.inbox.put(1)
    worker.start()
    worker.join(5)
    assert [str(error) for error in failures] == ["broken"]
    with pytest.raises(MastsamError, match="not there any more"):
        worker.request(lambda model: model).result(5)


def test_stop_says_when_the_worker_is_still_busy():
    release = threading.Event()
    worker: ModelWorker = ModelWorker(lambda: release.wait(5), ignore, ignore)
    worker.start()
    assert not worker.stop(0.05)
    release.set()
    worker.join(5)
    assert worker.stop(1)
