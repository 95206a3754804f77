"""Several cameras in one world: one map, trackers of their own, one id for what several of them see."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mastsam_ros.geometry.voxels import Voxels
from mastsam_ros.io.sample_scene import SampleScene, SceneView
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.settings import GeometrySettings, Settings, TrackerSettings
from mastsam_ros.tracker.identity import IdCounter, Identities
from mastsam_ros.tracker.world import World
from mastsam_ros.types import EditError, EventKind, FrameResult

FRAMES, APART = 10, 14
"""Frames of each camera, and how many steps on the orbit lie between the two: 20 degrees."""
SEEN_PX = 60


@pytest.fixture(scope="module")
def scene() -> SampleScene:
    return SampleScene(4, "orbit", 40, 320, 240, objects=6)


@pytest.fixture(scope="module")
def views(scene: SampleScene) -> list[tuple[SceneView, SceneView]]:
    """What two cameras on one path see at the same time, with their true poses."""
    return [(scene.render(n), _at(scene.render(n + APART), scene.stamp_ns(n) + 5_000_000)) for n in range(FRAMES)]


def _at(view: SceneView, stamp_ns: int) -> SceneView:
    return SceneView(dataclasses.replace(view.frame, stamp_ns=stamp_ns), view.instance)


def without_pose(view: SceneView) -> SceneView:
    return SceneView(dataclasses.replace(view.frame, T_world_camera=None), view.instance)


def cameras(shared: bool = True) -> tuple[Mastsam, Mastsam]:
    settings, ids = Settings(), IdCounter()
    world = World(settings.geometry) if shared else None
    first = create_mastsam(settings, ids=ids, world=world)
    both = first, create_mastsam(settings, first, ids, world)
    for mastsam in both:
        mastsam.expect_poses()
    return both


def ids_of(view: SceneView, result: FrameResult, objects: tuple[int, ...]) -> dict[int, int]:
    """True object -> the id that most of its pixels have, of those that are seen well."""
    found = {}
    for number in objects:
        mask = view.instance == number
        if mask.sum() >= SEEN_PX:
            found[number] = int(np.bincount(result.labels[mask]).argmax())
    return found


def agreeing(scene: SampleScene, pair: tuple[SceneView, SceneView], results: tuple[FrameResult, FrameResult]) -> float:
    here, there = (ids_of(view, result, scene.object_ids) for view, result in zip(pair, results, strict=True))
    both = sorted(here.keys() & there.keys())
    assert len(both) >= 4
    return float(np.mean([here[number] == there[number] > 0 for number in both]))


def test_what_two_cameras_see_has_one_id(scene, views) -> None:
    front, rear = cameras()
    share = [agreeing(scene, pair, (front.step(pair[0].frame), rear.step(pair[1].frame))) for pair in views]
    assert np.mean(share) >= 0.9 and share[-1] >= 0.8, share
    front, rear = cameras(shared=False)
    apart = [agreeing(scene, pair, (front.step(pair[0].frame), rear.step(pair[1].frame))) for pair in views[:2]]
    assert apart == [0, 0], "without a common map each gives ids of its own"


def test_what_one_camera_showed_comes_back_in_the_other_much_later(scene, views) -> None:
    front, rear = cameras()
    for view, _ in views:
        before = view, front.step(view.frame)
    # The second camera is switched on when the first has gone; it stands where the first one was.
    now = _at(scene.render(FRAMES), 60_000_000_000)
    result = rear.step(now.frame)
    assert agreeing(scene, (before[0], now), (before[1], result)) >= 0.8
    revived = {event.id for event in result.events if event.kind is EventKind.REVIVED}
    assert revived >= set(ids_of(now, result, scene.object_ids).values()) & set(np.unique(before[1].labels))


def test_ids_given_before_the_poses_were_known_are_joined_and_told(scene, views) -> None:
    front, rear = cameras()
    given: set[int] = set()
    for n, (here, there) in enumerate(views):
        if n < 3:  # localisation takes its time
            here, there = without_pose(here), without_pose(there)
        results = front.step(here.frame), rear.step(there.frame)
        if n == 2:
            assert agreeing(scene, views[n], results) == 0
            given = set(np.unique(results[1].labels).tolist()) - {0}
    assert agreeing(scene, views[-1], results) >= 0.8
    merged = {}
    front, rear = cameras()
    for n, (here, there) in enumerate(views):
        if n < 3:
            here, there = without_pose(here), without_pose(there)
        for result in (front.step(here.frame), rear.step(there.frame)):
            merged |= {e.id: e.other_id for e in result.events if e.kind is EventKind.MERGED}
    ends = {id: into for id, into in merged.items() if id in given}
    assert len(ends) >= 3 and all(into < id for id, into in ends.items()), merged
    assert not set(ends) & set(np.unique(results[1].labels).tolist())


def test_people_correct_one_camera_and_the_other_follows(scene, views) -> None:
    front, rear = cameras()
    for here, there in views[:3]:
        results = front.step(here.frame), rear.step(there.frame)
    here, there = (ids_of(view, result, scene.object_ids) for view, result in zip(views[2], results, strict=True))
    number = next(number for number, id in here.items() if there.get(number) == id > 0)
    others = [id for other, id in here.items() if other != number and id not in (0, here[number])]
    front.rename_instance(here[number], "mug")
    front.remove_instance(others[0])
    labels = rear.step(views[3][1].frame)
    assert {track.label for track in labels.tracks if track.id == here[number]} == {"mug"}
    assert others[0] not in np.unique(labels.labels)
    with pytest.raises(EditError, match="there is no instance 60000"):
        front.merge_instances([here[number], 60_000])


def test_two_ids_that_only_one_camera_each_knows_can_be_merged_by_hand(scene, views) -> None:
    front, rear = cameras()
    for n in range(3):
        results = front.step(without_pose(views[n][0]).frame), rear.step(without_pose(views[n][1]).frame)
    here, there = (ids_of(view, result, scene.object_ids) for view, result in zip(views[2], results, strict=True))
    number = next(number for number in here if here[number] and there.get(number))
    assert rear.merge_instances([here[number], there[number]]) == here[number]
    result = rear.step(without_pose(views[3][1]).frame)
    assert ids_of(views[3][1], result, (number,)) == {number: here[number]}


def test_a_failed_frame_of_one_camera_leaves_the_world_as_it_was(scene, views, monkeypatch) -> None:
    front, rear = cameras()
    for here, there in views[:3]:
        front.step(here.frame)
        rear.step(there.frame)
    before = front.world_map()
    monkeypatch.setattr(rear.segmenter, "predict", lambda prompts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rear.step(views[3][1].frame)
    monkeypatch.undo()
    after = front.world_map()
    assert [i.id for i in after.instances] == [i.id for i in before.instances]
    results = front.step(views[3][0].frame), rear.step(views[3][1].frame)
    assert agreeing(scene, views[3], results) >= 0.8


def test_a_camera_that_starts_anew_leaves_the_others_their_map_and_edits(scene, views) -> None:
    front, rear = cameras()
    for here, there in views[:4]:
        results = front.step(here.frame), rear.step(there.frame)
    here, there = (ids_of(view, result, scene.object_ids) for view, result in zip(views[3], results, strict=True))
    mug, gone = [id for number, id in here.items() if there.get(number) == id > 0][:2]
    front.rename_instance(mug, "mug")
    front.remove_instance(gone)
    front.step(views[4][0].frame)
    before = {instance.id for instance in rear.world_map().instances}
    front.reset("its driver has started anew")
    assert {instance.id for instance in rear.world_map().instances} == before
    results = front.step(views[5][0].frame), rear.step(views[5][1].frame)
    assert agreeing(scene, views[5], results) >= 0.8
    assert [event.kind for event in results[0].events].count(EventKind.RESET) == 1
    assert not any(event.kind is EventKind.RESET for event in results[1].events)
    kept = {instance.id: instance.label for instance in rear.world_map().instances}
    assert kept[mug] == "mug" and gone not in kept and gone not in np.unique(results[1].labels)
    assert {track.label for track in results[0].tracks if track.id == mug} == {"mug"}, "recognised, with its name"


@pytest.mark.parametrize("why", ["asked for", "another size"])
def test_what_only_one_camera_knew_comes_back_to_it_after_its_reset(scene, views, why) -> None:
    front, rear = cameras()
    rear.step(without_pose(views[0][1]).frame)  # it knows nothing of the map
    for view, _ in views[:5]:
        before = ids_of(view, front.step(view.frame), scene.object_ids)
    if why == "asked for":
        front.reset()
        view, _ = views[5]
    else:
        view = _at(SampleScene(4, "orbit", 40, 240, 180, objects=6).render(5), scene.stamp_ns(5))
    result = front.step(view.frame)
    after = ids_of(view, result, scene.object_ids)
    same = [after[number] == id for number, id in before.items() if id and number in after]
    assert len(same) >= 4 and np.mean(same) >= 0.8, (before, after)
    assert any(event.kind is EventKind.RESET for event in result.events)


def test_all_cameras_start_anew_together(scene, views) -> None:
    front, rear = cameras()
    for here, there in views[:3]:
        results = front.step(here.frame), rear.step(there.frame)
    old = set(np.unique(results[0].labels)) | set(np.unique(results[1].labels)) - {0}
    front.rename_instance(next(track.id for track in results[0].tracks if track.area), "mug")
    for mastsam in (front, rear):
        mastsam.reset("asked for", empty_map=True)
    assert not front.world_map().instances and not len(front.world_map().cloud)
    results = front.step(views[3][0].frame), rear.step(views[3][1].frame)
    assert agreeing(scene, views[3], results) >= 0.8
    for result in results:
        assert not old & set(np.unique(result.labels)) - {0}
        assert not any(track.label for track in result.tracks)


def test_the_first_frame_of_a_camera_may_fail_without_loss(scene, views, monkeypatch) -> None:
    front, rear = cameras()
    for here, _ in views[:3]:
        front.step(here.frame)
    before = {instance.id for instance in front.world_map().instances}
    monkeypatch.setattr(rear.segmenter, "everything", lambda region: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rear.step(views[3][1].frame)
    monkeypatch.undo()
    assert before and {instance.id for instance in front.world_map().instances} == before
    assert agreeing(scene, views[3], (front.step(views[3][0].frame), rear.step(views[3][1].frame))) >= 0.8


# The world by itself


def voxels(instance: int, keys: range) -> Voxels:
    count = len(keys)
    return Voxels(
        np.array(keys, np.int64),
        np.full(count, instance, np.int32),
        np.ones(count, np.int32),
        np.zeros(count, np.int32),
        np.ones(count, np.float32),
        np.zeros((count, 3), np.float32),
        np.zeros((count, 3), np.float32),
    )


def two_members() -> tuple[World, list]:
    world = World(GeometrySettings())
    trackers = [Identities(TrackerSettings(), constraints=world.constraints) for _ in range(2)]
    return world, [world.join(tracker) for tracker in trackers]


def see(world: World, members: list, times: int, stamp_ns: int = 0, keys: range = range(40)) -> None:
    for n in range(times):
        world.compare(members[0], stamp_ns + n, voxels(5, range(50)))
        world.compare(members[1], stamp_ns + n, voxels(25, keys))


def test_ids_are_joined_where_two_cameras_see_the_same_for_a_while() -> None:
    world, members = two_members()
    see(world, members, 1)
    assert not members[0].joins
    see(world, members, 2)
    assert [[(join.id, join.into) for join in member.joins] for member in members] == [[(25, 5)]] * 2
    assert 0.7 < members[0].joins[0].evidence <= 1


def test_nothing_is_kept_of_ids_that_have_ended() -> None:
    world, members = two_members()
    see(world, members, 1)
    world.keep_only({5})
    see(world, members, 1)
    assert not members[0].joins, "the count began anew"
    world.keep_only({5, 25})
    see(world, members, 1)
    assert [(join.id, join.into) for join in members[0].joins] == [(25, 5)]


@pytest.mark.parametrize("reason", ["told apart", "seen together", "elsewhere", "long ago"])
def test_ids_stay_two(reason: str) -> None:
    world, members = two_members()
    keys = range(40)
    if reason == "told apart":
        world.constraints.tell_apart(5, 25)
    elif reason == "seen together":
        members[0].saw(np.array([5, 25], np.int32), 0)
    elif reason == "elsewhere":
        keys = range(45, 85)
    if reason == "long ago":
        world.compare(members[0], 0, voxels(5, range(50)))
        for n in range(6):
            world.compare(members[1], 10_000_000_000 + n, voxels(25, keys))
    else:
        see(world, members, 6, keys=keys)
    assert not members[0].joins and not members[1].joins


def test_what_a_camera_has_just_joined_is_not_met_again() -> None:
    world, members = two_members()
    tracker = members[1].identities
    kept, ended = tracker.born(1.0, sure=True), tracker.born(1.0, sure=True)
    members[0].identities.adopt([kept, ended], 10)
    points = np.linspace(0, 1, 30, dtype=np.float32)[:, None].repeat(3, axis=1)
    world.map.observe(points, np.full(30, ended, np.int32), np.zeros((30, 3), np.uint8), 0)
    tracker.begin_frame()
    tracker.merge(ended, kept)
    assert world.elsewhere(members[1]) == set()
    assert world.elsewhere(members[0]) == set()
