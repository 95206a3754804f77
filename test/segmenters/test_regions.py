"""The embedded default's segmenter against its contract."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.segmenters import regions
from mastsam_ros.segmenters.regions import RegionSegmenter
from mastsam_ros.segmenters.regions.superpixels import build_region_graph
from mastsam_ros.settings import RegionsSettings
from mastsam_ros.types import Frame, Matches, PointPrompts, SegmentationOrderError


def textured(seed: int, height: int = 120, width: int = 160) -> npt.NDArray[np.float32]:
    import cv2

    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 2) * 1.5 - 60


def scene(left: int, contrast: float = 0.4) -> tuple[Frame, npt.NDArray[np.bool_]]:
    """A textured square of its own colour on a textured ground, and where it is."""
    image = textured(1) * contrast + (60, 90, 60)
    square = np.zeros(image.shape[:2], bool)
    square[40:80, left : left + 40] = True
    image[square] = (textured(2)[:40, :40] * contrast + (150, 60, 40)).reshape(-1, 3)
    return Frame(image.clip(0, 255).astype(np.uint8)), square


def prompt_at(x: float, y: float, mask: npt.NDArray[np.bool_] | None = None) -> PointPrompts:
    carried = None if mask is None else torch.from_numpy(mask).long()
    return PointPrompts(torch.tensor([[[x, y]]]), torch.ones(1, 1, dtype=torch.int64), carried)


def iou(mask: torch.Tensor, truth: npt.NDArray[np.bool_]) -> float:
    other = torch.from_numpy(truth)
    return float((mask & other).sum() / (mask | other).sum())


def test_superpixels_wait_until_somebody_points_where_depth_tells_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def count(*arguments: object) -> regions.RegionGraph:
        made.append(1)
        return build_region_graph(*arguments)

    monkeypatch.setattr(regions, "build_region_graph", count)
    frame, square = scene(60)
    depth = np.where(square, np.float32(1.5), np.float32(2))
    K = np.array([[150.0, 0, 80], [0, 150, 60], [0, 0, 1]])
    segmenter = RegionSegmenter()
    segmenter.set_frame(Frame(frame.image, K=K, depth=depth), None)
    answer = segmenter.predict(prompt_at(80, 60, np.roll(square, 2, axis=1)))
    assert answer.masks.shape == (1, 1, 120, 160) and iou(answer.masks[0, 0], square) > 0.95
    assert max(iou(mask, square) for mask in segmenter.everything().masks[:, 0]) > 0.95
    assert not made
    pointed = segmenter.predict(prompt_at(80, 60))
    assert made and max(iou(mask, square) for mask in pointed.masks[0]) > 0.9
    half = np.where(np.arange(160) < 60, depth, 0).astype(np.float32)
    made.clear()
    segmenter.set_frame(Frame(frame.image, K=K, depth=half), None)
    assert made


def test_asked_before_it_has_a_frame() -> None:
    with pytest.raises(SegmentationOrderError, match="set_frame"):
        RegionSegmenter().everything()


def test_a_carried_mask_is_found_again() -> None:
    segmenter = RegionSegmenter()
    frame, square = scene(60)
    segmenter.set_frame(frame, None)
    shifted = np.roll(square, 4, axis=1)
    answer = segmenter.predict(prompt_at(80, 60, shifted))
    assert answer.masks.shape == (1, 2, 120, 160) and answer.masks.dtype == torch.bool
    best = answer.masks[0, answer.scores[0].argmax()]
    assert iou(best, square) > 0.9 > iou(torch.from_numpy(shifted), square)


def test_what_comes_into_view_of_a_region_in_many_parts_is_one_of_them() -> None:
    segmenter = RegionSegmenter()
    segmenter.set_frame(Frame((textured(1) * 0.1 + (60, 90, 60)).astype(np.uint8)), None)
    # One even ground, known in six strips of which none is large; its right end is new.
    strips = torch.arange(160).expand(120, 160) // 22 + 1
    carried = torch.where(strips <= 6, strips, 0)
    points = PointPrompts(torch.zeros(6, 1, 2), torch.ones(6, 1, dtype=torch.int64), carried)
    votes = segmenter.predict(points).masks[:, 1]
    assert votes[:, :, 140:].any(dim=0).float().mean() > 0.9


def test_a_point_alone_is_a_prompt() -> None:
    segmenter = RegionSegmenter()
    frame, square = scene(60)
    segmenter.set_frame(frame, None)
    answer = segmenter.predict(prompt_at(80, 60))
    present = answer.masks[0][answer.scores[0] > 0]
    assert len(present) and all(bool(mask[60, 80]) for mask in present)
    assert not bool((present & ~torch.from_numpy(square)).flatten(1).sum(1).gt(0.2 * square.sum()).any())


def test_everything_covers_the_picture_without_overlap() -> None:
    segmenter = RegionSegmenter()
    frame, square = scene(60)
    segmenter.set_frame(frame, None)
    answer = segmenter.everything()
    times = answer.masks[:, 0].sum(0)
    assert int(times.max()) == 1 and float((times == 1).float().mean()) > 0.97
    assert max(iou(mask, square) for mask in answer.masks[:, 0]) > 0.9
    inside = segmenter.everything(torch.from_numpy(square))
    assert not bool((inside.masks[:, 0] & ~torch.from_numpy(square)).any())


@pytest.mark.parametrize("guess", [True, False])
def test_regions_are_the_same_whether_bodies_were_expected_or_not(guess: bool) -> None:
    segmenter, other, matcher = RegionSegmenter(), RegionSegmenter(), FlowMatcher()
    before, _ = scene(40, contrast=1.0)
    bodies = []
    for left in (40, 40, 44, 48, 52, 52, 52, 52):
        frame, square = scene(left, contrast=1.0)
        matches = matcher.match(before, frame)
        other._are_bodies = guess
        for one in (segmenter, other):
            one.look_ahead(frame, True)
            one.set_frame(frame, matches)
        answers = [one.predict(prompt_at(60, 60, square)) for one in (segmenter, other)]
        assert torch.equal(answers[0].masks, answers[1].masks) and torch.equal(answers[0].scores, answers[1].scores)
        bodies.append(segmenter._are_bodies)
        before = frame
    assert {True, False} == set(bodies)


def test_what_moves_is_a_body_and_nobody_elses_region() -> None:
    segmenter, matcher = RegionSegmenter(), FlowMatcher()
    before, _ = scene(40, contrast=1.0)
    segmenter.set_frame(before, None)
    for left in (44, 48, 52, 56):
        frame, square = scene(left, contrast=1.0)
        segmenter.set_frame(frame, matcher.match(before, frame))
        before = frame
    answer = segmenter.everything()
    body = int(answer.scores[:, 0].argmax())
    assert float(answer.scores[body, 0]) > 0.9 and iou(answer.masks[body, 0], square) > 0.8
    ground = segmenter.predict(prompt_at(10, 10, ~square))
    assert not bool((ground.masks[0] & answer.masks[body]).any())


def test_the_flow_tells_a_thing_from_a_wall_of_its_colour() -> None:
    height, width = 300, 400
    thing = np.zeros((height, width), bool)
    thing[100:156, 180:220] = True
    image = np.where(thing[..., None], (164, 168, 162), (176, 176, 178))
    image = (image + np.random.default_rng(3).normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)
    nothing, flow = torch.zeros(0, 2), torch.full((height, width, 2), 3.0)
    for step, apart in ((0.0, False), (3.0, True)):
        flow[torch.from_numpy(thing)] = 3 + step
        # Laid out in memory as a matcher pleases.
        visible = (torch.ones(width, height) > 0).T
        matches = Matches(nothing, nothing, torch.zeros(0), flow_back=flow, visible=visible)
        segmenter = RegionSegmenter(RegionsSettings(use_motion=False))
        segmenter.set_frame(Frame(image), None)
        segmenter.set_frame(Frame(image), matches)
        wall = segmenter.predict(prompt_at(10, 10, np.ones_like(thing)))
        assert wall.unprompted is not None and wall.unprompted.told_apart is not None
        assert not wall.unprompted.told_apart.any() and bool(wall.masks[0, :, 120, 200].any()) != apart
        found = [iou(mask, thing) for mask in segmenter.everything().masks[:, 0]]
        assert (max(found) > 0.8) == apart
        if apart:
            both = torch.from_numpy(1 + thing.astype(np.int64))
            xy = torch.tensor([[[10.0, 10.0]], [[200.0, 120.0]]])
            answer = segmenter.predict(PointPrompts(xy, torch.ones(2, 1, dtype=torch.int64), both))
            assert answer.unprompted is not None and answer.unprompted.told_apart is not None
            assert answer.unprompted.told_apart.tolist() == [False, True] and iou(answer.masks[1, 0], thing) > 0.8


def test_depth_sets_an_object_apart_that_colour_hides() -> None:
    image = textured(1) * 0.4 + (60, 90, 60)
    depth = np.full((120, 160), 2.0, np.float32)
    depth[40:80, 60:100] = 1.5
    K = np.array([[150.0, 0, 79.5], [0, 150.0, 59.5], [0, 0, 1]])
    frame = Frame(image.clip(0, 255).astype(np.uint8), K=K, depth=depth)
    for use_depth, found in ((True, True), (False, False)):
        segmenter = RegionSegmenter(RegionsSettings(use_depth=use_depth))
        segmenter.set_frame(frame, None)
        best = max(iou(mask, depth < 1.8) for mask in segmenter.everything().masks[:, 0])
        assert (best > 0.85) == found


def test_the_same_frame_gives_the_same_bytes() -> None:
    frame, square = scene(60)
    answers = []
    for _ in range(2):
        segmenter = RegionSegmenter()
        segmenter.set_frame(frame, None)
        answers.append((segmenter.predict(prompt_at(80, 60, square)).masks, segmenter.everything().masks))
    assert torch.equal(answers[0][0], answers[1][0]) and torch.equal(answers[0][1], answers[1][1])


def two_squares() -> tuple[Frame, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """A small square of its own colour beside a larger one on a textured ground, and where both are."""
    image = textured(1, 240, 320) * 0.3 + (60, 90, 60)
    large, small = np.zeros(image.shape[:2], bool), np.zeros(image.shape[:2], bool)
    large[80:140, 100:160], small[100:130, 160:190] = True, True
    image[large], image[small] = (190, 80, 50), (60, 70, 190)
    return Frame(image.clip(0, 255).astype(np.uint8)), large, small


def test_two_things_that_were_carried_as_one_come_apart() -> None:
    frame, large, small = two_squares()
    segmenter = RegionSegmenter()
    segmenter.set_frame(frame, None)
    answer = segmenter.predict(prompt_at(130, 110, large | small))
    for mask in answer.masks[0]:
        assert iou(mask, large) > 0.9, "the smaller one is left to be found as something new"
    both = torch.from_numpy(1 * large + 2 * small)
    prompts = PointPrompts(
        torch.tensor([[[130.0, 110.0]], [[175.0, 115.0]]]), torch.ones(2, 1, dtype=torch.int64), both
    )
    carried = segmenter.predict(prompts).masks[:, 1]
    assert iou(carried[0], large) > 0.9 and iou(carried[1], small) > 0.9


def test_what_was_taken_in_of_the_ground_is_given_back() -> None:
    frame, large, small = two_squares()
    height, width = large.shape
    ground = ~(large | small)
    with_ground = small.copy()
    with_ground[100:130, 160:220] = True
    segmenter = RegionSegmenter()
    segmenter.set_frame(frame, None)
    for taken_in, given_back in ((with_ground, True), (small, False)):
        carried = torch.from_numpy(1 * taken_in + 2 * (ground & ~taken_in))
        xy = torch.tensor([[[175.0, 115.0]], [[10.0, 10.0]]])
        answer = segmenter.predict(PointPrompts(xy, torch.ones(2, 1, dtype=torch.int64), carried))
        assert answer.masks.shape == (2, 2, height, width)
        assert iou(answer.masks[0, 0], small) > 0.9
        assert (float(answer.scores[0, 1]) == 0) == given_back, "what was carried is no candidate"


def test_a_part_that_hardly_stands_out_stays_with_what_was_carried() -> None:
    frame, large, small = two_squares()
    image = frame.image.copy()
    image[small] = (190, 88, 56)
    segmenter = RegionSegmenter()
    segmenter.set_frame(Frame(image), None)
    assert iou(segmenter.predict(prompt_at(130, 110, large | small)).masks[0, 1], large | small) > 0.9
