"""Tiny Segment Anything models with random weights, and a stand-in for what segment-anything imports of torchvision."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch

SIDE = 128
"""Width and height of the tiny models' image: 8x8 patches, masks of 32x32."""


@pytest.fixture(scope="session")
def segment_anything() -> Any:
    """The package, imported with a stand-in for torchvision where that cannot be imported."""
    try:
        return importlib.import_module("segment_anything")
    except (ImportError, RuntimeError):
        if importlib.util.find_spec("segment_anything") is None:
            pytest.skip("segment-anything is not installed")
    for name in [name for name in sys.modules if name.partition(".")[0] == "segment_anything"]:
        del sys.modules[name]
    with pytest.MonkeyPatch.context() as patch:
        for module in _torchvision():
            patch.setitem(sys.modules, module.__name__, module)
        return importlib.import_module("segment_anything")


def _torchvision() -> Iterator[types.ModuleType]:
    """The modules that segment-anything imports; this package calls none of their functions."""

    def absent(*_: object, **__: object) -> None:
        raise NotImplementedError("the stand-in for torchvision does nothing")

    functions = {
        "torchvision": (),
        "torchvision.ops": (),
        "torchvision.ops.boxes": ("batched_nms", "box_area"),
        "torchvision.transforms": (),
        "torchvision.transforms.functional": ("resize", "to_pil_image"),
    }
    for name, names in functions.items():
        module = types.ModuleType(name)
        for function in names:
            setattr(module, function, absent)
        yield module


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter and buffer from a seeded generator, so that each one matters to the result."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            spread = 0.3 if tensor.ndim > 1 else 0.1
            mean = 1.0 if tensor.ndim == 1 and "norm" in name and name.endswith("weight") else 0.0
            tensor.copy_(mean + spread * torch.randn(tensor.shape, generator=generator))
    return model.eval()


@pytest.fixture
def tiny_sam(segment_anything: Any) -> Any:
    """segment-anything's model: 2 layers, 32 channels, one layer with windows and one without."""
    modeling = importlib.import_module("segment_anything.modeling")
    grid = (SIDE // 16, SIDE // 16)
    model = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=SIDE,
            embed_dim=32,
            depth=2,
            num_heads=2,
            mlp_ratio=2,
            out_chans=32,
            norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6),
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=modeling.PromptEncoder(32, grid, (SIDE, SIDE), 16),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=32,
            transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=32, num_heads=2, mlp_dim=64),
            iou_head_hidden_dim=32,
        ),
    )
    return randomise(model)


@pytest.fixture
def transformers_models() -> dict[str, Any]:
    """model_type -> the tiny model of that type by transformers, random weights."""
    transformers = pytest.importorskip("transformers")
    vision = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "window_size": 3,
        "global_attn_indexes": [1],
        "mlp_dim": 64,
        "num_pos_feats": 16,
    }
    prompts = {"hidden_size": 32, "image_size": SIDE}
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    hiera = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[3],
    )
    sam2_vision = transformers.Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
        fpn_hidden_size=32,
    )
    models = {
        "sam": transformers.SamModel(
            transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
        ),
        "sam_hq": transformers.SamHQModel(
            transformers.SamHQConfig(
                vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config={**decoder, "vit_dim": 32}
            )
        ),
        "sam2": transformers.Sam2Model(
            transformers.Sam2Config(
                vision_config=sam2_vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
            )
        ),
    }
    return {kind: randomise(model) for kind, model in models.items()}
