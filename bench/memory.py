"""What the pipeline's memory does over many frames: python bench/memory.py [--frames 800].

The sample scene to and fro at 640x480, with depth and intrinsics, as the soak sends it to the node. Prints every 100
frames the memory of this process and the number of things that the pipeline keeps. With NUMPY_MADVISE_HUGEPAGE=0, as
the node sets it, numpy asks for no huge pages.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import create_mastsam

SKIPPED = 4
"""Every so many images of 30 Hz are processed, about as on two cores."""


def megabytes() -> tuple[int, int]:
    """Resident memory of this process, and how much of it is in huge pages."""
    content = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    kilobytes = {line.split()[0]: int(line.split()[1]) for line in content[1:]}
    return kilobytes["Rss:"] // 1024, kilobytes["AnonHugePages:"] // 1024


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=800)
    frames = parser.parse_args().frames
    views = [
        dataclasses.replace(view.frame, T_world_camera=None) for view in SampleScene(seed=5, frames=45, rate_hz=30.0)
    ]
    to_and_fro = [*views, *views[-2:0:-1]]
    mastsam = create_mastsam()
    print(f"{'frames':>8}{'MB':>8}{'huge MB':>9}{'voxels':>9}{'keyframes':>11}{'instances':>11}")
    for number in range(1, frames + 1):
        view = to_and_fro[SKIPPED * number % len(to_and_fro)]
        result = mastsam.step(dataclasses.replace(view, stamp_ns=number * SKIPPED * 33_333_333))
        if number % 100 == 0:
            world = mastsam.world_map()
            resident, huge = megabytes()
            kept = f"{len(world.cloud):9}{len(mastsam.map.odometry.keyframes):11}{len(result.tracks):11}"
            print(f"{number:8}{resident:8}{huge:9}{kept}", flush=True)


if __name__ == "__main__":
    main()
