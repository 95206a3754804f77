"""What a new mask is probably part of, under whose id it is shown until it has proven itself."""

from __future__ import annotations

import torch

from mastsam_ros.tracker.propagation import Carried

_CONTAINED = 0.5
"""Share of a new mask that must have been carried from one track for that track to be its parent."""
_BORDER = 0.1
"""Share of a new mask's border that a neighbour must have to be a possible parent."""


def parents_of(
    new: torch.Tensor,
    count: int,
    index: torch.Tensor,
    tracks: int,
    carried: Carried | None,
    image: torch.Tensor,
    outlined: torch.Tensor | None = None,
) -> list[int]:
    """For each of `count` new masks the track (0-based) it is shown as, or -1.

    new: (H, W) int64, n + 1 = new mask n. index: (H, W) int64, n + 1 = track n. The track that its pixels were
    carried from, if it is one; else the neighbour with the most similar mean colour. image: (H, W, 3) uint8.
    outlined: (tracks,) bool, tracks whose outline the segmenter is sure of: what lies beyond it is no part of them.
    """
    if count == 0 or tracks == 0:
        return [-1] * count
    area = torch.bincount(new.flatten(), minlength=count + 1)[1:]
    result = [-1] * count
    if carried is not None:
        votes = _pair_counts(new, carried.index, count, tracks)
        if outlined is not None:
            votes[:, outlined] = 0
        share = votes.max(dim=1)
        for n in torch.nonzero(share.values > _CONTAINED * area).flatten().tolist():
            result[n] = int(share.indices[n])
    border = torch.zeros(count, tracks, dtype=torch.int64, device=new.device)
    for a, b in _contacts(new, index):
        border += _pair_counts(a, b, count, tracks)
    length = border.sum(dim=1, keepdim=True)
    colour = _mean_colours(new, count, image)
    track_colour = _mean_colours(index, tracks, image)
    difference = (colour[:, None] - track_colour[None]).norm(dim=2)
    if outlined is not None:
        border[:, outlined] = 0
    difference = torch.where((border > 0) & (border >= _BORDER * length), difference, torch.inf)
    closest = difference.min(dim=1)
    for n in range(count):
        if result[n] < 0 and bool(closest.values[n].isfinite()):
            result[n] = int(closest.indices[n])
    return result


def _pair_counts(a: torch.Tensor, b: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """How often a == i + 1 and b == j + 1 coincide: (rows, columns) int64."""
    both = (a > 0) & (b > 0)
    pairs = (a[both] - 1) * columns + b[both] - 1
    return torch.bincount(pairs, minlength=rows * columns).view(rows, columns)


def _contacts(new: torch.Tensor, index: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of images shifted by one pixel against each other, so that pixels in contact lie on one another."""
    return [
        (new[:, 1:], index[:, :-1]),
        (new[:, :-1], index[:, 1:]),
        (new[1:], index[:-1]),
        (new[:-1], index[1:]),
    ]


def _mean_colours(index: torch.Tensor, count: int, image: torch.Tensor) -> torch.Tensor:
    small, pixels = index[::2, ::2].flatten(), image[::2, ::2].reshape(-1, 3).double()
    total = torch.zeros(count + 1, 3, dtype=torch.float64, device=index.device).index_add_(0, small, pixels)
    return total[1:] / torch.bincount(small, minlength=count + 1)[1:, None].clamp(min=1)
