"""Pose and map on scenes with truth: python bench/map.py [SCENES] [--noise]; flow, odometry and map, no segmenter."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.device import torch_device
from mastsam_ros.evaluation.datasets import LabelledSequence, open_sequences
from mastsam_ros.geometry.cameras import back_project, working_view
from mastsam_ros.geometry.depth_noise import smoothed_depth
from mastsam_ros.geometry.instance_map import InstanceMap
from mastsam_ros.geometry.odometry import Odometry
from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame, InputError, MastsamError

NEAR_M = 0.01
CLOUD_M = 0.006


def with_noise(depth: npt.NDArray[np.float32], index: int) -> npt.NDArray[np.float32]:
    """A depth camera's: sigma 0.0012 z^2, 3 % missing, edges missing."""
    generator = np.random.default_rng(index)
    kernel = np.ones((3, 3), np.uint8)
    edge = cv2.dilate(depth, kernel) - cv2.erode(depth, kernel) > 0.05 * depth
    noisy = depth + generator.normal(size=depth.shape).astype(np.float32) * 0.0012 * depth**2
    noisy[edge | (generator.random(depth.shape) < 0.03)] = 0
    return noisy


def world_points(frame: Frame, T: npt.NDArray[np.float64], stride: int) -> npt.NDArray[np.float32]:
    """(N, 3) points of a frame with depth, in the world."""
    if frame.depth is None or frame.K is None:
        raise InputError("the sequence has no depth or no K")
    measured = frame.depth[::stride, ::stride] > 0
    points = back_project(frame.depth, frame.K)[::stride, ::stride][measured]
    return (points @ T[:3, :3].T + T[:3, 3]).astype(np.float32)


def measure(sequence: LabelledSequence, noise: bool) -> str:
    """One line: error of the pose (first pose aligned), frames without pose, error of the map, milliseconds."""
    settings = Settings()
    odometry, map, matcher = Odometry(), InstanceMap(settings.geometry), FlowMatcher(settings.flow)
    errors, spent, surface, before = [], [], [], None
    truth0 = np.linalg.inv(sequence.frames[0].T_world_camera)
    for index, files in enumerate(sequence.frames):
        full = sequence.frame(index, True)
        truth = truth0 @ files.T_world_camera
        surface.append(world_points(full, truth, 2))
        if noise:
            full = dataclasses.replace(full, depth=with_noise(full.depth, index))
        view = working_view(full, settings.working_pixels)
        matches = matcher.match(before, view) if before is not None else None
        start = time.perf_counter()
        T = odometry.track(view, matches)
        spent.append(time.perf_counter() - start)
        before = view
        if T is not None:
            errors.append(float(np.linalg.norm(T[:3, 3] - truth[:3, 3])))
            points = world_points(dataclasses.replace(view, depth=smoothed_depth(view.depth)), T, 2)
            map.observe(points, np.ones(len(points), np.int32), np.zeros((len(points), 3), np.uint8), index)
            map.bound(T[:3, 3])
    cloud = np.concatenate(surface)
    cloud = cloud[np.unique(np.floor(cloud / CLOUD_M).astype(np.int64), axis=0, return_index=True)[1]]
    sure = map.voxels.xyz[map.voxels.readings >= 3]
    near = np.isfinite(cKDTree(cloud).query(sure[::5], distance_upper_bound=NEAR_M)[0]).mean()
    return (
        f"{sequence.name:14} ATE {100 * np.sqrt(np.mean(np.square(errors))):.2f} cm,"
        f" max {100 * max(errors):.2f} cm, lost {len(sequence.frames) - len(errors)} frames,"
        f" map within 1 cm {100 * near:.1f} %, {len(map)} voxels, {1e3 * np.mean(spent):.0f} ms"
    )


def main() -> int:
    """Exit status: 0 done, 1 a MastsamError, 2 wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="?", type=Path, default=Path("../shared/data/scenes"))
    parser.add_argument("--noise", action="store_true", help="depth with the noise of a depth camera")
    arguments = parser.parse_args()
    torch_device("cpu")
    try:
        for sequence in open_sequences(arguments.scenes):
            if sequence.kind == "scene":
                print(measure(sequence, arguments.noise), flush=True)
    except MastsamError as error:
        sys.stderr.write(f"map: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
