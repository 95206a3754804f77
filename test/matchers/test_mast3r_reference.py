"""The authors' package as the implementation: a stand-in for its interface, and the package itself where it is."""

from __future__ import annotations

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
