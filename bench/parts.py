"""Fits what tells parts of a thing from things that touch: python bench/parts.py [FOLDER ...] [--scenes N] [--help].

Generated scenes, and those in the FOLDERs, are tracked without depth, and every new instance is compared with those
that it touches as `mastsam_ros/tracker/parts.py` does. The truth says which pairs are parts of one object; pairs of
which neither is an object are left out. Prints the log-odds of a logistic regression, and how many pairs are right
where each scene is judged by what was fitted on the others.
"""

from __future__ import annotations

import sys

import births
import numpy as np

from mastsam_ros.tracker.parts import Contact, contacts


def main(scenes: list[births.Scene]) -> None:
    """Prints all figures."""
    features, same, scene = gathered(scenes)
    print(f"{len(same)} pairs that touch, {int(same.sum())} of them parts of one object")
    fitted = births.fit(features, same, np.ones(len(same)))
    print("constant, corner, contact, convexity, colour:", births.printed(fitted))

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
    for number, scene in enumerate(scenes):
        for contact, truths in births.along(scene, "join_parts", contacts, ids_of):
            if scene.objects.intersection(truths):
                rows.append((*contact.features, truths[0] == truths[1], number))
    table = np.array(rows, np.float64)
    return table[:, :4], table[:, 4] > 0, table[:, 5].astype(int)


def ids_of(contact: Contact) -> list[int]:
    """The two that touch."""
    return [contact.first, contact.second]


if __name__ == "__main__":
    sys.exit(births.run(__doc__, main))
