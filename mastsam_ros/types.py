"""What travels between the stages: frames, matches, prompts, masks, tracks, results, and the errors.

Pixels are (x, y) with the centre of the top-left pixel at (0, 0); `T_a_b` maps points of b into a.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
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

    def image_on(self, device: torch.device) -> torch.Tensor:
        """The image (H, W, 3) uint8 there; it is taken there once, and kept as long as the frame."""
        from mastsam_ros.device import upload

        kept: dict[torch.device, torch.Tensor] = self.__dict__.setdefault("_images", {})
        if device not in kept:
            kept[device] = upload(np.ascontiguousarray(self.image), device)
        return kept[device]


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
        import torch

        if self.carried is None:
            return None
        numbers = torch.arange(1, len(self) + 1, device=self.carried.device)
        return self.carried[None] == numbers[:, None, None]

    def __len__(self) -> int:
        return int(self.xy.shape[0])


@dataclass(frozen=True, eq=False)
class Unprompted:
    """What a segmenter sees of N carried masks when it is not told of them: of each, the segment that holds most of it.

    agreement: (N,) IoU of the carried mask with the segment that fits it best. leader: (N,) of the carried masks that
    are mostly in the same segment the largest one, 0-based; -1 where no segment holds most of the mask, or nothing is
    to be said. sure: (N,) in [0, 1], how far the segment that fits best stands out from what is around it; told_apart:
    (N,) bool, whether that segment was told apart from what is behind it by motion, whatever its colours; both None if
    the segmenter cannot tell.
    """

    agreement: npt.NDArray[np.float64]
    leader: npt.NDArray[np.int64]
    sure: npt.NDArray[np.float64] | None = None
    told_apart: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class CandidateMasks:
    """What the segmenter answers: C candidates for each of N prompts.

    masks: (N, C, H, W) bool. scores: (N, C) float32 in [0, 1], the segmenter's own estimate of quality;
    0 marks a candidate that is not there. unprompted: what it would see without the prompts, where it knows.
    """

    masks: torch.Tensor
    scores: torch.Tensor
    unprompted: Unprompted | None = None

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
        return CandidateMasks(self.masks.to(device), self.scores.to(device), self.unprompted)

    def __len__(self) -> int:
        return int(self.scores.shape[0])


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
    UP_TO_SCALE = "up to scale"
    """Own odometry from pictures alone: lengths are in a unit that nobody knows."""
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
    a frame that shows nothing. T_world_camera: (4, 4) pose of the camera, or None; pose: where that comes from, and
    whether its lengths are metres.
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
