"""Recordings for Rerun, read back with its own reader."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mastsam_ros import cli
from mastsam_ros.io.rerun_recording import RerunRecording
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.types import EventKind, Frame, FrameResult, MissingPackageError, TrackEvent
from mastsam_ros.viz import colors

FRAMES = 3


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory):
    """The file, and the frames and results that were written to it."""
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    path = tmp_path_factory.mktemp("rerun") / "a" / "run.rrd"
    mastsam = create_mastsam()
    recording = RerunRecording(path, mastsam.world_map)
    steps = []
    for view in SampleScene(1, "orbit", 8, 160, 120, objects=5, rate_hz=5):
        frame = Frame(view.frame.image, view.frame.stamp_ns, K=view.frame.K, depth=view.frame.depth)
        steps.append((frame, mastsam.step(frame)))
        recording.write("", *steps[-1])
        if len(steps) == FRAMES:
            break
    recording.close()
    return path, steps, mastsam.world_map()


def table(path: Path):
    import rerun as rr

    read = rr.dataframe.load_recording(path).view(index="frame", contents="/**").select().read_all()
    stamps = read["stamp"].cast("int64").to_pylist()
    return read.drop_columns(["log_time", "stamp"]).to_pydict() | {"stamp_ns": stamps}


def test_image_masks_cloud_and_ids_read_back(written):
    path, steps, world = written
    columns = table(path)
    assert columns["frame"] == list(range(FRAMES))
    assert columns["stamp_ns"] == [frame.stamp_ns for frame, _ in steps]
    for n, (frame, result) in enumerate(steps):
        jpeg = np.array(columns["/world/camera/image:EncodedImage:blob"][n], np.uint8).ravel()
        image = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert np.abs(image.astype(int) - frame.image).mean() < 6
        labels = np.array(columns["/world/camera/image/labels:SegmentationImage:buffer"][n], np.uint8).ravel()
        assert np.array_equal(labels.view("<u2").reshape(result.labels.shape), result.labels)
        points = np.array(columns["/world/camera/points:Points3D:positions"][n], np.float32)
        assert np.array_equal(points, result.points.xyz)
        assert columns["/world/camera/points:Points3D:class_ids"][n] == result.points.instance.tolist()
        place = np.array(columns["/world/camera:Transform3D:translation"][n], np.float64).ravel()
        assert np.allclose(place, result.T_world_camera[:3, 3], atol=1e-6)
        for track in result.tracks:
            assert columns[f"/tracks/{track.id}:Scalars:scalars"][n] == [track.area]
    assert columns["/check/uncovered:Scalars:scalars"][0] == [steps[0][1].check.uncovered]
    assert columns["/check/consistency:Scalars:scalars"][0] is None, "the first frame has nothing before it"
    assert len(columns["/world/map:Points3D:positions"][-1]) == len(world.cloud), "the map at the end"
    assert any("born" in text for text in columns["/events:TextLog:text"][0])


def test_ids_have_the_overlay_s_colours(written):
    path, steps, _ = written
    tables = [row for row in table(path)["/world:AnnotationContext:context"] if row]
    last = {entry["class_id"]: entry["class_description"]["info"] for entry in tables[-1][0]}
    for track in steps[-1][1].tracks:
        red, green, blue = colors([track.id])[0].tolist()
        assert last[track.id]["label"] == f"id {track.id}"
        assert last[track.id]["color"] == red << 24 | green << 16 | blue << 8 | 255


def test_a_frame_without_geometry_and_a_merge(tmp_path: Path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    labels = np.ones((24, 32), np.uint16)
    result = FrameResult(labels, (), (TrackEvent(EventKind.MERGED, 4, 2, "masks coincide", 0.8),), None)
    recording = RerunRecording(tmp_path / "run.rrd")
    recording.write("", Frame(np.zeros((24, 32, 3), np.uint8)), result)
    recording.close()
    columns = table(tmp_path / "run.rrd")
    assert columns["/events:TextLog:text"] == [["merged 4 -> 2: masks coincide (0.80)"]]
    assert not [name for name in columns if "points" in name or "map" in name]


def test_run_writes_it_where_asked(tmp_path: Path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed")
    scene = SampleScene(1, frames=2, width=96, height=72, objects=3)
    source = scene.write_bag(tmp_path / "bag")
    output = tmp_path / "out"
    assert cli.main(["run", str(source), "--output", str(output), "--rerun"]) == 0
    assert len(table(output / "run.rrd")["frame"]) == 2
    assert cli.main(["run", str(source), "--output", str(output)]) == 0
    assert not (output / "run.rrd").exists(), "of an earlier run"


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'mastsam_ros\[rerun\]'"):
        RerunRecording(tmp_path / "run.rrd")
