"""What the scripts that fit weights share: scenes with truth, the comparisons that the tracker makes along them, and a
logistic regression."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.device import torch_device
from mastsam_ros.evaluation.datasets import LabelledSequence, open_sequences
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.tracker import reidentification
from mastsam_ros.types import Frame, InputError, MastsamError

PATHS = ("orbit", "look_away", "wide_baseline")
SEEDS = range(21, 31)
FRAMES = 30
SHRINKAGE = 1.0


@dataclass
class Scene:
    """Pictures with the true instances (H, W), and the ids of the objects among them."""

    views: Iterable[tuple[Frame, np.ndarray]]
    objects: set[int]


def generated(seed: int) -> Scene:
    """A generated scene; every second one in other colours."""
    scene = SampleScene(seed, PATHS[seed % 3], FRAMES, repainted=bool(seed % 2))
    return Scene(((view.frame, view.instance) for view in scene), set(scene.object_ids))


def run(
    about: str | None,
    tell: Callable[[list[Scene]], None],
    make: Callable[[int], Scene] = generated,
    seeds: Sequence[int] = SEEDS,
) -> int:
    """Calls `tell` with the scenes of the command line, and what `make` makes of the seeds. Exit status: 0 done, 1 a
    MastsamError, 2 wrong usage."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="*", help="scenes with depth, poses and truth")
    parser.add_argument("--scenes", type=int, default=len(seeds), help="how many generated scenes")
    arguments = parser.parse_args()
    torch_device("cpu")
    try:
        scenes = [make(seed) for seed in seeds[: arguments.scenes]]
        scenes += [labelled(sequence) for folder in arguments.folders for sequence in open_sequences(folder)]
        if len(scenes) < 2:
            raise InputError(f"each scene is judged by the others: two or more are needed, got {len(scenes)}")
        tell(scenes)
    except MastsamError as error:
        sys.stderr.write(f"{Path(sys.argv[0]).stem}: {error}\n")
        return 1
    return 0


def labelled(sequence: LabelledSequence) -> Scene:
    """A scene from a folder."""
    views = ((sequence.frame(n, False), sequence.truth(files)) for n, files in enumerate(sequence.frames))
    return Scene(views, set(sequence.objects or ()))


def along(
    scene: Scene,
    name: str,
    compare: Callable[..., Iterable[Any]],
    ids_of: Callable[[Any], Iterable[int]],
    settings: Settings | None = None,
) -> list[tuple[Any, list[int]]]:
    """Tracks a scene without depth. Whenever the tracker asks `reidentification.<name>` to join what belongs together,
    nothing is joined, but everything is compared. Returns each comparison, and the true instances that its ids are."""
    compared: list[tuple[Any, list[int]]] = []
    truth = np.zeros((0, 0), np.uint16)

    def instead(index, active, image, identities) -> None:  # type: ignore[no-untyped-def]
        true = cv2.resize(truth, index.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        instance = identities.constraints.instance
        own = np.take(np.array([0] + [instance(identities.shown_as(id)) for id in active]), index)
        for comparison in compare(index, active, image, identities):
            compared.append((comparison, [int(np.bincount(true[own == id]).argmax()) for id in ids_of(comparison)]))

    mastsam = create_mastsam(settings or Settings())
    with replaced(reidentification, name, instead):
        for frame, instances_there in scene.views:
            truth = instances_there
            mastsam.step(Frame(frame.image))
    return compared


@contextmanager
def replaced(module: ModuleType, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Calls a function in place of a module's."""
    before = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, before)


def fit(features: np.ndarray, same: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(F + 1,): the constant and the weights of features (P, F), by iterated least squares with a little shrinkage.

    same: (P,) bool; weight: (P,).
    """
    middle, spread = features.mean(axis=0), features.std(axis=0)
    known = np.column_stack([np.ones(len(features)), (features - middle) / spread])
    shrinkage = SHRINKAGE * np.diag([0.0, *[1.0] * features.shape[1]])
    weights = np.zeros(features.shape[1] + 1)
    for _ in range(30):
        odds = 1 / (1 + np.exp(-known @ weights))
        slope = known.T @ (weight * (same - odds)) - shrinkage @ weights
        weights += np.linalg.solve(known.T @ (known * (weight * odds * (1 - odds))[:, None]) + shrinkage, slope)
    scaled = weights[1:] / spread
    return np.array([weights[0] - scaled @ middle, *scaled])


def said_of_others(scene: np.ndarray, judge: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """(P,) log-odds of each pair by what `judge(elsewhere, here)` fits on those of all other scenes, (P,) bool each."""
    odds = np.full(len(scene), -np.inf)
    for number in np.unique(scene):
        odds[scene == number] = judge(scene != number, scene == number)
    return odds


def printed(values: Sequence[float]) -> str:
    """Weights in short."""
    return " ".join(f"{value:.2f}" for value in values)
