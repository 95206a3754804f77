"""Reads MASt3R's weights: the published .pth (weights only, nothing in it is executed) and safetensors."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.network import Mast3rNetwork
from mastsam_ros.types import MissingPackageError, ModelError

_FAULTS = (
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
)
"""What reading a damaged or foreign file raises."""


def load_network(path: str | Path) -> Mast3rNetwork:
    """The network with the weights of a .pth or .safetensors file: float32, on the CPU, in evaluation mode.

    Raises ModelError, naming what does not fit, for a file that is absent, truncated, damaged, or holds another
    model; MissingPackageError for a .safetensors file where the package `safetensors` is not installed.
    """
    if not Path(path).is_file():
        raise ModelError(f"no MASt3R checkpoint at '{path}': set mast3r.checkpoint to the .pth or .safetensors file")
    path = Path(path)
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    elif zipfile.is_zipfile(path):
        state = _read_pth(path)
    else:
        raise ModelError(
            f"{path} ({path.stat().st_size} bytes) is not a checkpoint of torch, or is truncated: fetch it again"
        )
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
    expected = network.state_dict()
    faults = _listed("missing", [name for name in expected if name not in state])
    faults += _listed("unexpected", [name for name in state if name not in expected])
    faults += _listed(
        "wrong shape",
        [
            f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ],
    )
    if faults:
        raise ModelError(f"the weights do not fit MASt3R: {'; '.join(faults)}")
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


class _Inert:
    """Stands for anything but tensors that a pickle names (training arguments and the like): it does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _read_pth(path: Path) -> dict[str, torch.Tensor]:
    try:
        # torch's weights-only reader builds tensors and plain containers and refuses every other name in the pickle.
        # The published file holds training arguments beside the weights: their types are read as _Inert.
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Inert, name) for name in foreign]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except _FAULTS as error:
        raise ModelError(f"{path} cannot be read as a checkpoint of torch: {_first_line(error)}") from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds {type(content).__name__}, expected a mapping of names to tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ModelError(f"{path}: '{name}' is {type(value).__name__}, expected names of tensors, or 'model'")
    return dict(content)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingPackageError(f"reading {path.name} needs safetensors: pip install safetensors") from error
    try:
        return load_file(path)
    except (SafetensorError, *_FAULTS) as error:
        raise ModelError(f"{path} is not a safetensors file, or is truncated: {_first_line(error)}") from error


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


def _listed(fault: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{fault}: {', '.join(names[:3])}{more}"]


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:200]
