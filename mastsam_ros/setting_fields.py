"""How a setting is declared: default, meaning and bounds, checked whenever a settings object is made."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mastsam_ros.types import SettingsError

Scalar = bool | int | float | str


@dataclass(frozen=True)
class SettingInfo:
    """One setting: its dotted path, type (bool, int, float or str), default, meaning and bounds."""

    path: str
    type: type
    default: Scalar
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False
    """True where a change needs another model or another subscription: a restart."""


def setting(
    default: Scalar,
    description: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
) -> Any:
    """A field of a settings class; the arguments as in `SettingInfo`."""
    metadata = {
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "read_only": read_only,
    }
    return field(default=default, metadata=metadata)


class Checked:
    """Validates every value when a settings object is made."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            if item.metadata:
                value = _checked(item.name, getattr(self, item.name), type(item.default), item.metadata)
                object.__setattr__(self, item.name, value)


def declared_in(kind: type, prefix: str = "") -> Iterator[SettingInfo]:
    """Every setting of a settings class and of the classes in it, in the order of declaration."""
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        if item.metadata:
            meta = item.metadata
            yield SettingInfo(
                prefix + item.name,
                type(item.default),
                item.default,  # type: ignore[arg-type]
                meta["description"],
                meta["minimum"],
                meta["maximum"],
                meta["choices"],
                meta["read_only"],
            )
        else:
            yield from declared_in(item.default_factory, f"{prefix}{item.name}.")  # type: ignore[arg-type]


def _checked(name: str, value: Any, kind: type, meta: Mapping[str, Any]) -> Any:
    # YAML 1.1 takes 1e-3 for text: its numbers have a point.
    is_number_text = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+[eE][-+]?[0-9]{1,3}", value)
    if kind is float and type(value) is not bool and (isinstance(value, int) or is_number_text):
        try:
            value = float(value)
        except OverflowError:
            raise SettingsError(f"{name} must be finite, got an integer beyond all floats") from None
    if type(value) is not kind:
        raise SettingsError(f"{name} must be {kind.__name__}, got {repr(value)[:60]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{name} must be finite, got {value}")
    minimum, maximum, choices = meta["minimum"], meta["maximum"], meta["choices"]
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        limits = f"in [{minimum}, {maximum}]" if maximum is not None else f"at least {minimum}"
        raise SettingsError(f"{name} must be {limits}, got {value}")
    if choices and value not in choices:
        raise SettingsError(f"{name} must be one of {', '.join(choices)}, got '{value}'")
    return value
