"""Any network that answers point prompts with masks, as a segmenter: one encoding per frame, prompts in batches.

The networks are in sam.py (package segment-anything) and hf_sam.py (package transformers).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from mastsam_ros.device import constant, looking_is_free, on_host, out_of_memory_told, upload
from mastsam_ros.masks import TrackMasks, index_masks, shared_with_carried
from mastsam_ros.settings import SamSettings
from mastsam_ros.types import (
    CandidateMasks,
    Frame,
    Matches,
    ModelError,
    PointPrompts,
    SegmentationOrderError,
)

_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
"""Mean and deviation of RGB, 0 to 255, that SAM, SAM-HQ, SAM 2 and EdgeTAM were trained with."""
_STABILITY_OFFSET = 1.0
"""A stable mask changes little when its logits are cut this far above and below zero (SAM, appendix B)."""
_MASK_LOGIT = 10.0
"""A mask prompt that is trusted has this logit inside and its negative outside, as SAM 2 gives masks to itself."""
_PIXELS_AT_ONCE = 1 << 26
"""Logits at the frame's size that are there at once: a quarter of a gibibyte."""
_CURE = "lower sam.prompts_per_call or frame.working_pixels, or take a smaller model"


class PromptableNetwork(Protocol):
    """A network that encodes a square image once and then answers prompts."""

    side: int
    """Width and height of the network's image, pixels."""
    mask_side: int
    """Width and height of a mask prompt, which covers the whole square."""
    keeps_aspect: bool
    """True: the image's long side fills the square and the rest is padded; False: the image is stretched."""

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Moves there; the weights of the image encoder, nearly all of them, in that precision."""

    def encode(self, image: torch.Tensor) -> Any:
        """image (1, 3, side, side) float32, normalised -> features, whatever `decode` takes."""

    def decode(
        self, features: Any, xy: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor | None, boxes: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """xy (N, K, 2) float32 pixels of the network's image, labels (N, K) -> logits (N, 3, h, w), IoU (N, 3).

        boxes: people drew boxes, whose corners are the last two points of every prompt, labelled 2 and 3. masks:
        (N, mask_side, mask_side) float32 logits of mask prompts, or None. The logits that come out cover the
        whole square too; IoU is the network's own estimate for each mask. Called under autocast: positions of points
        are to be embedded outside it, half precision knows pixels only to several of them.
        """


@dataclass(frozen=True)
class SquareMapping:
    """How a frame of (height, width) lies in the network's square: in its top left (used_height, used_width)."""

    height: int
    width: int
    used_height: int
    used_width: int
    side: int

    @staticmethod
    def of_size(height: int, width: int, side: int, keeps_aspect: bool) -> SquareMapping:
        """The mapping that SAM was trained with (padded) or that SAM 2 was trained with (stretched)."""
        if not keeps_aspect:
            return SquareMapping(height, width, side, side, side)
        scale = side / max(height, width)
        used_height, used_width = int(height * scale + 0.5), int(width * scale + 0.5)
        return SquareMapping(height, width, max(1, used_height), max(1, used_width), side)

    def square(self, image: torch.Tensor) -> torch.Tensor:
        """image (H, W, 3) uint8 RGB -> (1, 3, side, side) float32, normalised, zero beyond the image."""
        pixels = image.permute(2, 0, 1)[None].float()
        size = (self.used_height, self.used_width)
        if size != (self.height, self.width):
            pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (constant(values, pixels.device)[:, None, None] for values in (_MEAN, _STD))
        pixels = (pixels - mean) / std
        return F.pad(pixels, (0, self.side - self.used_width, 0, self.side - self.used_height))

    def to_network(self, xy: torch.Tensor) -> torch.Tensor:
        """Pixels of the frame (..., 2) -> pixels of the square."""
        scale = constant((self.used_width / self.width, self.used_height / self.height), xy.device)
        return (xy + 0.5) * scale - 0.5

    def on_frame(self, logits: torch.Tensor) -> torch.Tensor:
        """logits (N, C, h, w) of the square -> (N, C, H, W) at the frame's pixels, bilinear."""
        across = self._normalised(self.width, self.used_width, logits.device)
        down = self._normalised(self.height, self.used_height, logits.device)
        grid = torch.stack([across.expand(self.height, -1), down[:, None].expand(-1, self.width)], dim=-1)
        flat = logits.flatten(0, 1)[None]
        sampled = F.grid_sample(flat, grid[None], mode="bilinear", padding_mode="border", align_corners=False)
        return sampled[0].unflatten(0, logits.shape[:2])

    def masks(self, logits: torch.Tensor) -> torch.Tensor:
        """logits (N, C, h, w) of the square -> (N, C, H, W) bool at the frame's pixels, a bounded number at a time."""
        found = torch.zeros(*logits.shape[:2], self.height, self.width, dtype=torch.bool, device=logits.device)
        at_once = max(1, _PIXELS_AT_ONCE // (logits.shape[1] * self.height * self.width))
        for part, there in zip(logits.split(at_once), found.split(at_once), strict=True):
            torch.gt(self.on_frame(part), 0, out=there)
        return found

    def on_square(self, index: torch.Tensor, cells: int) -> torch.Tensor:
        """index (H, W) of the frame at the centres of cells x cells of the square: (cells, cells), 0 off the frame."""
        device = index.device
        at = (torch.arange(cells, device=device) + 0.5) * (self.side / cells)
        y = (at * (self.height / self.used_height)).long().clamp(max=self.height - 1)
        x = (at * (self.width / self.used_width)).long().clamp(max=self.width - 1)
        return index[y[:, None], x] * self.covered(cells, cells, device)

    def covered(self, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        """(rows, columns) bool: the cells of a map of the square whose centres lie on the frame."""
        y = (torch.arange(rows, device=device) + 0.5) * (self.side / rows) < self.used_height
        x = (torch.arange(columns, device=device) + 0.5) * (self.side / columns) < self.used_width
        return y[:, None] & x

    def _normalised(self, size: int, used: int, device: torch.device) -> torch.Tensor:
        """Centres of the frame's pixels along one axis, the square's edges at -1 and 1."""
        return (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2 * used / (size * self.side)) - 1


class LogitMasks(CandidateMasks):
    """Candidates as the decoder gives them, a quarter of the square's size: those that are chosen become masks.

    mapping: how the frame lies in the square. logits: (N, C, h, w) float32 of the square, positive inside.
    """

    def __init__(self, mapping: SquareMapping, logits: torch.Tensor, scores: torch.Tensor) -> None:
        object.__setattr__(self, "mapping", mapping)
        object.__setattr__(self, "logits", logits)
        object.__setattr__(self, "scores", scores)

    mapping: SquareMapping
    logits: torch.Tensor

    @property
    def masks(self) -> torch.Tensor:  # type: ignore[override]
        """(N, C, H, W) bool."""
        with out_of_memory_told(_CURE):
            return self.mapping.masks(self.logits)

    def to(self, device: torch.device) -> LogitMasks:
        """The same on that device; itself where it is there."""
        if self.logits.device == device:
            return self
        return LogitMasks(self.mapping, self.logits.to(device), self.scores.to(device))

    def overlap_counts(
        self, carried: torch.Tensor, matched: torch.Tensor, stride: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `masks.overlap_counts`, at the cells of the logits whatever the stride."""
        cells = self.logits.shape[-1]
        rows = math.ceil(cells * self.mapping.used_height / self.mapping.side)
        columns = math.ceil(cells * self.mapping.used_width / self.mapping.side)
        inside = (self.logits[:, :, :rows, :columns] > 0).flatten(2)
        own, seen = (self.mapping.on_square(image, cells)[:rows, :columns].flatten() for image in (carried, matched))
        return shared_with_carried(inside, own, seen)

    def select(self, best: torch.Tensor, found: torch.Tensor) -> TrackMasks:
        """As `masks.select`."""
        chosen = self.logits[torch.arange(len(self), device=best.device), best]
        chosen = torch.where(found[:, None, None], chosen, -1.0)
        with out_of_memory_told(_CURE):
            return TrackMasks(self.mapping.masks(chosen[:, None])[:, 0])


class PromptedSegmenter:
    """Segment Anything and its kin as a segmenter (paper, section IV-D): three candidates for every track."""

    def __init__(self, network: PromptableNetwork, settings: SamSettings, device: torch.device) -> None:
        self.network = network
        self._settings = settings
        self._device = device
        automatic = "bfloat16" if device.type == "cuda" else "float32"
        name = automatic if settings.precision == "auto" else settings.precision
        self._dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
        network.to(device, self._dtype)
        self._mapping: SquareMapping | None = None
        self._features: Any = None

    @torch.no_grad()
    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        """Encodes the image; the one costly step of a frame. `matches` are not used."""
        self._mapping = SquareMapping.of_size(frame.height, frame.width, self.network.side, self.network.keeps_aspect)
        image = frame.image_on(self._device)
        self._features = None  # before the new ones: two frames' need not fit beside each other
        with self._precision(), out_of_memory_told(_CURE):
            self._features = self.network.encode(self._mapping.square(image))

    @torch.no_grad()
    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        """Three candidates per prompt, masks (N, 3, H, W) of the frame's size, scores (N, 3): the predicted IoU.

        With the setting `mask_prompt` the carried masks are prompts beside the points. All prompts go through one
        call of the decoder, or through several of `prompts_per_call`. Raises SegmentationOrderError before the first
        `set_frame`, ModelError if the network gives no finite numbers.
        """
        mapping = self._current()
        xy, labels = prompts.xy, prompts.labels
        if prompts.boxes is not None:
            xy = torch.cat([xy, prompts.boxes.view(-1, 2, 2)], dim=1)
            corners = torch.tensor([[2, 3]], dtype=labels.dtype).expand(len(labels), -1)
            labels = torch.cat([labels, upload(corners, labels.device)], dim=1)
        parts = list(self._answers(xy, labels, self._mask_prompts(prompts), prompts.boxes is not None))
        if not parts:
            none = torch.zeros(0, 3, mapping.height, mapping.width, dtype=torch.bool, device=self._device)
            return CandidateMasks(none, torch.zeros(0, 3, device=self._device))
        logits, scores = (torch.cat(kind) for kind in zip(*parts, strict=True))
        if looking_is_free(scores.device):  # elsewhere, what chooses from the answer sees it
            _require_finite(bool(scores.isfinite().all()))
        return LogitMasks(mapping, logits, scores.clamp(0, 1))

    @torch.no_grad()
    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        """Automatic masks (N, 1, H, W), cut to `region` (H, W) bool if it is given; best first.

        One positive prompt at each point of a grid, inside the region only; what is not sure of itself
        (`min_iou`), not stable (`min_stability`) or the same as a better mask (`nms_iou`) is left out.
        """
        mapping = self._current()
        inside = torch.ones(mapping.height, mapping.width, dtype=torch.bool, device=self._device)
        if region is not None:
            inside = region.to(self._device)
        xy = self._grid(inside)[:, None]
        labels = torch.ones(xy.shape[:2], dtype=torch.int64, device=self._device)
        kept_logits, kept_scores = [], []
        finite = torch.ones((), dtype=torch.bool, device=self._device)
        for logits, iou in self._answers(xy, labels, None):
            on_image = mapping.covered(logits.shape[2], logits.shape[3], self._device)
            certain = ((logits > _STABILITY_OFFSET) & on_image).flatten(2).sum(dim=2)
            possible = ((logits > -_STABILITY_OFFSET) & on_image).flatten(2).sum(dim=2)
            stable = certain >= self._settings.min_stability * possible.clamp(min=1)
            finite = finite & iou.isfinite().all()
            sure = (iou >= self._settings.min_iou) & stable & (certain > 0)
            kept = torch.nonzero(sure.flatten()).flatten()
            kept_logits.append(logits.flatten(0, 1)[kept])
            kept_scores.append(iou.flatten()[kept])
        if not sum(len(scores) for scores in kept_scores):
            _require_finite(bool(on_host(finite)[0]))
            empty = torch.zeros(0, 1, mapping.height, mapping.width, dtype=torch.bool, device=self._device)
            return CandidateMasks(empty, torch.zeros(0, 1, device=self._device))
        all_logits, all_scores = torch.cat(kept_logits), torch.cat(kept_scores)
        order = all_scores.argsort(descending=True, stable=True)
        on_image = mapping.covered(all_logits.shape[1], all_logits.shape[2], self._device)
        alike, all_finite = on_host(alike_masks(all_logits[order] > 0, on_image, self._settings.nms_iou), finite)
        _require_finite(bool(all_finite))
        best = order[upload(first_of_each(alike), self._device)]
        masks = mapping.masks(all_logits[best, None])
        return CandidateMasks(masks & inside, all_scores[best, None].clamp(0, 1))

    def _current(self) -> SquareMapping:
        if self._mapping is None:
            raise SegmentationOrderError("set_frame must be called before predict and everything")
        return self._mapping

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)

    def _answers(
        self, xy: torch.Tensor, labels: torch.Tensor, masks: _MaskPrompts | None, boxes: bool = False
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The decoder's answers, `prompts_per_call` at a time: float32 logits (n, 3, h, w) and IoU (n, 3)."""
        size = self._settings.prompts_per_call
        at = self._current().to_network(xy.to(self._device, non_blocking=True))
        labels = labels.to(self._device, non_blocking=True)
        for start in range(0, len(at), size):
            part = slice(start, start + size)
            dense = None if masks is None else masks.logits(start, len(at[part]))
            with self._precision(), out_of_memory_told(_CURE):
                logits, iou = self.network.decode(self._features, at[part], labels[part], dense, boxes)
            yield logits.float(), iou.float()

    def _mask_prompts(self, prompts: PointPrompts) -> _MaskPrompts | None:
        if not self._settings.mask_prompt or prompts.carried is None:
            return None
        # Two samples of the carried index in each direction per cell of the prompt: its outline is not a staircase.
        carried = self._current().on_square(prompts.carried.to(self._device), 2 * self.network.mask_side)
        if prompts.confidence is None:
            return _MaskPrompts(carried, torch.ones(len(prompts), device=self._device))
        return _MaskPrompts(carried, prompts.confidence.to(self._device, non_blocking=True))

    def _grid(self, inside: torch.Tensor) -> torch.Tensor:
        """(M, 2) float32 pixels: the centres of square cells, `grid_points` along the long side, inside only."""
        height, width = inside.shape
        cell = max(height, width) / self._settings.grid_points
        y = (torch.arange(round(height / cell), device=self._device) + 0.5) * cell - 0.5
        x = (torch.arange(round(width / cell), device=self._device) + 0.5) * cell - 0.5
        xy = torch.stack(torch.meshgrid(x.clamp(max=width - 1), y.clamp(max=height - 1), indexing="xy"), dim=-1)
        xy = xy.flatten(0, 1)
        return xy[torch.nonzero(inside[xy[:, 1].round().long(), xy[:, 0].round().long()]).flatten()]


@dataclass(frozen=True, eq=False)
class _MaskPrompts:
    """Carried masks as the decoder takes them: carried (2 m, 2 m) int64, n + 1 where mask n is; trust (N,)."""

    carried: torch.Tensor
    trust: torch.Tensor

    def logits(self, start: int, count: int) -> torch.Tensor:
        """(count, m, m) float32 of prompts start, start + 1, ...: 0 where nothing is known."""
        there = index_masks((self.carried - start).clamp(0, count + 1), count)
        share = F.avg_pool2d(there.float(), 2)
        return _MASK_LOGIT * self.trust[start : start + count, None, None] * (2 * share - 1)


def alike_masks(masks: torch.Tensor, on_image: torch.Tensor, max_iou: float) -> torch.Tensor:
    """(N, N) bool: which of the masks (N, h, w) bool have an IoU above `max_iou`, within `on_image` (h, w) bool."""
    flat = (masks & on_image)[:, ::2, ::2].flatten(1).float()
    both = flat @ flat.T
    area = both.diagonal()
    return both > max_iou * (area[:, None] + area - both)


def first_of_each(alike: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Non-maximum suppression of N masks, best first, of which `alike` (N, N) are alike: indices of those kept.

    A mask goes if it is like a kept better one.
    """
    kept = np.ones(len(alike), dtype=bool)
    for n, those in enumerate(alike):
        if kept[n]:
            kept[n + 1 :] &= ~those[n + 1 :]
    return np.flatnonzero(kept)


def _require_finite(finite: bool) -> None:
    if not finite:
        raise ModelError("the segmenter's network gave no finite numbers: set sam.precision to float32")
