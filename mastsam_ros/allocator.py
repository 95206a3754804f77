"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import functools
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""What glibc's malloc.h calls M_..."""
_KEPT_BYTES, _LARGEST_KEPT_BYTES = 1 << 28, 1 << 25
_CHOSEN_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Has the C library keep what this process frees for what it takes next, up to 256 MB in blocks of up to 32 MB.

    A step takes and frees hundreds of images. Left alone, glibc gives many of them back to the system at once:
    thousands of pages a frame, each of which comes back cleared and by a fault, for which other threads wait. True if
    it keeps them now; False where the C library is another one, or the environment has chosen
    (MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_ or GLIBC_TUNABLES).
    """
    if any(name in os.environ for name in _CHOSEN_BY):
        return False
    choose = getattr(libc(), "mallopt", None)
    if choose is None:
        return False
    return bool(choose(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES) and choose(_TRIM_THRESHOLD, _KEPT_BYTES))


@functools.cache
def libc() -> ctypes.CDLL:
    """The C library of this process; what is special to one of them is an attribute that others do not have."""
    return ctypes.CDLL(None)
