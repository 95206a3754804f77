"""The map on disk: the same voxels come back, and in a later run the same ids."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mastsam_ros.geometry.instance_map import InstanceMap
from mastsam_ros.geometry.odometry import Keyframe
from mastsam_ros.io.map_file import load_map, save_map
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import GeometrySettings, Settings
from mastsam_ros.types import Frame, FrameResult, InputError, OutputError, TrackState


@pytest.fixture
def small_map() -> InstanceMap:
    map = InstanceMap(GeometrySettings())
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
    map.observe(points, np.arange(1, 501, dtype=np.int32) % 3 + 1, np.full((500, 3), 90, np.uint8), 4)
    return map


def test_voxels_and_instances_come_back(small_map: InstanceMap, tmp_path: Path) -> None:
    save_map(tmp_path / "room.ply", small_map, (), 9)
    saved = load_map(tmp_path / "room")
    assert saved is not None and saved.next_id == 9 and saved.keyframes == ()
    again = InstanceMap(GeometrySettings())
    again.adopt(saved.voxels, saved.instances)
    assert np.array_equal(again.voxels.key, small_map.voxels.key)
    assert np.array_equal(again.voxels.instance, small_map.voxels.instance)
    assert np.array_equal(again.voxels.xyz, small_map.voxels.xyz)
    assert again.instances.keys() == small_map.instances.keys() == {1, 2, 3}
    assert max(known.last_seen for known in again.instances.values()) < 0
    described = json.loads((tmp_path / "room.json").read_text())
    assert set(described["instances"]["1"]) == {"views", "last_seen", "position", "size"}


def test_no_map_yet_is_none_and_a_damaged_one_is_an_error(small_map: InstanceMap, tmp_path: Path) -> None:
    assert load_map(tmp_path / "room") is None
    save_map(tmp_path / "room", small_map, (), 9)
    whole = (tmp_path / "room.ply").read_bytes()
    for content in (whole[:-5], b"ply", b""):
        (tmp_path / "room.ply").write_bytes(content)
        with pytest.raises(InputError, match="room"):
            load_map(tmp_path / "room")
    (tmp_path / "room.ply").write_bytes(whole)
    (tmp_path / "room.npz").unlink()
    with pytest.raises(InputError, match="room"):
        load_map(tmp_path / "room")


def test_a_damaged_archive_of_keyframes_is_an_error(small_map: InstanceMap, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (24, 32)).astype(np.uint8), rng.random((24, 32)).astype(np.float32)
    corners = rng.random((5, 2)).astype(np.float32), *rng.random((3, 5, 3))
    features = rng.random((4, 2)), rng.integers(0, 255, (4, 32)).astype(np.uint8)
    save_map(tmp_path / "room", small_map, (Keyframe(np.eye(4), *pictures, *corners, *features),), 9)
    whole = (tmp_path / "room.npz").read_bytes()
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= int(rng.integers(1, 256))
        (tmp_path / "room.npz").write_bytes(content)
        try:
            load_map(tmp_path / "room")
        except InputError as error:
            refused += 1
            assert "cannot read the map" in str(error)
    assert refused > 30


def test_parts_of_two_maps_are_refused(small_map: InstanceMap, tmp_path: Path) -> None:
    save_map(tmp_path / "room", small_map, (), 9)
    before = (tmp_path / "room.json").read_bytes()
    small_map.merge(3, 2)
    save_map(tmp_path / "room", small_map, (), 9)
    assert load_map(tmp_path / "room") is not None
    (tmp_path / "room.json").write_bytes(before)  # as if the power had failed between two files
    with pytest.raises(InputError, match=r"room.ply and room.json hold different instances"):
        load_map(tmp_path / "room")


def test_a_place_that_cannot_be_written_is_an_error(small_map: InstanceMap, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the map"):
        save_map(tmp_path / "file" / "room", small_map, (), 9)


def frames(first: int, last: int) -> list[Frame]:
    scene = SampleScene(1, "orbit", 40, 400, 300, objects=6)
    return [dataclasses.replace(scene.render(n).frame, T_world_camera=None) for n in range(first, last)]


def test_ids_go_on_in_a_later_run(tmp_path: Path) -> None:
    settings = Settings()
    today = create_mastsam(settings)
    before: list[FrameResult] = [today.step(frame) for frame in frames(0, 5)]
    today.save_map(tmp_path / "room")
    tomorrow = create_mastsam(settings)
    assert tomorrow.load_map(tmp_path / "room")
    after = [tomorrow.step(frame) for frame in frames(2, 6)]
    same = (before[-1].labels == after[2].labels) & (before[-1].labels > 0)
    assert same.mean() > 0.9
    tracked = {track.id for track in before[-1].tracks if track.state is TrackState.TRACKED}
    assert len(tracked & {track.id for track in after[-1].tracks if track.state is TrackState.TRACKED}) >= 8


def test_other_voxels_are_refused(small_map: InstanceMap, tmp_path: Path) -> None:
    save_map(tmp_path / "room", small_map, (), 9)
    mastsam = create_mastsam(Settings().updated({"geometry.map_voxel_m": 0.05}))
    with pytest.raises(InputError, match="geometry.map_voxel_m=0.02"):
        mastsam.load_map(tmp_path / "room")
    assert not mastsam.load_map(tmp_path / "elsewhere")
