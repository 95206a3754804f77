"""Replay: bags of results that are the same twice and hold the node's messages, and their scores."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from mastsam_ros import cli
from mastsam_ros.evaluation.bag_data import bag_sequence
from mastsam_ros.io.frame_bag import TOPICS
from mastsam_ros.io.result_bag import ResultBag, read_clouds, read_labels, read_maps, read_poses, read_results
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.io.sources import open_source
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.types import FrameResult, InputError, LabelledCloud, PoseState

from .io.conftest import rvl_of

FRAMES = 6
TOPICS_OUT = ("/mastsam/events", "/mastsam/instances", "/mastsam/labels", "/mastsam/points")
needs_ros = pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS 2 (rclpy)")


@pytest.fixture(scope="module")
def scene() -> SampleScene:
    return SampleScene(1, frames=FRAMES, width=160, height=120, rate_hz=5)


@pytest.fixture(scope="module")
def bag(scene: SampleScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene.write_bag(tmp_path_factory.mktemp("replay") / "bag")


@pytest.fixture(scope="module")
def replayed(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("results") / "results"
    assert cli.main(["replay", str(bag), "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="module")
def compressed_bag(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bag as image_transport publishes it: colour as PNG, depth as compressedDepth with RVL."""
    folder, store = tmp_path_factory.mktemp("compressed") / "compressed", get_typestore(Stores.ROS2_HUMBLE)
    image, packed = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
    forms = {TOPICS["image"]: "compressed", TOPICS["depth"]: "compressedDepth"}
    with AnyReader([bag]) as reader, Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        added = {
            c.topic: writer.add_connection(f"{c.topic}/{forms[c.topic]}", packed, typestore=store)
            if c.topic in forms
            else writer.add_connection(c.topic, c.msgtype, typestore=store)
            for c in reader.connections
        }
        for connection, stamp_ns, raw in reader.messages():
            if connection.topic in forms:
                message = reader.deserialize(raw, image)
                if connection.topic == TOPICS["depth"]:
                    depth = message.data.view("<u2").reshape(message.height, message.width)
                    content, form = bytes(12) + rvl_of(depth), "16UC1; compressedDepth rvl"
                else:
                    pixels = message.data.reshape(message.height, message.width, 3)
                    content, form = cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes(), "rgb8; png compressed bgr8"
                message = store.types[packed](message.header, form, np.frombuffer(content, np.uint8))
                raw = store.serialize_cdr(message, packed)
            writer.write(added[connection.topic], stamp_ns, raw)
    return folder


def messages(folder: Path) -> list[tuple[str, str, bytes]]:
    """Topic, type and content of every message; DDS fills the last four bytes of one up with zeros."""
    with AnyReader([folder]) as reader:
        found = ((c.topic, c.msgtype, bytes(raw).ljust(-len(raw) // 4 * -4, b"\0")) for c, _, raw in reader.messages())
        return sorted(item for item in found if item[0] in TOPICS_OUT)


def test_the_same_bytes_twice(bag: Path, replayed: Path, tmp_path: Path) -> None:
    again = tmp_path / "another name"
    assert cli.main(["replay", str(bag), "--output", str(again)]) == 0
    files = sorted(path.name for path in replayed.iterdir())
    assert files == ["metadata.yaml", "results.mcap"]
    for name in files:
        assert (again / name).read_bytes() == (replayed / name).read_bytes(), name


def test_every_frame_is_answered_as_by_the_step(bag: Path, replayed: Path) -> None:
    mastsam = create_mastsam()
    results, clouds = read_results(replayed), dict(read_clouds(replayed))
    assert len(results) == len(clouds) == FRAMES
    for item, (_, frame) in zip(results, open_source(bag), strict=True):
        expected = mastsam.step(frame)
        got = item.result
        assert got.stamp_ns == item.arrived_ns == frame.stamp_ns and got.frame_id == frame.frame_id
        assert np.array_equal(got.labels, expected.labels)
        assert [track.id for track in got.tracks] == [track.id for track in expected.tracks]
        assert [event.kind for event in got.events] == [event.kind for event in expected.events]
        assert expected.points is not None
        assert np.array_equal(clouds[frame.stamp_ns].xyz, expected.points.xyz)


def test_the_map_and_the_poses_are_those_of_the_step(bag: Path, replayed: Path) -> None:
    mastsam = create_mastsam()
    poses, maps = dict(read_poses(replayed)), dict(read_maps(replayed))
    stamps = []
    for _, frame in open_source(bag):
        result = mastsam.step(frame)
        stamps.append(frame.stamp_ns)
        assert result.T_world_camera is not None and result.pose is PoseState.OWN
        assert np.allclose(poses[frame.stamp_ns], result.T_world_camera, atol=1e-9)
    expected = mastsam.world_map()
    assert sorted(maps) == [stamps[0], stamps[-1]], "once a second, and at the end"
    got = maps[stamps[-1]]
    assert np.array_equal(got.cloud.instance, expected.cloud.instance) and got.cloud.metric
    assert np.array_equal(got.cloud.xyz, expected.cloud.xyz) and len(got.cloud) > 1000
    assert got.instances == expected.instances and len(got.instances) > 3
    for instance in got.instances:
        own = got.cloud.xyz[got.cloud.instance == instance.id]
        assert instance.voxels == len(own) and np.allclose(np.median(own, axis=0), instance.position, atol=1e-3)
        assert stamps[0] <= instance.last_seen_ns <= stamps[-1] and 1 <= instance.views <= len(stamps)
    with AnyReader([replayed]) as reader:
        frames = {
            c.topic: reader.deserialize(raw, c.msgtype).header.frame_id
            for c, _, raw in reader.messages()
            if c.topic in ("/mastsam/map", "/mastsam/map_instances", "/mastsam/odometry")
        }
        offered = {c.topic: c.ext.offered_qos_profiles for c in reader.connections}
    assert set(frames.values()) == {"map"} and len(frames) == 3
    assert [qos.durability.name for qos in offered["/mastsam/map"]] == ["TRANSIENT_LOCAL"]


@pytest.mark.parametrize(
    ("pose", "metric", "suffix"), [(PoseState.OWN, True, ""), (PoseState.UP_TO_SCALE, False, "_unscaled")]
)
def test_what_has_no_scale_is_in_frames_of_another_name(
    tmp_path: Path, pose: PoseState, metric: bool, suffix: str
) -> None:
    points, labels = np.ones((5, 3), np.float32), np.ones((4, 4), np.uint16)
    cloud = LabelledCloud(points, np.zeros((5, 3), np.uint8), np.ones(5, np.uint32), np.ones(5, np.float32), metric)
    result = FrameResult(labels, (), (), cloud, stamp_ns=7, frame_id="eye", T_world_camera=np.eye(4), pose=pose)
    with ResultBag(tmp_path / "results", map_frame="room") as results:
        results.add(result)
    with AnyReader([tmp_path / "results"]) as reader:
        read = {c.topic: reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages()}
    assert read["/mastsam/labels"].header.frame_id == "eye"
    assert read["/mastsam/points"].header.frame_id == "eye" + suffix
    assert read["/mastsam/odometry"].header.frame_id == "room" + suffix
    assert read["/mastsam/odometry"].child_frame_id == "eye" + suffix
    [(stamp_ns, again)] = read_clouds(tmp_path / "results")
    assert stamp_ns == 7 and again.metric == metric and np.array_equal(again.xyz, points)


def test_score_against_a_topic_and_against_a_folder(
    scene: SampleScene, bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth"
    truth.mkdir()
    for index in range(FRAMES):
        cv2.imwrite(str(truth / f"{index:06d}.png"), scene.render(index).instance)
    figures = []
    for name, given in (("topic", TOPICS["truth"]), ("folder", str(truth))):
        file = tmp_path / f"{name}.json"
        command = ["replay", str(bag), "--output", str(tmp_path / name), "--ground-truth", given, "--json", str(file)]
        assert cli.main(command) == 0
        figures.append(json.loads(file.read_text()))
    told = capsys.readouterr().out
    assert f"{FRAMES} of {FRAMES} frames, step p50" in told and "best track IoU" in told and "H %" in told
    assert figures[0]["scores"] == figures[1]["scores"]
    score = figures[0]["scores"]["sequences"]["bag"]
    assert score["frames"] == FRAMES and 0.5 < score["best_track"] <= 1 and score["H"] > 50
    assert figures[0]["drop_share"] == 0 and figures[0]["settings"]["tracker"]["discovery"] is True
    names = [figures[0]["settings"][part]["name"] for part in ("matcher", "segmenter")]
    assert "auto" not in names and f"matcher {names[0]}, segmenter {names[1]} on " in told


def test_the_storage_file_alone_will_do(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "alone.mcap"
    shutil.copy(bag / "bag.mcap", file)
    command = ["replay", str(file), "--output", str(tmp_path / "results"), "--ground-truth", TOPICS["truth"]]
    assert cli.main([*command, "--protocol", "best-track"]) == 0
    assert "| alone" in capsys.readouterr().out
    store = get_typestore(Stores.ROS2_HUMBLE)
    with AnyReader([bag]) as reader, Writer(tmp_path / "old", version=8, storage_plugin=StoragePlugin.SQLITE3) as old:
        added = {c.topic: old.add_connection(c.topic, c.msgtype, typestore=store) for c in reader.connections}
        for connection, stamp_ns, raw in reader.messages():
            old.write(added[connection.topic], stamp_ns, raw)
    command = ["replay", str(tmp_path / "old"), "--output", str(tmp_path / "again"), "--ground-truth", TOPICS["truth"]]
    assert cli.main([*command, "--protocol", "best-track"]) == 0
    assert messages(tmp_path / "again") == messages(tmp_path / "results")


def test_true_labels_score_one(scene: SampleScene, bag: Path, tmp_path: Path) -> None:
    from mastsam_ros.replay import score_bag
    from mastsam_ros.types import FrameResult

    with ResultBag(tmp_path / "results") as results:
        for index in range(1, FRAMES):  # one was dropped
            view = scene.render(index)
            results.add(FrameResult(view.instance, (), (), None, {}, index, view.frame.stamp_ns, "camera"))
    sequence = bag_sequence(bag, TOPICS["truth"], tmp_path / "data")
    score = score_bag(sequence, tmp_path / "results", ("best-track", "consistency"))
    assert score.best_track == 1 and score.frames == FRAMES - 1 and score.H is not None and score.H > 90


def test_truth_of_a_bag_is_paired_by_stamp(scene: SampleScene, bag: Path, tmp_path: Path) -> None:
    folder = tmp_path / "truth"
    folder.mkdir()
    for index in (1, 4):
        cv2.imwrite(str(folder / f"{scene.stamp_ns(index)}.png"), scene.render(index).instance)
    sequence = bag_sequence(bag, str(folder), tmp_path / "data")
    assert [files.stem for files in sequence.frames] == ["000001", "000004"]
    assert [files.stamp_ns for files in sequence.frames] == [scene.stamp_ns(1), scene.stamp_ns(4)]
    view = scene.render(4)
    assert np.array_equal(sequence.truth(sequence.frames[1]), view.instance)
    assert view.frame.T_world_camera is not None and sequence.frames[1].T_world_camera is not None
    assert np.allclose(sequence.frames[1].T_world_camera, view.frame.T_world_camera)
    seen = sequence.frame(1, geometry=True)
    assert np.array_equal(seen.image, view.frame.image) and sequence.kind == "scene"
    assert seen.depth is not None and np.allclose(seen.depth, view.frame.depth, atol=6e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ground-truth", "/nothing"], ["/nothing", TOPICS["truth"]]),
        (["--ground-truth", TOPICS["image"]], [TOPICS["image"], "mono16", "rgb8"]),
        (["--ground-truth", TOPICS["truth"], "--protocol", "beauty"], ["beauty", "best-mask"]),
        (["--image-topic", "/nothing"], ["/nothing", TOPICS["image"]]),
    ],
)
def test_what_does_not_fit_is_one_line(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: list[str]
) -> None:
    assert cli.main(["replay", str(bag), "--output", str(tmp_path / "results"), *options]) == 1
    told = capsys.readouterr().err
    assert all(word in told for word in words) and told.count("\n") == 1, told
    assert not (tmp_path / "results").exists(), "told before the work"


def test_nothing_but_results_is_replaced(bag: Path, replayed: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for folder in (bag, tmp_path / "notes"):
        with pytest.raises(InputError, match="choose another name"):
            ResultBag(folder)
    assert len(list(read_labels(replayed))) == FRAMES
    earlier = shutil.copytree(replayed, tmp_path / "earlier")
    with ResultBag(earlier):
        pass
    assert not list(read_labels(earlier))


def test_images_are_no_bag(scene: SampleScene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = SampleScene(frames=2, width=80, height=60).write_scene_folder(tmp_path / "scene")
    assert cli.main(["replay", str(folder)]) == 1
    assert "mastsam run" in capsys.readouterr().err


def test_without_ros_it_says_what_to_do(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mastsam_ros.replay.find_spec", lambda name: None)
    assert cli.main(["replay", str(bag), "--ros", "--output", str(tmp_path / "results")]) == 1
    told = capsys.readouterr().err
    assert "pip install" in told and told.count("\n") == 1


def test_compressed_images_and_depth_give_the_same_results(
    bag: Path, compressed_bag: Path, replayed: Path, tmp_path: Path
) -> None:
    assert cli.main(["replay", str(compressed_bag), "--output", str(tmp_path / "results")]) == 0
    assert messages(tmp_path / "results") == messages(replayed)
    for source in (bag, compressed_bag):
        assert cli.main(["run", str(source), "--output", str(tmp_path / source.name)]) == 0
    for path in sorted((tmp_path / bag.name / "labels").iterdir()):
        assert path.read_bytes() == (tmp_path / compressed_bag.name / "labels" / path.name).read_bytes()


@needs_ros
def test_the_node_answers_with_the_same_messages(bag: Path, replayed: Path, tmp_path: Path) -> None:
    online, file = tmp_path / "online", tmp_path / "figures.json"
    command = ["replay", str(bag), "--ros", "--use-sim-time", "--rate", "0.3", "--output", str(online)]
    command += ["--set", "node.reliability=reliable"]
    assert cli.main([*command, "--ground-truth", TOPICS["truth"], "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert figures["frames"] == figures["answered"] == FRAMES and figures["drop_share"] == 0
    assert 1 < figures["latency_ms_p50"] <= figures["latency_ms_p95"] and figures["lost_on_the_way"] == 0
    assert figures["scores"]["sequences"]["bag"]["frames"] == FRAMES and figures["diagnostics"]["skipped"] == "0"
    assert "use_sim_time: true" in (tmp_path / "online_logs" / "parameters.yaml").read_text()
    assert messages(online) == messages(replayed)
    with AnyReader([online]) as reader:
        told = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if c.topic == "/diagnostics"]
    times = [message.header.stamp.sec for message in told]
    assert times and max(times) < 60, "the node's own messages bear the bag's time, which begins at 1 s"


@needs_ros
def test_the_node_takes_a_compressed_bag_best_effort(
    compressed_bag: Path, replayed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    online, file = tmp_path / "online", tmp_path / "figures.json"
    assert (
        cli.main(
            ["replay", str(compressed_bag), "--ros", "--rate", "0.3", "--output", str(online), "--json", str(file)]
        )
        == 0
    )
    figures = json.loads(file.read_text())
    # Best effort promises no arrival: what is certain is that every image that arrived is accounted for.
    counts = {name: int(figures["diagnostics"][name]) for name in ("received", "processed", "skipped", "unpaired")}
    assert figures["frames"] == FRAMES and counts["received"] == FRAMES - figures["lost_on_the_way"] > 0
    assert figures["answered"] == counts["processed"] == counts["received"] - counts["skipped"] - counts["unpaired"] > 0
    assert ("never reached the node" in capsys.readouterr().out) == (figures["lost_on_the_way"] > 0)
    if figures["answered"] == FRAMES:
        assert messages(online) == messages(replayed)


def test_poses_of_the_bag_take_the_place_of_own_odometry(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scene = SampleScene(2, "orbit", 6, 160, 120, objects=4)
    bag = scene.write_bag(tmp_path / "bag")
    arguments = ["replay", str(bag), "--output", str(tmp_path / "out"), "--set", "node.map_frame=world"]
    assert cli.main([*arguments, "--pose-topic", "/camera/odometry"]) == 0
    told = [T for _, T in read_poses(tmp_path / "out")]
    truth = [scene.T_world_camera(index) for index in range(6)]
    assert len(told) == 6 and np.allclose(told, truth, atol=1e-6)
    # In a frame that nobody tells of there is no pose, and no world of its own in its place.
    assert cli.main([*arguments, "--set", "node.map_frame=mars", "--pose-topic", "/camera/odometry"]) == 0
    assert not list(read_poses(tmp_path / "out"))
    assert cli.main([*arguments, "--pose-topic", "tf"]) == 1
    said = capsys.readouterr().err
    assert "/tf carries nothing, expected tf2_msgs/msg/TFMessage; poses are on: /camera/odometry" in said
    assert cli.main([*arguments, "--pose-topic", "/camera/odometry", "--ros"]) == 1
    assert "--ros plays images, depth and intrinsics, no poses" in capsys.readouterr().err
