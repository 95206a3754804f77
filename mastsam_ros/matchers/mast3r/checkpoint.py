"""Reads MASt3R's weights, and names what does not fit where they are another model's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.network import Mast3rNetwork
from mastsam_ros.types import ModelError
from mastsam_ros.weights import read_weights, require_fit


def load_network(path: str | Path) -> Mast3rNetwork:
    """The network with the weights of a .pth or .safetensors file: float32, on the CPU, in evaluation mode.

    Raises ModelError, naming what does not fit, for a file that is absent, truncated, damaged, or holds another
    model; MissingPackageError where a package is missing that reads it.
    """
    if not Path(path).is_file():
        raise ModelError(
            f"no MASt3R checkpoint at '{path}': set mast3r.checkpoint to the .pth or .safetensors file,"
            " or run `mastsam weights fetch mast3r`"
        )
    state = read_weights(path)
    try:
        return network_of_state(state)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def network_of_state(state: Mapping[str, torch.Tensor]) -> Mast3rNetwork:
    """The network that the shapes of `state` (name -> tensor) imply, holding its numbers as float32.

    Raises ModelError that names missing, unexpected and misshapen tensors.
    """
    state = _with_both_names({name: tensor.float() for name, tensor in state.items()})
    with torch.device("meta"):
        network = Mast3rNetwork(Mast3rConfig.of_state_dict(state))
    require_fit("MASt3R", network.state_dict(), state)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _with_both_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gives the convolutions that the network names twice both names; safetensors files store shared tensors once."""
    for head in ("downstream_head1", "downstream_head2"):
        for index in range(4):
            first = f"{head}.dpt.scratch.layer{index + 1}_rn.weight"
            second = f"{head}.dpt.scratch.layer_rn.{index}.weight"
            if first in state and second not in state:
                state[second] = state[first]
            elif second in state:
                state[first] = state[second]
    return state
