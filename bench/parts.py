"""Fits what tells parts of a thing from things that touch: python bench/parts.py [FOLDER ...] [--scenes N] [--help].

Generated scenes, and those in the FOLDERs, are tracked without depth, and every new instance is compared with those
that it touches as `mastsam_ros/tracker/parts.py` does. The truth says which pairs are parts of one object; pairs of
which neither is an object are left out. Prints the log-odds of a logistic regression, and how many pairs are right
where each scene is judged by what was fitted on the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import births
import numpy as np

from mastsam_ros.tracker.parts import Contact, contacts


def main(scenes: list[births.Scene]) -> None:
    """Prints all figures."""
    features, same, scene = gathered(scenes)
    print(f"{len(same)} pairs that touch, {int(same.sum())} of them parts of one object")
    print(
        "constant, corner, contact, convexity, colour:", births.printed(births.fit(features, same, np.ones(len(same))))
    )

    def judge(elsewhere: np.ndarray, here: np.ndarray) -> np.ndarray:
        fitted = births.fit(features[elsewhere], same[elsewhere], np.ones(elsewhere.sum()))
        return fitted[0] + features[here] @ fitted[1:]

    odds = births.said_of_others(scene, judge)
    for least in (0.5, 0.6, 0.7, 0.8):
        taken = odds > np.log(least / (1 - least))
        print(f"from a probability of {least} on: {taken.sum()} pairs, {(taken & same).sum()} right")


def gathered(scenes: list[births.Scene]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the pairs of all scenes: features (P, 4), whether they are one object (P,), and the scene (P,)."""
    rows = []

    def keep(contact: Contact, truth: Callable[[int], int]) -> None:
        first, second = truth(contact.first), truth(contact.second)
        if {first, second} & scene.objects:
            rows.append((*contact.features, first == second, number))

    for number, scene in enumerate(scenes):  # noqa: B007 - `keep` reads both
        births.along(scene, "join_parts", contacts, keep)
    table = np.array(rows, np.float64)
    return table[:, :4], table[:, 4] > 0, table[:, 5].astype(int)


if __name__ == "__main__":
    sys.exit(births.run(__doc__, main))
