"""The whole step: ids that last, on pictures whose truth is known, and on input that is out of order."""

from __future__ import annotations

import gc
import logging
import threading
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from threadpoolctl import threadpool_info

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.segmenters import LookingAhead, Segmenter
from mastsam_ros.segmenters.regions import RegionSegmenter
from mastsam_ros.settings import Settings
from mastsam_ros.tracker.world import Join
from mastsam_ros.types import (
    CandidateMasks,
    EventKind,
    Frame,
    FrameResult,
    InputError,
    Matches,
    Pointmap,
    PointPrompts,
    SettingsError,
    TrackState,
)

HEIGHT, WIDTH = 120, 200
SQUARES = ((40, 30), (120, 30), (40, 80), (120, 80))


def picture(shift: int, hidden: frozenset[int] = frozenset()) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Four textured squares on a textured ground, all `shift` pixels to the right, and which pixel is which square."""
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.normal(0, 60, (300, 400, 3)).astype(np.float32), (0, 0), 2) for _ in range(5)]
    image = 110 + noise[4][:HEIGHT, 100 - shift : 100 - shift + WIDTH]
    truth = np.zeros((HEIGHT, WIDTH), np.int64)
    for n, (x, y) in enumerate(SQUARES):
        if n not in hidden:
            colour = np.eye(3)[n % 3] * 90 + 20 * n
            image[y : y + 28, x + shift : x + shift + 28] = 90 + colour + noise[n][:28, :28]
            truth[y : y + 28, x + shift : x + shift + 28] = n + 1
    return image.clip(0, 255).astype(np.uint8), truth


class TruthSegmenter:
    """Thirty lines that are a segmenter: it knows the squares."""

    def __init__(self) -> None:
        self.truth = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        _, truth = picture(frame.stamp_ns // 10, frozenset({3}) if frame.stamp_ns % 10 else frozenset())
        self.truth = torch.from_numpy(truth)

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        masks = torch.zeros(len(prompts), 1, HEIGHT, WIDTH, dtype=torch.bool)
        for n, (xy, labels) in enumerate(zip(prompts.xy, prompts.labels, strict=True)):
            x, y = xy[labels == 1].round().long().T
            hit = self.truth[y, x]
            if bool((hit > 0).any()):
                masks[n, 0] = self.truth == hit[hit > 0].mode().values
        return CandidateMasks(masks, masks.flatten(1).any(dim=1, keepdim=True).float())

    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        inside = self.truth > 0 if region is None else (self.truth > 0) & region
        present = self.truth[inside].unique()
        return CandidateMasks(
            ((self.truth[None] == present[:, None, None]) & inside)[:, None], torch.ones(len(present), 1)
        )


def frame_at(shift: int, without_last: bool = False) -> Frame:
    image, _ = picture(shift, frozenset({3}) if without_last else frozenset())
    return Frame(image, stamp_ns=10 * shift + without_last)


def ids_of(labels: npt.NDArray[np.uint16], shift: int) -> list[int]:
    return [int(labels[y + 14, x + shift + 14]) for x, y in SQUARES]


def test_ids_last_while_everything_moves() -> None:
    mastsam = Mastsam(FlowMatcher(), TruthSegmenter())
    first = mastsam.step(frame_at(0))
    expected = ids_of(first.labels, 0)
    assert sorted(expected) == [1, 2, 3, 4]
    assert [e.kind for e in first.events] == [EventKind.BORN] * 4
    for shift in range(3, 30, 3):
        result = mastsam.step(frame_at(shift))
        assert ids_of(result.labels, shift) == expected and result.events == ()
    assert {t.state for t in result.tracks} == {TrackState.TRACKED} and {t.age for t in result.tracks} == {10}
    track = next(t for t in result.tracks if t.id == expected[1])
    assert track.box_xywh == (120 + 27, 30, 28, 28) and track.area == 28 * 28


def test_a_square_that_vanishes_is_lost_and_recognised_when_it_is_back() -> None:
    mastsam = Mastsam(FlowMatcher(), TruthSegmenter())
    expected = ids_of(mastsam.step(frame_at(0)).labels, 0)
    for shift in range(1, 9):
        mastsam.step(frame_at(shift))
    kinds = [e.kind for shift in range(9, 17) for e in mastsam.step(frame_at(shift, without_last=True)).events]
    assert kinds == [EventKind.LOST]
    result = mastsam.step(frame_at(17))
    assert ids_of(result.labels, 17) == expected and [e.kind for e in result.events] == [EventKind.REVIVED]


@pytest.mark.parametrize("where", ["match", "set_frame", "predict", "everything"])
def test_a_fault_costs_its_frame_and_no_id(where: str) -> None:
    settings = Settings().updated({"tracker.update_interval": 1, "tracker.urgent_share": 0.0})
    mastsam, spared = (Mastsam(FlowMatcher(), TruthSegmenter(), settings) for _ in range(2))
    expected = ids_of(mastsam.step(frame_at(0)).labels, 0)
    spared.step(frame_at(0))
    part = mastsam.matcher if where == "match" else mastsam.segmenter
    sound = getattr(part, where)

    def out_of_memory(*_: object) -> None:
        raise MemoryError("injected")

    setattr(part, where, out_of_memory)
    for shift in (3, 6, 9):
        with pytest.raises(MemoryError):
            mastsam.step(frame_at(shift, without_last=True))
    setattr(part, where, sound)
    result, untouched = mastsam.step(frame_at(12)), spared.step(frame_at(12))
    assert ids_of(result.labels, 12) == expected and result.events == ()
    np.testing.assert_array_equal(result.labels, untouched.labels)


def test_a_fault_after_ids_were_joined_elsewhere_mixes_no_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    mastsam = Mastsam(FlowMatcher(), TruthSegmenter())
    expected = ids_of(mastsam.step(frame_at(0)).labels, 0)
    mastsam.map.member.joins.append(Join(expected[1], expected[0], 1.0))
    monkeypatch.setattr(mastsam.segmenter, "predict", lambda prompts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mastsam.step(frame_at(2))
    monkeypatch.undo()
    result = mastsam.step(frame_at(3))
    assert ids_of(result.labels, 3)[2:] == expected[2:]
    assert [(e.id, e.other_id) for e in result.events if e.kind is EventKind.MERGED] == [(expected[1], expected[0])]


def test_after_many_faults_in_a_row_the_tracks_start_anew() -> None:
    mastsam = Mastsam(FlowMatcher(), TruthSegmenter())
    before = ids_of(mastsam.step(frame_at(0)).labels, 0)
    sound = mastsam.segmenter.set_frame

    def broken(*_: object) -> None:
        raise MemoryError("injected")

    mastsam.segmenter.set_frame = broken  # type: ignore[method-assign]
    for _ in range(6):
        with pytest.raises(MemoryError):
            mastsam.step(frame_at(1))
    mastsam.segmenter.set_frame = sound  # type: ignore[method-assign]
    result = mastsam.step(frame_at(2))
    assert not set(ids_of(result.labels, 2)) & set(before)
    assert [e.reason for e in result.events if e.kind is EventKind.RESET] == ["6 frames in a row failed"]


@pytest.mark.parametrize(
    "switch",
    ["carry", "motion_filter", "connectivity_filter", "representative_selection", "reprompt"]
    + ["overlap_filtering", "discovery", "revival"],
)
def test_every_step_can_be_switched_off(switch: str) -> None:
    settings = Settings().updated({f"tracker.{switch}": False})
    mastsam = Mastsam(FlowMatcher(), TruthSegmenter(), settings)
    for shift in range(4):
        result = mastsam.step(frame_at(shift))
    assert len(result.tracks) >= 4


def test_without_discovery_only_the_first_frame_gives_tracks() -> None:
    for discovery, tracks in ((True, 4), (False, 3)):
        mastsam = Mastsam(FlowMatcher(), TruthSegmenter(), Settings().updated({"tracker.discovery": discovery}))
        mastsam.step(frame_at(0, without_last=True))
        for shift in range(1, 4):
            result = mastsam.step(frame_at(shift))
        assert len(result.tracks) == tracks


def test_another_size_resets_and_says_so() -> None:
    mastsam = create_mastsam()
    image, _ = picture(0)
    before = mastsam.step(Frame(image))
    result = mastsam.step(Frame(cv2.resize(image, (160, 96))))
    assert result.events[0].kind is EventKind.RESET and "160x96" in result.events[0].reason
    assert result.labels.shape == (96, 160)
    assert not {t.id for t in result.tracks} & {t.id for t in before.tracks}


def test_what_was_asked_for_before_a_reset_is_told_before_it() -> None:
    mastsam = Mastsam(FlowMatcher(), TruthSegmenter())
    mastsam.step(frame_at(0))
    mastsam.rename_instance(1, "box")
    mastsam.reset()
    kinds = [event.kind for event in mastsam.step(frame_at(0)).events]
    assert kinds[:2] == [EventKind.RENAMED, EventKind.RESET] and set(kinds[2:]) == {EventKind.BORN}


def test_a_fault_in_the_first_frame_of_another_size_leaves_nothing_of_the_old_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings().updated({"frame.working_pixels": 0})
    scene = SampleScene(1, "orbit", 8, 160, 120, objects=3)
    large, small = scene.render(0).frame, SampleScene(1, "orbit", 8, 96, 72, objects=3).render(1).frame
    mastsam = Mastsam(FlowMatcher(), RegionSegmenter(settings.regions), settings)
    mastsam.lasting_map = True
    mastsam.step(large)
    assert mastsam.map.map.instances
    monkeypatch.setattr(mastsam.segmenter, "everything", lambda region: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mastsam.step(small)
    monkeypatch.undo()
    result = mastsam.step(small)
    assert result.labels.shape == (72, 96) and result.labels.any()
    assert [event.kind for event in result.events].count(EventKind.RESET) == 1


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_nothing_gets_no_labels_and_changes_nothing(value: int, caplog: pytest.LogCaptureFixture) -> None:
    mastsam = create_mastsam()
    image, _ = picture(0)
    before = mastsam.step(Frame(image)).labels
    with caplog.at_level(logging.WARNING):
        blank = mastsam.step(Frame(np.full_like(image, value)))
    assert not blank.labels.any() and "shows nothing" in caplog.text
    after = mastsam.step(Frame(image)).labels
    assert (after == before).mean() > 0.97


def test_reset_ends_every_track_and_ids_go_on() -> None:
    mastsam = Mastsam(FlowMatcher(), TruthSegmenter())
    mastsam.step(frame_at(0))
    mastsam.reset("test")
    result = mastsam.step(frame_at(1))
    assert result.events[0].kind is EventKind.RESET and sorted(ids_of(result.labels, 1)) == [5, 6, 7, 8]


def test_where_no_frame_holds_there_is_nothing_to_correct() -> None:
    mastsam, frame = create_mastsam(), frame_at(0)
    before = FrameResult(np.zeros(frame.image.shape[:2], np.uint16), (), (), None)
    assert mastsam.corrected(frame, before) is before
    result = mastsam.step(frame)
    assert np.array_equal(mastsam.corrected(frame, result).labels, result.labels)
    mastsam.reset()
    assert mastsam.corrected(frame, result) is result


class PointmapMatcher(FlowMatcher):
    """Says that everything is one metre away."""

    def match(self, previous: Frame, current: Frame) -> Matches:
        y, x = torch.meshgrid(torch.arange(HEIGHT) - HEIGHT / 2, torch.arange(WIDTH) - WIDTH / 2, indexing="ij")
        wall = Pointmap(torch.stack([x / WIDTH, y / WIDTH, torch.ones_like(x)], dim=2), torch.ones(HEIGHT, WIDTH))
        return replace(super().match(previous, current), pointmap0=wall, pointmap1=wall)


def test_a_correction_keeps_the_matchers_points_where_depth_is_not_used() -> None:
    mastsam = Mastsam(PointmapMatcher(), TruthSegmenter(), Settings().updated({"frame.use_depth": False}))
    mastsam.step(frame_at(0))
    frame = replace(frame_at(3), depth=np.ones((HEIGHT, WIDTH), np.float32), K=np.diag([WIDTH, WIDTH, 1.0]))
    result = mastsam.step(frame)
    assert result.points is not None and len(result.points)
    assert mastsam.corrected(frame, result).points is result.points


def test_the_same_input_gives_the_same_bytes() -> None:
    runs = []
    for _ in range(2):
        mastsam = create_mastsam()
        runs.append([mastsam.step(frame_at(shift)).labels.tobytes() for shift in range(5)])
    assert runs[0] == runs[1]


class InTurn:
    """The embedded default's segmenter for those who cannot look ahead."""

    rough_outlines = True

    def __init__(self) -> None:
        own = RegionSegmenter()
        self.set_frame, self.predict, self.everything = own.set_frame, own.predict, own.everything


def test_the_second_core_changes_no_bit() -> None:
    def run(segmenter: Segmenter) -> list[bytes]:
        mastsam = Mastsam(FlowMatcher(), segmenter)
        depth = np.where(picture(0)[1] > 0, np.float32(0.8), np.float32(1.0))
        frames = [
            Frame(
                picture(shift)[0],
                shift,
                K=np.diag([200.0, 200, 1]),
                depth=np.roll(depth, shift, 1) if with_depth else None,
            )
            for with_depth in (False, True)
            for shift in range(0, 12, 2)
        ]
        results = [mastsam.step(frame) for frame in frames]
        return [result.labels.tobytes() + repr((result.tracks, result.events)).encode() for result in results]

    assert not isinstance(InTurn(), LookingAhead)
    assert run(RegionSegmenter()) == run(InTurn())


@pytest.mark.parametrize("where", ["look_ahead", "set_frame"])
def test_a_fault_on_the_second_core_is_raised_by_the_step(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise InputError("broken on purpose")

    segmenter = RegionSegmenter()
    mastsam = Mastsam(FlowMatcher(), segmenter)
    mastsam.step(frame_at(0))
    with monkeypatch.context() as broken:
        broken.setattr(segmenter, where, fail)
        with pytest.raises(InputError, match="broken on purpose"):
            mastsam.step(frame_at(1))
    assert (mastsam.step(frame_at(2)).labels > 0).any()


def test_the_second_thread_ends_with_its_owner() -> None:
    threads = set(threading.enumerate())
    mastsam = Mastsam(FlowMatcher(), RegionSegmenter())
    mastsam.step(frame_at(0))
    (second,) = set(threading.enumerate()) - threads
    del mastsam
    gc.collect()
    second.join(timeout=60)
    assert not second.is_alive()


def test_the_embedded_default_follows_the_squares() -> None:
    mastsam = create_mastsam()
    first = ids_of(mastsam.step(frame_at(0)).labels, 0)
    assert len(set(first)) == 4 and 0 not in first
    for shift in range(2, 20, 2):
        result = mastsam.step(frame_at(shift))
    assert ids_of(result.labels, 18) == first
    assert result.timings_ms["total"] >= result.timings_ms["match"] > 0


@pytest.mark.parametrize("size", [(2, 2), (3, 7), (100, 3), (5, 300), (16, 16), (33, 21), (48, 64)])
@pytest.mark.parametrize("with_depth", [False, True])
def test_noise_of_any_size_does_no_harm(size: tuple[int, int], with_depth: bool) -> None:
    rng = np.random.default_rng(0)
    mastsam = create_mastsam()
    K = np.array([[size[1], 0, size[1] / 2], [0, size[1], size[0] / 2], [0, 0, 1.0]])
    for step in range(4):
        depth = rng.uniform(0.3, 5, size).astype(np.float32) * (step != 2)
        depth[rng.random(size) < 0.3] = np.nan
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        has_depth = with_depth and step < 3
        result = mastsam.step(Frame(image, K=K if has_depth else None, depth=depth if has_depth else None))
        assert result.labels.shape == size


def test_a_gpu_that_is_not_there_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SettingsError, match="no CUDA GPU"):
        create_mastsam(Settings().updated({"device": "cuda"}))


def test_the_threads_asked_for_are_used_also_by_threads_that_start_later():
    before = torch.get_num_threads(), cv2.getNumThreads()
    counts: list[int] = []
    try:
        create_mastsam(Settings().updated({"threads": 3}))
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
        assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {1}
        later = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        later.start()
        later.join()
        create_mastsam(Settings())
        assert torch.get_num_threads() == 3 and counts == [3], "0 leaves them as they are"
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
