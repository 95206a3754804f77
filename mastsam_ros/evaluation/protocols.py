"""Scores a sequence frame by frame as its labels come, so that the memory does not grow with its length."""

from __future__ import annotations

import hashlib
import tempfile
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

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
from mastsam_ros.evaluation.frame_log import FrameLog
from mastsam_ros.evaluation.identity import IdentityScore, identity_score, main_ids
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
    equal ids (consecutive frames). matched: share of the pixels that it judges: where the flow does not come home
    there is nothing to compare. H: percent, over all views of a scene; H_exact: the same by radius search.
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
    matched: float | None = None
    H: float | None = None
    H_exact: float | None = None
    retrieval: tuple[AngleRecall, ...] = ()
    notes: tuple[str, ...] = field(default=())


class FlowCache:
    """Matched pixels of consecutive frames, kept on disk where a folder is given (they do not depend on labels)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._image: tuple[Path, npt.NDArray[np.uint8]] | None = None
        self._last: tuple[tuple[Path, Path], npt.NDArray[np.int32]] | None = None

    def matched(
        self, before: Path, now: Path, images: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None
    ) -> npt.NDArray[np.int32]:
        """`matched_pixels` of two image files; images: the same, decoded, where they are at hand.

        The last pair is remembered: several systems may ask for it.
        """
        if self._last is None or self._last[0] != (before, now):
            self._last = (before, now), self._computed(before, now, images)
        return self._last[1]

    def _computed(
        self, before: Path, now: Path, images: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None
    ) -> npt.NDArray[np.int32]:
        if self._folder is None:
            return matched_pixels(*(images or self._read(before, now)))
        stamp = "|".join(f"{path.resolve()}:{path.stat().st_mtime_ns}:{path.stat().st_size}" for path in (before, now))
        entry = self._folder / f"{hashlib.sha256(stamp.encode()).hexdigest()[:24]}.npy"
        if entry.is_file():
            return np.load(entry)
        matched = matched_pixels(*(images or self._read(before, now)))
        self._folder.mkdir(parents=True, exist_ok=True)
        # Several workers may keep the same pair at the same time.
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as part:
            np.save(part, matched)
        Path(part.name).replace(entry)
        return matched

    def _read(self, before: Path, now: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Both images; most often the first was the second of the last pair."""
        first = self._image[1] if self._image is not None and self._image[0] == before else read_image(before)
        self._image = now, read_image(now)
        return first, self._image[1]


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
        self._overlaps: FrameLog[FrameOverlap] = FrameLog()
        self._pairs, self._matched = array("d"), array("d")
        self._poses: list[npt.NDArray[np.float64] | None] = []
        self._voxels = LabelConsistency()
        self._exact = ExactLabelConsistency(len(sequence.frames)) if exact else None
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
                f" the truth is {truth.shape[1]}x{truth.shape[0]}; scale labels to the truth by nearest neighbour"
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
                self._matched.append(float((matched >= 0).mean()))
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
            matched=float(np.mean(self._matched)) if self._matched else None,
            H=None if np.isnan(H) else H,
            H_exact=None if np.isnan(H_exact) else H_exact,
            retrieval=self._retrieval() if "retrieval" in wanted else (),
            notes=tuple(notes),
        )

    def _retrieval(self) -> tuple[AngleRecall, ...]:
        """Recall by view angle; nothing where there are no poses."""
        known = [(frame, pose) for frame, pose in enumerate(self._poses) if pose is not None]
        if len(known) < 2:
            return ()
        count = min(len(known), RETRIEVAL_FRAMES)
        chosen = [known[round(place)] for place in np.linspace(0, len(known) - 1, count)]
        return tuple(recall_by_angle((self._overlaps[frame] for frame, _ in chosen), [pose for _, pose in chosen]))

    def curves(self) -> Curves:
        """What there is to draw of the frames added so far."""
        return Curves(
            masks.best_mask_curve(self._overlaps), masks.best_track_curve(self._overlaps), self._pairs, self._spans()
        )

    def _spans(self) -> dict[int, list[IdSpan]]:
        spans: dict[int, list[IdSpan]] = {}
        for frame, overlap in enumerate(self._overlaps):
            for instance, id in main_ids([overlap]).items():
                of_instance = spans.setdefault(instance, [])
                if of_instance and of_instance[-1].end == frame and of_instance[-1].id == id:
                    of_instance[-1] = IdSpan(id, of_instance[-1].begin, frame + 1)
                else:
                    of_instance.append(IdSpan(id, frame, frame + 1))
        return spans


class IdSpan(NamedTuple):
    """The frames begin to end - 1 in which one id (0: none) covers most of an instance in view."""

    id: int
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class Curves:
    """A sequence frame by frame, for the page: a few bytes of each frame.

    best_mask: IoU, mean over the instances; NaN without truth. best_track: the same under the ids that are best over
    the whole sequence. consistency: of every frame with the one before, in [0, 1]; empty where H is measured instead.
    spans: instance -> which id covers most of it, and when.
    """

    best_mask: array[float]
    best_track: array[float]
    consistency: array[float]
    spans: Mapping[int, Sequence[IdSpan]]


@dataclass(frozen=True, eq=False)
class Scored:
    """One sequence of one system: where its labels lie, its score, and its curves."""

    sequence: LabelledSequence
    labels: Mapping[str, Path]
    score: SequenceScore
    curves: Curves
