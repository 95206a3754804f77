"""The one device that tensors live on, how many threads small tensors get, and what is said when it is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mastsam_ros.types import ModelError, SettingsError


def torch_device(name: str) -> torch.device:
    """`auto`, `cuda` or `cpu` as a device. Raises SettingsError for `cuda` without a GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device is 'cuda' but torch finds no CUDA GPU: use device: auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def one_thread(device: torch.device | None = None) -> Iterator[None]:
    """Keeps torch to one thread on the CPU meanwhile; changes nothing for a GPU.

    The tracker's tensors are small: more threads gain nothing, and where the cores are shared, threads that spin
    while they wait for each other made a step ten times slower.
    """
    if device is not None and device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def out_of_memory_told(cure: str) -> Iterator[None]:
    """Turns a GPU that is full into a ModelError that says so and what to do: `cure`."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        used = torch.cuda.memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
        raise ModelError(f"the GPU's memory is full, {used:.1f} GB are in use here: {cure}") from error
