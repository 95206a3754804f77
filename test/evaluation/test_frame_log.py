"""What is kept in a file comes back as it was put in, by number, in order and in slices."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.evaluation.frame_log import FrameLog


def test_items_come_back_by_number_in_order_and_in_slices() -> None:
    log: FrameLog[tuple[int, np.ndarray]] = FrameLog()
    assert len(log) == 0 and list(log) == []
    for number in range(7):
        log.append((number, np.arange(number)))
    assert len(log) == 7 and [number for number, _ in log] == list(range(7))
    assert np.array_equal(log[3][1], [0, 1, 2]) and log[-1][0] == 6
    assert [number for number, _ in log[2:5]] == [2, 3, 4]
    assert [number for number, _ in log[-2:]] == [5, 6] and len(log[9:]) == 0
    part = log[:2]
    log.append((7, np.zeros(1)))
    assert len(part) == 2 and log[7][0] == 7 and [number for number, _ in log] == list(range(8))
    with pytest.raises(IndexError):
        log[8]
