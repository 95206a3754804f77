"""Step 6 of the method: masks that overlap are joined with union-find, and each pixel gets one id."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.geometry.instance_map import Separation
from mastsam_ros.masks import TrackMasks
from mastsam_ros.settings import TrackerSettings

_HIDDEN = 0.25
"""Agreement below which a mask is another track's object, if that track's own agreement is more than twice this."""


class OverlapFilter:
    """Joins tracks whose masks coincide, and remembers for how long two grown-up tracks have done so."""

    def __init__(self, settings: TrackerSettings) -> None:
        self.settings = settings
        self._streak: dict[tuple[int, int], int] = {}
        self.iou: dict[int, float] = {}
        """Of the ids that the last `join` joined, the IoU that spoke for it."""

    def reset(self) -> None:
        """Forgets every streak."""
        self._streak.clear()

    def snapshot(self) -> dict[tuple[int, int], int]:
        """What `restore` takes to make this moment come back."""
        return dict(self._streak)

    def restore(self, snapshot: dict[tuple[int, int], int]) -> None:
        """Undoes what happened since the snapshot."""
        self._streak = snapshot

    def shared_iou(self, masks: TrackMasks) -> torch.Tensor:
        """(N, N) float32: IoU of each two masks, for `join`, on their device; (0, 0) where nothing is to be joined."""
        if not self.settings.overlap_filtering or len(masks) < 2:
            return torch.zeros(0, 0)
        # Whether masks coincide shows at half the resolution that choosing between candidates needs.
        inter = masks.shared(2 * self.settings.agreement_stride)
        area = inter.diagonal()
        return inter / (area[:, None] + area[None] - inter).clamp(min=1)

    def join(
        self,
        ids: list[int],
        ages: list[int],
        iou: npt.NDArray[np.float32],
        agreement: list[float],
        separation: Callable[[int, int], Separation] = lambda _first, _second: Separation.UNKNOWN,
        parts: Sequence[tuple[int, int]] = (),
    ) -> tuple[dict[int, int], set[int]]:
        """Which ids end, and in which id they go on: the oldest of each set (paper, section IV-D; of equally old
        ones the one that agrees best); and which give way.

        ids, ages: N each, in frames; iou: (N, N), of `shared_iou`; agreement: N, IoU of each mask with what was
        carried; separation: of two ids; those with room between them are never joined, those that touch not at once.
        parts: pairs (0-based) that are to be joined whatever their masks.
        Two tracks are joined at once if the younger is younger than `join_young`, else after `join_after` frames of
        overlap in a row: one frame in which the segmenter takes two things for one must not end an id. A grown-up
        track whose mask is plainly another track's object is hidden behind that object: it gives way, and is not
        joined with what hides it.
        """
        self.iou = {}
        if not self.settings.overlap_filtering or len(ids) < 2:
            return {}, set()
        pairs = np.argwhere(np.triu(iou >= self.settings.join_iou, k=1)).tolist()
        streak: dict[tuple[int, int], int] = {}
        joined = []
        two_things: set[tuple[int, int]] = set()
        hidden: set[int] = set()
        coinciding: list[tuple[int, int, bool]] = []
        for first, second in pairs:
            known = separation(ids[first], ids[second])
            two = known is Separation.APART
            if two:
                two_things.add((first, second))
            young = known is Separation.UNKNOWN and min(ages[first], ages[second]) < self.settings.join_young
            weak, strong = sorted((first, second), key=lambda n: agreement[n])
            if (two or not young) and agreement[weak] < _HIDDEN and agreement[strong] > 2 * _HIDDEN:
                hidden.add(ids[weak])
            elif not two:
                coinciding.append((first, second, young))
        for first, second, young in coinciding:
            # The mask of what is hidden is another's: it says nothing of a third.
            if not hidden.isdisjoint((ids[first], ids[second])):
                continue
            key = (ids[first], ids[second])
            streak[key] = self._streak.get(key, 0) + 1
            if young or streak[key] >= self.settings.join_after:
                joined.append((first, second))
                for n in (first, second):
                    self.iou[ids[n]] = max(self.iou.get(ids[n], 0.0), float(iou[first, second]))
        for pair in parts:
            known_two = separation(ids[pair[0]], ids[pair[1]]) is Separation.APART
            (two_things.add if known_two else joined.append)(pair)
        self._streak = streak
        seniority = sorted(range(len(ids)), key=lambda n: (-ages[n], -agreement[n], ids[n]))
        ends = {
            ids[n]: ids[root]
            for n, root in union_find(len(ids), _kept_apart(joined, two_things), seniority).items()
            if n != root
        }
        return ends, hidden - ends.keys() - set(ends.values())


def _kept_apart(pairs: list[tuple[int, int]], two_things: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pairs, without those that would bring two things into one set by way of a third."""
    kept: list[tuple[int, int]] = []
    sets: list[set[int]] = []
    for first, second in pairs:
        met = [group for group in sets if first in group or second in group]
        joined = {first, second}.union(*met)
        if any(a in joined and b in joined for a, b in two_things):
            continue
        sets = [*(group for group in sets if group not in met), joined]
        kept.append((first, second))
    return kept


def union_find(count: int, pairs: list[tuple[int, int]], seniority: list[int]) -> dict[int, int]:
    """Element -> the most senior element of its set, for every element of 0..count-1.

    seniority: all elements, the most senior first.
    """
    parent = list(range(count))
    rank = {element: place for place, element in enumerate(seniority)}

    def find(element: int) -> int:
        while parent[element] != element:
            parent[element] = parent[parent[element]]
            element = parent[element]
        return element

    for first, second in pairs:
        a, b = find(first), find(second)
        if a != b:
            senior, junior = (a, b) if rank[a] < rank[b] else (b, a)
            parent[junior] = senior
    return {element: find(element) for element in range(count)}


def one_id_per_pixel(masks: TrackMasks, priority: torch.Tensor, carried: torch.Tensor | None) -> torch.Tensor:
    """Resolves what still overlaps: (H, W) int64, n + 1 where mask n owns the pixel, 0 where none does.

    masks: N; priority: (N,), the highest wins; carried: (H, W) int64 (n + 1) or None, a mask
    that was carried to a pixel it still claims keeps it whatever its priority.
    """
    order = priority.argsort(stable=True)
    rank = torch.zeros_like(order).scatter_(0, order, torch.arange(1, len(order) + 1, device=order.device))
    index = masks.owners(rank)
    if carried is not None and len(masks):
        index = torch.where(masks.hold(carried), carried, index)
    return index
