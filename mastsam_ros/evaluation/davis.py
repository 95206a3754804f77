"""DAVIS measures (Perazzi et al., CVPR 2016): region similarity J, boundary accuracy F; mean, recall and decay."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from mastsam_ros.evaluation.frame_log import FrameLog
from mastsam_ros.evaluation.overlaps import FrameOverlap
from mastsam_ros.types import InputError

BOUNDARY_TOLERANCE = 0.008
"""Share of the image diagonal within which two boundaries agree."""


def region_similarity(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """J: intersection over union of two (H, W) masks; 1 where both are empty."""
    _check_size(prediction, truth)
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


def boundary_accuracy(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """F: F1 of the boundary pixels of two (H, W) masks that lie near the other's boundary; 1 where both are empty.

    Near: within ceil(0.008 * image diagonal) pixels.
    """
    _check_size(prediction, truth)
    mine, true = mask_boundary(prediction), mask_boundary(truth)
    radius = boundary_radius(truth.shape)
    if not mine.any() or not true.any():
        return _boundary_f(0, int(mine.sum()), 0, int(true.sum()))
    rows, columns = _padded_box(mine | true, 1)  # nothing outside the box of both takes part
    mine, true = mine[rows, columns], true[rows, columns]
    good_mine = int(np.count_nonzero(mine & near(true, radius)))
    good_true = int(np.count_nonzero(true & near(mine, radius)))
    return _boundary_f(good_mine, int(np.count_nonzero(mine)), good_true, int(np.count_nonzero(true)))


def boundary_radius(shape: tuple[int, ...]) -> int:
    """Tolerance in pixels for an image of (H, W)."""
    return math.ceil(BOUNDARY_TOLERANCE * math.hypot(*shape[:2]))


def mask_boundary(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(H, W) bool: pixels that differ from the one to the right, below, or below right; no image border."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def near(boundary: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """(H, W) bool: pixels at most `radius` pixels from a True one (a disk's dilation)."""
    distance = cv2.distanceTransform((~boundary).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance < radius + 1e-3) & bool(boundary.any())


def _boundary_f(good_mine: int, mine: int, good_true: int, true: int) -> float:
    if mine == 0 and true == 0:
        return 1.0
    if mine == 0 or true == 0:
        return 0.0
    precision, recall = good_mine / mine, good_true / true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _check_size(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> None:
    if prediction.shape != truth.shape or prediction.ndim != 2:
        raise InputError(f"masks must be (H, W) of one size, got {prediction.shape} and {truth.shape}")


def _padded_box(mask: npt.NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return (
        slice(max(0, y - margin), y + height + margin),
        slice(max(0, x - margin), x + width + margin),
    )


@dataclass(frozen=True)
class Statistics:
    """A measure over the frames: mean, recall (share of frames above 0.5), decay (first minus last quarter)."""

    mean: float
    recall: float
    decay: float


def statistics(per_frame: npt.NDArray[np.floating] | list[float]) -> Statistics:
    """DAVIS statistics of a measure per frame; NaN for no frames."""
    values = np.asarray(per_frame, dtype=np.float64)
    if not len(values):
        return Statistics(*[float("nan")] * 3)
    edges = np.rint(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    quarters = [values[edges[n] : edges[n + 1] + 1] for n in range(4)]
    return Statistics(
        float(values.mean()), float((values > 0.5).mean()), float(quarters[0].mean() - quarters[3].mean())
    )


@dataclass(frozen=True)
class DavisScore:
    """J and F over the frames, mean over the objects. ids: object -> the id it was matched to, 0: none."""

    j: Statistics
    f: Statistics
    ids: dict[int, int]

    @property
    def j_and_f(self) -> float:
        """The mean of J's and F's means."""
        return (self.j.mean + self.f.mean) / 2


class DavisScorer:
    """DAVIS 2017 unsupervised (Caelles et al. 2019): ids matched to objects so that the sum of J&F is largest.

    All frames count. J and F of the pairs of id and object that come near each other wait in a file until it is known
    which pairs are matched.
    """

    def __init__(self) -> None:
        self._frames: FrameLog[_FrameMeasures] = FrameLog()
        self._sums: dict[tuple[int, int], float] = defaultdict(float)  # (instance, id) -> sum of J and F
        self._seen: dict[tuple[int, int], int] = defaultdict(int)  # (instance, id) -> frames; 0: whatever is there

    def add(self, labels: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], overlap: FrameOverlap) -> None:
        """Counts one frame. labels, truth: (H, W); overlap: their `frame_overlap`."""
        instances, ids, iou = overlap.instances.tolist(), overlap.ids.tolist(), overlap.iou
        boundary = boundary_accuracies(labels, truth)
        measures = {}
        for column, instance in enumerate(instances):
            for row, id in enumerate(ids):
                j, f = float(iou[row, column]), boundary.get((instance, id), 0.0)
                if j > 0 or f > 0:
                    measures[instance, id] = (j, f)
                    self._sums[instance, id] += j + f
        for pair in product((0, *instances), (0, *ids)):
            self._seen[pair] += 1
        self._frames.append(_FrameMeasures(instances, ids, measures))

    def score(self) -> DavisScore:
        """J and F of the objects under the best one-to-one matching."""
        instances = sorted({instance for instance, _ in self._seen} - {0})
        ids = sorted({id for _, id in self._seen} - {0})
        quality = np.zeros((len(instances), len(ids)))
        for row, instance in enumerate(instances):
            for column, id in enumerate(ids):
                quality[row, column] = self._mean_quality(instance, id)
        matched = dict.fromkeys(instances, 0)
        for row, column in zip(*linear_sum_assignment(quality, maximize=True), strict=True):
            matched[instances[row]] = ids[column]
        if not matched:
            nothing = Statistics(*[float("nan")] * 3)
            return DavisScore(nothing, nothing, {})
        measured = np.zeros((len(matched), len(self._frames), 2))  # 1 where neither object nor id is there
        for frame, measures in enumerate(self._frames):
            for row, (instance, id) in enumerate(matched.items()):
                absent = instance not in measures.instances and id not in measures.ids
                measured[row, frame] = 1.0 if absent else measures.pairs.get((instance, id), 0.0)
        return DavisScore(
            _mean_statistics([statistics(values[:, 0]) for values in measured]),
            _mean_statistics([statistics(values[:, 1]) for values in measured]),
            matched,
        )

    def _mean_quality(self, instance: int, id: int) -> float:
        frames = len(self._frames)
        seen = self._seen[instance, 0] + self._seen[0, id] - self._seen.get((instance, id), 0)
        return (frames - seen + self._sums.get((instance, id), 0.0) / 2) / frames


@dataclass(frozen=True)
class _FrameMeasures:
    """One frame's instances and ids, and J and F of the pairs of them that are not 0 both."""

    instances: list[int]
    ids: list[int]
    pairs: dict[tuple[int, int], tuple[float, float]]


def _mean_statistics(statistics_of: list[Statistics]) -> Statistics:
    table = np.array([(s.mean, s.recall, s.decay) for s in statistics_of])
    return Statistics(*(float(value) for value in table.mean(axis=0)))


def boundary_accuracies(
    labels: npt.NDArray[np.integer], truth: npt.NDArray[np.integer]
) -> dict[tuple[int, int], float]:
    """F of every pair (instance, id) of two label images, in one go; pairs that are not listed have F = 0.

    labels, truth: (H, W), 0 = none. Looks round each true boundary pixel for those of the labels, so that the time
    goes with the length of the true boundaries, however many ids there are.
    """
    mine, true = LabelBoundaries(labels), LabelBoundaries(truth)
    radius, accuracies = boundary_radius(truth.shape), {}
    width = truth.shape[1] + 2 * radius  # a margin, so that no disk leaves the image
    pixel = (mine.y + radius) * width + mine.x + radius
    # A pixel bounds up to four ids: so many layers of (pixels,) places in mine, -1 where there is none.
    layers = np.full((4, (truth.shape[0] + 2 * radius) * width), -1, np.int32)
    layers[mine.layer, pixel] = np.arange(len(pixel))
    occupied = np.zeros(layers.shape[1], bool)
    occupied[pixel] = True
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (dy * width + dx)[dy * dy + dx * dx <= radius * radius]
    for instance in true.ids:
        y, x = true.of(instance)
        centre = (y + radius) * width + x + radius
        close_mine, close_true = np.zeros(len(pixel), bool), np.zeros(len(mine.ids), np.int64)
        for start in range(0, len(centre), 2048):
            around = centre[start : start + 2048, None] + disk
            row, column = np.nonzero(occupied[around])
            met = around[row, column]
            touched = np.zeros((len(around), len(mine.ids)), bool)
            for layer in layers:
                place = layer[met]
                known = place >= 0
                close_mine[place[known]] = True
                touched[row[known], mine.index[place[known]]] = True
            close_true += touched.sum(axis=0)
        good_mine = np.bincount(mine.index[close_mine], minlength=len(mine.ids))
        for index in np.flatnonzero(close_true):
            counts = int(good_mine[index]), int(mine.counts[index]), int(close_true[index]), len(y)
            accuracies[instance, mine.ids[index]] = _boundary_f(*counts)
    if not len(mine.ids) and not len(true.ids) and labels.flat[0] > 0 and truth.flat[0] > 0:
        # Both fill the picture: neither has a boundary, which is agreement.
        accuracies[int(truth.flat[0]), int(labels.flat[0])] = 1.0
    return accuracies


class LabelBoundaries:
    """The boundary (`mask_boundary`) of every id of a label image, pixel by pixel, in the order of the ids.

    ids: the ids above 0 that have a boundary; counts: (ids,) their boundary pixels. y, x, index: (N,) each boundary
    pixel and the place of its id in ids. A pixel between ids bounds each of them: layer (N,) numbers them, 0 to 3.
    """

    def __init__(self, labels: npt.NDArray[np.integer]) -> None:
        padded = np.pad(labels, ((0, 1), (0, 1)), mode="edge")
        beside, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
        y, x = np.nonzero((labels != beside) | (labels != below) | (labels != across))
        around = np.stack([part[y, x] for part in (labels, beside, below, across)]).astype(np.int64)
        around.sort(axis=0)  # so that each id is met once
        layer, place = np.nonzero((np.diff(around, axis=0, prepend=0) != 0) & (around > 0))
        ids = around[layer, place]
        order = np.argsort(ids, kind="stable")
        self.y, self.x, self.layer = y[place][order], x[place][order], layer[order]
        known, self.index, self.counts = np.unique(ids[order], return_inverse=True, return_counts=True)
        self.ids: list[int] = known.tolist()

    def of(self, id: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """y and x of the boundary pixels of one id."""
        begin, end = np.searchsorted(self.index, [self.ids.index(id), self.ids.index(id) + 1])
        return self.y[begin:end], self.x[begin:end]
