"""Memory and time over many frames: python bench/loop.py [--frames 2000]; a generated scene to and fro, with depth."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.device import torch_device
from mastsam_ros.evaluation.tables import table
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings

WINDOWS = 10
WARM_UP = 1
"""Windows before the first that counts: the map fills, allocators settle."""
GROWN_MB, SLOWER = 24.0, 1.25
"""More than this from the first window that counts to the last is not flat."""


def resident_mb() -> float:
    """Memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def main() -> int:
    """Exit status: 0 flat, 1 grown or slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--size", type=int, nargs=2, default=(320, 240), metavar=("WIDTH", "HEIGHT"))
    arguments = parser.parse_args()
    torch_device("cpu")
    views = [view.frame for view in SampleScene(41, "orbit", 50, *arguments.size)]
    order = [*range(len(views)), *range(len(views) - 2, 0, -1)]
    mastsam = create_mastsam(Settings())
    window = max(1, arguments.frames // WINDOWS)
    spent: list[float] = []
    rows = []
    for number in range(arguments.frames):
        view = views[order[number % len(order)]]
        frame = dataclasses.replace(view, stamp_ns=number * 100_000_000, T_world_camera=None)
        start = time.process_time()
        result = mastsam.step(frame)
        spent.append(1e3 * (time.process_time() - start))
        if len(spent) == window:
            map = mastsam.map
            known = (len(result.tracks), max(track.id for track in result.tracks))
            sizes = (len(map.map), len(map.odometry.keyframes))
            rows.append((f"{number + 1}", [resident_mb(), float(np.mean(spent)), *sizes, *known]))
            spent = []
    heads = ["frames", "memory MB", "CPU ms", "voxels", "keyframes", "ids that exist", "newest id"]
    sys.stdout.write(table(heads, rows, ".1f .1f d d d d") + "\n")
    first, last = rows[min(WARM_UP, len(rows) - 1)][1], rows[-1][1]
    grown, slower = last[0] - first[0], last[1] / first[1]
    sys.stdout.write(f"from the second tenth to the last: {grown:+.1f} MB, time {slower:.2f} times\n")
    return int(grown > GROWN_MB or slower > SLOWER)


if __name__ == "__main__":
    sys.exit(main())
