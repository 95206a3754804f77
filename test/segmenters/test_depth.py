"""Planes and objects in depth images of scenes whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mastsam_ros.segmenters.regions.depth import DepthLayer, DepthSegments
from mastsam_ros.segmenters.regions.depth.connected import components
from mastsam_ros.settings import RegionsSettings

WIDTH, HEIGHT = 320, 240
K = np.array([[260.0, 0, 159.5], [0, 260.0, 119.5], [0, 0, 1]])
FLOOR = 1
TILT = np.deg2rad(35)
# The camera looks down at a floor 1 m below it; world: x right, y forward, z up.
R_WORLD_CAMERA = np.array([[1, 0, 0], [0, -np.sin(TILT), np.cos(TILT)], [0, -np.cos(TILT), -np.sin(TILT)]])
EYE = np.array([0.0, 0.0, 1.0])


def cast(boxes: list[tuple[tuple[float, ...], tuple[float, ...]]], wall: float | None = 3.0, eye: np.ndarray = EYE):
    """Depth (H, W) and truth: 1 floor, 2 wall at y = `wall`, 3... the boxes, given by two corners."""
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1) @ R_WORLD_CAMERA.T
    rays = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    depth = np.where(rays[..., 2] < 0, -eye[2] / rays[..., 2], np.inf)
    truth = np.full(depth.shape, FLOOR)
    if wall is not None:
        z = (wall - eye[1]) / rays[..., 1]
        hit = (z > 0) & (z < depth)
        depth, truth = np.where(hit, z, depth), np.where(hit, 2, truth)
    for number, (low, high) in enumerate(boxes, 3):
        a, b = (np.array(low) - eye) / rays, (np.array(high) - eye) / rays
        near, far = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
        hit = (near < far) & (near > 0) & (near < depth)
        depth, truth = np.where(hit, near, depth), np.where(hit, number, truth)
    truth[~np.isfinite(depth)] = 0
    return np.where(np.isfinite(depth), depth, 0).astype(np.float32), truth


def noisy(depth: np.ndarray, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    out = depth + generator.normal(size=depth.shape) * 0.0012 * depth**2
    out[generator.random(depth.shape) < 0.03] = 0
    return out.astype(np.float32)


def best_iou(segments: DepthSegments, mask: np.ndarray) -> tuple[float, int]:
    inside = np.bincount(segments.labels[mask], minlength=segments.count + 1)
    inside[0] = 0
    area = np.bincount(segments.labels.ravel(), minlength=segments.count + 1)
    iou = inside / (mask.sum() + area - inside)
    return float(iou.max()), int(iou.argmax())


def segment(depth: np.ndarray, lab: np.ndarray | None = None) -> DepthSegments:
    return DepthLayer(RegionsSettings()).update(depth, K, lab)


BOX = ((-0.15, 1.2, 0.0), (0.15, 1.5, 0.25))


@pytest.mark.parametrize(("noise", "least"), [(False, 0.97), (True, 0.88)])
def test_box_on_the_floor(noise: bool, least: float) -> None:
    depth, truth = cast([BOX])
    segments = segment(noisy(depth) if noise else depth)
    labels = []
    for number, plane in ((FLOOR, True), (2, True), (3, False)):
        iou, label = best_iou(segments, truth == number)
        assert iou > least
        assert segments.is_plane[label] == plane
        labels.append(label)
    assert len(set(labels)) == 3
    assert segments.count <= (3 if not noise else 5)
    assert segments.noise == pytest.approx(0.0012, rel=0.2) if noise else segments.noise < 1e-4


def test_plane_equations_are_metric() -> None:
    depth, truth = cast([BOX])
    segments = segment(depth)
    floor, wall = (best_iou(segments, truth == number)[1] for number in (FLOOR, 2))
    assert segments.planes[floor] == pytest.approx([*(R_WORLD_CAMERA.T @ [0, 0, 1]), 1.0], abs=0.01)
    assert segments.planes[wall] == pytest.approx([*(R_WORLD_CAMERA.T @ [0, -1, 0]), 3.0], abs=0.03)
    assert not segments.planes[best_iou(segments, truth == 3)[1]].any()
    assert segments.plane_ids[floor] != segments.plane_ids[wall]


@pytest.mark.parametrize("noise", [False, True])
def test_touching_boxes_of_different_height_are_two(noise: bool) -> None:
    depth, truth = cast([((-0.2, 1.25, 0), (0.15, 1.5, 0.12)), ((0.15, 1.2, 0), (0.4, 1.5, 0.35))])
    segments = segment(noisy(depth) if noise else depth)
    low, high = best_iou(segments, truth == 3), best_iou(segments, truth == 4)
    assert low[1] != high[1]
    assert min(low[0], high[0]) > (0.85 if noise else 0.95)


@pytest.mark.parametrize("noise", [False, True])
def test_stacked_boxes_are_two(noise: bool) -> None:
    depth, truth = cast([((-0.25, 1.1, 0), (0.25, 1.5, 0.15)), ((-0.1, 1.25, 0.15), (0.1, 1.45, 0.4))])
    segments = segment(noisy(depth) if noise else depth)
    below, above = best_iou(segments, truth == 3), best_iou(segments, truth == 4)
    assert below[1] != above[1]
    assert min(below[0], above[0]) > (0.8 if noise else 0.9)


def test_one_box_seen_over_its_corner_is_one() -> None:
    angle = np.deg2rad(40)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1) @ R_WORLD_CAMERA.T
    depth, _ = cast([])
    turned = rays @ turn
    eye = (EYE - [0, 1.4, 0]) @ turn
    a, b = (np.array([-0.15, -0.15, 0]) - eye) / turned, (np.array([0.15, 0.15, 0.3]) - eye) / turned
    near, far = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
    hit = (near < far) & (near > 0) & (near < depth)
    depth = np.where(hit, near, depth).astype(np.float32)
    for image in (depth, noisy(depth)):
        assert best_iou(segment(image), hit)[0] > 0.88


def test_floor_behind_a_bar_is_one_segment() -> None:
    depth, truth = cast([((-2.0, 1.3, 0), (2.0, 1.4, 0.2))])
    assert best_iou(segment(depth), truth == FLOOR)[0] > 0.97


def test_table_top_and_its_rim_are_one_and_apart_from_the_floor() -> None:
    depth, truth = cast([((-0.5, 1.0, 0.45), (0.5, 1.6, 0.5)), ((-0.1, 1.2, 0.5), (0.1, 1.35, 0.65))])
    for image in (depth, noisy(depth)):
        segments = segment(image)
        table, thing = best_iou(segments, truth == 3), best_iou(segments, truth == 4)
        assert table[0] > 0.93 and segments.is_plane[table[1]]
        assert thing[0] > 0.85 and thing[1] != table[1]


def test_missing_depth_is_filled_but_wide_holes_are_not() -> None:
    depth, truth = cast([BOX])
    generator = np.random.default_rng(3)
    depth[generator.random(depth.shape) < 0.1] = 0
    depth[100:102] = np.nan
    depth[:, 150] = np.inf
    depth[180:230, 10:80] = 0
    segments = segment(depth)
    assert best_iou(segments, truth == 3)[0] > 0.9
    assert (segments.labels[200:210, 30:60] == 0).all()
    hole = np.zeros(depth.shape, bool)
    hole[172:238, 2:88] = True
    assert (segments.labels[~hole] > 0).mean() > 0.995


def test_outlines_follow_the_picture_where_depth_is_missing() -> None:
    depth, truth = cast([BOX])
    box = truth == 3
    edge = np.zeros(box.shape, bool)
    for shift in range(-4, 5):
        for axis in (0, 1):
            edge |= np.roll(box, shift, axis) != box
    depth[edge] = 0
    lab = np.where(box[..., None], [60, 160, 150], [40, 128, 128]).astype(np.float32)
    assert best_iou(segment(depth, lab), box)[0] > 0.98
    assert best_iou(segment(depth), box)[0] > 0.8


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_no_depth_at_all(value: float) -> None:
    layer = DepthLayer(RegionsSettings())
    layer.update(cast([BOX])[0], K)
    segments = layer.update(np.full((HEIGHT, WIDTH), value, np.float32), K)
    assert segments.count == 0 and not segments.labels.any()
    assert segments.labels.shape == (HEIGHT, WIDTH) and segments.is_plane.shape == (1,)
    assert layer.update(cast([BOX])[0], K).count >= 3


@pytest.mark.parametrize("shape", [(2, 2), (5, 40), (17, 3), (240, 320)])
def test_constant_depth_of_any_size(shape: tuple[int, int]) -> None:
    segments = segment(np.full(shape, 1.5, np.float32))
    assert segments.labels.shape == shape
    assert segments.count <= 1


def test_noise_without_a_scene_does_not_fail() -> None:
    generator = np.random.default_rng(5)
    segments = segment(generator.uniform(0.3, 6, (HEIGHT, WIDTH)).astype(np.float32))
    assert segments.labels.max() == segments.count


def test_planes_keep_their_number_and_reset_forgets_them() -> None:
    layer = DepthLayer(RegionsSettings())
    seen: dict[int, set[int]] = {FLOOR: set(), 2: set()}
    for step in range(4):
        depth, truth = cast([BOX], eye=EYE + step * np.array([0.04, 0.03, 0.01]))
        segments = layer.update(noisy(depth, step), K)
        for number, ids in seen.items():
            ids.add(int(segments.plane_ids[best_iou(segments, truth == number)[1]]))
    assert all(len(ids) == 1 for ids in seen.values()) and seen[FLOOR] != seen[2]
    layer.reset()
    assert layer.update(depth, K).plane_ids.max() <= 2


def test_known_motion_carries_planes_through_a_large_step() -> None:
    layer = DepthLayer(RegionsSettings())
    before = layer.update(cast([])[0], K)
    eye = EYE + np.array([0.0, 1.2, 0.5])
    depth, truth = cast([], eye=eye)
    T = np.eye(4)
    T[:3, 3] = R_WORLD_CAMERA.T @ (eye - EYE)
    after = layer.update(depth, K, T_previous_current=T)
    for number in (FLOOR, 2):
        mask = truth == number
        old = best_iou(before, cast([])[1] == number)[1]
        assert after.plane_ids[best_iou(after, mask)[1]] == before.plane_ids[old]


def test_same_input_gives_the_same_bytes() -> None:
    depth = noisy(cast([BOX])[0])
    first, second = segment(depth), segment(depth)
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.planes.tobytes() == second.planes.tobytes()
    layer = DepthLayer(RegionsSettings())
    layer.update(cast([])[0], K)
    layer.reset()
    assert layer.update(depth, K).labels.tobytes() == first.labels.tobytes()


def test_smallest_plane_is_a_setting() -> None:
    depth = cast([BOX])[0]
    segments = DepthLayer(RegionsSettings(plane_area_m2=100.0)).update(depth, K)
    assert not segments.is_plane.any()


def test_components_are_opencv_s_over_open_links() -> None:
    rng = np.random.default_rng(3)
    inside = rng.random((40, 50)) < 0.8
    across = inside[:, :-1] & inside[:, 1:] & (rng.random((40, 49)) < 0.6)
    down = inside[:-1] & inside[1:] & (rng.random((39, 50)) < 0.6)
    # Pixels and links drawn as one image of twice the size.
    grid = np.zeros((79, 99), np.uint8)
    grid[::2, ::2], grid[::2, 1::2], grid[1::2, ::2] = inside, across, down
    number, labels = cv2.connectedComponents(grid, connectivity=4)
    found = components(inside, across, down)
    assert found[0] == number - 1
    np.testing.assert_array_equal(found[1], labels[::2, ::2])
