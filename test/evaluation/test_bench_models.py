"""`mastsam bench --models` with models so small that the CPU runs them at once."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from mastsam_ros.cli import main
from mastsam_ros.device import out_of_memory_told
from mastsam_ros.evaluation import bench_models
from mastsam_ros.evaluation.bench_growth import long_run
from mastsam_ros.evaluation.bench_models import NETWORK_STAGES, Clock, Timings, measure
from mastsam_ros.evaluation.random_models import Models, StillPicture, StillSegmenter, full_size, random_mast3r
from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.segmenters.prompted import LogitMasks, SquareMapping
from mastsam_ros.settings import Settings
from mastsam_ros.types import PointPrompts

pytest.importorskip("transformers")
CPU = Settings(device="cpu")


def tiny() -> Models:
    sam = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 64, "image_size": 128}
    sam |= {"output_channels": 32, "num_pos_feats": 16}
    return Models("tiny", {**sam, "global_attn_indexes": [0]}, Mast3rConfig.tiny(), 64, 160, 120, decoder_width=32)


def test_every_tile_is_one_track_and_every_stage_is_timed() -> None:
    done = measure(tiny(), 12, CPU, 2)
    assert done.tracks == 12
    assert len(done.step) == 2 and all(len(done.stages[stage]) == 2 for stage in (*NETWORK_STAGES, "rest"))
    assert all(ms > 0 for stage in done.stages.values() for ms in stage)
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

    def counted(network, features, xy, *rest):
        calls.append(len(xy))
        return decode(network, features, xy, *rest)

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


def test_answers_of_the_networks_keep_their_form() -> None:
    """The tiles' truth comes as logits where the decoder gives logits, so that what follows costs what it costs."""
    device = torch.device("cpu")
    picture = StillPicture(full_size("b"), 12, device)
    mapping = SquareMapping.of_size(480, 640, 1024, keeps_aspect=True)

    class Decoder:
        def predict(self, prompts: PointPrompts) -> LogitMasks:
            return LogitMasks(mapping, torch.zeros(len(prompts), 3, 256, 256), torch.zeros(len(prompts), 3))

    clock = Clock(device)
    segmenter = StillSegmenter(Decoder(), picture, clock)  # type: ignore[arg-type]
    xy = torch.tensor([[[100.0, 50.0]], [[600.0, 400.0]]])
    answer = segmenter.predict(PointPrompts(xy, torch.ones(2, 1)))
    assert isinstance(answer, LogitMasks) and len(clock.timings.stages["predict"]) == 1
    for mask, (x, y) in zip(answer.masks[:, 0], xy[:, 0].long().tolist(), strict=True):
        tile = picture.masks[picture.tile[y, x]]
        assert (mask & tile).sum() > 0.97 * (mask | tile).sum()


def test_without_a_gpu_the_table_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench_models, "small", tiny)
    monkeypatch.setattr(bench_models, "long_run", lambda settings: long_run(settings, 9))
    monkeypatch.setattr(bench_models, "cpu_name", lambda: "Made-up (R) Chip @ 3 GHz CPU")
    command = ["bench", "--models", "--frames", "1", "--results", str(tmp_path / "results")]
    assert main([*command, "--set", "sam.grid_points=16"]) == 0
    shown = capsys.readouterr().out
    for row in ("SAM ViT-H + MASt3R ViT-L: not run, no GPU", "SAM ViT-B + MASt3R ViT-L: not run", "tiny, 8 tracks"):
        assert row in shown
    assert "from 8 to 128 tracks: step x " in shown and "9 frames with tiny models" in shown
    name = "made-up-r-chip-3-ghz-cpu"
    text = (tmp_path / "results" / f"{name}.md").read_text()
    assert "| tiny, 32 tracks, plain" in text and "sam.grid_points=16" in text and version("torch") in text
    figures = json.loads((tmp_path / "results" / f"{name}.json").read_text())
    assert figures["machine"] == "Made-up (R) Chip @ 3 GHz CPU" and figures["changed_settings"]["sam.grid_points"] == 16
    made = datetime.fromisoformat(figures["date"])
    assert abs((datetime.now(timezone.utc) - made).total_seconds()) < 3600
    rows = figures["rows"]
    assert rows["tiny, 32 tracks"]["times_as_fast"] > 0 and rows["tiny, 32 tracks"]["peak_gb"] > 0.05
    assert rows["tiny, 32 tracks"]["ms"]["step"]["p95"] >= rows["tiny, 32 tracks"]["ms"]["step"]["p50"]
    assert rows["tiny, 128 tracks"]["times_the_fewest_tracks"]["step"] > 0
    assert sum(rows["tiny, 32 tracks, plain"]["floor_ms"].values()) > 0
    assert rows["frames_500"]["samples"][-1]["frame"] == 9


def test_a_gpu_that_is_too_small_leaves_the_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench_models.measure

    def measured(models: Models, tracks: int, *rest: Any, plain: bool = False) -> Timings:
        if plain or tracks == 128:
            with out_of_memory_told("this row needs a larger one"):
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return whole(models, tracks, *rest)

    monkeypatch.setattr(bench_models, "measure", measured)
    monkeypatch.setattr(bench_models, "small", tiny)
    monkeypatch.setattr(bench_models, "long_run", lambda settings: long_run(settings, 3))
    text, figures = bench_models.bench_models(CPU, 1)
    assert "tiny, 32 tracks, plain: failed" in text and "plain: the GPU's memory is full" in text
    assert "memory is full" in figures["rows"]["tiny, 32 tracks, plain"]["failed"]
    assert "tiny, 128 tracks: failed" in text and "step x" not in text
    assert figures["rows"]["tiny, 32 tracks"]["times_as_fast"] is None
