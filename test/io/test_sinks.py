"""What `run` writes: every format read back, and whole whatever happens."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from mastsam_ros.io.sinks import FrameLog, RunFolder, ply
from mastsam_ros.types import (
    EventKind,
    Frame,
    FrameResult,
    LabelledCloud,
    OutputError,
    SelfCheck,
    Track,
    TrackEvent,
    TrackState,
)
from mastsam_ros.viz import overlay


def cloud(count: int = 5) -> LabelledCloud:
    rng = np.random.default_rng(0)
    return LabelledCloud(
        rng.normal(size=(count, 3)).astype(np.float32),
        rng.integers(0, 256, (count, 3), np.uint8),
        rng.integers(0, 70_000, count).astype(np.uint32),
        rng.random(count).astype(np.float32),
    )


def view(index: int, width: int = 33, height: int = 24, points: bool = False) -> tuple[str, Frame, FrameResult]:
    image = np.full((height, width, 3), 20 * index, np.uint8)
    labels = np.zeros((height, width), np.uint16)
    labels[4:12, 4:16] = 300 + index
    result = FrameResult(
        labels,
        (Track(300 + index, TrackState.TRACKED, 0.5, 96, (4, 4, 12, 8), index, (0.1, 0.2, 1.0), (0.1, 0.1, 0.1)),),
        (TrackEvent(EventKind.MERGED, 7, 300 + index, "masks coincide"),),
        cloud() if points else None,
        {"match": 1.0, "total": 10.0 + index},
        index,
        index * 1_000_000,
        check=SelfCheck(0.98765, 0.25, 0.5, 1),
    )
    return f"{index:03d}", Frame(image, index * 1_000_000), result


def run_folder(path: Path, video_fps: float | None = None, points: bool = False) -> RunFolder:
    return RunFolder(path, video_fps=video_fps, points=points, about={"source": "here", "settings": {"a": 1}})


def test_labels_log_and_summary_read_back(tmp_path: Path) -> None:
    with run_folder(tmp_path / "a" / "out") as folder:
        for index in range(3):
            folder.write(*view(index))
            # Whole as it goes: what a reader, or a crash, would find now.
            lines = (folder.folder / "frames.jsonl").read_text().splitlines()
            assert len(lines) == index + 1
            assert len(list((folder.folder / "labels").iterdir())) == index + 1
    out = tmp_path / "a" / "out"
    for index in range(3):
        labels = cv2.imread(str(out / "labels" / f"{index:03d}.png"), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint16
        np.testing.assert_array_equal(labels, view(index)[2].labels)
    record = json.loads(lines[2])
    assert record == {
        "stem": "002",
        "index": 2,
        "stamp_ns": 2_000_000,
        "timings_ms": {"match": 1.0, "total": 12.0},
        "tracks": [
            {
                "id": 302,
                "label": "",
                "state": "tracked",
                "score": 0.5,
                "area": 96,
                "box_xywh": [4, 4, 12, 8],
                "age": 2,
                "position": [0.1, 0.2, 1.0],
                "size": [0.1, 0.1, 0.1],
            }
        ],
        "events": [{"kind": "merged", "id": 7, "other_id": 302, "evidence": 1.0, "reason": "masks coincide"}],
        "check": {"consistency": 0.9877, "uncovered": 0.25, "largest": 0.5, "switches": 1},
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary == {
        "frames": 3,
        "fps": pytest.approx(3000 / 33, abs=1e-3),
        "latency_ms": {"p50": 11.0, "p95": 11.9},
        "tracks": 3,
        "source": "here",
        "settings": {"a": 1},
    }
    assert sorted(entry.name for entry in out.iterdir()) == ["frames.jsonl", "labels", "summary.json"]


def test_a_failure_keeps_what_was_written_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError), run_folder(tmp_path, video_fps=10) as folder:
        folder.write(*view(0))
        raise ValueError("the second image is broken")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames"] == 1
    assert summary["error"] == "the second image is broken"
    assert (tmp_path / "labels" / "000.png").is_file()
    with av.open(str(tmp_path / "overlay.mp4")) as video:
        assert len(list(video.decode(video=0))) == 1


def test_a_run_without_frames_has_an_empty_summary_and_no_video(tmp_path: Path) -> None:
    with run_folder(tmp_path, video_fps=10):
        pass
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["frames"], summary["fps"], summary["latency_ms"]["p50"]) == (0, None, None)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["frames.jsonl", "labels", "summary.json"]


def test_the_video_is_what_browsers_play_and_shows_the_overlay(tmp_path: Path) -> None:
    with run_folder(tmp_path, video_fps=12.5) as folder:
        for index in range(4):
            folder.write(*view(index, 321, 241))
        folder.write(*view(4, 160, 120))
    with av.open(str(tmp_path / "overlay.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (320, 240)
        assert stream.average_rate == pytest.approx(12.5)
        pictures = [picture.to_ndarray(format="rgb24") for picture in video.decode(stream)]
    assert len(pictures) == 5
    _, frame, result = view(3, 321, 241)
    expected = overlay(frame.image, result.labels)[:240, :320]
    assert np.abs(pictures[3].astype(int) - expected).mean() < 4
    content = (tmp_path / "overlay.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "plays before it is loaded whole"


def test_clouds_are_binary_ply(tmp_path: Path) -> None:
    with run_folder(tmp_path, points=True) as folder:
        folder.write(*view(0, points=True))
        folder.write(*view(1))
        assert folder.cloud_count == 1
    content = (tmp_path / "points" / "000.ply").read_bytes()
    assert content == ply(cloud())
    header, _, body = content.partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert "element vertex 5" in lines
    assert [line for line in lines if line.startswith("property")] == [
        *(f"property float {name}" for name in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        "property uint instance",
        "property float confidence",
    ]
    kinds = [*((name, "<f4") for name in "xyz"), ("rgb", "u1", 3), ("instance", "<u4"), ("confidence", "<f4")]
    points = np.frombuffer(body, np.dtype(kinds))
    np.testing.assert_array_equal(np.stack([points["x"], points["y"], points["z"]], 1), cloud().xyz)
    np.testing.assert_array_equal(points["rgb"], cloud().rgb)
    np.testing.assert_array_equal(points["instance"], cloud().instance)
    np.testing.assert_array_equal(points["confidence"], cloud().confidence)
    assert ply(cloud(0)).endswith(b"end_header\n")


def test_an_earlier_run_is_replaced_and_foreign_labels_are_not(tmp_path: Path) -> None:
    with run_folder(tmp_path, points=True) as folder:
        for index in range(3):
            folder.write(*view(index, points=True))
    (tmp_path / "mine.txt").write_text("stays")
    with run_folder(tmp_path) as folder:
        folder.write(*view(7))
    assert [entry.name for entry in (tmp_path / "labels").iterdir()] == ["007.png"]
    assert not (tmp_path / "points").exists()
    assert (tmp_path / "mine.txt").read_text() == "stays"
    (tmp_path / "frames.jsonl").unlink()
    with pytest.raises(OutputError, match="not from an earlier run"):
        run_folder(tmp_path)
    assert (tmp_path / "labels" / "007.png").is_file()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write .*file"):
        run_folder(tmp_path / "file")
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="Permission denied"):
            run_folder(tmp_path / "locked" / "out")


def test_an_error_while_writing_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*001\.png"), run_folder(tmp_path) as folder:
        folder.write(*view(0))
        (tmp_path / "labels" / "001.png").mkdir()
        folder.write(*view(1))
    assert json.loads((tmp_path / "summary.json").read_text())["frames"] == 1


def test_an_interrupt_amid_a_frame_waits_until_the_frame_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FrameLog.write

    def interrupted(self: FrameLog, stem: str, frame: Frame, result: FrameResult) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        log(self, stem, frame, result)

    with pytest.raises(KeyboardInterrupt), run_folder(tmp_path) as folder:
        folder.write(*view(0))
        monkeypatch.setattr(FrameLog, "write", interrupted)
        folder.write(*view(1))
    assert json.loads((tmp_path / "summary.json").read_text())["frames"] == 2
    assert len((tmp_path / "frames.jsonl").read_text().splitlines()) == 2
    assert len(list((tmp_path / "labels").iterdir())) == 2
