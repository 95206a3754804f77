"""The bags that the demo plays: the generated sample scene, kept from run to run, or the user's own source."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mastsam_ros.demo.session import RATE_HZ
from mastsam_ros.io.frame_bag import FrameBag
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.io.sources import open_source
from mastsam_ros.types import InputError

SCENE: dict[str, Any] = {"seed": 0, "path": "orbit", "rate_hz": RATE_HZ}
PACKAGE = Path(__file__).parent.parent


def sample_bag(output: Path, frames: int) -> tuple[Path, dict[str, Any]]:
    """The bag of the sample scene, kept from the last time if nothing about it has changed; and its description."""
    parameters: dict[str, Any] = {**SCENE, "frames": frames}
    source = b"".join(path.read_bytes() for path in sorted(PACKAGE.glob("io/*sample*.py")))
    source += (PACKAGE / "io/ray_caster.py").read_bytes() + json.dumps(parameters).encode()
    folder = output / f"scene-{hashlib.sha256(source).hexdigest()[:8]}"
    if not folder.exists():
        for old in output.glob("scene-*"):
            shutil.rmtree(old)
        part = output / "scene-part"
        scene = SampleScene(**parameters)
        with FrameBag(part / "bag") as bag:
            for view in _progress(scene, "rendering the sample scene", len(scene)):
                bag.add(view.frame, view.instance)
        (part / "scene.json").write_text(json.dumps(scene.description()), encoding="utf-8")
        part.rename(folder)  # complete, or not there
    return folder / "bag", json.loads((folder / "scene.json").read_text(encoding="utf-8"))


def own_bag(source: str, folder: Path, frames: int, **options: Any) -> Path:
    """The first `frames` frames of the user's source as a bag with the sample's topics.

    options: of `open_source`. Raises InputError if the source cannot be read or holds less than two frames.
    """
    shutil.rmtree(folder, ignore_errors=True)
    count = 0
    with open_source(source, **options) as opened, FrameBag(folder) as bag:
        total = min(frames, opened.frame_count or frames)
        for _, frame in _progress(islice(opened, frames), "reading the source", total):
            bag.add(frame)
            count += 1
    if count < 2:
        raise InputError(f"{source} holds {count} frame: the demo needs at least two")
    return folder


def _progress(items: Any, title: str, total: int) -> Any:
    return tqdm(items, title, total, unit="frame", leave=False, disable=not sys.stderr.isatty())
