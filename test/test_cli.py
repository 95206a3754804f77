"""The command line from end to end, on the generated scene: formats, exit statuses, and bad input in one line."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

import mastsam_ros.cli as cli
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.settings import Settings

FRAMES, WIDTH, HEIGHT = 7, 160, 120


@pytest.fixture(autouse=True)
def _restore_logging() -> Any:
    """`main` sets logging up for its process; here many share one."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before[0], before[1]


@pytest.fixture(scope="module")
def sample() -> SampleScene:
    return SampleScene(frames=FRAMES, width=WIDTH, height=HEIGHT)


@pytest.fixture(scope="module")
def scene(sample: SampleScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write_scene_folder(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def bag(sample: SampleScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write_bag(tmp_path_factory.mktemp("bags") / "sample")


@pytest.fixture(scope="module")
def finished(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one full run."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert run(scene, out, "--points", "--video", "--set", "tracker.update_interval=3", "--device", "cpu") == 0
    return out


def run(source: Path, out: Path, *options: str) -> int:
    return cli.main(["run", str(source), "--output", str(out), *options])


def read_labels(out: Path) -> dict[str, np.ndarray]:
    files = sorted((out / "labels").iterdir())
    return {file.stem: cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files}


def read_frames(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]


def test_labels_are_16_bit_at_full_size_and_hold_the_tracks_of_the_log(finished: Path) -> None:
    labels, frames = read_labels(finished), read_frames(finished)
    assert list(labels) == [f"{index:05d}" for index in range(FRAMES)]
    assert [frame["index"] for frame in frames] == list(range(FRAMES))
    for image, frame in zip(labels.values(), frames, strict=True):
        assert image.dtype == np.uint16
        assert image.shape == (HEIGHT, WIDTH)
        shown = {track["id"]: track for track in frame["tracks"] if track["area"]}
        assert set(shown) == set(np.unique(image)) - {0}
        for number, track in shown.items():
            ys, xs = np.nonzero(image == number)
            assert track["area"] == len(xs)
            assert track["box_xywh"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert set(frame["timings_ms"]) >= {"match", "segment", "total"}
        for track in frame["tracks"]:
            assert {"id", "state", "score", "area", "box_xywh", "age", "position"} <= set(track)
    assert frames[0]["stamp_ns"] < frames[1]["stamp_ns"]
    assert {event["kind"] for event in frames[0]["events"]} == {"born"}
    assert (labels["00003"] > 0).mean() > 0.5


def test_positions_are_where_the_objects_are(finished: Path, sample: SampleScene) -> None:
    positions = [track["position"] for track in read_frames(finished)[3]["tracks"] if track["area"] > 400]
    assert len(positions) >= 3
    depth = sample.render(3).frame.depth
    assert depth is not None
    for position in positions:
        assert position is not None
        assert depth[depth > 0].min() - 0.1 < position[2] < depth.max() + 0.1


def test_the_summary_tells_what_was_run(finished: Path, scene: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["frames"] == FRAMES
    assert summary["fps"] > 0
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p95"]
    assert summary["tracks"] == len(
        set().union(*(set(np.unique(image)) for image in read_labels(finished).values())) - {0}
    )
    assert summary["source"] == str(scene)
    settings = Settings.from_mapping(summary["settings"])
    chosen = {"matcher.name": "flow", "segmenter.name": "regions"}
    assert settings == Settings().updated({"tracker.update_interval": 3, "device": "cpu", **chosen})
    assert {"mastsam_ros", "torch", "numpy"} <= set(summary["versions"])
    assert "error" not in summary


def test_clouds_carry_the_labels_of_their_pixels(finished: Path) -> None:
    files = sorted((finished / "points").iterdir())
    assert [file.suffix for file in files] == [".ply"] * FRAMES
    body = files[2].read_bytes().partition(b"end_header\n")[2]
    kinds = [("xyz", "<f4", 3), ("rgb", "u1", 3), ("instance", "<u4"), ("confidence", "<f4")]
    points = np.frombuffer(body, np.dtype(kinds))
    assert len(points) > 1000
    assert np.isfinite(points["xyz"]).all()
    assert set(np.unique(points["instance"])) <= set(np.unique(read_labels(finished)["00002"]))


def test_the_video_has_every_frame(finished: Path) -> None:
    with av.open(str(finished / "overlay.mp4")) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in video.decode(video=0)) == FRAMES


def test_the_same_input_twice_gives_the_same_bytes(finished: Path, scene: Path, tmp_path: Path) -> None:
    assert run(scene, tmp_path, "--points", "--video", "--set", "tracker.update_interval=3") == 0
    compared = 0
    for file in finished.rglob("*"):
        if file.suffix in (".png", ".ply", ".mp4"):
            assert (tmp_path / file.relative_to(finished)).read_bytes() == file.read_bytes(), file.name
            compared += 1
    assert compared == 2 * FRAMES + 1
    without_timings = [[{**frame, "timings_ms": 0} for frame in read_frames(out)] for out in (finished, tmp_path)]
    assert without_timings[0] == without_timings[1]


def test_a_bag_gives_what_the_same_frames_give_as_lossless_images(
    bag: Path, tmp_path: Path, sample: SampleScene
) -> None:
    for index, scene_view in enumerate(sample):
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / f"{index:06d}.png"), scene_view.frame.image[:, :, ::-1])
    assert run(bag, tmp_path / "from_bag", "--no-depth") == 0
    assert run(tmp_path / "images", tmp_path / "from_images") == 0
    of_bag, of_images = read_labels(tmp_path / "from_bag"), read_labels(tmp_path / "from_images")
    assert list(of_bag) == list(of_images)
    for stem, image in of_bag.items():
        np.testing.assert_array_equal(image, of_images[stem])
    assert all(track["position"] is None for frame in read_frames(tmp_path / "from_bag") for track in frame["tracks"])


def test_points_without_depth_are_missed_aloud(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(scene, tmp_path, "--points", "--no-depth") == 0
    assert "no points: the source has neither depth nor intrinsics nor motion" in capsys.readouterr().out
    assert not list((tmp_path / "points").iterdir())


def test_a_video_file_runs(scene: Path, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for file in sorted((scene / "rgb").iterdir())[:3]:
            pixels = cv2.imread(str(file))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        container.mux(stream.encode())
    assert run(tmp_path / "clip.mp4", tmp_path / "out") == 0
    assert list(read_labels(tmp_path / "out")) == ["000000", "000001", "000002"]


def test_settings_come_from_file_then_assignments_then_shortcuts(scene: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("tracker: {representatives: 3, kmeans: sklearn}\ndevice: cuda\n")
    parser = argparse.ArgumentParser()
    cli.import_module("mastsam_ros.run").add_arguments(parser)
    given = ["x", "--output", "y", "--config", str(config), "--set", "tracker.kmeans=torch", "--device", "cpu"]
    settings = cli.import_module("mastsam_ros.run").settings_from(parser.parse_args(given))
    assert settings == Settings().updated({"tracker.representatives": 3, "device": "cpu"})


# Bad input: one line on stderr that names the thing, exit status 1, and what was written stays.


def one_line(capsys: pytest.CaptureFixture) -> str:
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("mastsam: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "tracker.update_intervall=3"], "unknown setting 'tracker.update_intervall'; did you mean"),
        (["--set", "tracker.update_interval=0"], "tracker.update_interval must be in [1, 10000], got 0"),
        (["--set", "tracker.update_interval"], "expected path=value, got 'tracker.update_interval'"),
        (["--config", "/nowhere/settings.yaml"], "cannot read settings file /nowhere/settings.yaml"),
        (["--matcher", "sift"], "matcher.name must be one of auto, flow"),
        (["--segmenter", "magic"], "segmenter.name must be one of auto, regions"),
        (["--device", "tpu"], "device must be one of auto, cuda, cpu, got 'tpu'"),
        (["--image-topic", "/camera"], "is no rosbag2: it has no topic /camera"),
    ],
)
def test_wrong_options(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
) -> None:
    assert run(scene, tmp_path / "out", *options) == 1
    assert message in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("/front/image", "has no topic /front/image; its image topics: /camera/color/image_raw"),
        ("/camera/odometry", "/camera/odometry in sample is no image but nav_msgs/msg/Odometry"),
    ],
)
def test_wrong_topics(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture, topic: str, message: str) -> None:
    assert run(bag, tmp_path / "out", "--image-topic", topic) == 1
    assert message in one_line(capsys)


def test_wrong_sources(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no video")
    (file,) = bag.glob("*.mcap")
    (tmp_path / "cut.mcap").write_bytes(file.read_bytes()[:100_000])
    for name, message in (
        ("absent", "no such file or directory"),
        ("empty", "holds no images"),
        ("notes.txt", "no video, image or rosbag2"),
        ("cut.mcap", "cannot open bag cut.mcap"),
    ):
        assert run(tmp_path / name, tmp_path / "out") == 1
        line = one_line(capsys)
        assert message in line and name in line


def test_an_unreadable_image_ends_the_run_and_keeps_what_is_there(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(scene / "rgb", tmp_path / "images")
    broken = tmp_path / "images" / "00002.jpg"
    broken.write_bytes(broken.read_bytes()[:3000])
    out = tmp_path / "out"
    assert run(tmp_path / "images", out, "--video") == 1
    line = one_line(capsys)
    assert "00002.jpg" in line and "cut off" in line
    assert list(read_labels(out)) == ["00000", "00001"]
    assert len(read_frames(out)) == 2
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == 2
    assert "00002.jpg" in summary["error"]
    with av.open(str(out / "overlay.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 2


def write_bag(folder: Path, sample: SampleScene, stamps_ns: list[int], cut_last: bool = False) -> None:
    """A bag of one image topic."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    kind = "sensor_msgs/msg/Image"
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/image", kind, typestore=store)
        for index, stamp_ns in enumerate(stamps_ns):
            stamp = store.types["builtin_interfaces/msg/Time"](0, stamp_ns)
            header = store.types["std_msgs/msg/Header"](stamp, "camera")
            pixels = sample.render(index).frame.image.reshape(-1)
            message = store.types[kind](header, HEIGHT, WIDTH, "rgb8", 0, 3 * WIDTH, pixels)
            raw = bytes(store.serialize_cdr(message, kind))
            cut = cut_last and index == len(stamps_ns) - 1
            writer.write(connection, index, raw[: len(raw) // 2] if cut else raw)


def test_a_bag_that_ends_in_damage_keeps_the_frames_before(
    sample: SampleScene, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_bag(tmp_path / "bag", sample, [100, 101, 102], cut_last=True)
    assert run(tmp_path / "bag", tmp_path / "out") == 1
    assert "cannot read on in bag bag" in one_line(capsys)
    assert len(read_labels(tmp_path / "out")) == 2


def test_stamps_that_jump_back_start_anew_and_say_so(sample: SampleScene, tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", sample, [500_000_000, 600_000_000, 100_000_000])
    assert run(tmp_path / "bag", tmp_path / "out") == 0
    events = [
        [event for event in frame["events"] if event["kind"] == "reset"] for frame in read_frames(tmp_path / "out")
    ]
    assert [len(some) for some in events] == [0, 0, 1]
    assert events[2][0]["reason"] == "stamps jumped back by 0.500 s"


def test_a_size_change_starts_anew_and_goes_on(scene: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(scene / "rgb", images)
    for index in (3, 4):
        file = str(images / f"{index:05d}.jpg")
        cv2.imwrite(file, cv2.resize(cv2.imread(file), (96, 128)))
    assert run(images, tmp_path / "out", "--video") == 0
    labels, frames = read_labels(tmp_path / "out"), read_frames(tmp_path / "out")
    assert [image.shape for image in labels.values()] == [(HEIGHT, WIDTH)] * 3 + [(128, 96)] * 2 + [(HEIGHT, WIDTH)] * 2
    resets = [frame["index"] for frame in frames for event in frame["events"] if event["kind"] == "reset"]
    assert resets == [3, 5]
    before = {number for stem in ("00000", "00001", "00002") for number in np.unique(labels[stem])} - {0}
    assert before.isdisjoint(np.unique(labels["00003"])), "ids are never reused"


def test_black_constant_and_depthless_frames_are_lived_through(scene: Path, tmp_path: Path) -> None:
    copy = tmp_path / "scene"
    shutil.copytree(scene, copy)
    cv2.imwrite(str(copy / "rgb" / "00002.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    cv2.imwrite(str(copy / "rgb" / "00003.jpg"), np.full((HEIGHT, WIDTH, 3), 200, np.uint8))
    cv2.imwrite(str(copy / "depth" / "00005.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    assert run(copy, tmp_path / "out", "--points") == 0
    labels = read_labels(tmp_path / "out")
    assert len(labels) == FRAMES
    assert not labels["00002"].any() and not labels["00003"].any()
    assert labels["00006"].any()


def test_an_output_that_cannot_be_written(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(scene, tmp_path / "file" / "out") == 1
    assert "cannot write" in one_line(capsys)


# The door itself


def test_wrong_usage_is_2_and_help_is_0(capsys: pytest.CaptureFixture) -> None:
    for arguments in ([], ["dance"], ["run"], ["run", "x"], ["run", "x", "--output", "y", "--fast"]):
        assert cli.main(arguments) == 2
        assert "usage: mastsam" in capsys.readouterr().err
    for arguments in (["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)):
        assert cli.main(arguments) == 0, arguments
        assert capsys.readouterr().out


def test_only_the_command_that_is_asked_for_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def stub(name: str) -> Any:
        loaded.append(name)
        return SimpleNamespace(add_arguments=lambda parser: None, run=lambda arguments: 7)

    monkeypatch.setattr(cli, "import_module", stub)
    assert cli.main(["evaluate"]) == 7
    assert set(loaded) == {cli.COMMANDS["evaluate"][0]}


def command(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "mastsam_ros.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_the_process_tells_an_error_in_one_line_and_nothing_else(tmp_path: Path) -> None:
    process = command("run", str(tmp_path / "absent"), "--output", str(tmp_path / "out"))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err == f"mastsam: no such file or directory: {tmp_path / 'absent'}\n"


def test_an_interrupt_ends_cleanly_and_keeps_what_is_written(tmp_path: Path, sample: SampleScene) -> None:
    (tmp_path / "images").mkdir()
    picture = np.ascontiguousarray(sample.render(0).frame.image[:, :, ::-1])
    for index in range(2000):
        cv2.imwrite(str(tmp_path / "images" / f"{index:05d}.jpg"), np.roll(picture, index, 1))
    out = tmp_path / "out"
    process = command("run", str(tmp_path / "images"), "--output", str(out), "--video")
    deadline = time.monotonic() + 60
    while len(list((out / "labels").glob("*.png")) if out.exists() else []) < 3:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "stopped after" in stdout
    summary = json.loads((out / "summary.json").read_text())
    assert 3 <= summary["frames"] == len(read_labels(out)) == len(read_frames(out)) < 2000
    with av.open(str(out / "overlay.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == summary["frames"]
