"""Retrieval by view angle: is an instance found again in another view, however far the camera has turned?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.evaluation.overlaps import FrameOverlap
from mastsam_ros.types import InputError

ANGLE_EDGES_DEG = (0.0, 45.0, 90.0, 135.0, 180.0)
"""The usual bins of wide-baseline segment matching."""


@dataclass(frozen=True)
class AngleRecall:
    """Recall at 1 of the frame pairs whose relative rotation is in one bin.

    recall: share of the queries answered right, NaN without queries. queries: instances seen in both frames,
    summed over the pairs.
    """

    from_deg: float
    to_deg: float
    recall: float
    queries: int
    pairs: int


def rotation_angle_deg(T_world_a: npt.NDArray[np.float64], T_world_b: npt.NDArray[np.float64]) -> float:
    """Angle of the relative rotation of two poses (4, 4), degrees in [0, 180]."""
    relative = T_world_a[:3, :3].T @ T_world_b[:3, :3]
    return float(np.degrees(np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))))


def correct_at_1(
    similarity: npt.NDArray[np.floating], instances_a: npt.NDArray[np.integer], instances_b: npt.NDArray[np.integer]
) -> tuple[int, int]:
    """Queries answered right, and queries, of one ordered pair of frames.

    similarity: (A, B) of the segments of the two frames. instances_a: (A,), instances_b: (B,) true instance of
    each segment, 0 = none. A query is a segment of `a` whose instance has a segment in `b`; it is right if its
    most similar segment shows the same instance. A row without a positive similarity finds nothing.
    """
    if similarity.shape != (len(instances_a), len(instances_b)):
        raise InputError(
            f"similarity must be ({len(instances_a)}, {len(instances_b)}) for these segments, got {similarity.shape}"
        )
    queries = np.flatnonzero((instances_a > 0) & np.isin(instances_a, instances_b))
    if not len(queries):
        return 0, 0
    best = similarity[queries].argmax(axis=1)
    right = (instances_b[best] == instances_a[queries]) & (similarity[queries, best] > 0)
    return int(right.sum()), len(queries)


def recall_by_angle(
    overlaps: Iterable[FrameOverlap], poses: Sequence[npt.NDArray[np.float64]], min_pixels: int = 50
) -> list[AngleRecall]:
    """Same-instance recall at 1 of a label sequence, by the angle between the views.

    overlaps: one per frame; poses: T_world_camera (4, 4) per frame. In each frame an instance of at least
    min_pixels is stood for by the id with the highest IoU; in the other frame that id is looked up, and
    right if it stands for the same instance there. Every ordered pair of frames counts.
    """
    segments = [_instance_ids(overlap, min_pixels) for overlap in overlaps]
    if len(segments) != len(poses):
        raise InputError(f"expected a pose for each of the {len(segments)} frames, got {len(poses)}")
    bins = len(ANGLE_EDGES_DEG) - 1
    right, queries, pairs = np.zeros(bins, int), np.zeros(bins, int), np.zeros(bins, int)
    for a, (instances_a, ids_a) in enumerate(segments):
        for b, (instances_b, ids_b) in enumerate(segments):
            if a == b:
                continue
            angle = rotation_angle_deg(poses[a], poses[b])
            place = int(np.clip(np.searchsorted(ANGLE_EDGES_DEG, angle, side="right") - 1, 0, bins - 1))
            same_id = (ids_a[:, None] == ids_b[None, :]) & (ids_a > 0)[:, None]
            found, asked = correct_at_1(same_id.astype(float), instances_a, instances_b)
            right[place] += found
            queries[place] += asked
            pairs[place] += 1
    return [
        AngleRecall(
            ANGLE_EDGES_DEG[n],
            ANGLE_EDGES_DEG[n + 1],
            right[n] / queries[n] if queries[n] else float("nan"),
            int(queries[n]),
            int(pairs[n]),
        )
        for n in range(bins)
    ]


def _instance_ids(overlap: FrameOverlap, min_pixels: int) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Instances in view, and the id that stands for each (0: none). An id that stands for several is every one's."""
    large = overlap.instance_areas >= min_pixels
    instances, iou = overlap.instances[large], overlap.iou[:, large]
    if not len(overlap.ids):
        return instances, np.zeros(len(instances), np.int64)
    return instances, np.where(iou.max(axis=0) > 0, overlap.ids[iou.argmax(axis=0)], 0)
