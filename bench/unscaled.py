"""Pictures and intrinsics alone, scenes: python bench/unscaled.py DATA; ids, pose and depth up to scale."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.device import torch_device
from mastsam_ros.evaluation.columns import COLUMNS
from mastsam_ros.evaluation.datasets import LabelledSequence, open_sequences
from mastsam_ros.evaluation.runs import run_sequence
from mastsam_ros.evaluation.tables import table
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame, FrameResult, PoseState


class Watched:
    """The system, every pose up to scale that it gave, and how far off the depth of its clouds is."""

    def __init__(self, mastsam: Mastsam) -> None:
        self.mastsam = mastsam
        self.poses: list[np.ndarray | None] = []
        self.depth_errors: list[np.ndarray] = []

    def step(self, frame: Frame, upcoming: Frame | None = None) -> FrameResult:
        result = self.mastsam.step(frame, upcoming)
        self.poses.append(result.T_world_camera if result.pose is PoseState.UP_TO_SCALE else None)
        if result.points is not None and frame.K is not None and frame.depth is not None:
            self.depth_errors.append(depth_error(result.points.xyz, frame.K, frame.depth))
        return result


def depth_error(xyz: np.ndarray, K: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Share (N,) by which the depth of points (N, 3) is off that of an image (H, W), after one factor for all."""
    column, row = np.rint(xyz[:, :2] / xyz[:, 2:] @ K[:2, :2].T + K[:2, 2]).astype(int).T
    true = depth[row.clip(0, depth.shape[0] - 1), column.clip(0, depth.shape[1] - 1)]
    ratio = xyz[true > 0, 2] / true[true > 0]
    return np.abs(ratio / np.median(ratio) - 1) if len(ratio) else ratio


def ate_m(found: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square distance of places (N, 3) from the true ones after the best similarity (Umeyama 1991)."""
    a, b = found - found.mean(axis=0), truth - truth.mean(axis=0)
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (s * signs).sum() / (a**2).sum()
    return float(np.sqrt((np.linalg.norm(scale * a @ (u * signs @ vt).T - b, axis=1) ** 2).mean()))


SHOWN = ("found", "tube IoU", "kept", "ids made", "ids true")
IDENTITY = [*(column for column in COLUMNS["identity"] if column.head in SHOWN), COLUMNS["consistency"][1]]


def measure(sequence: LabelledSequence, settings: Settings) -> list[Any]:
    """The row of one scene."""
    watched = Watched(create_mastsam(settings))
    run = run_sequence(sequence, watched, True, ("identity", "consistency"))
    pairs = [(T, f.T_world_camera) for T, f in zip(watched.poses, sequence.frames, strict=True) if T is not None]
    places = np.array([[T[:3, 3], true[:3, 3]] for T, true in pairs if true is not None])
    error = 100 * ate_m(places[:, 0], places[:, 1]) if len(places) > 2 else float("nan")
    depth = [
        100 * float(np.mean([np.percentile(e, share) for e in watched.depth_errors if len(e)])) for share in (50, 80)
    ]
    return [*(column.value(run.score) for column in IDENTITY), len(pairs), len(sequence.frames), error, *depth]


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with scenes, or one scene")
    arguments = parser.parse_args()
    torch_device("cpu")
    data = arguments.data / "scenes" if (arguments.data / "scenes").is_dir() else arguments.data
    settings = Settings.from_mapping({"frame.use_depth": False})
    rows = [(sequence.name, measure(sequence, settings)) for sequence in open_sequences(data)]
    heads = ["RGB and K", *(column.head for column in IDENTITY), "posed", "frames", "ATE cm", "depth off %", "80th"]
    sys.stdout.write(table(heads, rows, " ".join([*(column.format for column in IDENTITY), "d d .1f .1f .1f"])) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
