"""What moves on its own is known by its flow and depth, and stays out of the map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mastsam_ros.geometry.cameras import back_project
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.tracker.moving import MovingTracks, off_moving, own_motion
from mastsam_ros.types import Frame, Matches

K = np.array([[150.0, 0, 79.5], [0, 150.0, 59.5], [0, 0, 1]])
WALL, PLATE = 1, 2


def plate_before_a_wall(left: int, z: float = 1.0) -> tuple[Frame, np.ndarray]:
    """A plate of 40x40 pixels before a wall at 2 m, and whose pixels are whose."""
    depth, owners = np.full((120, 160), 2.0, np.float32), np.full((120, 160), WALL, np.int32)
    depth[40:80, left : left + 40], owners[40:80, left : left + 40] = z, PLATE
    return Frame(np.zeros((120, 160, 3), np.uint8), K=K, depth=depth), owners


def motion_of(before: Frame, now: Frame, owners: np.ndarray, flow: np.ndarray, T: np.ndarray) -> tuple:
    rows, columns = (place.ravel() for place in np.mgrid[0:120:2, 0:160:2])
    assert now.depth is not None
    points = back_project(now.depth, K)[rows, columns] @ T[:3, :3].T.astype(np.float32) + T[:3, 3].astype(np.float32)
    at = np.stack([columns, rows], axis=1).astype(np.float32)
    xy = torch.from_numpy(at)
    matches = Matches(xy, xy, torch.ones(len(xy)), flow_back=torch.from_numpy(flow))
    motion, known = own_motion(points, rows, columns, before, np.eye(4), matches)
    return owners[rows, columns], motion, known


@pytest.mark.parametrize(("shift", "z"), [(8, 1.0), (0, 0.9)])
def test_a_plate_that_slides_or_comes_nearer_moves_and_the_wall_does_not(shift: int, z: float) -> None:
    before, _ = plate_before_a_wall(60)
    now, owners = plate_before_a_wall(60 + shift, z)
    flow = np.zeros((120, 160, 2), np.float32)
    flow[owners == PLATE, 0] = -shift
    tracks = MovingTracks()
    ids, motion, known = motion_of(before, now, owners, flow, np.eye(4))
    assert tracks.update(ids, motion, known, {WALL, PLATE}) == ({PLATE}, set()), "one frame may be a fault"
    assert tracks.update(ids, motion, known, {WALL, PLATE}) == ({PLATE}, {PLATE})
    still = np.zeros_like(motion)
    rests = [tracks.update(ids, still, known, {WALL})[0] for _ in range(6)]
    assert rests[0] == {PLATE} and rests[-1] == set(), "it has to rest for a while"


def test_parallax_is_no_motion() -> None:
    before, _ = plate_before_a_wall(60)
    T = np.eye(4)
    T[0, 3] = 0.1
    # The camera moved 10 cm to the right: the plate at 1 m went 15 pixels to the left, the wall 7.5.
    now, owners = plate_before_a_wall(45)
    flow = np.zeros((120, 160, 2), np.float32)
    flow[..., 0] = np.where(owners == PLATE, 15.0, 7.5)
    ids, motion, known = motion_of(before, now, owners, flow, T)
    assert known.mean() > 0.9
    assert MovingTracks().update(ids, motion, known, {WALL, PLATE}) == (set(), set())


def test_what_is_new_waits_until_it_was_seen_at_rest() -> None:
    _, owners = plate_before_a_wall(60)
    ids = owners[::2, ::2].ravel()
    nothing, unknown = np.zeros((len(ids), 3), np.float32), ids != PLATE
    assert MovingTracks().update(ids, nothing, unknown, {WALL}) == ({PLATE}, set())
    assert MovingTracks().update(ids, nothing, unknown, {WALL, PLATE}) == (set(), set())


def test_the_cameras_motion_is_asked_of_what_rests() -> None:
    owners = np.full((120, 160), WALL, np.uint16)
    owners[40:80, 60:100] = PLATE
    y, x = np.mgrid[0:120:4, 0:160:4].astype(np.float32)
    xy = torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=1))
    matches = Matches(xy, xy, torch.ones(len(xy)))
    assert off_moving(matches, owners, set()) is matches
    rest = off_moving(matches, owners, {PLATE})
    assert rest is not None and len(rest) == len(xy) - 100
    on_plate = (rest.xy0[:, 0] >= 60) & (rest.xy0[:, 0] < 100) & (rest.xy0[:, 1] >= 40) & (rest.xy0[:, 1] < 80)
    assert not on_plate.any()


def test_a_walker_leaves_nothing_in_the_map() -> None:
    scene = SampleScene(44, "orbit", 36, 320, 240, objects=5, walker=True)
    mastsam = create_mastsam(Settings())
    seen, left_in_map = 0, 0
    for view in scene:
        mastsam.step(dataclasses.replace(view.frame))
        walker = view.instance == scene.walker_id
        seen = max(seen, int(walker.sum()))
        if walker.sum() < 500 or view.frame.depth is None or view.frame.T_world_camera is None:
            continue
        T = view.frame.T_world_camera.astype(np.float32)
        points = back_project(view.frame.depth, scene.K)[walker] @ T[:3, :3].T + T[:3, 3]
        cells = np.unique(np.floor(points / 0.02).astype(np.int64), axis=0)
        known = mastsam.map.map.look_up((cells + 0.5).astype(np.float32) * 0.02, np.zeros((len(cells), 3), np.float32))
        left_in_map = max(left_in_map, float((known >= 0).mean()))
    assert seen > 1500
    assert left_in_map < 0.1
