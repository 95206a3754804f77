"""The box holds the latest item, and the worker handles it in its one thread."""

from __future__ import annotations

import threading

from mastsam_ros.ros.worker import LatestBox, ModelWorker


def test_the_box_keeps_the_newest():
    box: LatestBox[int] = LatestBox()
    assert not box.put(1)
    assert box.put(2)
    assert box.take() == 2
    assert not box.put(3)
    box.close()
    assert box.take() is None


def test_a_busy_worker_sees_the_newest_item_and_no_request_is_lost():
    handled, threads, changes = [], set(), []
    busy, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def handle(model, item):
        threads.add(threading.get_ident())
        handled.append((model, item))
        busy.set()
        go_on.wait(5)
        if item == 9:
            done.set()

    worker: ModelWorker = ModelWorker(lambda: "model", lambda: None, lambda error: None, handle)
    worker.start()
    worker.box.put(0)
    assert busy.wait(5)
    replaced = sum(worker.box.put(item) for item in range(1, 10))
    worker.request(changes.append)
    go_on.set()
    assert done.wait(5)
    assert worker.stop(5)
    assert handled == [("model", 0), ("model", 9)]
    assert replaced == 8 and changes == ["model"] and threads == {worker.ident}


def test_a_model_that_cannot_be_made_is_reported():
    failures = []

    def create():
        raise RuntimeError("no weights")

    worker: ModelWorker = ModelWorker(create, lambda: None, failures.append, lambda model, item: None)
    worker.start()
    worker.join(5)
    assert [str(error) for error in failures] == ["no weights"]


def test_stop_says_when_the_worker_is_still_busy():
    release = threading.Event()
    worker: ModelWorker = ModelWorker(lambda: release.wait(5), lambda: None, lambda error: None, lambda m, i: None)
    worker.start()
    assert not worker.stop(0.05)
    release.set()
    worker.join(5)
    assert worker.stop(1)
