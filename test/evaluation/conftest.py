"""Data for the evaluation's tests: random label sequences, and the shared sequences where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mastsam_ros.evaluation.overlaps import FrameOverlap, frame_overlap

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    return _shared


@pytest.fixture(scope="session")
def random_labels() -> Callable[..., tuple[list[np.ndarray], list[np.ndarray]]]:
    return _random_labels


@pytest.fixture(scope="session")
def overlaps_of() -> Callable[[list[np.ndarray], list[np.ndarray]], list[FrameOverlap]]:
    return _overlaps_of


def _shared(part: str) -> Path:
    """A folder of the shared data; skips the test where it is not there."""
    root = Path(os.environ.get("MASTSAM_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = root.parent / part if part.startswith("fixtures") else root / part
    if not folder.exists():
        pytest.skip(f"{folder} is not there (set MASTSAM_DATA)")
    return folder


def _random_labels(seed: int, frames: int = 12, size: int = 24) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(predictions, truths): drifting rectangles, whose predicted copies are shifted, renamed, dropped and split."""
    random = np.random.default_rng(seed)
    boxes = [(random.integers(0, size - 8, 2), random.integers(4, 10, 2), random.integers(-1, 2, 2)) for _ in range(5)]
    predictions, truths = [], []
    for t in range(frames):
        truth, prediction = np.zeros((size, size), np.uint16), np.zeros((size, size), np.uint16)
        for n, (corner, extent, speed) in enumerate(boxes, start=1):
            y, x = np.clip(corner + t * speed, 0, size - 2)
            truth[y : y + extent[0], x : x + extent[1]] = n
            if random.random() < 0.15:
                continue
            dy, dx = random.integers(-1, 2, 2)
            id = n + 10 if t < 7 or n % 2 else n + 20
            prediction[max(0, y + dy) : y + dy + extent[0], max(0, x + dx) : x + dx + extent[1]] = id
        if random.random() < 0.5:
            prediction[:3, :5] = 40
        if t == 3:
            prediction[:] = 0
        if t == 5:
            truth[:] = 0
        predictions.append(prediction)
        truths.append(truth)
    return predictions, truths


def _overlaps_of(predictions: list[np.ndarray], truths: list[np.ndarray]) -> list[FrameOverlap]:
    """The counts of every frame."""
    return [frame_overlap(p, t) for p, t in zip(predictions, truths, strict=True)]
