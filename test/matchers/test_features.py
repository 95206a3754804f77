"""The matcher for views that lie far apart, against known motion and the generated scene's truth."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from mastsam_ros.io.sample_scene import SampleScene, SceneView
from mastsam_ros.matchers import Connecting
from mastsam_ros.matchers.features import FeatureMatcher
from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.types import Frame, InputError, Matches


@pytest.fixture(scope="module")
def views() -> list[SceneView]:
    scene = SampleScene(2, "wide_baseline", 8, 320, 240, objects=6)
    return [scene.render(index) for index in (0, 3)]


def turned(image: npt.NDArray[np.uint8], degrees: float, scale: float) -> tuple[npt.NDArray[np.uint8], np.ndarray]:
    height, width = image.shape[:2]
    A = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    return np.asarray(cv2.warpAffine(image, A, (width, height)), np.uint8), A


def errors(matches: Matches, A: np.ndarray) -> np.ndarray:
    xy0 = matches.xy0.numpy()
    return np.linalg.norm(xy0 @ A[:, :2].T + A[:, 2] - matches.xy1.numpy(), axis=1)


def test_a_turned_and_nearer_picture_is_matched_where_flow_fails(views: list[SceneView]) -> None:
    image = views[0].frame.image
    other, A = turned(image, 35, 1.25)
    matches = FeatureMatcher().match(Frame(image), Frame(other))
    assert len(matches) > 0.4 * image.shape[0] * image.shape[1]
    assert np.median(errors(matches, A)) < 0.5
    flow = FlowMatcher().match(Frame(image), Frame(other))
    assert (errors(matches, A) < 2).sum() > 4 * (errors(flow, A) < 2).sum()


def test_wide_steps_of_a_scene_agree_with_its_truth(views: list[SceneView]) -> None:
    first, second = views
    matches = FeatureMatcher().match(first.frame, second.frame)
    truth0, truth1 = first.instance, second.instance
    x0, y0 = matches.xy0.numpy().round().astype(int).T
    x1, y1 = matches.xy1.numpy().astype(int).T
    same = truth0[y0, x0] == truth1[y1, x1]
    assert len(matches) > 0.2 * truth0.size and same.mean() > 0.8, (len(matches) / truth0.size, same.mean())
    assert matches.flow is None and float(matches.confidence.min()) > 0


def test_two_places_give_no_matches(views: list[SceneView]) -> None:
    matcher = FeatureMatcher()
    noise = np.random.default_rng(0).integers(0, 256, views[0].frame.image.shape).astype(np.uint8)
    empty = np.full(noise.shape, 90, np.uint8)
    assert isinstance(matcher, Connecting)
    assert matcher.connection(views[0].frame, views[1].frame) > 20
    for other in (noise, empty):
        assert len(matcher.match(views[0].frame, Frame(other))) == 0
        assert matcher.connection(views[0].frame, Frame(other)) == 0


def test_same_views_same_bytes_and_one_size(views: list[SceneView]) -> None:
    results = [FeatureMatcher().match(views[0].frame, views[1].frame) for _ in range(2)]
    for name in ("xy0", "xy1", "confidence"):
        assert torch.equal(*(getattr(result, name) for result in results))
    small = Frame(np.ascontiguousarray(views[0].frame.image[:100]))
    with pytest.raises(InputError, match="views of one size, got 320x240 and 320x100"):
        FeatureMatcher().match(views[0].frame, small)
