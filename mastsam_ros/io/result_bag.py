"""Reads back a bag of the node's outputs: labels, tracks, events and clouds per frame. Needs no ROS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mastsam_ros.io.point_cloud2 import Field, unpack
from mastsam_ros.types import EventKind, FrameResult, InputError, LabelledCloud, Track, TrackEvent, TrackState

_STATES = {1: TrackState.TENTATIVE, 2: TrackState.TRACKED, 3: TrackState.LOST}
_KINDS = {
    1: EventKind.BORN,
    2: EventKind.LOST,
    3: EventKind.REVIVED,
    4: EventKind.MERGED,
    5: EventKind.REMOVED,
    6: EventKind.RESET,
}
"""The constants of msg/Instance.msg and msg/TrackEvent.msg."""


@dataclass(frozen=True, eq=False)
class RecordedResult:
    """One frame's result, and the time on arrival of its labels (system clock, nanoseconds)."""

    result: FrameResult
    arrived_ns: int


def read_results(folder: str | Path, namespace: str = "/mastsam") -> list[RecordedResult]:
    """Every frame that has labels, by stamp; without clouds. Raises InputError if the bag cannot be read."""
    labels: dict[int, tuple[int, Any]] = {}
    tracks: dict[int, tuple[Track, ...]] = {}
    events: dict[int, list[TrackEvent]] = defaultdict(list)
    wanted = {f"{namespace}/{name}": name for name in ("labels", "instances", "events")}
    for topic, arrived_ns, message in _messages(folder, wanted):
        stamp_ns = _nanoseconds(message.header.stamp)
        if wanted[topic] == "labels":
            labels[stamp_ns] = arrived_ns, message
        elif wanted[topic] == "instances":
            tracks[stamp_ns] = tuple(_track(instance) for instance in message.instances)
        else:
            events[stamp_ns].append(TrackEvent(_KINDS[message.kind], message.id, message.other_id, message.reason))
    results = []
    for index, (stamp_ns, (arrived_ns, image)) in enumerate(sorted(labels.items())):
        order = ">u2" if image.is_bigendian else "<u2"
        pixels = image.data.view(order).reshape(image.height, image.width).astype("u2")
        result = FrameResult(
            pixels, tracks.get(stamp_ns, ()), tuple(events[stamp_ns]), None, {}, index, stamp_ns, image.header.frame_id
        )
        results.append(RecordedResult(result, arrived_ns))
    return results


def read_clouds(folder: str | Path, namespace: str = "/mastsam") -> Iterator[tuple[int, LabelledCloud]]:
    """Stamp in nanoseconds and cloud, in the order of recording. Raises InputError."""
    for _, _, message in _messages(folder, {f"{namespace}/points"}):
        fields = [Field(f.name, f.offset, f.datatype, f.count) for f in message.fields]
        count = message.width * message.height
        cloud = unpack(fields, message.point_step, count, message.data, message.is_bigendian)
        yield _nanoseconds(message.header.stamp), cloud


def read_diagnostics(folder: str | Path) -> dict[str, str]:
    """The last values of /diagnostics; empty if there are none. Raises InputError."""
    values: dict[str, str] = {}
    for _, _, message in _messages(folder, {"/diagnostics"}):
        for status in message.status:
            values = {entry.key: entry.value for entry in status.values}
    return values


def _messages(folder: str | Path, topics: Any) -> Iterator[tuple[str, int, Any]]:
    from rosbags.highlevel import AnyReader, AnyReaderError

    try:
        with AnyReader([Path(folder)]) as reader:
            connections = [connection for connection in reader.connections if connection.topic in topics]
            for connection, arrived_ns, raw in reader.messages(connections) if connections else ():
                yield connection.topic, arrived_ns, reader.deserialize(raw, connection.msgtype)
    except (AnyReaderError, OSError) as error:
        raise InputError(f"cannot read the bag {folder}: {error}") from error


def _track(instance: Any) -> Track:
    position = size = None
    if instance.has_position:
        position = (instance.position.x, instance.position.y, instance.position.z)
        size = (instance.size.x, instance.size.y, instance.size.z)
    return Track(
        instance.id,
        _STATES[instance.state],
        instance.score,
        instance.area,
        (instance.box_x, instance.box_y, instance.box_width, instance.box_height),
        instance.age,
        position,
        size,
    )


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
