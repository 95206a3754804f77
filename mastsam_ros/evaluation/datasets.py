"""Readers for DAVIS 2016/2017, MOSE, scene folders and ScanNet's exported layout; nothing is kept in memory."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.types import Frame, InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
DAVIS_FOREGROUND = 255
SCENERY_WORDS = ("wall", "floor", "leg", "shelf", "pillar", "table")
"""Instances whose names hold one of these are the room and its furniture; all others are objects."""


@dataclass(frozen=True, eq=False)
class FrameFiles:
    """Where the parts of one frame lie; None: not there.

    T_world_camera: (4, 4), the true pose. stamp_ns: of the image, where it came with one.
    """

    stem: str
    truth: Path
    image: Path | None = None
    depth: Path | None = None
    T_world_camera: npt.NDArray[np.float64] | None = None
    stamp_ns: int | None = None


@dataclass(frozen=True, eq=False)
class LabelledSequence:
    """One sequence with truth.

    kind: "video" (masks only) or "scene" (depth, K and poses too). K: (3, 3) intrinsics of the depth
    image. names: instance -> name. objects: the instances that are objects and not scenery; None: unknown,
    all of them. binary: any value above 0 is the one foreground object. touching: pairs of instances that touch.
    moving: instances that do not stay where they are.
    """

    name: str
    kind: str
    frames: tuple[FrameFiles, ...]
    K: npt.NDArray[np.float64] | None = None
    names: dict[int, str] = field(default_factory=dict)
    objects: frozenset[int] | None = None
    binary: bool = False
    touching: tuple[tuple[int, int], ...] = ()
    moving: frozenset[int] = frozenset()

    def truth(self, frame: FrameFiles) -> npt.NDArray[np.uint16]:
        """(H, W) uint16 true instances, 0 = none. Raises InputError."""
        labels = read_labels(frame.truth)
        return (labels > 0).astype(np.uint16) if self.binary else labels

    def frame(self, index: int, geometry: bool) -> Frame:
        """The frame that the system under test sees; geometry: with depth and K. Never poses or truth.

        stamp_ns is the frame's index. Raises InputError if there is no image.
        """
        files = self.frames[index]
        if files.image is None:
            raise InputError(f"{self.name}/{files.stem} has truth but no image")
        depth = read_depth(files.depth) if geometry and files.depth is not None else None
        return Frame(read_image(files.image), index, K=self.K if geometry else None, depth=depth)

    def first(self, count: int | None) -> LabelledSequence:
        """The same sequence cut after `count` frames (None: not cut). Raises InputError if that leaves nothing."""
        if count is not None and count < 1:
            raise InputError(f"at least 1 frame of each sequence is needed, got {count}: see --frames")
        return replace(self, frames=self.frames[:count])


def read_labels(path: Path) -> npt.NDArray[np.uint16]:
    """(H, W) uint16 label image from a PNG: grey 8 or 16 bit, or palette (the indices, not the colours).

    Raises InputError if the file cannot be read or has colour channels.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read label image {path}: {error.strerror or error}") from error
    palette = content[:8] == b"\x89PNG\r\n\x1a\n" and content[25:26] == b"\x03"
    if palette:
        content = _palette_as_grey(content)
    labels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if labels is None:
        raise InputError(f"{path} is not a readable PNG label image")
    if labels.ndim != 2:
        raise InputError(
            f"{path} must be a grey or palette label image, got {labels.shape[2]} colour channels: save the ids"
            " themselves, 0 to 65535, as 8 or 16-bit grey"
        )
    if palette:
        labels = labels // (255 // (2 ** content[24] - 1))  # fewer than 8 bits: the decoder stretches grey to 0..255
    return labels.astype(np.uint16)


def _palette_as_grey(content: bytes) -> bytes:
    """The same PNG declared as grey, so that the decoder hands out the indices."""
    header = bytearray(content[12:29])
    header[13] = 0  # colour type: 3 palette -> 0 grey
    parts, at = [content[:12], bytes(header), struct.pack(">I", zlib.crc32(header))], 33
    while at + 8 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        if content[at + 4 : at + 8] not in (b"PLTE", b"tRNS"):
            parts.append(content[at : at + 12 + length])
        at += 12 + length
    return b"".join(parts)


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. Raises InputError."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"cannot read image {path}")
    return np.asarray(image[:, :, ::-1], dtype=np.uint8, order="C")


def read_depth(path: Path) -> npt.NDArray[np.float32]:
    """(H, W) float32 metres from a 16-bit PNG of millimetres, 0 = none. Raises InputError."""
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        raise InputError(f"{path} must be a 16-bit grey PNG of millimetres")
    return depth.astype(np.float32) / 1000


def open_sequences(root: str | Path, names: Iterable[str] | None = None) -> list[LabelledSequence]:
    """The sequences with truth in a folder; the layout is recognised.

    Known layouts: DAVIS/MOSE (`Annotations/480p/<sequence>/*.png` or `Annotations/<sequence>/*.png` with
    `JPEGImages` beside, or the folder of the sequences itself, or one sequence's folder), a scene
    (`instance/`, `scene.json`) or a folder of scenes, a ScanNet export (`color/`, `depth/`, `pose/`,
    `instance-filt/`, `intrinsic/`) or a folder of such. names: only these sequences.

    Raises InputError if the layout is none of these, or a name is not there.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is {'no folder' if root.exists() else 'not there'}: expected data with truth")
    found = _scenes(root) or _scannet(root) or _davis(root)
    if not found:
        content = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
        there = ", ".join(content[:6]) + (f" and {len(content) - 6} more" if len(content) > 6 else "")
        raise InputError(
            f"{root} holds no sequences with truth; expected a DAVIS or MOSE folder"
            " (Annotations/[480p/]<sequence>/*.png,"
            " JPEGImages beside), a scene (rgb/, instance/, scene.json), or a ScanNet export"
            f" (color/, depth/, pose/, instance-filt/, intrinsic/); found: {there or 'an empty folder'}"
        )
    if names is None:
        return found
    by_name = {sequence.name: sequence for sequence in found}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise InputError(f"no sequence '{missing[0]}' in {root}; there are: {', '.join(by_name)}")
    return [by_name[name] for name in names]


def _subfolders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes}


def _scenes(root: Path) -> list[LabelledSequence]:
    folders = [root] if (root / "scene.json").is_file() else _subfolders(root)
    return [_scene(folder) for folder in folders if (folder / "scene.json").is_file()]


def _scene(folder: Path) -> LabelledSequence:
    path = folder / "scene.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        K = np.array(content["K"], dtype=np.float64).reshape(3, 3)
        poses = [np.array(pose, dtype=np.float64).reshape(4, 4) for pose in content["camera_to_world_optical"]]
        names = {int(instance): str(name) for instance, name in content.get("instances", {}).items()}
        objects = frozenset(map(int, content["objects"])) if "objects" in content else _objects_by_name(names)
        touching = tuple((int(first), int(second)) for first, second in content.get("touching", ()))
        moving = frozenset(map(int, content.get("moving", ())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} must hold K and camera_to_world_optical (one 4x4 per frame): {error!r}") from error
    images, truths = _files(folder / "rgb", IMAGE_SUFFIXES), _files(folder / "instance", (".png",))
    depths = _files(folder / "depth", (".png",))
    if not truths:
        raise InputError(f"{folder} has no instance/*.png: a scene with truth needs rgb/, instance/ and scene.json")
    if len(poses) < len(truths):
        raise InputError(f"{path} holds {len(poses)} poses for {len(truths)} frames of truth")
    frames = tuple(
        FrameFiles(stem, truth, images.get(stem), depths.get(stem), pose)
        for (stem, truth), pose in zip(truths.items(), poses, strict=False)
    )
    return LabelledSequence(folder.name, "scene", frames, K, names, objects, touching=touching, moving=moving)


def _objects_by_name(names: dict[int, str]) -> frozenset[int] | None:
    if not names:
        return None
    return frozenset(i for i, name in names.items() if not any(word in name for word in SCENERY_WORDS))


def _scannet(root: Path) -> list[LabelledSequence]:
    folders = [root] if (root / "instance-filt").is_dir() else _subfolders(root)
    return [_scannet_scene(folder) for folder in folders if (folder / "instance-filt").is_dir()]


def _scannet_scene(folder: Path) -> LabelledSequence:
    intrinsic = folder / "intrinsic" / "intrinsic_depth.txt"
    images, depths = _files(folder / "color", IMAGE_SUFFIXES), _files(folder / "depth", (".png",))
    truths, poses = _files(folder / "instance-filt", (".png",)), _files(folder / "pose", (".txt",))
    for part, files in (("color", images), ("instance-filt", truths), ("pose", poses)):
        if not files:
            raise InputError(
                f"{folder} has no files in {part}/; a ScanNet export holds color/, depth/, pose/, instance-filt/,"
                " intrinsic/intrinsic_depth.txt"
            )
    try:
        K = np.loadtxt(intrinsic)[:3, :3]
        pose_of = {stem: np.loadtxt(path).reshape(4, 4) for stem, path in poses.items()}
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{folder}: cannot read the 4x4 matrices of intrinsic/ and pose/: {error}") from error
    stems = sorted((stem for stem in truths if stem in images and stem in pose_of), key=lambda s: (len(s), s))
    # ScanNet marks frames whose pose is unknown with infinities: they cannot be placed in the scene.
    frames = tuple(
        FrameFiles(stem, truths[stem], images[stem], depths.get(stem), pose_of[stem])
        for stem in stems
        if np.isfinite(pose_of[stem]).all()
    )
    if not frames:
        raise InputError(f"{folder}: no frame has an image, a truth and a pose under one name")
    return LabelledSequence(folder.name, "scene", frames, K)


def _davis(root: Path) -> list[LabelledSequence]:
    annotations = next(
        (path for path in (root / "Annotations" / "480p", root / "Annotations", root) if _files_below(path)), None
    )
    if annotations is None:
        return []
    folders = [annotations] if _files(annotations, (".png",)) else _subfolders(annotations)
    images = _images_beside(annotations if folders != [annotations] else annotations.parent)
    return [
        _davis_sequence(folder, images / folder.name if images else None)
        for folder in folders
        if _files(folder, (".png",))
    ]


def _files_below(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return bool(_files(folder, (".png",))) or any(_files(path, (".png",)) for path in _subfolders(folder))


def _images_beside(annotations: Path) -> Path | None:
    for above in (annotations, *annotations.resolve().parents[:2]):
        for images in (above / "JPEGImages" / "480p", above / "JPEGImages"):
            if images.is_dir():
                return images
    return None


def _davis_sequence(folder: Path, images: Path | None) -> LabelledSequence:
    truths, pictures = _files(folder, (".png",)), _files(images, IMAGE_SUFFIXES) if images else {}
    frames = tuple(FrameFiles(stem, truth, pictures.get(stem)) for stem, truth in truths.items())
    first = read_labels(frames[0].truth)
    # DAVIS 2016 marks its one object with 255; DAVIS 2017 and MOSE number theirs from 1.
    binary = bool(np.isin(np.unique(first), (0, DAVIS_FOREGROUND)).all() and (first == DAVIS_FOREGROUND).any())
    return LabelledSequence(folder.name, "video", frames, binary=binary)
