"""The one device that tensors live on."""

from __future__ import annotations

import torch

from mastsam_ros.types import SettingsError


def torch_device(name: str) -> torch.device:
    """`auto`, `cuda` or `cpu` as a device. Raises SettingsError for `cuda` without a GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device is 'cuda' but torch finds no CUDA GPU: use device: auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
