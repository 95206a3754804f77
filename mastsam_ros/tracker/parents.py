"""What a new mask is probably part of, under whose id it is shown until it has proven itself."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from mastsam_ros.device import on_host, places
from mastsam_ros.tracker.moments import moments
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
    if carried is None:
        contained = track = torch.zeros(count, dtype=torch.int64, device=new.device)
    else:
        votes = _carried_votes(new, count, tracks, carried)
        if outlined is not None:
            votes = votes.masked_fill(outlined, 0)
        share, track = votes.max(dim=1)
        contained = share > _CONTAINED * occurrences(new.flatten(), count + 1)[1:]
    border = _contacts(new, index, count, tracks)
    length = border.sum(dim=1, keepdim=True)
    difference = (mean_colours(new, count, image)[:, None] - mean_colours(index, tracks, image)[None]).norm(dim=2)
    if outlined is not None:
        border = border.masked_fill(outlined, 0)
    difference = torch.where((border > 0) & (border >= _BORDER * length), difference, torch.inf)
    least, alike = difference.min(dim=1)
    parent = torch.where(contained > 0, track, torch.where(least.isfinite(), alike, -1))
    parents, held = on_host(parent, contained > 0)
    return parents.tolist(), held.tolist()


def carried_from(new: torch.Tensor, count: int, tracks: int, carried: Carried) -> dict[int, int]:
    """New masks (0-based) most of whose pixels were carried from one track, and that track (0-based)."""
    if count == 0 or tracks == 0:
        return {}
    share, track = _carried_votes(new, count, tracks, carried).max(dim=1)
    contained, origin = on_host(share > _CONTAINED * occurrences(new.flatten(), count + 1)[1:], track)
    return {n: int(origin[n]) for n in np.flatnonzero(contained).tolist()}


def _carried_votes(new: torch.Tensor, count: int, tracks: int, carried: Carried) -> torch.Tensor:
    """(count, tracks) int64: pixels of each new mask that were carried from each track."""
    votes = occurrences((new * (tracks + 1) + carried.index).flatten(), (count + 1) * (tracks + 1))
    return votes.view(count + 1, tracks + 1)[1:, 1:]


def _contacts(new: torch.Tensor, index: torch.Tensor, count: int, tracks: int) -> torch.Tensor:
    """(count, tracks) int64: pairs of neighbouring pixels, one in the new mask and one in the track."""
    framed = F.pad(index, (1, 1, 1, 1))
    pixels = places(new.flatten() > 0)
    row, column = pixels // new.shape[1], pixels % new.shape[1]
    number = torch.index_select(new.flatten(), 0, pixels)
    width = framed.shape[1]
    place = (row + 1) * width + column + 1
    pairs = [
        number * (tracks + 1) + torch.index_select(framed.flatten(), 0, place + step) for step in (1, -1, width, -width)
    ]
    return occurrences(torch.cat(pairs), (count + 1) * (tracks + 1)).view(count + 1, tracks + 1)[1:, 1:]


def mean_colours(index: torch.Tensor, count: int, image: torch.Tensor) -> torch.Tensor:
    """(count, 3) float64 mean colours of the tracks in index (H, W), from every second pixel in x and in y."""
    totals = moments(index, count, image)
    return totals[:, 3:6] / totals[:, :1].clamp(min=1)
