"""Fits what tells two things that were taken for one from parts of a thing: python bench/two_in_one.py [FOLDER ...].

Generated scenes, and those in the FOLDERs, are tracked without depth. In every frame the parts of small regions are
compared with the rest of their region as `mastsam_ros/segmenters/regions/two_in_one.py` does. The truth says of which
objects both are: parts that are half one thing and half another are left out, and so are those of the room, unless an
object is with them. The frames in which one thing or pair is seen count as their square root. Prints the log-odds of
a logistic regression, and how many are right where each scene is judged by what was fitted on the others. --help: the
options.
"""

from __future__ import annotations

import sys
from collections import Counter

import births
import cv2
import numpy as np

from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.segmenters.regions import flow_steps
from mastsam_ros.segmenters.regions.superpixels import RegionGraph
from mastsam_ros.segmenters.regions.two_in_one import Suspect, suspects
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame

PURE, MOST = 0.75, 0.5
"""Share of a part that is of one thing, and of that thing, for which it stands."""


def main(scenes: list[births.Scene]) -> None:
    """Prints all figures."""
    features, two, weight, scene = gathered(scenes)
    print(f"{len(two)} parts of small regions, {int(two.sum())} of them another thing than the rest")
    print("constant, flow, corner, contact, convexity:", births.printed(births.fit(features, two, weight)))
    print(f"log-odds before: {np.log(weight[two].sum() / weight[~two].sum()):.2f}")

    def judge(elsewhere: np.ndarray, here: np.ndarray) -> np.ndarray:
        fitted = births.fit(features[elsewhere], two[elsewhere], weight[elsewhere])
        return fitted[0] + features[here] @ fitted[1:]

    odds = births.said_of_others(scene, judge)
    for least in (0.2, 0.5, 0.8):
        taken = odds > np.log(least / (1 - least))
        print(f"from a probability of {least} on: {taken.sum()}, {(taken & two).sum()} right")


def gathered(scenes: list[births.Scene]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the suspects of all scenes: features (P, 4), whether they are two things, weight, and the scene (P,)."""
    rows, names = [], []
    for number, scene in enumerate(scenes):
        for features, thing, rest in along(scene):
            rows.append((*features, thing != rest, number))
            names.append((number, thing, rest))
    table, often = np.array(rows, np.float64), Counter(names)
    weight = np.array([often[name] for name in names]) ** -0.5
    return table[:, :4], table[:, 4] > 0, weight, table[:, 5].astype(int)


def along(scene: births.Scene) -> list[tuple[np.ndarray, int, int]]:
    """Of the suspects of a scene that are of one thing: features (4,), what they are, and what most of the rest is."""
    known: list[tuple[np.ndarray, int, int]] = []
    truth = np.zeros((0, 0), np.uint16)

    def noted(graph: RegionGraph, *others) -> list[Suspect]:  # type: ignore[no-untyped-def]
        found = suspects(graph, *others)
        true = cv2.resize(truth, graph.labels.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        # Pixels of each thing in each superpixel.
        count = int(true.max()) + 1
        votes = np.bincount(graph.labels.ravel() * count + true.ravel(), minlength=graph.count * count)
        votes, whole = votes.reshape(-1, count), np.bincount(true.ravel(), minlength=count)
        for suspect in found:
            of_part = votes[suspect.leaves].sum(axis=0)
            thing, rest = int(of_part.argmax()), int(votes[suspect.rest].sum(axis=0).argmax())
            stands_for = thing == rest or of_part[thing] >= MOST * whole[thing]
            if of_part[thing] >= PURE * of_part.sum() and stands_for and scene.objects & {thing, rest}:
                known.append((suspect.features, thing, rest))
        return found

    mastsam = create_mastsam(Settings())
    with births.replaced(flow_steps, "suspects", noted):
        for frame, instances_there in scene.views:
            truth = instances_there
            mastsam.step(Frame(frame.image))
    return known


if __name__ == "__main__":
    sys.exit(births.run(__doc__, main))
