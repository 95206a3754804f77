"""The tiny MASt3R model of the recorded outputs: every parameter drawn from its own name."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mastsam_ros.matchers.mast3r.checkpoint import network_of_state
from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.heads import ViewPrediction
from mastsam_ros.matchers.mast3r.network import Mast3rNetwork
from mastsam_ros.matchers.mast3r.reciprocal import match_views

_FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "mast3r"


@pytest.fixture(scope="session")
def recorded() -> Path:
    """Folder of the outputs recorded from the reference implementation."""
    if not _FIXTURES.is_dir():
        pytest.skip(f"no recorded outputs at {_FIXTURES}")
    return _FIXTURES


@pytest.fixture(scope="session")
def _tiny_numbers() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Mast3rNetwork(Mast3rConfig.tiny()).state_dict().items()}
    state = {name: _drawn(name, shape) for name, shape in shapes.items()}
    for head in (1, 2):
        scratch = f"downstream_head{head}.dpt.scratch"
        for index in range(4):
            state[f"{scratch}.layer{index + 1}_rn.weight"] = state[f"{scratch}.layer_rn.{index}.weight"]
    return state


@pytest.fixture
def tiny_state(_tiny_numbers: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name -> tensor of the tiny model; a copy that a test may change."""
    copies = {id(tensor): tensor.clone() for tensor in _tiny_numbers.values()}
    return {name: copies[id(tensor)] for name, tensor in _tiny_numbers.items()}


@pytest.fixture
def tiny_network(tiny_state: dict[str, torch.Tensor]) -> Mast3rNetwork:
    """The tiny model with its weights."""
    return network_of_state(tiny_state)


def _drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        x = x / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        x = 1 + 0.1 * x
    else:
        x = 0.05 * x
    return torch.from_numpy(x.astype(np.float32))


def reciprocal_matches(
    descriptors0: torch.Tensor, descriptors1: torch.Tensor, subsample: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """xy0, xy1 (N, 2) of two views' descriptors (H, W, D), all of them equally sure."""
    views = (
        ViewPrediction(
            points=torch.zeros(1, *descriptors.shape[:2], 3),
            confidence=torch.ones(1, *descriptors.shape[:2]),
            descriptors=descriptors[None],
            descriptor_confidence=torch.ones(1, *descriptors.shape[:2]),
        )
        for descriptors in (descriptors0, descriptors1)
    )
    xy0, xy1, _ = match_views(*views, subsample, min_confidence=0.0)
    return xy0, xy1
