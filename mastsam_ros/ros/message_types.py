"""Message types by name: the Python class, and the definition that a bag stores beside the messages."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mastsam_ros.types import MissingPackageError


def message_class(name: str) -> Any:
    """The class of `package/msg/Name`. Raises MissingPackageError where it is not installed."""
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError) as error:
        raise MissingPackageError(
            f"message type {name} is not installed here: install its package '{package}'"
        ) from error


def store_with(names: set[str]) -> Typestore:
    """rosbags' type store with these types and what they contain; unknown ones are read from the installed packages.

    Raises MissingPackageError for a type whose definition is nowhere.
    """
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
    prefixes = [entry for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]
    for prefix in (*prefixes, sys.prefix):
        path = Path(prefix) / "share" / package / "msg" / f"{kind}.msg"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise MissingPackageError(f"no definition of {name} below share/{package}/msg: install its package '{package}'")
