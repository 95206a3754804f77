"""The two backends of Segment Anything: tiny random weights, the same masks from both, and clear errors."""

from __future__ import annotations

import builtins
import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mastsam_ros.device import on_host, upload
from mastsam_ros.evaluation.host_reads import PretendedDevice
from mastsam_ros.segmenters import create_segmenter, sam
from mastsam_ros.segmenters.hf_sam import TransformersNetwork
from mastsam_ros.segmenters.prompted import PromptedSegmenter
from mastsam_ros.segmenters.sam import SamNetwork
from mastsam_ros.settings import SamSettings, Settings
from mastsam_ros.types import CandidateMasks, Frame, MissingPackageError, ModelError, PointPrompts

CPU = torch.device("cpu")
KINDS = ("sam", "sam_hq", "sam2")


def _frame() -> Frame:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Frame(np.ascontiguousarray(coarse.repeat(10, axis=0).repeat(10, axis=1)))


def _prompts() -> PointPrompts:
    generator = torch.Generator().manual_seed(6)
    xy = torch.rand(7, 3, 2, generator=generator) * torch.tensor([120, 90])
    labels = torch.tensor([[1, 1, 0], [1, -1, -1], [1, 0, -1], [1, 1, 1], [1, 0, 0], [1, 1, -1], [1, -1, -1]])
    carried = torch.arange(9).repeat_interleave(10)[:, None].expand(90, 120)  # seven stripes and two that are nobody's
    return PointPrompts(xy, labels, carried, torch.linspace(0.4, 1, 7))


def _boxes(points: int) -> PointPrompts:
    """Seven boxes, and so many points beside each."""
    prompts = _prompts()
    corner = torch.arange(7.0)[:, None] * torch.tensor([[9.0, 6.0]])
    boxes = torch.cat([corner, corner + torch.tensor([[40.0, 30.0]])], dim=1)
    return PointPrompts(prompts.xy[:, :points], prompts.labels[:, :points], boxes=boxes)


def _answer(network: Any, prompts: PointPrompts | None = None, **settings: Any) -> CandidateMasks:
    segmenter = PromptedSegmenter(network, SamSettings(**settings), CPU)
    segmenter.set_frame(_frame(), None)
    return segmenter.predict(_prompts() if prompts is None else prompts)


_NAMES = [  # segment-anything's names -> those of transformers
    (r"^image_encoder\.", "vision_encoder."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"^(vision_encoder)\.blocks\.", r"\1.layers."),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"norm_final_attn", "layer_norm_final_attn"),
    (r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    (r"point_embeddings", "point_embed"),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
]


def _renamed(name: str) -> str:
    return functools.reduce(lambda text, rule: re.sub(*rule, text), _NAMES, name)


def test_both_packages_give_the_same_masks_for_the_same_weights(
    tiny_sam: Any, transformers_models: dict[str, Any]
) -> None:
    other = transformers_models["sam"]
    weights = {_renamed(name): tensor for name, tensor in tiny_sam.state_dict().items()}
    shared = weights["shared_image_embedding.positional_embedding"]
    weights["prompt_encoder.shared_embedding.positional_embedding"] = shared
    assert set(weights) == set(other.state_dict())
    other.load_state_dict(weights)
    networks = SamNetwork(tiny_sam), TransformersNetwork(other)
    for prompts, mask_prompt in ((None, False), (None, True), (_boxes(2), False), (_boxes(0), False)):
        first, second = (_answer(network, prompts, mask_prompt=mask_prompt) for network in networks)
        torch.testing.assert_close(first.scores, second.scores, atol=1e-4, rtol=1e-4)
        assert (first.masks != second.masks).float().mean() < 1e-3
        assert 0.01 < first.masks.float().mean() < 0.99


def test_sam_by_segment_anything_answers_in_batches_as_one_by_one(tiny_sam: Any) -> None:
    whole = _answer(SamNetwork(tiny_sam))
    assert whole.masks.shape == (7, 3, 90, 120)
    single = _answer(SamNetwork(tiny_sam), prompts_per_call=1)
    torch.testing.assert_close(whole.scores, single.scores, atol=1e-5, rtol=1e-4)
    assert (whole.masks != single.masks).float().mean() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_each_family_of_transformers_answers(transformers_models: dict[str, Any], kind: str) -> None:
    network = TransformersNetwork(transformers_models[kind])
    assert network.keeps_aspect == (kind != "sam2")
    answer = _answer(network)
    assert answer.masks.shape == (7, 3, 90, 120) and answer.scores.shape == (7, 3)
    single = _answer(network, prompts_per_call=1)
    torch.testing.assert_close(answer.scores, single.scores, atol=1e-5, rtol=1e-4)
    assert (answer.masks != single.masks).float().mean() < 1e-3
    assert 0.01 < answer.masks.float().mean() < 0.99


@pytest.fixture
def edgetam() -> Any:
    """EdgeTAM with its own backbone and random weights, for images of 128 pixels."""
    pytest.importorskip("timm", reason="EdgeTAM needs timm and torchvision", exc_type=(ImportError, RuntimeError))
    transformers = pytest.importorskip("transformers")
    backbone = transformers.TimmWrapperConfig(
        architecture="repvit_m1", model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    )
    vision = transformers.EdgeTamVisionConfig(
        backbone_config=backbone, backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]]
    )
    torch.manual_seed(0)
    config = transformers.EdgeTamConfig(vision_config=vision, prompt_encoder_config={"image_size": 128})
    return transformers.EdgeTamModel(config).eval()


@pytest.fixture
def edgetam_of_a_pyramid() -> Any:
    """EdgeTAM of random weights round a backbone that needs no timm: five convolutions, for images of 128 pixels."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_outputs import BaseModelOutput

    class PyramidConfig(transformers.PretrainedConfig):
        model_type = "mastsam_test_pyramid"

    class Pyramid(transformers.PreTrainedModel):
        config_class = PyramidConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            sides = [(3, 8, 4), (8, 16, 2), (16, 32, 2), (32, 64, 2)]
            self.stages = torch.nn.ModuleList(torch.nn.Conv2d(a, b, side, stride=side) for a, b, side in sides)
            self.post_init()

        def forward(self, pixel_values: torch.Tensor, **_: Any) -> Any:
            levels = []
            for stage in self.stages:
                pixel_values = stage(pixel_values).tanh()
                levels.append(pixel_values)
            return BaseModelOutput(last_hidden_state=levels)

    transformers.AutoConfig.register("mastsam_test_pyramid", PyramidConfig, exist_ok=True)
    transformers.AutoModel.register(PyramidConfig, Pyramid, exist_ok=True)
    vision = transformers.EdgeTamVisionConfig(
        backbone_config=PyramidConfig(),
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=32,
    )
    config = transformers.EdgeTamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    )
    torch.manual_seed(0)
    return transformers.EdgeTamModel(config).eval()


def test_edgetam_answers(edgetam: Any, tmp_path: Path) -> None:
    _edgetam_answers(edgetam, tmp_path)


def test_edgetam_round_another_backbone_answers_without_timm(
    edgetam_of_a_pyramid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    _edgetam_answers(edgetam_of_a_pyramid, tmp_path)


def _edgetam_answers(edgetam: Any, tmp_path: Path) -> None:
    network = TransformersNetwork(edgetam)
    answer = _answer(network)
    assert answer.masks.shape == (7, 3, 90, 120) and 0.01 < answer.masks.float().mean() < 0.99
    with_masks = _answer(network, mask_prompt=True)
    assert (answer.masks != with_masks.masks).float().mean() > 0.01
    edgetam.save_pretrained(tmp_path)
    segmenter = create_segmenter(_settings("hf_sam", tmp_path))
    segmenter.set_frame(_frame(), None)
    torch.testing.assert_close(segmenter.predict(_prompts()).scores, answer.scores)
    half = _answer(network, precision="bfloat16")
    assert (answer.masks != half.masks).float().mean() < 0.1


def test_without_timm_edgetam_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "edgetam"}))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match="EdgeTAM needs timm and a torchvision that fits torch") as caught:
        create_segmenter(_settings("hf_sam", tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mask_prompt", [False, True])
@pytest.mark.parametrize("kind", ["segment-anything", *KINDS, "edgetam"])
def test_encoding_and_answering_wait_for_no_gpu(
    kind: str,
    mask_prompt: bool,
    tiny_sam: Any,
    transformers_models: dict[str, Any],
    edgetam_of_a_pyramid: Any,
) -> None:
    """On a device that is pretended: no number is read, nothing is taken there but the picture, nothing mixes."""
    models = {**transformers_models, "segment-anything": tiny_sam, "edgetam": edgetam_of_a_pyramid}
    network = (SamNetwork if kind == "segment-anything" else TransformersNetwork)(models[kind])
    expected = _answer(network, mask_prompt=mask_prompt)
    with PretendedDevice() as watched:
        segmenter = PromptedSegmenter(network, SamSettings(mask_prompt=mask_prompt), watched.device)
        prompts = _prompts()
        assert prompts.carried is not None
        there = PointPrompts(*(upload(t, watched.device) for t in (prompts.xy, prompts.labels, prompts.carried)))
        watched.restart()
        for _ in range(2):
            segmenter.set_frame(_frame(), None)
            answer = segmenter.predict(there)
        assert watched.places == {} and watched.uploads == {}
        masks, scores = on_host(answer.masks, answer.scores)
    if not mask_prompt:  # trust is full where nobody tells it
        torch.testing.assert_close(torch.from_numpy(scores.copy()), expected.scores, atol=1e-4, rtol=1e-3)
        assert (torch.from_numpy(masks.copy()) != expected.masks).float().mean() < 1e-3


@pytest.mark.parametrize("mask_prompt", [False, True])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_networks_run_in_half_precision(
    tiny_sam: Any, transformers_models: dict[str, Any], precision: str, mask_prompt: bool
) -> None:
    for network in (SamNetwork(tiny_sam), *(TransformersNetwork(transformers_models[kind]) for kind in KINDS)):
        exact = _answer(network, mask_prompt=mask_prompt)
        half = _answer(network, precision=precision, mask_prompt=mask_prompt)
        assert (exact.masks != half.masks).float().mean() < 0.1
        assert 0.01 < half.masks.float().mean() < 0.99
        assert (exact.scores - half.scores).abs().max() < 0.05


@pytest.mark.parametrize("kind", ["sam by segment-anything", *KINDS])
def test_in_half_precision_points_keep_their_places(
    request: pytest.FixtureRequest, transformers_models: dict[str, Any], kind: str
) -> None:
    if kind in KINDS:
        model = transformers_models[kind]
        network, encoder = TransformersNetwork(model), model.vision_encoder
    else:
        model = request.getfixturevalue("tiny_sam")
        network, encoder = SamNetwork(model), model.image_encoder
    given: list[dict[str, torch.Tensor]] = []
    model.mask_decoder.register_forward_pre_hook(lambda _module, _args, named: given.append(named), with_kwargs=True)
    for precision in ("float32", "bfloat16"):
        _answer(network, precision=precision)
    exact, half = given
    for name in ("sparse_prompt_embeddings", "dense_prompt_embeddings"):
        assert half[name].dtype == torch.bfloat16, name
        # Rounded to 8 bits at the end; computed with 8 bits, sines of the positions are several times as far off.
        torch.testing.assert_close(half[name].float(), exact[name], atol=2**-8, rtol=2**-8)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.bfloat16}


def test_points_are_embedded_as_segment_anything_does(tiny_sam: Any) -> None:
    prompts, network = _prompts(), SamNetwork(tiny_sam)
    sparse, dense = tiny_sam.prompt_encoder((prompts.xy, prompts.labels), None, None)
    torch.testing.assert_close(network._embedded(prompts.xy, prompts.labels, False), sparse)
    for drawn in (_boxes(2), _boxes(0)):
        given = (drawn.xy, drawn.labels) if drawn.xy.shape[1] else None
        expected, _ = tiny_sam.prompt_encoder(given, drawn.boxes, None)
        xy = torch.cat([drawn.xy, drawn.boxes.view(-1, 2, 2)], 1)
        labels = torch.cat([drawn.labels, torch.tensor([[2, 3]]).expand(7, -1)], 1)
        torch.testing.assert_close(network._embedded(xy, labels, True), expected)
    assert torch.equal(network._dense(None, len(prompts)), dense)
    masks = torch.randn(len(prompts), network.mask_side, network.mask_side)
    _, dense = tiny_sam.prompt_encoder((prompts.xy, prompts.labels), None, masks[:, None])
    assert torch.equal(network._dense(masks, len(prompts)), dense)


@pytest.mark.parametrize("kind", ["sam by segment-anything", *KINDS])
def test_mask_prompts_say_something_and_go_in_batches(
    request: pytest.FixtureRequest, transformers_models: dict[str, Any], kind: str
) -> None:
    if kind in KINDS:
        network: Any = TransformersNetwork(transformers_models[kind])
    else:
        network = SamNetwork(request.getfixturevalue("tiny_sam"))
    points, whole = _answer(network), _answer(network, mask_prompt=True)
    assert (points.masks != whole.masks).float().mean() > 0.01
    parts = _answer(network, mask_prompt=True, prompts_per_call=3)
    torch.testing.assert_close(whole.scores, parts.scores, atol=1e-5, rtol=1e-4)
    assert (whole.masks != parts.masks).float().mean() < 1e-3
    # Of one track alone, the carried mask of the others must not show.
    segmenter = PromptedSegmenter(network, SamSettings(mask_prompt=True), CPU)
    segmenter.set_frame(_frame(), None)
    prompts = _prompts()
    assert prompts.carried is not None and prompts.confidence is not None
    alone = PointPrompts(prompts.xy[2:3], prompts.labels[2:3], (prompts.carried == 3).long(), prompts.confidence[2:3])
    torch.testing.assert_close(segmenter.predict(alone).scores, whole.scores[2:3], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers_loads_through_the_settings(
    transformers_models: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    model = transformers_models[kind]
    model.save_pretrained(tmp_path)
    segmenter = create_segmenter(_settings("hf_sam", tmp_path))
    segmenter.set_frame(_frame(), None)
    answer = segmenter.predict(_prompts())
    expected = _answer(TransformersNetwork(model))
    assert torch.equal(answer.masks, expected.masks) and torch.equal(answer.scores, expected.scores)


def _settings(name: str, checkpoint: Path | str) -> Settings:
    return Settings.from_mapping({"device": "cpu", "segmenter.name": name, "sam.checkpoint": str(checkpoint)})


def test_a_pth_file_of_sam_loads_through_the_settings(
    tiny_sam: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import copy

    blank = copy.deepcopy(tiny_sam)
    for parameter in blank.parameters():
        torch.nn.init.zeros_(parameter)
    monkeypatch.setattr(sam, "_MODELS", {32: "tiny"})
    monkeypatch.setattr(sam, "_registry", lambda: {"tiny": lambda: blank})
    torch.save(tiny_sam.state_dict(), tmp_path / "sam.pth")
    segmenter = create_segmenter(_settings("sam", tmp_path / "sam.pth"))
    segmenter.set_frame(_frame(), None)
    assert torch.equal(segmenter.predict(_prompts()).masks, _answer(SamNetwork(tiny_sam)).masks)

    weights = tiny_sam.state_dict()
    del weights["mask_decoder.iou_token.weight"]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(ModelError, match=r"part\.pth: .*missing: mask_decoder\.iou_token\.weight"):
        create_segmenter(_settings("sam", tmp_path / "part.pth"))


def test_the_published_models_are_known_to_the_package(segment_anything: Any) -> None:
    assert set(sam._MODELS.values()) <= set(segment_anything.sam_model_registry)
    with torch.device("meta"):
        for width, name in sam._MODELS.items():
            model = segment_anything.sam_model_registry[name]()
            assert model.image_encoder.patch_embed.proj.weight.shape[0] == width
            assert SamNetwork(model).side == 1024


def test_foreign_files_are_named(segment_anything: Any, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth: not SAM's weights"):
        create_segmenter(_settings("sam", tmp_path / "other.pth"))
    with pytest.raises(ModelError, match=r"no file of weights at '.*absent\.pth'"):
        create_segmenter(_settings("sam", tmp_path / "absent.pth"))
    for name in ("sam", "hf_sam"):
        with pytest.raises(ModelError, match=r"set sam\.checkpoint"):
            create_segmenter(_settings(name, ""))


def test_foreign_folders_are_named(transformers_models: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no readable config\.json"):
        create_segmenter(_settings("hf_sam", tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="type 'bert', expected one of sam"):
        create_segmenter(_settings("hf_sam", tmp_path))
    transformers_models["sam"].config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded as SamModel"):
        create_segmenter(_settings("hf_sam", tmp_path))
    transformers_models["sam"].save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded as SamModel") as caught:
        create_segmenter(_settings("hf_sam", tmp_path))
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_do_not_load_half_way(transformers_models: dict[str, Any], tmp_path: Path) -> None:
    transformers_models["sam"].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"do not fit SamModel: \d+ missing"):
        create_segmenter(_settings("hf_sam", tmp_path))


@pytest.mark.parametrize(("name", "package"), [("sam", "segment_anything"), ("hf_sam", "transformers")])
def test_a_missing_package_is_one_line_that_says_what_to_install(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
    real = builtins.__import__

    def without(module: str, *rest: Any, **named: Any) -> Any:
        if module.partition(".")[0] == package:
            raise ImportError(f"No module named '{package}'")
        return real(module, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match="pip install") as caught:
        create_segmenter(_settings(name, tmp_path))
    assert "\n" not in str(caught.value)


def test_importing_the_backends_loads_no_model_library() -> None:
    code = (
        "import sys, mastsam_ros.segmenters.sam, mastsam_ros.segmenters.hf_sam;"
        "sys.exit(any(name in sys.modules for name in ('transformers', 'segment_anything', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
