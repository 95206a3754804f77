"""Bags of the node's outputs, written and read: what each frame gives, and the map now and then. Needs no ROS."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from mastsam_ros.geometry.transforms import pose_matrix
from mastsam_ros.io.message_definitions import store_with
from mastsam_ros.io.point_cloud2 import Field, unpack
from mastsam_ros.io.result_messages import (
    EVENTS,
    INSTANCES,
    KINDS,
    LABELS,
    MAP_INSTANCES,
    ODOMETRY,
    POINTS,
    STATES,
    UNSCALED,
    ResultMessages,
)
from mastsam_ros.types import FrameResult, InputError, LabelledCloud, MapInstance, Track, TrackEvent, WorldMap

NAMESPACE = "/mastsam"
_STATES = {number: state for state, number in STATES.items()}
_KINDS = {number: kind for kind, number in KINDS.items()}
_TYPES = {
    "events": EVENTS,
    "instances": INSTANCES,
    "labels": LABELS,
    "points": POINTS,
    "odometry": ODOMETRY,
    "map": POINTS,
    "map_instances": MAP_INSTANCES,
}
_LATCHED = ("map", "map_instances")
"""Who joins late gets the last one, from the node as from a player of the bag."""


class ResultBag:
    """Writes results to a new bag folder (mcap), on the node's topics and with its messages, log time the stamp's.

    The same results give the same bytes, whatever the folder's name. The folder appears when the bag is closed. An
    earlier bag of results is replaced; raises InputError if `folder` is anything else.
    """

    def __init__(self, folder: str | Path, namespace: str = NAMESPACE, map_frame: str = "map") -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        self._map_frame = map_frame
        folder = Path(folder)
        clear_result_bag(folder, namespace)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._folder, self._part = folder, folder.with_name(f".{folder.name}.part")
        shutil.rmtree(self._part, ignore_errors=True)
        self._part.mkdir()
        self._store = store_with(set(_TYPES.values()))
        self._messages = ResultMessages(self._store.types.__getitem__, np.asarray)
        self._namespace = namespace
        self._writer = Writer(self._part / "results", version=9, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> ResultBag:
        self._writer.open()
        for name, kind in _TYPES.items():
            topic = f"{self._namespace}/{name}"
            qos = [_latched_qos()] if name in _LATCHED else []
            self._connections[name] = self._writer.add_connection(
                topic, kind, typestore=self._store, offered_qos_profiles=qos
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        (self._part / "results").replace(self._folder)
        self._part.rmdir()

    def add(self, result: FrameResult) -> None:
        """Writes one frame's messages, in the node's order."""
        header = self._messages.header(result.stamp_ns, result.frame_id)
        for event in result.events:
            self._write("events", self._messages.event(event, header), result.stamp_ns)
        self._write("instances", self._messages.instances(result, header), result.stamp_ns)
        self._write("labels", self._messages.labels(result.labels, header), result.stamp_ns)
        if result.points is not None:
            points = self._messages.points(result.points, result.stamp_ns, result.frame_id)
            self._write("points", points, result.stamp_ns)
        if result.T_world_camera is not None:
            odometry = self._messages.odometry(result, result.stamp_ns, self._map_frame, result.frame_id)
            self._write("odometry", odometry, result.stamp_ns)

    def add_map(self, world: WorldMap, stamp_ns: int) -> None:
        """Writes the map as it is after the frame of this stamp."""
        header = self._messages.map_header(world, stamp_ns, self._map_frame)
        self._write("map", self._messages.cloud(world.cloud, header), stamp_ns)
        self._write("map_instances", self._messages.map_instances(world, header), stamp_ns)

    def _write(self, name: str, message: Any, stamp_ns: int) -> None:
        raw = self._store.serialize_cdr(message, _TYPES[name])
        self._writer.write(self._connections[name], stamp_ns, raw)


def _latched_qos() -> Any:
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        1,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )


def clear_result_bag(folder: Path, namespace: str = NAMESPACE) -> None:
    """Removes an earlier bag of results. Raises InputError if there is something else."""
    if not folder.exists():
        return
    try:
        content = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
        listed = content["rosbag2_bagfile_information"]["topics_with_message_count"]
        topics = [entry["topic_metadata"]["name"] for entry in listed]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        topics = [""]
    if not all(topic.startswith(f"{namespace}/") or topic in ("/diagnostics", "/clock") for topic in topics):
        raise InputError(f"cannot write a bag of results to {folder}: it exists and is none; choose another name")
    shutil.rmtree(folder)


@dataclass(frozen=True, eq=False)
class RecordedResult:
    """One frame's result, and the time on arrival of its labels (system clock, nanoseconds)."""

    result: FrameResult
    arrived_ns: int


def read_results(folder: str | Path, namespace: str = NAMESPACE) -> list[RecordedResult]:
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
            events[stamp_ns].append(
                TrackEvent(_KINDS[message.kind], message.id, message.other_id, message.reason, message.evidence)
            )
    results = []
    for index, (stamp_ns, (arrived_ns, image)) in enumerate(sorted(labels.items())):
        pixels = _pixels(image)
        result = FrameResult(
            pixels, tracks.get(stamp_ns, ()), tuple(events[stamp_ns]), None, {}, index, stamp_ns, image.header.frame_id
        )
        results.append(RecordedResult(result, arrived_ns))
    return results


def read_labels(folder: str | Path, namespace: str = NAMESPACE) -> Iterator[tuple[int, int, npt.NDArray[np.uint16]]]:
    """Stamp, time on arrival (nanoseconds) and label image (H, W), one at a time, as recorded. Raises InputError."""
    for _, arrived_ns, message in _messages(folder, {f"{namespace}/labels"}):
        yield _nanoseconds(message.header.stamp), arrived_ns, _pixels(message)


def read_clouds(folder: str | Path, namespace: str = NAMESPACE) -> Iterator[tuple[int, LabelledCloud]]:
    """Stamp in nanoseconds and cloud, in the order of recording. Raises InputError."""
    for _, _, message in _messages(folder, {f"{namespace}/points"}):
        yield _nanoseconds(message.header.stamp), _cloud(message, not message.header.frame_id.endswith(UNSCALED))


def read_maps(folder: str | Path, namespace: str = NAMESPACE) -> Iterator[tuple[int, WorldMap]]:
    """Stamp in nanoseconds and map, in the order of recording. Raises InputError."""
    clouds: dict[int, LabelledCloud] = {}
    for topic, _, message in _messages(folder, {f"{namespace}/map", f"{namespace}/map_instances"}):
        stamp_ns = _nanoseconds(message.header.stamp)
        if topic.endswith("/map"):
            clouds[stamp_ns] = _cloud(message, not message.header.frame_id.endswith(UNSCALED))
        elif stamp_ns in clouds:
            cloud = replace(clouds.pop(stamp_ns), metric=message.metric)
            yield stamp_ns, WorldMap(cloud, tuple(_map_instance(instance) for instance in message.instances))


def read_poses(folder: str | Path, namespace: str = NAMESPACE) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Stamp in nanoseconds and pose (4, 4) of the camera in the map, in the order of recording. Raises InputError."""
    for _, _, message in _messages(folder, {f"{namespace}/odometry"}):
        yield _nanoseconds(message.header.stamp), pose_matrix(message.pose.pose)


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


def _cloud(message: Any, metric: bool) -> LabelledCloud:
    fields = [Field(f.name, f.offset, f.datatype, f.count) for f in message.fields]
    points = message.width * message.height
    return replace(unpack(fields, message.point_step, points, message.data, message.is_bigendian), metric=metric)


def _map_instance(instance: Any) -> MapInstance:
    return MapInstance(
        instance.id,
        (instance.position.x, instance.position.y, instance.position.z),
        (instance.size.x, instance.size.y, instance.size.z),
        instance.voxels,
        instance.views,
        _nanoseconds(instance.last_seen),
        instance.label,
    )


def _pixels(image: Any) -> npt.NDArray[np.uint16]:
    order = ">u2" if image.is_bigendian else "<u2"
    return image.data.view(order).reshape(image.height, image.width).astype(np.uint16)


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
        instance.label,
    )


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
