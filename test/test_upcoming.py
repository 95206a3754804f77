"""A frame that is prepared beside the step before it: nothing but the time changes, whatever comes in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.pipeline import Mastsam
from mastsam_ros.segmenters.regions import RegionSegmenter
from mastsam_ros.types import Frame, FrameResult, InputError, Matches
from mastsam_ros.upcoming import with_upcoming

HEIGHT, WIDTH = 96, 160
COUNT = 8


class WatchedMatcher(FlowMatcher):
    """Knows on which threads it was asked for what."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int, bool]] = []

    def match(self, previous: Frame, current: Frame) -> Matches:
        main = threading.current_thread() is threading.main_thread()
        self.asked.append((previous.stamp_ns, current.stamp_ns, main))
        return super().match(previous, current)


def frames(depth: bool = False, count: int = COUNT) -> list[Frame]:
    """A disc and a box that move over a textured ground, seen by a camera that moves, too."""
    rng = np.random.default_rng(3)
    ground = rng.integers(60, 120, (HEIGHT // 8, WIDTH // 4, 3)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = []
    for number in range(count):
        image = ground[:, number : number + WIDTH].copy()
        disc = (x - 40 - 3 * number) ** 2 + (y - 40) ** 2 < 18**2
        box = (abs(x - 110 + number) < 14) & (abs(y - 60) < 16)
        image[disc], image[box] = (220, 60, 40), (40, 80, 230)
        far = np.where(disc | box, np.float32(0.8), np.float32(1.2)) if depth else None
        found.append(Frame(image, number, K=np.diag([200.0, 200, 1]) if depth else None, depth=far))
    return found


def told(result: FrameResult) -> bytes:
    return result.labels.tobytes() + repr((result.tracks, result.events, result.pose)).encode()


def stepped(mastsam: Mastsam, shown: list[Frame], known: bool) -> list[bytes]:
    return [told(mastsam.step(frame, upcoming if known else None)) for frame, upcoming in with_upcoming(shown)]


@pytest.mark.parametrize("kind", ["colour", "depth", "depth comes and goes", "size changes", "a picture shows nothing"])
def test_what_is_prepared_changes_no_bit(kind: str) -> None:
    shown = frames(kind == "depth")
    if kind == "depth comes and goes":
        shown = [a if number % 3 else b for number, (a, b) in enumerate(zip(shown, frames(True), strict=True))]
    if kind == "size changes":
        shown[4:] = [replace(frame, image=np.ascontiguousarray(frame.image[:80])) for frame in shown[4:]]
    if kind == "a picture shows nothing":
        shown[3] = replace(shown[3], image=np.zeros_like(shown[3].image))
    runs = [stepped(Mastsam(FlowMatcher(), RegionSegmenter()), shown, known) for known in (False, True)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > COUNT // 2


def test_every_pair_is_matched_once_and_beforehand() -> None:
    matcher = WatchedMatcher()
    stepped(Mastsam(matcher, RegionSegmenter()), frames(), known=True)
    assert matcher.asked == [(number, number + 1, False) for number in range(COUNT - 1)]


def test_another_frame_than_was_said() -> None:
    first, second, other, last = frames(count=4)
    matcher = WatchedMatcher()
    mastsam, plain = Mastsam(matcher, RegionSegmenter()), Mastsam(FlowMatcher(), RegionSegmenter())
    results = [mastsam.step(first, second), mastsam.step(other, last), mastsam.step(last)]
    assert [told(result) for result in results] == [told(plain.step(frame)) for frame in (first, other, last)]
    assert matcher.asked == [(0, 1, False), (0, 2, True), (2, 3, False)]


def test_a_reset_and_other_settings_in_between() -> None:
    def run(known: bool) -> list[bytes]:
        mastsam = Mastsam(FlowMatcher(), RegionSegmenter())
        results = []
        for number, (frame, upcoming) in enumerate(with_upcoming(frames())):
            results.append(told(mastsam.step(frame, upcoming if known else None)))
            if number == 2:
                mastsam.reset()
            if number == 4:
                mastsam.configure(mastsam.settings.updated({"frame.working_pixels": 8000}))
        return results

    assert run(True) == run(False)


def test_corrections_in_between() -> None:
    def run(known: bool) -> list[bytes]:
        mastsam = Mastsam(FlowMatcher(), RegionSegmenter())
        results = []
        for number, (frame, upcoming) in enumerate(with_upcoming(frames())):
            result = mastsam.step(frame, upcoming if known else None)
            if number == 3:
                mastsam.rename_instance(mastsam.add_instance([(40 + 3 * 2, 40)], stamp_ns=2), "disc")
                result = mastsam.corrected(frame, result)
            results.append(told(result))
        return results

    corrected = run(True)
    assert corrected == run(False) and b"disc" in corrected[-1]


def test_a_fault_is_of_the_step_of_its_own_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = frames()
    matcher = FlowMatcher()
    mastsam, match = Mastsam(matcher, RegionSegmenter()), matcher.match

    def fails_at_three(previous: Frame, current: Frame) -> Matches:
        if current.stamp_ns == 3:
            raise InputError("broken on purpose")
        return match(previous, current)

    monkeypatch.setattr(matcher, "match", fails_at_three)
    for number in range(3):
        assert (mastsam.step(shown[number], shown[number + 1]).labels > 0).any()
    with pytest.raises(InputError, match="broken on purpose"):
        mastsam.step(shown[3], shown[4])
    assert (mastsam.step(shown[4], shown[5]).labels > 0).any()


def test_those_who_cannot_are_asked_in_turn() -> None:
    class InTurn:
        def __init__(self) -> None:
            self._own = WatchedMatcher()
            self.match, self.asked = self._own.match, self._own.asked

    matcher = InTurn()
    results = stepped(Mastsam(matcher, RegionSegmenter()), frames(), known=True)
    assert results == stepped(Mastsam(FlowMatcher(), RegionSegmenter()), frames(), known=False)
    assert len(matcher.asked) == COUNT - 1 and all(main for _, _, main in matcher.asked)


def test_each_with_the_next() -> None:
    assert list(with_upcoming([])) == []
    assert list(with_upcoming("a")) == [("a", None)]
    assert list(with_upcoming("abc")) == [("a", "b"), ("b", "c"), ("c", None)]


def test_what_was_before_a_fault_comes_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise InputError("damaged")

    pairs = with_upcoming(source())
    assert [next(pairs), next(pairs)] == [(1, 2), (2, None)]
    with pytest.raises(InputError, match="damaged"):
        next(pairs)
