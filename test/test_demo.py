"""The demo: figures and page from a recorded session, and, where ROS is there, the whole way over DDS."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mastsam_ros import cli
from mastsam_ros.demo import bags
from mastsam_ros.demo.outcome import score
from mastsam_ros.demo.page import demo_page, write_strip
from mastsam_ros.demo.session import Session
from mastsam_ros.io.result_bag import read_clouds, read_results
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.settings import Settings
from mastsam_ros.types import EventKind, MastsamError, TrackState

MESSAGES = Path(__file__).parent.parent / "msg"
needs_ros = pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS 2 (rclpy)")


def write_results(folder: Path, scene: SampleScene, label_of) -> dict[int, int]:
    """label_of(index, instance) as the node's labels, 40 ms after each image. Returns when images were sent."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name in ("Instance", "InstanceArray", "TrackEvent"):
        text = (MESSAGES / f"{name}.msg").read_text()
        store.register(get_types_from_msg(text, f"mastsam_ros/msg/{name}"))
    types = store.types
    kinds = {
        "/mastsam/labels": "sensor_msgs/msg/Image",
        "/mastsam/instances": "mastsam_ros/msg/InstanceArray",
        "/mastsam/events": "mastsam_ros/msg/TrackEvent",
        "/mastsam/points": "sensor_msgs/msg/PointCloud2",
    }
    sent = {}
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in kinds.items()}
        for index in range(len(scene)):
            view = scene.render(index)
            labels = label_of(index, view.instance)
            stamp = types["builtin_interfaces/msg/Time"](*divmod(view.frame.stamp_ns, 10**9))
            header = types["std_msgs/msg/Header"](stamp, "camera")
            sent[view.frame.stamp_ns] = 10**18 + view.frame.stamp_ns
            if labels is None:  # dropped
                continue
            height, width = labels.shape
            zero = types["geometry_msgs/msg/Point"](0.5, 0.0, 1.0), types["geometry_msgs/msg/Vector3"](0.1, 0.1, 0.1)
            instance = types["mastsam_ros/msg/Instance"](3, 2, "", 0.75, 40, 1, 2, 3, 4, 5, True, *zero)
            constants = {name: getattr(instance, name) for name in ("STATE_TENTATIVE", "STATE_TRACKED", "STATE_LOST")}
            assert constants["STATE_TRACKED"] == 2
            points = np.zeros(
                4,
                [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("instance", "<u4"), ("confidence", "<f4")],
            )
            points["z"], points["instance"], points["rgb"] = 1.2, 3, 0x8090A0
            fields = [
                types["sensor_msgs/msg/PointField"](name, 4 * place, 6 if name == "instance" else 7, 1)
                for place, name in enumerate(points.dtype.names)
            ]
            messages = {
                "/mastsam/labels": types["sensor_msgs/msg/Image"](
                    header, height, width, "mono16", 0, 2 * width, labels.reshape(-1).view(np.uint8)
                ),
                "/mastsam/instances": types["mastsam_ros/msg/InstanceArray"](header, width, height, [instance]),
                "/mastsam/events": types["mastsam_ros/msg/TrackEvent"](header, 4, 3, 8, 0.9, "same thing"),
                "/mastsam/points": types["sensor_msgs/msg/PointCloud2"](
                    header, 1, 4, fields, False, 24, 96, points.view(np.uint8), True
                ),
            }
            for topic, message in messages.items():
                raw = store.serialize_cdr(message, kinds[topic])
                writer.write(connections[topic], sent[view.frame.stamp_ns] + 40_000_000, raw)
    return sent


@pytest.fixture(scope="module")
def scene() -> SampleScene:
    return SampleScene(1, frames=10, width=160, height=120, rate_hz=5)


@pytest.fixture(scope="module")
def bag(scene, tmp_path_factory) -> Path:
    return scene.write_bag(tmp_path_factory.mktemp("demo") / "bag")


def outcome_of(scene, bag, folder, label_of):
    sent = write_results(folder / "result_bag", scene, label_of)
    return score(Session(bag, folder / "result_bag", Settings(), True, sent), scene.description())


def test_perfect_labels_score_one_and_make_a_page(scene, bag, tmp_path) -> None:
    outcome = outcome_of(scene, bag, tmp_path, lambda index, instance: instance + np.uint16(100))
    figures = outcome.figures()
    assert figures["objects_found"] == figures["ids_kept"] == 1 and figures["tube_iou"] == pytest.approx(1)
    assert figures["H"] > 0.9 and figures["best_track_iou"] == pytest.approx(1) and figures["id_switches"] == 0
    assert figures["drop_share"] == 0 and figures["latency_ms_p50"] == pytest.approx(40)
    assert figures["frames_per_second_sent"] == pytest.approx(5)
    page = demo_page(outcome, "a generated scene")
    for name in outcome.object_ids:
        assert f">{name}</text>" in page
    assert "objects found" in page and "tracker.update_interval" in page
    write_strip(outcome, tmp_path / "strip.jpg")
    assert (tmp_path / "strip.jpg").stat().st_size > 2000


def test_ids_that_change_and_frames_that_are_dropped_show_in_the_figures(scene, bag, tmp_path) -> None:
    def label_of(index, instance):
        return None if index in (4, 5) else instance + np.uint16(100 if index < 6 else 200)

    outcome = outcome_of(scene, bag, tmp_path, label_of)
    figures = outcome.figures()
    assert figures["drop_share"] == pytest.approx(0.2) and figures["frames_answered"] == 8
    assert figures["ids_kept"] == 0 and figures["id_switches"] > 10
    assert figures["best_mask_iou"] == pytest.approx(1) and figures["best_track_iou"] < 0.7
    ids = next(iter(outcome.object_ids.values()))
    assert len(ids) == 8


def test_the_result_bag_is_read_as_it_was_written(scene, bag, tmp_path) -> None:
    outcome_of(scene, bag, tmp_path, lambda index, instance: instance)
    results = read_results(tmp_path / "result_bag")
    result = results[1].result
    assert np.array_equal(result.labels, scene.render(1).instance) and result.stamp_ns == scene.stamp_ns(1)
    (track,), (event,) = result.tracks, result.events
    assert (track.id, track.state, track.box_xywh, track.age) == (3, TrackState.TRACKED, (1, 2, 3, 4), 5)
    assert track.position == (0.5, 0.0, 1.0) and track.score == pytest.approx(0.75)
    assert (event.kind, event.id, event.other_id, event.reason) == (EventKind.MERGED, 3, 8, "same thing")
    stamp_ns, cloud = next(iter(read_clouds(tmp_path / "result_bag")))
    assert (
        stamp_ns == scene.stamp_ns(0)
        and cloud.instance.tolist() == [3] * 4
        and cloud.rgb[0].tolist() == [128, 144, 160]
    )


def test_a_node_that_answers_nothing_is_said(scene, bag, tmp_path) -> None:
    with pytest.raises(MastsamError, match="answered no image"):
        outcome_of(scene, bag, tmp_path, lambda index, instance: None)


def test_without_ros_the_demo_says_what_to_install(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("mastsam_ros.demo.find_spec", lambda name: None)
    assert cli.main(["demo", "--output", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "pip install" in told and told.count("\n") == 1


def test_the_sample_bag_is_kept_until_something_changes(tmp_path) -> None:
    first, _ = bags.sample_bag(tmp_path, 2)
    written = first.stat().st_mtime_ns
    again, described = bags.sample_bag(tmp_path, 2)
    assert again == first and again.stat().st_mtime_ns == written and len(described["objects"]) == 13
    other, _ = bags.sample_bag(tmp_path, 3)
    assert other != first and not first.exists()


@needs_ros
def test_the_whole_way_over_dds(tmp_path, capsys) -> None:
    assert cli.main(["demo", "--frames", "8", "--output", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames_sent"] == 8 and summary["frames_answered"] == 8 and summary["drop_share"] == 0
    assert summary["latency_ms_p50"] > 1 and summary["objects_found"] > 0.7 and len(summary["objects"]) == 13
    assert "objects found" in told and str(tmp_path / "index.html") in told
    page = (tmp_path / "index.html").read_text()
    assert "The labelled cloud" in page and "<video" in page
    for log in ("node", "player", "recorder"):
        assert "Traceback" not in (tmp_path / "logs" / f"{log}.log").read_text()


@needs_ros
def test_images_of_ones_own_need_no_truth(scene, tmp_path, capsys) -> None:
    folder = SampleScene(1, frames=5, width=160, height=120).write_scene_folder(tmp_path / "scene")
    output = tmp_path / "out"
    assert cli.main(["demo", str(folder / "rgb"), "--output", str(output)]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["frames_answered"] == 5 and summary["objects"] == [] and summary["ids"] > 0
    page = (output / "index.html").read_text()
    assert "All ids over time" in page and "true object" not in page and "labelled cloud" not in page


@needs_ros
def test_a_source_that_is_not_there_ends_with_one_line(tmp_path, capsys) -> None:
    assert cli.main(["demo", str(tmp_path / "nothing"), "--output", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "nothing" in told and told.count("\n") == 1
