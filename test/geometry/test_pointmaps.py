"""Clouds from the matcher's pointmaps: a made-up room seen by two cameras."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mastsam_ros.device import on_host
from mastsam_ros.geometry.pointmaps import PointmapLifter, PointmapPair, camera_in_pointmap
from mastsam_ros.geometry.pose import rigid_motion
from mastsam_ros.pipeline import Mastsam
from mastsam_ros.settings import GeometrySettings, Settings
from mastsam_ros.types import CandidateMasks, Frame, LabelledCloud, Matches, Pointmap, PointPrompts

HEIGHT, WIDTH = 60, 80
K = np.array([[70.0, 0, (WIDTH - 1) / 2], [0, 70.0, (HEIGHT - 1) / 2], [0, 0, 1]])
T_PREVIOUS_CURRENT = rigid_motion(np.array([0.05, -0.1, 0.08, 0.3, -0.1, 0.2]))
"""Maps points of the current camera into the previous one."""


def depth_of(seed: int) -> np.ndarray:
    """Two walls and a box in front of them, with gentle relief."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    depth = 3 + 0.02 * x + 0.3 * np.sin((x + seed) / 9) * np.cos(y / 7)
    depth[20:40, 30:55] = 1.5 + 0.01 * y[20:40, 30:55]
    return depth


def rays_times(depth: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(K).T * depth[..., None]


def pointmap(points: np.ndarray, metric: bool = True) -> Pointmap:
    confidence = torch.full((HEIGHT, WIDTH), 0.8)
    confidence[:5] = 0
    return Pointmap(torch.from_numpy(points.astype(np.float32)), confidence, metric)


def matches(scale: float = 1.0, noise: float = 0.0, metric: bool = True) -> Matches:
    in_current = rays_times(depth_of(0))
    in_previous = in_current @ T_PREVIOUS_CURRENT[:3, :3].T + T_PREVIOUS_CURRENT[:3, 3]
    in_previous += np.random.default_rng(1).normal(0, noise, in_previous.shape)
    own = rays_times(depth_of(5))
    y, x = np.mgrid[2:HEIGHT:4, 2:WIDTH:4]
    xy = np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.float32)
    return Matches(
        torch.from_numpy(xy),
        torch.from_numpy(xy),
        torch.ones(len(xy)),
        pointmap0=pointmap(own * scale, metric),
        pointmap1=pointmap(in_previous * scale, metric),
    )


def lifted(
    lifter: PointmapLifter, number: int, view: Frame, labels: np.ndarray, matches: Matches, settings: GeometrySettings
) -> LabelledCloud | None:
    pair = PointmapPair.of(matches, settings)
    if pair is None:
        return None
    fetched = dataclasses.replace(pair, values=tuple(on_host(*pair.values)))
    return lifter.lift(number, view, labels, fetched, settings)


def view(with_K: bool = True) -> Frame:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Frame(image, K=K if with_K else None)


@pytest.mark.parametrize("with_K", [True, False])
def test_points_come_out_in_the_current_camera(with_K: bool) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels[20:40, 30:55] = 7
    frame = view(with_K)
    cloud = lifted(PointmapLifter(), 1, frame, labels, matches(), GeometrySettings(points_stride=1))
    assert cloud is not None and cloud.metric and len(cloud) > 3000
    pixels = cloud.xyz.astype(np.float64) @ K.T / cloud.xyz[:, 2:]
    x, y = pixels[:, 0].round().astype(int), pixels[:, 1].round().astype(int)
    assert np.abs(pixels[:, 0] - x).max() < 0.05
    np.testing.assert_allclose(cloud.xyz[:, 2], depth_of(0)[y, x], rtol=0.005)
    assert (cloud.instance == labels[y, x]).all() and (cloud.rgb == frame.image[y, x]).all()
    assert y.min() >= 5 and np.allclose(cloud.confidence, 0.8)


def test_noise_outliers_and_scale() -> None:
    exact = np.linalg.inv(T_PREVIOUS_CURRENT)
    both = matches(noise=0.01).pointmap1
    assert both is not None
    points, confidence = both.points.numpy().astype(np.float64), both.confidence.numpy()
    points[:, 45:, 0] += 0.8  # a third moved by itself
    T = camera_in_pointmap(points, confidence, K)
    assert T is not None
    np.testing.assert_allclose(T, exact, atol=0.01)
    tiny = camera_in_pointmap(points * 1e-3, confidence, K)
    assert tiny is not None
    np.testing.assert_allclose(tiny[:3, 3], T[:3, 3] * 1e-3, atol=1e-6)
    assert (camera_in_pointmap(points, confidence, K) == T).all()


def test_points_that_agree_on_nothing_give_no_cloud() -> None:
    noise = np.random.default_rng(2).normal(0, 1, (HEIGHT, WIDTH, 3))
    assert camera_in_pointmap(noise, np.ones((HEIGHT, WIDTH), np.float32), K) is None
    assert camera_in_pointmap(noise, np.zeros((HEIGHT, WIDTH), np.float32), K) is None
    assert camera_in_pointmap(noise * 0, np.ones((HEIGHT, WIDTH), np.float32), K) is None
    none = Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
    assert lifted(PointmapLifter(), 1, view(), np.zeros((HEIGHT, WIDTH), np.uint16), none, GeometrySettings()) is None


def pair(number: int, scale: float, metric: bool, noise: float = 0.0) -> Matches:
    """The pointmaps of frames number - 1 and number: the camera goes by the same step each time, the room changes."""
    before, now = rays_times(depth_of(number - 1)), rays_times(depth_of(number))
    now = now @ T_PREVIOUS_CURRENT[:3, :3].T + T_PREVIOUS_CURRENT[:3, 3]
    rng = np.random.default_rng(number)
    maps = [points + rng.normal(0, noise, points.shape) for points in (before, now)]
    none = torch.zeros(0, 2)
    return Matches(none, none, torch.zeros(0), None, None, None, *(pointmap(scale * m, metric) for m in maps))


SCALES = (2.0, 0.7, 5.0, 1.3, 0.4, 3.0)


def mean_depths(metric: bool, noise: float = 0.0, missing: int = -1) -> tuple[list[float], PointmapLifter]:
    """Depth of every cloud beside the true one, for pairs of the SCALES; frame `missing` is not lifted."""
    lifter, labels, found = PointmapLifter(), np.zeros((HEIGHT, WIDTH), np.uint16), []
    for number, scale in enumerate(SCALES, start=1):
        if number == missing:
            continue
        cloud = lifted(
            lifter, number, view(), labels, pair(number, scale, metric, noise), GeometrySettings(edge_ratio=10)
        )
        assert cloud is not None and cloud.metric is metric
        true = depth_of(number)[6::2, ::2]  # above it there is no confidence
        found.append(float(np.median(cloud.xyz[:, 2]) / np.median(true)))
    return found, lifter


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_first_pairs_scale_goes_on(noise: float) -> None:
    found, lifter = mean_depths(metric=False, noise=noise)
    np.testing.assert_allclose(found, SCALES[0], rtol=0.001 if not noise else 0.02)
    assert lifter.scale == pytest.approx(SCALES[0] / SCALES[-1], rel=0.02)
    lifter.reset()
    assert lifter.scale == 1


def test_a_pair_without_the_one_before_goes_on_with_the_last_ratio() -> None:
    found, _ = mean_depths(metric=False, missing=3)
    np.testing.assert_allclose(found[:2], SCALES[0], rtol=0.001)
    assert found[2] == pytest.approx(SCALES[3] * SCALES[0] / SCALES[1], rel=0.001)
    np.testing.assert_allclose(found[3:], found[2], rtol=0.001)


def test_metric_pairs_are_drawn_to_their_own_scales() -> None:
    lifter, labels = PointmapLifter(), np.zeros((HEIGHT, WIDTH), np.uint16)
    rng = np.random.default_rng(4)
    own, carried = [], []
    for number in range(1, 61):
        scale = float(np.exp(rng.normal(0, 0.1)))
        assert lifted(lifter, number, view(), labels, pair(number, scale, True), GeometrySettings()) is not None
        own.append(np.log(scale))
        carried.append(np.log(scale * lifter.scale))
    # From frame to frame the scale changes by a tenth of what the pairs' own does, and it stays about right.
    assert np.abs(np.diff(carried)).mean() < 0.2 * np.abs(np.diff(own)).mean()
    assert abs(np.mean(carried[20:])) < 0.06 and np.std(carried[20:]) < 0.7 * np.std(own)


class _Room:
    """A matcher with pointmaps, and a segmenter that sees the box."""

    def __init__(self, metric: bool) -> None:
        self.metric = metric

    def match(self, previous: Frame, current: Frame) -> Matches:
        return matches(scale=1.0 if self.metric else 20.0, metric=self.metric)

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        pass

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        box = torch.zeros(len(prompts), 1, HEIGHT, WIDTH, dtype=torch.bool)
        box[:, :, 20:40, 30:55] = True
        return CandidateMasks(box, torch.ones(len(prompts), 1))

    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        return self.predict(PointPrompts(torch.zeros(1, 1, 2), torch.ones(1, 1)))


@pytest.mark.parametrize("metric", [True, False])
def test_the_pipeline_lifts_without_depth(metric: bool) -> None:
    room = _Room(metric)
    settings = Settings.from_mapping({"device": "cpu", "geometry.points_stride": 1})
    mastsam = Mastsam(room, room, settings)
    assert mastsam.step(view()).points is None  # one view: no pointmap yet
    result = mastsam.step(view())
    assert result.points is not None and result.points.metric is metric
    (track,) = result.tracks
    assert (result.points.instance == track.id).sum() > 300
    if metric:
        assert track.position is not None and abs(track.position[2] - depth_of(0)[20:40, 30:55].mean()) < 0.1
    else:
        assert track.position is None  # positions are metres
    with_depth = Frame(view().image, K=K, depth=np.full((HEIGHT, WIDTH), 9.0, np.float32))
    lifted = mastsam.step(with_depth).points
    assert lifted is not None and (lifted.xyz[:, 2] == 9).all()
