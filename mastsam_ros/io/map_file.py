"""The instance map on disk: .ply (voxels), .json (instances) and .npz (views by which the place is recognised)."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.instance_map import Instance, InstanceMap
from mastsam_ros.geometry.odometry import Keyframe
from mastsam_ros.geometry.voxels import Voxels
from mastsam_ros.io.sinks import write_whole
from mastsam_ros.settings import MAP_SUFFIXES
from mastsam_ros.tracker.constraints import Constraints
from mastsam_ros.types import InputError, OutputError

_FORMAT = 1
_VOXEL = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z")]
    + [(name, "u1") for name in ("red", "green", "blue")]
    + [("instance", "<i4"), ("votes", "<i4"), ("last_seen", "<i4"), ("readings", "<f4")]
)
_PLY_TYPES = {"<f4": "float", "|u1": "uchar", "<i4": "int"}
_BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What a damaged .npz raises, beside the errors of numpy: RuntimeError for one that seems to be encrypted."""


@dataclass(frozen=True, eq=False)
class SavedMap:
    """What a file holds: the map's voxels and instances, the keyframes, the first id that was never given, and what
    people said of the ids."""

    voxel_m: float
    voxels: Voxels
    instances: dict[int, Instance]
    keyframes: tuple[Keyframe, ...]
    next_id: int
    edits: Constraints


def map_files(path: Path) -> tuple[Path, Path, Path]:
    """The three files of a map: PLY, JSON, NPZ. path: any of them, or their name without an ending."""
    stem = path.with_suffix("") if path.suffix in MAP_SUFFIXES else path
    return stem.with_name(f"{stem.name}.ply"), stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.npz")


def save_map(
    path: Path, map: InstanceMap, keyframes: tuple[Keyframe, ...], next_id: int, edits: Constraints | None = None
) -> None:
    """Writes the three files. edits: what people said of the ids. Raises OutputError if that is not possible."""
    ply, about, views = map_files(path)
    extents = map.extents()
    instances: dict[str, dict[str, Any]] = {
        str(id): {
            "views": known.views,
            "last_seen": known.last_seen,
            "position": [round(float(v), 4) for v in extents[id][0]],
            "size": [round(float(v), 4) for v in extents[id][1]],
        }
        for id, known in sorted(map.instances.items())
        if id in extents
    }
    edits = edits or Constraints()
    for id, about_it in instances.items():
        if (shown_as := edits.instance(int(id))) != int(id):
            about_it["shown_as"] = shown_as
        if name := edits.names.get(shown_as):
            about_it["label"] = name
    content = {
        "format": _FORMAT,
        "voxel_m": map.settings.map_voxel_m,
        "next_id": next_id,
        "instances": instances,
        "edits": edits.to_mapping(),
    }
    arrays = {
        f"{n}/{field.name}": getattr(keyframe, field.name)
        for n, keyframe in enumerate(keyframes)
        for field in dataclasses.fields(Keyframe)
        if getattr(keyframe, field.name) is not None
    }
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    try:
        ply.parent.mkdir(parents=True, exist_ok=True)
        write_whole(ply, _ply(map.voxels))
        write_whole(views, packed.getvalue())
        write_whole(about, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise OutputError(f"cannot write the map {about.with_suffix('')}: {error.strerror or error}") from error


def load_map(path: Path) -> SavedMap | None:
    """The map of an earlier run; None if there is none yet. Raises InputError if a part is missing or damaged."""
    ply, about, views = map_files(path)
    if not any(file.exists() for file in (ply, about, views)):
        return None
    try:
        content = json.loads(about.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise InputError(f"{about} has format {content['format']}, this version reads {_FORMAT}")
        instances = {
            int(id): Instance(int(known["views"]), int(known["last_seen"]))
            for id, known in content["instances"].items()
        }
        voxel_m, next_id = float(content["voxel_m"]), int(content["next_id"])
        edits = Constraints.from_mapping(content["edits"]) if "edits" in content else Constraints()
        voxels = _voxels(ply.read_bytes())
        if set(np.unique(voxels.instance).tolist()) != instances.keys():
            raise ValueError(f"{ply.name} and {about.name} hold different instances, they are not of one map")
        return SavedMap(voxel_m, voxels, instances, _keyframes(views), next_id, edits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, *_BAD_ARCHIVE) as error:
        raise InputError(f"cannot read the map {about.with_suffix('')}: {type(error).__name__} {error}") from error


def _ply(voxels: Voxels) -> bytes:
    vertices = np.empty(len(voxels), _VOXEL)
    for axis, (place, colour) in enumerate(zip("xyz", ("red", "green", "blue"), strict=True)):
        vertices[place] = voxels.xyz[:, axis]
        vertices[colour] = np.rint(voxels.rgb[:, axis]).clip(0, 255)
    for name in ("instance", "votes", "last_seen", "readings"):
        vertices[name] = getattr(voxels, name)
    return _header(len(voxels)) + vertices.tobytes()


def _header(count: int) -> bytes:
    properties = [f"property {_PLY_TYPES[_VOXEL[name].str]} {name}" for name in _VOXEL.names or ()]
    lines = ["ply", "format binary_little_endian 1.0", "comment world, metres", f"element vertex {count}"]
    return "\n".join([*lines, *properties, "end_header", ""]).encode()


def _voxels(content: bytes) -> Voxels:
    """Voxels in file order. Their keys are those of the map that they were saved from: it sorts by them."""
    end = content.index(b"end_header\n") + len(b"end_header\n")
    vertices = np.frombuffer(content[end:], _VOXEL)
    if content[:end] != _header(len(vertices)) or not all(np.isfinite(vertices[axis]).all() for axis in "xyz"):
        raise ValueError("the .ply file is not that of a map")

    def columns(*names: str) -> npt.NDArray[np.float32]:
        return np.stack([vertices[name].astype(np.float32) for name in names], axis=1)

    return Voxels(
        np.zeros(len(vertices), np.int64),
        vertices["instance"].copy(),
        vertices["votes"].copy(),
        vertices["last_seen"].copy(),
        vertices["readings"].copy(),
        columns("x", "y", "z"),
        columns("red", "green", "blue"),
    )


def _keyframes(path: Path) -> tuple[Keyframe, ...]:
    with np.load(path, allow_pickle=False) as arrays:
        count = len({name.partition("/")[0] for name in arrays})
        names = [field.name for field in dataclasses.fields(Keyframe)]
        # Only `orb` may be absent.
        return tuple(
            Keyframe(*(arrays[f"{n}/{name}"] if name != "orb" else arrays.get(f"{n}/orb") for name in names))
            for n in range(count)
        )
