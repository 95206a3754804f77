"""The sample scene's truth: depth, poses and instances agree between views, and nothing depends on chance."""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from mastsam_ros.io.frame_bag import TOPICS, read_frames
from mastsam_ros.io.ray_caster import Cone, Ellipsoid, Flat
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.types import InputError


@pytest.fixture(scope="module")
def scene() -> SampleScene:
    return SampleScene(seed=1, frames=8)


def to_world(view, stride: int = 1):
    """World points (N, 3) and instances (N,) of a view's pixels."""
    y, x = np.mgrid[: view.frame.height : stride, : view.frame.width : stride]
    depth = view.frame.depth[::stride, ::stride].astype(np.float64)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(view.frame.K).T
    T = view.frame.T_world_camera
    return (rays * depth[..., None]).reshape(-1, 3) @ T[:3, :3].T + T[:3, 3], view.instance[::stride, ::stride].ravel()


def test_every_pixel_has_depth_and_an_instance_with_a_name(scene: SampleScene) -> None:
    view = scene.render(0)
    assert view.frame.image.shape == (480, 640, 3) and view.instance.dtype == np.uint16
    assert view.frame.depth is not None and view.frame.depth.min() > 0.3 and view.frame.depth.max() < 10
    assert set(np.unique(view.instance)) <= set(scene.instance_names)
    assert sum(int((view.instance == number).sum() > 100) for number in scene.object_ids) >= 10


def test_points_of_one_view_are_seen_where_the_other_view_says(scene: SampleScene) -> None:
    first, second = scene.render(0), scene.render(7)
    points, instances = to_world(first, stride=2)
    T = second.frame.T_world_camera
    local = (points - T[:3, 3]) @ T[:3, :3]
    pixels = local @ second.frame.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    inside = (pixels > 1).all(1) & (pixels < [638, 478]).all(1) & (local[:, 2] > 0)
    pixels, expected, instances = pixels[inside], local[inside, 2], instances[inside]
    x, y = np.rint(pixels).astype(int).T
    # On a plane the depth there, extrapolated to the exact place, must be the point's own; elsewhere it is hidden.
    depth = second.frame.depth.astype(np.float64)
    inverse = 1 / depth
    gradient = np.stack([inverse[y, x + 1] - inverse[y, x - 1], inverse[y + 1, x] - inverse[y - 1, x]], 1) / 2
    there = 1 / (inverse[y, x] + (gradient * (pixels - np.stack([x, y], 1))).sum(1))
    error = np.abs(there - expected)
    same = second.instance[y, x] == instances
    assert np.median(error) < 1e-5
    assert (error < 1e-3).mean() > 0.85
    nearest = cv2.erode(second.frame.depth, np.ones((3, 3)))[y, x]
    assert (nearest < expected + 0.01).mean() > 0.999, "what is not seen must be behind something"
    assert same[error < 1e-3].mean() > 0.998, "instances disagree where the surfaces agree"


def test_the_depth_is_that_of_the_shapes() -> None:
    axes, origin, texture = np.eye(3), np.array([0.0, 0.0, 2.0]), np.zeros((8, 8, 3), np.float32)
    o, d = (0.1, 0.0, 5.0), (np.float32([0.0]), np.float32([0.0]), np.float32([-1.0]))
    o = tuple(np.float32(a - b) for a, b in zip(o, origin, strict=True))
    assert Flat(axes, origin, 1, texture, (0.5, 0.5)).hit(o, d)[0] == pytest.approx([3.0])
    assert Ellipsoid(axes, origin, 1, texture, (0.2, 0.2, 0.4)).hit(o, d)[0] == pytest.approx([3 - 0.4 * 0.75**0.5])
    sideways = (np.float32([-1.0]), np.float32([0.0]), np.float32([0.0]))
    far = tuple(np.float32(value) for value in (3.0, 0.0, 0.25))
    t, u, v = Cone(axes, origin, 1, texture, 0.4, 0.2, 1.0).hit(far, sideways)
    assert t == pytest.approx([3 - 0.35]) and u == pytest.approx([0.5]) and v == pytest.approx([0.75])
    assert np.isinf(Flat(axes, origin, 1, texture, (0.05, 0.5)).hit(o, d)[0]).all()


def test_surfaces_parametrise_what_they_hit() -> None:
    rng = np.random.default_rng(0)
    axes, texture = np.eye(3), np.zeros((8, 8, 3), np.float32)
    surfaces = [
        Flat(axes, np.zeros(3), 1, texture, (0.5, 0.3)),
        Cone(axes, np.zeros(3), 1, texture, 0.3, 0.1, 0.6),
        Ellipsoid(axes, np.zeros(3), 1, texture, (0.2, 0.3, 0.4)),
    ]
    u, v = rng.uniform(0.05, 0.95, (2, 200))
    for surface in surfaces:
        points, normals = surface.points(u, v)
        start = points + normals
        o, d = (tuple(np.float32(part.T)) for part in (start, -normals))
        t, u_hit, v_hit = surface.hit(o, d)
        np.testing.assert_allclose(t, 1, atol=1e-4)
        np.testing.assert_allclose(u_hit, u, atol=1e-4)
        np.testing.assert_allclose(v_hit, v, atol=1e-4)


def test_same_arguments_same_bytes_and_another_seed_another_scene() -> None:
    def digest(seed: int) -> list[str]:
        scene = SampleScene(seed, frames=3, width=160, height=120)
        views = [scene.render(index) for index in (0, 2)]
        return [hashlib.sha256(array.tobytes()).hexdigest() for v in views for array in (v.frame.image, v.instance)]

    first = digest(4)
    assert first == digest(4)
    assert not set(first) & set(digest(5))


def test_look_away_loses_the_objects_and_finds_them_again() -> None:
    scene = SampleScene(2, "look_away", frames=41, width=160, height=120)
    shown = [np.isin(scene.render(index).instance, scene.object_ids).sum() for index in (0, 20, 40)]
    assert shown[0] > 300 and shown[1] == 0 and shown[2] > 300


def test_stacked_objects_touch() -> None:
    """Some object stands on another: its lowest point is the other's top."""
    scene = SampleScene(5, stacked=True, frames=1, width=160, height=120)
    bottoms, tops = {}, {}
    for surface in scene._caster.surfaces:
        z = surface.corners()[:, 2]
        bottoms[surface.instance] = min(bottoms.get(surface.instance, 9.0), z.min())
        tops[surface.instance] = max(tops.get(surface.instance, 0.0), z.max())
    above = [i for i in scene.object_ids if bottoms[i] > 0.76]
    assert above
    for number in above:
        assert min(abs(tops[other] - bottoms[number]) for other in scene.object_ids) < 1e-6


def surface_points(scene: SampleScene, instance: int) -> np.ndarray:
    u, v = (grid.ravel() for grid in np.meshgrid(*[np.linspace(0, 1, 60)] * 2))
    own = [s for s in scene._caster.surfaces if s.instance == instance]
    return np.concatenate([s.points(u, v)[0] @ s.axes.T + s.origin for s in own])


def test_what_touches_touches() -> None:
    scene = SampleScene(23, stacked=True, frames=1, width=160, height=120)
    assert len(scene.touching) == 4 and {i for pair in scene.touching for i in pair} <= set(scene.object_ids)
    assert scene.description()["touching"] == [list(pair) for pair in scene.touching]
    for first, second in scene.touching:
        gap = cKDTree(surface_points(scene, first)).query(surface_points(scene, second))[0].min()
        assert gap < 0.006, (scene.instance_names[first], scene.instance_names[second])
    assert not SampleScene(23, frames=1, width=160, height=120).touching


def test_what_is_moved_is_elsewhere_when_the_camera_looks_again() -> None:
    scene = SampleScene(24, "look_away", frames=21, width=160, height=120, moved=True)
    ((number, shift),) = scene.moved.items()
    assert np.linalg.norm(shift) > 0.2 and shift[2] == 0 and scene.description()["moving"] == [number]
    places = []
    for index in (0, 20):
        points, instances = to_world(scene.render(index))
        places.append(np.median(points[instances == number], axis=0))
    np.testing.assert_allclose(places[1] - places[0], shift, atol=0.05)
    assert number not in scene.render(10).instance


def test_the_walker_walks_and_the_rest_stays() -> None:
    scene = SampleScene(25, frames=9, width=160, height=120, walker=True)
    assert scene.instance_names[scene.walker_id] == "walker" and scene.walker_id not in scene.object_ids
    assert scene.description()["moving"] == [scene.walker_id]
    middles = []
    for index in (3, 6):
        points, instances = to_world(scene.render(index))
        middles.append(points[instances == scene.walker_id].mean(axis=0))
    assert 0.8 < np.linalg.norm(middles[1] - middles[0]) < 2
    # Nothing else changes: neither what rests nor its light depends on the walker.
    alone = SampleScene(25, frames=9, width=160, height=120).render(4)
    view = scene.render(4)
    rests = cv2.erode((view.instance != scene.walker_id).astype(np.uint8), np.ones((3, 3))) > 0
    assert rests.mean() > 0.5 and np.array_equal(view.frame.depth[rests], alone.frame.depth[rests])
    assert np.array_equal(view.frame.image[rests], alone.frame.image[rests])


def test_the_scene_folder_holds_the_truth(scene: SampleScene, tmp_path) -> None:
    small = SampleScene(3, frames=2, width=160, height=120)
    folder = small.write_scene_folder(tmp_path / "scene")
    described = json.loads((folder / "scene.json").read_text())
    view = small.render(1)
    assert np.array_equal(cv2.imread(str(folder / "instance/00001.png"), cv2.IMREAD_UNCHANGED), view.instance)
    depth = cv2.imread(str(folder / "depth/00001.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16 and np.abs(depth / 1000 - view.frame.depth).max() <= 0.000501
    image = cv2.imread(str(folder / "rgb/00001.jpg"))[..., ::-1]
    assert np.abs(image.astype(int) - view.frame.image).mean() < 3
    pose = np.array(described["camera_to_world_optical"][1]).reshape(4, 4)
    np.testing.assert_allclose(pose, view.frame.T_world_camera)
    assert described["objects"] == list(small.object_ids)


def test_the_bag_holds_what_the_views_hold(tmp_path) -> None:
    from rosbags.highlevel import AnyReader

    scene = SampleScene(3, frames=2, width=160, height=120)
    folder = scene.write_bag(tmp_path / "bag")
    with AnyReader([folder]) as reader:
        assert {connection.topic for connection in reader.connections} == set(TOPICS.values())
        read = [(c.topic, stamp, reader.deserialize(raw, c.msgtype)) for c, stamp, raw in reader.messages()]
    view = scene.render(1)
    last = {topic: (stamp, message) for topic, stamp, message in read}
    stamp, image = last[TOPICS["image"]]
    assert stamp == view.frame.stamp_ns == image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
    assert image.encoding == "rgb8" and np.array_equal(image.data.reshape(120, 160, 3), view.frame.image)
    truth = last[TOPICS["truth"]][1]
    assert np.array_equal(truth.data.view(np.uint16).reshape(120, 160), view.instance)
    depth = last[TOPICS["depth"]][1].data.view(np.uint16).reshape(120, 160)
    assert np.abs(depth / 1000 - view.frame.depth).max() <= 0.000501
    np.testing.assert_allclose(last[TOPICS["camera_info"]][1].k.reshape(3, 3), scene.K)
    with pytest.raises(InputError, match="exists"):
        scene.write_bag(folder)
    (_, _), (frame, instance) = read_frames(folder)
    assert frame.stamp_ns == view.frame.stamp_ns and np.array_equal(frame.image, view.frame.image)
    assert np.array_equal(instance, view.instance) and np.abs(frame.depth - view.frame.depth).max() < 0.00051
    np.testing.assert_allclose(frame.T_world_camera, view.frame.T_world_camera, atol=1e-12)


def test_other_colours_leave_everything_where_it_is() -> None:
    plain, painted = (SampleScene(26, frames=2, width=160, height=120, noise=0, repainted=r) for r in (False, True))
    first, second = plain.render(1), painted.render(1)
    assert np.array_equal(first.instance, second.instance) and np.array_equal(first.frame.depth, second.frame.depth)
    assert np.abs(first.frame.image.astype(int) - second.frame.image).mean() > 20


def test_on_the_floor_there_is_no_table() -> None:
    scene = SampleScene(27, frames=5, width=160, height=120, layout="floor")
    assert "table" not in scene.instance_names.values() and "floor" in scene.instance_names.values()
    points, instances = to_world(scene.render(2))
    on_objects = points[np.isin(instances, scene.object_ids)]
    assert len(on_objects) > 500 and -0.01 < on_objects[:, 2].min() < 0.02 and on_objects[:, 2].max() < 0.3


@pytest.mark.parametrize("seed", [0, 1])
def test_who_walks_through_stays_in_the_room_and_passes_the_table(seed: int) -> None:
    scene = SampleScene(seed, "walk_through", frames=9, width=160, height=120)
    eyes = np.stack([scene.T_world_camera(index)[:3, 3] for index in range(9)])
    assert np.abs(eyes[:, :2]).max() < 2.7 and np.linalg.norm(eyes[-1] - eyes[0]) > 4
    shown = [np.isin(scene.render(index).instance, scene.object_ids).mean() for index in (0, 3, 8)]
    assert min(shown[:2]) > 0.01 and shown[2] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "spiral"},
        {"frames": 0},
        {"width": 3},
        {"objects": 99},
        {"noise": -1},
        {"moved": True},
        {"layout": "shelf"},
        {"dimming": 1},
    ],
)
def test_impossible_scenes_are_refused(wrong) -> None:
    with pytest.raises(InputError, match="sample scene|sample camera|look_away"):
        SampleScene(**wrong)
