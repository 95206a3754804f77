"""K-means of all tracks in one call, held to scikit-learn, and the prompts made from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.propagation import carry
from mastsam_ros.tracker.representatives import batched_kmeans, library_kmeans, prompts_from
from mastsam_ros.types import MissingPackageError


def blobs(sets: int, clusters: int, each: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    centres = np.stack([[(i % 3) * 60 + 20, (i // 3) * 60 + 20] for i in range(clusters)])
    points = centres.repeat(each, axis=0)[None] + rng.normal(0, 4, (sets, clusters * each, 2))
    return torch.tensor(points, dtype=torch.float32), torch.ones(sets, clusters * each, dtype=torch.bool)


def inertia(points: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    return ((points[:, :, None] - centroids[:, None]) ** 2).sum(-1).amin(-1).sum(-1)


def test_as_good_as_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    points, valid = blobs(sets=4, clusters=6)
    ours, theirs = batched_kmeans(points, valid, 6), library_kmeans(points, valid, 6, "sklearn")
    assert torch.all(inertia(points, ours) <= 1.05 * inertia(points, theirs))


def test_each_set_is_solved_as_if_alone() -> None:
    points, valid = blobs(sets=3, clusters=4)
    valid[1, 50:] = False
    together = batched_kmeans(points, valid, 4)
    for n in range(3):
        assert torch.equal(together[n], batched_kmeans(points[n : n + 1], valid[n : n + 1], 4)[0])


def test_fewer_points_than_clusters_and_none_at_all() -> None:
    points = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    valid = torch.tensor([[True, False], [False, False]])
    centroids = batched_kmeans(points, valid, 3)
    assert torch.equal(centroids[0], torch.tensor([[3.0, 4.0]] * 3))
    assert torch.equal(centroids[1], torch.zeros(3, 2))


def two_tracks() -> torch.Tensor:
    index = torch.zeros(80, 120, dtype=torch.int64)
    index[10:70, 10:50] = 1
    index[30:60, 50:110] = 2
    return index


@pytest.mark.parametrize("settings", [TrackerSettings(), TrackerSettings(representative_selection=False)])
def test_prompts_lie_on_their_object_and_negatives_on_others(settings: TrackerSettings) -> None:
    index = two_tracks()
    prompts = prompts_from(carry(index, 2, None, settings), torch.ones(2), settings)
    assert prompts.masks is not None and torch.equal(prompts.masks[1], index == 2)
    for track in range(2):
        x, y = prompts.xy[track].long().T
        positive, negative = prompts.labels[track] == 1, prompts.labels[track] == 0
        assert int(positive.sum()) == settings.representatives
        assert bool((index[y, x][positive] == track + 1).all())
        assert int(negative.sum()) == settings.negative_prompts
        assert bool((index[y, x][negative] == 2 - track).all())


def test_a_track_without_points_gets_padding_only() -> None:
    index = two_tracks()
    prompts = prompts_from(carry(index, 3, None, TrackerSettings()), torch.ones(3), TrackerSettings())
    assert bool((prompts.labels[2] == -1).all())


def test_a_missing_library_is_named() -> None:
    try:
        import cuml  # noqa: F401
    except ImportError:
        points, valid = blobs(sets=1, clusters=2)
        with pytest.raises(MissingPackageError, match="pip install cuml"):
            library_kmeans(points, valid, 2, "cuml")
    else:
        pytest.skip("cuml is installed")
