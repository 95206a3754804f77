"""Masks as they are computed with: dense ones, and ones that are parts of a few images, which take a fraction of it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from mastsam_ros.compiled import compiled
from mastsam_ros.device import looking_is_free, places
from mastsam_ros.types import CandidateMasks, Unprompted

_MASKS_AT_ONCE = 16
"""Masks that are compared at once: few enough that what is made of them stays small beside them."""


def index_masks(index: torch.Tensor, count: int) -> torch.Tensor:
    """(count, H, W) bool from an index image (H, W): mask n is where the index is n + 1."""
    numbers = torch.arange(1, count + 1, dtype=torch.int16, device=index.device)
    return index.to(torch.int16)[None] == numbers[:, None, None]


def look_up(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`table[index]` for a table (K,) and an index image (H, W), a few times as fast on the CPU."""
    return torch.index_select(table, 0, index.flatten()).view(index.shape)


@runtime_checkable
class CompactCandidates(Protocol):
    """Candidates that answer without being spelled out as N x C dense masks. Nobody has to have it."""

    def overlap_counts(
        self, carried: torch.Tensor, matched: torch.Tensor, stride: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `overlap_counts`."""

    def select(self, best: torch.Tensor, found: torch.Tensor) -> TrackMasks:
        """As `select`."""


def overlap_counts(
    candidates: CandidateMasks, carried: torch.Tensor, matched: torch.Tensor, stride: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels that N x C candidates share with what was carried, at every `stride`-th pixel in x and y.

    carried: (H, W) int64, n + 1 where the mask of prompt n was carried to; matched: (H, W) bool. Returns, float32:
    inside (N, C), pixels of each candidate in its own carried mask; visible (N, C), its matched pixels; whole (N,),
    pixels of each carried mask. Compact candidates count every pixel, or their own cells, whatever the stride.
    """
    if isinstance(candidates, CompactCandidates):
        return candidates.overlap_counts(carried, matched, stride)
    masks = candidates.masks[:, :, ::stride, ::stride].flatten(2)
    own, seen = carried[::stride, ::stride].flatten(), matched[::stride, ::stride].flatten()
    return shared_with_carried(masks, own, seen)


def select(candidates: CandidateMasks, best: torch.Tensor, found: torch.Tensor) -> TrackMasks:
    """Candidate `best` (N,) of each prompt; nothing where `found` (N,) bool is False."""
    if isinstance(candidates, CompactCandidates):
        return candidates.select(best, found)
    masks = candidates.masks[torch.arange(len(candidates), device=candidates.masks.device), best]
    return TrackMasks(masks.masked_fill_(~found[:, None, None], False))


def shared_with_carried(
    masks: torch.Tensor, carried: torch.Tensor, matched: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`overlap_counts` of masks (N, C, P) bool at P places; carried (P,) int64, matched (P,) bool."""
    count, candidates, places = masks.shape
    # Every place asks the masks of its own track alone; the last row takes what was carried nowhere.
    row = torch.where(carried > 0, carried - 1, count)
    held = masks[row.clamp(max=max(count - 1, 0)), :, torch.arange(places, device=row.device)] if count else None
    inside = torch.zeros(count + 1, candidates, device=row.device)
    if held is not None:
        inside.index_add_(0, row, held.float())
    whole = torch.zeros(count + 1, device=row.device).index_add_(0, row, torch.ones(places, device=row.device))
    return inside[:-1], count_true(masks & matched).float(), whole[:-1]


def count_true(pixels: torch.Tensor) -> torch.Tensor:
    """How many of the last axis are True: (..., P) bool -> (...) int64.

    Eight at a time, several times as fast as their sum: the bytes of a word count up to 255 before they are split.
    """
    words = F.pad(pixels, (0, -pixels.shape[-1] % (8 * 255))).view(torch.int64)
    sums = words.unflatten(-1, (-1, 255)).sum(dim=-1)
    return torch.stack([(sums >> shift & 255).sum(dim=-1) for shift in range(0, 64, 8)]).sum(dim=0)


class PartitionMasks(CandidateMasks):
    """Candidates that do not overlap within one rank: C images instead of N x C masks, and faster for it.

    images: (C, H, W) integer >= 0. wanted: (N, C) of the same type: candidate c of prompt n is where image c has that
    value, -1 where there is none. `masks` gives the dense form, for everybody else.
    """

    def __init__(
        self,
        images: torch.Tensor,
        wanted: torch.Tensor,
        scores: torch.Tensor,
        unprompted: Unprompted | None = None,
    ) -> None:
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "wanted", wanted)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "unprompted", unprompted)

    images: torch.Tensor
    wanted: torch.Tensor

    @property
    def masks(self) -> torch.Tensor:  # type: ignore[override]
        """(N, C, H, W) bool."""
        return self.images[None] == self.wanted[:, :, None, None]

    def to(self, device: torch.device) -> PartitionMasks:
        """The same on that device; itself where it is there."""
        if self.images.device == device:
            return self
        on_device = (self.images.to(device), self.wanted.to(device), self.scores.to(device))
        return PartitionMasks(*on_device, self.unprompted)

    def overlap_counts(
        self, carried: torch.Tensor, matched: torch.Tensor, stride: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As the function, at every pixel, by counting pairs of values."""
        count = len(self)
        rows = torch.arange(1, count + 1, device=carried.device)
        inside, visible = [], []
        for image, wanted in zip(self.images, self.wanted.T.long(), strict=True):
            values = int(image.max()) + 1
            there = (wanted >= 0) & (wanted < values)
            value = wanted.clamp(0, values - 1)
            triples = _triples(matched, carried, image, count + 1, values)
            inside.append(triples.sum(dim=0)[rows, value] * there)
            visible.append(triples[1].sum(dim=0)[value] * there)
        whole = torch.bincount(carried.flatten(), minlength=count + 1)[1:]
        return torch.stack(inside, dim=1).float(), torch.stack(visible, dim=1).float(), whole.float()

    def select(self, best: torch.Tensor, found: torch.Tensor) -> PartitionTrackMasks:
        """As the function."""
        value = torch.gather(self.wanted.long(), 1, best[:, None])[:, 0]
        return PartitionTrackMasks(self.images, best, torch.where(found, value, -1))


def _triples(
    matched: torch.Tensor, carried: torch.Tensor, image: torch.Tensor, tracks: int, values: int
) -> torch.Tensor:
    """(2, tracks, values) int64: how often the pixels of three images (H, W) have which values at once."""
    if looking_is_free(image.device):
        arrays = matched.contiguous().numpy(), carried.contiguous().numpy(), image.to(torch.int32).contiguous().numpy()
        return torch.from_numpy(_triples_in_one_pass(*arrays, tracks, values))
    track = torch.where(matched, carried + tracks, carried)
    triples = torch.bincount((track * values + image.long()).flatten(), minlength=2 * tracks * values)
    return triples.view(2, tracks, values)


@compiled(
    "int64[:, :, ::1](Array(bool_, 2, 'C', readonly=True), Array(int64, 2, 'C', readonly=True),"
    " Array(int32, 2, 'C', readonly=True), int64, int64)"
)
def _triples_in_one_pass(
    matched: npt.NDArray[np.bool_],
    carried: npt.NDArray[np.int64],
    image: npt.NDArray[np.int32],
    tracks: int,
    values: int,
) -> npt.NDArray[np.int64]:
    """As `_triples`."""
    count = np.zeros((2, tracks, values), np.int64)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            count[1 if matched[y, x] else 0, carried[y, x], image[y, x]] += 1
    return count


class TrackMasks:
    """One mask per track, as they are chosen; they may overlap.

    dense: (N, H, W) bool.
    """

    def __init__(self, dense: torch.Tensor) -> None:
        self._dense = dense

    @property
    def dense(self) -> torch.Tensor:
        """(N, H, W) bool."""
        return self._dense

    @property
    def shape(self) -> torch.Size:
        """(H, W)."""
        return self._dense.shape[1:]

    def __len__(self) -> int:
        return len(self._dense)

    def areas(self) -> torch.Tensor:
        """Pixels of each mask, (N,) int64."""
        return self._dense.flatten(1).sum(dim=1, dtype=torch.int32).long()

    def at(self, pixels: torch.Tensor, there: torch.Tensor) -> TrackMasks:
        """What they are at some pixels, indices (M,) int64 into (H * W), as masks of shape (1, M): nothing where
        `there` (M,) bool is False."""
        return TrackMasks((self._dense.flatten(1).index_select(1, pixels) & there)[:, None])

    def shared(self, stride: int) -> torch.Tensor:
        """Pixels that each two masks have in common at every `stride`-th pixel in x and y, (N, N) float32."""
        flat = self._dense[:, ::stride, ::stride].flatten(1).float()
        return flat @ flat.T

    def owners(self, rank: torch.Tensor) -> torch.Tensor:
        """(H, W) int64: n + 1 of the track of the highest rank whose mask holds the pixel, 0 for none.

        rank: (N,) int64, of each track its place 1..N in some order; 0 for those that own nothing.
        """
        highest = torch.zeros(self.shape, dtype=torch.int16, device=rank.device)
        small = rank.to(torch.int16)[:, None, None]
        for start in range(0, len(rank), _MASKS_AT_ONCE):
            some, masks = small[start : start + _MASKS_AT_ONCE], self._dense[start : start + _MASKS_AT_ONCE]
            torch.maximum(highest, (masks * some).amax(dim=0), out=highest)
        return look_up(_of_rank(rank), highest.int())

    def hold(self, index: torch.Tensor) -> torch.Tensor:
        """(H, W) bool: pixels that the mask of the track there holds. index: (H, W) int64, n + 1 where track n is."""
        claims = torch.gather(self._dense.flatten(1), 0, (index.flatten()[None] - 1).clamp(min=0))[0]
        return claims.view(index.shape) & (index > 0)

    def replaced(self, these: torch.Tensor, index: torch.Tensor) -> TrackMasks:
        """The masks of these tracks, (N,) bool, are where `index` (H, W) int64 is n + 1 instead."""
        if looking_is_free(these.device) and not these.any():
            return self
        dense, tracks = self._dense.clone(), places(these)
        instead = index.to(torch.int16)[None] == (tracks + 1).to(torch.int16)[:, None, None]
        dense[tracks] = torch.where(these[tracks, None, None], instead, dense[tracks])
        return TrackMasks(dense)

    def emptied(self, shows: torch.Tensor) -> TrackMasks:
        """Nothing is left of the masks where `shows` (N,) bool is False."""
        return TrackMasks(self._dense & shows[:, None, None])


class PartitionTrackMasks(TrackMasks):
    """Masks that are parts of a few images: what takes N passes over the picture otherwise takes one per image.

    images: (C, H, W) integer >= 0. image, value: (N,) int64, mask n is where images[image[n]] is value[n]; nothing
    for -1.
    """

    def __init__(self, images: torch.Tensor, image: torch.Tensor, value: torch.Tensor) -> None:
        self._values = int(images.max()) + 1 if images.numel() else 1
        self.images, self.image, self.value = images, image, value.masked_fill(value >= self._values, -1)

    @property
    def dense(self) -> torch.Tensor:
        """(N, H, W) bool."""
        return self.images[self.image] == self.value.to(self.images.dtype)[:, None, None]

    @property
    def shape(self) -> torch.Size:
        """(H, W)."""
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.value)

    def _of_values(self, c: int, numbers: torch.Tensor) -> torch.Tensor:
        """(values,): for each value of image c the largest of the numbers (N,) >= 0 of the masks there, else 0."""
        table = torch.zeros(self._values, dtype=torch.int64, device=numbers.device)
        mine = (self.image == c) & (self.value >= 0)
        return table.scatter_reduce_(0, torch.where(mine, self.value, 0), torch.where(mine, numbers, 0), "amax")

    def areas(self) -> torch.Tensor:
        """As `TrackMasks.areas`."""
        sizes = torch.stack([torch.bincount(i.long().flatten(), minlength=self._values) for i in self.images])
        return sizes[self.image, self.value.clamp(min=0)] * (self.value >= 0)

    def at(self, pixels: torch.Tensor, there: torch.Tensor) -> PartitionTrackMasks:
        """As `TrackMasks.at`."""
        # One value more than there is belongs to no mask.
        images = self.images.flatten(1).index_select(1, pixels).masked_fill(~there, self._values)
        return PartitionTrackMasks(images[:, None], self.image, self.value)

    def shared(self, stride: int) -> torch.Tensor:
        """As `TrackMasks.shared`."""
        count = len(self)
        number = torch.arange(1, count + 1, device=self.value.device)
        images = self.images[:, ::stride, ::stride].long()
        shared = torch.zeros(count, count, dtype=torch.int64, device=self.value.device)
        # The masks of one image that want the same value go under one number there.
        leaders = [self._of_values(c, number) for c in range(len(images))]
        value = self.value.clamp(min=0)
        numbers = [look_up(leader, image).flatten() for leader, image in zip(leaders, images, strict=True)]
        for c, first in enumerate(numbers):
            for d, second in enumerate(numbers):
                joint = torch.bincount(first * (count + 1) + second, minlength=(count + 1) ** 2)
                joint = joint.view(count + 1, count + 1)[leaders[c][value]][:, leaders[d][value]]
                shared += joint * ((self.image == c)[:, None] & (self.image == d)[None])
        there = self.value >= 0
        return (shared * (there[:, None] & there[None])).float()

    def owners(self, rank: torch.Tensor) -> torch.Tensor:
        """As `TrackMasks.owners`."""
        highest = torch.zeros(self.shape, dtype=torch.int64, device=rank.device)
        for c, image in enumerate(self.images):
            highest = torch.maximum(highest, look_up(self._of_values(c, rank), image.long()))
        return look_up(_of_rank(rank), highest)

    def hold(self, index: torch.Tensor) -> torch.Tensor:
        """As `TrackMasks.hold`."""
        held = torch.zeros_like(index, dtype=torch.bool)
        for c, image in enumerate(self.images):
            wanted = torch.where(self.image == c, self.value, -1)
            wanted = torch.cat([wanted.new_full((1,), -1), wanted]).to(image.dtype)
            held |= look_up(wanted, index) == image
        return held

    def replaced(self, these: torch.Tensor, index: torch.Tensor) -> PartitionTrackMasks:
        """As `TrackMasks.replaced`."""
        if looking_is_free(these.device) and not these.any():
            return self
        images = torch.cat([self.images, index.to(self.images.dtype)[None]])
        own = torch.arange(1, len(these) + 1, device=these.device)
        return PartitionTrackMasks(
            images, torch.where(these, len(images) - 1, self.image), torch.where(these, own, self.value)
        )

    def emptied(self, shows: torch.Tensor) -> PartitionTrackMasks:
        """As `TrackMasks.emptied`."""
        return PartitionTrackMasks(self.images, self.image, torch.where(shows, self.value, -1))


def _of_rank(rank: torch.Tensor) -> torch.Tensor:
    """(N + 1,) int64: n + 1 of the track n of each rank (N,), 0 for rank 0."""
    table = torch.zeros(len(rank) + 1, dtype=torch.int64, device=rank.device)
    table.scatter_(0, rank, torch.arange(1, len(rank) + 1, device=rank.device))
    table[0] = 0
    return table
