"""What `auto` means for the matcher and the segmenter, and which files the names of checkpoints mean."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from mastsam_ros.checkpoints.table import CHECKPOINTS, checkpoint_path, is_verified, weights_directory
from mastsam_ros.settings import Settings

_LOG = logging.getLogger(__name__)
_MAST3R = ("mast3r",)
_SAM = ("sam_vit_h", "sam_vit_l", "sam_vit_b")
"""Checkpoints that an empty `checkpoint` setting takes, the first that is there."""
EMBEDDED = {"matcher.name": "flow", "segmenter.name": "regions"}


def resolved(settings: Settings) -> Settings:
    """Settings in which `auto` and names of checkpoints have become what they stand for.

    `auto` is the foundation model where torch has a GPU and the model's weights are there and verified, else the
    embedded default, which stays on the CPU; one line of the log says which and why. Nothing is downloaded. Raises
    ModelError for a checkpoint that a chosen model names and that has not been fetched, SettingsError for a device
    that is not there.
    """
    chosen, line = explained(settings)
    if "auto" in (settings.matcher.name, settings.segmenter.name):
        _LOG.info("%s", line)
    return chosen


def explained(settings: Settings) -> tuple[Settings, str]:
    """The same, with one line that says which matcher and segmenter these are, where they compute, and why."""
    from mastsam_ros.device import torch_device

    directory = weights_directory(settings.weights_directory)
    reason = "as the settings say"
    if "auto" in (settings.matcher.name, settings.segmenter.name):
        names, reason = _chosen(settings, directory)
        settings = settings.updated(names)
    if settings.device == "auto" and settings.segmenter.name == "regions" and settings.matcher.name != "mast3r":
        settings = settings.updated({"device": "cpu"})  # where the embedded default computes
    files = {}
    if settings.matcher.name == "mast3r":
        files["mast3r.checkpoint"] = _file(settings.mast3r.checkpoint, _MAST3R, directory)
    if settings.segmenter.name == "sam":
        files["sam.checkpoint"] = _file(settings.sam.checkpoint, _SAM, directory)
    device = torch_device(settings.device).type
    line = f"matcher {settings.matcher.name}, segmenter {settings.segmenter.name} on {device}: {reason}"
    return settings.updated(files), line


def _chosen(settings: Settings, directory: Path) -> tuple[dict[str, str], str]:
    """The names for those that are `auto`, and the reason. Without SAM the embedded pair stays together: its
    segmenter reads the dense flow that MASt3R does not give."""
    from mastsam_ros.device import torch_device

    names = dict(EMBEDDED)
    if torch_device(settings.device).type != "cuda":
        reason = "no GPU" if settings.device == "auto" else f"device is {settings.device}"
    elif settings.segmenter.name not in ("auto", "sam", "hf_sam"):
        reason = f"segmenter.name is {settings.segmenter.name}"
    elif settings.segmenter.name == "auto" and (lack := _lack_of_sam(settings.sam.checkpoint, directory)):
        reason = lack
    else:
        names["segmenter.name"] = "hf_sam" if _is_folder(settings.sam.checkpoint) else "sam"
        reason = "a GPU and the weights are there"
        if _is_there(settings.mast3r.checkpoint, _MAST3R, directory):
            names["matcher.name"] = "mast3r"
        else:
            reason = f"a GPU and SAM's weights are there, MASt3R's are not, verified, in {directory}"
    asked = {"matcher.name": settings.matcher.name, "segmenter.name": settings.segmenter.name}
    return {path: names[path] if name == "auto" else name for path, name in asked.items()}, reason


def _lack_of_sam(checkpoint: str, directory: Path) -> str:
    """What keeps Segment Anything from being chosen, or ''."""
    if not _is_there(checkpoint, _SAM, directory):
        return f"no verified weights of Segment Anything in {directory}"
    wanted = ("transformers",) if _is_folder(checkpoint) else ("segment_anything", "torchvision")
    missing = [package for package in wanted if find_spec(package) is None]
    return f"the package {missing[0].replace('_', '-')} is not installed" if missing else ""


def _is_folder(checkpoint: str) -> bool:
    """Whether a `checkpoint` setting names a folder, as models of transformers are."""
    return bool(checkpoint) and Path(checkpoint).expanduser().is_dir()


def _is_there(checkpoint: str, names: tuple[str, ...], directory: Path) -> bool:
    if checkpoint and checkpoint not in CHECKPOINTS:
        return Path(checkpoint).expanduser().exists()
    return any(is_verified(CHECKPOINTS[name], directory) for name in ((checkpoint,) if checkpoint else names))


def _file(checkpoint: str, names: tuple[str, ...], directory: Path) -> str:
    """The file of a setting's name or path; of an empty setting the first verified one, or '' where none is there."""
    if checkpoint:
        return str(checkpoint_path(checkpoint, directory))
    there = [name for name in names if is_verified(CHECKPOINTS[name], directory)]
    return str(checkpoint_path(there[0], directory)) if there else ""
