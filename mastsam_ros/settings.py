"""Every setting of every stage: frozen dataclasses, the only home of defaults.

YAML <-> dataclass <-> ROS parameters go through this module; an unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

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


def _setting(
    default: Scalar,
    description: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
) -> Any:
    metadata = {
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "read_only": read_only,
    }
    return field(default=default, metadata=metadata)


class _Checked:
    """Validates every value when a settings object is made."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            if item.metadata:
                value = _checked(item.name, getattr(self, item.name), type(item.default), item.metadata)
                object.__setattr__(self, item.name, value)


@dataclass(frozen=True)
class FrameSettings(_Checked):
    """What is done to an image before anything else."""

    working_pixels: int = _setting(
        160_000,
        "Images with more pixels are shrunk to about this many for matching, segmentation and tracking;"
        " labels come out at full size. 0: never shrink.",
        0,
        16_000_000,
    )
    use_depth: bool = _setting(True, "Use the depth image where there is one.")


@dataclass(frozen=True)
class MatcherSettings(_Checked):
    """Which matcher, and what every matcher shares."""

    name: str = _setting("flow", "Matcher: flow (embedded default).", choices=("flow",), read_only=True)


@dataclass(frozen=True)
class FlowSettings(_Checked):
    """The embedded default's matcher: dense inverse search optical flow, forward and backward."""

    scale: float = _setting(0.75, "Flow is computed at this share of the working size.", 0.1, 1.0)
    relative_tolerance: float = _setting(
        0.02, "A match is kept if the squared forward-backward error is below this share of the squared motion...", 0, 1
    )
    absolute_tolerance: float = _setting(0.25, "... plus this many square pixels.", 0, 100)


@dataclass(frozen=True)
class SegmenterSettings(_Checked):
    """Which segmenter, and what every segmenter shares."""

    name: str = _setting("regions", "Segmenter: regions (embedded default).", choices=("regions",), read_only=True)


@dataclass(frozen=True)
class RegionsSettings(_Checked):
    """The embedded default's segmenter: superpixels, hierarchy, motion and depth evidence."""


@dataclass(frozen=True)
class TrackerSettings(_Checked):
    """The points tracker (paper, section IV): one block per step, each can be switched off."""

    update_interval: int = _setting(5, "Uncovered regions are segmented anew every so many frames.", 1, 10_000)


@dataclass(frozen=True)
class GeometrySettings(_Checked):
    """Lifting labels to 3D points."""

    points: bool = _setting(True, "Lift the labels to a point cloud where there is depth and K.")
    points_stride: int = _setting(2, "Every so many pixels, in x and in y, give one point.", 1, 64)
    max_depth_m: float = _setting(20.0, "Farther points are left out, metres.", 0.1, 1000.0)
    edge_ratio: float = _setting(
        0.05, "Points whose depth differs from a neighbour's by more than this share are left out.", 0.0, 10.0
    )


@dataclass(frozen=True)
class NodeSettings(_Checked):
    """The ROS 2 node: topics, quality of service, rates."""


@dataclass(frozen=True)
class Settings(_Checked):
    """All settings. `Settings()` is the default configuration."""

    device: str = _setting("auto", "Where tensors live.", choices=("auto", "cuda", "cpu"), read_only=True)
    frame: FrameSettings = field(default_factory=FrameSettings)
    matcher: MatcherSettings = field(default_factory=MatcherSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    regions: RegionsSettings = field(default_factory=RegionsSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    geometry: GeometrySettings = field(default_factory=GeometrySettings)
    node: NodeSettings = field(default_factory=NodeSettings)

    @staticmethod
    def infos() -> tuple[SettingInfo, ...]:
        """Every setting with its dotted path (`tracker.update_interval`), in the order of declaration."""
        return tuple(_infos(Settings, ""))

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> Settings:
        """Settings from nested or dotted keys: {"tracker": {"update_interval": 3}} or {"tracker.update_interval": 3}.

        Raises SettingsError for an unknown key, a wrong type or a value out of range.
        """
        return Settings().updated(_flatten(values))

    @staticmethod
    def load(path: str | Path) -> Settings:
        """Settings from a YAML file; the ROS form (`/**: ros__parameters: ...`) is read too.

        Raises SettingsError if the file cannot be read, is not YAML, or holds an unknown key or wrong value.
        """
        import yaml

        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"cannot read settings file {path}: {error.strerror or error}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            first = str(error).splitlines()[0]
            raise SettingsError(f"{path} is not a YAML file: {first}") from error
        if content is None:
            return Settings()
        if not isinstance(content, Mapping):
            raise SettingsError(f"{path} must hold a mapping of settings, got {type(content).__name__}")
        try:
            return Settings.from_mapping(_without_ros_wrapper(content))
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from None

    def updated(self, values: Mapping[str, Any]) -> Settings:
        """A copy in which the dotted paths of `values` are replaced. Raises SettingsError."""
        nested: dict[str, dict[str, Any]] = {}
        known = {info.path for info in Settings.infos()}
        for path, value in values.items():
            if path not in known:
                close = difflib.get_close_matches(path, known, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                raise SettingsError(f"unknown setting '{path}'{hint}")
            section, _, name = path.rpartition(".")
            nested.setdefault(section, {})[name] = value
        changes: dict[str, Any] = dict(nested.pop("", {}))
        for section, fields in nested.items():
            try:
                changes[section] = dataclasses.replace(getattr(self, section), **fields)
            except SettingsError as error:
                raise SettingsError(f"{section}.{error}") from None
        return dataclasses.replace(self, **changes)

    def with_assignments(self, assignments: list[str]) -> Settings:
        """A copy changed by `path=value` texts, as `--set` takes them. Raises SettingsError."""
        import yaml

        values: dict[str, Any] = {}
        for text in assignments:
            path, equals, value = text.partition("=")
            if not equals:
                raise SettingsError(f"expected path=value, got '{text}'")
            try:
                values[path.strip()] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise SettingsError(f"cannot read the value in '{text}'") from error
        return self.updated(values)

    def flat(self) -> dict[str, Scalar]:
        """Dotted path -> value, in the order of declaration."""
        return _flatten(dataclasses.asdict(self))

    def to_mapping(self) -> dict[str, Any]:
        """Nested mapping of plain values, as YAML and JSON take it."""
        return dataclasses.asdict(self)


def _infos(kind: type, prefix: str) -> Iterator[SettingInfo]:
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
            yield from _infos(item.default_factory, f"{prefix}{item.name}.")  # type: ignore[arg-type]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(key, str):
            raise SettingsError(f"setting names are text, got {key!r}")
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _without_ros_wrapper(content: Mapping[str, Any]) -> Mapping[str, Any]:
    wrapped = [v["ros__parameters"] for v in content.values() if isinstance(v, Mapping) and "ros__parameters" in v]
    if not wrapped:
        return content
    if len(wrapped) != len(content) or len(wrapped) > 1 or not isinstance(wrapped[0], Mapping):
        raise SettingsError("a ROS parameter file for this node holds one 'ros__parameters' block and nothing else")
    return {key: value for key, value in wrapped[0].items() if key != "use_sim_time"}


Value = TypeVar("Value", bool, int, float, str)


def _checked(name: str, value: Any, kind: type[Value], meta: Mapping[str, Any]) -> Value:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise SettingsError(f"{name} must be {kind.__name__}, got {value!r}")
    if kind is float and not math.isfinite(value):
        raise SettingsError(f"{name} must be finite, got {value}")
    minimum, maximum, choices = meta["minimum"], meta["maximum"], meta["choices"]
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise SettingsError(f"{name} must be in [{minimum}, {maximum}], got {value}")
    if choices and value not in choices:
        raise SettingsError(f"{name} must be one of {', '.join(choices)}, got '{value}'")
    return value
