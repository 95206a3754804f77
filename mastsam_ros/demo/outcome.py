"""What came of a session: figures, scored against the truth where there is any."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros import run
from mastsam_ros.demo.session import Session
from mastsam_ros.evaluation import masks
from mastsam_ros.evaluation.consistency import LabelConsistency, world_points
from mastsam_ros.evaluation.identity import identity_score, tube_score
from mastsam_ros.evaluation.overlaps import FrameOverlap, frame_overlap, tube_overlap
from mastsam_ros.io.frame_bag import read_frames
from mastsam_ros.io.result_bag import RecordedResult, read_diagnostics, read_results
from mastsam_ros.types import MastsamError


@dataclass
class Outcome:
    """The figures of one run, and what the page needs beside them."""

    session: Session
    results: list[RecordedResult]
    latency_ms: npt.NDArray[np.float64]
    diagnostics: dict[str, str]
    scores: dict[str, float] = field(default_factory=dict)
    objects: list[dict[str, Any]] = field(default_factory=list)
    """Per true object: name, id, tube_iou."""
    object_ids: dict[str, list[int]] = field(default_factory=dict)
    """Per true object: in every frame the id that covers it, 0 where none does, -1 where it is not in view."""

    @property
    def sent(self) -> int:
        """Images that went to the node."""
        return len(self.session.sent)

    @property
    def stamps(self) -> list[int]:
        """Of the answered frames, nanoseconds."""
        return [item.result.stamp_ns for item in self.results]

    def figures(self) -> dict[str, float | int | None]:
        """Everything that is a number, by name."""
        ids = {int(number) for item in self.results for number in np.unique(item.result.labels) if number}
        answered, sent = len(self.results), len(self.session.sent)
        seconds = (max(self.session.sent.values()) - min(self.session.sent.values())) / 1e9
        values: dict[str, float | int | None] = {
            "frames_sent": sent,
            "frames_answered": answered,
            "drop_share": 1 - answered / max(sent, 1),
            "frames_per_second_sent": (sent - 1) / max(seconds, 1e-9),
            "latency_ms_p50": float(np.percentile(self.latency_ms, 50)) if len(self.latency_ms) else None,
            "latency_ms_p95": float(np.percentile(self.latency_ms, 95)) if len(self.latency_ms) else None,
            "ids": len(ids),
            "masks_per_frame": _mean([len(np.unique(i.result.labels[i.result.labels > 0])) for i in self.results]),
            "coverage": _mean([float((i.result.labels > 0).mean()) for i in self.results]),
            **self.scores,
        }
        return {name: None if value is None or not np.isfinite(value) else value for name, value in values.items()}

    def table(self) -> list[tuple[str, str, str]]:
        """Name, value as text, and what it means, of the figures that people want."""
        figures = self.figures()
        rows = []
        for name, (label, form, meaning) in _MEANINGS.items():
            value = figures.get(name)
            if value is not None:
                rows.append((label, form(value), meaning))
        for key, label in (("memory MB", "memory of the node"), ("lost", "images lost on the way")):
            if key in self.diagnostics:
                unit = " MB" if "MB" in key else ""
                rows.append((label, self.diagnostics[key] + unit, "the node's own count, from /diagnostics"))
        return rows


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms"


def _two(value: float) -> str:
    return f"{value:.3f}"


def _count(value: float) -> str:
    return f"{value:.0f}"


_MEANINGS = {
    "objects_found": ("objects found", _percent, "objects on the table with tube IoU above 0.5 under one id"),
    "tube_iou": ("mean tube IoU", _two, "pixels of one id over all frames against one object, objects' mean"),
    "ids_kept": ("ids kept", _percent, "objects with the same id in the first and the last 15 % of the frames"),
    "H": ("consistency H", _percent, "pixels at the same place in space that carry the same id, over all views"),
    "best_mask_iou": ("best mask IoU", _two, "per frame and true instance, the mask that fits best"),
    "best_track_iou": ("best track IoU", _two, "the same with one id for the whole sequence"),
    "scene_pq": ("scene PQ", _two, "panoptic quality of whole tubes, scenery included"),
    "id_switches": ("id switches", _count, "times that the id of a true instance changes"),
    "ids": ("ids in all", _count, "ids that were ever shown"),
    "masks_per_frame": ("masks per frame", lambda v: f"{v:.1f}", "mean number of ids in one frame"),
    "coverage": ("coverage", _percent, "labelled pixels"),
    "frames_sent": ("images sent", _count, "published on the camera topic"),
    "frames_answered": ("frames answered", _count, "label images that came back"),
    "drop_share": ("dropped", _percent, "images that were skipped because a newer one had come"),
    "frames_per_second_sent": ("images per second", lambda v: f"{v:.1f}", "pace at which they were sent"),
    "latency_ms_p50": ("latency p50", _milliseconds, "from the image's publication to the arrival of its labels"),
    "latency_ms_p95": ("latency p95", _milliseconds, "the same, 95th percentile"),
}


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")


def score(session: Session, scene: Mapping[str, Any] | None) -> Outcome:
    """Figures of what was recorded; with `scene` (the sample's description) against the truth in the bag.

    Raises MastsamError if the node answered nothing.
    """
    results = read_results(session.result_bag)
    if not results:
        raise MastsamError(f"the node answered no image: see {session.result_bag.parent / 'logs' / 'node.log'}")
    latency = [(item.arrived_ns - session.sent[item.result.stamp_ns]) / 1e6 for item in results]
    outcome = Outcome(session, results, np.array(latency), read_diagnostics(session.result_bag))
    if scene is None:
        return outcome
    by_stamp = {item.result.stamp_ns: item.result.labels for item in results}
    overlaps: list[FrameOverlap] = []
    voxels = LabelConsistency()
    for frame, instance in read_frames(session.bag):
        labels = by_stamp.get(frame.stamp_ns)
        if labels is None or instance is None:
            continue
        overlaps.append(frame_overlap(labels, instance))
        if frame.depth is not None and frame.K is not None and frame.T_world_camera is not None:
            voxels.add(labels, world_points(frame.depth, frame.K, frame.T_world_camera))
    objects = [int(number) for number in scene["objects"]]
    names = {int(number): name for number, name in scene["instances"].items()}
    identity = identity_score(overlaps, objects)
    outcome.scores = {
        "objects_found": identity.found,
        "tube_iou": identity.tube_iou,
        "ids_kept": identity.kept,
        "H": voxels.value(),
        "best_mask_iou": masks.best_mask(overlaps).iou,
        "best_track_iou": masks.best_track(overlaps),
        "scene_pq": identity.scene_pq,
        "id_switches": identity.switches,
    }
    tubes = tube_score(tube_overlap(overlaps), objects)
    best = [masks.best_masks(overlap) for overlap in overlaps]
    for number in sorted(tubes.iou, key=lambda n: -tubes.iou[n]):
        outcome.objects.append({"name": names[number], "id": tubes.ids[number], "tube_iou": tubes.iou[number]})
        outcome.object_ids[names[number]] = [frame[number][0] if number in frame else -1 for frame in best]
    return outcome


def versions() -> dict[str, str]:
    """Of the package and of what its results depend on, ROS among it."""
    with suppress(PackageNotFoundError):  # an installed distribution need not tell
        return {**run.versions(), "rclpy": version("rclpy")}
    return run.versions()
