"""Bags as sources: the right topics, depth and intrinsics beside each image, and faults told by name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from mastsam_ros.io.bags import BagSource
from mastsam_ros.io.frame_bag import TOPICS, FrameBag, read_frames
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.io.sources import open_source
from mastsam_ros.types import Frame, InputError

from .conftest import WriteBag, camera_info, compressed, image, rvl_of

RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
DEPTH = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 10
MS = 1_000_000


def frames_of(path: Path, **options: Any) -> list[Frame]:
    with open_source(path, **options) as source:
        return [frame for _, frame in source]


def test_depth_that_no_bag_can_hold_is_none(tmp_path: Path) -> None:
    depth = np.array([[0, 0.5], [65.535, 70]], np.float32)
    with FrameBag(tmp_path / "bag") as bag:
        bag.add(Frame(RGB[:2, :2], depth=depth))
    ((frame, _),) = read_frames(tmp_path / "bag")
    assert frame.depth is not None
    np.testing.assert_allclose(frame.depth, [[0, 0.5], [65.535, 0]], rtol=1e-6)


def colors(count: int, topic: str = "/camera/image_raw") -> list[tuple[str, int, Any]]:
    return [(topic, (n + 1) * 100 * MS, image((n + 1) * 100 * MS, RGB + n)) for n in range(count)]


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_bag_is_read_as_folder_and_as_file(write_bag: WriteBag, storage: StoragePlugin) -> None:
    folder = write_bag(colors(3), storage=storage)
    (file,) = (entry for entry in folder.iterdir() if entry.suffix in (".mcap", ".db3"))
    for path in (folder, file):
        with open_source(path) as source:
            assert source.frame_count == 3
            assert source.fps == pytest.approx(10)
            stems, frames = zip(*source, strict=True)
        assert stems == ("000000", "000001", "000002")
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, RGB + number)
            assert frame.stamp_ns == (number + 1) * 100 * MS
            assert frame.frame_id == "optical"
            assert frame.depth is None and frame.K is None
            assert frame.image.flags.writeable
    (folder / "metadata.yaml").unlink()
    assert len(frames_of(folder)) == 3


def test_the_sample_bag_needs_no_topic(tmp_path: Path) -> None:
    scene = SampleScene(frames=2, width=64, height=48)
    scene.write_bag(tmp_path / "bag")
    with open_source(tmp_path / "bag") as source:
        for (_, frame), view in zip(source, scene, strict=True):
            np.testing.assert_array_equal(frame.image, view.frame.image)
            assert frame.depth is not None and view.frame.depth is not None and frame.K is not None
            np.testing.assert_allclose(frame.depth, view.frame.depth, atol=0.0006)
            np.testing.assert_allclose(frame.K, view.frame.K)
            assert frame.T_world_camera is None, "poses are truth"
    assert all(frame.depth is None and frame.K is None for frame in frames_of(tmp_path / "bag", use_depth=False))


def test_depth_is_paired_by_stamp_whichever_comes_first(write_bag: WriteBag) -> None:
    items: list[tuple[str, int, Any]] = [("/camera/camera_info", 0, camera_info(0, 16, 12))]
    for number, (delay_ms, offset_ms) in enumerate([(5, 0), (-5, 8), (40, 3), (-5, 50), (5, 19)], start=1):
        stamp = number * 100 * MS
        depth_stamp = stamp + offset_ms * MS
        items.append(("/camera/color", stamp, image(stamp, RGB)))
        items.append(("/camera/depth", stamp + delay_ms * MS, image(depth_stamp, DEPTH + number, "16UC1")))
    items.sort(key=lambda item: item[1])
    frames = frames_of(write_bag(items))
    found = [None if frame.depth is None else round(float(frame.depth[0, 0]) * 1000) for frame in frames]
    assert found == [1, 2, 3, None, 5], "the fourth depth image is 50 ms off"


def test_depth_of_another_size_is_left_out_unless_asked_for(
    write_bag: WriteBag, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_bag([("/depth", 90 * MS, image(100 * MS, DEPTH[:6], "16UC1")), *colors(2)])
    with caplog.at_level(logging.WARNING):
        assert [frame.depth for frame in frames_of(bag)] == [None, None]
    assert "16x6, the image 16x12: not registered" in caplog.text
    with pytest.raises(InputError, match="not registered"):
        frames_of(bag, depth_topic="/depth")


def test_intrinsics_of_raw_and_rectified_images(write_bag: WriteBag, caplog: pytest.LogCaptureFixture) -> None:
    def K_of(topic: str, info: Any) -> Any:
        bag = write_bag([("/c/camera_info", 1, info), (topic, 2, image(2, RGB))], name=f"{len(topic)}{id(info)}")
        return frames_of(bag)[0].K

    raw, distorted = camera_info(1, 16, 12), camera_info(1, 16, 12, distortion=0.1)
    assert K_of("/c/image_raw", raw)[0, 0] == 50
    assert K_of("/c/image_rect", raw)[0, 0] == 100
    assert K_of("/c/image_rect_color", distorted)[0, 0] == 100
    assert K_of("/c/image_raw", camera_info(1, 32, 24))[0, 0] == 25
    assert K_of("/c/image_raw", distorted) is None
    assert "distortion" in caplog.text and "rectify" in caplog.text
    assert K_of("/c/image_raw", camera_info(1, 16, 12, focal=0)) is None


def test_compressed_images_and_depth(write_bag: WriteBag) -> None:
    png = cv2.imencode(".png", RGB[:, :, ::-1])[1].tobytes()
    depth_png = bytes(12) + cv2.imencode(".png", DEPTH)[1].tobytes()
    bag = write_bag(
        [
            ("/c/image/compressed", 5, compressed(5, png, "rgb8; png compressed bgr8")),
            ("/c/depth/compressedDepth", 6, compressed(5, depth_png, "16UC1; compressedDepth png")),
        ]
    )
    (frame,) = frames_of(bag)
    np.testing.assert_array_equal(frame.image, RGB)
    assert frame.depth is not None
    np.testing.assert_allclose(frame.depth, DEPTH * 0.001, rtol=1e-5)


@pytest.mark.parametrize(
    ("topic", "content", "format"),
    [
        ("compressedDepth", bytes(12) + rvl_of(DEPTH), "16UC1; compressedDepth rvl"),
        ("compressed", cv2.imencode(".png", DEPTH)[1].tobytes(), "16UC1; png compressed "),
        ("compressed", cv2.imencode(".png", DEPTH)[1].tobytes(), "png"),
    ],
)
def test_every_kind_of_compressed_depth(write_bag: WriteBag, topic: str, content: bytes, format: str) -> None:
    bag = write_bag([(f"/c/depth/{topic}", 90 * MS, compressed(100 * MS, content, format)), *colors(1)])
    (frame,) = frames_of(bag)
    np.testing.assert_array_equal(frame.image, RGB)
    assert frame.depth is not None
    np.testing.assert_allclose(frame.depth, DEPTH * 0.001, rtol=1e-5)


def test_of_an_image_and_its_compressed_copies_the_best_one_is_taken(write_bag: WriteBag) -> None:
    jpeg = cv2.imencode(".jpg", RGB)[1].tobytes()
    bag = write_bag([("/c/image/compressed", 5, compressed(5, jpeg, "jpeg")), *colors(1, "/c/image")])
    np.testing.assert_array_equal(frames_of(bag)[0].image, RGB)
    assert len(frames_of(bag, image_topic="/c/image/compressed")) == 1
    lossy = compressed(
        100 * MS, cv2.imencode(".jpg", (DEPTH // 8).astype(np.uint8))[1].tobytes(), "16UC1; jpeg compressed "
    )
    png = compressed(100 * MS, bytes(12) + cv2.imencode(".png", DEPTH)[1].tobytes(), "16UC1; compressedDepth png")
    depths = [("/c/depth/compressed", 5, lossy), ("/c/depth/compressedDepth", 5, png)]
    for raw in ([], [("/c/depth", 5, image(100 * MS, DEPTH, "16UC1"))]):
        bag = write_bag([*depths, *raw, *colors(1)], name=f"with{len(raw)}raw")
        with open_source(bag) as source:
            assert isinstance(source, BagSource)
            assert source.depth_topic == ("/c/depth" if raw else "/c/depth/compressedDepth")
        depth = frames_of(bag)[0].depth
        assert depth is not None
        np.testing.assert_allclose(depth, DEPTH * 0.001, rtol=1e-5)


def test_topics_that_cannot_be_used(write_bag: WriteBag) -> None:
    bag = write_bag(
        [
            *colors(1, "/left"),
            *colors(1, "/right"),
            ("/depth", 1, image(1, DEPTH, "16UC1")),
            ("/info", 1, camera_info(1, 2, 2)),
        ]
    )
    for options, message in (
        ({}, "several images, choose with --image-topic: /left, /right"),
        ({"image_topic": "/middle"}, "bag has no topic /middle; its image topics: /depth, /left, /right"),
        ({"image_topic": "/info"}, "/info in bag is no image but sensor_msgs/msg/CameraInfo; its image topics"),
        ({"image_topic": "/depth"}, "/depth in bag is a depth image"),
        ({"image_topic": "/left", "depth_topic": "/right"}, "/right in bag is a colour image"),
        ({"image_topic": "/left", "depth_topic": "/none"}, "no topic /none"),
    ):
        with pytest.raises(InputError, match=message):
            frames_of(bag, **options)
    assert len(frames_of(bag, image_topic="/right")) == 1
    no_image = write_bag([("/info", 1, camera_info(1, 2, 2))], name="no_image")
    with pytest.raises(InputError, match="no_image has no colour image; its topics, none an image: /info"):
        frames_of(no_image)


def test_several_depth_topics_must_be_chosen_from(write_bag: WriteBag) -> None:
    bag = write_bag(
        [("/d1", 1, image(1, DEPTH, "16UC1")), ("/d2", 1, image(1, DEPTH / np.float32(500), "32FC1")), *colors(1)]
    )
    with pytest.raises(InputError, match=r"--depth-topic or leave them with --no-depth: /d1, /d2"):
        frames_of(bag)
    assert frames_of(bag, use_depth=False)[0].depth is None
    (frame,) = frames_of(bag, depth_topic="/d2")
    assert frame.depth is None, "its stamp is far from the image's"


def test_an_unknown_encoding_names_topic_image_and_encoding(write_bag: WriteBag) -> None:
    bag = write_bag([*colors(1), ("/camera/image_raw", 200 * MS, image(200 * MS, RGB, "rgb16"))])
    with open_source(bag) as source:
        frames = iter(source)
        next(frames)
        with pytest.raises(InputError, match="bag: image 1 of /camera/image_raw: unknown image encoding 'rgb16'"):
            next(frames)


def test_an_empty_bag(write_bag: WriteBag) -> None:
    with pytest.raises(InputError, match="none an image: none"):
        frames_of(write_bag([]))


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.95])
def test_a_bag_that_is_cut_off_gives_one_line(write_bag: WriteBag, storage: StoragePlugin, share: float) -> None:
    folder = write_bag(colors(40), storage=storage)
    (file,) = (entry for entry in folder.iterdir() if entry.suffix in (".mcap", ".db3"))
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    for path in (folder, file):
        with pytest.raises(InputError, match=r"(open|read|read on in) bag .*(cut off or damaged|metadata)") as caught:
            frames_of(path)
        assert "\n" not in str(caught.value)


def test_random_damage_never_ends_in_anything_but_frames_or_an_input_error(write_bag: WriteBag) -> None:
    folder = write_bag(colors(8))
    (file,) = folder.glob("*.mcap")
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    failures = 0
    for _ in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 3)] = rng.integers(0, 256, 3)
        file.write_bytes(damaged.tobytes())
        try:
            frames_of(file)
        except InputError as error:
            failures += 1
            assert "\n" not in str(error)
    assert failures > 0


def test_the_topics_of_the_sample_bag_stay_apart() -> None:
    assert len(set(TOPICS.values())) == len(TOPICS)
