"""MASt3R through the matcher's seam: tiny random weights, and a stand-in network with exact features."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mastsam_ros.matchers import create_matcher
from mastsam_ros.matchers.mast3r.config import Mast3rConfig
from mastsam_ros.matchers.mast3r.heads import ViewPrediction
from mastsam_ros.matchers.mast3r.matcher import Mast3rMatcher
from mastsam_ros.matchers.mast3r.network import EncodedView, Mast3rNetwork
from mastsam_ros.settings import Mast3rSettings, Settings
from mastsam_ros.types import Frame, Matches, ModelError

SMALL = Mast3rSettings(image_size=64, subsample=4, min_confidence=0.0, min_point_confidence=0.0)


def _frames(count: int, width: int = 80, height: int = 60) -> list[Frame]:
    rng = np.random.default_rng(5)
    wide = rng.integers(0, 256, (height, width + 4 * count, 3), dtype=np.uint8)
    return [Frame(np.ascontiguousarray(wide[:, 4 * n : 4 * n + width])) for n in range(count)]


def _equal(a: Matches, b: Matches) -> bool:
    assert a.pointmap0 and a.pointmap1 and b.pointmap0 and b.pointmap1
    pairs = [
        (a.xy0, b.xy0),
        (a.xy1, b.xy1),
        (a.confidence, b.confidence),
        (a.pointmap0.points, b.pointmap0.points),
        (a.pointmap1.points, b.pointmap1.points),
        (a.pointmap1.confidence, b.pointmap1.confidence),
    ]
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("size", [(80, 60), (60, 80), (64, 64), (48, 30), (200, 131)])
def test_matches_and_pointmaps_have_the_frames_form(tiny_network: Mast3rNetwork, size: tuple[int, int]) -> None:
    previous, current = _frames(2, *size)
    matches = Mast3rMatcher(SMALL, network=tiny_network).match(previous, current)
    assert len(matches) > 3
    for xy in (matches.xy0, matches.xy1):
        assert xy.dtype == torch.float32
        assert (xy >= -0.5).all() and (xy <= torch.tensor(size) - 0.5).all()
    assert ((matches.confidence >= 0) & (matches.confidence <= 1)).all()
    for pointmap in (matches.pointmap0, matches.pointmap1):
        assert pointmap is not None and pointmap.metric
        assert pointmap.points.shape == (size[1], size[0], 3)
        assert pointmap.confidence.shape == (size[1], size[0])
        assert pointmap.points.isfinite().all()
        assert pointmap.confidence.min() >= 0 and pointmap.confidence.max() < 1


def test_each_new_frame_is_encoded_once(tiny_network: Mast3rNetwork) -> None:
    encoded: list[int] = []
    tiny_network.patch_embed.register_forward_hook(lambda *_: encoded.append(1))
    matcher = Mast3rMatcher(SMALL, network=tiny_network)
    frames = _frames(5)
    for previous, current in itertools.pairwise(frames):
        matcher.match(previous, current)
    assert len(encoded) == 5
    matcher.match(dataclasses.replace(frames[-1], stamp_ns=9), frames[0])
    assert len(encoded) == 6


def test_kept_encodings_change_nothing(tiny_network: Mast3rNetwork) -> None:
    first, second, third = _frames(3)
    rolling = Mast3rMatcher(SMALL, network=tiny_network)
    rolling.match(first, second)
    assert _equal(rolling.match(second, third), Mast3rMatcher(SMALL, network=tiny_network).match(second, third))


def test_a_frame_that_is_not_the_kept_one_is_encoded_anew(tiny_network: Mast3rNetwork) -> None:
    first, second, third = _frames(3)
    rolling = Mast3rMatcher(SMALL, network=tiny_network)
    rolling.match(first, second)
    assert _equal(rolling.match(first, third), Mast3rMatcher(SMALL, network=tiny_network).match(first, third))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_runs(tiny_network: Mast3rNetwork, precision: str) -> None:
    settings = dataclasses.replace(SMALL, precision=precision)
    matcher = Mast3rMatcher(settings, network=tiny_network)
    assert {str(p.dtype) for p in matcher.network.parameters()} == {f"torch.{precision}"}
    matches = matcher.match(*_frames(2))
    assert len(matches) > 3
    assert matches.pointmap0 is not None and matches.pointmap0.points.dtype == torch.float32


def test_confidence_thresholds_leave_out_matches_and_points(tiny_network: Mast3rNetwork) -> None:
    previous, current = _frames(2)
    everything = Mast3rMatcher(SMALL, network=tiny_network).match(previous, current)
    strict = dataclasses.replace(SMALL, min_confidence=0.5, min_point_confidence=0.4, metric=False)
    sure = Mast3rMatcher(strict, network=tiny_network).match(previous, current)
    assert torch.equal(sure.confidence, everything.confidence[everything.confidence >= 0.5])
    assert 0 < len(sure) < len(everything)
    assert sure.pointmap1 is not None and everything.pointmap1 is not None
    assert not sure.pointmap1.metric
    assert 0 < (sure.pointmap1.confidence > 0).sum() < (everything.pointmap1.confidence > 0).sum()


def test_numbers_that_are_not_finite_are_an_error(tiny_network: Mast3rNetwork) -> None:
    matcher = Mast3rMatcher(SMALL, network=tiny_network)
    matcher.network.enc_norm.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="no finite numbers"):
        matcher.match(*_frames(2))


def test_the_settings_choose_mast3r_and_its_checkpoint(tiny_network: Mast3rNetwork, tmp_path: Path) -> None:
    settings = Settings.from_mapping({"device": "cpu", "matcher.name": "mast3r", "mast3r.image_size": 64})
    with pytest.raises(ModelError, match=r"set mast3r\.checkpoint"):
        create_matcher(settings)
    torch.save({"model": tiny_network.state_dict()}, tmp_path / "tiny.pth")
    matcher = create_matcher(settings.updated({"mast3r.checkpoint": str(tmp_path / "tiny.pth")}))
    assert isinstance(matcher, Mast3rMatcher)
    assert matcher.match(*_frames(2)).pointmap0 is not None


class _PatchFeatures(Mast3rNetwork):
    """Stands in for the network: a pixel's descriptor is the normalised patch around it."""

    def encode(self, image: torch.Tensor) -> EncodedView:
        return EncodedView(image, image.shape[-2], image.shape[-1])

    def decode(self, first: EncodedView, second: EncodedView) -> tuple[ViewPrediction, ViewPrediction]:
        return self._predict(first), self._predict(second)

    def _predict(self, view: EncodedView) -> ViewPrediction:
        patches = F.unfold(view.tokens, 9, padding=4)[0].T
        descriptors = F.normalize(patches - patches.mean(dim=1, keepdim=True), dim=1)
        ones = torch.ones(1, view.height, view.width)
        return ViewPrediction(
            ones[..., None].expand(-1, -1, -1, 3), ones, descriptors.view(1, view.height, view.width, -1), ones
        )


@pytest.mark.parametrize(
    ("size0", "size1"), [((320, 240), (320, 240)), ((280, 200), (220, 270)), ((180, 180), (180, 180))]
)
def test_matches_follow_an_analytic_warp(size0: tuple[int, int], size1: tuple[int, int]) -> None:
    """Both frames show one texture of sine waves, seen through a known affine map between their pixels."""
    rng = np.random.default_rng(8)
    waves = rng.uniform(-0.35, 0.35, (40, 2)), rng.uniform(0, 2 * np.pi, (3, 40))
    to_first = np.array([[0.99, 0.03], [-0.03, 0.99]])  # frame 1's pixels -> frame 0's
    shift = np.array(size0) / 2 - to_first @ (np.array(size1) / 2) + (3.37, -2.21)

    def picture(size: tuple[int, int], linear: np.ndarray, offset: np.ndarray) -> np.ndarray:
        x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        at = np.stack([x, y], axis=-1) @ linear.T + offset
        value = np.sin((at @ waves[0].T)[:, :, None, :] + waves[1]).sum(axis=-1)
        return np.clip(np.round(127.5 + 22 * value), 0, 255).astype(np.uint8)

    previous = Frame(picture(size0, np.eye(2), np.zeros(2)))
    current = Frame(picture(size1, to_first, shift))
    with torch.device("meta"):
        network = _PatchFeatures(Mast3rConfig.tiny())
    network.to_empty(device="cpu")
    settings = Mast3rSettings(image_size=256, subsample=16, min_confidence=0.0)
    matches = Mast3rMatcher(settings, network=network).match(previous, current)
    assert len(matches) > 50
    error = matches.xy1.numpy() @ to_first.T + shift - matches.xy0.numpy()
    assert np.median(np.linalg.norm(error, axis=1)) < 0.5
    assert np.abs(np.median(error, axis=0)).max() < 0.15


def test_the_compiled_network_gives_the_same(tiny_network: Mast3rNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = _frames(2)
    plain = Mast3rMatcher(SMALL, network=tiny_network).match(*frames)
    # Traced as for compilation, then run without a C++ compiler, which would take minutes.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    compiled = Mast3rMatcher(dataclasses.replace(SMALL, compile=True), network=tiny_network).match(*frames)
    assert _equal(plain, compiled)
