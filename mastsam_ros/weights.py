"""Weights from files: .pth (weights only, nothing in it is executed) and safetensors; what does not fit is named."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

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


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Name -> tensor on the CPU, from a .pth (a mapping of tensors, or one under the key 'model') or .safetensors file.

    Raises ModelError for a file that is absent, truncated, damaged or holds something else; MissingPackageError for
    .safetensors where the package `safetensors` is not installed, and for .pth where torch is too old for it.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no file of weights at '{path}'")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if zipfile.is_zipfile(path):
        return _read_pth(path)
    raise ModelError(
        f"{path} ({path.stat().st_size} bytes) is not a checkpoint of torch, or is truncated: fetch it again"
    )


def require_fit(model: str, expected: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> None:
    """Raises ModelError that names missing, unexpected and misshapen tensors, unless `weights` fit `expected`."""
    faults = _listed("missing", [name for name in expected if name not in weights])
    faults += _listed("unexpected", [name for name in weights if name not in expected])
    faults += _listed(
        "wrong shape",
        [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in weights and weights[name].shape != tensor.shape
        ],
    )
    if faults:
        raise ModelError(f"the weights do not fit {model}: {'; '.join(faults)}")


class _Inert:
    """Stands for anything but tensors that a pickle names (training arguments and the like): it does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _read_pth(path: Path) -> dict[str, torch.Tensor]:
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise MissingPackageError(f"reading {path.name} safely needs torch 2.6 or newer, this is {torch.__version__}")
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


def _listed(fault: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{fault}: {', '.join(names[:3])}{more}"]


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:200]
