"""Ctrl-C: what it waits for, and that compiled code does not hide it."""

from __future__ import annotations

import os
import signal
import threading
from itertools import pairwise

import numpy as np
import pytest

from mastsam_ros.interrupts import interrupts_told, interrupts_wait
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.run import stepped
from mastsam_ros.types import Frame, FrameResult


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        interrupt()
        done.append("block")
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_comes_through() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        interrupt()
        interrupt()
        done.append("block")
    assert not done


def test_an_error_in_the_block_is_told_and_not_the_interrupt() -> None:
    with pytest.raises(ValueError, match="of the block"), interrupts_wait():
        interrupt()
        raise ValueError("of the block")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_leaves_the_handler_alone() -> None:
    handlers = []

    def work() -> None:
        with interrupts_wait():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_a_step_is_finished_before_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    mastsam = create_mastsam()
    step = mastsam.step
    results: list[FrameResult] = []

    def interrupted(frame: Frame, upcoming: Frame | None) -> FrameResult:
        interrupt()
        results.append(step(frame, upcoming))
        return results[-1]

    monkeypatch.setattr(mastsam, "step", interrupted)
    image = np.random.default_rng(5).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    with pytest.raises(KeyboardInterrupt):
        list(stepped(mastsam, [("0", Frame(image, 0)), ("1", Frame(image, 1))]))
    assert len(results) == 1


def chained(*errors: BaseException) -> BaseException:
    """The first of them, caused by the second, and so on."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def test_an_interrupt_within_compiled_code_is_one() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_told():
        raise chained(SystemError("of the dispatcher"), SystemError("of its caller"), KeyboardInterrupt())


@pytest.mark.parametrize("cause", [None, ValueError()])
def test_any_other_system_error_is_itself(cause: BaseException | None) -> None:
    with pytest.raises(SystemError, match="real"), interrupts_told():
        raise SystemError("real") from cause
