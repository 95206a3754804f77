"""Types of messages and services by name: the Python class that ROS generated."""

from __future__ import annotations

import importlib
from typing import Any

from mastsam_ros.types import MissingPackageError


def message_class(name: str) -> Any:
    """The class of `package/msg/Name` or `package/srv/Name`. Raises MissingPackageError where it is not installed."""
    package, room, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{room}"), kind)
    except (ImportError, AttributeError) as error:
        raise MissingPackageError(
            f"message type {name} is not installed here: install its package '{package}'"
        ) from error
