"""Scores a sequence frame by frame as its labels come, so that the memory does not grow with its length."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.evaluation import masks
from mastsam_ros.evaluation.consistency import (
    ExactLabelConsistency,
    LabelConsistency,
    degenerate,
    matched_pixels,
    mean_percent,
    pair_consistency,
    world_points,
)
from mastsam_ros.evaluation.datasets import FrameFiles, LabelledSequence, read_depth, read_image
from mastsam_ros.evaluation.davis import DavisScore, DavisScorer
from mastsam_ros.evaluation.identity import IdentityScore, identity_score
from mastsam_ros.evaluation.overlaps import FrameOverlap, frame_overlap
from mastsam_ros.evaluation.retrieval import AngleRecall, recall_by_angle
from mastsam_ros.types import InputError

PROTOCOLS = ("best-mask", "best-track", "davis", "identity", "consistency", "retrieval")
RETRIEVAL_FRAMES = 150
"""All pairs of frames are compared: of longer sequences so many frames, evenly spread."""


@dataclass(frozen=True)
class SequenceScore:
    """What the protocols say about one sequence; None: not asked for, or not possible with what is there.

    coverage: mean share of labelled pixels; masks_per_frame: mean number of ids; degenerate: (nearly)
    everything is one id, so that consistency says nothing. consistency: percent of matched pixels with
    equal ids (consecutive frames). H: percent, over all views of a scene; H_exact: the same by radius search.
    retrieval: recall by view angle. notes: why a figure is missing.
    """

    name: str
    frames: int
    coverage: float
    masks_per_frame: float
    degenerate: bool
    best_mask: masks.MaskScore | None = None
    best_track: float | None = None
    davis: DavisScore | None = None
    identity: IdentityScore | None = None
    consistency: float | None = None
    H: float | None = None
    H_exact: float | None = None
    retrieval: tuple[AngleRecall, ...] = ()
    notes: tuple[str, ...] = field(default=())


class FlowCache:
    """Matched pixels of consecutive frames, kept on disk where a folder is given (they do not depend on labels)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def matched(
        self, before: Path, now: Path, images: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None
    ) -> npt.NDArray[np.int32]:
        """`matched_pixels` of two image files; images: the same, decoded, where they are at hand."""
        if self._folder is None:
            return matched_pixels(*(images or (read_image(before), read_image(now))))
        stamp = "|".join(f"{path.resolve()}:{path.stat().st_mtime_ns}:{path.stat().st_size}" for path in (before, now))
        entry = self._folder / f"{hashlib.sha256(stamp.encode()).hexdigest()[:24]}.npy"
        if entry.is_file():
            return np.load(entry)
        matched = matched_pixels(*(images or (read_image(before), read_image(now))))
        self._folder.mkdir(parents=True, exist_ok=True)
        part = entry.with_suffix(".part.npy")
        np.save(part, matched)
        part.replace(entry)
        return matched


class SequenceScorer:
    """Scores the labels of one sequence: `add` every frame in order, then `score`.

    exact: with consistency, measures H by radius search too, which takes time and memory.
    """

    def __init__(
        self,
        sequence: LabelledSequence,
        protocols: Collection[str] = PROTOCOLS,
        flow_cache: FlowCache | None = None,
        exact: bool = False,
    ) -> None:
        unknown = [name for name in protocols if name not in PROTOCOLS]
        if unknown:
            raise InputError(f"unknown protocol '{unknown[0]}'; known: {', '.join(PROTOCOLS)}")
        self._sequence = sequence
        self._protocols = protocols
        self._flow = flow_cache or FlowCache()
        self._overlaps: list[FrameOverlap] = []
        self._pairs: list[float] = []
        self._poses: list[npt.NDArray[np.float64] | None] = []
        self._voxels = LabelConsistency()
        self._exact = ExactLabelConsistency() if exact else None
        self._davis = DavisScorer()
        self._before: tuple[Path, npt.NDArray[np.uint16], npt.NDArray[np.uint8] | None] | None = None
        self._has_depth = all(f.depth is not None and f.T_world_camera is not None for f in sequence.frames)
        self._has_images = all(f.image is not None for f in sequence.frames)

    def add(
        self, files: FrameFiles, labels: npt.NDArray[np.uint16], image: npt.NDArray[np.uint8] | None = None
    ) -> FrameOverlap:
        """Counts one frame. labels: (H, W) uint16, 0 = unlabelled; image: (H, W, 3), where it is at hand.

        Raises InputError if labels and truth differ in size.
        """
        truth = self._sequence.truth(files)
        if labels.shape != truth.shape:
            raise InputError(
                f"{self._sequence.name}/{files.stem}: labels are {labels.shape[1]}x{labels.shape[0]},"
                f" the truth is {truth.shape[1]}x{truth.shape[0]}"
            )
        overlap = frame_overlap(labels, truth)
        self._overlaps.append(overlap)
        self._poses.append(files.T_world_camera)
        if "davis" in self._protocols:
            self._davis.add(labels, truth, overlap)
        if "consistency" in self._protocols:
            self._add_consistency(files, labels, image)
        return overlap

    def _add_consistency(
        self, files: FrameFiles, labels: npt.NDArray[np.uint16], image: npt.NDArray[np.uint8] | None
    ) -> None:
        K = self._sequence.K
        if self._has_depth and K is not None and files.depth is not None and files.T_world_camera is not None:
            depth = read_depth(files.depth)
            if depth.shape != labels.shape:
                labels = cv2.resize(labels, depth.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            points = world_points(depth, K, files.T_world_camera)
            self._voxels.add(labels, points)
            if self._exact is not None:
                self._exact.add(labels, points)
        elif self._has_images and files.image is not None:
            if self._before is not None:
                path_before, labels_before, image_before = self._before
                images = (image_before, image) if image_before is not None and image is not None else None
                matched = self._flow.matched(path_before, files.image, images)
                self._pairs.append(pair_consistency(labels_before, labels, matched))
            self._before = (files.image, labels, image)

    def score(self) -> SequenceScore:
        """The figures of what was added."""
        overlaps, wanted = self._overlaps, self._protocols
        consistency, H = mean_percent(self._pairs), 100 * self._voxels.value()
        H_exact = 100 * self._exact.value() if self._exact is not None else float("nan")
        notes = []
        if self._exact is not None and np.isnan(H_exact):
            notes.append("no exact H: it needs depth, K and poses, and the protocol consistency")
        if "consistency" in wanted and np.isnan(consistency) and np.isnan(H):
            notes.append("no consistency: neither images nor depth and poses beside the truth")
        return SequenceScore(
            name=self._sequence.name,
            frames=len(overlaps),
            coverage=masks.coverage(overlaps),
            masks_per_frame=masks.masks_per_frame(overlaps),
            degenerate=degenerate(masks.largest_share(overlaps)),
            best_mask=masks.best_mask(overlaps) if "best-mask" in wanted else None,
            best_track=masks.best_track(overlaps) if "best-track" in wanted else None,
            davis=self._davis.score() if "davis" in wanted else None,
            identity=identity_score(overlaps, self._sequence.objects) if "identity" in wanted else None,
            consistency=None if np.isnan(consistency) else consistency,
            H=None if np.isnan(H) else H,
            H_exact=None if np.isnan(H_exact) else H_exact,
            retrieval=self._retrieval() if "retrieval" in wanted else (),
            notes=tuple(notes),
        )

    def _retrieval(self) -> tuple[AngleRecall, ...]:
        """Recall by view angle; nothing where there are no poses."""
        known = [(overlap, pose) for overlap, pose in zip(self._overlaps, self._poses, strict=True) if pose is not None]
        if len(known) < 2:
            return ()
        count = min(len(known), RETRIEVAL_FRAMES)
        chosen = [known[round(place)] for place in np.linspace(0, len(known) - 1, count)]
        return tuple(recall_by_angle([overlap for overlap, _ in chosen], [pose for _, pose in chosen]))

    @property
    def pairs(self) -> list[float]:
        """Consistency of every frame with the one before, in [0, 1]; empty where H is measured instead."""
        return self._pairs

    @property
    def overlaps(self) -> list[FrameOverlap]:
        """The counts of every frame added so far."""
        return self._overlaps


@dataclass(frozen=True, eq=False)
class Scored:
    """One sequence of one system: where its labels lie, its score, and the counts of every frame.

    pairs: consistency of every frame with the one before, in [0, 1]; empty where it was not measured.
    """

    sequence: LabelledSequence
    labels: Mapping[str, Path]
    score: SequenceScore
    overlaps: Sequence[FrameOverlap]
    pairs: Sequence[float]

    def best_mask_curve(self) -> list[float]:
        """Per frame the best mask's IoU, mean over the instances; NaN without truth."""
        found = [[score.iou for _, score in masks.best_masks(overlap).values()] for overlap in self.overlaps]
        return [float(np.mean(ious)) if ious else float("nan") for ious in found]

    def best_track_curve(self) -> list[float]:
        """Per frame the IoU of the ids that are best over the whole sequence, mean over the instances."""
        tracks = {instance: id for instance, (id, _) in masks.best_tracks(self.overlaps).items()}
        curve = []
        for overlap in self.overlaps:
            iou = overlap.iou
            ious = [
                float(iou[overlap.ids == tracks[int(instance)], column].sum())
                for column, instance in enumerate(overlap.instances)
            ]
            curve.append(float(np.mean(ious)) if ious else float("nan"))
        return curve
