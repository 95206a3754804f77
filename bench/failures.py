"""Where the harder scenes fail: python bench/failures.py OUTPUT.png [SCENE ...]; pictures above, their ids below."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.device import torch_device
from mastsam_ros.evaluation.bench import GENERATED
from mastsam_ros.evaluation.generated import generated_sequences
from mastsam_ros.evaluation.identity import tube_score
from mastsam_ros.evaluation.overlaps import frame_overlap, tube_overlap
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import MastsamError
from mastsam_ros.viz import overlay

WIDTH = 320


def main() -> int:
    """Exit status: 0 done, 1 a MastsamError, 2 wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("scenes", nargs="*", default=["stacked_wide", "moved", "walker"])
    arguments = parser.parse_args()
    torch_device("cpu")
    columns = []
    try:
        for sequence in generated_sequences(GENERATED / "hard", arguments.scenes):
            mastsam = create_mastsam(Settings())
            overlaps, labels = [], []
            for index, files in enumerate(sequence.frames):
                labels.append(mastsam.step(sequence.frame(index, True)).labels)
                overlaps.append(frame_overlap(labels[-1], sequence.truth(files)))
            own = tube_score(tube_overlap(overlaps), sequence.objects).ids
            missed = [
                sum(int((sequence.truth(files) == instance)[labels[index] != id].sum()) for instance, id in own.items())
                for index, files in enumerate(sequence.frames)
            ]
            worst = int(np.argmax(missed))
            image = sequence.frame(worst, False).image
            columns.append(np.vstack([shrunk(image), shrunk(overlay(image, labels[worst]))]))
            sys.stdout.write(f"{sequence.name}: frame {worst}, {missed[worst]} pixels of objects under another id\n")
    except MastsamError as error:
        sys.stderr.write(f"failures: {error}\n")
        return 1
    cv2.imwrite(str(arguments.output), np.hstack(columns)[..., ::-1])
    return 0


def shrunk(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) at the width of one column."""
    return cv2.resize(image, (WIDTH, round(WIDTH * image.shape[0] / image.shape[1])), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    sys.exit(main())
