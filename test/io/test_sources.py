"""Images, videos and scene folders as sources, and what is said of those that are none."""

from __future__ import annotations

import json
import logging
import struct
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.io.sources import ImageFiles, SceneFolder, VideoFile, open_source
from mastsam_ros.io.video import VideoWriter
from mastsam_ros.types import Frame, InputError, MissingPackageError

RGB = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def write_image(path: Path, pixels: np.ndarray = RGB) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(pixels[..., ::-1]) if pixels.ndim == 3 else pixels)


def all_of(path: Path, use_depth: bool = True) -> list[tuple[str, Frame]]:
    with open_source(path, use_depth=use_depth) as source:
        frames = list(source)
        assert source.frame_count in (None, len(frames))
        return frames


def test_images_come_in_natural_order_as_rgb(tmp_path: Path) -> None:
    for name in ("img10.png", "img9.png", "IMG2.PNG", ".hidden.png", "img1.bmp"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    with open_source(tmp_path, fps=10) as source:
        assert isinstance(source, ImageFiles)
        assert source.name == tmp_path.name
        frames = list(source)
    assert [stem for stem, _ in frames] == ["img1", "IMG2", "img9", "img10"]
    assert [frame.stamp_ns for _, frame in frames] == [0, 100_000_000, 200_000_000, 300_000_000]
    for _, frame in frames:
        np.testing.assert_array_equal(frame.image, RGB)


def test_one_image_is_a_source(tmp_path: Path) -> None:
    write_image(tmp_path / "one.png")
    ((stem, _),) = all_of(tmp_path / "one.png")
    assert stem == "one"


def test_grey_16_bit_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", (RGB[:, :, 0].astype(np.uint16) << 8) + 7)
    write_image(tmp_path / "1.png", RGB[:, :, 0])
    rgba = np.dstack([RGB[:, :, ::-1], np.full(RGB.shape[:2], 9, np.uint8)])
    assert cv2.imwrite(str(tmp_path / "2.png"), rgba)
    frames = [frame.image for _, frame in all_of(tmp_path)]
    np.testing.assert_array_equal(frames[0][:, :, 1], RGB[:, :, 0])
    np.testing.assert_array_equal(frames[1][:, :, 2], RGB[:, :, 0])
    np.testing.assert_array_equal(frames[2], RGB)


def test_an_unreadable_image_is_named_after_the_good_ones_came(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    with open_source(tmp_path) as source:
        frames = iter(source)
        assert next(frames)[0] == "0"
        with pytest.raises(InputError, match=r"1\.png: image is cut off"):
            next(frames)
    write_image(tmp_path / "1.png", RGB[:1, :1])
    with open_source(tmp_path) as source, pytest.raises(InputError, match=r"1\.png: image must be at least 2x2"):
        list(source)


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"would both be written as a\.png"):
        open_source(tmp_path)


def test_what_is_no_source_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_image(tmp_path / "nested" / "JPEGImages" / "0.jpg")
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "scene.json").write_text("{}")
    for path, message in (
        (tmp_path / "absent", "no such file or directory: .*absent"),
        (tmp_path / "empty", "holds no images, no rgb/ folder and no rosbag2"),
        (tmp_path / "nested", "folders in it: JPEGImages"),
        (tmp_path / "text.mp4", "no video, image or rosbag2 that can be read"),
        (tmp_path, "has no rgb/ folder"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            all_of(path)
        assert "\n" not in str(caught.value)


def test_topics_belong_to_bags(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png")
    with pytest.raises(InputError, match="no rosbag2: it has no topic /image"):
        open_source(tmp_path, image_topic="/image")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SampleScene(frames=3, width=64, height=48).write_scene_folder(tmp_path_factory.mktemp("scene"))


def test_a_scene_gives_depth_and_intrinsics_and_never_the_truth(scene: Path) -> None:
    frames = all_of(scene)
    assert [stem for stem, _ in frames] == ["00000", "00001", "00002"]
    description = json.loads((scene / "scene.json").read_text())
    for stem, frame in frames:
        millimetres = cv2.imread(str(scene / "depth" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        assert frame.depth is not None and frame.K is not None
        np.testing.assert_allclose(frame.depth, millimetres * 0.001, rtol=1e-6)
        np.testing.assert_allclose(frame.K, description["K"])
        assert frame.T_world_camera is None
    assert all(frame.depth is None and frame.K is None for _, frame in all_of(scene, use_depth=False))


def test_a_scene_works_without_depth_json_poses_and_instances(
    scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in (scene / "rgb").iterdir():
        write_image(tmp_path / "rgb" / file.name)
    assert [(frame.depth, frame.K) for _, frame in all_of(tmp_path)] == [(None, None)] * 3
    (tmp_path / "scene.json").write_text(json.dumps({"K": [[50, 0, 16], [0, 50, 12], [0, 0, 1]]}))
    write_image(tmp_path / "depth" / "00001.png", np.full((24, 32), 1500, np.uint16))
    with caplog.at_level(logging.WARNING):
        frames = [frame for _, frame in all_of(tmp_path)]
    assert [frame.depth is not None for frame in frames] == [False, True, False]
    assert frames[0].K is not None
    assert "no depth image" in caplog.text and "00002.png" in caplog.text


@pytest.mark.parametrize(
    ("description", "depth", "message"),
    [
        ("{", None, "no scene description"),
        ("[]", None, "no scene description"),
        ('{"K": [[1, 2], [3]]}', None, "no scene description"),
        ('{"K": [[0, 0, 0], [0, 0, 0], [0, 0, 0]]}', None, "frame 0: K must be .* positive focal lengths"),
        ('{"K": [[9, 0, 9], [0, 9, 9], [0, 0, 1]], "width": 8, "height": 6}', None, "is 32x24, but K .* is for 8x6"),
        ('{"depth_unit": "m"}', None, "depth_unit must be 'mm'"),
        ("{}", np.ones((12, 32), np.uint16), "frame 0: depth must have the image's size 32x24"),
        ("{}", RGB, "frame 0: depth image must be a 16-bit grey PNG"),
    ],
)
def test_a_scene_without_sense(tmp_path: Path, description: str, depth: np.ndarray | None, message: str) -> None:
    write_image(tmp_path / "rgb" / "0.png")
    (tmp_path / "scene.json").write_text(description)
    if depth is not None:
        write_image(tmp_path / "depth" / "0.png", depth)
    with pytest.raises(InputError, match=message):
        all_of(tmp_path)


def write_video(path: Path, frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            pixels = np.full((48, 64, 3), 8 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_a_video_gives_every_frame_and_its_time(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 20)
    with open_source(tmp_path / "clip.mp4") as source:
        assert isinstance(source, VideoFile)
        assert source.fps == 25
        assert source.frame_count == 20
        frames = list(source)
    assert [stem for stem, _ in frames] == [f"{number:06d}" for number in range(20)]
    for number, (_, frame) in enumerate(frames):
        assert frame.stamp_ns == number * 40_000_000
        assert abs(frame.image.mean() - 8 * number) < 4


@pytest.mark.parametrize(
    ("matrix", "quarters"), [((1, 0, 0, 1), 0), ((0, 1, -1, 0), 1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 3)]
)
def test_a_video_is_turned_upright(tmp_path: Path, matrix: tuple[int, ...], quarters: int) -> None:
    path = tmp_path / "telephone.mp4"
    pixels = np.full((48, 64, 3), 40, np.uint8)
    pixels[:24, :32] = (220, 30, 30)
    video = VideoWriter(path, 30, crf=5)
    video.write(pixels)
    video.close()
    content = path.read_bytes()
    a, b, c, d = (value << 16 for value in matrix)
    place = content.index(b"tkhd") + 44  # of the display matrix in the track's header
    path.write_bytes(content[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[place + 36 :])
    ((_, frame),) = all_of(path)
    clockwise = np.rot90(pixels, -quarters)
    assert frame.image.shape == clockwise.shape
    assert np.abs(frame.image.astype(int) - clockwise).mean() < 6


def test_a_video_that_is_cut_off_or_has_no_pictures(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 20)
    content = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.mp4 .*cannot|cut\.mp4 is no video"):
        all_of(tmp_path / "cut.mp4")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(InputError, match="no video stream"):
        open_source(tmp_path / "sound.wav")


def test_a_missing_package_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match="pip install av"):
        open_source(tmp_path / "clip.mp4")
    (tmp_path / "bag.mcap").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    with pytest.raises(MissingPackageError, match="pip install rosbags"):
        open_source(tmp_path / "bag.mcap")


def test_scene_folder_is_chosen_over_its_images(scene: Path) -> None:
    with open_source(scene) as source:
        assert isinstance(source, SceneFolder)
    with open_source(scene / "rgb") as source:
        assert isinstance(source, ImageFiles)
