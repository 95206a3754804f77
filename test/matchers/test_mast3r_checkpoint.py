"""Checkpoints: both formats load, nothing in a pickle is executed, and what does not fit is named."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mastsam_ros.matchers.mast3r.checkpoint import load_network, network_of_state
from mastsam_ros.types import ModelError

State = dict[str, torch.Tensor]


class _Trap:
    """Makes a folder when it is unpickled by a reader that executes what the pickle says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


class _Arguments:
    """A type that this program knows nothing of."""

    def __init__(self) -> None:
        self.rate = 3


def _same(network: torch.nn.Module, state: State) -> bool:
    loaded = network.state_dict()
    return set(loaded) == set(state) and all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"args": argparse.Namespace(model="AsymmetricMASt3R(...)", lr=1e-4, nested=argparse.Namespace(a=1))},
        {"args": _Arguments(), "best": np.float64(3.5), "epoch": 7},
    ],
)
def test_the_published_form_loads_whatever_lies_beside_the_weights(
    tiny_state: State, tmp_path: Path, beside: dict[str, object]
) -> None:
    torch.save({**beside, "model": tiny_state}, tmp_path / "model.pth")
    assert _same(load_network(tmp_path / "model.pth"), tiny_state)


def test_a_bare_state_dict_in_half_precision_loads_as_float32(tiny_state: State, tmp_path: Path) -> None:
    torch.save({name: tensor.half() for name, tensor in tiny_state.items()}, tmp_path / "model.pth")
    network = load_network(tmp_path / "model.pth")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("shared_once", [False, True])
def test_safetensors_load(tiny_state: State, tmp_path: Path, shared_once: bool) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    stored = {name: tensor.clone() for name, tensor in tiny_state.items() if not (shared_once and "layer_rn." in name)}
    safetensors.save_file(stored, tmp_path / "model.safetensors")
    assert _same(load_network(tmp_path / "model.safetensors"), tiny_state)


def test_nothing_in_a_pickle_is_executed(tiny_state: State, tmp_path: Path) -> None:
    torch.save({"model": tiny_state, "args": _Trap(tmp_path / "sprung")}, tmp_path / "model.pth")
    with pytest.raises(ModelError, match=r"model\.pth"):
        load_network(tmp_path / "model.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_one_clear_error(tiny_state: State, tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save({"model": tiny_state}, path)
    else:
        pytest.importorskip("safetensors.torch").save_file({n: t.clone() for n, t in tiny_state.items()}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match="truncated") as caught:
        load_network(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_file_is_one_clear_error(tiny_state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": tiny_state}, path)
    content = bytearray(path.read_bytes())
    start = content.index(b"data.pkl") + 80
    content[start : start + 4000] = os.urandom(4000)
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read") as caught:
        load_network(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2, 3], "list"),
        ({"model": "text"}, "'model' is str"),
        ({"weight": torch.zeros(3)}, "not MASt3R's weights"),
        ({"model": {"patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}}, "not MASt3R's weights"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=message) as caught:
        load_network(tmp_path / "other.pth")
    assert "other.pth" in str(caught.value)


def test_a_text_file_and_an_absent_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(ModelError, match=r"page\.pth \(22 bytes\)"):
        load_network(tmp_path / "page.pth")
    with pytest.raises(ModelError, match=r"no MASt3R checkpoint at '.*absent\.pth'"):
        load_network(tmp_path / "absent.pth")
    with pytest.raises(ModelError, match=r"set mast3r\.checkpoint"):
        load_network("")


def test_what_does_not_fit_is_named(tiny_state: State) -> None:
    wrong = dict(tiny_state)
    del wrong["dec_norm.bias"]
    wrong["extra.weight"] = torch.zeros(2)
    wrong["enc_norm.weight"] = torch.zeros(65)
    with pytest.raises(ModelError) as caught:
        network_of_state(wrong)
    for part in ("missing: dec_norm.bias", "unexpected: extra.weight", "enc_norm.weight (65,) instead of (64,)"):
        assert part in str(caught.value)


def test_dust3r_weights_are_told_from_mast3r_weights(tiny_state: State) -> None:
    without = {name: tensor for name, tensor in tiny_state.items() if "head_local_features" not in name}
    with pytest.raises(ModelError, match=r"missing: downstream_head1\.head_local_features"):
        network_of_state(without)


def test_an_unknown_width_is_named(tiny_state: State) -> None:
    tiny_state["decoder_embed.weight"] = torch.zeros(512, 64)
    with pytest.raises(ModelError, match="encoder width 64 with decoder width 512"):
        network_of_state(tiny_state)
