"""Views without order: prompts in one of them give masks in all, by what is matched and not by time."""

from __future__ import annotations

import json
import random
from pathlib import Path

import cv2
import numpy as np
import pytest

from mastsam_ros.cli import main
from mastsam_ros.io.sample_scene import SampleScene, SceneView
from mastsam_ros.settings import Settings
from mastsam_ros.unordered import without_order

VIEWS = 6
LARGE_PX = 250


@pytest.fixture(scope="module")
def views() -> list[SceneView]:
    return list(SampleScene(3, "wide_baseline", VIEWS, 320, 240, objects=6))


@pytest.fixture(scope="module")
def shuffled() -> list[int]:
    order = list(range(VIEWS))
    random.Random(5).shuffle(order)
    return order


@pytest.fixture(scope="module")
def photos(views: list[SceneView], shuffled: list[int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The views under names that say nothing of their order; the first in time is `photo_N`, N its place."""
    folder = tmp_path_factory.mktemp("set") / "photos"
    folder.mkdir()
    for place, index in enumerate(shuffled):
        cv2.imwrite(str(folder / f"photo_{place}.png"), views[index].frame.image[:, :, ::-1])
    return folder


def prompts(view: SceneView, stem: str, scene_objects: list[int]) -> list[dict]:
    entries = []
    for number in scene_objects:
        rows, columns = np.nonzero(view.instance == number)
        box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
        inside = cv2.distanceTransform((view.instance == number).astype(np.uint8), cv2.DIST_L2, 5)
        y, x = np.unravel_index(int(inside.argmax()), inside.shape)
        add = {"points": [[int(x), int(y)]], "box": box, "label": f"thing {number}"}
        entries.append({"frame": stem, "add": add})
    return entries


def test_a_prompt_in_one_view_gives_masks_in_all(views, shuffled, photos: Path, tmp_path: Path) -> None:
    root = shuffled.index(0)
    large = [n for n in np.unique(views[0].instance).tolist() if LARGE_PX < (views[0].instance == n).sum() < 4000][:3]
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"prompts": prompts(views[0], f"photo_{root}", large)}), encoding="utf-8")
    out = tmp_path / "out"
    arguments = ["run", str(photos), "--output", str(out), "--prompts", str(file), "--unordered", "--device", "cpu"]
    assert main(arguments) == 0
    frames = [json.loads(line) for line in (out / "frames.jsonl").read_text(encoding="utf-8").splitlines()]
    names = {track["label"]: track["id"] for frame in frames for track in frame["tracks"] if track["label"]}
    assert set(names) == {f"thing {number}" for number in large}
    ious = []
    for place, index in enumerate(shuffled):
        labels = cv2.imread(str(out / "labels" / f"photo_{place}.png"), cv2.IMREAD_UNCHANGED)
        for number in large:
            truth, mask = views[index].instance == number, labels == names[f"thing {number}"]
            if truth.sum() >= LARGE_PX:
                ious.append((truth & mask).sum() / (truth | mask).sum())
    assert len(ious) >= 8 and np.mean(ious) > 0.5, ious
    order = json.loads((out / "summary.json").read_text(encoding="utf-8"))["order"]
    assert order[0][:2] == [f"photo_{root}", None] and len(order) == VIEWS
    time_of = {f"photo_{place}": index for place, index in enumerate(shuffled)}
    steps = [abs(time_of[stem] - time_of[origin]) for stem, origin, _ in order[1:]]
    assert max(steps) <= 2, "views are reached from their neighbours, though their names say nothing of them"


def test_without_prompts_the_best_connected_view_comes_first_and_strangers_begin_anew(photos, tmp_path, caplog) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in sorted(photos.iterdir())[:3]:
        (folder / photo.name).write_bytes(photo.read_bytes())
    noise = np.random.default_rng(0).normal(120, 40, (240, 320, 3)).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(folder / "stranger.png"), cv2.GaussianBlur(noise, (0, 0), 2))
    assert main(["run", str(folder), "--output", str(tmp_path / "out"), "--unordered", "--device", "cpu"]) == 0
    order = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["order"]
    assert [origin for stem, origin, _ in order if stem == "stranger"] == [None]
    assert "1 of 4 views cannot be reached from the first one" in caplog.text
    labels = {stem: cv2.imread(str(tmp_path / f"out/labels/{stem}.png"), cv2.IMREAD_UNCHANGED) for stem, _, _ in order}
    others = set().union(*(set(np.unique(image).tolist()) for stem, image in labels.items() if stem != "stranger"))
    assert not others & (set(np.unique(labels["stranger"]).tolist()) - {0})


def test_what_cannot_be_is_one_line(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    first, second = sorted(photos.iterdir())[:2]
    (folder / first.name).write_bytes(first.read_bytes())
    cv2.imwrite(str(folder / "wide.png"), cv2.imread(str(second))[:100])
    arguments = ["run", str(folder), "--output", str(tmp_path / "out"), "--unordered"]
    assert main(arguments) == 1
    assert "views without order must have one size: picture 1 has 320x100, the first 320x240" in capfd.readouterr().err
    assert main([*arguments, "--map", str(tmp_path / "map")]) == 1
    assert "--unordered keeps no map" in capfd.readouterr().err


def test_a_matcher_of_choice_is_kept() -> None:
    names = {"flow": "features", "features": "features", "mast3r": "mast3r"}
    for name, expected in names.items():
        settings = without_order(Settings().updated({"matcher.name": name}))
        assert settings.matcher.name == expected and not settings.geometry.map
