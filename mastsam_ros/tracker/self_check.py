"""What a result tells of its own quality, without any truth: the live measure that the node reports."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.types import Matches, SelfCheck

_MATCHES = 4096
"""Matches that are looked at, evenly spread: the standard error of a share of them is below 1 %."""
_FEWEST = 12
"""Matches that must start on an id for it to be judged whether it went on."""
_COVER_STRIDE = 4


class SelfChecker:
    """Compares each label image with the one before it, along the matches between them."""

    def __init__(self) -> None:
        self._previous: npt.NDArray[np.uint16] | None = None

    def reset(self) -> None:
        """The next frame has nothing before it."""
        self._previous = None

    def check(
        self, labels: npt.NDArray[np.uint16], places: npt.NDArray[np.float32] | None, merged: Mapping[int, int]
    ) -> SelfCheck:
        """Judges one frame. labels: (H, W) uint16 as shown, at the matches' size. places: `sampled_places` of the
        matches, or None. merged: id -> id that it goes on as, as this frame's events tell.

        Consistency is that of method "published numbers": of the matches, the share whose two ids are equal, both
        labelled. An id is suspected to have switched when most of its matches lead to one other id and no merge was
        told: nothing but a switch, or a merge that nobody noticed, looks so.
        """
        previous, self._previous = self._previous, labels
        some = labels[::_COVER_STRIDE, ::_COVER_STRIDE]
        areas = np.bincount(some.ravel())
        uncovered, largest = float(areas[0] / some.size), float(areas[1:].max(initial=0) / some.size)
        if previous is None or previous.shape != labels.shape or places is None or len(places) < _FEWEST:
            return SelfCheck(None, uncovered, largest, 0)
        before, now = _ids_at(previous, places[:, :2]), _ids_at(labels, places[:, 2:])
        kept = (before == now) & (before > 0)
        return SelfCheck(float(kept.mean()), uncovered, largest, _switches(before, now, merged))


def sampled_places(matches: Matches) -> torch.Tensor:
    """(K, 4) float32, x and y before and now of up to `_MATCHES` matches, evenly spread."""
    every = slice(None, None, max(1, -(-len(matches) // _MATCHES)))
    return torch.cat([matches.xy0[every], matches.xy1[every]], dim=1)


def _ids_at(labels: npt.NDArray[np.uint16], xy: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    height, width = labels.shape
    column = np.rint(xy[:, 0]).astype(np.int64).clip(0, width - 1)
    row = np.rint(xy[:, 1]).astype(np.int64).clip(0, height - 1)
    return labels[row, column].astype(np.int64)


def _switches(before: npt.NDArray[np.int64], now: npt.NDArray[np.int64], merged: Mapping[int, int]) -> int:
    moved = (before > 0) & (now > 0)
    pairs, counts = np.unique(before[moved] << 16 | now[moved], return_counts=True)
    started = np.bincount(before).tolist()
    return sum(
        old != new and count >= _FEWEST and 2 * count > started[old] and merged.get(old) != new
        for old, new, count in zip((pairs >> 16).tolist(), (pairs & 0xFFFF).tolist(), counts.tolist(), strict=True)
    )
