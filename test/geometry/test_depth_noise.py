"""The noise of depth images: measured, and smoothed away without rounding edges."""

from __future__ import annotations

import numpy as np
import pytest

from mastsam_ros.geometry.depth_noise import inverse_depth_noise, inverse_of, smoothed_depth


def two_walls() -> np.ndarray:
    depth = np.full((80, 100), 3.0, np.float32)
    depth[:, 50:] = 1.5
    return depth


def noisy(depth: np.ndarray, sigma: float) -> np.ndarray:
    return depth + np.random.default_rng(0).normal(size=depth.shape).astype(np.float32) * sigma * depth**2


def test_noise_is_measured() -> None:
    assert inverse_depth_noise(inverse_of(noisy(two_walls(), 0.0012))) == pytest.approx(0.0012, rel=0.1)
    assert inverse_depth_noise(inverse_of(np.zeros((8, 8), np.float32))) == 0


def test_smoothing_halves_the_error_and_keeps_edges_and_holes() -> None:
    depth = noisy(two_walls(), 0.0012)
    depth[10:20, 10:20] = 0
    smooth = smoothed_depth(depth)
    assert ((smooth == 0) == (depth == 0)).all()
    inside = depth > 0
    inside[8:22, 8:22] = False
    before, after = (np.abs(d - two_walls())[inside] for d in (depth, smooth))
    assert after.mean() < 0.5 * before.mean()
    assert np.abs(smooth - two_walls())[:, 49:51].max() < 0.05


def test_clean_depth_is_left_as_it_is() -> None:
    assert smoothed_depth(two_walls()) is not None and np.array_equal(smoothed_depth(two_walls()), two_walls())
