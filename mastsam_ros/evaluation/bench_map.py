"""The 3D half measured on scenes with truth: ids, pose and map, with exact depth and with a depth camera's noise."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros.evaluation.columns import COLUMNS
from mastsam_ros.evaluation.datasets import LabelledSequence, read_depth
from mastsam_ros.evaluation.identity import tube_score
from mastsam_ros.evaluation.overlaps import FrameOverlap, frame_overlap, tube_overlap
from mastsam_ros.evaluation.protocols import FlowCache
from mastsam_ros.evaluation.runs import Run, run_sequence
from mastsam_ros.evaluation.tables import table
from mastsam_ros.geometry.cameras import back_project
from mastsam_ros.io.depth_sensors import SENSORS
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame, FrameResult, InputError

_LOG = logging.getLogger(__name__)
NEAR_M = 0.01
"""A voxel this close to the true surface lies on it."""
CLOUD_M = 0.006
"""Room between the points that stand for the true surface."""
FEWEST_READINGS = 3


@dataclasses.dataclass(frozen=True)
class MapRun:
    """The score of one sequence, and: ate_m, root mean square error of the camera's place with the first pose aligned;
    lost, frames without a pose; near, share of the map's voxels that lie on the true surface; apart, share found of the
    objects that touch another (None: none do)."""

    run: Run
    ate_m: float
    lost: int
    near: float
    apart: float | None

    def to_mapping(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.run.to_mapping(),
            "ate_m": self.ate_m,
            "frames_without_pose": self.lost,
            "map_near": self.near,
            "touching_told_apart": self.apart,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class SensedSequence(LabelledSequence):
    """A sequence whose depth a depth camera has measured. sensor: one of `depth_sensors.SENSORS`."""

    sensor: str = "noise"

    def frame(self, index: int, geometry: bool) -> Frame:
        """As `LabelledSequence.frame`, with the sensor's faults, which depend on the index alone."""
        frame = super().frame(index, geometry)
        if frame.depth is None or frame.K is None:
            return frame
        return dataclasses.replace(frame, depth=SENSORS[self.sensor](frame.depth, frame.K, index))


def sensed(sequence: LabelledSequence, sensor: str) -> SensedSequence:
    """The sequence as a depth camera measures it: sensor names one of `depth_sensors.SENSORS`."""
    values = {field.name: getattr(sequence, field.name) for field in dataclasses.fields(LabelledSequence)}
    return SensedSequence(**{**values, "name": f"{sequence.name}, {sensor}"}, sensor=sensor)


class _Watched:
    """The system, every pose that it gave, and what its labels share with the truth."""

    def __init__(self, mastsam: Mastsam, sequence: LabelledSequence) -> None:
        self.mastsam, self.sequence = mastsam, sequence
        self.poses: list[npt.NDArray[np.float64] | None] = []
        self.overlaps: list[FrameOverlap] = []

    def step(self, frame: Frame, upcoming: Frame | None = None) -> FrameResult:
        result = self.mastsam.step(frame, upcoming)
        truth = self.sequence.truth(self.sequence.frames[len(self.poses)])
        self.overlaps.append(frame_overlap(result.labels, truth))
        self.poses.append(result.T_world_camera)
        return result

    def told_apart(self) -> float | None:
        """Share found of the objects that touch another, None if none do."""
        touching = {instance for pair in self.sequence.touching for instance in pair}
        return tube_score(tube_overlap(self.overlaps), touching).found if touching else None


def measure_map(sequence: LabelledSequence, settings: Settings, flow_cache: FlowCache | None = None) -> MapRun:
    """One scene with depth and K through the embedded default. Raises InputError for a sequence without poses."""
    watched = _Watched(create_mastsam(settings), sequence)
    run = run_sequence(sequence, watched, True, ("identity", "consistency"), flow_cache)
    truth = [files.T_world_camera for files in sequence.frames]
    pairs = [(T, true) for T, true in zip(watched.poses, truth, strict=True) if T is not None and true is not None]
    lost = len(truth) - len(pairs)
    if not pairs:
        return MapRun(run, float("nan"), lost, float("nan"), watched.told_apart())
    align = pairs[0][1] @ np.linalg.inv(pairs[0][0])
    errors = [np.linalg.norm((align @ T)[:3, 3] - true[:3, 3]) for T, true in pairs]
    ate = float(np.sqrt(np.mean(np.square(errors))))
    voxels = watched.mastsam.map.map.voxels
    points = voxels.xyz[voxels.readings >= FEWEST_READINGS][::5] @ align[:3, :3].T + align[:3, 3]
    return MapRun(run, ate, lost, _near(points, true_surface(sequence)), watched.told_apart())


def true_surface(sequence: LabelledSequence) -> npt.NDArray[np.float32]:
    """(N, 3) points of everything that rests, in the truth's world. Raises InputError without depth, K or poses."""
    cloud = np.zeros((0, 3), np.float32)
    for files in sequence.frames:
        if files.depth is None or files.T_world_camera is None or sequence.K is None:
            raise InputError(f"{sequence.name}/{files.stem} has no depth, no pose or no K")
        depth = read_depth(files.depth)
        if sequence.moving:
            depth[np.isin(sequence.truth(files), list(sequence.moving))] = 0
        T = files.T_world_camera
        points = back_project(depth, sequence.K)[::2, ::2][depth[::2, ::2] > 0] @ T[:3, :3].T + T[:3, 3]
        cloud = np.concatenate([cloud, points.astype(np.float32)])
        cloud = cloud[np.unique(np.floor(cloud / CLOUD_M).astype(np.int64), axis=0, return_index=True)[1]]
    return cloud


def _near(points: npt.NDArray[np.floating], surface: npt.NDArray[np.float32]) -> float:
    from scipy.spatial import cKDTree

    if not len(points):
        return float("nan")
    return float(np.isfinite(cKDTree(surface).query(points, distance_upper_bound=NEAR_M)[0]).mean())


def map_table(runs: dict[str, MapRun]) -> str:
    """The table of the scenes."""
    shown = ("found", "tube IoU", "kept", "ids made", "ids true")
    columns = [*(column for column in COLUMNS["identity"] if column.head in shown), COLUMNS["consistency"][1]]
    rows: list[tuple[str, list[Any]]] = [
        (
            name,
            [
                *(column.value(done.run.score) for column in columns),
                done.apart,
                100 * done.ate_m,
                done.lost,
                100 * done.near,
                float(np.mean(done.run.step_ms)),
            ],
        )
        for name, done in runs.items()
    ]
    heads = ["with depth", *(c.head for c in columns), "touching apart", "ATE cm", "no pose", "map %", "ms"]
    return table(heads, rows, " ".join([*(c.format for c in columns), ".2f .2f d .1f .0f"]))
