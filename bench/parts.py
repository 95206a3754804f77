"""Fits what tells parts of a thing from things that touch: python bench/parts.py [FOLDER ...] [--scenes N] [--help].

The first views of generated scenes, and scenes in the FOLDERs from end to end, are tracked without depth, and every new
instance is compared with those that it touches as `mastsam_ros/tracker/parts.py` does. The truth says which pairs are
parts of one thing, be it an object or a picture on the wall. Prints the log-odds of a logistic regression, and how many
pairs are right where each scene is judged by what was fitted on the others.
"""

from __future__ import annotations

import itertools
import sys

import births
import numpy as np

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.tracker.parts import Contact, contacts

SEEDS = range(200, 265)
VIEWS = 2


def main(scenes: list[births.Scene]) -> None:
    """Prints all figures."""
    features, same, scene = gathered(scenes)
    print(f"{len(same)} pairs that touch, {int(same.sum())} of them parts of one thing")
    fitted = births.fit(features, same, np.ones(len(same)))
    print("constant, corner, contact, hues, symmetry:", births.printed(fitted))

    def judge(elsewhere: np.ndarray, here: np.ndarray) -> np.ndarray:
        fitted = births.fit(features[elsewhere], same[elsewhere], np.ones(elsewhere.sum()))
        return fitted[0] + features[here] @ fitted[1:]

    odds = births.said_of_others(scene, judge)
    for least in (0.5, 0.6, 0.7, 0.8):
        taken = odds > np.log(least / (1 - least))
        print(f"from a probability of {least} on: {taken.sum()} pairs, {(taken & same).sum()} right")


def gathered(scenes: list[births.Scene]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the pairs of all scenes: features (P, 4), whether they are one thing (P,), and the scene (P,)."""
    rows = []
    for number, scene in enumerate(scenes):
        for contact, truths in births.along(scene, "join_parts", contacts, ids_of):
            rows.append((*contact.features, truths[0] == truths[1], number))
    table = np.array(rows, np.float64)
    return table[:, :-2], table[:, -2] > 0, table[:, -1].astype(int)


def first_views(seed: int) -> births.Scene:
    """A generated scene: on a table or on the floor, every second one in other colours, half of them with stacks."""
    scene = SampleScene(
        seed,
        births.PATHS[seed % 3],
        layout="floor" if seed % 4 == 3 else "table",
        stacked=bool(seed // 3 % 2),
        repainted=bool(seed % 2),
    )
    views = [(view.frame, view.instance) for view in itertools.islice(scene, VIEWS)]
    return births.Scene(views, set(scene.object_ids))


def ids_of(contact: Contact) -> list[int]:
    """The two that touch."""
    return [contact.first, contact.second]


if __name__ == "__main__":
    sys.exit(births.run(__doc__, main, first_views, SEEDS))
