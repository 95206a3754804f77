"""The whole pipeline on MASt3R and Segment Anything, with tiny models of random weights on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.network import Mast3rNetwork
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mast3r.pth and the folder sam, both of tiny models with random weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save({"model": Mast3rNetwork(Mast3rConfig.tiny()).state_dict()}, folder / "mast3r.pth")
    side: dict[str, Any] = {"hidden_size": 32, "image_size": 128}
    config = transformers.SamConfig(
        vision_config={**side, "output_channels": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 64,
                       "window_size": 0, "global_attn_indexes": [0], "num_pos_feats": 16},
        prompt_encoder_config=side,
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    )  # fmt: skip
    sam = transformers.SamModel(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            parameter.normal_(mean=float("norm" in name and name.endswith("weight")), std=0.3)
    sam.save_pretrained(folder / "sam")
    return folder


def _frames(count: int) -> list[Frame]:
    rng = np.random.default_rng(3)
    wide = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return [Frame(np.ascontiguousarray(wide[:, 3 * n : 3 * n + 128])) for n in range(count)]


def test_every_frame_gets_labels_and_the_same_ones_twice(weights: Path) -> None:
    settings = Settings.from_mapping(
        {
            "device": "cpu",
            "matcher.name": "mast3r",
            "mast3r.checkpoint": str(weights / "mast3r.pth"),
            "mast3r.image_size": 64,
            "mast3r.min_confidence": 0.0,
            "segmenter.name": "hf_sam",
            "sam.checkpoint": str(weights / "sam"),
            "sam.grid_points": 8,
            "sam.min_iou": 0.0,
            "sam.min_stability": 0.0,
        }
    )
    runs = []
    for _ in range(2):
        mastsam = create_mastsam(settings)
        runs.append([mastsam.step(frame) for frame in _frames(4)])
    assert all(result.labels.shape == (96, 128) and result.labels.dtype == np.uint16 for result in runs[0])
    assert runs[0][0].labels.any()
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first.labels, second.labels)
