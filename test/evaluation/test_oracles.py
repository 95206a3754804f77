"""Masks and matches from the truth, on a small rendered scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mastsam_ros.evaluation.datasets import open_sequences
from mastsam_ros.evaluation.oracles import TruthMatcher, TruthSegmenter
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.types import Frame, InputError, PointPrompts


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "orbit"
    SampleScene(frames=3, width=160, height=120, noise=0).write_scene_folder(folder)
    return open_sequences(folder)[0]


def test_matches_land_on_the_same_instance(scene):
    matches = TruthMatcher(scene).match(scene.frame(0, False), scene.frame(1, False))
    assert len(matches) > 800  # of 30 x 40 grid points
    before, now = (scene.truth(files) for files in scene.frames[:2])
    (x0, y0), (x1, y1) = matches.xy0.numpy().astype(int).T, np.rint(matches.xy1.numpy()).astype(int).T
    assert (before[y0, x0] == now[y1, x1]).mean() > 0.95
    assert matches.xy1.numpy().std() > 0 and not np.allclose(matches.xy0, matches.xy1, atol=0.5)


def test_matches_of_a_frame_with_itself_stay(scene):
    matches = TruthMatcher(scene).match(scene.frame(1, False), scene.frame(1, False))
    torch.testing.assert_close(matches.xy0, matches.xy1, atol=1e-3, rtol=0)


def test_noise_and_outliers_are_as_asked_for_and_repeatable(scene):
    frames = scene.frame(0, False), scene.frame(1, False)
    clean = TruthMatcher(scene, stride=2).match(*frames).xy1
    noisy = TruthMatcher(scene, stride=2, noise_px=2.0, outliers=0.2).match(*frames).xy1
    again = TruthMatcher(scene, stride=2, noise_px=2.0, outliers=0.2).match(*frames).xy1
    assert torch.equal(noisy, again)
    error = (noisy - clean).norm(dim=1)
    assert error.median() == pytest.approx(2.0 * np.sqrt(2 * np.log(2 / 1.2 / (2 / 1.2 - 1))), rel=0.25)
    assert (error > 10).float().mean() == pytest.approx(0.2, abs=0.05)


def test_working_size_is_followed(scene):
    small = Frame(np.zeros((60, 80, 3), np.uint8), 0), Frame(np.zeros((60, 80, 3), np.uint8), 1)
    full = TruthMatcher(scene, stride=4).match(scene.frame(0, False), scene.frame(1, False))
    half = TruthMatcher(scene, stride=2).match(*small)
    motion_full, motion_half = (full.xy1 - full.xy0).mean(dim=0), (half.xy1 - half.xy0).mean(dim=0)
    torch.testing.assert_close(motion_half * 2, motion_full, atol=0.15, rtol=0.1)


def test_segmenter_answers_with_the_masks_under_the_points(scene):
    segmenter = TruthSegmenter(scene)
    segmenter.set_frame(scene.frame(2, False), None)
    truth = scene.truth(scene.frames[2]).astype(int)
    a, b = np.unique(truth)[-2:]
    (ya, xa), (yb, xb) = (np.argwhere(truth == i)[0] for i in (a, b))
    prompts = PointPrompts(
        torch.tensor([[[xa, ya], [xa, ya], [xb, yb], [xb, yb]]], dtype=torch.float32), torch.tensor([[1, 1, 1, 0]])
    )
    answer = segmenter.predict(prompts)
    assert np.array_equal(answer.masks[0, 0].numpy(), truth == a)
    assert np.array_equal(answer.masks[0, 1].numpy(), truth == b)
    assert answer.scores[0].tolist() == [1, 1, 0]


def test_everything_is_the_truth_inside_the_region(scene):
    segmenter = TruthSegmenter(scene)
    segmenter.set_frame(scene.frame(0, False), None)
    truth = scene.truth(scene.frames[0]).astype(int)
    everything = segmenter.everything().masks[:, 0].numpy()
    assert len(everything) == len(set(np.unique(truth)) - {0}) and everything.sum() == (truth > 0).sum()
    region = torch.zeros(truth.shape, dtype=torch.bool)
    region[60:, :80] = True
    parts = segmenter.everything(region).masks[:, 0].numpy()
    assert len(parts) == len(set(np.unique(truth[60:, :80])) - {0}) and not parts[:, :60].any()


def test_truth_matches_need_geometry(tmp_path, scene):
    from dataclasses import replace

    with pytest.raises(InputError, match="need depth, K and poses"):
        TruthMatcher(replace(scene, K=None))
