"""A matcher for views that lie far apart: SIFT features, a field of local affine motions, dense flow for the rest."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.settings import FlowSettings
from mastsam_ros.types import Frame, InputError, Matches

_FEATURES, _CONTRAST = 4000, 0.02
_RATIO = 0.85
"""Distance of the best match as a share of that of the second best, at most (Lowe, 2004)."""
_EPIPOLAR_PX = 1.5
_FEWEST = 16
"""So many features must agree on one epipolar geometry for two views to show the same place."""
_CELL = 8
"""Pixels between the nodes of the motion field."""
_NEIGHBOURS = 8
"""Features that each node's affine motion is fitted to."""
_RIDGE = 0.02
"""Weight that draws a node's affine part to that of the whole picture, where features are few or in one line."""
_OUTLIER_PX = 4.0
_REACH = 0.25
"""Distance to the third nearest feature, as a share of the picture's long side, beyond which nothing is known."""
_GRID = 12
"""Cells along the short side of the picture that matched features are counted in."""


@dataclass(frozen=True, eq=False)
class _Described:
    """A view's features: xy (L, 2) float32 pixels, descriptors (L, 128) float32 of length 1 (square-rooted SIFT)."""

    image: npt.NDArray[np.uint8]
    xy: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.float32]


class FeatureMatcher:
    """Dense matches between two views of one rigid scene, however they follow each other.

    What features agree on carries the previous view into the current one, and the flow of the embedded default finds
    what is left of the motion, forward and backward; where flow from where things were is surer of itself, it holds.
    Slower than flow alone, and blind where nothing has texture. Views of different places give no matches.
    """

    def __init__(self, flow: FlowSettings | None = None) -> None:
        self._sift = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=_CONTRAST)
        self._flow = FlowMatcher(flow)
        self._kept: OrderedDict[int, _Described] = OrderedDict()
        self.kept_views = 2
        """Views whose features are kept, 2 MB each: those of a pair; more where each view meets many others."""

    def match(self, previous: Frame, current: Frame) -> Matches:
        """Matches at every pixel of `current` that is seen in both views: xy1 are its integer pixels.

        Raises InputError if the sizes differ.
        """
        if previous.image.shape != current.image.shape:
            raise InputError(
                f"matching needs two views of one size, got {previous.width}x{previous.height}"
                f" and {current.width}x{current.height}"
            )
        xy0, xy1 = self._agreeing(previous, current)
        if len(xy0) < _FEWEST:
            nowhere = torch.zeros(0, 2)
            return Matches(nowhere, nowhere, torch.zeros(0))
        led_to, known = _motion_field(xy0, xy1, current.width, current.height)
        carried = Frame(_read_at(previous.image, led_to).astype(np.uint8))
        before, sure = self._followed(carried, current)
        before, sure = _read_at(led_to, before), np.where(known, sure, 0)
        stayed, surer = self._followed(previous, current)
        before = np.where((surer > 0)[..., None], stayed, before)
        sure = np.maximum(sure, surer)
        limit = np.array([previous.width - 1, previous.height - 1])
        y, x = np.nonzero((sure > 0) & ((before >= 0) & (before <= limit)).all(axis=-1))
        here = np.stack([x, y], axis=1).astype(np.float32)
        return Matches(torch.from_numpy(before[y, x]), torch.from_numpy(here), torch.from_numpy(sure[y, x]))

    def _followed(self, previous: Frame, current: Frame) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Where flow says that each pixel of `current` was, (H, W, 2), and how sure it is, (H, W), 0 for not seen."""
        matches = self._flow.match(previous, current)
        before = np.zeros((current.height, current.width, 2), np.float32)
        sure = np.zeros((current.height, current.width), np.float32)
        x, y = matches.xy1.numpy().astype(np.int64).T
        before[y, x], sure[y, x] = matches.xy0.numpy(), matches.confidence.numpy()
        return before, sure

    def connection(self, first: Frame, second: Frame) -> float:
        """How well two views can be matched: cells of the second picture that hold features of both; 0 for not."""
        _, xy = self._agreeing(first, second)
        if len(xy) < _FEWEST:
            return 0.0
        size = min(second.width, second.height) / _GRID
        return float(len(np.unique((xy // size).astype(np.int64), axis=0)))

    def _agreeing(self, first: Frame, second: Frame) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Matched features (N, 2) of both views that one epipolar geometry explains; none where too few do."""
        a, b = self._described(first), self._described(second)
        none = np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
        if min(len(a.xy), len(b.xy)) < _FEWEST:
            return none
        i, j = _mutual(a.descriptors, b.descriptors)
        if len(i) < _FEWEST:
            return none
        xy0, xy1 = a.xy[i], b.xy[j]
        _, mask = cv2.findFundamentalMat(xy0, xy1, cv2.USAC_MAGSAC, _EPIPOLAR_PX, 0.9999, 5000)
        if mask is None:
            return none
        kept = mask.ravel() > 0
        if kept.sum() < _FEWEST:
            return none
        return xy0[kept], xy1[kept]

    def _described(self, frame: Frame) -> _Described:
        """The view's features; those of the last views are kept."""
        kept = self._kept.get(id(frame.image))
        if kept is not None and kept.image is frame.image:
            self._kept.move_to_end(id(frame.image))
            return kept
        grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        points, descriptors = self._sift.detectAndCompute(grey, None)
        if descriptors is None:
            descriptors = np.zeros((0, 128), np.float32)
        xy = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
        total = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
        kept = _Described(frame.image, xy, np.sqrt(descriptors / total).astype(np.float32))
        self._kept[id(frame.image)] = kept
        while len(self._kept) > self.kept_views:
            self._kept.popitem(last=False)
        return kept


def _read_at(values: npt.NDArray[Any], xy: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """The values (H, W, C) at places (H, W, 2), pixels; those at the border where a place is outside."""
    return np.asarray(cv2.remap(values, xy[..., 0], xy[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _mutual(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Features that are each other's nearest, and clearly nearer than the second nearest."""
    likeness = a @ b.T
    best = likeness.argmax(axis=1)
    back = likeness.argmax(axis=0)
    rows = np.arange(len(a))
    top = likeness[rows, best]
    likeness[rows, best] = -1
    second = likeness.max(axis=1)
    # Unit vectors: the squared distance is 2 - 2 x likeness.
    clear = 1 - top < _RATIO**2 * (1 - second)
    i = np.nonzero((back[best] == rows) & clear)[0]
    return i, best[i]


def _motion_field(
    xy0: npt.NDArray[np.float32], xy1: npt.NDArray[np.float32], width: int, height: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Where each pixel of the current view was, (H, W, 2) float32, and where that is known, (H, W).

    At each node of a grid an affine motion, fitted to the matches (N, 2) nearest to it; one that does not fit the
    others counts little (iteratively reweighted, Geman and McClure).
    """
    columns, rows = (np.arange(0, length + _CELL - 1, _CELL, dtype=np.float64) for length in (width, height))
    nodes = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    source, target = xy1.astype(np.float64), xy0.astype(np.float64)
    whole = _affine(source[None], target[None], np.ones((1, len(source))), source.mean(axis=0)[None], np.eye(2)[None])
    squared = np.square(nodes[:, None] - source[None]).sum(axis=-1)
    count = min(_NEIGHBOURS, len(source))
    near = np.argpartition(squared, count - 1, axis=1)[:, :count]
    distance = np.sqrt(np.sort(np.take_along_axis(squared, near, axis=1), axis=1))
    spread = np.maximum(distance[:, -1:], 1.0)
    closeness = np.exp(-np.take_along_axis(squared, near, axis=1) / spread**2)
    linear = np.broadcast_to(whole[:, :, :2], (len(nodes), 2, 2))
    motion = _affine(source[near], target[near], closeness, nodes, linear)
    for _ in range(4):
        offset = np.einsum("nij,nkj->nki", motion[:, :, :2], source[near] - nodes[:, None]) + motion[:, None, :, 2]
        error = np.square(offset - target[near]).sum(axis=-1)
        weight = closeness / np.square(1 + error / _OUTLIER_PX**2)
        motion = _affine(source[near], target[near], weight, nodes, linear)
    # Bilinear between the nodes, which lie at the multiples of _CELL.
    field = motion[:, :, 2].reshape(len(rows), len(columns), 2).astype(np.float32)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) / _CELL, np.arange(height, dtype=np.float32) / _CELL)
    led_to = _read_at(field, np.stack([x, y], axis=-1))
    sure = (distance[:, min(2, count - 1)] <= _REACH * max(width, height)).reshape(len(rows), len(columns))
    known = np.asarray(cv2.remap(sure.astype(np.float32), x, y, cv2.INTER_LINEAR)) > 0.5
    return led_to, known


def _affine(
    source: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
    origin: npt.NDArray[np.float64],
    linear: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """(M, 2, 3): target = A (source - origin) + t, least squares with weights (M, K); A is drawn to `linear`.

    source, target: (M, K, 2) or (1, K, 2). origin: (M, 2). linear: (M, 2, 2).
    """
    moved = source - origin[:, None]
    scale = np.sqrt((weight[..., None] * moved**2).sum(axis=(1, 2)) / np.maximum(weight.sum(axis=1), 1e-9))
    scale = np.maximum(scale, 1.0)[:, None, None]
    design = np.concatenate([moved / scale, np.ones((*moved.shape[:2], 1))], axis=-1)
    weighted = design * weight[..., None]
    total = weight.sum(axis=1)[:, None, None]
    prior = np.diag([1.0, 1.0, 0.0])[None] * (_RIDGE * total)
    left = weighted.transpose(0, 2, 1) @ design + prior + 1e-9 * np.eye(3)
    expected = np.concatenate([linear.transpose(0, 2, 1) * scale, np.zeros((len(linear), 1, 2))], axis=1)
    right = weighted.transpose(0, 2, 1) @ np.broadcast_to(target, (*moved.shape[:2], 2)) + prior @ expected
    solved = np.linalg.solve(left, right).transpose(0, 2, 1)
    return np.concatenate([solved[:, :, :2] / scale, solved[:, :, 2:]], axis=-1)
