"""Ids from one day to the next: python bench/next_day.py [--seeds 61 62]; a saved map, the room entered elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.device import torch_device
from mastsam_ros.evaluation.tables import table
from mastsam_ros.io.sample_scene import SampleScene, SceneView
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings

FIRST_DAY, FRAMES = "orbit", 48
LATER = (("wide_baseline", 20, range(19, 0, -1)), ("look_away", 48, range(20, 48)), ("orbit", 48, range(47, 0, -2)))
"""Paths of the second day, their frames, and the order in which they are seen: from another end, or looking away."""
SEEN_PX = 150
"""Objects of which less is in view are not asked for."""


def main() -> int:
    """Exit status: 0 done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[61, 62])
    arguments = parser.parse_args()
    torch_device("cpu")
    rows = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            room = Path(folder) / "room"
            before, first_new = first_day(seed, room)
            for path, frames, order in LATER:
                scene = SampleScene(seed, path, frames)
                figures = later_day(views(scene, order), scene.object_ids, room, before, first_new)
                rows.append((f"seed {seed}, {path}", figures))
    heads = [f"after {FIRST_DAY}", "frames", "without pose", "same id %", "same id at the end", "of", "new ids"]
    sys.stdout.write(table(heads, rows, "d d .0f d d d") + "\n")
    return 0


def views(scene: SampleScene, order: Sequence[int]) -> Iterator[SceneView]:
    """The scene's views in this order, without their poses."""
    for number, index in enumerate(order):
        view = scene.render(index)
        frame = dataclasses.replace(view.frame, T_world_camera=None, stamp_ns=scene.stamp_ns(number))
        yield SceneView(frame, view.instance)


def first_day(seed: int, room: Path) -> tuple[dict[int, int], int]:
    """Object -> its id at the end of the first day, whose map is saved; and the first id that was never given."""
    scene, mastsam = SampleScene(seed, FIRST_DAY, FRAMES), create_mastsam(Settings())
    last: dict[int, int] = {}
    for view in views(scene, range(FRAMES)):
        last |= ids_of(view, mastsam.step(view.frame).labels, scene.object_ids)
    mastsam.save_map(room)
    return last, int(json.loads(room.with_suffix(".json").read_text(encoding="utf-8"))["next_id"])


def later_day(
    seen: Iterator[SceneView], objects: Sequence[int], room: Path, before: dict[int, int], first_new: int
) -> list[float]:
    """Frames, those without a pose, share of objects in view under their old id, %, the same at the end, new ids."""
    mastsam = create_mastsam(Settings())
    mastsam.load_map(room)
    poses, kept, new = [], [], set[int]()
    for view in seen:
        result = mastsam.step(view.frame)
        now = ids_of(view, result.labels, objects)
        poses.append(result.T_world_camera is not None)
        new |= {track.id for track in result.tracks if track.id >= first_new}
        kept.append((sum(before.get(instance) == id for instance, id in now.items()), len(now)))
    same, asked = np.sum(kept, axis=0)
    return [len(poses), poses.count(False), 100 * same / max(asked, 1), *kept[-1], len(new)]


def ids_of(view: SceneView, labels: np.ndarray, objects: Sequence[int]) -> dict[int, int]:
    """Object in view -> the id that most of it has."""
    return {
        instance: int(np.bincount(labels[view.instance == instance]).argmax())
        for instance in objects
        if (view.instance == instance).sum() > SEEN_PX
    }


if __name__ == "__main__":
    sys.exit(main())
