"""What the pipeline's memory does over many frames: python bench/memory.py [--frames 800] [--plain].

The sample scene to and fro at 640x480, with depth and intrinsics, as the soak sends it to the node. Prints every 100
frames the memory that this process holds, how much of that its parts have asked for and not freed, and the number of
things that the pipeline keeps. All threads take from one arena, and what is free goes back every 100 frames, as the
node does it; with --plain neither. With NUMPY_MADVISE_HUGEPAGE=0, as the node sets it, numpy asks for no huge pages.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.ros.memory import give_back, heap_megabytes, one_arena

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
    parser.add_argument("--width", type=int, default=640, help="of the images, 4:3; small ones give many frames")
    parser.add_argument("--plain", action="store_true", help="leave it to glibc what goes back to the system")
    arguments = parser.parse_args()
    if not arguments.plain:
        one_arena()
    scene = SampleScene(seed=5, frames=45, width=arguments.width, height=arguments.width * 3 // 4, rate_hz=30.0)
    views = [dataclasses.replace(view.frame, T_world_camera=None) for view in scene]
    to_and_fro = [*views, *views[-2:0:-1]]
    mastsam = create_mastsam()
    print(f"{'frames':>8}{'MB':>8}{'in use MB':>11}{'huge MB':>9}{'voxels':>9}{'keyframes':>11}{'instances':>11}")
    for number in range(1, arguments.frames + 1):
        view = to_and_fro[SKIPPED * number % len(to_and_fro)]
        result = mastsam.step(dataclasses.replace(view, stamp_ns=number * SKIPPED * 33_333_333))
        if number % 100 == 0:
            world = mastsam.world_map()
            resident, huge = megabytes()
            if not arguments.plain:
                give_back()
            kept = f"{len(world.cloud):9}{len(mastsam.map.odometry.keyframes):11}{len(result.tracks):11}"
            print(f"{number:8}{resident:8}{heap_megabytes() or 0:11.1f}{huge:9}{kept}", flush=True)


if __name__ == "__main__":
    main()
