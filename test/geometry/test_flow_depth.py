"""Depth from flow and stereo, of a wall that a camera goes along."""

from __future__ import annotations

import numpy as np

from mastsam_ros.geometry.flow_depth import FlowDepth, InverseDepth

K = np.array([[200.0, 0, 80], [0, 200, 60], [0, 0, 1]])
INSIDE = np.s_[24:32, 30:44]
"""Pixels of the grid, of which there are 60 x 80, of what moves."""


def along_a_wall(stereo_says: np.ndarray | None, frames: int = 5) -> InverseDepth:
    """The wall is 2 away, the camera goes 0.04 to the right each frame; something before it rises by itself."""
    flow = np.zeros((120, 160, 2), np.float32)
    flow[..., 0] = 200 * 0.04 / 2
    flow[40:90, 50:110, 1] = 6
    depth = FlowDepth()
    for n in range(frames):
        T = np.eye(4)
        T[0, 3] = 0.04 * n
        back = flow if n else None
        stereo = None if stereo_says is None else (stereo_says, 0.002)
        found = depth.update(K, T, 2.0, back, np.ones((120, 160), bool), (120, 160), stereo)
    return found


def test_flow_tells_how_far_what_rests_is():
    found = along_a_wall(None)
    rest = np.s_[:15, :60]
    assert np.allclose(found.w[rest], 0.5, rtol=0.01)
    assert (found.sigma[rest] < 0.05).all()
    assert (found.sigma[INSIDE] > 0.1 * found.w[INSIDE]).all()


def test_stereo_is_believed_once_it_was_foreseen_and_not_of_what_moves():
    says = np.full((60, 80), 0.48, np.float32)
    says[:5] = 0
    found = along_a_wall(says)
    assert np.allclose(found.w[8:15, :60], 0.48, rtol=0.02)
    assert np.allclose(found.w[:4, :60], 0.5, rtol=0.02)  # where it says nothing
    assert (found.sigma[8:15, :60] < 0.02 * found.w[8:15, :60]).all()
    assert (found.sigma[INSIDE] > 0.1 * found.w[INSIDE]).all()
    says[:] = 0.7  # which nothing agrees with
    found = along_a_wall(says, 2)
    assert (found.sigma[8:15, :60] > 0.1 * found.w[8:15, :60]).all()
