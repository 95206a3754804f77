"""Readers: each layout is recognised, its parts are found, and a wrong one is refused with what was expected."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from mastsam_ros.evaluation.datasets import open_sequences, read_depth, read_image, read_labels
from mastsam_ros.types import InputError

LABELS = np.array([[0, 1, 2, 3], [0, 1, 2, 3]], np.uint8)


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)
    return path


def write_palette(path: Path, indices: np.ndarray, bits: int = 8, transparent: bool = False) -> Path:
    """A palette PNG with few colours, two of them equal, written byte by byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    per_byte = 8 // bits
    rows = b""
    for row in indices:
        padded = np.concatenate([row, np.zeros(-len(row) % per_byte, np.uint8)]).reshape(-1, per_byte)
        shifts = 8 - bits * (1 + np.arange(per_byte))
        rows += b"\0" + (padded << shifts).sum(axis=1).astype(np.uint8).tobytes()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", indices.shape[1], indices.shape[0], bits, 3, 0, 0, 0)
    colours = bytes([0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 128, 0] + [7] * (3 * (min(256, 2**bits) - 4)))
    body = chunk(b"IHDR", header) + chunk(b"PLTE", colours) + (chunk(b"tRNS", b"\0") if transparent else b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


# ---- label images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "transparent"), [(2, False), (4, False), (8, False), (8, True)])
def test_palette_gives_indices_not_colours(tmp_path, bits, transparent):
    path = write_palette(tmp_path / "a.png", LABELS, bits, transparent)
    assert read_labels(path).tolist() == LABELS.tolist()


def test_one_bit_palette(tmp_path):
    path = tmp_path / "a.png"
    write_palette(path, LABELS % 2, 1)
    assert read_labels(path).tolist() == (LABELS % 2).tolist()


def test_grey_of_8_and_16_bits(tmp_path):
    big = LABELS.astype(np.uint16) * 20000
    assert read_labels(write(tmp_path / "a.png", LABELS)).tolist() == LABELS.tolist()
    assert read_labels(write(tmp_path / "b.png", big)).tolist() == big.tolist()


def test_label_images_that_are_none(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    whole = write(tmp_path / "whole.png", LABELS).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:30])
    cut = write_palette(tmp_path / "cut_palette.png", LABELS).read_bytes()
    (tmp_path / "cut_palette.png").write_bytes(cut[:28])
    for name in ("text", "empty", "cut", "cut_palette"):
        with pytest.raises(InputError, match="not a readable PNG"):
            read_labels(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match="3 colour channels"):
        read_labels(write(tmp_path / "rgb.png", np.zeros((2, 2, 3), np.uint8)))
    with pytest.raises(InputError, match="cannot read label image"):
        read_labels(tmp_path / "missing.png")


def test_image_is_rgb_and_depth_metres(tmp_path):
    image = write(tmp_path / "a.png", np.full((2, 2, 3), (1, 2, 3), np.uint8))
    assert read_image(image)[0, 0].tolist() == [3, 2, 1]
    depth = write(tmp_path / "d.png", np.array([[1500, 0]], np.uint16))
    assert read_depth(depth).tolist() == [[1.5, 0.0]]
    with pytest.raises(InputError, match="16-bit"):
        read_depth(image)


# ---- layouts --------------------------------------------------------------------------------------------------


def davis(root: Path, resolution: str = "480p", truth: np.ndarray = LABELS) -> Path:
    for name in ("cat", "dog"):
        for stem in ("00000", "00001"):
            write(root / "Annotations" / resolution / name / f"{stem}.png", truth)
            write(root / "JPEGImages" / resolution / name / f"{stem}.jpg", np.zeros((2, 4, 3), np.uint8))
    return root


@pytest.mark.parametrize("resolution", ["480p", ""])
def test_davis_and_mose(tmp_path, resolution):
    cat, dog = open_sequences(davis(tmp_path, resolution))
    assert (cat.name, dog.name, cat.kind, cat.objects) == ("cat", "dog", "video", None)
    assert [f.stem for f in cat.frames] == ["00000", "00001"]
    assert cat.frames[1].image == tmp_path / "JPEGImages" / resolution / "cat" / "00001.jpg"
    assert cat.truth(cat.frames[0]).tolist() == LABELS.tolist()


def test_davis_from_inside(tmp_path):
    davis(tmp_path)
    inside = open_sequences(tmp_path / "Annotations" / "480p")
    assert [s.name for s in inside] == ["cat", "dog"] and inside[0].frames[0].image is not None
    (one,) = open_sequences(tmp_path / "Annotations" / "480p" / "dog")
    assert one.name == "dog" and one.frames[0].image == tmp_path / "JPEGImages/480p/dog/00000.jpg"


def test_davis_2016_has_one_object(tmp_path):
    (cat, _) = open_sequences(davis(tmp_path, truth=np.array([[0, 255]], np.uint8)))
    assert cat.truth(cat.frames[0]).tolist() == [[0, 1]]


def test_sequences_by_name(tmp_path):
    davis(tmp_path)
    assert [s.name for s in open_sequences(tmp_path, ["dog"])] == ["dog"]
    with pytest.raises(InputError, match="no sequence 'cow'.*cat, dog"):
        open_sequences(tmp_path, ["cow"])


def scene(folder: Path, poses: int = 2, **changes: object) -> Path:
    for stem in ("00000", "00001"):
        write(folder / "rgb" / f"{stem}.jpg", np.zeros((2, 4, 3), np.uint8))
        write(folder / "depth" / f"{stem}.png", np.full((2, 4), 2000, np.uint16))
        write(folder / "instance" / f"{stem}.png", LABELS.astype(np.uint16))
    content = {
        "K": [[2, 0, 1], [0, 2, 1], [0, 0, 1]],
        "camera_to_world_optical": [np.eye(4).ravel().tolist()] * poses,
        "instances": {"1": "floor", "2": "milk", "3": "table", "4": "leg0", "5": "cup"},
        **changes,
    }
    (folder / "scene.json").write_text(json.dumps(content))
    return folder


def test_scene(tmp_path):
    scene(tmp_path / "room")
    (room,) = open_sequences(tmp_path)
    assert (room.name, room.kind, room.objects) == ("room", "scene", {2, 5})
    assert room.K.shape == (3, 3) and room.frames[1].T_world_camera.shape == (4, 4)
    assert room.first(1).frames == room.frames[:1]
    frame = room.frame(1, geometry=True)
    assert frame.depth.tolist() == [[2.0] * 4] * 2 and frame.stamp_ns == 1 and frame.T_world_camera is None
    assert room.frame(1, geometry=False).depth is None and room.frame(1, geometry=False).K is None


def test_scene_that_names_its_objects(tmp_path):
    (room,) = open_sequences(scene(tmp_path / "room", objects=[3]))
    assert room.objects == {3}


def test_scenes_that_are_broken(tmp_path):
    with pytest.raises(InputError, match="1 poses for 2 frames"):
        open_sequences(scene(tmp_path / "a", poses=1))
    with pytest.raises(InputError, match="must hold K"):
        open_sequences(scene(tmp_path / "b", K=None))
    (tmp_path / "a" / "scene.json").write_text("{")
    with pytest.raises(InputError, match="must hold K"):
        open_sequences(tmp_path / "a")
    empty = tmp_path / "c"
    scene(empty)
    for path in (empty / "instance").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no instance"):
        open_sequences(empty)


def scannet(folder: Path) -> Path:
    for n in (0, 2, 10):
        write(folder / "color" / f"{n}.jpg", np.zeros((2, 4, 3), np.uint8))
        write(folder / "depth" / f"{n}.png", np.full((2, 4), 1000, np.uint16))
        write(folder / "instance-filt" / f"{n}.png", LABELS)
        (folder / "pose").mkdir(exist_ok=True)
        pose = np.eye(4) if n != 2 else np.full((4, 4), -np.inf)
        np.savetxt(folder / "pose" / f"{n}.txt", pose)
    (folder / "intrinsic").mkdir()
    np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", np.diag([3.0, 3, 1, 1]))
    return folder


def test_scannet(tmp_path):
    (room,) = open_sequences(scannet(tmp_path / "scene0000_00"))
    assert room.kind == "scene" and room.K.tolist() == np.diag([3.0, 3, 1]).tolist()
    assert [f.stem for f in room.frames] == ["0", "10"]  # in the order of numbers, unknown pose left out
    assert room.truth(room.frames[0]).tolist() == LABELS.tolist()


def test_scannet_that_is_incomplete(tmp_path):
    folder = scannet(tmp_path / "scene")
    (folder / "intrinsic" / "intrinsic_depth.txt").unlink()
    with pytest.raises(InputError, match="intrinsic"):
        open_sequences(folder)
    for path in (folder / "pose").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no files in pose/"):
        open_sequences(folder)


def test_other_folders_are_refused_with_what_was_expected(tmp_path):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(InputError, match=r"holds no sequences with truth; expected a DAVIS.*scene\.json.*ScanNet"):
        open_sequences(tmp_path)
    with pytest.raises(InputError, match="is not there"):
        open_sequences(tmp_path / "nowhere")
