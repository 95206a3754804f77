"""Outlines that hold still."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mastsam_ros.tracker import settling
from mastsam_ros.tracker.settling import settled


def outlines(*columns: int) -> torch.Tensor:
    """Tracks side by side, the first up to the first column, and so on: (40, 60) int64."""
    index = torch.ones(40, 60, dtype=torch.int64)
    for column in columns:
        index[:, column:] += 1
    return index


BLANK = torch.full((40, 60, 3), 120, dtype=torch.uint8)
UNSURE = torch.tensor([False, False])


def test_an_outline_without_an_edge_stays_where_it_was_carried() -> None:
    assert torch.equal(settled(outlines(31), outlines(30), UNSURE, BLANK), outlines(30))


def test_an_outline_never_lags_by_more_than_a_pixel() -> None:
    assert torch.equal(settled(outlines(34), outlines(30), UNSURE, BLANK), outlines(33))


def test_an_edge_in_the_picture_decides() -> None:
    image = BLANK.clone()
    image[:, 31:] = 200
    assert torch.equal(settled(outlines(31), outlines(30), UNSURE, image), outlines(31))
    image[:, 30:] = 200
    assert torch.equal(settled(outlines(31), outlines(30), UNSURE, image), outlines(30))


def test_sure_outlines_and_what_was_not_carried_are_the_segmenters() -> None:
    for sure in ([True, False], [False, True]):
        assert torch.equal(settled(outlines(31), outlines(30), torch.tensor(sure), BLANK), outlines(31))
    assert torch.equal(settled(outlines(31), torch.zeros_like(outlines(31)), UNSURE, BLANK), outlines(31))
    uncovered = torch.zeros_like(outlines(31))
    assert torch.equal(settled(uncovered, outlines(30), UNSURE, BLANK), uncovered)


def test_one_pass_on_the_cpu_gives_the_bits_of_the_device_s_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    index, carried = (torch.from_numpy(np.kron(rng.integers(0, 6, (9, 11)), np.ones((4, 4), np.int64))) for _ in "ab")
    image = torch.from_numpy(rng.integers(0, 256, (36, 44, 3)).astype(np.uint8))
    outlined = torch.tensor([False, True, False, False, False])
    on_the_cpu = settled(index, carried, outlined, image)
    assert not torch.equal(on_the_cpu, index)
    monkeypatch.setattr(settling, "looking_is_free", lambda device: False)
    assert torch.equal(settled(index, carried, outlined, image), on_the_cpu)
