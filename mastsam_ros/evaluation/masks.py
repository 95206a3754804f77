"""Best mask and best track: the paper's protocol, and its strict sister that lets the id never change."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mastsam_ros.evaluation.overlaps import FloatArray, FrameOverlap, tube_overlap


@dataclass(frozen=True)
class MaskScore:
    """How well one mask (or the mean over many) agrees with the truth; all in [0, 1]."""

    iou: float
    f1: float
    precision: float
    recall: float


def mask_score(shared: int, area: int, true_area: int) -> MaskScore:
    """IoU, F1, precision and recall of a mask (paper, section V.A) from its pixel counts.

    shared: pixels of both; area: of the predicted mask; true_area: of the true one. What has a zero
    denominator is 0.
    """
    union = area + true_area - shared
    precision = shared / area if area else 0.0
    recall = shared / true_area if true_area else 0.0
    f1 = 2 * shared / (area + true_area) if area + true_area else 0.0
    return MaskScore(shared / union if union else 0.0, f1, precision, recall)


def best_masks(overlap: FrameOverlap) -> dict[int, tuple[int, MaskScore]]:
    """Per true instance of one frame: the predicted id with the highest IoU (0: none) and its score."""
    best = {}
    iou = overlap.iou
    for column, instance in enumerate(overlap.instances):
        if len(overlap.ids) == 0 or overlap.shared[:, column].max() == 0:
            best[int(instance)] = (0, mask_score(0, 0, int(overlap.instance_areas[column])))
            continue
        row = int(iou[:, column].argmax())
        counts = int(overlap.shared[row, column]), int(overlap.areas[row]), int(overlap.instance_areas[column])
        best[int(instance)] = (int(overlap.ids[row]), mask_score(*counts))
    return best


def best_mask(overlaps: Sequence[FrameOverlap]) -> MaskScore:
    """Mean over the frames, then over the instances, of the best mask's score; the id may change every frame.

    Frames in which an instance is not there do not count for it. NaN where there is no truth at all.
    """
    sums: dict[int, FloatArray] = {}
    for overlap in overlaps:
        for instance, (_, score) in best_masks(overlap).items():
            values = np.array([1.0, score.iou, score.f1, score.precision, score.recall])
            sums[instance] = sums.get(instance, 0.0) + values
    means = [of_instance[1:] / of_instance[0] for of_instance in sums.values()]
    return MaskScore(*np.mean(means, axis=0).tolist()) if means else MaskScore(*[float("nan")] * 4)


def best_tracks(overlaps: Sequence[FrameOverlap]) -> dict[int, tuple[int, float]]:
    """Per true instance: the one id with the highest IoU in the mean over the instance's frames, and that mean.

    The id is 0 where no id ever touches the instance.
    """
    tubes = tube_overlap(overlaps)
    tracks = {}
    for column, instance in enumerate(tubes.instances):
        sums = tubes.iou_sum[:, column]
        if len(sums) == 0 or sums.max() == 0:
            tracks[int(instance)] = (0, 0.0)
            continue
        row = int(sums.argmax())
        tracks[int(instance)] = (int(tubes.ids[row]), float(sums[row] / tubes.instance_frames[column]))
    return tracks


def best_track(overlaps: Sequence[FrameOverlap]) -> float:
    """Mean IoU under one id for the whole sequence, mean over the instances. NaN without truth."""
    ious = [iou for _, iou in best_tracks(overlaps).values()]
    return float(np.mean(ious)) if ious else float("nan")


def best_mask_curve(overlaps: Iterable[FrameOverlap]) -> array[float]:
    """Per frame the best mask's IoU, mean over the instances; NaN without truth."""
    return array("d", (_mean(score.iou for _, score in best_masks(overlap).values()) for overlap in overlaps))


def best_track_curve(overlaps: Sequence[FrameOverlap]) -> array[float]:
    """Per frame the IoU of the ids that are best over the whole sequence, mean over the instances."""
    tracks = {instance: id for instance, (id, _) in best_tracks(overlaps).items()}
    curve = array("d")
    for overlap in overlaps:
        own = overlap.ids[:, None] == np.array([tracks[instance] for instance in overlap.instances.tolist()], np.int64)
        curve.append(_mean(np.where(own, overlap.iou, 0).sum(axis=0)))
    return curve


def coverage(overlaps: Sequence[FrameOverlap]) -> float:
    """Mean share of labelled pixels."""
    return _mean(overlap.coverage for overlap in overlaps)


def masks_per_frame(overlaps: Sequence[FrameOverlap]) -> float:
    """Mean number of ids in a frame."""
    return _mean(len(overlap.ids) for overlap in overlaps)


def largest_share(overlaps: Sequence[FrameOverlap]) -> float:
    """Mean share of the picture under its largest id."""
    return _mean(overlap.areas.max(initial=0) / overlap.pixels for overlap in overlaps)


def _mean(values: Iterable[float]) -> float:
    """The mean, NaN of nothing; the values need not be there all at once."""
    total, count = 0.0, 0
    for value in values:
        total, count = total + value, count + 1
    return float(total / count) if count else float("nan")
