"""What tests of several folders share."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.network import Mast3rNetwork

# A shell has what it starts in the background ignore interrupts; tests send some.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of MASt3R and of Segment Anything (transformers): tiny models with random weights, on the CPU."""
    transformers = pytest.importorskip("transformers")
    folder: Path = tmp_path_factory.mktemp("weights")
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
    return {
        "device": "cpu",
        "matcher.name": "mast3r",
        "mast3r.checkpoint": str(folder / "mast3r.pth"),
        "mast3r.image_size": 64,
        "mast3r.min_confidence": 0.0,
        "segmenter.name": "hf_sam",
        "sam.checkpoint": str(folder / "sam"),
        "sam.grid_points": 8,
        "sam.min_iou": 0.0,
        "sam.min_stability": 0.0,
    }
