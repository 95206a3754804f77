"""Edits in a file: what `mastsam run --prompts` reads, checked entry by entry before the first frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mastsam_ros.types import EditError, InputError

if TYPE_CHECKING:
    from mastsam_ros.pipeline import Mastsam

_KINDS: dict[str, frozenset[str]] = {
    "add": frozenset({"points", "on_instance", "box", "label"}),
    "split": frozenset({"id", "points", "label"}),
    "merge": frozenset({"ids"}),
    "remove": frozenset({"id"}),
    "rename": frozenset({"id", "label"}),
}


@dataclass(frozen=True)
class _Entry:
    """One edit. place: how errors name it. frame: a stem, or an index from 0."""

    place: str
    frame: str | int
    kind: str
    what: Mapping[str, Any]


class Prompts:
    """The edits of a file, in its order. Raises InputError, naming the entry, for a file that is none."""

    def __init__(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}") from error
        entries = content.get("prompts") if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise InputError(f'{path} must hold {{"prompts": [...]}}')
        self._waiting = [_entry(entry, f"{path}, prompt {n}") for n, entry in enumerate(entries, start=1)]
        self._ids: dict[str, int] = {}

    def apply(self, mastsam: Mastsam, stem: str, index: int) -> bool:
        """Does what is asked for at this frame, which was the last step; True if there was anything.

        Raises EditError, naming the entry, for what cannot be done.
        """
        due = [entry for entry in self._waiting if entry.frame in (stem, index)]
        self._waiting = [entry for entry in self._waiting if entry not in due]
        for entry in due:
            try:
                self._do(mastsam, entry.kind, entry.what)
            except EditError as error:
                raise EditError(f"{entry.place}: {error}") from None
        return bool(due)

    def first(self, stems: Sequence[str]) -> int | None:
        """Which of the frames of a set the first entry is for; None for none of them."""
        for entry in self._waiting[:1]:
            if isinstance(entry.frame, int):
                return entry.frame if entry.frame < len(stems) else None
            return stems.index(entry.frame) if entry.frame in stems else None
        return None

    def finish(self) -> None:
        """Raises InputError if a prompt's frame never came."""
        if self._waiting:
            entry = self._waiting[0]
            raise InputError(f"{entry.place}: there is no frame {entry.frame!r}: give a stem, or an index from 0")

    def _do(self, mastsam: Mastsam, kind: str, what: Mapping[str, Any]) -> None:
        label = what.get("label", "")
        if kind == "add":
            id = mastsam.add_instance(what.get("points", ()), what.get("on_instance"), what.get("box"), label=label)
        elif kind == "split":
            id = mastsam.split_instance(self._id(what["id"]), what["points"], label=label)
        elif kind == "merge":
            mastsam.merge_instances([self._id(name) for name in what["ids"]])
            return
        elif kind == "remove":
            mastsam.remove_instance(self._id(what["id"]))
            return
        else:
            id = self._id(what["id"])
            mastsam.rename_instance(id, label)
        if label:
            self._ids[label] = id

    def _id(self, name: int | str) -> int:
        if isinstance(name, int):
            return name
        if name not in self._ids:
            raise EditError(f"no prompt before this one gave the label '{name}'")
        return self._ids[name]


def _entry(value: Any, place: str) -> _Entry:
    """An entry of the file, checked."""
    if not isinstance(value, dict) or len(value) != 2 or "frame" not in value:
        raise InputError(f"{place}: an entry has 'frame' and one of {', '.join(_KINDS)}")
    kind = next(key for key in value if key != "frame")
    frame, what = value["frame"], value[kind]
    if kind not in _KINDS:
        raise InputError(f"{place}: unknown '{kind}', expected one of {', '.join(_KINDS)}")
    if isinstance(frame, bool) or not isinstance(frame, str | int):
        raise InputError(f"{place}: 'frame' must be a stem (text) or an index from 0, got {frame!r}")
    if not isinstance(what, dict):
        raise InputError(f"{place}: '{kind}' must be an object with {', '.join(sorted(_KINDS[kind]))}")
    if unknown := what.keys() - _KINDS[kind]:
        raise InputError(f"{place}: '{kind}' knows {', '.join(sorted(_KINDS[kind]))}, not {sorted(unknown)[0]!r}")
    needed = {"add": (), "split": ("id", "points"), "merge": ("ids",), "remove": ("id",), "rename": ("id", "label")}
    for name in needed[kind]:
        if name not in what:
            raise InputError(f"{place}: '{kind}' needs '{name}'")
    if not isinstance(what.get("label", ""), str):
        raise InputError(f"{place}: 'label' must be text, got {what['label']!r}")
    for name in ([what["id"]] if "id" in what else []) + list(_listed(what, "ids", place)):
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise InputError(f"{place}: an id is a number, or the label that an earlier prompt gave, got {name!r}")
    for point in _listed(what, "points", place):
        if not isinstance(point, list) or len(point) != 2 or not all(_is_number(value) for value in point):
            raise InputError(f"{place}: a point is [x, y], got {point!r}")
    if not all(isinstance(flag, bool) for flag in _listed(what, "on_instance", place)):
        raise InputError(f"{place}: 'on_instance' must hold true or false for each point")
    box = _listed(what, "box", place)
    if box and (len(box) != 4 or not all(_is_number(value) for value in box)):
        raise InputError(f"{place}: 'box' must be [x, y, width, height], got {box!r}")
    return _Entry(place, frame, kind, what)


def _listed(what: Mapping[str, Any], name: str, place: str) -> list[Any]:
    values = what.get(name, [])
    if not isinstance(values, list):
        raise InputError(f"{place}: '{name}' must be a list, got {values!r}")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
