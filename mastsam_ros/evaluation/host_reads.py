"""Counts where a computation waits for its device because the host reads from it; a CPU shows the same as a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from traceback import extract_stack
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

_READING = {
    torch.Tensor.__bool__,
    torch.Tensor.__contains__,
    torch.Tensor.__float__,
    torch.Tensor.__index__,
    torch.Tensor.__int__,
    torch.Tensor.cpu,
    torch.Tensor.equal,
    torch.Tensor.item,
    torch.Tensor.masked_select,
    torch.Tensor.nonzero,
    torch.Tensor.tolist,
    torch.Tensor.unique,
    torch.allclose,
    torch.bincount,
    torch.Tensor.bincount,
    torch.equal,
    torch.masked_select,
    torch.nonzero,
    torch.unique,
}
"""Calls that give the host numbers, or a tensor whose size only the device knows."""
_INDEXING = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)


class HostReads(TorchFunctionMode):
    """While it is entered, counts the reads by the line of this package that makes them: `places`, `total`.

    A read is a call after which the host knows a number that the device computed: `.item()`, `.tolist()`, `.cpu()`,
    `if tensor`, and what needs the size of its result, as `nonzero` and indexing by a mask do. On a GPU each waits
    until the device has done all that it was given. `transfers`: bytes of every tensor that is read whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()
        self.transfers: list[int] = []

    @property
    def total(self) -> int:
        """All reads together."""
        return self.places.total()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Counts the call if it reads, and makes it."""
        if func in _READING or _is_reading_index(func, args) or _is_repeat_by_tensor(func, args):
            self.places[_place(func)] += 1
            if func in (torch.Tensor.cpu, torch.Tensor.tolist):
                self.transfers.append(args[0].numel() * args[0].element_size())
        return func(*args, **(kwargs or {}))


def _is_reading_index(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Whether the host must know the values of an index: those of a mask, or the one of a tensor without axes."""
    if func not in _INDEXING:
        return False
    parts = args[1] if isinstance(args[1], tuple) else (args[1],)
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    masked = any(part.dtype == torch.bool and part.ndim for part in tensors)
    # Setting a masked part to one number fills it in place, without looking where.
    if masked and not (func is torch.Tensor.__setitem__ and not isinstance(args[2], torch.Tensor)):
        return True
    return any(part.dtype != torch.bool and part.ndim == 0 for part in tensors)


def _is_repeat_by_tensor(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    repeats = func in (torch.repeat_interleave, torch.Tensor.repeat_interleave)
    return repeats and len(args) > 1 and isinstance(args[1], torch.Tensor)


def _place(func: Callable[..., Any]) -> str:
    """The innermost frame of this package, this file aside, and what it calls."""
    for frame in reversed(extract_stack()):
        if "mastsam_ros" in frame.filename and frame.filename != __file__:
            place = frame.filename.rpartition("mastsam_ros/")[2]
            return f"{place}:{frame.lineno} {resolve_name(func) or func.__name__}"
    return str(resolve_name(func))
