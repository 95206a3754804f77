"""Where results go offline: label images, a log of frames, a summary, clouds and a video, each whole at any time."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.interrupts import interrupts_wait
from mastsam_ros.io.video import VideoWriter
from mastsam_ros.types import Frame, FrameResult, LabelledCloud, OutputError
from mastsam_ros.viz import overlay

_PLY_VERTEX = np.dtype(
    [
        *((name, "<f4") for name in ("x", "y", "z")),
        *((name, "u1") for name in ("red", "green", "blue")),
        ("instance", "<u4"),
        ("confidence", "<f4"),
    ]
)
_PLY_TYPES = {"<f4": "float", "|u1": "uchar", "<u4": "uint"}


class Sink(Protocol):
    """Takes each frame and its result. What was written stays readable if a later frame fails."""

    def write(self, stem: str, frame: Frame, result: FrameResult) -> None:
        """Writes one frame's share."""

    def close(self) -> None:
        """Finishes the files."""


class LabelImages:
    """`<stem>.png`: (H, W) uint16 ids, 0 = unlabelled."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def write(self, stem: str, frame: Frame, result: FrameResult) -> None:
        """Writes the label image."""
        content = cv2.imencode(".png", result.labels)[1].tobytes()
        write_whole(self._folder / f"{stem}.png", content)

    def close(self) -> None:
        """Nothing is open."""


class FrameLog:
    """`frames.jsonl`: one JSON object a frame, each line flushed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, stem: str, frame: Frame, result: FrameResult) -> None:
        """Writes the frame's line."""
        self._file.write(json.dumps({"stem": stem, **frame_record(result)}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Clouds:
    """`<stem>.ply`: the labelled cloud in the camera's optical frame, where there is one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.count = 0

    def write(self, stem: str, frame: Frame, result: FrameResult) -> None:
        """Writes the cloud, if the frame has one."""
        if result.points is not None:
            write_whole(self._folder / f"{stem}.ply", ply(result.points))
            self.count += 1

    def close(self) -> None:
        """Nothing is open."""


class OverlayVideo:
    """The images with their labels laid over them, as H.264 that browsers play. The file appears when it is closed.

    Frames of another size than the first are scaled to it. Raises MissingPackageError without PyAV.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._video = VideoWriter(self._part, fps, crf=20)

    def write(self, stem: str, frame: Frame, result: FrameResult) -> None:
        """Draws and encodes one frame."""
        names = {track.id: track.label for track in result.tracks if track.label}
        self._video.write(overlay(frame.image, result.labels, numbers=True, names=names))

    def close(self) -> None:
        """Finishes the file; none is left if there was no frame."""
        self._video.close()
        if self._video.count:
            os.replace(self._part, self._path)
        else:
            self._part.unlink(missing_ok=True)


class RunFolder:
    """The folder of one run: hands every frame to its sinks, and writes `summary.json` when it is left.

    A folder that holds an earlier run is emptied of that run's files. Raises OutputError if the folder cannot be
    written, or has a `labels/` that is not from an earlier run.
    """

    def __init__(self, folder: Path, *, video_fps: float | None, points: bool, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about
        """What the run was, for its summary."""
        self._total_ms: list[float] = []
        self._ids: set[int] = set()
        with _writing(folder):
            _clear_earlier_run(folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._sinks: list[Sink] = [LabelImages(folder / "labels"), FrameLog(folder / "frames.jsonl")]
            if points:
                self._sinks.append(Clouds(folder / "points"))
            if video_fps is not None:
                self._sinks.append(OverlayVideo(folder / "overlay.mp4", video_fps))

    def add(self, sink: Sink) -> None:
        """One more sink, from the next frame on; it is closed with the others."""
        self._sinks.append(sink)

    def write(self, stem: str, frame: Frame, result: FrameResult) -> None:
        """Writes one frame to every sink: all of it, also when Ctrl-C comes meanwhile. Raises OutputError."""
        with interrupts_wait(), _writing(self.folder):
            for sink in self._sinks:
                sink.write(stem, frame, result)
            self._total_ms.append(result.timings_ms.get("total", sum(result.timings_ms.values())))
            self._ids.update(int(number) for number in np.unique(result.labels) if number)

    @property
    def frame_count(self) -> int:
        """Frames written."""
        return len(self._total_ms)

    @property
    def cloud_count(self) -> int:
        """Clouds written."""
        return sum(sink.count for sink in self._sinks if isinstance(sink, Clouds))

    def summary(self) -> dict[str, Any]:
        """frames, fps and latency (every stage counted, reading and writing aside), tracks, and what the run was."""
        total_ms = np.array(self._total_ms)
        p50, p95 = np.percentile(total_ms, [50, 95]) if len(total_ms) else (None, None)
        return {
            "frames": len(total_ms),
            "fps": round(1000 * len(total_ms) / float(total_ms.sum()), 3) if total_ms.sum() > 0 else None,
            "latency_ms": {"p50": p50 and round(float(p50), 3), "p95": p95 and round(float(p95), 3)},
            "tracks": len(self._ids),
            **self.about,
        }

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with _writing(self.folder):
            with ExitStack() as open_sinks:
                for sink in self._sinks:
                    open_sinks.callback(sink.close)
            summary = self.summary()
            if error is not None:
                summary["error"] = str(error) or type(error).__name__
            write_whole(self.folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())


def frame_record(result: FrameResult) -> dict[str, Any]:
    """A result's index, stamp, timings, tracks, events and self-check as plain values, as in `frames.jsonl`."""
    return {
        "index": result.index,
        "stamp_ns": result.stamp_ns,
        "timings_ms": {stage: round(ms, 3) for stage, ms in result.timings_ms.items()},
        "tracks": [
            {
                "id": track.id,
                "label": track.label,
                "state": track.state.value,
                "score": round(track.score, 4),
                "area": track.area,
                "box_xywh": list(track.box_xywh),
                "age": track.age,
                "position": _metres(track.position),
                "size": _metres(track.size),
            }
            for track in result.tracks
        ],
        "events": [
            {
                "kind": event.kind.value,
                "id": event.id,
                "other_id": event.other_id,
                "evidence": round(event.evidence, 4),
                "reason": event.reason,
            }
            for event in result.events
        ],
        "check": result.check and {name: _rounded(value) for name, value in vars(result.check).items()},
    }


def ply(cloud: LabelledCloud) -> bytes:
    """The cloud as binary PLY with x y z red green blue instance confidence."""
    vertices = np.empty(len(cloud), _PLY_VERTEX)
    for names, columns in ((("x", "y", "z"), cloud.xyz), (("red", "green", "blue"), cloud.rgb)):
        for number, name in enumerate(names):
            vertices[name] = columns[:, number]
    vertices["instance"], vertices["confidence"] = cloud.instance, cloud.confidence
    properties = [f"property {_PLY_TYPES[_PLY_VERTEX[name].str]} {name}" for name in _PLY_VERTEX.names or ()]
    unit = "metres" if cloud.metric else "not metric"
    header = ["ply", "format binary_little_endian 1.0", f"comment camera optical frame, {unit}"]
    header += [f"element vertex {len(cloud)}", *properties, "end_header"]
    return ("\n".join(header) + "\n").encode("ascii") + vertices.tobytes()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that no reader ever sees half of it."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _metres(values: tuple[float, float, float] | npt.NDArray[np.float64] | None) -> list[float] | None:
    return None if values is None else [round(float(value), 4) for value in values]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _clear_earlier_run(folder: Path) -> None:
    labels = folder / "labels"
    if labels.is_dir() and any(labels.iterdir()) and not (folder / "frames.jsonl").is_file():
        raise OutputError(f"{labels} is there and not from an earlier run: choose another --output")
    if (folder / "frames.jsonl").is_file():
        for name in ("labels", "points"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("frames.jsonl", "summary.json", "overlay.mp4", "run.rrd"):
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error
