"""Where frames come from offline: images, a video, a scene folder with depth, or a rosbag2."""

from __future__ import annotations

import json
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros.types import Frame, InputError, MissingPackageError

_LOG = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
BAG_SUFFIXES = (".db3", ".mcap")


class Source(ABC):
    """Frames in order; a context manager that closes what it opened.

    name: for people. frame_count: None where it is not known before the end. fps: about so many frames per second.
    """

    name: str
    frame_count: int | None
    fps: float

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Each frame with its stem, which is unique and names the files written for it.

        Raises InputError, naming the file or message, where the next frame cannot be read.
        """

    def close(self) -> None:  # noqa: B027 (most keep nothing open)
        """Closes what is open; iterating ends."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_source(
    path: str | Path,
    *,
    image_topic: str | None = None,
    depth_topic: str | None = None,
    use_depth: bool = True,
    poses: tuple[str, str] | None = None,
    fps: float = 30.0,
) -> Source:
    """The source that `path` is: a directory of images, an image, a video file, a scene folder or a rosbag2.

    image_topic, depth_topic: only for bags, where there are several. use_depth: False leaves out depth and K
    everywhere. poses: only for bags, the topic of the camera's poses, or `tf`, and the frame that they are wanted in.
    fps: the stamps of images that carry none, frames per second.

    Raises InputError for a path that is not there or is none of these, MissingPackageError without PyAV (videos)
    or rosbags (bags).
    """
    path = Path(path)
    try:
        kind = _kind(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if kind == "bag":
        from mastsam_ros.io.bags import BagSource

        return BagSource(path, image_topic, depth_topic, use_depth, poses)
    if topic := image_topic or depth_topic or (poses[0] if poses is not None else None):
        raise InputError(f"{path} is no rosbag2: it has no topic {topic}")
    if kind == "scene":
        return SceneFolder(path, use_depth, fps)
    if kind == "images":
        return ImageFiles(path.name, _image_files(path) if path.is_dir() else [path], fps)
    return VideoFile(path)


def is_bag(path: Path) -> bool:
    """Whether a path that is there is a rosbag2. Raises OSError if it cannot be read."""
    if path.is_file():
        return path.suffix.lower() in BAG_SUFFIXES
    return any(entry.name == "metadata.yaml" or entry.name.endswith(BAG_SUFFIXES) for entry in path.iterdir())


def _kind(path: Path) -> str:
    if not path.exists():
        raise InputError(f"no such file or directory: {path}")
    if path.is_file():
        suffix = path.suffix.lower()
        return "bag" if suffix in BAG_SUFFIXES else "images" if suffix in IMAGE_SUFFIXES else "video"
    if is_bag(path):
        return "bag"
    entries = [entry.name for entry in path.iterdir()]
    if "scene.json" in entries or "rgb" in entries:
        return "scene"
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in entries):
        return "images"
    folders = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    there = f"folders in it: {', '.join(folders[:8])}" if folders else f"{len(entries)} other files in it"
    raise InputError(f"{path} holds no images, no rgb/ folder and no rosbag2 ({there})")


class ImageFiles(Source):
    """Image files in the order given; stamps follow from `fps`.

    Raises InputError where two files would give the same stem.
    """

    def __init__(self, name: str, files: list[Path], fps: float) -> None:
        self.name = name
        self.frame_count = len(files)
        self._files = files
        self.fps = fps
        stems: dict[str, Path] = {}
        for file in files:
            other = stems.setdefault(file.stem, file)
            if other != file:
                raise InputError(f"{other} and {file.name} would both be written as {file.stem}.png; rename one")

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        from mastsam_ros.io.encodings import decode_image

        for index, file in enumerate(self._files):
            try:
                frame = Frame(decode_image(_content(file)), round(index * 1e9 / self.fps))
            except InputError as error:
                raise InputError(f"{file}: {error}") from error
            yield file.stem, frame


class SceneFolder(Source):
    """`rgb/`, and where they are there `depth/` (16-bit PNG, millimetres) and `scene.json` with K.

    Poses and instances of a scene are truth, and not read. Raises InputError for a scene.json without sense.
    """

    def __init__(self, path: Path, use_depth: bool, fps: float) -> None:
        if not (path / "rgb").is_dir():
            raise InputError(f"scene folder {path} has no rgb/ folder")
        self._images = ImageFiles(path.name, _image_files(path / "rgb"), fps)
        self.name, self.frame_count, self.fps = path.name, self._images.frame_count, fps
        self._depth_folder = path / "depth" if use_depth and (path / "depth").is_dir() else None
        self._K: npt.NDArray[np.float64] | None = None
        self._size: tuple[int, int] | None = None
        if use_depth and (path / "scene.json").is_file():
            self._K, self._size = _read_camera(path / "scene.json")

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        for stem, frame in self._images:
            size = (frame.width, frame.height)
            if self._size is not None and self._size != size:
                raise InputError(
                    f"{self.name}/rgb/{stem} is {size[0]}x{size[1]}, but K in scene.json is for "
                    f"{self._size[0]}x{self._size[1]}"
                )
            try:
                yield stem, Frame(frame.image, frame.stamp_ns, K=self._K, depth=self._depth(stem))
            except InputError as error:
                raise InputError(f"{self.name}: frame {stem}: {error}") from error

    def _depth(self, stem: str) -> npt.NDArray[np.float32] | None:
        from mastsam_ros.io.encodings import decode_depth_image

        if self._depth_folder is None:
            return None
        file = self._depth_folder / f"{stem}.png"
        if not file.is_file():
            _LOG.warning("no depth image %s: this frame goes without depth", file)
            return None
        return decode_depth_image(_content(file))


class VideoFile(Source):
    """A video of any kind that FFmpeg reads; stems are the frame's number, stamps its time in the video. Pictures are
    turned upright where the file says how, as telephones' do.

    Raises InputError for a file that is no video, MissingPackageError without PyAV.
    """

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise MissingPackageError("reading a video needs PyAV: pip install av") from error
        self.name = path.name
        self._error = av.FFmpegError
        try:
            self._container = av.open(str(path))
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{path} is no video, image or rosbag2 that can be read: {_reason(error)}") from error
        if not self._container.streams.video:
            self._container.close()
            raise InputError(f"{path} holds no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.frame_count = self._stream.frames or None
        self.fps = float(self._stream.average_rate or 30)

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        index = 0
        try:
            for picture in self._container.decode(self._stream):
                seconds = picture.time if picture.time is not None else index / self.fps
                yield f"{index:06d}", Frame(_upright(picture), round(seconds * 1e9))
                index += 1
        except self._error as error:
            raise InputError(f"{self.name}: cannot read frame {index}: {_reason(error)}") from error
        if index == 0:
            raise InputError(f"{self.name} holds no frame that can be read")

    def close(self) -> None:
        """Closes the file."""
        self._container.close()


def _upright(picture: Any) -> npt.NDArray[np.uint8]:
    """The pixels (H, W, 3) RGB of a decoded picture, turned by the quarters that its display matrix asks for."""
    from av.sidedata.sidedata import Type

    pixels = picture.to_ndarray(format="rgb24")
    matrix = picture.side_data.get(Type.DISPLAYMATRIX)
    if matrix is not None:
        a, b = np.frombuffer(bytes(matrix), np.int32)[:2].tolist()
        pixels = np.rot90(pixels, -round(np.arctan2(b, a) / (np.pi / 2)))
    return np.ascontiguousarray(pixels, np.uint8)


def _image_files(folder: Path) -> list[Path]:
    files = [
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    ]
    if not files:
        raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(files, key=lambda file: _natural(file.name))


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts 2.png before 10.png."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error


def _read_camera(file: Path) -> tuple[npt.NDArray[np.float64] | None, tuple[int, int] | None]:
    """K and the size (width, height) that it is for."""
    try:
        scene: Any = json.loads(_content(file))
        K = np.array(scene["K"], np.float64).reshape(3, 3) if "K" in scene else None
        size = (int(scene["width"]), int(scene["height"])) if "width" in scene and "height" in scene else None
        unit = scene.get("depth_unit", "mm")
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no scene description with K as 3x3 numbers: {_reason(error)}") from error
    if unit != "mm":
        raise InputError(f"{file}: depth_unit must be 'mm' (16-bit millimetres), got {unit!r}")
    return K, size


def _reason(error: BaseException) -> str:
    """An error of another library in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]
