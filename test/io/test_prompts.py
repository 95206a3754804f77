"""Edits from a file: read, checked, and done by `mastsam run`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mastsam_ros.cli import main
from mastsam_ros.io.prompts import Prompts
from mastsam_ros.types import InputError


def written(folder: Path, *entries: object) -> Path:
    path = folder / "prompts.json"
    path.write_text(json.dumps({"prompts": list(entries)}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"add": {}}, "'frame' and one of"),
        ({"frame": 0, "paint": {}}, "unknown 'paint'"),
        ({"frame": 1.5, "remove": {"id": 1}}, "'frame' must be"),
        ({"frame": 0, "add": {"point": [1, 2]}}, "not 'point'"),
        ({"frame": 0, "add": {"points": [[1, 2, 3]]}}, r"a point is \[x, y\]"),
        ({"frame": 0, "add": {"points": [[1, True]]}}, r"a point is \[x, y\]"),
        ({"frame": 0, "add": {"box": [1, 2, 3]}}, "'box' must be"),
        ({"frame": 0, "add": {"box": 7}}, "must be a list"),
        ({"frame": 0, "add": {"points": [[1, 2]], "on_instance": [1]}}, "true or false"),
        ({"frame": 0, "merge": {"ids": [1, 2.5]}}, "an id is"),
        ({"frame": 0, "split": {"id": 1}}, "needs 'points'"),
        ({"frame": 0, "rename": {"id": 1, "label": 3}}, "'label' must be text"),
        ([], "'frame' and one of"),
    ],
)
def test_a_wrong_entry_is_named_in_one_line(tmp_path: Path, entry: object, words: str) -> None:
    good = {"frame": 0, "remove": {"id": 1}}
    with pytest.raises(InputError, match=rf"prompts\.json, prompt 2: .*{words}") as told:
        Prompts(written(tmp_path, good, entry))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", ["", "[]", '{"prompts": 3}', "\x00"])
def test_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"prompts\.json"):
        Prompts(path)
    with pytest.raises(InputError, match="cannot read"):
        Prompts(tmp_path / "nowhere.json")


def test_run_does_what_the_file_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0).normal(0, 12, (120, 200, 3))
    for n in range(3):
        image = 100 + noise
        for x, colour in ((30, (220, 60, 60)), (100, (60, 60, 220))):
            image[40:80, x + n : x + n + 40] = np.array(colour) + noise[40:80, :40]
        cv2.imwrite(str(images / f"{n:03d}.png"), image.clip(0, 255).astype(np.uint8))
    prompts = written(
        tmp_path,
        {"frame": "000", "add": {"points": [[50, 60]], "label": "left"}},
        {"frame": "000", "add": {"box": [98, 38, 44, 44], "label": "right"}},
        {"frame": 1, "merge": {"ids": ["left", "right"]}},
    )
    arguments = ["run", str(images), "--output", str(tmp_path / "out"), "--prompts", str(prompts)]
    assert main(arguments) == 0, capfd.readouterr().err
    labels = [cv2.imread(str(tmp_path / f"out/labels/{n:03d}.png"), cv2.IMREAD_UNCHANGED) for n in range(3)]
    left, right = int(labels[0][60, 50]), int(labels[0][60, 120])
    assert left != right and [int(labels[n][60, 120]) for n in (1, 2)] == [left, left]
    frames = [json.loads(line) for line in (tmp_path / "out/frames.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {track["id"]: track["label"] for track in frames[0]["tracks"]}[right] == "right"
    merged = [event for event in frames[1]["events"] if event["kind"] == "merged"]
    assert [(event["id"], event["other_id"], event["evidence"]) for event in merged] == [(right, left, 1.0)]

    written(tmp_path, {"frame": 0, "remove": {"id": 9999}})
    assert main(arguments) == 1 and "prompt 1: there is no instance 9999" in capfd.readouterr().err
    written(tmp_path, {"frame": "003", "remove": {"id": 1}})
    assert main(arguments) == 1 and "there is no frame '003'" in capfd.readouterr().err
