"""A rosbag2 whose truth is a topic of label images or a folder of them, as a sequence with truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.evaluation.datasets import FrameFiles, LabelledSequence
from mastsam_ros.geometry.transforms import pose_matrix
from mastsam_ros.io.bags import DEPTH_TOLERANCE_NS, BagSource, storage_of
from mastsam_ros.io.encodings import metres_to_millimetres
from mastsam_ros.io.sources import open_source
from mastsam_ros.types import InputError, MastsamError

_LABEL_TYPES = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2"}
_IMAGE, _ODOMETRY = "sensor_msgs/msg/Image", "nav_msgs/msg/Odometry"


def bag_sequence(
    bag: str | Path, truth: str, folder: Path, *, image_topic: str | None = None, depth_topic: str | None = None
) -> LabelledSequence:
    """Unpacks a bag's frames and truth into `folder`; frames without truth are left out.

    truth: a topic of label images (mono8, mono16) in the bag, paired with the images by stamp; or a folder of PNG
    label images named by the image's number in the bag (`000012.png`, as `mastsam run` names its labels) or by its
    stamp in nanoseconds. Stems are the images' numbers. Poses come from nav_msgs/Odometry of the camera's own frame.

    Raises InputError where bag, topic or folder do not fit.
    """
    with open_source(bag, image_topic=image_topic, depth_topic=depth_topic) as source:
        if not isinstance(source, BagSource):
            raise InputError(f"{bag} is no rosbag2")
        for part in ("rgb", "depth", "instance"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        stamps, K, frame_id = _unpack(source, folder)
    label_files = (
        _truth_files(Path(truth), stamps) if Path(truth).is_dir() else _truth_topic(bag, truth, stamps, folder)
    )
    if not label_files:
        raise InputError(f"no label image of {truth} belongs to one of the {len(stamps)} images of {bag}")
    poses = _poses(bag, frame_id, stamps)
    frames = tuple(
        FrameFiles(
            f"{index:06d}",
            label_files[index],
            folder / "rgb" / f"{index:06d}.png",
            depth if (depth := folder / "depth" / f"{index:06d}.png").is_file() else None,
            poses.get(index),
            stamps[index],
        )
        for index in sorted(label_files)
    )
    has_depth = K is not None and all(files.depth is not None for files in frames)
    return LabelledSequence(Path(bag).stem, "scene" if has_depth else "video", frames, K)


def label_topic(bag: str | Path) -> str:
    """The topic of label images of a bag of results: `/mastsam/labels`, or the one that ends so. Raises InputError."""
    with _opened(bag) as reader:
        topics = sorted(connection.topic for connection in reader.connections)
        images = sorted(c.topic for c in reader.connections if c.msgtype == _IMAGE and c.topic.endswith("/labels"))
    found = ["/mastsam/labels"] if "/mastsam/labels" in images else images
    if len(found) != 1:
        reason = f"several topics of labels: {', '.join(found)}" if found else "no topic of labels (/mastsam/labels)"
        raise InputError(f"{bag} is no bag of results of one node: it has {reason}; its topics: {', '.join(topics)}")
    return found[0]


def unpack_labels(bag: str | Path, topic: str, folder: Path) -> dict[int, Path]:
    """Writes a topic's label images to PNG files (uint16). Returns stamp in nanoseconds -> file. Raises InputError."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[int, Path] = {}
    for stamp_ns, message in _messages(bag, topic, _IMAGE):
        files[stamp_ns] = folder / f"{stamp_ns}.png"
        _write(files[stamp_ns], _labels(message, topic).astype(np.uint16))
    if not files:
        raise InputError(f"{topic} in {bag} holds no label image")
    return files


def _unpack(source: BagSource, folder: Path) -> tuple[list[int], npt.NDArray[np.float64] | None, str]:
    """Writes the frames; returns their stamps, K and the camera's frame."""
    stamps, K, frame_id = [], None, ""
    for stem, frame in source:
        stamps.append(frame.stamp_ns)
        K, frame_id = frame.K if K is None else K, frame.frame_id
        _write(folder / "rgb" / f"{stem}.png", frame.image[:, :, ::-1])
        if frame.depth is not None:
            _write(folder / "depth" / f"{stem}.png", metres_to_millimetres(frame.depth))
    return stamps, K, frame_id


def _truth_topic(bag: str | Path, topic: str, stamps: list[int], folder: Path) -> dict[int, Path]:
    files = {}
    for stamp_ns, message in _messages(bag, topic, _IMAGE):
        index = _nearest(stamps, stamp_ns)
        if index is not None and index not in files:
            files[index] = folder / "instance" / f"{index:06d}.png"
            _write(files[index], _labels(message, topic))
    return files


def _truth_files(folder: Path, stamps: list[int]) -> dict[int, Path]:
    index_of, files = {stamp_ns: index for index, stamp_ns in enumerate(stamps)}, {}
    for path in sorted(folder.glob("*.png")):
        number = int(path.stem) if path.stem.isdecimal() else -1
        index = index_of.get(number, number)
        if 0 <= index < len(stamps):
            files[index] = path
    if not files:
        raise InputError(f"{folder} holds no label images of the bag: name them by number (000012.png) or by stamp")
    return files


def _poses(bag: str | Path, frame_id: str, stamps: list[int]) -> dict[int, npt.NDArray[np.float64]]:
    """T_world_camera (4, 4) by image; empty where nothing tells of the camera's own frame."""
    poses = {}
    for stamp_ns, message in _messages(bag, None, _ODOMETRY):
        index = _nearest(stamps, stamp_ns)
        if index is not None and message.child_frame_id == frame_id:
            poses[index] = pose_matrix(message.pose.pose)
    return poses


def _messages(bag: str | Path, topic: str | None, kind: str) -> Iterator[tuple[int, Any]]:
    """Stamp and message of one topic of this type (None: of every one). Raises InputError."""
    with _opened(bag) as reader:
        chosen = [c for c in reader.connections if c.msgtype == kind and topic in (None, c.topic)]
        if topic is not None and not chosen:
            images = sorted(c.topic for c in reader.connections if c.msgtype == kind)
            raise InputError(f"{topic} is neither a folder nor an image topic of {bag}, which has {', '.join(images)}")
        for connection, recorded_ns, raw in reader.messages(chosen) if chosen else ():
            message: Any = reader.deserialize(raw, connection.msgtype)
            stamp = message.header.stamp
            yield stamp.sec * 1_000_000_000 + stamp.nanosec or recorded_ns, message


@contextmanager
def _opened(bag: str | Path) -> Iterator[Any]:
    """The bag's reader. A damaged bag shows as many kinds of errors: each becomes an InputError."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    try:
        with AnyReader([storage_of(Path(bag))], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            yield reader
    except MastsamError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"cannot read the bag {bag}: {reason}") from error


def _labels(message: Any, topic: str) -> npt.NDArray[np.integer]:
    kind = _LABEL_TYPES.get(message.encoding)
    if kind is None:
        raise InputError(f"labels on {topic} must be {', '.join(_LABEL_TYPES)}, got {message.encoding}")
    order = ">" if message.is_bigendian else "<"
    used = message.width * np.dtype(kind).itemsize
    if message.step < used or len(message.data) < message.height * message.step:
        raise InputError(f"an image of {topic} is cut off: {len(message.data)} bytes, {message.height} rows")
    rows = message.data[: message.height * message.step].reshape(message.height, message.step)[:, :used]
    return np.ascontiguousarray(rows).view(order + kind).astype(f"={kind}")


def _nearest(stamps: list[int], stamp_ns: int) -> int | None:
    """The image at that time, or None."""
    index = int(np.argmin(np.abs(np.array(stamps) - stamp_ns))) if stamps else -1
    return index if stamps and abs(stamps[index] - stamp_ns) <= DEPTH_TOLERANCE_NS else None


def _write(path: Path, pixels: npt.NDArray[Any]) -> None:
    if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise InputError(f"cannot write {path}")
