"""How superpixels, regions and bodies vote for the tracks whose carried masks they hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

Floats = npt.NDArray[np.float64]

_KNOWN = 0.4
"""Share of a region that must have been carried from somewhere to compare it with the tracks."""


@compiled("float64[:, ::1](int32[:, ::1], Array(int64, 2, 'C', readonly=True), int64, int64)")
def votes_of(labels: npt.NDArray[np.int32], carried: npt.NDArray[np.int64], count: int, tracks: int) -> Floats:
    """(count, tracks): pixels of each label that were carried from each track.

    labels: (H, W), 0..count-1. carried: (H, W), n + 1 where track n was carried to, 0 elsewhere.
    """
    votes = np.zeros((count, tracks))
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if carried[y, x] > 0:
                votes[labels[y, x], carried[y, x] - 1] += 1
    return votes


@compiled("float64[:, ::1](float64[:, ::1], int64[::1], int64)")
def gathered(votes: Floats, group: npt.NDArray[np.int64], groups: int) -> Floats:
    """Sums (groups, N) of the votes (S, N) of what is in the same group (S,)."""
    sums = np.zeros((groups, votes.shape[1]))
    for s in range(len(votes)):
        for n in range(votes.shape[1]):
            sums[group[s], n] += votes[s, n]
    return sums


@compiled("float64[:, ::1](float64[:, ::1], float64[::1], float64[::1])")
def agreement(votes: Floats, area: Floats, whole: Floats) -> Floats:
    """IoU (R, N) of R regions with N carried masks over the pixels that were carried from anywhere.

    votes: (R, N) pixels; area: (R,); whole: (N,) pixels of each carried mask.
    """
    regions, tracks = votes.shape
    iou = np.zeros((regions, tracks))
    for r in range(regions):
        known = 0.0
        for n in range(tracks):
            known += votes[r, n]
        if known < _KNOWN * area[r]:
            continue
        for n in range(tracks):
            # Most regions hold few tracks.
            if votes[r, n] > 0:
                iou[r, n] = votes[r, n] / max(known + whole[n] - votes[r, n], 1.0)
    return iou


def held_together(votes: Floats, area: Floats, trust: Floats, edges: npt.NDArray[np.int32]) -> Floats:
    """(E,) in -1..1 for superpixels that touch, edges (E, 2): above zero where most of both was carried from one track,
    below where it was from two; the farther from zero, the more of them was, and the more the tracks are trusted.

    votes: (S, N) pixels; area: (S,); trust: (N,) in 0..1.
    """
    if not votes.shape[1]:
        return np.zeros(len(edges))
    track = votes.argmax(axis=1)
    sure = votes[np.arange(len(votes)), track] / area * trust[track]
    first, second = edges.T
    return np.where(track[first] == track[second], 1, -1) * np.minimum(sure[first], sure[second])
