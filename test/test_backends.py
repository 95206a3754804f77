"""What `auto` chooses, with a GPU that is only said to be there and files that only have the right size."""

from __future__ import annotations

import dataclasses
import logging
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from mastsam_ros import backends
from mastsam_ros.backends import resolved
from mastsam_ros.checkpoints.table import CHECKPOINTS, record_path
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import ModelError, SettingsError


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU, both packages, an empty weights directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends, "find_spec", lambda name: ModuleSpec(name, None))


def fetched(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str | None = None) -> Path:
    """A file of the checkpoint's size and its record."""
    checkpoint = dataclasses.replace(CHECKPOINTS[name], size=5)
    monkeypatch.setitem(CHECKPOINTS, name, checkpoint)
    path = tmp_path / "mastsam_ros" / checkpoint.file_name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"12345")
    record_path(path).write_text(f"{recorded or checkpoint.sha256 or '00'}  {path.name}\n")
    return path


def names(settings: Settings) -> tuple[str, str]:
    chosen = resolved(settings)
    return chosen.matcher.name, chosen.segmenter.name


def test_both_models_where_everything_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small, mast3r = fetched("sam_vit_b", tmp_path, monkeypatch), fetched("mast3r", tmp_path, monkeypatch)
    with caplog.at_level(logging.INFO):
        chosen = resolved(Settings())
    assert (chosen.matcher.name, chosen.segmenter.name) == ("mast3r", "sam")
    assert (chosen.mast3r.checkpoint, chosen.sam.checkpoint) == (str(mast3r), str(small))
    assert [r.message for r in caplog.records] == [
        "matcher mast3r, segmenter sam on cuda: a GPU and the weights are there"
    ]
    assert chosen.working_pixels == 1024 * 1024
    large = fetched("sam_vit_h", tmp_path, monkeypatch)
    assert resolved(Settings()).sam.checkpoint == str(large)
    assert resolved(Settings.from_mapping({"sam.checkpoint": "sam_vit_b"})).sam.checkpoint == str(small)
    assert resolved(chosen) == chosen


def test_the_embedded_default_where_anything_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def is_embedded(reason: str, settings: Settings | None = None) -> None:
        caplog.clear()
        assert names(settings or Settings()) == ("flow", "regions")
        assert [r.message for r in caplog.records] == [f"matcher flow, segmenter regions on cpu: {reason}"]

    nowhere = f"no verified weights of Segment Anything in {tmp_path / 'mastsam_ros'}"
    is_embedded(nowhere)
    fetched("mast3r", tmp_path, monkeypatch)
    is_embedded(nowhere)  # MASt3R without SAM: the regions would lack the dense flow
    path = fetched("sam_vit_b", tmp_path, monkeypatch, recorded="1234")
    is_embedded(nowhere)
    fetched("sam_vit_b", tmp_path, monkeypatch)
    path.write_bytes(b"1234")
    is_embedded(nowhere)
    fetched("sam_vit_b", tmp_path, monkeypatch)
    is_embedded("device is cpu", Settings(device="cpu"))
    is_embedded("segmenter.name is regions", Settings.from_mapping({"segmenter.name": "regions"}))
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "segment_anything" else 1)
    is_embedded("the package segment-anything is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    is_embedded("no GPU")
    assert resolved(Settings()).working_pixels == 160_000


def test_what_is_asked_for_by_name_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched("sam_vit_b", tmp_path, monkeypatch)
    assert names(Settings()) == ("flow", "sam")
    fetched("mast3r", tmp_path, monkeypatch)
    assert names(Settings.from_mapping({"matcher.name": "flow"})) == ("flow", "sam")
    explicit = Settings.from_mapping({"matcher.name": "flow", "segmenter.name": "regions"})
    assert resolved(explicit) == explicit.updated({"device": "cpu"})
    folder = {"sam.checkpoint": str(tmp_path)}
    assert names(Settings.from_mapping(folder)) == ("mast3r", "hf_sam")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names(Settings.from_mapping({"sam.checkpoint": "~"})) == ("mast3r", "hf_sam")
    assert names(Settings.from_mapping({"segmenter.name": "hf_sam", **folder})) == ("mast3r", "hf_sam")
    with pytest.raises(ModelError, match=r"'sam_vit_h' is not in .*: run `mastsam weights fetch sam_vit_h`"):
        resolved(Settings.from_mapping({"segmenter.name": "sam", "sam.checkpoint": "sam_vit_h"}))


def test_the_pipeline_is_made_of_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    mastsam = create_mastsam()
    assert (mastsam.settings.matcher.name, mastsam.settings.segmenter.name) == ("flow", "regions")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert create_mastsam().device.type == "cpu"  # the embedded default gains nothing from a GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="no CUDA GPU"):
        create_mastsam(Settings(device="cuda"))
