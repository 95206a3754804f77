"""Fast reciprocal nearest neighbours against the recorded matches and against the definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mastsam_ros.matchers.mast3r import reciprocal
from mastsam_ros.matchers.mast3r.heads import ViewPrediction
from mastsam_ros.matchers.mast3r.reciprocal import match_views

from .conftest import reciprocal_matches


@pytest.mark.parametrize("subsample", [8, 4])
@pytest.mark.parametrize("block", [None, 1 << 14])
def test_matches_equal_the_recorded_ones(
    recorded: Path, subsample: int, block: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block is not None:
        monkeypatch.setattr(reciprocal, "_SIMILARITIES_AT_ONCE", block)
    golden = np.load(recorded / "mast3r_matching_golden.npz")
    descriptors = [torch.from_numpy(golden[f"desc{n}"]) for n in (1, 2)]
    xy0, xy1 = reciprocal_matches(*descriptors, subsample)
    np.testing.assert_array_equal(xy0.numpy(), golden[f"subsample{subsample}/xy1"])
    np.testing.assert_array_equal(xy1.numpy(), golden[f"subsample{subsample}/xy2"])


def _random_views() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        F.normalize(torch.randn(12, 17, 8, generator=generator), dim=-1),
        F.normalize(torch.randn(14, 11, 8, generator=generator), dim=-1),
    )


def test_starting_everywhere_finds_every_mutual_nearest_neighbour() -> None:
    view0, view1 = _random_views()
    xy0, xy1 = reciprocal_matches(view0, view1, 1)
    similarity = view0.flatten(0, 1) @ view1.flatten(0, 1).T
    forward, backward = similarity.argmax(dim=1), similarity.argmax(dim=0)
    mutual = torch.nonzero(backward[forward] == torch.arange(len(similarity)))[:, 0]
    expected0 = torch.stack([mutual % 17, mutual // 17], dim=1)
    expected1 = torch.stack([forward[mutual] % 11, forward[mutual] // 11], dim=1)
    assert torch.equal(xy0, expected0)
    assert torch.equal(xy1, expected1)


def test_confidence_is_the_lower_of_both_and_filters() -> None:
    view0, view1 = _random_views()
    generator = torch.Generator().manual_seed(4)
    predictions = [
        ViewPrediction(
            points=torch.zeros(1, *view.shape[:2], 3),
            confidence=torch.ones(1, *view.shape[:2]),
            descriptors=view[None],
            descriptor_confidence=torch.randn(1, *view.shape[:2], generator=generator).exp(),
        )
        for view in (view0, view1)
    ]
    predictions[1].descriptor_confidence[0, 0] = torch.inf
    xy0, xy1, confidence = match_views(*predictions, subsample=1, min_confidence=0)
    c0 = predictions[0].descriptor_confidence[0, xy0[:, 1], xy0[:, 0]]
    c1 = predictions[1].descriptor_confidence[0, xy1[:, 1], xy1[:, 0]]
    lower = torch.minimum(c0, c1)
    torch.testing.assert_close(confidence, lower / (1 + lower))
    kept0, kept1, kept = match_views(*predictions, subsample=1, min_confidence=0.5)
    assert 0 < len(kept) < len(confidence)
    assert torch.equal(kept, confidence[confidence >= 0.5])
    assert torch.equal(kept0, xy0[confidence >= 0.5]) and torch.equal(kept1, xy1[confidence >= 0.5])


def test_a_grid_coarser_than_the_image_starts_once() -> None:
    view0, _ = _random_views()
    xy0, xy1 = reciprocal_matches(view0, view0, 64)
    assert xy0.tolist() == xy1.tolist() == [[8, 6]]
