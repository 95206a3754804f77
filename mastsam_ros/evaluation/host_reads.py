"""Counts what makes the host wait for its device; where there is no GPU, on one that is pretended.

The pretended device computes on the CPU and otherwise behaves as a GPU: nothing of the CPU mixes with it, and no number
leaves it unseen.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from traceback import extract_stack
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mastsam_ros.types import ModelError

_aten = torch.ops.aten
_READING = {
    _aten._local_scalar_dense.default,
    _aten._unique2.default,
    _aten.bincount.default,
    _aten.equal.default,
    _aten.is_nonzero.default,
    _aten.masked_select.default,
    _aten.nonzero.default,
    _aten.repeat_interleave.Tensor,
    _aten.unique_consecutive.default,
    _aten.unique_dim.default,
}
"""Operations that give the host numbers, or a tensor whose size only the device knows."""
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default, _aten._index_put_impl_.default}
_COPIES = {_aten._to_copy.default, _aten.copy_.default}


class HostReads(TorchDispatchMode):
    """While it is entered, counts what makes the host wait for a device that is not the CPU.

    places: of every read, the line of this package that makes it, and the operation. A read is an operation after which
    the host knows a number that the device computed: `.item()`, `.tolist()`, `.cpu()`, `if tensor`, and what needs the
    size of its result, as `nonzero` and indexing by a mask do. A GPU is waited for until it has done all it was given.
    transfers: bytes of every tensor that is read whole. uploads: lines that take something there and wait for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self.transfers: list[int] = []

    def restart(self) -> None:
        """Counts from here on."""
        self.places.clear()
        self.uploads.clear()
        self.transfers.clear()

    @property
    def total(self) -> int:
        """All reads together."""
        return self.places.total()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Counts the operation if the host waits for it, and does it."""
        kwargs = dict(kwargs or {})
        there = any(_is_elsewhere(tensor) for tensor in _tensors((args, kwargs)))
        if func in _COPIES:
            self._count_copy(func, args, kwargs)
        elif there and (func in _READING or _is_reading_index(func, args)):
            self.places[_place(func)] += 1
        elif there and func in _INDEXING and _has_other_indices(args):
            self.uploads[_place(func)] += 1
        return self._done(func, args, kwargs)

    def _done(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)

    def _count_copy(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if func is _aten.copy_.default:
            source, target, waits = args[1], args[0].device, not (len(args) > 2 and args[2])
        else:
            source, target = args[0], kwargs.get("device") or args[0].device
            waits = not kwargs.get("non_blocking")
        if source.device.type != "cpu" and target.type == "cpu":
            self.places[_place(func)] += 1
            self.transfers.append(source.numel() * source.element_size())
        elif source.device.type == "cpu" and target.type not in ("cpu", "meta") and waits and source.numel():
            self.uploads[_place(func)] += 1


class PretendedDevice(HostReads):
    """While it is entered, tensors can be put on `device`, and are computed with on the CPU.

    As with a GPU, an operation of tensors of both raises an error, but for single numbers without axes; so does reading
    memory of the device as numpy. Results are those of the CPU, but for attention, which another kernel rounds.
    """

    def __init__(self) -> None:
        super().__init__()
        # As with "cuda", what is put there says "pretended:0": the two must not be compared.
        self.device = torch.device(_registered().type)

    def _done(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _on_cpu(func, args, kwargs)


class _There(torch.Tensor):
    """A tensor that says it is on the pretended device; `on_cpu` is it on the CPU."""

    on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> _There:
        tensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=_registered(),
        )
        tensor.on_cpu = inner
        return tensor

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"pretended({self.on_cpu!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        return _on_cpu(func, args, dict(kwargs or {}))


@functools.cache
def _registered() -> torch.device:
    """The device, known to torch from the first call on. Raises ModelError where torch is too old to know such."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
    except ImportError as error:
        raise ModelError(f"counting the host's reads without a GPU needs torch 2.10 or newer: {error}") from error
    _setup_privateuseone_for_python_backend("pretended", _Module())
    return torch.device("pretended", 0)


class _Module:
    """What torch asks of a kind of device."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def _lazy_init() -> None:
        pass

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        pass

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _on_cpu(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Does the operation on the CPU; what comes out is on the device that it would be on."""
    tensors = list(_tensors((args, kwargs)))
    there = [tensor for tensor in tensors if isinstance(tensor, _There)]
    target = kwargs.get("device")
    if there and func not in _COPIES and not (func in _INDEXING and _has_other_indices(args)):
        here = [tensor for tensor in tensors if tensor.ndim and not isinstance(tensor, _There)]
        if here:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in here)
            raise RuntimeError(f"{func} mixes tensors of the CPU, {shapes}, with those of the device")
    if target is not None:
        kwargs["device"] = torch.device("cpu") if target.type == "pretended" else target
    goes_there = bool(there) if target is None else target.type == "pretended"
    if func is _aten.copy_.default:
        goes_there = isinstance(args[0], _There)
    known = {id(tensor.on_cpu): tensor for tensor in there}
    args, kwargs = _mapped(lambda tensor: getattr(tensor, "on_cpu", tensor), (args, kwargs))
    result = func(*args, **kwargs)

    if not goes_there:
        return result
    # What was written to comes out as the tensor that was given.
    return _mapped(lambda tensor: known[id(tensor)] if id(tensor) in known else _There(tensor), result)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """All in nested tuples, lists and mappings."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, tuple | list | dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)


def _mapped(change: Callable[[torch.Tensor], Any], values: Any) -> Any:
    """The same nested tuples, lists and mappings with other tensors."""
    if isinstance(values, torch.Tensor):
        return change(values)
    if isinstance(values, dict):
        return {key: _mapped(change, value) for key, value in values.items()}
    if isinstance(values, tuple | list):
        changed = [_mapped(change, value) for value in values]
        return changed if isinstance(values, list) else tuple(changed)
    return values


def _is_elsewhere(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.device.type not in ("cpu", "meta")


def _is_reading_index(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Whether the host must know how many places of a mask are set."""
    if func is _aten.index.Tensor:
        return _has_mask(args[1])
    # Setting a masked part to one number fills it in place, without looking where.
    return func in _INDEXING and _has_mask(args[1]) and args[2].numel() != 1


def _has_other_indices(args: tuple[Any, ...]) -> bool:
    """Whether a tensor of the device is indexed by one of the CPU, which is taken there each time."""
    return _is_elsewhere(args[0]) and any(index is not None and not _is_elsewhere(index) for index in args[1])


def _has_mask(indices: Sequence[torch.Tensor | None]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _place(func: Callable[..., Any]) -> str:
    """The innermost frame of this package, this file aside, and the operation."""
    for frame in reversed(extract_stack()):
        if "mastsam_ros/" in frame.filename and frame.filename not in (__file__, _DEVICE_FILE):
            return f"{frame.filename.rpartition('mastsam_ros/')[2]}:{frame.lineno} {func}"
    return str(func)


_DEVICE_FILE = __file__.replace("evaluation/host_reads.py", "device.py")
"""What is called in there is placed where it is called from."""
