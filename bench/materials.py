"""Fits how much each difference of material counts: python bench/materials.py [FOLDER ...] [--scenes N] [--help].

Generated scenes, and those in the FOLDERs, are tracked without depth, and every new track is compared with the large
ones in view as `mastsam_ros/tracker/materials.py` does. The truth says which pairs are one thing of the room. Prints
the log-odds of a logistic regression, and how many joins are right where each scene is judged by what was fitted on
the others.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import births
import numpy as np

from mastsam_ros.settings import Settings
from mastsam_ros.tracker.materials import Comparison, comparisons

OBJECTS_COUNT = 4.0
"""A thing that is taken for a piece of the room costs more than a piece that is not found."""


@dataclass
class Pairs:
    """differences (P, 4), possible (P,), same (P,) one thing of the room, weight (P,), scene (P,), birth (P,)."""

    differences: np.ndarray
    possible: np.ndarray
    same: np.ndarray
    weight: np.ndarray
    scene: np.ndarray
    birth: np.ndarray


def main(scenes: list[births.Scene]) -> None:
    """Prints all figures."""
    pairs = gathered(scenes)
    fitted = fit(pairs, np.ones(len(pairs.same), bool))
    print(f"{len(pairs.same)} pairs, {int(pairs.same.sum())} of them one thing of the room")
    print("constant, colour, shade, texture, contact:", births.printed(fitted))
    for least in (0.5, 0.6, 0.7):
        print(f"from a probability of {least} on: {right(pairs, least)}")


def gathered(scenes: list[births.Scene]) -> Pairs:
    """The pairs of all scenes."""
    rows, born = [], 0
    alone = Settings().with_assignments(["tracker.join_parts=false"])
    for number, scene in enumerate(scenes):
        for new, (truth, *of_wholes) in births.along(scene, "join_pieces", comparisons, ids_of, alone):
            born += 1
            for k, whole in enumerate(of_wholes):
                same = truth == whole and truth not in scene.objects
                weight = OBJECTS_COUNT if (truth in scene.objects) != (whole in scene.objects) else 1.0
                rows.append((*new.differences[k], new.possible[k], same, weight, number, born))
    table = np.array(rows, np.float64)
    differences, possible, same, weight = table[:, :4], table[:, 4] > 0, table[:, 5] > 0, table[:, 6]
    return Pairs(differences, possible, same, weight, table[:, 7].astype(int), table[:, 8].astype(int))


def ids_of(new: Comparison) -> list[int]:
    """The new track and the large ones."""
    return [new.id, *new.wholes]


def fit(pairs: Pairs, chosen: np.ndarray) -> np.ndarray:
    """(5,): the constant and the weights."""
    chosen = chosen & pairs.possible
    return births.fit(pairs.differences[chosen], pairs.same[chosen], pairs.weight[chosen])


def right(pairs: Pairs, least: float) -> str:
    """How many joins there would be, and how many would be right, in scenes on which nothing was fitted."""

    def judge(elsewhere: np.ndarray, here: np.ndarray) -> np.ndarray:
        fitted = fit(pairs, elsewhere)
        return fitted[0] + pairs.differences[here] @ fitted[1:]

    odds = births.said_of_others(pairs.scene, judge)
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
    sys.exit(births.run(__doc__, main))
