"""The authors' package as the implementation: a stand-in for its interface, and the package itself where it is."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mastsam_ros.checkpoints.table import CHECKPOINTS, weights_directory
from mastsam_ros.matchers.mast3r.checkpoint import load_network
from mastsam_ros.matchers.mast3r.matcher import Mast3rMatcher
from mastsam_ros.matchers.mast3r.network import Mast3rNetwork
from mastsam_ros.matchers.mast3r.reference import load_reference
from mastsam_ros.settings import Mast3rSettings
from mastsam_ros.types import Frame, MissingPackageError, ModelError, SettingsError

from .conftest import reciprocal_matches

SETTINGS = Mast3rSettings(image_size=64, subsample=4, min_confidence=0.0, min_point_confidence=0.0)


class StandIn(torch.nn.Module):
    """This package's network with the authors' interface."""

    def __init__(self, network: Mast3rNetwork) -> None:
        super().__init__()
        self.network = network

    @classmethod
    def from_pretrained(cls, path: str) -> StandIn:
        return cls(load_network(path))

    def forward(self, view1: dict[str, Any], view2: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        for view in (view1, view2):
            assert view["true_shape"].tolist() == [list(view["img"].shape[-2:])]
        answers = self.network(view1["img"], view2["img"])
        return tuple(
            {name: a.points, "conf": a.confidence, "desc": a.descriptors, "desc_conf": a.descriptor_confidence}
            for name, a in zip(("pts3d", "pts3d_in_other_view"), answers, strict=True)
        )  # type: ignore[return-value]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    model = types.ModuleType("mast3r.model")
    model.AsymmetricMASt3R = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mast3r", types.ModuleType("mast3r"))
    monkeypatch.setitem(sys.modules, "mast3r.model", model)


def frames() -> tuple[Frame, Frame]:
    rng = np.random.default_rng(5)
    wide = rng.integers(0, 256, (60, 84, 3), dtype=np.uint8)
    return Frame(np.ascontiguousarray(wide[:, :80])), Frame(np.ascontiguousarray(wide[:, 4:]))


@pytest.mark.usefixtures("package")
def test_the_reference_takes_the_networks_place(tiny_network: Mast3rNetwork, tmp_path: Path) -> None:
    torch.save({"model": tiny_network.state_dict()}, tmp_path / "tiny.pth")
    settings = dataclasses.replace(SETTINGS, implementation="reference", checkpoint=str(tmp_path / "tiny.pth"))
    given = Mast3rMatcher(settings).match(*frames())
    expected = Mast3rMatcher(SETTINGS, network=tiny_network).match(*frames())
    assert len(given) > 3
    assert torch.equal(given.xy0, expected.xy0) and torch.equal(given.xy1, expected.xy1)
    for ours, theirs in ((expected.pointmap0, given.pointmap0), (expected.pointmap1, given.pointmap1)):
        assert ours is not None and theirs is not None and torch.equal(ours.points, theirs.points)


@pytest.mark.usefixtures("package")
def test_what_the_reference_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="computes in float32, mast3r.precision is 'bfloat16'"):
        Mast3rMatcher(Mast3rSettings(implementation="reference", precision="bfloat16"))
    with pytest.raises(ModelError, match="mastsam weights fetch mast3r"):
        load_reference(tmp_path / "absent.pth")
    (tmp_path / "other.pth").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="the package mast3r cannot load"):
        load_reference(tmp_path / "other.pth")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mast3r", None)
    with pytest.raises(MissingPackageError, match="needs the authors' package"):
        Mast3rMatcher(Mast3rSettings(implementation="reference"))


_TINY = (
    "AsymmetricMASt3R(pos_embed='RoPE100', patch_embed_cls='PatchEmbedDust3R', img_size=(512, 512),"
    " head_type='catmlp+dpt', output_mode='pts3d+desc24', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf),"
    " enc_embed_dim=64, enc_depth=3, enc_num_heads=4, dec_embed_dim=48, dec_depth=12, dec_num_heads=3,"
    " two_confs=True, desc_conf_mode=('exp', 0, inf), landscape_only=False)"
)
"""How a released file describes its model to the package; here the tiny one."""


@pytest.mark.parametrize("sizes", [((96, 64),) * 2, ((64, 96),) * 2, ((64, 64),) * 2, ((96, 64), (80, 48))])
def test_the_package_and_this_network_give_the_same_from_one_file(
    sizes: tuple[tuple[int, int], ...], tiny_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    pytest.importorskip("mast3r.model", reason="the authors' package mast3r is not installed")
    file = tmp_path / "tiny.pth"
    torch.save({"args": argparse.Namespace(model=_TINY), "model": tiny_state}, file)
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, height, width, generator=generator) * 2 - 1 for width, height in sizes]
    with torch.no_grad():
        networks = load_network(file), load_reference(file).eval()
        answers = [network.decode(*(network.encode(image) for image in images)) for network in networks]
    for ours, theirs in zip(*answers, strict=True):
        for name in ("points", "confidence", "descriptors", "descriptor_confidence"):
            actual, expected = getattr(ours, name), getattr(theirs, name)
            assert actual.shape == expected.shape
            assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max(), name


def test_the_package_chosen_by_the_setting_gives_the_same_matches(
    tiny_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    pytest.importorskip("mast3r.model", reason="the authors' package mast3r is not installed")
    file = tmp_path / "tiny.pth"
    torch.save({"args": argparse.Namespace(model=_TINY), "model": tiny_state}, file)
    native, reference = (
        Mast3rMatcher(dataclasses.replace(SETTINGS, implementation=name, checkpoint=str(file))).match(*frames())
        for name in ("native", "reference")
    )
    pairs, others = (
        {tuple(row) for row in torch.cat([matches.xy0, matches.xy1], dim=1).tolist()} for matches in (native, reference)
    )
    assert len(pairs) > 3 and len(pairs & others) >= 0.9 * len(pairs | others)  # ties may fall either way
    assert native.pointmap1 is not None and reference.pointmap1 is not None
    torch.testing.assert_close(native.pointmap1.points, reference.pointmap1.points, rtol=1e-3, atol=1e-3)


def test_reciprocal_matches_are_those_of_the_package() -> None:
    fast_nn = pytest.importorskip("mast3r.fast_nn", reason="the authors' package mast3r is not installed")
    generator = torch.Generator().manual_seed(1)
    first, second = (
        torch.nn.functional.normalize(torch.randn(48, 64, 24, generator=generator), dim=-1) for _ in range(2)
    )
    second[:, 4:] = torch.nn.functional.normalize(first[:, :-4] + 0.1 * second[:, 4:], dim=-1)
    for subsample in (4, 8):
        xy0, xy1 = reciprocal_matches(first, second, subsample)
        theirs = fast_nn.fast_reciprocal_NNs(
            first, second, subsample_or_initxy1=subsample, device="cpu", dist="dot", block_size=2**13
        )
        expected = {tuple(row) for row in np.concatenate(theirs, axis=1).tolist()}
        assert {tuple(row) for row in torch.cat([xy0, xy1], dim=1).tolist()} == expected and len(expected) > 20


@pytest.mark.parametrize("size", [(512, 384), (384, 512)])
def test_the_released_weights_give_the_same_in_both(size: tuple[int, int]) -> None:
    pytest.importorskip("mast3r.model", reason="the authors' package mast3r is not installed")
    path = weights_directory() / CHECKPOINTS["mast3r"].file_name
    if not path.is_file():
        pytest.skip("the released weights are not here: mastsam weights fetch mast3r")
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, size[1], size[0], generator=generator) * 2 - 1 for _ in range(2)]
    with torch.no_grad():
        native, reference = load_network(path), load_reference(path).eval()
        answers = [n.decode(*(n.encode(image) for image in images)) for n in (native, reference)]
    for ours, theirs in zip(*answers, strict=True):
        for name in ("points", "confidence", "descriptors", "descriptor_confidence"):
            expected = getattr(theirs, name)
            assert (getattr(ours, name) - expected).norm() <= 1e-3 * expected.norm(), name
