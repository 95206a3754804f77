"""The network against the outputs recorded from the reference implementation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.network import Mast3rNetwork
from mastsam_ros.types import InputError


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("mast3r_vitl_state_dict.json", Mast3rConfig()),
        ("mast3r_tiny_state_dict.json", Mast3rConfig.tiny()),
    ],
)
def test_parameters_have_the_names_and_shapes_of_the_released_model(
    recorded: Path, file: str, config: Mast3rConfig
) -> None:
    expected = json.loads((recorded / file).read_text())
    with torch.device("meta"):
        state = Mast3rNetwork(config).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == expected
    assert Mast3rConfig.of_state_dict(state) == config


@pytest.mark.parametrize("shape", ["landscape", "portrait", "square"])
def test_outputs_equal_the_recorded_ones(recorded: Path, tiny_network: Mast3rNetwork, shape: str) -> None:
    golden = np.load(recorded / "mast3r_tiny_golden.npz")
    image1, image2 = (torch.from_numpy(golden[f"{shape}/image{n}"]) for n in (1, 2))
    tokens = tiny_network.encode(image1).tokens
    first, second = tiny_network(image1, image2)
    actual = {
        "encoder_tokens_view1": tokens,
        "view1/pts3d": first.points,
        "view1/conf": first.confidence,
        "view1/desc": first.descriptors,
        "view1/desc_conf": first.descriptor_confidence,
        "view2/pts3d_in_other_view": second.points,
        "view2/conf": second.confidence,
        "view2/desc": second.descriptors,
        "view2/desc_conf": second.descriptor_confidence,
    }
    assert {f"{shape}/{name}" for name in actual} | {f"{shape}/image1", f"{shape}/image2"} == {
        name for name in golden if name.startswith(f"{shape}/")
    }
    for name, tensor in actual.items():
        expected = golden[f"{shape}/{name}"]
        assert tensor.shape == expected.shape, name
        if expected.ndim == 4:  # vectors of a pixel: relative to each one's length
            error = np.linalg.norm(tensor.numpy() - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
        elif name == "encoder_tokens_view1":
            error = np.abs(tensor.numpy() - expected) / np.abs(expected).max()
        else:
            error = np.abs(tensor.numpy() - expected) / expected
        assert error.max() <= 1e-4, name


def test_an_odd_number_of_patches_gives_the_images_size(tiny_network: Mast3rNetwork) -> None:
    first, second = tiny_network(torch.zeros(1, 3, 48, 80), torch.zeros(1, 3, 16, 48))
    assert first.points.shape == (1, 48, 80, 3)
    assert second.descriptors.shape == (1, 16, 48, 24)


@pytest.mark.parametrize("shape", [(1, 3, 33, 48), (1, 4, 32, 48), (3, 32, 48)])
def test_an_image_of_another_form_is_refused(tiny_network: Mast3rNetwork, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"multiples of 16.*got"):
        tiny_network.encode(torch.zeros(shape))


def test_half_precision_stays_near_single_precision(recorded: Path, tiny_network: Mast3rNetwork) -> None:
    golden = np.load(recorded / "mast3r_tiny_golden.npz")
    images = [torch.from_numpy(golden[f"landscape/image{n}"]) for n in (1, 2)]
    exact, _ = tiny_network(*images)
    half, _ = tiny_network.to(torch.bfloat16)(*images)
    assert half.points.dtype == half.descriptors.dtype == torch.float32
    assert (half.descriptors * exact.descriptors).sum(dim=-1).median() > 0.99
