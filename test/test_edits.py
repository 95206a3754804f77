"""People in the loop: what they ask for is done, and still holds many frames later."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.types import CandidateMasks, EditError, EventKind, Frame, FrameResult, Matches, PointPrompts

HEIGHT, WIDTH = 120, 200
SQUARES = ((20, 20), (62, 20), (110, 20), (20, 70), (62, 70), (110, 70))


def scene(shift: int, hidden: frozenset[int] = frozenset()) -> tuple[np.ndarray, np.ndarray]:
    """Six textured squares on a textured ground, all `shift` pixels to the right, and which pixel is which square."""
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.normal(0, 60, (300, 400, 3)).astype(np.float32), (0, 0), 2) for _ in range(7)]
    image = 110 + noise[6][:HEIGHT, 100 - shift : 100 - shift + WIDTH]
    truth = np.zeros((HEIGHT, WIDTH), np.int64)
    for n, (x, y) in enumerate(SQUARES):
        if n not in hidden:
            image[y : y + 30, x + shift : x + shift + 30] = 90 + np.eye(3)[n % 3] * 90 + 15 * n + noise[n][:30, :30]
            truth[y : y + 30, x + shift : x + shift + 30] = n + 1
    return image.clip(0, 255).astype(np.uint8), truth


class Truth:
    """A segmenter that knows the squares. It takes what `as_one` lists for one thing, unless a point beside it says
    otherwise."""

    def __init__(self, as_one: tuple[int, ...] = ()) -> None:
        self.as_one = as_one
        self.hidden: frozenset[int] = frozenset()
        self.truth = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        self.truth = torch.from_numpy(scene(frame.stamp_ns // 1000, self.hidden)[1])

    def _coarse(self) -> torch.Tensor:
        if not self.as_one:
            return self.truth
        joined = torch.isin(self.truth, torch.tensor(self.as_one))
        return torch.where(joined, self.as_one[0], self.truth)

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        masks = torch.zeros(len(prompts), 2, HEIGHT, WIDTH, dtype=torch.bool)
        for n, (xy, labels) in enumerate(zip(prompts.xy, prompts.labels, strict=True)):
            x, y = xy[labels == 1].round().long().clamp(min=0).T
            for candidate, truth in enumerate((self._coarse(), self.truth)[: 1 + (prompts.carried is None)]):
                hit = truth[y, x]
                if bool((hit > 0).any()):
                    masks[n, candidate] = truth == hit[hit > 0].mode().values
        return CandidateMasks(masks, masks.flatten(2).any(dim=2).float() * torch.tensor([1.0, 0.9]))

    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        truth = self._coarse()
        inside = truth > 0 if region is None else (truth > 0) & region
        present = truth[inside].unique()
        return CandidateMasks(((truth[None] == present[:, None, None]) & inside)[:, None], torch.ones(len(present), 1))


class Film:
    """Steps a pipeline through the moving squares."""

    def __init__(self, segmenter: Truth | None = None) -> None:
        self.segmenter = segmenter or Truth()
        self.mastsam = Mastsam(FlowMatcher(), self.segmenter)
        self.shift = -1
        self.events: list[tuple[EventKind, int, int]] = []
        self.result: FrameResult
        self.on()

    def on(self, frames: int = 1, hidden: frozenset[int] = frozenset()) -> FrameResult:
        self.segmenter.hidden = hidden
        for _ in range(frames):
            self.shift += 1
            self.result = self.mastsam.step(Frame(scene(self.shift, hidden)[0], stamp_ns=1000 * self.shift))
            self.events += [(event.kind, event.id, event.other_id) for event in self.result.events]
        return self.result

    def middle(self, n: int) -> tuple[float, float]:
        return SQUARES[n][0] + self.shift + 15, SQUARES[n][1] + 15

    def id(self, n: int) -> int:
        x, y = self.middle(n)
        return int(self.result.labels[int(y), int(x)])

    def ids(self) -> list[int]:
        return [self.id(n) for n in range(len(SQUARES))]


def test_a_merged_instance_stays_one_when_a_part_goes_and_comes_back() -> None:
    film = Film()
    film.on(7)
    ids = film.ids()
    first, second = ids[3], ids[4]
    ids[3] = second
    assert film.mastsam.merge_instances([second, first]) == second
    film.on()
    assert film.events[-1] == (EventKind.MERGED, first, second) and film.result.events[-1].evidence == 1
    assert film.ids() == ids
    box = next(track.box_xywh for track in film.result.tracks if track.id == second)
    assert box[2] == 42 + 30 and first not in {track.id for track in film.result.tracks}
    told = len(film.events)
    film.on(8, hidden=frozenset({3}))
    assert film.id(4) == second
    film.on(12)
    assert film.ids() == ids
    assert film.events[told:] == [], "the parts of one instance come and go without a word"


def test_what_was_split_stays_two_though_the_segmenter_sees_one() -> None:
    film = Film(Truth(as_one=(1, 2)))
    film.on(6)
    whole = film.id(0)
    assert film.id(1) == whole
    part = film.mastsam.split_instance(whole, [film.middle(1)], label="lid")
    film.on(25)
    assert (film.id(0), film.id(1)) == (whole, part)
    assert {track.id: track.label for track in film.result.tracks}[part] == "lid"
    assert not {EventKind.MERGED, EventKind.LOST} & {kind for kind, _, _ in film.events}
    film.mastsam.merge_instances([part, whole])
    film.on(10)
    assert (film.id(0), film.id(1)) == (part, part)


def test_what_was_merged_can_be_split_where_it_was_joined() -> None:
    film = Film()
    first, second = film.id(0), film.id(1)
    film.mastsam.merge_instances([first, second])
    film.on(4)
    part = film.mastsam.split_instance(first, [film.middle(1)])
    film.on(10)
    assert part not in (first, second) and (film.id(0), film.id(1)) == (first, part)


def test_what_was_removed_is_not_found_again_until_asked_for() -> None:
    film = Film()
    gone = film.id(0)
    film.mastsam.remove_instance(gone)
    film.on(12)
    assert film.id(0) == 0 and gone not in {track.id for track in film.result.tracks}
    assert [event for event in film.events if gone in event[1:]][-1] == (EventKind.REMOVED, gone, 0)
    back = film.mastsam.add_instance([film.middle(0)])
    film.on(5)
    assert film.id(0) == back and back != gone


def test_an_instance_is_added_where_the_tracker_has_none() -> None:
    film = Film(Truth(as_one=(1, 2, 3)))
    whole = film.id(0)
    x, y = film.middle(1)
    added = film.mastsam.add_instance(box_xywh=(x - 15, y - 15, 30, 30), label="mug")
    film.on(15)
    assert (film.id(0), film.id(1), film.id(2)) == (whole, added, whole)
    assert film.mastsam.add_instance([film.middle(4)]) == film.id(4), "it is an instance already"


def test_ids_may_be_read_off_the_label_image(tmp_path: Path) -> None:
    film = Film()
    ids = np.unique(film.result.labels)
    film.mastsam.merge_instances(ids[1:3])
    film.mastsam.rename_instance(ids[3], "jar")
    film.mastsam.remove_instance(ids[4])
    film.mastsam.save_map(tmp_path / "room")
    events = film.on().events
    assert len(events) == 3 and {type(id) for event in events for id in (event.id, event.other_id)} == {int}


def test_a_stamp_in_the_past_is_carried_forward() -> None:
    film = Film(Truth(as_one=(1, 2)))
    film.on(10)
    then, stamp = film.middle(1), film.result.stamp_ns
    film.on(12)
    part = film.mastsam.split_instance(film.id(0), [then], stamp)
    film.on()
    assert film.id(1) == part != film.id(0)
    film.on(25)
    with pytest.raises(EditError, match="s old"):
        film.mastsam.split_instance(film.id(0), [then], stamp)


def test_what_cannot_be_done_is_one_line_and_changes_nothing() -> None:
    film = Film()
    ids = film.ids()
    edits = film.mastsam
    for edit, words in (
        (lambda: edits.remove_instance(99), "there is no instance 99"),
        (lambda: edits.rename_instance(99, "x"), "there is no instance 99"),
        (
            lambda: edits.rename_instance(ids[1], "x" * 101),
            "a name has up to 100 printable characters in one line, got 101",
        ),
        (lambda: edits.rename_instance(ids[1], "a\x1b[31m"), "a name has up to 100 printable"),
        (lambda: edits.merge_instances([ids[0]]), "two or more"),
        (lambda: edits.merge_instances([ids[0], 99]), "there is no instance 99"),
        (lambda: edits.split_instance(ids[0], [film.middle(1)]), "not on instance"),
        (lambda: edits.split_instance(ids[0], [film.middle(0)]), "no such part"),
        (lambda: edits.add_instance([(WIDTH + 5, 3)]), "outside the picture of 200x120"),
        (lambda: edits.add_instance(), "at least one point"),
        (lambda: edits.add_instance([(1, 2, 3)]), "pairs"),
        (lambda: edits.add_instance([(1, float("nan"))]), "finite"),
        (lambda: edits.add_instance([(1, 1)], [True, False]), "each point"),
        (lambda: edits.add_instance([(100, 115)]), "sees nothing there"),
        (lambda: edits.add_instance(box_xywh=(0, 0, 0, 5)), "extent"),
    ):
        with pytest.raises(EditError, match=words) as told:
            edit()
        assert "\n" not in str(told.value)
    film.on(3)
    assert film.ids() == ids and len(film.events) == len(SQUARES)
    with pytest.raises(EditError, match="no picture yet"):
        Mastsam(FlowMatcher(), Truth()).add_instance([(1, 1)])


@pytest.mark.parametrize("seed", range(3))
def test_random_edits_agree_with_a_simple_model(seed: int) -> None:
    """The model: which squares show which id. Frames flow between any two edits, and squares hide now and then."""
    chance, film = random.Random(seed), Film()
    film.on(6)
    model, names = film.ids(), dict.fromkeys(film.ids(), "")
    ever = set(model)
    for _ in range(25):
        shown = sorted({id for id in model if id})
        what = chance.choice(["merge", "merge", "split", "remove", "add", "rename", "hide"])
        if what == "merge" and len(shown) > 1:
            ids = chance.sample(shown, 2)
            film.mastsam.merge_instances(ids)
            model = [ids[0] if id == ids[1] else id for id in model]
            names[ids[0]] = names[ids[0]] or names.pop(ids[1])
        elif what == "split" and any(model.count(id) > 1 for id in shown):
            id = chance.choice([id for id in shown if model.count(id) > 1])
            n = chance.choice([n for n, other in enumerate(model) if other == id])
            model[n] = film.mastsam.split_instance(id, [film.middle(n)])
            assert model[n] not in ever
            names[model[n]] = ""
        elif what == "remove" and len(shown) > 3:
            id = chance.choice(shown)
            film.mastsam.remove_instance(id)
            model = [0 if other == id else other for other in model]
        elif what == "add" and 0 in model:
            n = model.index(0)
            model[n] = film.mastsam.add_instance([film.middle(n)], label="back")
            assert model[n] not in ever
            names[model[n]] = "back"
        elif what == "rename":
            id = chance.choice(shown)
            names[id] = f"thing {chance.randrange(100)}"
            film.mastsam.rename_instance(id, names[id])
        elif what == "hide":
            film.on(2, hidden=frozenset({chance.randrange(len(SQUARES))}))
        ever |= set(model)
        film.on(chance.randint(1, 2))
        if film.shift > 52:  # the squares leave the picture
            break
        assert film.ids() == model
        labels = {track.id: track.label for track in film.result.tracks}
        assert {id: labels[id] for id in set(model) - {0}} == {id: names[id] for id in set(model) - {0}}


def test_edits_hold_when_everything_leaves_the_view_and_in_the_next_run(tmp_path: Path) -> None:
    scene = SampleScene(seed=4, path="look_away", frames=24, width=240, height=180, objects=5)
    views = [scene.render(n) for n in range(len(scene))]

    def id_of(view, labels: np.ndarray, thing: int) -> int:
        return int(np.bincount(labels[view.instance == thing]).argmax())

    mastsam = create_mastsam()
    results = [mastsam.step(view.frame) for view in views[:4]]
    things = [thing for thing in scene.object_ids if (views[3].instance == thing).sum() > 150]
    one, two, three = (id_of(views[3], results[-1].labels, thing) for thing in things[:3])
    assert len({one, two, three} - {0}) == 3
    mastsam.merge_instances([one, two])
    mastsam.remove_instance(three)
    mastsam.rename_instance(one, "pair")
    for view in views[4:]:
        result = mastsam.step(view.frame)
    away = min(int(np.isin(view.instance, things[:3]).sum()) for view in views)
    assert away < 50, "the scene does not leave the view"
    expected = [one, one, 0]
    assert [id_of(views[-1], result.labels, thing) for thing in things[:3]] == expected
    known = {instance.id: instance.label for instance in mastsam.world_map().instances}
    assert known[one] == "pair" and not {two, three} & known.keys()

    mastsam.save_map(tmp_path / "room")
    later = create_mastsam()
    assert later.load_map(tmp_path / "room")
    for view in views[:3]:
        result = later.step(view.frame)
    assert [id_of(views[2], result.labels, thing) for thing in things[:3]] == expected
    assert {track.id: track.label for track in result.tracks}[one] == "pair"
