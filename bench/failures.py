"""Where the embedded default is worst: python bench/failures.py OUTPUT.png [NAME ...] [--no-depth] [--help].

Of each generated scene or video the frame in which most pixels of objects are under another id, or under an object's id
without being it: the picture with the true outlines above, the ids below.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.device import torch_device
from mastsam_ros.evaluation import generated
from mastsam_ros.evaluation.bench import GENERATED
from mastsam_ros.evaluation.datasets import LabelledSequence
from mastsam_ros.evaluation.identity import tube_score
from mastsam_ros.evaluation.overlaps import frame_overlap, tube_overlap
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import MastsamError
from mastsam_ros.viz import overlay

WIDTH = 360


def main() -> int:
    """Exit status: 0 done, 1 a MastsamError, 2 wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("names", metavar="NAME", nargs="*", default=["stacked_wide", "moved", "walker"])
    parser.add_argument("--no-depth", action="store_true", help="scenes as a camera without depth sees them")
    arguments = parser.parse_args()
    torch_device("cpu")
    try:
        columns = [worst(sequence_of(name), not arguments.no_depth) for name in arguments.names]
    except MastsamError as error:
        sys.stderr.write(f"failures: {error}\n")
        return 1
    height = max(column.shape[0] for column in columns)
    padded = [np.pad(c, ((0, height - len(c)), (0, 4), (0, 0)), constant_values=255) for c in columns]
    cv2.imwrite(str(arguments.output), np.hstack(padded)[..., ::-1])
    return 0


def sequence_of(name: str) -> LabelledSequence:
    """A generated sequence, rendered if it is not there yet. Raises InputError for a name that is none."""
    if name in generated.GENERATED:
        return generated.generated_sequences(GENERATED / "hard", [name])[0]
    return generated.held_out_sequences(GENERATED / "held_out", [name])[0]


def worst(sequence: LabelledSequence, geometry: bool) -> np.ndarray:
    """(H, WIDTH, 3) uint8 RGB: the worst frame above its ids."""
    mastsam = create_mastsam(Settings())
    overlaps, labels = [], []
    for index, files in enumerate(sequence.frames):
        labels.append(mastsam.step(sequence.frame(index, geometry)).labels)
        overlaps.append(frame_overlap(labels[-1], sequence.truth(files)))
    own = tube_score(tube_overlap(overlaps), sequence.objects).ids
    wrong = [
        sum(int(((sequence.truth(files) == instance) ^ (labels[index] == id)).sum()) for instance, id in own.items())
        for index, files in enumerate(sequence.frames)
    ]
    frame = int(np.argmax(wrong))
    image, truth = sequence.frame(frame, False).image, sequence.truth(sequence.frames[frame])
    objects = np.where(np.isin(truth, list(own)), truth, 0).astype(np.float32)
    outlined = image.copy()
    outlined[cv2.morphologyEx(objects, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0] = 255
    sys.stdout.write(f"{sequence.name}: frame {frame}, {wrong[frame]} pixels of objects or their ids are wrong\n")
    return np.vstack([shrunk(outlined), shrunk(overlay(image, labels[frame]))])


def shrunk(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) at the width of one column."""
    return cv2.resize(image, (WIDTH, round(WIDTH * image.shape[0] / image.shape[1])), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    sys.exit(main())
