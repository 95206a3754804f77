"""What makes the host wait for its device, and how rarely a step with the foundation models does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from mastsam_ros.device import constant, on_host, places, upload
from mastsam_ros.evaluation.bench_growth import tiny_mast3r, tiny_sam
from mastsam_ros.evaluation.bench_models import measure
from mastsam_ros.evaluation.host_reads import PretendedDevice
from mastsam_ros.evaluation.random_models import Models
from mastsam_ros.geometry.lifting import LabelledCloud
from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.matcher import Mast3rMatcher
from mastsam_ros.pipeline import Mastsam
from mastsam_ros.segmenters.hf_sam import TransformersNetwork
from mastsam_ros.segmenters.prompted import PromptedSegmenter
from mastsam_ros.settings import Settings
from mastsam_ros.tracker.propagation import connected_groups
from mastsam_ros.types import EditError, Frame, FrameResult


@pytest.fixture
def watched() -> Iterator[PretendedDevice]:
    with PretendedDevice() as device:
        yield device


@pytest.mark.parametrize(
    "read",
    [
        lambda values, mask: values.max().item(),
        lambda values, mask: values.cpu(),
        lambda values, mask: int(values.sum()),
        lambda values, mask: float(values[0]),
        lambda values, mask: bool(mask.any()),
        lambda values, mask: values[mask],
        lambda values, mask: values.view(2, 3)[:, mask[:3]],
        lambda values, mask: values.clone().__setitem__(mask, values[:3]),
        lambda values, mask: torch.nonzero(mask),
        lambda values, mask: values.unique(),
        lambda values, mask: torch.bincount(values, minlength=9),
        lambda values, mask: torch.equal(values, values),
        lambda values, mask: torch.repeat_interleave(values, values),
        lambda values, mask: torch.masked_select(values, mask),
        lambda values, mask: on_host(values, mask, values.sum()),
    ],
)
def test_what_gives_the_host_a_number_is_a_read(
    read: Callable[[torch.Tensor, torch.Tensor], object], watched: PretendedDevice
) -> None:
    values = torch.arange(6, device=watched.device)
    read(values, values > 2)
    assert watched.total == 1 and not watched.uploads


@pytest.mark.parametrize(
    "work",
    [
        lambda values, mask: values[2:] + 1,
        lambda values, mask: values[values],
        lambda values, mask: values[None, 1],
        lambda values, mask: torch.where(mask, values, 0),
        lambda values, mask: values.clone().__setitem__(mask, 7),
        lambda values, mask: values.argsort(stable=True),
        lambda values, mask: values.repeat_interleave(3),
        lambda values, mask: (values.shape, len(values), values.device, values.dtype),
        lambda values, mask: values[places(mask)] * upload([1, 2, 3, 4, 5, 6], values.device),
        lambda values, mask: values + constant((0.5,), values.device),
    ],
)
def test_what_stays_on_the_device_is_none(
    work: Callable[[torch.Tensor, torch.Tensor], object], watched: PretendedDevice
) -> None:
    values = torch.arange(6, device=watched.device)
    work(values, values > 2)
    assert watched.total == 0 and not watched.uploads


def test_a_picture_is_taken_there_once(watched: PretendedDevice) -> None:
    frame = Frame(np.zeros((4, 6, 3), np.uint8))
    first = frame.image_on(watched.device)
    assert first.device.type == "pretended" and frame.image_on(watched.device) is first
    assert frame.image_on(torch.device("cpu")).device.type == "cpu"


def test_what_waits_for_an_upload_is_counted(watched: PretendedDevice) -> None:
    values = torch.ones(4).to(watched.device)
    assert watched.uploads.total() == 1
    values[torch.tensor([2, 1])]  # the index is taken there
    assert watched.uploads.total() == 2


def test_nothing_mixes_with_the_device(watched: PretendedDevice) -> None:
    values = torch.arange(6, device=watched.device)
    assert values.device == (values + torch.tensor(1)).device == torch.device("pretended:0")
    with pytest.raises(RuntimeError, match="mixes"):
        values + torch.arange(6)
    with pytest.raises((RuntimeError, TypeError)):
        values.numpy()


def test_all_kinds_of_numbers_come_back_in_one_transfer(watched: PretendedDevice) -> None:
    kinds = (torch.bool, torch.uint8, torch.int16, torch.float32, torch.int64, torch.float64)
    sent = [torch.arange(n + 1).to(kind) for n, kind in enumerate(kinds)] + [torch.zeros(0, 4), torch.tensor(3)]
    back = on_host(*(upload(tensor, watched.device) for tensor in sent))
    assert watched.total == 1
    for before, after in zip(sent, back, strict=True):
        np.testing.assert_array_equal(before.numpy(), after)
        assert before.numpy().dtype == after.dtype and before.shape == after.shape


def test_groups_come_out_on_every_device_as_on_the_cpu(watched: PretendedDevice) -> None:
    """On a GPU the rounds are counted out beforehand: masks of every shape need fewer."""
    rng = np.random.default_rng(0)
    spiral = np.zeros((60, 80), np.int64)
    row, column, lengths = 0, 0, [79, 59, 79, *(n for k in range(2, 58, 2) for n in (59 - k, 79 - k))]
    for step, length in enumerate(lengths):
        dy, dx = ((0, 1), (1, 0), (0, -1), (-1, 0))[step % 4]
        for _ in range(length):
            spiral[row, column] = 1
            row, column = row + dy, column + dx
    pictures = [spiral, np.indices((60, 80)).sum(axis=0) % 4 // 2, np.tile([1, 1, 2], (60, 27))[:, :80]]
    pictures += [rng.integers(0, most, (60, 80)) for most in (2, 3, 5) for _ in range(10)]
    for picture in pictures:
        number = torch.from_numpy(picture)
        (there,) = on_host(connected_groups(upload(number, watched.device)))
        np.testing.assert_array_equal(there, connected_groups(number).numpy())


@pytest.mark.parametrize("tracks", [4, 48])
def test_a_step_reads_a_table_and_the_result(tracks: int) -> None:
    """How many matches there are, the table that the host decides by, and what goes out: labels, points, self-check."""
    pytest.importorskip("transformers")
    sam = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 64, "image_size": 128}
    sam |= {"output_channels": 32, "num_pos_feats": 16}
    models = Models("tiny", {**sam, "global_attn_indexes": [0]}, Mast3rConfig.tiny(), 64, 160, 120, decoder_width=32)
    done = measure(models, tracks, Settings(device="cpu"), 1)
    assert done.tracks == tracks
    assert done.host_reads == 3 and done.image_reads == 1 and done.uploads == 0


_SETTINGS = {
    "mast3r.image_size": 64,
    "mast3r.min_confidence": 0.0,
    "sam.grid_points": 6,
    "sam.min_iou": 0.0,
    "sam.min_stability": 0.0,
    "tracker.coast_frames": 1,
    "tracker.join_after": 1,
}


def _frames(with_depth: bool) -> list[Frame]:
    """Large squares that drift, with a jump, a black frame and an object that comes and goes."""
    rng = np.random.default_rng(3)
    wide = rng.integers(0, 256, (12, 40, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    depth = np.full((96, 128), 2.0, np.float32)
    depth[30:60, 40:80] = 1.0
    K = np.array([[120.0, 0, 63.5], [0, 120, 47.5], [0, 0, 1]])
    frames = []
    for n, left in enumerate((0, 3, 6, 120, 6, 9)):
        image = np.ascontiguousarray(wide[:, left : left + 128])
        if n % 3 == 1:
            image[20:50, 30:70] = (250, 20, 20)
        frames.append(Frame(image, n, K=K, depth=depth if with_depth else None))
    frames.insert(4, Frame(np.zeros((96, 128, 3), np.uint8), 99, K=K, depth=depth if with_depth else None))
    return frames


def _run(
    device: torch.device, frames: list[Frame], changed: dict[str, object], ready: Callable[[], None]
) -> list[FrameResult]:
    settings = Settings(device="cpu").updated({**_SETTINGS, **changed})
    matcher = Mast3rMatcher(settings.mast3r, device, tiny_mast3r(torch.device("cpu")))
    segmenter = PromptedSegmenter(TransformersNetwork(tiny_sam(torch.device("cpu"))), settings.sam, device)
    mastsam = Mastsam(matcher, segmenter, settings)
    mastsam.device = device
    ready()
    results = []
    for n, frame in enumerate(frames):
        results.append(mastsam.step(frame))
        ids = [track.id for track in results[-1].tracks if track.area]
        if n == 2 and len(ids) > 2:
            mastsam.merge_instances(ids[:2])
            mastsam.remove_instance(ids[2])
            for pointed in ({"xy": [(60, 50)], "label": "pointed at"}, {"box_xywh": (20, 20, 60, 40)}):
                with contextlib.suppress(EditError):  # random weights may see nothing there, on both devices
                    mastsam.add_instance(**pointed)
    return results


@pytest.mark.parametrize(
    ("with_depth", "changed"),
    [
        (False, {}),
        (True, {"sam.mask_prompt": True, "tracker.representative_selection": False}),
        (False, {"tracker.reprompt": False, "tracker.kmeans": "sklearn"}),
    ],
)
def test_the_whole_pipeline_runs_on_another_device_with_equal_results(
    with_depth: bool, changed: dict[str, object]
) -> None:
    pytest.importorskip("transformers")
    if changed.get("tracker.kmeans") == "sklearn":
        pytest.importorskip("sklearn")
    frames = _frames(with_depth)
    expected = _run(torch.device("cpu"), frames, changed, lambda: None)
    with PretendedDevice() as watched:
        again = [Frame(f.image, f.stamp_ns, K=f.K, depth=f.depth) for f in frames]
        results = _run(watched.device, again, changed, watched.restart)
        assert watched.total > 0 and not watched.uploads
    assert any(result.labels.any() for result in results)
    for ours, theirs in zip(results, expected, strict=True):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.check == theirs.check
        assert [(event.kind, event.id) for event in ours.events] == [(event.kind, event.id) for event in theirs.events]
        for track, other in zip(ours.tracks, theirs.tracks, strict=True):
            assert (track.id, track.state, track.box_xywh) == (other.id, other.state, other.box_xywh)
            assert track.score == pytest.approx(other.score, abs=0.01)
        assert (ours.points is None) == (theirs.points is None)
        if isinstance(ours.points, LabelledCloud) and theirs.points is not None:
            np.testing.assert_allclose(ours.points.xyz, theirs.points.xyz, rtol=1e-3, atol=1e-4)
