"""Which tracks are one instance, which are two or none, and what they are called: people said so, or it looks so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class Constraints:
    """Edits, as rules that the tracker keeps. Empty unless somebody edits, and then nothing is looked up.

    A track is what is carried and prompted, an instance what people see: without edits, they have the same id.
    shown: track -> the instance that it is a part of (must-link), 0 for what was removed; other tracks are their own.
    cuts: pairs of instances, the smaller id first, that are two things for good (cannot-link). shaped: tracks whose
    mask a person made. names: instance -> label. pieces: track -> the instance of which it looks like a piece, which
    nobody said; what people say of it comes first.
    """

    shown: dict[int, int] = field(default_factory=dict)
    cuts: set[tuple[int, int]] = field(default_factory=set)
    shaped: set[int] = field(default_factory=set)
    names: dict[int, str] = field(default_factory=dict)
    pieces: dict[int, int] = field(default_factory=dict)

    def copy(self) -> Constraints:
        """The same, to go back to."""
        return Constraints(dict(self.shown), set(self.cuts), set(self.shaped), dict(self.names), dict(self.pieces))

    def become(self, other: Constraints) -> None:
        """Takes over what `other` says in place of all that was said: for everybody who shares this object."""
        self.shown, self.cuts, self.shaped, self.names = other.shown, other.cuts, other.shaped, other.names
        self.pieces = other.pieces

    def instance(self, track: int) -> int:
        """The id under which people see a track; 0 for none."""
        return self.shown.get(track, self.pieces.get(track, track))

    def as_instances(self, tracks: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        """An image of tracks (H, W) as people see it."""
        instances = {**self.pieces, **self.shown}
        if not instances:
            return tracks
        table = np.arange(max(int(tracks.max(initial=0)), *instances) + 1, dtype=np.uint16)
        table[list(instances)] = list(instances.values())
        return table[tracks]

    def linked(self, track: int) -> bool:
        """True for the parts of a merged instance, and for what was removed."""
        return track in self.shown or (bool(self.shown) and track in self.shown.values())

    def edited(self, track: int) -> bool:
        """True where a person decided what the track is: nothing may join it with another such track."""
        return track in self.shaped or self.linked(track)

    def cut(self, first: int, second: int) -> bool:
        """True if two tracks belong to instances that a person told apart."""
        return bool(self.cuts) and _pair(self.instance(first), self.instance(second)) in self.cuts

    def link(self, track: int, instance: int) -> None:
        """The track is a part of that instance, or for 0 of none."""
        self.pieces.pop(track, None)
        if track == instance:
            self.shown.pop(track, None)
        else:
            self.shown[track] = instance

    def tell_apart(self, first: int, second: int) -> None:
        """Two instances are two."""
        if first != second and first and second:
            self.cuts.add(_pair(first, second))

    def follow(self, instance: int, into: int) -> None:
        """The pieces of an instance are pieces of another one."""
        self.pieces = {track: into if whole == instance else whole for track, whole in self.pieces.items()}

    def merged(self, instance: int, into: int) -> None:
        """What was said of an instance holds for the one that it became: its cuts, and its name if that one has none.

        For `into` 0 the instance was removed, and nothing of it stays.
        """
        name = self.names.pop(instance, "")
        self.follow(instance, into)
        moved = {tuple(into if id == instance else id for id in pair) for pair in self.cuts}
        self.cuts = {_pair(first, second) for first, second in moved if first != second and first and second}
        if into and name:
            self.names.setdefault(into, name)

    def keep_only(self, tracks: Iterable[int]) -> None:
        """Drops what was said of tracks and instances that no longer exist."""
        if not (self.shown or self.cuts or self.shaped or self.names or self.pieces):
            return
        tracks = set(tracks)
        self.shown = {track: instance for track, instance in self.shown.items() if track in tracks}
        self.pieces = {track: instance for track, instance in self.pieces.items() if track in tracks}
        self.shaped &= tracks
        instances = {self.instance(track) for track in tracks}
        self.cuts = {pair for pair in self.cuts if instances.issuperset(pair)}
        self.names = {id: name for id, name in self.names.items() if id in instances}

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as JSON takes them."""
        return {
            "shown_as": {str(track): instance for track, instance in sorted(self.shown.items())},
            "apart": [list(pair) for pair in sorted(self.cuts)],
            "shaped": sorted(self.shaped),
            "labels": {str(id): name for id, name in sorted(self.names.items())},
            "pieces": {str(track): instance for track, instance in sorted(self.pieces.items())},
        }

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> Constraints:
        """What `to_mapping` gave. Raises KeyError, TypeError or ValueError for anything else."""
        return Constraints(
            {int(track): int(instance) for track, instance in values["shown_as"].items()},
            {_pair(int(first), int(second)) for first, second in values["apart"]},
            {int(track) for track in values["shaped"]},
            {int(id): str(name) for id, name in values["labels"].items()},
            # Maps of the first version have none.
            {int(track): int(instance) for track, instance in values.get("pieces", {}).items()},
        )


def _pair(first: int, second: int) -> tuple[int, int]:
    return (first, second) if first < second else (second, first)
