"""The prompted segmenter around a stand-in network whose answers are known exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mastsam_ros.masks import overlap_counts
from mastsam_ros.segmenters import prompted
from mastsam_ros.segmenters.prompted import PromptedSegmenter, SquareMapping, alike_masks, first_of_each
from mastsam_ros.settings import SamSettings
from mastsam_ros.types import CandidateMasks, Frame, ModelError, PointPrompts, SegmentationOrderError

CPU = torch.device("cpu")


class DiscNetwork:
    """Answers a prompt with discs of three sizes round its first positive point; remembers what it was asked."""

    side = 256
    mask_side = 64

    def __init__(self, keeps_aspect: bool = True, score: float = 0.9) -> None:
        self.keeps_aspect = keeps_aspect
        self.score = score
        self.images: list[torch.Tensor] = []
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.masks: list[torch.Tensor | None] = []

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        assert device == CPU

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        self.images.append(image)
        return image

    def decode(
        self,
        features: torch.Tensor,
        xy: torch.Tensor,
        labels: torch.Tensor,
        masks: torch.Tensor | None,
        boxes: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert features is self.images[-1]
        self.calls.append((xy, labels))
        self.masks.append(masks)
        centre = (torch.arange(64) + 0.5) * 4 - 0.5
        first = xy[torch.arange(len(xy)), (labels == 1).int().argmax(dim=1)]
        away = (first[:, 0, None, None] - centre).square() + (first[:, 1, None, None] - centre[:, None]).square()
        radii = torch.tensor([20.0, 35.0, 60.0])[:, None, None]
        scores = torch.tensor([self.score, self.score - 0.1, self.score - 0.2])
        return radii - away.sqrt()[:, None], scores.expand(len(xy), 3)


def _frame(width: int, height: int) -> Frame:
    return Frame(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("keeps_aspect", [True, False])
@pytest.mark.parametrize("size", [(320, 240), (240, 320), (200, 200), (512, 300)])
def test_masks_lie_round_the_prompted_points(size: tuple[int, int], keeps_aspect: bool) -> None:
    network = DiscNetwork(keeps_aspect)
    segmenter = PromptedSegmenter(network, SamSettings(), CPU)
    segmenter.set_frame(_frame(*size), None)
    xy = torch.tensor([[0.31 * size[0], 0.42 * size[1]], [0.6 * size[0], 0.55 * size[1]]])
    answer = segmenter.predict(PointPrompts(xy[:, None], torch.ones(2, 1)))
    assert answer.masks.shape == (2, 3, size[1], size[0])
    torch.testing.assert_close(answer.scores, torch.tensor([[0.9, 0.8, 0.7]] * 2))
    scale = torch.tensor(size) / 256 if not keeps_aspect else torch.tensor([max(size) / 256] * 2)
    for n in range(2):
        rows, columns = torch.nonzero(answer.masks[n, 0], as_tuple=True)
        found = torch.stack([columns, rows]).double().mean(dim=1)
        assert (found - xy[n]).abs().max() < 0.5
        expected = torch.pi * 20**2 * scale.prod()
        assert abs(len(rows) / expected - 1) < 0.05


def test_the_image_is_encoded_once_and_prompts_go_in_batches() -> None:
    network = DiscNetwork()
    segmenter = PromptedSegmenter(network, SamSettings(prompts_per_call=8), CPU)
    segmenter.set_frame(_frame(64, 48), None)
    generator = torch.Generator().manual_seed(0)
    prompts = PointPrompts(torch.rand(20, 4, 2, generator=generator) * 48, torch.randint(-1, 2, (20, 4)))
    whole = segmenter.predict(prompts)
    segmenter.predict(prompts)
    assert len(network.images) == 1
    assert [len(xy) for xy, _ in network.calls] == [8, 8, 4] * 2
    assert torch.equal(torch.cat([labels for _, labels in network.calls[:3]]), prompts.labels)
    at_once = PromptedSegmenter(DiscNetwork(), SamSettings(prompts_per_call=64), CPU)
    at_once.set_frame(_frame(64, 48), None)
    assert torch.equal(whole.masks, at_once.predict(prompts).masks)


def test_no_prompts_give_no_masks() -> None:
    network = DiscNetwork()
    segmenter = PromptedSegmenter(network, SamSettings(), CPU)
    segmenter.set_frame(_frame(64, 48), None)
    answer = segmenter.predict(PointPrompts(torch.zeros(0, 4, 2), torch.zeros(0, 4)))
    assert answer.masks.shape == (0, 3, 48, 64) and not network.calls


@pytest.mark.parametrize("keeps_aspect", [True, False])
def test_carried_masks_are_prompts_where_the_setting_says_so(keeps_aspect: bool) -> None:
    network = DiscNetwork(keeps_aspect)
    carried = torch.zeros(240, 320, dtype=torch.int64)
    carried[60:180, 40:120], carried[:30, 200:] = 1, 3
    prompts = PointPrompts(torch.full((3, 1, 2), 50.0), torch.ones(3, 1), carried, torch.tensor([1.0, 1.0, 0.5]))
    segmenter = PromptedSegmenter(network, SamSettings(), CPU)
    segmenter.set_frame(_frame(320, 240), None)
    segmenter.predict(prompts)
    assert network.masks == [None]
    segmenter = PromptedSegmenter(network, SamSettings(mask_prompt=True, prompts_per_call=2), CPU)
    segmenter.set_frame(_frame(320, 240), None)
    segmenter.predict(prompts)
    assert [None if masks is None else len(masks) for masks in network.masks] == [None, 2, 1]
    first, second, third = (mask for masks in network.masks[1:] if masks is not None for mask in masks)
    # A cell of the prompt is 5 pixels of the frame across, and 5 or 3.75 down.
    down = 5 if keeps_aspect else 3.75
    top, bottom = round(60 / down), round(180 / down)
    expected = torch.full((64, 64), -10.0)
    expected[top:bottom, 8:24] = 10.0
    assert torch.equal(first, expected)
    assert (second == -10).all()
    assert third[: int(30 / down), 40:].eq(5).all() and third[int(30 / down) + 1 :].eq(-5).all()


def test_the_outline_of_a_mask_prompt_is_in_between() -> None:
    network = DiscNetwork()
    carried = torch.zeros(256, 256, dtype=torch.int64)
    carried[:, :130] = 1  # ends in the middle of a cell
    segmenter = PromptedSegmenter(network, SamSettings(mask_prompt=True), CPU)
    segmenter.set_frame(_frame(256, 256), None)
    segmenter.predict(PointPrompts(torch.zeros(1, 1, 2), torch.ones(1, 1), carried))
    (masks,) = network.masks
    assert masks is not None and masks[0, 0, 31:34].tolist() == [10, 0, -10]


def test_masks_at_full_size_are_made_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    on_frame = SquareMapping.on_frame

    def counted(mapping: SquareMapping, logits: torch.Tensor) -> torch.Tensor:
        sizes.append(len(logits))
        return on_frame(mapping, logits)

    segmenter = PromptedSegmenter(DiscNetwork(), SamSettings(), CPU)
    segmenter.set_frame(_frame(64, 48), None)
    prompts = PointPrompts(torch.rand(20, 1, 2, generator=torch.Generator().manual_seed(0)) * 48, torch.ones(20, 1))
    answer = segmenter.predict(prompts)
    whole, best = answer.masks, torch.arange(20) % 3
    monkeypatch.setattr(SquareMapping, "on_frame", counted)
    monkeypatch.setattr(prompted, "_PIXELS_AT_ONCE", 3 * 64 * 48 * 8)
    assert torch.equal(answer.masks, whole) and sizes == [8, 8, 4]
    sizes.clear()
    chosen = answer.select(best, torch.arange(20) != 7).dense
    assert sizes == [20]  # a third of the candidates
    expected = whole[torch.arange(20), best]
    expected[7] = False
    assert torch.equal(chosen, expected)


@pytest.mark.parametrize("keeps_aspect", [True, False])
def test_agreement_at_the_cells_of_the_logits_is_about_that_at_the_pixels(keeps_aspect: bool) -> None:
    segmenter = PromptedSegmenter(DiscNetwork(keeps_aspect), SamSettings(), CPU)
    segmenter.set_frame(_frame(320, 200), None)
    xy = torch.tensor([[80.0, 60], [200, 120], [300, 180]])
    answer = segmenter.predict(PointPrompts(xy[:, None], torch.ones(3, 1)))
    carried = torch.zeros(200, 320, dtype=torch.int64)
    carried[30:100, 50:130], carried[90:160, 150:230] = 1, 2
    matched = torch.ones(200, 320, dtype=torch.bool)
    matched[:, 190:] = False
    dense = CandidateMasks(answer.masks, answer.scores)
    cells, pixels = answer.overlap_counts(carried, matched, 2), overlap_counts(dense, carried, matched, 1)
    for ours, exact in zip(cells, pixels, strict=True):
        assert ours.shape == exact.shape
        share = pixels[2][0] / cells[2][0]  # pixels of one cell
        assert (ours * share - exact).abs().max() < 0.04 * exact.max()
    assert cells[2][2] == 0 and (cells[0][2] == 0).all()


def test_a_full_gpu_is_one_line_that_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    network = DiscNetwork()
    segmenter = PromptedSegmenter(network, SamSettings(), CPU)
    segmenter.set_frame(_frame(64, 48), None)
    monkeypatch.setattr(network, "decode", full)
    with pytest.raises(ModelError, match=r"memory is full.*sam\.prompts_per_call"):
        segmenter.predict(PointPrompts(torch.zeros(1, 1, 2), torch.ones(1, 1)))


def test_the_square_holds_the_normalised_image_and_zeros() -> None:
    mapping = SquareMapping.of_size(100, 200, side=256, keeps_aspect=True)
    grey = torch.full((100, 200, 3), 128, dtype=torch.uint8)
    square = mapping.square(grey)
    assert square.shape == (1, 3, 256, 256)
    expected = (128 - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor([58.395, 57.12, 57.375])
    torch.testing.assert_close(square[0, :, :128], expected[:, None, None].expand(3, 128, 256))
    assert (square[0, :, 128:] == 0).all()


def test_everything_asks_only_inside_the_region() -> None:
    network = DiscNetwork()
    settings = SamSettings(grid_points=16, min_stability=0.5)
    segmenter = PromptedSegmenter(network, settings, CPU)
    segmenter.set_frame(_frame(320, 240), None)
    region = torch.zeros(240, 320, dtype=torch.bool)
    region[40:140, 200:300] = True
    answer = segmenter.everything(region)
    asked = torch.cat([xy for xy, _ in network.calls])[:, 0]
    assert len(asked) == 25  # cells of 20 pixels
    frame_xy = (asked + 0.5) * (320 / 256) - 0.5
    assert (frame_xy[:, 0] > 199).all() and (frame_xy[:, 0] < 300).all()
    assert (frame_xy[:, 1] > 39).all() and (frame_xy[:, 1] < 140).all()
    assert len(answer) > 3 and answer.masks.shape[1:] == (1, 240, 320)
    assert not (answer.masks & ~region).any()
    assert (answer.scores.diff(dim=0) <= 0).all()


def test_everything_without_a_region_covers_the_frame_and_leaves_out_doubles() -> None:
    network = DiscNetwork()
    settings = SamSettings(grid_points=8, min_stability=0.5, min_iou=0.85, nms_iou=0.3)
    segmenter = PromptedSegmenter(network, settings, CPU)
    segmenter.set_frame(_frame(320, 240), None)
    answer = segmenter.everything()
    assert sum(len(xy) for xy, _ in network.calls) == 48
    flat = answer.masks.flatten(1).float()
    both = flat @ flat.T
    iou = both / (both.diagonal()[:, None] + both.diagonal() - both)
    assert len(answer) > 10
    assert iou.fill_diagonal_(0).max() < 0.35


@pytest.mark.parametrize("change", [{"min_iou": 0.95}, {"min_stability": 0.99}])
def test_everything_leaves_out_what_is_unsure_or_unstable(change: dict[str, float]) -> None:
    settings = dataclasses.replace(SamSettings(grid_points=8, min_stability=0.0, min_iou=0.0), **change)
    segmenter = PromptedSegmenter(DiscNetwork(), settings, CPU)
    segmenter.set_frame(_frame(64, 48), None)
    answer = segmenter.everything()
    assert answer.masks.shape == (0, 1, 48, 64) and answer.scores.shape == (0, 1)


def test_an_empty_region_asks_nothing() -> None:
    network = DiscNetwork()
    segmenter = PromptedSegmenter(network, SamSettings(), CPU)
    segmenter.set_frame(_frame(64, 48), None)
    assert len(segmenter.everything(torch.zeros(48, 64, dtype=torch.bool))) == 0
    assert not network.calls


def test_prompts_before_a_frame_are_refused() -> None:
    segmenter = PromptedSegmenter(DiscNetwork(), SamSettings(), CPU)
    with pytest.raises(SegmentationOrderError, match="set_frame"):
        segmenter.predict(PointPrompts(torch.zeros(1, 1, 2), torch.ones(1, 1)))


def test_scores_that_are_not_finite_are_an_error() -> None:
    segmenter = PromptedSegmenter(DiscNetwork(score=float("nan")), SamSettings(), CPU)
    segmenter.set_frame(_frame(64, 48), None)
    with pytest.raises(ModelError, match="no finite numbers"):
        segmenter.predict(PointPrompts(torch.zeros(1, 1, 2), torch.ones(1, 1)))


def test_suppression_equals_the_sequential_rule() -> None:
    generator = torch.Generator().manual_seed(2)
    corner = torch.randint(0, 16, (60, 2), generator=generator)
    size = torch.randint(4, 16, (60, 2), generator=generator)
    axis = torch.arange(32)
    spans = [(axis >= corner[:, n, None]) & (axis < corner[:, n, None] + size[:, n, None]) for n in (0, 1)]
    masks = spans[0][:, :, None] & spans[1][:, None, :]
    on_image = torch.ones(32, 32, dtype=torch.bool)
    small = masks[:, ::2, ::2].flatten(1)
    expected: list[int] = []
    for n in range(60):
        ious = [(small[n] & small[k]).sum() / (small[n] | small[k]).sum() for k in expected]
        if all(iou <= 0.4 for iou in ious):
            expected.append(n)
    assert 3 < len(expected) < 60
    assert first_of_each(alike_masks(masks, on_image, 0.4).numpy()).tolist() == expected
