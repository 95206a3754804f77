"""Prompts in one view, masks in all: python bench/unordered.py [SCENE ...] [--every N].

Every thing of middling size in the first view of a scene is prompted with a point and a box; its masks in the other
views are compared with the truth. Three ways: the views shuffled and taken by what matches (`--unordered`), in their
order in time, and shuffled but taken for a video. SCENE: a folder with instance/; without one, generated scenes.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.io.sources import open_source
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import EditError, Frame, FrameResult
from mastsam_ros.unordered import plan, stepped_without_order, without_order

LEAST_PX, MOST_SHARE = 150, 0.03
SEEDS = (1, 2, 3)
Truth = npt.NDArray[np.uint16]


def views_of(scene: Path, every: int) -> tuple[list[Frame], list[Truth]]:
    """Pictures alone, and the truth of each."""
    with open_source(scene, use_depth=False) as source:
        frames = [frame for _, frame in source]
    truth = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in sorted((scene / "instance").iterdir())]
    return frames[::every], truth[::every]


def generated(seed: int, every: int) -> tuple[list[Frame], list[Truth]]:
    """The same of a made-up scene."""
    views = list(SampleScene(seed, "wide_baseline", 30, 640, 480))[::every]
    return [Frame(view.frame.image) for view in views], [view.instance for view in views]


def prompted(mastsam: Mastsam, truth: Truth, frame: Frame, result: FrameResult) -> tuple[FrameResult, dict[int, int]]:
    """The first view's result with all things prompted, and the id of each."""
    ids = {}
    for number in things(truth):
        mask = truth == number
        inside = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(int(inside.argmax()), inside.shape)
        rows, columns = np.nonzero(mask)
        box = (int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
        try:
            ids[number] = mastsam.add_instance([(int(x), int(y))], box_xywh=box)
        except EditError:  # the segmenter sees nothing there: its masks are empty, and count as 0
            ids[number] = 0
    return mastsam.corrected(frame, result), ids


def things(truth: Truth) -> list[int]:
    """Ids of what is neither tiny nor a part of the room."""
    numbers, areas = np.unique(truth[truth > 0], return_counts=True)
    return numbers[(areas >= LEAST_PX) & (areas <= MOST_SHARE * truth.size)].tolist()


def masks(way: str, frames: list[Frame], truth: list[Truth]) -> tuple[dict[int, Truth], dict[int, int]]:
    """Labels of every view, by its place in time, and the ids of what was prompted."""
    settings = Settings().updated({"matcher.name": "flow", "segmenter.name": "regions", "geometry.map": False})
    order = list(range(1, len(frames)))
    if way != "in order":
        random.Random(1).shuffle(order)
    order = [0, *order]
    labels, ids = {}, dict[int, int]()

    def correct(place: int, result: FrameResult) -> FrameResult:
        nonlocal ids
        if place == 0:
            result, ids = prompted(mastsam, truth[0], frames[0], result)
        return result

    if way == "unordered":
        mastsam = create_mastsam(without_order(settings))
        some = [frames[index] for index in order]
        for place, result in stepped_without_order(mastsam, some, plan(mastsam, some, 0), correct):
            labels[order[place]] = result.labels
    else:
        mastsam = create_mastsam(settings)
        for place, index in enumerate(order):
            labels[index] = correct(place, mastsam.step(frames[index])).labels
    return labels, ids


def main() -> int:
    """Prints a row for each scene and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", type=Path, metavar="SCENE")
    parser.add_argument("--every", type=int, default=1, help="take every so many views: the steps become as much wider")
    arguments = parser.parse_args()
    sets = [(scene.name, *views_of(scene, arguments.every)) for scene in arguments.scenes]
    sets = sets or [(f"generated, seed {seed}", *generated(seed, arguments.every)) for seed in SEEDS]
    print(f"{'scene':24}{'way':22}{'IoU':>7}{'> .5':>7}{'masks':>7}")
    for name, frames, truth in sets:
        for way in ("unordered", "in order", "shuffled, as a video"):
            labels, ids = masks(way, frames, truth)
            ious = []
            for place in range(1, len(frames)):
                for number, id in ids.items():
                    there = truth[place] == number
                    if there.sum() >= LEAST_PX:
                        mask = (labels[place] == id) & (id > 0)
                        ious.append(float((there & mask).sum() / (there | mask).sum()))
            print(f"{name:24}{way:22}{np.mean(ious):7.3f}{np.mean(np.array(ious) > 0.5):7.2f}{len(ious):7}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
