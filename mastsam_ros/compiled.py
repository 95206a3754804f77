"""Loops over pixels and regions that no library offers, compiled to machine code by Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

_Function = TypeVar("_Function", bound=Callable)


def compiled(signature: str) -> Callable[[_Function], _Function]:
    """Compiles a function for arguments of exactly these types, in Numba's words: `float64[::1](int32[:, ::1])`.

    That takes up to a second when the module is imported for the first time on a machine; afterwards the code comes
    from disk, from `__pycache__` or $NUMBA_CACHE_DIR. It runs on one thread, without the interpreter's lock, and
    rounds as Python does. What it is given is not checked: an index out of range is no error. Unsigned numbers stay
    unsigned, `int(...)` or not: differences of bytes are taken of np.int32(...).
    """

    def compile_(function: _Function) -> _Function:
        try:
            return numba.njit(signature, nogil=True, cache=True)(function)
        except RuntimeError:
            # There is no folder that can be written.
            return numba.njit(signature, nogil=True)(function)

    return compile_
