"""Sums of places and colours, and histograms: both ways of adding them up give the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mastsam_ros.tracker import moments as module


@pytest.mark.parametrize("size", [(37, 52), (1, 1), (4, 6)])
def test_the_device_s_way_gives_the_same_bits(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    index = torch.from_numpy(rng.integers(0, 6, size))
    image = torch.from_numpy(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    on_the_cpu = module.moments(index, 5, image), module.histograms(index, 5, image)
    monkeypatch.setattr(module, "looking_is_free", lambda device: False)
    assert torch.equal(on_the_cpu[0], module.moments(index, 5, image))
    assert torch.equal(on_the_cpu[1], module.histograms(index, 5, image))


def test_sums_of_a_mask() -> None:
    index = torch.zeros(6, 8, dtype=torch.int64)
    index[2, 4], index[4, 6], index[3, 3] = 2, 2, 2
    image = torch.zeros(6, 8, 3, dtype=torch.uint8)
    image[2, 4], image[4, 6] = torch.tensor([1, 2, 3]), torch.tensor([10, 0, 200])
    (nothing, mask) = module.moments(index, 2, image).tolist()
    assert nothing == [0.0] * module.MOMENTS
    assert mask == [2, 10, 6, 11, 2, 203, 101, 2, 2003, 4, 6, 40009]


def test_shares_of_colours() -> None:
    index = torch.full((6, 8), 2)
    image = torch.full((6, 8, 3), 100, dtype=torch.uint8)
    image[:2] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    image[1::2], image[:, 1::2] = 7, 7  # never read
    nothing, mask = module.histograms(index, 2, image)
    assert float(nothing.sum()) == 0 and float(mask.sum()) == pytest.approx(1)
    grey, red = 3 * 1024 + 16 * 32 + 16, 2 * 1024 + 31 * 32 + 0
    assert mask.nonzero().flatten().tolist() == [red, grey]
    assert mask[[red, grey]].tolist() == pytest.approx([1 / 3, 2 / 3])
