"""How many pixels every predicted id shares with every true instance, frame by frame.

All identity and mask metrics are computed from these small tables, so images need not be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.types import InputError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FrameOverlap:
    """The pixel counts of one frame; id 0 (unlabelled) is not in the tables.

    ids: (P,) predicted ids, ascending; areas: (P,) their pixels. instances: (T,) true instances,
    ascending; instance_areas: (T,). shared: (P, T) pixels of both. pixels: size of the image.
    """

    ids: IntArray
    areas: IntArray
    instances: IntArray
    instance_areas: IntArray
    shared: IntArray
    pixels: int

    @property
    def iou(self) -> FloatArray:
        """(P, T) intersection over union of every pair."""
        union = self.areas[:, None] + self.instance_areas[None, :] - self.shared
        return self.shared / np.maximum(union, 1)

    @property
    def coverage(self) -> float:
        """Share of the pixels that carry an id."""
        return float(self.areas.sum() / self.pixels)


def frame_overlap(prediction: npt.NDArray[np.integer], truth: npt.NDArray[np.integer]) -> FrameOverlap:
    """Counts of one frame. prediction, truth: (H, W) non-negative integer label images, 0 = none.

    Raises InputError if the sizes differ.
    """
    if prediction.shape != truth.shape or prediction.ndim != 2:
        raise InputError(f"prediction and truth must be images of one size, got {prediction.shape} and {truth.shape}")
    predicted_counts = np.bincount(prediction.ravel())
    true_counts = np.bincount(truth.ravel())
    ids, instances = np.flatnonzero(predicted_counts), np.flatnonzero(true_counts)
    row, column = np.zeros(len(predicted_counts), np.int32), np.zeros(len(true_counts), np.int32)
    row[ids], column[instances] = np.arange(len(ids)), np.arange(len(instances))
    cell = row[prediction.ravel()] * np.int32(len(instances)) + column[truth.ravel()]
    shared = np.bincount(cell, minlength=len(ids) * len(instances)).reshape(len(ids), len(instances))
    labelled, true = ids > 0, instances > 0
    return FrameOverlap(
        ids[labelled],
        predicted_counts[ids[labelled]],
        instances[true],
        true_counts[instances[true]],
        shared[labelled][:, true],
        prediction.size,
    )


@dataclass(frozen=True, eq=False)
class TubeOverlap:
    """The same counts summed over a sequence: a tube is one id (or instance) over all frames.

    frames: number of frames; id_frames: (P,) in how many of them the id is seen; instance_frames: (T,).
    iou_sum: (P, T) sum over the frames of the frame-wise IoU.
    """

    ids: IntArray
    areas: IntArray
    instances: IntArray
    instance_areas: IntArray
    shared: IntArray
    iou_sum: FloatArray
    id_frames: IntArray
    instance_frames: IntArray
    frames: int

    @property
    def iou(self) -> FloatArray:
        """(P, T) intersection over union of every pair of tubes."""
        union = self.areas[:, None] + self.instance_areas[None, :] - self.shared
        return self.shared / np.maximum(union, 1)


def tube_overlap(overlaps: Sequence[FrameOverlap]) -> TubeOverlap:
    """Sums the frames' tables, one at a time. An empty sequence gives empty tables."""
    ids, instances = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for overlap in overlaps:
        ids, instances = np.union1d(ids, overlap.ids), np.union1d(instances, overlap.instances)
    areas, id_frames = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    instance_areas, instance_frames = np.zeros(len(instances), np.int64), np.zeros(len(instances), np.int64)
    shared, iou_sum = np.zeros((len(ids), len(instances)), np.int64), np.zeros((len(ids), len(instances)))
    for overlap in overlaps:
        rows, columns = np.searchsorted(ids, overlap.ids), np.searchsorted(instances, overlap.instances)
        areas[rows] += overlap.areas
        id_frames[rows] += 1
        instance_areas[columns] += overlap.instance_areas
        instance_frames[columns] += 1
        shared[np.ix_(rows, columns)] += overlap.shared
        iou_sum[np.ix_(rows, columns)] += overlap.iou
    return TubeOverlap(
        ids, areas, instances, instance_areas, shared, iou_sum, id_frames, instance_frames, len(overlaps)
    )
