"""What is known of every frame of a sequence, kept in a temporary file: the memory does not grow with its length."""

from __future__ import annotations

import os
import pickle
from array import array
from collections.abc import Sequence
from tempfile import TemporaryFile
from typing import IO, Generic, TypeVar, overload

Item = TypeVar("Item")


class FrameLog(Sequence[Item], Generic[Item]):
    """A sequence that is appended to and read again; in memory is only where each item begins. Not for other processes.

    A slice is a view of the same file.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = TemporaryFile(prefix="mastsam_frames_", buffering=0)  # noqa: SIM115 - closed with its last view
        self._places = array("q")
        self._end = 0

    def append(self, item: Item) -> None:
        """Adds one item, which must be picklable."""
        content = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
        os.pwrite(self._file.fileno(), len(content).to_bytes(8, "little") + content, self._end)
        self._places.append(self._end)
        self._end += 8 + len(content)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> FrameLog[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | FrameLog[Item]:
        if isinstance(index, slice):
            view: FrameLog[Item] = FrameLog.__new__(FrameLog)
            view._file, view._places, view._end = self._file, self._places[index], self._end
            return view
        place = self._places[index]
        size = int.from_bytes(os.pread(self._file.fileno(), 8, place), "little")
        item: Item = pickle.loads(os.pread(self._file.fileno(), size, place + 8))
        return item
