"""Matching of dense local features: fast reciprocal nearest neighbours (MASt3R, section 3.3), on the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mastsam_ros.device import looking_is_free
from mastsam_ros.matchers.mast3r.heads import ViewPrediction

_SIMILARITIES_AT_ONCE = 1 << 27
"""Entries of one block of the similarity matrix: half a gibibyte in float32."""
_MAX_ROUNDS = 10
_LEAST_ROOM = 256
"""So many starts cost next to nothing, whether they still move or not."""
_NONE = 1 << 62
"""Stands for no pixel and no pair; sorted, it comes last."""


def match_views(
    view0: ViewPrediction, view1: ViewPrediction, subsample: int, min_confidence: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels of two predictions (batch of one) that are each other's most similar (MASt3R, section 3.3).

    Starts from every `subsample`-th pixel of view 0 in x and y. Each start hops to its most similar pixel in view 1,
    from there to that one's in view 0, and so on until it stands still; the similarity never falls, so nearly all stand
    still after a few rounds. Where more still move than a round has room for, evenly chosen ones go on. Pairs whose
    confidence is below `min_confidence` are left out. All of it happens on the device; the host learns how many matches
    there are, once, at the end. The views' descriptors are of unit length, float32, on one device.

    Returns xy0, xy1 (N, 2) int64 pixels of the networks' images, every pair once, row by row in view 0, and confidence
    (N,) float32 in [0, 1]: with c the lower of the two pixels' descriptor confidences (0 to infinity, 1 in the middle),
    c / (1 + c).
    """
    descriptors0, descriptors1 = view0.descriptors[0], view1.descriptors[0]
    pairs = _reciprocal_pairs(descriptors0, descriptors1, subsample)
    confidence = _confidence(pairs, view0, view1)
    pairs = _those_there(_distinct(torch.where(confidence >= min_confidence, pairs, _NONE)))
    return *_both_pixels(pairs, descriptors0, descriptors1), _confidence(pairs, view0, view1)


def _reciprocal_pairs(descriptors0: torch.Tensor, descriptors1: torch.Tensor, subsample: int) -> torch.Tensor:
    """(M,) int64: index in view 0 times the pixels of view 1 plus index there; _NONE and repeats among them."""
    flat0, flat1 = descriptors0.flatten(0, 1), descriptors1.flatten(0, 1)
    index0 = _grid(descriptors0.shape[0], descriptors0.shape[1], subsample, descriptors0.device)
    found: list[torch.Tensor] = []
    for room in _rooms(len(index0)):
        index0 = _at_most(index0, room)
        if looking_is_free(index0.device):
            index0 = _those_there(index0)
            if not len(index0):
                break
        index1 = _most_similar(flat0[index0.clamp(max=len(flat0) - 1)], flat1)
        back = _most_similar(flat1[index1], flat0)
        still = back == index0
        found.append(torch.where(still, index0 * len(flat1) + index1, _NONE))
        index0 = _distinct(torch.where(still | (index0 == _NONE), _NONE, back))
    return torch.cat(found)


def _rooms(starts: int) -> Iterator[int]:
    """How many starts may move in each round: all in the first two, then half as many each time.

    How many do move only the device knows, and a round costs as much as it has room for.
    """
    for halvings in (0, *range(_MAX_ROUNDS - 1)):
        yield min(starts, max(_LEAST_ROOM, starts >> halvings))


def _at_most(values: torch.Tensor, room: int) -> torch.Tensor:
    """(room,) of sorted values (M,): all that are there where they fit, else evenly chosen ones."""
    if room >= len(values):
        return values
    there = (values != _NONE).sum().clamp(min=room)
    return values[torch.arange(room, device=values.device) * there // room]


def _distinct(values: torch.Tensor) -> torch.Tensor:
    """Values (M,) int64 in order, each once; as many _NONE stand at the end as there were repeats and _NONE."""
    ordered = values.sort().values
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[1:] = ordered[1:] == ordered[:-1]
    return torch.where(again, _NONE, ordered).sort().values


def _those_there(values: torch.Tensor) -> torch.Tensor:
    """Sorted values (M,) without the _NONE at their end: here the host reads how many there are."""
    return values[: int((values != _NONE).sum())]


def _confidence(pairs: torch.Tensor, view0: ViewPrediction, view1: ViewPrediction) -> torch.Tensor:
    """(M,) float32 of pairs (M,); anything for _NONE."""
    flat0, flat1 = view0.descriptor_confidence[0].flatten(), view1.descriptor_confidence[0].flatten()
    pairs = pairs.clamp(max=len(flat0) * len(flat1) - 1)
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
