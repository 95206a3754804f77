"""Matching of dense local features: fast reciprocal nearest neighbours (MASt3R, section 3.3), on the device."""

from __future__ import annotations

import torch

from mastsam_ros.matchers.mast3r.heads import ViewPrediction

_SIMILARITIES_AT_ONCE = 1 << 27
"""Entries of one block of the similarity matrix: half a gibibyte in float32."""
_MAX_ROUNDS = 10


def reciprocal_matches(
    descriptors0: torch.Tensor, descriptors1: torch.Tensor, subsample: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of two views that are each other's most similar.

    descriptors0: (H0, W0, D), descriptors1: (H1, W1, D), unit length, float32, on one device.
    Starts from every `subsample`-th pixel of view 0 in x and y. Each start hops to its most similar pixel in
    view 1, from there to that one's in view 0, and so on until it stands still; the similarity never falls, so
    nearly all stand still after a few rounds. Only the number of those still moving is read by the host.

    Returns xy0, xy1 (N, 2) int64 pixels, row by row in view 0, every pair once.
    """
    width0, width1 = descriptors0.shape[1], descriptors1.shape[1]
    start = _grid(descriptors0.shape[0], width0, subsample, descriptors0.device)
    flat0, flat1 = descriptors0.flatten(0, 1), descriptors1.flatten(0, 1)

    index0 = start
    found: list[torch.Tensor] = []
    for _ in range(_MAX_ROUNDS):
        index1 = _most_similar(flat0[index0], flat1)
        back = _most_similar(flat1[index1], flat0)
        still = back == index0
        found.append(index0[still] * len(flat1) + index1[still])
        index0 = back[~still].unique()
        if len(index0) == 0:
            break
    pairs = torch.cat(found).unique()
    return _pixels(pairs // len(flat1), width0), _pixels(pairs % len(flat1), width1)


def match_views(
    view0: ViewPrediction, view1: ViewPrediction, subsample: int, min_confidence: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reciprocal matches between two predictions (batch of one) whose confidence is at least `min_confidence`.

    Returns xy0, xy1 (N, 2) int64 pixels of the network's images, and confidence (N,) float32 in [0, 1]: with c
    the lower of the two pixels' descriptor confidences (0 to infinity, 1 in the middle), c / (1 + c).
    """
    xy0, xy1 = reciprocal_matches(view0.descriptors[0], view1.descriptors[0], subsample)
    confidence0 = view0.descriptor_confidence[0, xy0[:, 1], xy0[:, 0]]
    confidence1 = view1.descriptor_confidence[0, xy1[:, 1], xy1[:, 0]]
    # 1 - 1 / (1 + c) is c / (1 + c) without infinity over infinity.
    confidence = 1 - 1 / (1 + torch.minimum(confidence0, confidence1))
    kept = confidence >= min_confidence
    return xy0[kept], xy1[kept], confidence[kept]


def _most_similar(queries: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """(M, D), (N, D) -> (M,) int64: index of the candidate with the largest dot product, in bounded memory."""
    rows = max(1, _SIMILARITIES_AT_ONCE // len(candidates))
    return torch.cat([(block @ candidates.T).argmax(dim=1) for block in queries.split(rows)])


def _grid(height: int, width: int, step: int, device: torch.device) -> torch.Tensor:
    """Row-major indices of every `step`-th pixel, the first half a step from the border, at least one."""
    y = torch.arange(min(step // 2, height // 2), height, step, device=device)
    x = torch.arange(min(step // 2, width // 2), width, step, device=device)
    return (y[:, None] * width + x).flatten()


def _pixels(index: torch.Tensor, width: int) -> torch.Tensor:
    return torch.stack([index % width, index // width], dim=-1)
