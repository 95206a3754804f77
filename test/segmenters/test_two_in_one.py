"""Things of one colour that touch are told apart by several frames; parts of one thing, and what hides it, are not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.segmenters.regions.flow_steps import Parts
from mastsam_ros.segmenters.regions.superpixels import RegionGraph, build_region_graph, gradient_magnitude
from mastsam_ros.segmenters.regions.two_in_one import SURE, Followed, Suspect, judged, suspects
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame

HEIGHT, WIDTH = 240, 320
STILL = np.zeros((HEIGHT, WIDTH, 2), np.float32)
SEEN = np.ones((HEIGHT, WIDTH), bool)
TABLE, BOX, OTHER_BOX, BALL = range(4)
Image = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


def boxes(ball: bool = False, apart: bool = True) -> Ints:
    """What is where, on a table: a box before a wider one; or, not apart, the two halves of one."""
    there = np.full((HEIGHT, WIDTH), TABLE)
    there[80:125, 110:190], there[115:170, 135:165] = BOX, OTHER_BOX
    if not apart:
        there[:] = TABLE
        there[80:125, 130:170], there[125:170, 130:170] = BOX, OTHER_BOX
    if ball:
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        there[(y - 125) ** 2 + (x - 175) ** 2 < 20**2] = BALL
    return there


def graph_of(there: Ints) -> RegionGraph:
    image = np.array([(180, 140, 100), (180, 60, 40), (150, 50, 35), (60, 80, 170)], np.uint8)[there]
    return build_region_graph(image, 7, gradient_magnitude(image.astype(np.float32)))


def found_in(there: Ints, score: float = 0.0) -> tuple[RegionGraph, list[Suspect]]:
    """The box in front as a part of the region that both boxes are."""
    graph = graph_of(there)
    most = np.stack([graph.sum(there == thing) for thing in range(4)]).argmax(axis=0)
    cut = np.array([0, 1, 1, 2])[most]
    return graph, suspects(graph, cut, [np.flatnonzero(most == OTHER_BOX)], np.array([score]))


def told(frames: list[tuple[RegionGraph, list[Suspect]]], flow: npt.NDArray[np.float32] = STILL) -> list[float]:
    """By how much the log-odds of the first suspect are above what is needed, frame by frame."""
    followed: Followed | None = None
    above = []
    for graph, found in frames:
        _, odds, followed = judged(graph, found, followed, flow, SEEN)
        above.append(float(odds[0]) - SURE if len(odds) else -np.inf)
    return above


def test_a_notch_speaks_for_two_things_and_a_straight_outline_against() -> None:
    _, (notch,) = found_in(boxes())
    _, (straight,) = found_in(boxes(apart=False))
    assert notch.odds > -2 > -3 > straight.odds
    assert set(notch.rest).isdisjoint(notch.leaves)


def test_what_hides_a_part_of_both_makes_no_notch() -> None:
    _, (hidden,) = found_in(boxes(ball=True, apart=False))
    assert hidden.odds < -3


def test_several_frames_tell_what_one_does_not() -> None:
    frame = found_in(boxes(), score=0.5)
    above = told([frame] * 8)
    assert above[0] < 0 < above[-1]
    assert above == sorted(above)


def test_what_is_one_thing_stays_one_however_long_it_is_seen() -> None:
    frame = found_in(boxes(apart=False), score=2.0)
    assert max(told([frame] * 50)) < 0


def test_a_frame_that_does_not_show_it_costs_little() -> None:
    graph, found = found_in(boxes(), score=0.5)
    without = told([(graph, found)] * 4 + [(graph, [])] + [(graph, found)])
    assert without[3] - 0.5 < without[5] and without[4] == -np.inf


def test_evidence_goes_along_with_the_flow() -> None:
    there = boxes()
    frames = [found_in(np.roll(there, 12 * n, axis=1), score=0.5) for n in range(4)]
    flow = np.full((HEIGHT, WIDTH, 2), (-12, 0), np.float32)
    along, lost = told(frames, flow), told(frames)
    assert along == sorted(along) and along[3] > lost[3] + 1


def test_nothing_is_followed_where_nothing_is_found() -> None:
    graph, _ = found_in(boxes())
    assert suspects(graph, np.zeros(graph.count, np.int64), [], np.empty(0)) == []
    assert judged(graph, [], None, STILL, SEEN)[2] is None


@pytest.mark.parametrize("use_notches", [True, False])
def test_a_box_before_another_one_of_its_material_gets_an_id_of_its_own(use_notches: bool) -> None:
    """The camera goes by: what is nearer moves more in the picture. Both have the same speckled paint. Nothing is asked
    what moves by itself: that would be the nearer one, since the rest shows no depth."""
    rng = np.random.default_rng(5)
    paint, table = (np.kron(rng.normal(0, 9, (170, 260)), np.ones((3, 3)))[..., None] for _ in range(2))
    changes = [f"regions.use_notches={use_notches}", "regions.use_motion=false"]
    mastsam = create_mastsam(Settings().with_assignments(changes))
    alike = []
    for n in range(24):
        image = np.array((180, 140, 100)) + np.roll(table, n, axis=1)[:480, :640]
        far, near = 250 + n, 265 + 3 * n
        image[170:225, far : far + 80] = np.array((150, 55, 40)) + paint[:55, :80]
        image[210:265, near : near + 36] = np.array((135, 49, 35)) + paint[100:155, 200:236]
        labels = mastsam.step(Frame(image.clip(0, 255).astype(np.uint8))).labels
        alike.append(labels[250, near + 18] == labels[180, far + 40])
    assert np.mean(alike[12:]) == pytest.approx(float(not use_notches), abs=0.2)


def test_what_was_carried_as_two_is_cut_in_no_other_place() -> None:
    """Half of the box in front, whose other half is taken for the box behind it: each is a track already."""
    there = boxes()
    graph = graph_of(there)
    front, behind, whole = (graph.sum(mask) for mask in (there == OTHER_BOX, there == BOX, there > TABLE))
    y = graph.sum(np.mgrid[:HEIGHT, :WIDTH][0].astype(np.float64)) / graph.area
    half = np.flatnonzero((front > 0.5 * graph.area) & (y > 145))
    rest = np.setdiff1d(np.flatnonzero(whole > 0.5 * graph.area), half)
    parts = Parts(np.array([graph.area[half].sum()], np.float64), np.array([9.0]), [half], [rest], None)
    assert len(parts.told_apart(np.zeros((graph.count, 0)))[0]) == 1
    assert len(parts.told_apart(np.stack([whole], axis=1).astype(np.float64))[0]) == 1, "both are one track"
    assert parts.told_apart(np.stack([front, behind], axis=1).astype(np.float64))[0] == []
    all_of_it = np.where(y > 145, front, 0)
    assert len(parts.told_apart(np.stack([all_of_it, whole - all_of_it], axis=1).astype(np.float64))[0]) == 1
