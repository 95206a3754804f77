"""The motion layer: silent on scenes at rest, whatever the camera does; awake to what moves on its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.segmenters.regions.dominant_motion import fit_epipolar, fit_quadratic
from mastsam_ros.segmenters.regions.foreground import Foreground, colour_bins
from mastsam_ros.segmenters.regions.motion import Cues, MotionEvidence, MotionLayer
from mastsam_ros.segmenters.regions.parallax import ParallaxGate, beyond_all
from mastsam_ros.segmenters.regions.superpixels import (
    RegionGraph,
    build_region_graph,
    compressed_lab,
    gradient_magnitude,
    in_cells,
    smoothed,
)
from mastsam_ros.types import Frame

WIDTH, HEIGHT = 320, 240
Image = npt.NDArray[np.uint8]


def texture(seed: int, tint: tuple[int, int, int], size: int = 900) -> Image:
    """Random blotches of three sizes around a colour."""
    rng = np.random.default_rng(seed)
    layers = sum(
        cv2.resize(rng.normal(0, 1, (size // s, size // s, 3)).astype(np.float32), (size, size)) for s in (4, 12, 40)
    )
    return np.clip(np.array(tint) + 22 * layers, 0, 255).astype(np.uint8)


def zoomed(picture: Image, zoom: float, dx: float, dy: float) -> Image:
    """The middle of `picture`, enlarged and shifted."""
    middle = picture.shape[0] / 2
    move = np.array([[zoom, 0, WIDTH / 2 + dx - zoom * middle], [0, zoom, HEIGHT / 2 + dy - zoom * middle]])
    return cv2.warpAffine(picture, move, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)


def paste(canvas: Image, picture: Image, corners: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Draws `picture` into the quadrilateral; gives its mask."""
    size = picture.shape[0]
    source = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    H = cv2.getPerspectiveTransform(source, corners.astype(np.float32))
    warped = cv2.warpPerspective(picture, H, (WIDTH, HEIGHT))
    mask = cv2.warpPerspective(np.ones((size, size), np.uint8), H, (WIDTH, HEIGHT)) > 0
    canvas[mask] = warped[mask]
    return mask


def square(x: float, y: float, side: float) -> npt.NDArray[np.float64]:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])


def own_motion(frames: int, stop: int = 10**6) -> Iterator[tuple[Image, npt.NDArray[np.bool_]]]:
    """A background that slides and grows, and a square that goes its own way until frame `stop`."""
    background, patch = texture(1, (120, 130, 110)), texture(2, (150, 110, 90), 200)
    for t in range(frames):
        canvas = zoomed(background, 1 + 0.004 * t, 2.0 * t, -0.7 * t)
        u = min(t, stop)
        mask = paste(canvas, patch, square(90 + 2.0 * t - 4.5 * u, 70 - 0.7 * t + 3.2 * u, 75))
        yield canvas, mask


def two_planes(frames: int) -> Iterator[Image]:
    """A camera that slides past a wall, a floor and a board in front of them, all at rest."""
    wall, floor, board = texture(3, (130, 120, 120)), texture(4, (100, 120, 140)), texture(5, (150, 120, 80), 300)
    focal = 300.0

    def seen(points: npt.NDArray[np.float64], x: float) -> npt.NDArray[np.float64]:
        moved = points - np.array([x, 0.02 * x, 0.0])
        return moved[:, :2] / moved[:, 2:] * focal + np.array([WIDTH / 2, HEIGHT / 2])

    for t in range(frames):
        x = 0.05 * t - 0.3
        canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        paste(canvas, wall, seen(np.array([[-6, -6, 6.0], [6, -6, 6], [6, 6, 6], [-6, 6, 6]]), x))
        paste(canvas, floor, seen(np.array([[-6, 1, 6.0], [6, 1, 6], [4, 1, 1.5], [-4, 1, 1.5]]), x))
        paste(
            canvas, board, seen(np.array([[-0.5, -0.5, 2.2], [0.3, -0.5, 2.4], [0.3, 0.3, 2.4], [-0.5, 0.3, 2.2]]), x)
        )
        yield canvas


def watch(images: Iterator[Image] | list[Image], layer: MotionLayer | None = None) -> Iterator[MotionEvidence]:
    """The layer's answers from the second image on, with the flow of the embedded matcher."""
    layer, matcher, previous = layer or MotionLayer(), FlowMatcher(), None
    for image in images:
        frame = Frame(image)
        if previous is not None:
            matches = matcher.match(previous, frame)
            assert matches.flow_back is not None and matches.visible is not None
            lab = compressed_lab(smoothed(image))
            graph = build_region_graph(smoothed(image), gradient=gradient_magnitude(lab))
            yield layer.update(graph, Cues.of(graph, lab), matches.flow_back.numpy(), matches.visible.numpy())
        previous = frame


def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float(np.sum(a & b) / np.sum(a | b))


def test_a_square_that_goes_its_own_way_is_found() -> None:
    images, masks = zip(*own_motion(10), strict=True)
    answers = list(watch(list(images)))
    for answer, mask in list(zip(answers, masks[1:], strict=True))[2:]:
        assert max(iou(answer.labels == k, mask) for k in range(1, answer.count + 1)) > 0.8
        assert np.array_equal(answer.moving, answer.components > 0)


def test_a_camera_at_rest_finds_what_moves() -> None:
    background, patch = texture(1, (120, 130, 110)), texture(2, (150, 110, 90), 200)
    images, masks = [], []
    for t in range(8):
        canvas = zoomed(background, 1, 0, 0)
        masks.append(paste(canvas, patch, square(60 + 4 * t, 70, 75)))
        images.append(canvas)
    *_, last = watch(images)
    assert iou(last.labels > 0, masks[-1]) > 0.8


def test_what_stops_is_kept_for_a_while() -> None:
    images, masks = zip(*own_motion(12, stop=7), strict=True)
    *_, last = watch(list(images)[:10])
    assert iou(last.labels > 0, masks[9]) > 0.6


def test_parallax_is_not_motion() -> None:
    answers = list(watch(two_planes(14)))
    assert max(np.mean(answer.labels > 0) for answer in answers[3:]) < 0.01


@pytest.mark.parametrize("certain_columns", [40, 8])
def test_a_body_of_which_little_is_certain_does_not_turn_a_scene_at_rest_over(certain_columns: int) -> None:
    """It lies along the epipolar lines for three frames, and off them for five."""
    gate, size = ParallaxGate(), (90, 120)
    bodies = np.zeros(size, np.int32)
    bodies[20:60, 40:80] = 1
    parallax = np.broadcast_to(np.linspace(0, 3, size[1], dtype=np.float32), size)
    flow, nothing = np.zeros((*size, 2), np.float32), np.zeros(size, np.float32)
    certain = np.ones(size, bool)
    certain[20:60, 40 + certain_columns : 80] = False
    for t in range(8):
        off_lines = np.where((bodies > 0) & (t >= 3), np.float32(1.5), np.float32(0.05))
        rests = gate.at_rest(bodies, 1, flow, parallax, off_lines, nothing, certain)
    assert rests[0] == (certain_columns < 40)


@pytest.mark.parametrize("camera", ["still", "slides", "grows"])
def test_a_flat_scene_at_rest_is_silent(camera: str) -> None:
    background = texture(6, (120, 120, 130))
    step = {"still": (0, 0, 0), "slides": (0, 3.3, -1.2), "grows": (0.02, 0, 0)}[camera]
    images = [zoomed(background, 1 + step[0] * t, step[1] * t, step[2] * t) for t in range(7)]
    assert all(answer.count == 0 for answer in watch(images))


def test_blank_pictures_are_silent() -> None:
    assert all(answer.count == 0 for answer in watch([np.full((HEIGHT, WIDTH, 3), 127, np.uint8)] * 4))


def test_something_that_fills_the_picture_leaves_a_background() -> None:
    images = []
    for t in range(6):
        canvas = zoomed(texture(1, (120, 130, 110)), 1, 2.0 * t, 0)
        paste(canvas, texture(2, (150, 110, 90), 300), square(30 - 3 * t, 5 + 2 * t, 240))
        images.append(canvas)
    assert all(np.mean(answer.labels > 0) < 0.7 for answer in watch(images))


def scene_of_blotches() -> tuple[RegionGraph, npt.NDArray[np.float32], Image]:
    image = zoomed(texture(1, (120, 130, 110)), 1, 0, 0)
    return build_region_graph(smoothed(image)), compressed_lab(smoothed(image)), image


def test_the_same_pictures_give_the_same_bytes_and_reset_forgets() -> None:
    images = [image for image, _ in own_motion(5)]
    layer = MotionLayer()
    first = [answer.labels.tobytes() for answer in watch(images, layer)]
    layer.reset()
    assert [answer.labels.tobytes() for answer in watch(images, layer)] == first


def test_another_picture_size_starts_anew() -> None:
    layer = MotionLayer()
    list(watch([image for image, _ in own_motion(4)], layer))
    small = [np.ascontiguousarray(image[:120, :160]) for image, _ in own_motion(3)]
    assert [answer.labels.shape for answer in watch(small, layer)] == [(120, 160)] * 2


def test_the_quadratic_fit_ignores_an_outlying_third() -> None:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    flow = np.dstack([1 + 0.01 * x, 0.02 * y - 1e-5 * x * x])
    other = (abs(x - 120) < 80) & (abs(y - 130) < 80)
    fitted = fit_quadratic(np.where(other[..., None], flow + 7, flow).astype(np.float32), np.ones_like(x))
    assert np.abs(fitted.flow - flow).max() < 0.2
    assert fitted.noise < 0.3


@pytest.mark.parametrize("translation", [(0.05, 0.0, 0.0), (0.01, -0.03, 0.05)])
def test_the_epipolar_fit_explains_any_depth_but_not_a_mover(translation: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    focal = 300.0
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    rays = np.dstack([(x - WIDTH / 2) / focal, (y - HEIGHT / 2) / focal, np.ones_like(x)])
    depth = cv2.resize(rng.uniform(1, 5, (12, 16)), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    R = cv2.Rodrigues(np.array([0.004, -0.012, 0.003]))[0]
    points = (rays * depth[..., None]) @ R.T + translation
    flow = points[..., :2] / points[..., 2:] * focal + [WIDTH / 2, HEIGHT / 2] - np.dstack([x, y])
    mover = np.zeros((HEIGHT, WIDTH), bool)
    mover[80:140, 60:120] = True
    flow[mover] += np.array([5.0, 0.0]) if translation[0] < 0.02 else np.array([0.0, 4.0])
    motion = fit_epipolar(flow.astype(np.float32), np.ones((HEIGHT, WIDTH), np.float32))
    error = motion.explain(flow.astype(np.float32)).error
    assert np.percentile(error[~mover], 95) < 0.15
    assert np.median(error[mover]) > 1.5


@pytest.mark.parametrize("upside_down", [False, True])
def test_what_goes_along_with_the_camera_seems_to_be_beyond_all_that_rests(upside_down: bool) -> None:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    # A wall 6 m away and the floor before it; the camera slides to the right and turns a little.
    inverse = np.maximum(1 / 6, (y - 120) / 300)
    body = np.zeros((HEIGHT, WIDTH), bool)
    body[100:200, 120:180] = True
    certain = np.ones((HEIGHT, WIDTH), bool)
    for follows in (False, True):
        seen = np.where(body, 0.0 if follows else 1 / 1.2, inverse)
        flow = np.dstack([300 * 0.05 * seen + 1.5, np.zeros_like(seen)]).astype(np.float32)
        if upside_down:
            flow = np.ascontiguousarray(flow[::-1])
        shown = body[::-1] if upside_down else body
        lines = fit_epipolar(flow, np.ones((HEIGHT, WIDTH), np.float32)).explain(flow)
        beyond = beyond_all(lines, certain, shown.astype(np.int32), None)
        assert np.mean(beyond[~shown] < 0.3) > 0.98 or upside_down  # flow is blurred along outlines
        inside = float(np.median(beyond[shown]))
        # Upside down, near and far change places: what is nearest of all is mistaken for what is beyond them.
        assert (inside > 1.5) == (follows != upside_down), (follows, inside)


def test_the_cut_cleans_noisy_evidence() -> None:
    graph, lab, image = scene_of_blotches()
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[60:160, 80:220] = True
    noise = np.random.default_rng(0).normal(0, 2, (HEIGHT // 4, WIDTH // 4)).astype(np.float32)
    observed = np.where(truth, 1.0, -1.0).astype(np.float32) + cv2.resize(noise, (WIDTH, HEIGHT))
    raw = iou(observed > 0, truth)
    bins = np.ascontiguousarray(in_cells(colour_bins(lab)))
    _, chosen = Foreground().update(graph, graph.mean(lab), bins, in_cells(observed))
    assert iou(chosen[graph.labels], truth) > max(0.8, raw + 0.3)


def recorded(folder: str, pattern: str, start: int, stop: int) -> list[Image]:
    """Images of a recorded sequence at about 100,000 pixels; skips the test where there is none."""
    data = Path(os.environ.get("MASTSAM_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / folder
    files = sorted(data.glob(pattern))[start:stop]
    if not files:
        pytest.skip(f"no {folder} data: set MASTSAM_DATA to a folder that holds it")
    images = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    scale = np.sqrt(100_000 / (images[0].shape[0] * images[0].shape[1]))
    return [cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for image in images]


def test_a_recorded_dog_is_found() -> None:
    images = recorded("davis", "JPEGImages/480p/dog/*.jpg", 0, 12)
    truth = recorded("davis", "Annotations/480p/dog/*.png", 0, 12)[-1][..., 0] > 127
    *_, last = watch(images)
    assert iou(last.labels > 0, truth) > 0.7


@pytest.mark.parametrize("scene", ["orbit", "wide_baseline"])
def test_recorded_scenes_at_rest_are_silent(scene: str) -> None:
    answers = list(watch(recorded("scenes", f"{scene}/rgb/*.jpg", 0, 14)))
    assert np.mean([answer.labels > 0 for answer in answers[3:]]) < 0.01
