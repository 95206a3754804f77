"""Fits how much each difference of material counts: python bench/materials.py [--scenes N] [--help].

Generated scenes are tracked without depth, and every new track is compared with the large ones in view as
`mastsam_ros/tracker/materials.py` does. The truth says which pairs are one thing of the room. Prints the log-odds of a
logistic regression, and how many joins are right when each scene is judged by what was fitted on the others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros import pipeline
from mastsam_ros.device import torch_device
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.settings import Settings
from mastsam_ros.tracker.materials import Comparison, comparisons
from mastsam_ros.types import Frame

SCENES = [
    {"seed": seed, "path": path, "frames": 24, "layout": layout, "repainted": bool(seed % 2)}
    for seed, path, layout in (
        (71, "orbit", "table"),
        (72, "wide_baseline", "table"),
        (73, "wide_baseline", "table"),
        (74, "look_away", "table"),
        (75, "wide_baseline", "table"),
        (76, "walk_through", "table"),
        (77, "orbit", "floor"),
        (78, "wide_baseline", "table"),
        (79, "orbit", "table"),
        (80, "wide_baseline", "floor"),
        (81, "walk_through", "table"),
        (82, "wide_baseline", "table"),
    )
]
OBJECTS_COUNT = 4.0
"""A thing that is taken for a piece of the room costs more than a piece that is not found."""
SHRINKAGE = 1.0


@dataclass
class Pairs:
    """differences (P, 4), possible (P,), same (P,) one thing of the room, weight (P,), scene (P,), birth (P,)."""

    differences: np.ndarray
    possible: np.ndarray
    same: np.ndarray
    weight: np.ndarray
    scene: np.ndarray
    birth: np.ndarray


def main() -> int:
    """Exit status: 0 done, 2 wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=len(SCENES), help="how many of the scenes")
    torch_device("cpu")
    pairs = gathered(parser.parse_args().scenes)
    fitted = fit(pairs, np.ones(len(pairs.same), bool))
    print(f"{len(pairs.same)} pairs, {int(pairs.same.sum())} of them one thing of the room")
    print("constant, colour, shade, texture, contact:", " ".join(f"{value:.2f}" for value in fitted))
    for least in (0.5, 0.6, 0.7):
        print(f"from a probability of {least} on: {right(pairs, least)}")
    return 0


def gathered(scenes: int) -> Pairs:
    """The pairs of all scenes."""
    rows, births = [], 0
    for number, options in enumerate(SCENES[:scenes]):
        scene = SampleScene(**options)
        objects = set(scene.object_ids)
        for new, truth, of_wholes in compared(scene):
            births += 1
            for k, whole in enumerate(of_wholes):
                same = truth == whole and truth not in objects
                weight = OBJECTS_COUNT if (truth in objects) != (whole in objects) else 1.0
                rows.append((*new.differences[k], new.possible[k], same, weight, number, births))
    table = np.array(rows, np.float64)
    integers = table[:, 7:].astype(int)
    return Pairs(
        table[:, :4], table[:, 4] > 0, table[:, 5] > 0, table[:, 6], scene=integers[:, 0], birth=integers[:, 1]
    )


def compared(scene: SampleScene) -> Iterator[tuple[Comparison, int, list[int]]]:
    """Every comparison that is made along a scene, and the true instances of the new track and of the large ones."""
    seen: list[tuple[Comparison, int, list[int]]] = []
    truth = np.zeros((0, 0), np.uint16)

    def instead(index, active, image, identities) -> None:  # type: ignore[no-untyped-def]
        true = cv2.resize(truth, index.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        own = np.take(np.array([0] + [identities.shown_as(id) for id in active]), index)
        for new in comparisons(index, active, image, identities):
            instances = [int(np.bincount(true[own == id]).argmax()) for id in (new.id, *new.wholes)]
            seen.append((new, instances[0], instances[1:]))

    mastsam = pipeline.create_mastsam(Settings())
    before, pipeline.join_pieces = pipeline.join_pieces, instead
    try:
        for n in range(scene.frames):
            view = scene.render(n)
            truth = view.instance
            mastsam.step(Frame(view.frame.image))
    finally:
        pipeline.join_pieces = before
    yield from seen


def fit(pairs: Pairs, chosen: np.ndarray) -> np.ndarray:
    """(5,): the constant and the weights, by iterated least squares with a little shrinkage."""
    chosen = chosen & pairs.possible
    middle, spread = pairs.differences[chosen].mean(axis=0), pairs.differences[chosen].std(axis=0)
    known = np.column_stack([np.ones(chosen.sum()), (pairs.differences[chosen] - middle) / spread])
    same, weight = pairs.same[chosen].astype(float), pairs.weight[chosen]
    shrinkage = SHRINKAGE * np.diag([0.0, 1, 1, 1, 1])
    weights = np.zeros(5)
    for _ in range(30):
        odds = 1 / (1 + np.exp(-known @ weights))
        slope = known.T @ (weight * (same - odds)) - shrinkage @ weights
        weights += np.linalg.solve(known.T @ (known * (weight * odds * (1 - odds))[:, None]) + shrinkage, slope)
    scaled = weights[1:] / spread
    return np.array([weights[0] - scaled @ middle, *scaled])


def right(pairs: Pairs, least: float) -> str:
    """How many joins there would be, and how many would be right, in scenes on which nothing was fitted."""
    odds = np.full(len(pairs.same), -np.inf)
    for number in np.unique(pairs.scene):
        fitted, here = fit(pairs, pairs.scene != number), pairs.scene == number
        odds[here] = fitted[0] + pairs.differences[here] @ fitted[1:]
    odds[~pairs.possible] = -np.inf
    joins = correct = objects = pieces = 0
    for birth in np.unique(pairs.birth):
        of_birth = np.flatnonzero(pairs.birth == birth)
        pieces += bool(pairs.same[of_birth].any())
        best = of_birth[odds[of_birth].argmax()]
        if odds[best] > np.log(least / (1 - least)):
            joins += 1
            correct += bool(pairs.same[best])
            objects += pairs.weight[best] > 1
    return f"{joins} joins, {correct} right, {objects} of an object and the room; {pieces} new tracks were pieces"


if __name__ == "__main__":
    sys.exit(main())
