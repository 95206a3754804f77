"""Definitions of message types, for bags that are written and read without ROS."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mastsam_ros.types import MissingPackageError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore


def store_with(names: set[str]) -> Typestore:
    """rosbags' type store with these types and what they contain; unknown ones are read from the installed packages.

    Raises MissingPackageError for a type whose definition is nowhere.
    """
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    pending, added = set(names), {}
    while pending:
        name = pending.pop()
        if name in store.fielddefs or name in added:
            continue
        found = get_types_from_msg(_definition(name), name)
        added.update(found)
        pending.update(_contained(found[name]))
    store.register(added)
    return store


def _contained(definition: Any) -> set[str]:
    """Names of the message types in a definition's fields, through arrays and sequences."""
    names, pending = set(), [field[1] for field in definition[1]]
    while pending:
        _, detail = pending.pop()
        if isinstance(detail, str):
            if "/" in detail:
                names.add(detail)
        elif isinstance(detail[0], tuple):
            pending.append(detail[0])
    return names


def _definition(name: str) -> str:
    package, _, kind = name.split("/")
    for folder in _folders(package):
        path = folder / f"{kind}.msg"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise MissingPackageError(f"no definition of {name} below share/{package}/msg: install its package '{package}'")


def _folders(package: str) -> Iterator[Path]:
    """Where a package's definitions may lie: this package's own in the checkout, all in what is installed."""
    if package == "mastsam_ros":
        yield Path(__file__).resolve().parents[2] / "msg"
    prefixes = [entry for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]
    for prefix in (*prefixes, sys.prefix):
        yield Path(prefix) / "share" / package / "msg"
