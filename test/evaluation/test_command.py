"""`mastsam evaluate` from labels on disk to tables and JSON."""

from __future__ import annotations

import argparse
import json
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mastsam_ros.evaluation import command
from mastsam_ros.evaluation.ablation import ABLATIONS
from mastsam_ros.evaluation.datasets import open_sequences, read_labels
from mastsam_ros.evaluation.predictions import paired
from mastsam_ros.evaluation.protocols import PROTOCOLS, FlowCache, SequenceScorer
from mastsam_ros.evaluation.report import worst_frames
from mastsam_ros.io.frame_bag import TOPICS
from mastsam_ros.io.result_bag import ResultBag
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.settings import Settings
from mastsam_ros.types import FrameResult, InputError


def write_video(root, frames: int = 6, names=("cat", "dog"), suffix: str = ""):
    """A bright square on texture that moves two pixels a frame; the truth is the square."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 200, (60, 80, 3)).astype(np.uint8), (0, 0), 1.5)
    for name in names:
        for part in ("Annotations", "JPEGImages"):
            (root / part / name).mkdir(parents=True)
        for t in range(frames):
            x = 5 + 2 * (t % 20)
            truth = np.zeros((60, 80), np.uint8)
            truth[20:40, x : x + 25] = 255
            image = texture.copy()
            image[20:40, x : x + 25] = texture[:20, :25] // 2 + 120
            cv2.imwrite(str(root / "Annotations" / name / f"{t:05d}.png"), truth)
            cv2.imwrite(str(root / "JPEGImages" / name / f"{t:05d}.png"), image)
    return root


def write_labels(root, truth_root, function):
    for path in sorted((truth_root / "Annotations").rglob("*.png")):
        target = root / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), function(read_labels(path)).astype(np.uint16))
    return root


def evaluate(*arguments) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def truth(tmp_path):
    return write_video(tmp_path / "data")


def perfect(labels):
    return np.where(labels > 0, 300, 5)


def test_perfect_labels(tmp_path, truth, capsys):
    predictions = write_labels(tmp_path / "out", truth, perfect)
    assert evaluate(predictions, "--ground-truth", truth, "--json", tmp_path / "x" / "figures.json") == 0
    printed = capsys.readouterr().out
    for word in ("best-mask", "best-track", "davis", "identity", "consistency", "masks/frame", "coverage %", "mean"):
        assert word in printed
    figures = json.loads((tmp_path / "x" / "figures.json").read_text())
    assert set(figures["sequences"]) == {"cat", "dog"} and figures["protocols"] == list(PROTOCOLS)
    cat = figures["sequences"]["cat"]
    assert cat["best_mask"]["iou"] == cat["best_track"] == cat["davis"]["j"]["mean"] == cat["davis"]["f"]["mean"] == 1.0
    assert cat["identity"]["tube_iou"] == 1.0 and cat["coverage"] == 1.0 and cat["masks_per_frame"] == 2.0
    assert cat["consistency"] > 95 and not cat["degenerate"]
    assert cat["H"] is None
    assert figures["mean"]["IoU"] == 1.0


def test_one_id_for_everything_is_flagged(tmp_path, truth, capsys):
    predictions = write_labels(tmp_path / "out", truth, np.ones_like)
    evaluate(predictions, "--ground-truth", truth, "--protocol", "consistency")
    printed = capsys.readouterr().out
    assert "100.00" in printed and "cat *" in printed and "degenerate" in printed


def test_one_protocol_alone(tmp_path, truth, capsys):
    evaluate(write_labels(tmp_path / "out", truth, perfect), "--ground-truth", truth, "--protocol", "best-mask")
    printed = capsys.readouterr().out
    assert "IoU" in printed and "HOTA" not in printed and "masks/frame" in printed


def test_where_predictions_may_lie(tmp_path, truth):
    predictions = write_labels(tmp_path / "out", truth, perfect)
    cat, dog = open_sequences(truth)
    (predictions / "run" / "cat").mkdir(parents=True)
    (predictions / "cat").rename(predictions / "run" / "cat" / "labels")
    for given in (predictions / "run", predictions / "run" / "cat", predictions / "run" / "cat" / "labels"):
        (predicted,) = paired(given, [cat, dog], tmp_path / "unpacked")
        assert predicted.sequence is cat and len(predicted.labels) == 6
    (predicted,) = paired(predictions / "dog", [dog], tmp_path / "unpacked")
    assert predicted.sequence is dog


def test_missing_frames_and_sequences(tmp_path, truth):
    predictions = write_labels(tmp_path / "out", truth, perfect)
    (predictions / "cat" / "00003.png").unlink()
    with pytest.raises(InputError, match=r"cat: 1 of 6 frames.*00003\.png"):
        evaluate(predictions, "--ground-truth", truth)
    assert evaluate(predictions, "--ground-truth", truth, "--sequences", "dog") == 0
    with pytest.raises(InputError, match="holds no labels for cat, dog"):
        evaluate(tmp_path, "--ground-truth", truth)
    with pytest.raises(InputError, match="there is no .*nothing: expected a folder"):
        evaluate(tmp_path / "nothing", "--ground-truth", truth)


def stamped_labels(folder, truth_root, name: str, stamps) -> None:
    """A bag of results whose label images are the truth's frames with these numbers."""
    with ResultBag(folder) as bag:
        for number, stamp_ns in stamps:
            labels = perfect(read_labels(truth_root / "Annotations" / name / f"{number:05d}.png")).astype(np.uint16)
            bag.add(FrameResult(labels, (), (), None, {}, number, stamp_ns, "camera"))


def test_a_bag_of_results_is_scored_like_its_labels(tmp_path, truth, capsys):
    predictions = write_labels(tmp_path / "out", truth, perfect)
    for name in ("cat", "dog"):
        stamped_labels(tmp_path / "bags" / name, truth, name, [(n, 7 + n) for n in range(6)])
    evaluate(predictions, "--ground-truth", truth)
    as_png = capsys.readouterr().out
    evaluate(tmp_path / "bags", "--ground-truth", truth, "--report", tmp_path / "page.html")
    assert capsys.readouterr().out == as_png
    assert "frame 00000" in (tmp_path / "page.html").read_text()
    evaluate(tmp_path / "bags" / "cat", "--ground-truth", truth, "--compare", f"png={predictions}")
    printed = capsys.readouterr().out
    assert "| cat " in printed and "| dog (png)" in printed and "| dog |" not in printed


def test_bags_that_do_not_fit_say_what_they_hold(tmp_path, truth):
    stamped_labels(tmp_path / "cat", truth, "cat", [(n, n) for n in range(5)])
    with pytest.raises(InputError, match=r"cat has 6 frames without stamps, /mastsam/labels in .* 5 label images"):
        evaluate(tmp_path / "cat", "--ground-truth", truth, "--sequences", "cat")
    scene = SampleScene(1, frames=3, width=64, height=48)
    bag = scene.write_bag(tmp_path / "played")
    with pytest.raises(InputError, match=r"no topic of labels \(/mastsam/labels\); its topics: .*image"):
        evaluate(bag, "--ground-truth", truth, "--sequences", "cat")
    with pytest.raises(InputError, match="has the stamp of a frame of played: the first label's is 0 ns"):
        evaluate(tmp_path / "cat", "--ground-truth", bag, "--truth", TOPICS["truth"])


def test_frames_that_the_node_did_not_answer_are_left_out_and_counted(tmp_path, capsys):
    scene = SampleScene(1, frames=5, width=64, height=48)
    bag = scene.write_bag(tmp_path / "played")
    with ResultBag(tmp_path / "results") as results:
        for n in (0, 1, 4):
            view = scene.render(n)
            results.add(FrameResult(view.instance, (), (), None, {}, n, view.frame.stamp_ns, "camera"))
    figures = tmp_path / "figures.json"
    evaluate(tmp_path / "results", "--ground-truth", bag, "--truth", TOPICS["truth"], "--json", figures)
    assert "played: 2 of 5 frames have no labels in results and are not scored" in capsys.readouterr().out
    score = json.loads(figures.read_text())["sequences"]["played"]
    assert score["frames"] == 3 and score["best_track"] == 1.0


def test_what_is_no_data_or_no_labels_says_what_is_there(tmp_path, truth):
    predictions = write_labels(tmp_path / "out", truth, perfect)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    for n in range(8):
        (tmp_path / "texts" / f"{n}.txt").write_text("x")
    for folder, found in (("empty", "an empty folder"), ("texts", r"0\.txt, .*, 5\.txt and 2 more")):
        with pytest.raises(InputError, match=f"expected a DAVIS or MOSE folder .*; found: {found}"):
            evaluate(predictions, "--ground-truth", tmp_path / folder)
        with pytest.raises(InputError, match=f"expected <sequence>/.*; found: {found}"):
            evaluate(tmp_path / folder, "--ground-truth", truth)
    with pytest.raises(InputError, match="nowhere is not there: expected data"):
        evaluate(predictions, "--ground-truth", tmp_path / "nowhere")
    path = predictions / "cat" / "00002.png"
    cv2.imwrite(str(path), np.zeros((60, 80, 3), np.uint8))  # ids above 65535 as colours, as COCO has them
    with pytest.raises(InputError, match=r"00002\.png must be .*got 3 colour channels: save the ids .*0 to 65535"):
        evaluate(predictions, "--ground-truth", truth)


def test_size_that_differs_names_the_frame(tmp_path, truth):
    predictions = write_labels(tmp_path / "out", truth, lambda labels: perfect(labels)[::2, ::2])
    with pytest.raises(InputError, match="cat/00000: labels are 40x30, the truth is 80x60"):
        evaluate(predictions, "--ground-truth", truth)


def test_truth_without_images_says_why_a_figure_is_missing(tmp_path, truth, capsys):
    predictions = write_labels(tmp_path / "out", truth, perfect)
    (truth / "JPEGImages").rename(tmp_path / "elsewhere")
    evaluate(predictions, "--ground-truth", truth)
    assert "cat: no consistency: neither images" in capsys.readouterr().out


def test_workers_do_not_change_the_figures(tmp_path, truth):
    predictions = write_labels(tmp_path / "out", truth, perfect)
    sequences = open_sequences(truth)
    systems = {"out": paired(predictions, sequences, tmp_path / "unpacked")}
    one, four = ([s.score for s in command.score_all(sequences, systems, PROTOCOLS, n)["out"]] for n in (1, 4))
    assert repr(one) == repr(four)  # as text, where NaN equals NaN


def test_flow_cache_gives_the_same(tmp_path, truth):
    files = open_sequences(truth)[0].frames
    plain, cached = FlowCache(), FlowCache(tmp_path / "cache")
    expected = plain.matched(files[0].image, files[1].image)
    for _ in range(2):
        assert np.array_equal(cached.matched(files[0].image, files[1].image), expected)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_two_workers_may_keep_the_flow_of_one_pair_at_the_same_time(tmp_path, truth, monkeypatch):
    files = open_sequences(truth)[0].frames
    pair, folder, save = (files[0].image, files[1].image), tmp_path / "cache", np.save

    def meanwhile(file, values):
        save(file, values)
        monkeypatch.setattr(np, "save", save)
        FlowCache(folder).matched(*pair)

    monkeypatch.setattr(np, "save", meanwhile)
    assert np.array_equal(FlowCache(folder).matched(*pair), FlowCache().matched(*pair))
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("kind", ["video", "scene"])
def test_memory_does_not_grow_with_the_length(tmp_path, kind):
    if kind == "video":
        (given,) = open_sequences(write_video(tmp_path / "video", frames=6, names=("cat",)))
    else:
        scene = SampleScene(1, path="orbit", frames=6, width=64, height=48).write_scene_folder(tmp_path / "scene")
        (given,) = open_sequences(scene)
    height, width = read_labels(given.frames[0].truth).shape
    blocks = (1 + np.arange(height)[:, None] // 7 * 20 + np.arange(width) // 7).astype(np.uint16)  # many ids

    def peak(frames: int) -> int:
        sequence = replace(given, frames=tuple(given.frames[n % 6] for n in range(frames)))
        scorer = SequenceScorer(sequence)
        tracemalloc.start()
        for files in sequence.frames:
            scorer.add(files, blocks)
        score, curves = scorer.score(), scorer.curves()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert score.identity is not None and score.davis is not None and len(curves.best_track) == frames
        return used

    peak(64)  # what is loaded once and what Python keeps for later
    # The table of one frame alone takes more than 1000 bytes; what stays are a few numbers per frame and object.
    assert (peak(64) - peak(16)) / 48 < 800


def test_comparison_and_page(tmp_path, truth, capsys):
    predictions = write_labels(tmp_path / "out", truth, perfect)
    degenerate = write_labels(tmp_path / "other", truth, np.ones_like)
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    evaluate(
        *(predictions, "--ground-truth", truth, "--compare", f"one id={degenerate}"),
        *("--report", page, "--json", figures),
    )
    printed = capsys.readouterr().out
    assert "cat (one id) *" in printed and "mean (one id)" in printed
    assert json.loads(figures.read_text())["compared"]["one id"]["sequences"]["dog"]["degenerate"]
    text = page.read_text()
    for part in (
        "<svg",
        "data:image/jpeg",
        "best track IoU",
        "one id: best track IoU 0.1",
        "frame 00000",
        "degenerate",
    ):
        assert part in text
    assert "http" not in text.replace("http://www.w3.org", "")  # self-contained


def test_comparison_needs_a_name(tmp_path, truth):
    predictions = write_labels(tmp_path / "out", truth, perfect)
    with pytest.raises(InputError, match="NAME=DIR"):
        evaluate(predictions, "--ground-truth", truth, "--compare", "somewhere")
    with pytest.raises(InputError, match="another name"):
        evaluate(predictions, "--ground-truth", truth, "--compare", f"out={predictions}")


def test_retrieval_and_exact_H_where_the_data_allow(tmp_path, truth, capsys):
    scene = SampleScene(1, path="orbit", frames=6, width=96, height=72).write_scene_folder(tmp_path / "scene")
    (tmp_path / "out" / "labels").mkdir(parents=True)
    for path in (scene / "instance").iterdir():  # the last two views have other ids
        labels = read_labels(path) + np.uint16(100 if int(path.stem) > 3 else 0)
        cv2.imwrite(str(tmp_path / "out" / "labels" / path.name), labels)
    figures = tmp_path / "figures.json"
    evaluate(tmp_path / "out", "--ground-truth", scene, "--exact", "--json", figures)
    printed = capsys.readouterr().out
    assert "| retrieval" in printed and "0-45 deg" in printed and "exact H %" in printed
    score = json.loads(figures.read_text())["sequences"]["scene"]
    asked = [found for found in score["retrieval"] if found["queries"]]
    assert sum(found["pairs"] for found in score["retrieval"]) == 30 and asked and asked[0]["recall"] < 0.9
    assert abs(score["H"] - score["H_exact"]) < 5
    evaluate(write_labels(tmp_path / "video", truth, perfect), "--ground-truth", truth, "--exact")
    printed = capsys.readouterr().out
    assert "retrieval" not in printed and "cat: no exact H: it needs depth" in printed


def test_nothing_to_score():
    with pytest.raises(InputError, match="give PRED and --ground-truth"):
        evaluate()


def test_worst_frames_are_apart():
    curve = [0.9] * 40
    curve[10:13], curve[30], curve[20] = [0.1, 0.0, 0.1], 0.2, float("nan")
    assert worst_frames(curve, count=2) == [11, 30]
    assert worst_frames([], count=2) == []


def test_ablation(tmp_path, truth, capsys, monkeypatch):
    few = {row: ABLATIONS[row] for row in ("all parts", "no map")}
    monkeypatch.setattr("mastsam_ros.evaluation.ablation.ABLATIONS", few)
    SampleScene(1, frames=2, width=64, height=48).write_scene_folder(tmp_path / "room")
    wanted = ("--sequences", "cat,room", "--frames", 2)
    evaluate("--ablate", truth, tmp_path / "room", *wanted, "--json", tmp_path / "a.json")
    printed = capsys.readouterr().out
    assert all(row in printed for row in few) and "video IoU" in printed and "RGB-D tube IoU" in printed
    figures = json.loads((tmp_path / "a.json").read_text())
    assert set(figures["all parts"]) == {"cat", "room RGB", "room RGB-D"} and set(figures["no map"]) == {"room RGB-D"}
    assert figures["all parts"]["cat"]["IoU"] is not None


def test_every_part_of_the_ablation_is_a_setting():
    for row, (changes, kinds) in ABLATIONS.items():
        assert kinds and (Settings().updated(changes) != Settings()) == (row != "all parts")


def test_unknown_protocol(truth):
    with pytest.raises(InputError, match="unknown protocol 'beauty'"):
        SequenceScorer(open_sequences(truth)[0], ["beauty"])
