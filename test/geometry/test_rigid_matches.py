"""Matches checked by depth and pose: what rests is put right, what moves on its own is left to the flow."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mastsam_ros.geometry.rigid_matches import checked_matches
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.types import Frame, Matches

from .conftest import rigid_flow


@pytest.fixture(scope="module")
def pair() -> tuple[Frame, Frame, np.ndarray]:
    """Two views and T_previous_current."""
    scene = SampleScene(2, "wide_baseline", 20, 320, 240, objects=4)
    before, now = scene.render(0).frame, scene.render(1).frame
    return before, now, np.linalg.inv(scene.T_world_camera(0)) @ scene.T_world_camera(1)


def dense(flow: np.ndarray, visible: np.ndarray) -> Matches:
    rows, columns = np.nonzero(visible)
    xy1 = np.stack([columns, rows], axis=1).astype(np.float32)
    confidence = np.full(len(xy1), 0.5, np.float32)
    return Matches(
        torch.from_numpy(xy1 + flow[rows, columns]),
        torch.from_numpy(xy1),
        torch.from_numpy(confidence),
        flow_back=torch.from_numpy(flow),
        visible=torch.from_numpy(visible),
    )


def test_wrong_flow_of_a_place_at_rest_is_put_right(pair: tuple[Frame, Frame, np.ndarray]) -> None:
    before, now, T = pair
    assert now.depth is not None and now.K is not None
    truth = rigid_flow(now.depth, now.K, T)
    wrong = dense(np.zeros_like(truth), np.zeros(truth.shape[:2], bool))
    found = checked_matches(wrong, before, now, T)
    assert found.flow_back is not None and found.visible is not None
    share = found.visible.numpy().mean()
    assert share > 0.6
    right = np.abs(found.flow_back.numpy() - truth).max(axis=2) < 1e-3
    assert right[found.visible.numpy()].all()
    assert len(found) == found.visible.sum()
    assert torch.equal(found.xy0[0], found.xy1[0] + found.flow_back[tuple(found.xy1[0].long().flip(0))])


def test_what_the_previous_view_did_not_see_stays_unmatched(pair: tuple[Frame, Frame, np.ndarray]) -> None:
    before, now, T = pair
    hidden = dataclasses.replace(before, depth=np.full_like(before.depth, 0.2))
    none = dense(np.zeros((*now.image.shape[:2], 2), np.float32), np.zeros(now.image.shape[:2], bool))
    found = checked_matches(none, hidden, now, T)
    assert found.visible is not None and found.visible.numpy().mean() < 0.01


@pytest.mark.parametrize("brighter", [-2, 0, 2])
def test_flow_that_matches_colours_better_is_kept(brighter: int) -> None:
    grey = np.tile(np.arange(80, dtype=np.uint8) * 3 + 2, (60, 1))
    image = np.repeat(grey[..., None], 3, axis=2)
    K = np.array([[80.0, 0, 39.5], [0, 80.0, 29.5], [0, 0, 1]])
    depth = np.ones((60, 80), np.float32)
    before = Frame(image, K=K, depth=depth)
    now = Frame((np.roll(image.astype(int), 10, axis=1) + brighter).astype(np.uint8), K=K, depth=depth)
    flow = np.zeros((60, 80, 2), np.float32)
    flow[..., 0] = -10
    visible = np.zeros((60, 80), bool)
    visible[:, 20:] = True
    found = checked_matches(dense(flow, visible), before, now, np.eye(4))
    assert found.flow_back is not None
    assert (found.flow_back.numpy()[5:-5, 25:-5, 0] == -10).all()


def test_sparse_matches_and_views_without_depth_are_left_alone(pair: tuple[Frame, Frame, np.ndarray]) -> None:
    before, now, T = pair
    sparse = Matches(torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(3))
    assert checked_matches(sparse, before, now, T) is sparse
    full = dense(np.zeros((*now.image.shape[:2], 2), np.float32), np.ones(now.image.shape[:2], bool))
    assert checked_matches(full, dataclasses.replace(before, depth=None), now, T) is full
