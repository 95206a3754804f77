"""What a new mask is probably part of, under whose id it is shown until it has proven itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mastsam_ros.tracker.propagation import Carried, occurrences

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
) -> tuple[list[int], list[bool]]:
    """For each of `count` new masks the track (0-based) it is shown as, or -1; and whether it was part of that track.

    new: (H, W) int64, n + 1 = new mask n. index: (H, W) int64, n + 1 = track n. The track that its pixels were
    carried from, if it is one; else the neighbour with the most similar mean colour. image: (H, W, 3) uint8.
    outlined: (tracks,) bool, tracks whose outline the segmenter is sure of: what lies beyond it is no part of them.
    """
    if count == 0 or tracks == 0:
        return [-1] * count, [False] * count
    area = occurrences(new.flatten(), count + 1)[1:]
    result, held = [-1] * count, [False] * count
    if carried is not None:
        votes = _carried_votes(new, count, tracks, carried)
        if outlined is not None:
            votes[:, outlined] = 0
        share = votes.max(dim=1)
        contained, track = torch.stack([(share.values > _CONTAINED * area).long(), share.indices]).tolist()
        result = [t if within else -1 for within, t in zip(contained, track, strict=True)]
        held = [within > 0 for within in contained]
    border = _contacts(new, index, count, tracks)
    length = border.sum(dim=1, keepdim=True)
    colour = mean_colours(new, count, image)
    track_colour = mean_colours(index, tracks, image)
    difference = (colour[:, None] - track_colour[None]).norm(dim=2)
    if outlined is not None:
        border[:, outlined] = 0
    difference = torch.where((border > 0) & (border >= _BORDER * length), difference, torch.inf)
    closest = difference.min(dim=1)
    touching, track = torch.stack([closest.values.isfinite().long(), closest.indices]).tolist()
    for n in range(count):
        if result[n] < 0 and touching[n]:
            result[n] = track[n]
    return result, held


def carried_from(new: torch.Tensor, count: int, tracks: int, carried: Carried) -> dict[int, int]:
    """New masks (0-based) most of whose pixels were carried from one track, and that track (0-based)."""
    if count == 0 or tracks == 0:
        return {}
    area = torch.bincount(new.flatten(), minlength=count + 1)[1:]
    share = _carried_votes(new, count, tracks, carried).max(dim=1)
    return {n: int(share.indices[n]) for n in torch.nonzero(share.values > _CONTAINED * area).flatten().tolist()}


def _carried_votes(new: torch.Tensor, count: int, tracks: int, carried: Carried) -> torch.Tensor:
    """(count, tracks) int64: pixels of each new mask that were carried from each track."""
    votes = occurrences((new * (tracks + 1) + carried.index).flatten(), (count + 1) * (tracks + 1))
    return votes.view(count + 1, tracks + 1)[1:, 1:]


def _contacts(new: torch.Tensor, index: torch.Tensor, count: int, tracks: int) -> torch.Tensor:
    """(count, tracks) int64: pairs of neighbouring pixels, one in the new mask and one in the track."""
    framed = F.pad(index, (1, 1, 1, 1))
    row, column = torch.nonzero(new, as_tuple=True)
    number = torch.index_select(new.flatten(), 0, row * new.shape[1] + column)
    width = framed.shape[1]
    place = (row + 1) * width + column + 1
    pairs = [
        number * (tracks + 1) + torch.index_select(framed.flatten(), 0, place + step) for step in (1, -1, width, -width)
    ]
    return occurrences(torch.cat(pairs), (count + 1) * (tracks + 1)).view(count + 1, tracks + 1)[1:, 1:]


def mean_colours(index: torch.Tensor, count: int, image: torch.Tensor) -> torch.Tensor:
    """(count, 3) float64 mean colours of the tracks in index (H, W), from every second pixel in x and in y."""
    small, pixels = index[::2, ::2].flatten(), image.permute(2, 0, 1)[:, ::2, ::2].reshape(3, -1).double()
    values = torch.cat([torch.ones_like(pixels[:1]), pixels])
    total = torch.zeros(4, count + 1, dtype=torch.float64, device=index.device)
    total.scatter_add_(1, small.expand(4, -1), values)
    return (total[1:, 1:] / total[:1, 1:].clamp(min=1)).T
