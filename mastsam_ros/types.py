"""What travels between the stages: frames, matches, prompts, masks, tracks, results, and the errors.

Pixels are (x, y) with the centre of the top-left pixel at (0, 0); `T_a_b` maps points of b into a.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

MAX_ID = 65535
"""Largest id that a uint16 label image can hold; 0 means unlabelled."""


class MastsamError(Exception):
    """Base of every error that this package raises on purpose; its message is one readable line."""


class InputError(MastsamError):
    """An image, depth map, camera or source that cannot be used, with what was expected and what came."""


class OutputError(MastsamError):
    """A result that cannot be written, with the file and the reason."""


class SettingsError(MastsamError):
    """An unknown setting or a value out of its range."""


class MissingPackageError(MastsamError):
    """A backend whose package is not installed; the message says what to install."""


class ModelError(MastsamError):
    """Weights that cannot be fetched or loaded, or a model that failed."""


class SegmentationOrderError(MastsamError):
    """A segmenter was asked before it was given a frame."""


class IdsExhaustedError(MastsamError):
    """More than 65535 ids were needed; ids are never reused."""


class EditError(MastsamError):
    """What a person asked for cannot be done; nothing was changed."""


_NEAREST_M, _FARTHEST_M = 1e-3, 1e4
"""Depth beyond these is none: its squares and inverses would leave the range of float32."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One view of the camera.

    image: (H, W, 3) uint8 RGB. stamp_ns: nanoseconds. frame_id: name of the optical frame.
    K: (3, 3) float64 intrinsics in pixels, or None. depth: (H, W) float32 metres, where 0, NaN, infinity
    and what no camera measures (nearer than 1 mm, farther than 10 km) mean "no depth" and are stored as 0; or None.
    T_world_camera: (4, 4) float64, or None.

    Raises InputError for any other shape or dtype.
    """

    image: npt.NDArray[np.uint8]
    stamp_ns: int = 0
    frame_id: str = "camera"
    K: npt.NDArray[np.float64] | None = None
    depth: npt.NDArray[np.float32] | None = None
    T_world_camera: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"image must be (H, W, 3) uint8 RGB, got {_describe(image)}")
        if image.shape[0] < 2 or image.shape[1] < 2:
            raise InputError(f"image must be at least 2x2 pixels, got {image.shape[1]}x{image.shape[0]}")
        if self.K is not None:
            K = np.asarray(self.K, dtype=np.float64)
            if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
                raise InputError(f"K must be a finite (3, 3) matrix with positive focal lengths, got {K.tolist()}")
            object.__setattr__(self, "K", K)
        if self.depth is not None:
            depth = np.asarray(self.depth)
            if depth.shape != image.shape[:2]:
                raise InputError(
                    f"depth must have the image's size {image.shape[1]}x{image.shape[0]}, got {_describe(depth)}"
                )
            depth = np.where((depth >= _NEAREST_M) & (depth <= _FARTHEST_M), depth, 0).astype(np.float32)
            object.__setattr__(self, "depth", depth)
        if self.T_world_camera is not None:
            T = np.asarray(self.T_world_camera, dtype=np.float64)
            if T.shape != (4, 4) or not np.isfinite(T).all():
                raise InputError(f"T_world_camera must be a finite (4, 4) matrix, got {_describe(T)}")
            object.__setattr__(self, "T_world_camera", T)

    @property
    def height(self) -> int:
        """Rows of the image."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Columns of the image."""
        return int(self.image.shape[1])


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"shape {value.shape} {value.dtype}"
    return type(value).__name__


@dataclass(frozen=True, eq=False)
class Pointmap:
    """A 3D point for every pixel.

    points: (H, W, 3) float32, metres if `metric`, in the previous frame's camera.
    confidence: (H, W) float32 >= 0; 0 means no point.
    """

    points: torch.Tensor
    confidence: torch.Tensor
    metric: bool = True


@dataclass(frozen=True, eq=False)
class Matches:
    """Where points of the previous frame are in the current one (paper, section "correspondence").

    xy0, xy1: (N, 2) float32 pixels in the previous and the current frame. confidence: (N,) float32 in
    [0, 1]. flow: (H, W, 2) float32, previous -> current, or None. flow_back: (H, W, 2) float32,
    current -> previous, or None. visible: (H, W) bool, the pixels of the current frame that were seen
    in the previous one, or None. pointmap0, pointmap1: Pointmap or None.

    Arrays of numpy are taken as they are and become tensors. Raises InputError for lengths that disagree.
    """

    xy0: torch.Tensor
    xy1: torch.Tensor
    confidence: torch.Tensor
    flow: torch.Tensor | None = None
    flow_back: torch.Tensor | None = None
    visible: torch.Tensor | None = None
    pointmap0: Pointmap | None = None
    pointmap1: Pointmap | None = None

    def __post_init__(self) -> None:
        import torch

        for name in ("xy0", "xy1", "confidence", "flow", "flow_back"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, torch.as_tensor(value, dtype=torch.float32))
        if self.visible is not None:
            object.__setattr__(self, "visible", torch.as_tensor(self.visible, dtype=torch.bool))
        count = self.xy0.shape[0]
        if self.xy0.shape != (count, 2) or self.xy1.shape != (count, 2) or self.confidence.shape != (count,):
            raise InputError(
                "matches need xy0 (N, 2), xy1 (N, 2) and confidence (N,), got "
                f"{tuple(self.xy0.shape)}, {tuple(self.xy1.shape)}, {tuple(self.confidence.shape)}"
            )

    def __len__(self) -> int:
        return int(self.xy0.shape[0])


@dataclass(frozen=True, eq=False)
class PointPrompts:
    """What the segmenter is asked: one row per track.

    xy: (N, K, 2) float32 pixels. labels: (N, K) int64, 1 positive, 0 negative, -1 padding.
    carried: (H, W) int64, n + 1 where the mask of prompt n was carried to from the previous frame, or None;
    `masks` is the same as one mask per prompt. confidence: (N,) float32 in [0, 1], how far the carried mask
    can be trusted, or None. boxes: (N, 4) float32 pixels (x0, y0, x1, y1) that hold the whole of what is asked for,
    or None; only people give boxes.
    """

    xy: torch.Tensor
    labels: torch.Tensor
    carried: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    boxes: torch.Tensor | None = None

    def __post_init__(self) -> None:
        import torch

        object.__setattr__(self, "xy", torch.as_tensor(self.xy, dtype=torch.float32))
        object.__setattr__(self, "labels", torch.as_tensor(self.labels, dtype=torch.int64))
        if self.xy.ndim != 3 or self.xy.shape[2] != 2 or self.labels.shape != self.xy.shape[:2]:
            raise InputError(
                f"prompts need xy (N, K, 2) and labels (N, K), got {tuple(self.xy.shape)}, {tuple(self.labels.shape)}"
            )
        if self.boxes is not None:
            object.__setattr__(self, "boxes", torch.as_tensor(self.boxes, dtype=torch.float32))
            if self.boxes.shape != (len(self), 4):
                raise InputError(f"boxes must be (N, 4) for {len(self)} prompts, got {tuple(self.boxes.shape)}")

    @property
    def masks(self) -> torch.Tensor | None:
        """(N, H, W) bool, the carried masks, for segmenters that take mask prompts; None without `carried`."""
        return None if self.carried is None else index_masks(self.carried, len(self))

    def __len__(self) -> int:
        return int(self.xy.shape[0])


def index_masks(index: torch.Tensor, count: int) -> torch.Tensor:
    """(count, H, W) bool from an index image (H, W): mask n is where the index is n + 1."""
    import torch

    numbers = torch.arange(1, count + 1, dtype=torch.int16, device=index.device)
    return index.to(torch.int16)[None] == numbers[:, None, None]


def look_up(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`table[index]` for a table (K,) and an index image (H, W), a few times as fast on the CPU."""
    import torch

    return torch.index_select(table, 0, index.flatten()).view(index.shape)


@dataclass(frozen=True, eq=False)
class CandidateMasks:
    """What the segmenter answers: C candidates for each of N prompts.

    masks: (N, C, H, W) bool. scores: (N, C) float32 in [0, 1], the segmenter's own estimate of quality;
    0 marks a candidate that is not there.
    """

    masks: torch.Tensor
    scores: torch.Tensor

    def __post_init__(self) -> None:
        import torch

        object.__setattr__(self, "masks", torch.as_tensor(self.masks, dtype=torch.bool))
        object.__setattr__(self, "scores", torch.as_tensor(self.scores, dtype=torch.float32))
        if self.masks.ndim != 4 or self.scores.shape != self.masks.shape[:2]:
            raise InputError(
                "candidates need masks (N, C, H, W) and scores (N, C), got "
                f"{tuple(self.masks.shape)}, {tuple(self.scores.shape)}"
            )

    def to(self, device: torch.device) -> CandidateMasks:
        """The same on that device; itself where it is there."""
        if self.masks.device == device and self.scores.device == device:
            return self
        return CandidateMasks(self.masks.to(device), self.scores.to(device))

    def overlap_counts(
        self, carried: torch.Tensor, matched: torch.Tensor, stride: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pixels shared with what was carried, at every `stride`-th pixel in x and y.

        carried: (H, W) int64, n + 1 where the mask of prompt n was carried to; matched: (H, W) bool. Returns, float32:
        inside (N, C), pixels of each candidate in its own carried mask; visible (N, C), its matched pixels; whole (N,),
        pixels of each carried mask.
        """
        masks = self.masks[:, :, ::stride, ::stride].flatten(2)
        own, seen = carried[::stride, ::stride].flatten(), matched[::stride, ::stride].flatten()
        return shared_with_carried(masks, own, seen)

    def select(self, best: torch.Tensor, found: torch.Tensor) -> TrackMasks:
        """Candidate `best` (N,) of each prompt; nothing where `found` (N,) bool is False."""
        import torch

        masks = self.masks[torch.arange(len(self), device=self.masks.device), best]
        masks[~found] = False
        return TrackMasks(masks)

    def __len__(self) -> int:
        return int(self.scores.shape[0])


def shared_with_carried(
    masks: torch.Tensor, carried: torch.Tensor, matched: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`CandidateMasks.overlap_counts` of masks (N, C, P) bool at P places; carried (P,) int64, matched (P,) bool."""
    import torch

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
    import torch
    import torch.nn.functional as F

    words = F.pad(pixels, (0, -pixels.shape[-1] % (8 * 255))).view(torch.int64)
    sums = words.unflatten(-1, (-1, 255)).sum(dim=-1)
    return torch.stack([(sums >> shift & 255).sum(dim=-1) for shift in range(0, 64, 8)]).sum(dim=0)


class PartitionMasks(CandidateMasks):
    """Candidates that do not overlap within one rank: C images instead of N x C masks, and faster for it.

    images: (C, H, W) integer >= 0. wanted: (N, C) of the same type: candidate c of prompt n is where image c has that
    value, -1 where there is none. `masks` gives the dense form, for everybody else.
    """

    def __init__(self, images: torch.Tensor, wanted: torch.Tensor, scores: torch.Tensor) -> None:
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "wanted", wanted)
        object.__setattr__(self, "scores", scores)

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
        return PartitionMasks(self.images.to(device), self.wanted.to(device), self.scores.to(device))

    def overlap_counts(
        self, carried: torch.Tensor, matched: torch.Tensor, stride: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `CandidateMasks.overlap_counts`, at every pixel, by counting pairs of values."""
        import torch

        count = len(self)
        rows = torch.arange(1, count + 1, device=carried.device)
        # One count of (matched, track, value) triples gives all three answers.
        track = torch.where(matched, carried + count + 1, carried)
        inside, visible = [], []
        for image, wanted in zip(self.images.long(), self.wanted.T.long(), strict=True):
            values = int(image.max()) + 1
            there = (wanted >= 0) & (wanted < values)
            value = wanted.clamp(0, values - 1)
            triples = torch.bincount((track * values + image).flatten(), minlength=2 * (count + 1) * values)
            triples = triples.view(2, count + 1, values)
            inside.append(triples.sum(dim=0)[rows, value] * there)
            visible.append(triples[1].sum(dim=0)[value] * there)
        whole = torch.bincount(carried.flatten(), minlength=count + 1)[1:]
        return torch.stack(inside, dim=1).float(), torch.stack(visible, dim=1).float(), whole.float()

    def select(self, best: torch.Tensor, found: torch.Tensor) -> PartitionTrackMasks:
        """As `CandidateMasks.select`."""
        import torch

        value = torch.gather(self.wanted.long(), 1, best[:, None])[:, 0]
        return PartitionTrackMasks(self.images, best, torch.where(found, value, -1))


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
        import torch

        return self._dense.flatten(1).sum(dim=1, dtype=torch.int32).long()

    def within(self, region: torch.Tensor) -> TrackMasks:
        """The masks cut to a region (H, W) bool."""
        return TrackMasks(self._dense & region)

    def shared(self, stride: int) -> torch.Tensor:
        """Pixels that each two masks have in common at every `stride`-th pixel in x and y, (N, N) float32."""
        flat = self._dense[:, ::stride, ::stride].flatten(1).float()
        return flat @ flat.T

    def owners(self, order: list[int]) -> torch.Tensor:
        """(H, W) int64: n + 1 of the last track in `order` (any of 0..N-1) whose mask holds the pixel, 0 for none."""
        import torch

        painted = torch.zeros(self._dense.shape[1:], dtype=torch.int32, device=self._dense.device)
        for n in order:
            painted.masked_fill_(self._dense[n], n + 1)
        return painted.long()

    def hold(self, index: torch.Tensor) -> torch.Tensor:
        """(H, W) bool: pixels that the mask of the track there holds. index: (H, W) int64, n + 1 where track n is."""
        import torch

        claims = torch.gather(self._dense.flatten(1), 0, (index.flatten()[None] - 1).clamp(min=0))[0]
        return claims.view(index.shape) & (index > 0)

    def replaced(self, tracks: list[int], index: torch.Tensor) -> TrackMasks:
        """The masks of these tracks are where `index` (H, W) int64 is n + 1 instead."""
        dense = self._dense.clone()
        for n in tracks:
            dense[n] = index == n + 1
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
        import torch

        table = torch.zeros(self._values, dtype=torch.int64, device=numbers.device)
        mine = (self.image == c) & (self.value >= 0)
        return table.scatter_reduce_(0, self.value[mine], numbers[mine], "amax")

    def areas(self) -> torch.Tensor:
        """As `TrackMasks.areas`."""
        import torch

        sizes = torch.stack([torch.bincount(i.long().flatten(), minlength=self._values) for i in self.images])
        return sizes[self.image, self.value.clamp(min=0)] * (self.value >= 0)

    def within(self, region: torch.Tensor) -> PartitionTrackMasks:
        """As `TrackMasks.within`."""
        # One value more than there is belongs to no mask.
        outside = self._values
        return PartitionTrackMasks(self.images.masked_fill(~region, outside), self.image, self.value)

    def shared(self, stride: int) -> torch.Tensor:
        """As `TrackMasks.shared`."""
        import torch

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

    def owners(self, order: list[int]) -> torch.Tensor:
        """As `TrackMasks.owners`."""
        import torch

        device = self.value.device
        owner = torch.tensor([-1, *order], device=device) + 1
        rank = torch.zeros(len(self) + 1, dtype=torch.int64, device=device)
        rank = rank.index_copy_(0, owner, torch.arange(len(owner), device=device))[1:]
        highest = torch.zeros(self.shape, dtype=torch.int64, device=device)
        for c, image in enumerate(self.images):
            highest = torch.maximum(highest, look_up(self._of_values(c, rank), image.long()))
        return look_up(owner, highest)

    def hold(self, index: torch.Tensor) -> torch.Tensor:
        """As `TrackMasks.hold`."""
        import torch

        held = torch.zeros_like(index, dtype=torch.bool)
        for c, image in enumerate(self.images):
            wanted = torch.where(self.image == c, self.value, -1)
            wanted = torch.cat([wanted.new_full((1,), -1), wanted]).to(image.dtype)
            held |= look_up(wanted, index) == image
        return held

    def replaced(self, tracks: list[int], index: torch.Tensor) -> PartitionTrackMasks:
        """As `TrackMasks.replaced`."""
        import torch

        rows = torch.tensor(tracks, device=self.value.device)
        images = torch.cat([self.images, index.to(self.images.dtype)[None]])
        return PartitionTrackMasks(
            images, self.image.index_fill(0, rows, len(images) - 1), self.value.index_copy(0, rows, rows + 1)
        )

    def emptied(self, shows: torch.Tensor) -> PartitionTrackMasks:
        """As `TrackMasks.emptied`."""
        import torch

        return PartitionTrackMasks(self.images, self.image, torch.where(shows, self.value, -1))


class TrackState(str, enum.Enum):
    """Where a track stands in its life."""

    TENTATIVE = "tentative"
    """Seen, but not long enough to be shown under an id of its own."""
    TRACKED = "tracked"
    """In view under its id."""
    LOST = "lost"
    """Not in view; the id is kept for when it comes back."""


@dataclass(frozen=True)
class Track:
    """An instance over time, as one frame sees it.

    id: 1..65535. score: [0, 1]. area: pixels of the label image. box_xywh: pixels (x, y, width,
    height), inclusive of the last pixel; zeros when not in view. age: frames since it was born.
    position: (3,) metres in the camera's frame (median of its lifted points), or None.
    size: (3,) metres, extent along the camera's axes (5th to 95th percentile), or None.
    label: what a person called it, or "".
    """

    id: int
    state: TrackState
    score: float
    area: int
    box_xywh: tuple[int, int, int, int]
    age: int
    position: tuple[float, float, float] | None = None
    size: tuple[float, float, float] | None = None
    label: str = ""


class EventKind(str, enum.Enum):
    """What happened to a track."""

    BORN = "born"
    LOST = "lost"
    REVIVED = "revived"
    MERGED = "merged"
    REMOVED = "removed"
    RESET = "reset"
    RENAMED = "renamed"


@dataclass(frozen=True)
class TrackEvent:
    """A change in the set of tracks.

    For `merged`, `id` ends and its pixels go on as `other_id`. For `reset`, `id` is 0 and every track ends.
    For `renamed`, reason is the new label. reason: a short phrase for people. evidence: [0, 1], how sure it is; 1 for
    what a person asked for.
    """

    kind: EventKind
    id: int
    other_id: int = 0
    reason: str = ""
    evidence: float = 1.0


def triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Three numbers, (3,), as plain ones, rounded to a ten thousandth: 0.1 mm."""
    x, y, z = (round(float(value), 4) for value in values)
    return x, y, z


@dataclass(frozen=True, eq=False)
class LabelledCloud:
    """3D points that know their instance (method, step 8).

    xyz: (M, 3) float32 in the current camera's optical frame, metres if `metric`. rgb: (M, 3) uint8.
    instance: (M,) uint32, 0 = unlabelled. confidence: (M,) float32 in [0, 1].
    """

    xyz: npt.NDArray[np.float32]
    rgb: npt.NDArray[np.uint8]
    instance: npt.NDArray[np.uint32]
    confidence: npt.NDArray[np.float32]
    metric: bool = True

    def __len__(self) -> int:
        return int(self.xyz.shape[0])


class PoseState(str, enum.Enum):
    """Where the camera's pose in the world comes from."""

    UNKNOWN = "unknown"
    """There is nothing to tell it from: no depth, no K, no map."""
    OWN = "own"
    """Own odometry; after poses from outside it goes on in their world."""
    GIVEN = "given"
    """It came with the frame."""
    LOST = "lost"
    """It was known, or is waited for: the map pauses."""


@dataclass(frozen=True)
class MapInstance:
    """One instance of the map. position, size: (3,), median and 5th to 95th percentile of its voxels in the world.

    voxels: how many it has. views: frames in which it was seen. last_seen_ns: stamp of the last of them, 0 for one of
    an earlier run. label: what a person called it, or "".
    """

    id: int
    position: tuple[float, float, float]
    size: tuple[float, float, float]
    voxels: int
    views: int
    last_seen_ns: int
    label: str = ""


@dataclass(frozen=True, eq=False)
class WorldMap:
    """The map of instances at one moment. cloud: its voxels in the world, confidence the share of the most votes that a
    voxel can have. instances: by rising id. `cloud.metric` says whether lengths are metres.
    """

    cloud: LabelledCloud
    instances: tuple[MapInstance, ...]


@dataclass(frozen=True)
class SelfCheck:
    """How good a frame's result looks without any truth; every share in [0, 1].

    consistency: share of the matches with the frame before whose two ids are equal, both labelled; None without
    matches. uncovered: share of the picture without a label. largest: share of it under its largest id: near 1,
    everything is one mask, and consistency says nothing. switches: ids that seem to have gone on under another one.
    """

    consistency: float | None
    uncovered: float
    largest: float
    switches: int


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What one step gives.

    labels: (H, W) uint16, 0 = unlabelled, at the size of the input image. tracks: every track that is
    shown or lost, by id. events: in the order in which they happened. points: LabelledCloud, or None
    without geometry. timings_ms: milliseconds per stage, "total" among them. check: how good it looks, or None for
    a frame that shows nothing. T_world_camera: (4, 4) pose of the camera, or None; pose: where that comes from.
    """

    labels: npt.NDArray[np.uint16]
    tracks: tuple[Track, ...]
    events: tuple[TrackEvent, ...]
    points: LabelledCloud | None
    timings_ms: dict[str, float] = field(default_factory=dict)
    index: int = 0
    stamp_ns: int = 0
    frame_id: str = "camera"
    check: SelfCheck | None = None
    T_world_camera: npt.NDArray[np.float64] | None = None
    pose: PoseState = PoseState.UNKNOWN

    def with_timings(self, timings_ms: dict[str, float]) -> FrameResult:
        """The same result with other timings (milliseconds per stage)."""
        return replace(self, timings_ms=timings_ms)
