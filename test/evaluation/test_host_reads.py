"""What counts as a read of the host, and how many a step with the foundation models makes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mastsam_ros.evaluation.bench_models import Models, measure
from mastsam_ros.evaluation.host_reads import HostReads
from mastsam_ros.masks import TrackMasks
from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.settings import Settings

VALUES = torch.arange(6)
MASK = VALUES > 2


@pytest.mark.parametrize(
    "read",
    [
        lambda: VALUES.max().item(),
        lambda: VALUES.tolist(),
        lambda: VALUES.cpu(),
        lambda: int(VALUES.sum()),
        lambda: float(VALUES[0]),
        lambda: bool(MASK.any()),
        lambda: torch.zeros(9)[VALUES[3]],
        lambda: VALUES[MASK],
        lambda: VALUES.view(2, 3)[:, MASK[:3]],
        lambda: VALUES.clone().__setitem__(MASK, VALUES[:3]),
        lambda: torch.nonzero(MASK),
        lambda: MASK.nonzero(),
        lambda: VALUES.unique(),
        lambda: torch.bincount(VALUES, minlength=9),
        lambda: torch.equal(VALUES, VALUES),
        lambda: torch.repeat_interleave(VALUES, VALUES),
        lambda: torch.masked_select(VALUES, MASK),
    ],
)
def test_what_gives_the_host_a_number_is_a_read(read: Callable[[], object]) -> None:
    with HostReads() as reads:
        read()
    assert reads.total == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda: VALUES[2:] + 1,
        lambda: VALUES[VALUES],
        lambda: VALUES[None, 1],
        lambda: torch.where(MASK, VALUES, 0),
        lambda: VALUES.clone().__setitem__(MASK, 7),
        lambda: VALUES.argsort(stable=True),
        lambda: VALUES.repeat_interleave(3),
        lambda: (VALUES.shape, len(VALUES), VALUES.device, VALUES.dtype),
    ],
)
def test_what_stays_on_the_device_is_none(work: Callable[[], object]) -> None:
    with HostReads() as reads:
        work()
    assert reads.total == 0


def test_places_and_sizes() -> None:
    from mastsam_ros.tracker.selection import Chosen

    one = torch.ones(5)
    with HostReads() as reads:
        Chosen(TrackMasks(torch.zeros(5, 2, 2)), one, one, one > 0).figures()
    ((place, count),) = reads.places.items()
    assert place.startswith("tracker/selection.py:") and place.endswith("tolist") and count == 1
    assert reads.transfers == [4 * 5 * 4]


@pytest.mark.parametrize("tracks", [4, 48])
def test_a_step_reads_two_images_and_little_else(tracks: int) -> None:
    """The label image and the pointmap; the rest are single numbers and tables of tracks."""
    pytest.importorskip("transformers")
    sam = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 64, "image_size": 128}
    sam |= {"output_channels": 32, "num_pos_feats": 16}
    models = Models("tiny", {**sam, "global_attn_indexes": [0]}, Mast3rConfig.tiny(), 64, 160, 120, decoder_width=32)
    done = measure(models, tracks, Settings(device="cpu"), 1)
    assert done.tracks == tracks
    assert 0 < done.host_reads <= 30, done.host_reads
    assert 0 < done.image_reads <= 2, done.image_reads
