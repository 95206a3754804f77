"""Generated data by name: scenes and videos with exact truth, rendered once. Same name, same bytes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mastsam_ros.evaluation.datasets import LabelledSequence, open_sequences
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.io.sample_video import SampleVideo
from mastsam_ros.types import InputError

_LOG = logging.getLogger(__name__)
_HAND: dict[str, float] = {"shake_deg": 0.5, "shutter": 0.5, "noise": 4.0}
"""A camera in a hand, in poor light."""
GENERATED: dict[str, dict[str, Any]] = {
    "orbit": {"seed": 31, "path": "orbit", "frames": 60},
    "look_away": {"seed": 32, "path": "look_away", "frames": 60},
    "wide_baseline": {"seed": 33, "path": "wide_baseline", "frames": 24},
    "stacked": {"seed": 34, "path": "orbit", "frames": 60, "stacked": True},
    "stacked_wide": {"seed": 35, "path": "wide_baseline", "frames": 24, "stacked": True},
    "moved": {"seed": 36, "path": "look_away", "frames": 60, "moved": True},
    "walker": {"seed": 37, "path": "orbit", "frames": 60, "walker": True},
}
"""Sample scenes: other rooms than the shared ones, and what is hard with depth."""
HELD_OUT_SCENES: dict[str, dict[str, Any]] = {
    "new_orbit": {"seed": 101, "path": "orbit", "frames": 50, "repainted": True},
    "new_away": {"seed": 102, "path": "look_away", "frames": 50, "repainted": True},
    "new_wide": {"seed": 103, "path": "wide_baseline", "frames": 24, "repainted": True},
    "floor": {"seed": 104, "path": "orbit", "frames": 50, "layout": "floor", "repainted": True},
    "walk_through": {"seed": 105, "path": "walk_through", "frames": 50, "repainted": True, "stacked": True},
    "hand_held": {"seed": 106, "path": "orbit", "frames": 50, "repainted": True, "dimming": 0.3, **_HAND},
}
HELD_OUT_VIDEOS: dict[str, dict[str, Any]] = {
    "person": {"seed": 111, "frames": 50, "mover": "person", "camera": "follow"},
    "animal": {"seed": 112, "frames": 50, "mover": "animal", "camera": "pan"},
    "car": {"seed": 113, "frames": 50, "mover": "car", "camera": "follow", "occluders": True},
    "balloon": {"seed": 114, "frames": 50, "mover": "balloon", "camera": "still", "dimming": 0.3},
    "animal_water": {"seed": 115, "frames": 50, "mover": "animal", "camera": "pan", "water": True},
    "person_hand": {"seed": 116, "frames": 50, "mover": "person", "camera": "pan", "occluders": True, **_HAND},
    "dancer": {"seed": 117, "frames": 30, "mover": "dancer", "camera": "pan", "crowd": True},
    "rider": {"seed": 118, "frames": 30, "mover": "rider", "camera": "pan", "occluders": True, **_HAND},
    "rider_meets": {"seed": 119, "frames": 30, "mover": "rider", "camera": "meet"},
    "car_smokes": {"seed": 120, "frames": 30, "mover": "car", "camera": "follow", "smoke": True},
    "animal_hides": {"seed": 121, "frames": 30, "mover": "animal", "camera": "follow", "camouflage": True},
    "animal_waits": {"seed": 122, "frames": 30, "mover": "animal", "camera": "pan", "waits": 0.35},
    "person_haze": {"seed": 123, "frames": 30, "mover": "person", "camera": "pan", "haze": 0.6, "crowd": True},
}
"""What no setting and no constant was chosen on: other rooms, colours, ways of the camera, its faults, and things that
move by themselves. Whoever changes the method looks at these figures last."""


def generated_sequences(folder: Path, names: Iterable[str] | None = None) -> list[LabelledSequence]:
    """The scenes of `GENERATED`, rendered into the folder where they are not there yet. Raises InputError."""
    chosen = list(GENERATED if names is None else names)
    for name in chosen:
        if name not in GENERATED:
            raise InputError(f"no generated scene '{name}'; there are: {', '.join(GENERATED)}")
    return [_scene(folder, name, GENERATED[name]) for name in chosen]


def held_out_videos(folder: Path) -> list[LabelledSequence]:
    """Those of `held_out_sequences` in which something moves by itself."""
    return held_out_sequences(folder, HELD_OUT_VIDEOS)


def held_out_sequences(folder: Path, names: Iterable[str] | None = None) -> list[LabelledSequence]:
    """The videos and scenes that nothing was chosen on, rendered into the folder where they are not there yet.

    Raises InputError for a name that is none of them.
    """
    chosen = list({**HELD_OUT_VIDEOS, **HELD_OUT_SCENES} if names is None else names)
    return [_held_out(folder, name) for name in chosen]


def _held_out(folder: Path, name: str) -> LabelledSequence:
    if name in HELD_OUT_SCENES:
        return _scene(folder / "scenes", name, HELD_OUT_SCENES[name])
    if name not in HELD_OUT_VIDEOS:
        raise InputError(f"no generated data '{name}'; there are: {', '.join((*HELD_OUT_VIDEOS, *HELD_OUT_SCENES))}")
    options = HELD_OUT_VIDEOS[name]
    if not (folder / "videos" / "Annotations" / "480p" / name / f"{options['frames'] - 1:05d}.png").is_file():
        _LOG.info("rendering the sample video '%s'", name)
        SampleVideo(**options).write_davis_folder(folder / "videos", name)
    return open_sequences(folder / "videos", [name])[0]


def _scene(folder: Path, name: str, options: dict[str, Any]) -> LabelledSequence:
    if not (folder / name / "scene.json").is_file():
        _LOG.info("rendering the sample scene '%s'", name)
        SampleScene(**options).write_scene_folder(folder / name)
    return open_sequences(folder / name)[0]
