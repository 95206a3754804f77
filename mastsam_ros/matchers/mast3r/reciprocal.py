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
    nearly all stand still after a few rounds.

    Returns xy0, xy1 (N, 2) int64 pixels, row by row in view 0, every pair once.
    """
    pairs = _distinct(_reciprocal_pairs(descriptors0, descriptors1, subsample))
    return _both_pixels(pairs, descriptors0, descriptors1)


def match_views(
    view0: ViewPrediction, view1: ViewPrediction, subsample: int, min_confidence: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reciprocal matches between two predictions (batch of one) whose confidence is at least `min_confidence`.

    Returns xy0, xy1 (N, 2) int64 pixels of the networks' images, and confidence (N,) float32 in [0, 1]: with c
    the lower of the two pixels' descriptor confidences (0 to infinity, 1 in the middle), c / (1 + c).
    """
    descriptors0, descriptors1 = view0.descriptors[0], view1.descriptors[0]
    pairs = _reciprocal_pairs(descriptors0, descriptors1, subsample)
    confidence = _confidence(pairs, view0, view1)
    pairs = _distinct(torch.where(confidence >= min_confidence, pairs, _NONE))
    return *_both_pixels(pairs, descriptors0, descriptors1), _confidence(pairs, view0, view1)


_NONE = -1


def _reciprocal_pairs(descriptors0: torch.Tensor, descriptors1: torch.Tensor, subsample: int) -> torch.Tensor:
    """(M,) int64: index in view 0 times the pixels of view 1 plus index there; _NONE and repeats among them.

    Of each round the host reads one number, how many starts still move: without it every round would cost what the
    first one costs, and a round is a hundred times the reading.
    """
    start = _grid(descriptors0.shape[0], descriptors0.shape[1], subsample, descriptors0.device)
    flat0, flat1 = descriptors0.flatten(0, 1), descriptors1.flatten(0, 1)
    index0 = start
    found: list[torch.Tensor] = []
    for _ in range(_MAX_ROUNDS):
        index1 = _most_similar(flat0[index0], flat1)
        back = _most_similar(flat1[index1], flat0)
        still = back == index0
        found.append(torch.where(still, index0 * len(flat1) + index1, _NONE))
        index0 = _distinct(torch.where(still, _NONE, back))
        if len(index0) == 0:
            break
    return torch.cat(found)


def _distinct(values: torch.Tensor) -> torch.Tensor:
    """The different ones of values (M,) int64 in order, without _NONE: one read of their number by the host."""
    return torch.cat([values, values.new_full((1,), _NONE)]).unique()[1:]


def _confidence(pairs: torch.Tensor, view0: ViewPrediction, view1: ViewPrediction) -> torch.Tensor:
    """(M,) float32 of pairs (M,); anything for _NONE."""
    flat0, flat1 = view0.descriptor_confidence[0].flatten(), view1.descriptor_confidence[0].flatten()
    pairs = pairs.clamp(min=0)
    # 1 - 1 / (1 + c) is c / (1 + c) without infinity over infinity.
    return 1 - 1 / (1 + torch.minimum(flat0[pairs // len(flat1)], flat1[pairs % len(flat1)]))


def _both_pixels(
    pairs: torch.Tensor, descriptors0: torch.Tensor, descriptors1: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) pairs -> xy0, xy1 (N, 2)."""
    height, width = descriptors1.shape[:2]
    return _pixels(pairs // (height * width), descriptors0.shape[1]), _pixels(pairs % (height * width), width)


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
