"""The demo for the Rerun viewer: what the camera sent and what the node published, from the two bags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mastsam_ros.io.frame_bag import read_frames
from mastsam_ros.io.rerun_recording import RerunRecording
from mastsam_ros.io.result_bag import RecordedResult, read_clouds, read_maps, read_poses
from mastsam_ros.node_session import Session
from mastsam_ros.types import PoseState


def write_recording(session: Session, results: Sequence[RecordedResult], path: Path) -> None:
    """Writes every answered frame with its result, and the maps. Raises MissingPackageError without rerun-sdk."""
    by_stamp = {item.result.stamp_ns: item.result for item in results}
    poses, maps = dict(read_poses(session.result_bag)), dict(read_maps(session.result_bag))
    clouds = read_clouds(session.result_bag)
    stamp_ns, cloud = next(clouds, (None, None))
    recording = RerunRecording(path)
    for frame, _ in read_frames(session.bag):
        result = by_stamp.get(frame.stamp_ns)
        if result is None:
            continue
        # One cloud at a time is held: they come in the order of the frames.
        while stamp_ns is not None and stamp_ns < frame.stamp_ns:
            stamp_ns, cloud = next(clouds, (None, None))
        T = poses.get(frame.stamp_ns)
        result = replace(
            result,
            points=cloud if stamp_ns == frame.stamp_ns else None,
            T_world_camera=T,
            pose=PoseState.UNKNOWN if T is None else PoseState.OWN,
        )
        recording.write("", frame, result)
        if frame.stamp_ns in maps:
            recording.write_map(maps[frame.stamp_ns])
    recording.close()
