"""A queue that hands tasks to worker processes, one GPU each where there are GPUs, or to a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, Protocol, TypeVar

from mastsam_ros.types import MastsamError, MissingPackageError

Task = TypeVar("Task")
Result = TypeVar("Result")
Work = Callable[[Task, Callable[[], None]], Result]
"""Does one task and calls its second argument after every frame; a function of a module, as processes need it."""
_ATTEMPTS = 2


@dataclass(frozen=True)
class Failure:
    """A task that gave no result, and why, in one line."""

    reason: str


class Progress(Protocol):
    """Counts frames: tqdm's bar, or nothing."""

    def update(self, n: float = 1) -> Any:
        """So many more; fewer where a worker died and its task starts again."""


@dataclass
class _Running(Generic[Task]):
    process: SpawnProcess
    index: int
    attempt: int
    slot: int
    frames: int = 0


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def run_in_processes(
    tasks: Sequence[Task], work: Work[Task, Result], workers: int, gpus: Sequence[str], progress: Progress
) -> list[Result | Failure]:
    """The results in the order of the tasks, whatever order they finish in.

    Every task has a process of its own, at most `workers` at a time, each with its share of the cores; worker n sees
    the GPU n of `gpus`, round and round. A task whose process dies is tried once more; one that raises is not.
    """
    context = multiprocessing.get_context("spawn")
    workers = max(1, min(workers, len(tasks)))
    threads = max(1, (os.cpu_count() or 1) // workers)
    results: list[Result | Failure] = [Failure("not started") for _ in tasks]
    waiting = deque((index, 1) for index in range(len(tasks)))
    free = list(range(workers))
    running: dict[Connection, _Running[Task]] = {}
    try:
        while waiting or running:
            while waiting and free:
                index, attempt = waiting.popleft()
                slot = free.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                environment = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}
                arguments = (theirs, environment, threads, work, tasks[index])
                process = context.Process(target=_worker, args=arguments, daemon=True)
                with _interrupts_blocked():
                    process.start()
                theirs.close()  # so that its end is seen when the process dies
                running[ours] = _Running(process, index, attempt, slot)
            ready = set(wait(list(running)))
            for connection in [one for one in running if one in ready]:
                _receive(connection, running, waiting, free, results, progress)
    finally:
        for one in running.values():
            one.process.kill()
            one.process.join()
    return results


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C is held back meanwhile, here, and for good in what is started: its traceback would be told too."""
    resource_tracker.ensure_running()  # what starts it lets interrupts in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(
    connection: Connection,
    running: dict[Connection, _Running[Task]],
    waiting: deque[tuple[int, int]],
    free: list[int],
    results: list[Result | Failure],
    progress: Progress,
) -> None:
    """Takes one message of a worker, or its death."""
    one = running[connection]
    value: Any = None
    try:
        kind, value = connection.recv()
    except (EOFError, ConnectionError):
        kind = "died"
    if kind == "frame":
        one.frames += 1
        progress.update()
        return
    one.process.join()
    connection.close()
    del running[connection]
    free.append(one.slot)
    free.sort()
    if kind == "done":
        results[one.index] = value
        return
    if kind == "died":
        progress.update(-one.frames)
        value = f"its worker died {one.attempt} times, last with {_status(one.process.exitcode)}"
        if one.attempt < _ATTEMPTS:
            waiting.appendleft((one.index, one.attempt + 1))
    results[one.index] = Failure(value)


def _status(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name} (out of memory?)" if name == "SIGKILL" else name
    return f"status {code}"


def _worker(
    connection: Connection, environment: dict[str, str], threads: int, work: Work[Task, Result], task: Task
) -> None:
    """The life of a worker process; on Ctrl-C the parent ends it."""
    os.environ.update(environment)
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    with suppress(BrokenPipeError):  # the parent is gone
        connection.send(_outcome(work, task, lambda: connection.send(("frame", None))))


def _outcome(work: Work[Task, Result], task: Task, tell: Callable[[], None]) -> tuple[str, Any]:
    """("done", result), or ("failed", why in one line)."""
    try:
        return "done", work(task, tell)
    except MastsamError as error:
        return "failed", " ".join(str(error).split())
    except Exception as error:  # noqa: BLE001 - it belongs to this task alone, the others go on
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"


def run_on_ray(
    tasks: Sequence[Task], work: Work[Task, Result], address: str, frames: Sequence[int], progress: Progress
) -> list[Result | Failure]:
    """The same on a Ray cluster: one CPU, and one GPU where the cluster has any, per task.

    address: of `ray.init`: "auto", "local", "ray://host:port". frames: of each task, counted when it is done. The
    cluster's machines need this package and the same files under the same paths. Raises MissingPackageError without
    Ray, MastsamError if there is no cluster at `address`.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError("--ray needs Ray: pip install 'mastsam_ros[ray]', or use --workers") from error
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MastsamError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:200]}") from error
    try:
        gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_ATTEMPTS - 1)(_outcome)
        pending = {remote.remote(work, task, _nothing): index for index, task in enumerate(tasks)}
        results: list[Result | Failure] = [Failure("not started") for _ in tasks]
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            index = pending.pop(done)
            value: Any
            try:
                kind, value = ray.get(done)
            except ray.exceptions.RayError as error:
                kind, value = "failed", f"its worker died {_ATTEMPTS} times: {' '.join(str(error).split())[:200]}"
            results[index] = value if kind == "done" else Failure(value)
            progress.update(frames[index])
        return results
    finally:
        ray.shutdown()


def _nothing() -> None:
    """Frames are not counted one by one across machines."""
