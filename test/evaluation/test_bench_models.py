"""`mastsam bench --models` with models so small that the CPU runs them at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mastsam_ros.cli import main
from mastsam_ros.evaluation import bench_models
from mastsam_ros.evaluation.bench_models import NETWORK_STAGES, Models, StillPicture, full_size, measure, random_mast3r
from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.settings import Settings

pytest.importorskip("transformers")
CPU = Settings(device="cpu")


def tiny() -> Models:
    sam = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 64, "image_size": 128}
    return Models("tiny", {**sam, "global_attn_indexes": [0]}, Mast3rConfig.tiny(), 64, 160, 120)


def test_every_tile_is_one_track_and_every_stage_is_timed() -> None:
    done = measure(tiny(), 12, CPU, 2)
    assert done.tracks == 12
    assert len(done.step) == 2 and all(len(done.stages[stage]) == 2 for stage in (*NETWORK_STAGES, "rest"))
    assert all(ms > 0 for stage in done.stages.values() for ms in stage)
    for one, *parts in zip(done.step, *done.stages.values(), strict=True):
        assert sum(parts) == pytest.approx(one)
    few = measure(tiny(), 3, CPU, 1)
    assert few.tracks == 3
    # The decoder's work grows with the prompts, the encoders' does not.
    assert few.flops["predict"] < done.flops["predict"] and few.flops["encode"] == done.flops["encode"] > 0
    assert done.weight_bytes["match"] == sum(
        4 * p.numel() for p in random_mast3r(tiny(), torch.device("cpu")).parameters()
    )


def test_the_plain_composition_encodes_both_views_and_asks_for_each_mask_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    decode = bench_models.TransformersNetwork.decode

    def counted(network, features, xy, labels, masks):
        calls.append(len(xy))
        return decode(network, features, xy, labels, masks)

    monkeypatch.setattr(bench_models.TransformersNetwork, "decode", counted)
    together, alone = measure(tiny(), 6, CPU, 1), measure(tiny(), 6, CPU, 1, plain=True)
    assert set(calls) == {6, 1}
    assert alone.flops["match"] > together.flops["match"]


@pytest.mark.parametrize("tracks", [1, 8, 32, 128])
def test_tiles_cover_the_picture_once(tracks: int) -> None:
    picture = StillPicture(full_size("b"), tracks, torch.device("cpu"))
    assert (picture.masks.sum(dim=0) == 1).all()
    assert picture.masks.flatten(1).any(dim=1).all()


def test_full_size_is_the_released_size() -> None:
    from transformers import SamConfig, SamModel

    models = full_size("h")
    with torch.device("meta"):
        sam = SamModel(SamConfig(vision_config=models.sam))
    assert sum(p.numel() for p in sam.parameters()) // 10**6 == 641
    mast3r = random_mast3r(models, torch.device("meta"))
    assert sum(p.numel() for p in mast3r.parameters()) // 10**6 == 688


def test_without_a_gpu_the_table_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench_models, "small", tiny)
    assert main(["bench", "--models", "--frames", "2", "--json", str(tmp_path / "figures.json")]) == 0
    shown = capsys.readouterr().out
    for row in ("SAM ViT-H + MASt3R ViT-L: not run, no GPU", "SAM ViT-B + MASt3R ViT-L: not run", "tiny, 8 tracks"):
        assert row in shown
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["tiny, 32 tracks"]["times_as_fast"] > 0
    assert figures["tiny, 32 tracks"]["ms"]["step"]["p95"] >= figures["tiny, 32 tracks"]["ms"]["step"]["p50"]
    assert sum(figures["tiny, 32 tracks, plain"]["floor_ms"].values()) > 0
