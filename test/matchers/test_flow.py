"""The embedded default's matcher against known motion."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from mastsam_ros.matchers.flow import FlowMatcher
from mastsam_ros.settings import FlowSettings
from mastsam_ros.types import Frame, InputError


def texture(seed: int = 0, height: int = 240, width: int = 320) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return (128 + (smooth - smooth.mean()) * 5).clip(0, 255).astype(np.uint8)


def moved(image: npt.NDArray[np.uint8], dx: float, dy: float) -> npt.NDArray[np.uint8]:
    shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(image, shift, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


def test_a_shift_is_found_to_sub_pixel() -> None:
    image = texture()
    matches = FlowMatcher().match(Frame(image), Frame(moved(image, 5.5, -3.25)))
    motion = (matches.xy1 - matches.xy0).numpy()
    error = np.linalg.norm(motion - (5.5, -3.25), axis=1)
    assert np.median(error) < 0.1 and len(matches) > 0.8 * 240 * 320
    assert matches.flow is not None and matches.flow_back is not None
    assert np.allclose(np.median(matches.flow.numpy().reshape(-1, 2), 0), (5.5, -3.25), atol=0.1)
    assert np.allclose(np.median(matches.flow_back.numpy().reshape(-1, 2), 0), (-5.5, 3.25), atol=0.1)


def test_matches_are_in_both_pictures_and_believed() -> None:
    image = texture()
    matches = FlowMatcher().match(Frame(image), Frame(moved(image, 20, 0)))
    for xy in (matches.xy0.numpy(), matches.xy1.numpy()):
        assert xy.min() >= 0 and (xy[:, 0] <= 319).all() and (xy[:, 1] <= 239).all()
    confidence = matches.confidence.numpy()
    assert ((confidence > 0) & (confidence <= 1)).all()
    assert matches.visible is not None and int(matches.visible.sum()) == len(matches)


def test_what_was_hidden_has_no_match() -> None:
    before, after = texture(0), texture(0)
    before[80:160, 100:180] = texture(7)[80:160, 100:180]
    after[80:160, 140:220] = texture(7)[80:160, 100:180]
    matches = FlowMatcher().match(Frame(before), Frame(after))
    assert matches.visible is not None
    assert matches.visible.numpy()[90:150, 105:135].mean() < 0.5 < 0.8 < matches.visible.numpy()[200:, :].mean()


def test_flow_between_depth_images_has_a_size_of_its_own() -> None:
    image, deep = texture(), np.ones((240, 320), np.float32)
    shifted = moved(image, 5.5, -3.25)
    matcher = FlowMatcher(FlowSettings(scale=0.5, scale_with_depth=1.0))
    pairs = {
        1.0: (Frame(image, depth=deep), Frame(shifted, depth=deep)),
        0.5: (Frame(image, depth=deep), Frame(shifted)),
    }
    for scale, (before, now) in pairs.items():
        found = matcher.match(before, now)
        expected = FlowMatcher(FlowSettings(scale=scale)).match(Frame(image), Frame(shifted))
        assert torch.equal(found.xy0, expected.xy0) and found.flow is not None
        assert found.flow.shape == (240, 320, 2)
    # What is kept of the last picture has the size of the pair before.
    again = matcher.match(pairs[0.5][1], Frame(image, depth=deep))
    assert torch.equal(again.xy0, FlowMatcher(FlowSettings(scale=0.5)).match(Frame(shifted), Frame(image)).xy0)


def test_pictures_of_different_size_are_refused() -> None:
    with pytest.raises(InputError, match="320x240 and 160x120"):
        FlowMatcher().match(Frame(texture()), Frame(texture(0, 120, 160)))


@pytest.mark.parametrize("size", [(2, 2), (3, 17), (16, 16), (31, 40)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    image = texture(1)[: size[0], : size[1]].copy()
    matches = FlowMatcher().match(Frame(image), Frame(image))
    assert matches.flow is not None and matches.flow.shape == (*size, 2)
