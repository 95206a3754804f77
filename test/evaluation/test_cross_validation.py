"""Cross-validation: what is chosen without a sequence, and that what was measured is measured once."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from dataclasses import replace

import pytest

from mastsam_ros.evaluation import bench, cross_validation, generated
from mastsam_ros.evaluation import measured as measured_module
from mastsam_ros.evaluation.cross_validation import cross_validate, merit, relevant, spread_table
from mastsam_ros.evaluation.datasets import LabelledSequence
from mastsam_ros.evaluation.measured import KINDS, Measured, Source, sources_of
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.io.sample_video import SampleVideo
from mastsam_ros.settings import Settings
from mastsam_ros.types import MastsamError


def run(*arguments) -> int:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.run(parser.parse_args([str(argument) for argument in arguments]))


class Told:
    """Figures by a rule: every sequence has a boundary cost that is best for it; prior_weight makes no difference."""

    def __init__(self, best: dict[str, float]) -> None:
        self.best = best
        self.asked: set[tuple[str, tuple]] = set()

    def prepare(self, wanted: Iterable[tuple[Source, tuple]]) -> list[str]:
        self.asked |= {(source.name, changes) for source, changes in wanted}
        return []

    def figures(self, source: Source, changes: tuple) -> dict[str, float | None]:
        assert (source.name, changes) in self.asked
        cost = dict(changes).get("regions.boundary_cost", 17.0)
        return {"best track IoU": 1 - abs(cost - self.best[source.sequence.name]) / 20, "consistency %": 90.0}


def test_each_sequence_is_scored_with_what_suits_the_others(monkeypatch) -> None:
    grid = {"regions.boundary_cost": ((12.0, 17.0, 24.0), KINDS), "regions.prior_weight": ((0.3, 0.6), KINDS)}
    monkeypatch.setattr(cross_validation, "GRID", grid)
    sources = sources_of([LabelledSequence(name, "video", ()) for name in ("a", "b", "c")], "given")
    told = Told({"a": 24.0, "b": 24.0, "c": 12.0})
    folds = {fold.left_out: fold for fold in cross_validate(sources, Settings(), told)}
    # Without c, 24 is best; without a or b one wants 24 and one 12, and the default is as good as any.
    assert dict(folds["c"].chosen) == {"regions.boundary_cost": 24.0}
    assert folds["a"].chosen == folds["b"].chosen == ()
    assert folds["c"].figures["c"]["best track IoU"] == pytest.approx(0.4)
    assert folds["c"].defaults["c"]["best track IoU"] == pytest.approx(0.75)
    row = next(line for line in spread_table(list(folds.values()), sources).splitlines() if "chosen" in line)
    assert "0.567 ± 0.118" in row and " 3 " in row


def test_merit_and_what_matters_to_a_source() -> None:
    assert merit({"IoU": 0.1, "best track IoU": 0.5, "consistency %": 90.0}) == pytest.approx(0.7)
    assert merit({"found": 1.0, "tube IoU": 0.8, "ids made": 30.0, "H %": None}) == pytest.approx(0.4)
    scene = LabelledSequence("room", "scene", ())
    rgb, rgbd = sources_of([scene], "given")
    assert [rgb.name, rgbd.name] == ["room RGB", "room RGB-D"]
    changes = (("regions.crease_angle_deg", 30.0), ("regions.boundary_cost", 12.0))
    assert relevant(rgb, changes) == changes[1:] and relevant(rgbd, changes) == changes[:1]
    known = {info.path for info in Settings.infos()}
    assert set(cross_validation.GRID) <= known
    assert all(Settings().flat()[path] in values for path, (values, _) in cross_validation.GRID.items())


def test_from_the_command_line_and_again_from_what_was_kept(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    SampleScene(frames=3, width=96, height=72).write_scene_folder(tmp_path / "data" / "scenes" / "orbit")
    small = {"frames": 3, "width": 96, "height": 72}
    monkeypatch.setattr(generated, "HELD_OUT_VIDEOS", {"someone": {"seed": 1, "mover": "person", **small}})
    monkeypatch.setattr(generated, "HELD_OUT_SCENES", {"floor": {"seed": 1, "layout": "floor", **small}})
    grid = {"regions.boundary_cost": ((17.0, 5.0), KINDS)}
    monkeypatch.setattr(cross_validation, "GRID", grid)
    assert run("data", "--cross-validate", "--workers", 2, "--frames", 2, "--json", "folds.json") == 0
    printed = capsys.readouterr().out
    assert re.search(r"^\| generated video, defaults +\| +1 \|", printed, re.M)
    assert re.search(r"^\| given RGB-D, chosen on the others +\| +1 \|", printed, re.M)
    folds = json.loads((tmp_path / "folds.json").read_text())
    assert set(folds) == {"orbit", "someone", "floor"}
    assert set(folds["orbit"]["defaults"]) == {"orbit RGB", "orbit RGB-D"}
    entries = {path: path.stat().st_mtime_ns for path in (tmp_path / bench.CROSS_VALIDATION).glob("*.json")}
    assert len(entries) == 2 * 5
    run("data", "--cross-validate", "--frames", 2)
    assert {path: path.stat().st_mtime_ns for path in entries} == entries and capsys.readouterr().out == printed
    # Another version of the code, other settings and other pictures are measured anew.
    source = sources_of(generated.held_out_sequences(bench.GENERATED / "held_out"), "generated")[0]
    measured = Measured(Settings(), bench.CROSS_VALIDATION, 1)
    entry = measured._entry(source, ())
    assert measured._entry(source, (("regions.boundary_cost", 5.0),)) != entry
    assert measured._entry(replace(source, sequence=source.sequence.first(1)), ()) != entry
    monkeypatch.setattr(measured_module, "code_version", lambda: "another")
    assert Measured(Settings(), bench.CROSS_VALIDATION, 1)._entry(source, ()) != entry


def test_code_that_changes_meanwhile_gives_no_figures(tmp_path) -> None:
    task = measured_module.MeasureTask(Settings(), {}, tmp_path, "an older one")
    with pytest.raises(MastsamError, match="the code was changed"):
        measured_module.measure(task, lambda: None)


def test_a_video_that_is_rendered_is_not_rendered_again(tmp_path, monkeypatch) -> None:
    small = {"seed": 1, "frames": 2, "width": 64, "height": 48}
    monkeypatch.setattr(generated, "HELD_OUT_VIDEOS", {"car": {"mover": "car", **small}})
    monkeypatch.setattr(generated, "HELD_OUT_SCENES", {})
    (first,) = generated.held_out_sequences(tmp_path)
    monkeypatch.setattr(SampleVideo, "write_davis_folder", lambda *_: pytest.fail("rendered again"))
    (again,) = generated.held_out_sequences(tmp_path)
    assert (
        [f.image for f in first.frames] == [f.image for f in again.frames]
        and first.kind == "video"
        and len(first.frames) == 2
    )
