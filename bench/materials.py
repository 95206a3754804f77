"""Fits how much each difference of material counts: python bench/materials.py [FOLDER ...] [--scenes N] [--help].

Generated scenes, and those in the FOLDERs, are tracked without depth, and every new track is compared with the large
ones in view as `mastsam_ros/tracker/materials.py` does. The truth says which pairs are one thing of the room. Prints
the log-odds of a logistic regression, and how many joins are right where each scene is judged by what was fitted on
the others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.device import torch_device
from mastsam_ros.evaluation.datasets import LabelledSequence, open_sequences
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.tracker import reidentification
from mastsam_ros.tracker.materials import Comparison, comparisons
from mastsam_ros.types import Frame, InputError, MastsamError

PATHS = ("orbit", "look_away", "wide_baseline")
SEEDS = range(21, 31)
FRAMES = 30
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
    """Exit status: 0 done, 1 a MastsamError, 2 wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="*", help="scenes with depth, poses and truth")
    parser.add_argument("--scenes", type=int, default=len(SEEDS), help="how many generated scenes")
    arguments = parser.parse_args()
    torch_device("cpu")
    try:
        scenes = [generated(seed) for seed in SEEDS[: arguments.scenes]]
        scenes += [labelled(sequence) for folder in arguments.folders for sequence in open_sequences(folder)]
        if len(scenes) < 2:
            raise InputError(f"each scene is judged by the others: two or more are needed, got {len(scenes)}")
        pairs = gathered(scenes)
    except MastsamError as error:
        sys.stderr.write(f"materials: {error}\n")
        return 1
    fitted = fit(pairs, np.ones(len(pairs.same), bool))
    print(f"{len(pairs.same)} pairs, {int(pairs.same.sum())} of them one thing of the room")
    print("constant, colour, shade, texture, contact:", " ".join(f"{value:.2f}" for value in fitted))
    for least in (0.5, 0.6, 0.7):
        print(f"from a probability of {least} on: {right(pairs, least)}")
    return 0


@dataclass
class Scene:
    """Pictures with the true instances (H, W), and the ids of the objects among them."""

    views: Iterable[tuple[Frame, np.ndarray]]
    objects: set[int]


def generated(seed: int) -> Scene:
    """A generated scene; every second one in other colours."""
    scene = SampleScene(seed, PATHS[seed % 3], FRAMES, repainted=bool(seed % 2))
    return Scene(((view.frame, view.instance) for view in scene), set(scene.object_ids))


def labelled(sequence: LabelledSequence) -> Scene:
    """A scene from a folder."""
    views = ((sequence.frame(n, False), sequence.truth(files)) for n, files in enumerate(sequence.frames))
    return Scene(views, set(sequence.objects or ()))


def gathered(scenes: list[Scene]) -> Pairs:
    """The pairs of all scenes."""
    rows, births = [], 0
    for number, scene in enumerate(scenes):
        for new, truth, of_wholes in compared(scene):
            births += 1
            for k, whole in enumerate(of_wholes):
                same = truth == whole and truth not in scene.objects
                weight = OBJECTS_COUNT if (truth in scene.objects) != (whole in scene.objects) else 1.0
                rows.append((*new.differences[k], new.possible[k], same, weight, number, births))
    table = np.array(rows, np.float64)
    differences, possible, same, weight = table[:, :4], table[:, 4] > 0, table[:, 5] > 0, table[:, 6]
    return Pairs(differences, possible, same, weight, table[:, 7].astype(int), table[:, 8].astype(int))


def compared(scene: Scene) -> list[tuple[Comparison, int, list[int]]]:
    """Every comparison that is made along a scene, and the true instances of the new track and of the large ones."""
    found: list[tuple[Comparison, int, list[int]]] = []
    truth = np.zeros((0, 0), np.uint16)

    def instead(index, active, image, identities) -> None:  # type: ignore[no-untyped-def]
        true = cv2.resize(truth, index.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        own = np.take(np.array([0] + [identities.shown_as(id) for id in active]), index)
        for new in comparisons(index, active, image, identities):
            instances = [int(np.bincount(true[own == id]).argmax()) for id in (new.id, *new.wholes)]
            found.append((new, instances[0], instances[1:]))

    mastsam = create_mastsam(Settings())
    before, reidentification.join_pieces = reidentification.join_pieces, instead
    try:
        for frame, instances_there in scene.views:
            truth = instances_there
            mastsam.step(Frame(frame.image))
    finally:
        reidentification.join_pieces = before
    return found


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
