"""The one device that tensors live on: what goes there and comes back, who waits for it, and what is said when it is
full.

A GPU computes behind the host's back; the host waits for it whenever it asks for a number, or for a tensor whose size
only the device knows. So whatever a step does between its few transfers is written without such a question. On the CPU
asking costs nothing, and saves work that would change nothing: `looking_is_free` and `places` tell the two apart.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits

from mastsam_ros.types import ModelError, SettingsError


def torch_device(name: str) -> torch.device:
    """`auto`, `cuda` or `cpu` as a device. Raises SettingsError for `cuda` without a GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device is 'cuda' but torch finds no CUDA GPU: use device: auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def looking_is_free(device: torch.device) -> bool:
    """Whether the host may look at numbers of the device without waiting for it."""
    return device.type == "cpu"


def places(flags: torch.Tensor) -> torch.Tensor:
    """Indices (M,) int64 into flags (N,) bool of all that are set; where that has to be waited for, of all there are.

    What is done at the places must leave alone, or undo, what it does where the flag is not set.
    """
    if looking_is_free(flags.device):
        return torch.nonzero(flags).flatten()
    return torch.arange(len(flags), device=flags.device)


def upload(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """An array or list of the host on the device, without waiting until it is there; on the CPU the array itself."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # from other memory a copy waits for what the device was given before
    return tensor.to(device, non_blocking=True)


@functools.lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """A few float32 numbers that every frame needs, taken to the device once. Not to be written to."""
    return upload(values, device, torch.float32)


def on_host(*tensors: torch.Tensor) -> list[npt.NDArray[Any]]:
    """The tensors as arrays of the same shapes and types, in one transfer; on the CPU the tensors' own memory."""
    if all(looking_is_free(tensor.device) for tensor in tensors):
        return [tensor.numpy() for tensor in tensors]
    flat = [tensor.reshape(-1).view(torch.uint8) for tensor in tensors]
    sizes = [len(part) for part in flat]
    # Each starts at a multiple of eight bytes, as every type may.
    packed = torch.cat([F.pad(part, (0, -len(part) % 8)) for part in flat]).cpu().numpy()
    starts = np.cumsum([0, *(size + -size % 8 for size in sizes)])
    return [
        packed[start : start + size].view(torch.empty(0, dtype=tensor.dtype).numpy().dtype).reshape(tensor.shape)
        for tensor, start, size in zip(tensors, starts, sizes, strict=False)
    ]


def use_threads(count: int) -> None:
    """Has torch and OpenCV compute with so many threads in this process; 0 leaves them as they are.

    numpy's BLAS always has one: its products are small here, and beside a core that is busy a thread of its own is
    waited for longer than it saves.
    """
    threadpool_limits(1, user_api="blas")
    if count > 0:
        torch.set_num_threads(count)
        cv2.setNumThreads(count)


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
