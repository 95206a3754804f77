"""What this process holds of the system's memory, how much of that is in use, and how the rest is given back."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from mastsam_ros.allocator import libc

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""
_PROFILES = Path(__file__).with_name("fastdds_profiles.xml")
_NAMES_PROFILES, _NAMED_PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
"""Which profiles Fast DDS reads, from version 3 on, and before: in the distributions ..."""
_BEFORE_3 = ("foxy", "galactic", "humble", "iron", "jazzy")
"""... and beside them these in the working directory:"""
_LIES_THERE = ("DEFAULT_FASTDDS_PROFILES.xml", "DEFAULT_FASTRTPS_PROFILES.xml")
_TAKES_PROFILES, _PUBLICATION_MODE = "RMW_FASTRTPS_USE_QOS_FROM_XML", "RMW_FASTRTPS_PUBLICATION_MODE"


class _Heap(ctypes.Structure):
    """glibc's `struct mallinfo2`: bytes over all arenas."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "free_chunks", "fast_chunks", "mapped_blocks", "mapped", "_", "fast_free"),
            *("in_use", "free", "releasable"),
        )
    ]


def resident_megabytes(pid: int | None = None, shared: bool = False) -> float:
    """Memory that a process holds, by default this one, or what of that is shared memory, in which DDS hands messages
    over; 0 where the system does not tell."""
    key = "RssShmem:" if shared else "VmRSS:"
    try:
        with open(f"/proc/{pid or 'self'}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(key):
                    return int(line.split()[1]) / 1024
    except OSError:
        return 0.0
    return 0.0


def heap_megabytes() -> float | None:
    """Memory of this process that its parts asked malloc for and have not freed; None where malloc is not glibc's.

    What grows here grows for a reason. What grows in `resident_megabytes` alone is free memory between blocks in use.
    """
    told = getattr(libc(), "mallinfo2", None)
    if told is None:
        return None
    told.restype = _Heap
    heap = told()
    return float(heap.in_use + heap.mapped) / 2**20


def one_arena() -> None:
    """Has all threads take their memory from one arena, unless MALLOC_ARENA_MAX says otherwise. To be called before
    there are threads.

    By default glibc makes arenas of their own for the model's two threads and for those of DDS. What is free in one of
    them cannot be used in another, and what is free at its end is not given back by `give_back`.
    """
    choose = getattr(libc(), "mallopt", None)
    if choose is not None and "MALLOC_ARENA_MAX" not in os.environ:
        choose(_M_ARENA_MAX, 1)


def free_messages() -> bool:
    """Has Fast DDS free the memory of a message that nobody waits for any more. To be called before rclpy is there.

    By itself it keeps, for good, as many as a topic is deep, as large as the largest was, and fills them one by one as
    subscribers fall behind. False, and nothing is changed, where somebody has chosen Fast DDS profiles of their own.
    """
    chosen = any(name in os.environ for name in (_NAMES_PROFILES, _NAMED_PROFILES, _TAKES_PROFILES, _PUBLICATION_MODE))
    if chosen or any(Path(name).exists() for name in _LIES_THERE):
        return False
    # Newer ones complain of the old name.
    name = _NAMED_PROFILES if os.environ.get("ROS_DISTRO") in _BEFORE_3 else _NAMES_PROFILES
    os.environ.update({name: str(_PROFILES), _TAKES_PROFILES: "1"})
    return True


def give_back() -> bool:
    """Gives the system back the free memory that malloc keeps; False where malloc is not glibc's.

    A step makes and frees arrays, and what is kept lies between them: the free memory falls to pieces that no later
    array fits, and by itself glibc gives back only what is free at the end. Takes a few milliseconds, while a thread
    that asks for memory waits.
    """
    trim = getattr(libc(), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)
    return True
