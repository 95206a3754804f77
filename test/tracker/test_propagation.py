"""Carrying masks along matches, and the filters that keep noise out of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker import propagation
from mastsam_ros.tracker.propagation import carry, connected_groups
from mastsam_ros.types import Matches

SETTINGS = TrackerSettings()


def square(height: int = 64, width: int = 80, top: int = 16, left: int = 16, side: int = 24) -> torch.Tensor:
    index = torch.zeros(height, width, dtype=torch.int64)
    index[top : top + side, left : left + side] = 1
    return index


def dense_matches(height: int, width: int, dx: float, dy: float) -> Matches:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    xy1 = torch.stack([x, y], dim=-1).reshape(-1, 2).float()
    xy0 = xy1 - torch.tensor([dx, dy])
    inside = (xy0[:, 0] >= 0) & (xy0[:, 1] >= 0) & (xy0[:, 0] < width) & (xy0[:, 1] < height)
    return Matches(xy0[inside], xy1[inside], torch.ones(int(inside.sum())))


def test_a_mask_moves_with_its_matches() -> None:
    carried = carry(square(), 1, dense_matches(64, 80, 7, -3), SETTINGS)
    assert torch.equal(carried.index, square(top=13, left=23))
    assert not bool(carried.matched[:, 0].any())


def test_without_matches_masks_stay() -> None:
    assert torch.equal(carry(square(), 1, None, SETTINGS).index, square())
    still = TrackerSettings(carry=False)
    assert torch.equal(carry(square(), 1, dense_matches(64, 80, 7, 0), still).index, square())


def test_sparse_matches_give_a_dense_mask() -> None:
    dense = dense_matches(64, 80, 6, 2)
    some = (dense.xy1[:, 0] % 4 == 2) & (dense.xy1[:, 1] % 4 == 2)
    sparse = Matches(dense.xy0[some], dense.xy1[some], dense.confidence[some])
    carried = carry(square(), 1, sparse, SETTINGS).index > 0
    expected = square(top=18, left=22) > 0
    assert int((carried & expected).sum()) / int((carried | expected).sum()) > 0.95


def test_matches_of_low_confidence_carry_nothing() -> None:
    matches = dense_matches(64, 80, 0, 0)
    doubtful = Matches(matches.xy0, matches.xy1, torch.full((len(matches),), 0.01))
    assert int(carry(square(), 1, doubtful, SETTINGS).index.sum()) == 0


def test_a_point_that_moves_unlike_its_neighbours_is_dropped() -> None:
    matches = dense_matches(64, 80, 0, 0)
    xy0 = matches.xy0.clone()
    x, y = matches.xy1.T
    stray = (x >= 28) & (x < 32) & (y >= 28) & (y < 32)
    xy0[stray] += torch.tensor([6.0, 0.0])
    noisy = Matches(xy0, matches.xy1, matches.confidence)
    carried = carry(square(), 1, noisy, SETTINGS)
    assert not bool(carried.index[28:32, 28:32].any())
    assert bool(carry(square(), 1, noisy, TrackerSettings(motion_filter=False)).index[28:32, 28:32].all())


def test_a_small_group_away_from_the_main_body_is_dropped() -> None:
    index = square()
    index[48:52, 64:68] = 1
    matches = dense_matches(64, 80, 0, 0)
    assert not bool(carry(index, 1, matches, SETTINGS).index[48:52, 64:68].any())
    assert bool(carry(index, 1, matches, TrackerSettings(connectivity_filter=False)).index[48:52, 64:68].all())


def test_carried_points_lie_on_their_track() -> None:
    index = square()
    index[:10, :10] = 2
    carried = carry(index, 2, dense_matches(64, 80, 3, 5), SETTINGS)
    x, y = carried.xy.long().T
    assert torch.equal(carried.index[y, x] - 1, carried.track)
    assert set(carried.track.tolist()) == {0, 1}


def test_connected_groups_follow_a_spiral() -> None:
    spiral = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]])
    groups = connected_groups(spiral)
    assert len(groups[spiral == 1].unique()) == 1
    parted = spiral.clone()
    parted[4, 2] = 0
    parted[4, 3] = 0
    assert len(connected_groups(parted)[parted == 1].unique()) == 2


def test_the_order_of_matches_does_not_matter() -> None:
    matches = dense_matches(64, 80, 2, 1)
    shuffle = torch.randperm(len(matches), generator=torch.Generator().manual_seed(1))
    mixed = Matches(matches.xy0[shuffle], matches.xy1[shuffle], matches.confidence[shuffle])
    assert torch.equal(carry(square(), 1, matches, SETTINGS).index, carry(square(), 1, mixed, SETTINGS).index)


def test_one_pass_on_the_cpu_gives_the_bits_of_the_device_s_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    index = torch.from_numpy(rng.integers(0, 9, (45, 61)))
    xy0, xy1 = (torch.from_numpy(rng.uniform(-2, 63, (4000, 2)).astype(np.float32)) for _ in range(2))
    there = torch.from_numpy(rng.random(4000) < 0.9)

    def both() -> list[torch.Tensor]:
        splat, nearest = propagation._splat(index, xy0, xy1, there), propagation._one_per_cell(xy1, there, 4, 12, 16)
        # Where there is no point, its place means nothing.
        return [*splat, torch.where(nearest[1], nearest[0], -1), nearest[1]]

    on_the_cpu = both()
    monkeypatch.setattr(propagation, "looking_is_free", lambda device: False)
    assert all(torch.equal(one, other) for one, other in zip(on_the_cpu, both(), strict=True))


def test_the_motion_around_a_cell_is_the_lower_median_of_what_has_its_number() -> None:
    rng = np.random.default_rng(4)
    number = np.repeat(rng.integers(-1, 3, (4, 3)), 5, axis=1).repeat(4, axis=0)  # most cells have nine
    motion = rng.integers(-9, 9, (*number.shape, 2)).astype(np.float32)
    median, counts = propagation._medians_around(number, motion), set()
    for row, column in np.ndindex(number.shape):
        around = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
        same = np.sort(motion[around][number[around] == number[row, column]], axis=0)
        known = number[row, column] >= 0
        assert np.array_equal(median[row, column], same[(len(same) - 1) // 2] if known else motion[row, column])
        counts.add(len(same))
    assert {4, 6, 9} <= counts


def test_carrying_in_one_pass_on_the_cpu_gives_the_bits_of_the_device_s_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    index = torch.from_numpy(np.kron(rng.integers(0, 4, (8, 10)), np.ones((8, 8), np.int64)))
    matches = dense_matches(64, 80, 3, -2)
    stray = rng.random(len(matches)) < 0.2
    xy0 = matches.xy0 + torch.from_numpy(np.where(stray[:, None], rng.normal(0, 4, (len(matches), 2)), 0)).float()
    matches = Matches(xy0, matches.xy1, torch.from_numpy(rng.random(len(matches)).astype(np.float32)))

    def parts() -> list[torch.Tensor]:
        carried = carry(index, 3, matches, SETTINGS)
        return [carried.index, carried.matched, carried.xy, carried.track, carried.interior]

    on_the_cpu = parts()
    assert on_the_cpu[0].any() and len(on_the_cpu[2]) > 10
    monkeypatch.setattr(propagation, "looking_is_free", lambda device: False)
    assert all(torch.equal(one, other) for one, other in zip(on_the_cpu, parts(), strict=True))
