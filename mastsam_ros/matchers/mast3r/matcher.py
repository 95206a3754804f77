"""MASt3R as a matcher: encodes each new frame once, decodes it with the previous one, matches their features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.matchers.mast3r.checkpoint import load_network
from mastsam_ros.matchers.mast3r.heads import ViewPrediction
from mastsam_ros.matchers.mast3r.network import EncodedView, Mast3rNetwork
from mastsam_ros.matchers.mast3r.preprocessing import ImageMapping, network_image, pointmap_on_frame
from mastsam_ros.matchers.mast3r.reciprocal import match_views
from mastsam_ros.matchers.mast3r.reference import ReferenceNetwork, load_reference
from mastsam_ros.settings import Mast3rSettings
from mastsam_ros.types import Frame, Matches, ModelError, Pointmap, SettingsError


@dataclass(frozen=True, eq=False)
class _EncodedFrame:
    image: npt.NDArray[np.uint8]
    mapping: ImageMapping
    view: EncodedView


class Mast3rMatcher:
    """Sparse reciprocal matches and two dense pointmaps, both in the previous frame's camera.

    settings.checkpoint names the weights; `network` is used instead where it is given. Nothing is downloaded.
    Raises ModelError if the weights cannot be loaded, MissingPackageError and SettingsError for a reference
    implementation that is not installed or is asked for half precision.
    """

    def __init__(
        self,
        settings: Mast3rSettings | None = None,
        device: torch.device | str = "cpu",
        network: Mast3rNetwork | ReferenceNetwork | None = None,
    ) -> None:
        self._settings = settings or Mast3rSettings()
        self._device = torch.device(device)
        self._precision = _precision(self._settings, self._device)
        network = network if network is not None else _loaded(self._settings)
        self.network = network.to(device=self._device, dtype=self._precision).eval().requires_grad_(False)
        compiled = self._settings.compile
        self._encode = torch.compile(self.network.encode) if compiled else self.network.encode
        self._decode = torch.compile(self.network.decode) if compiled else self.network.decode
        self._kept: _EncodedFrame | None = None

    @torch.no_grad()
    def match(self, previous: Frame, current: Frame) -> Matches:
        """Matches and pointmaps, on the device.

        xy0, xy1: pixels of each frame (centres of the network's pixels, so not whole numbers), confidence in
        [0, 1] from the descriptors' own. pointmap0, pointmap1: at every pixel of the previous and of the current
        frame; with c the model's confidence (1 and more), theirs is 1 - 1/c, and 0 outside the network's view
        and below `min_point_confidence`. Raises ModelError if the network gives no finite numbers.
        """
        before, now = self._encoded(previous), self._encoded(current)
        self._kept = now
        view0, view1 = self._decode(before.view, now.view)
        xy0, xy1, confidence = match_views(view0, view1, self._settings.subsample, self._settings.min_confidence)
        if len(xy0) == 0 and not torch.isfinite(view0.descriptor_confidence).all():
            precision = str(self._precision).removeprefix("torch.")
            raise ModelError(f"MASt3R gave no finite numbers in {precision}: set mast3r.precision to float32")
        return Matches(
            xy0=before.mapping.to_frame(xy0.float()),
            xy1=now.mapping.to_frame(xy1.float()),
            confidence=confidence,
            pointmap0=self._pointmap(view0, before.mapping),
            pointmap1=self._pointmap(view1, now.mapping),
        )

    def _encoded(self, frame: Frame) -> _EncodedFrame:
        """The encoder's tokens of a frame; those of the latest frame are kept, so the previous one costs nothing."""
        if self._kept is not None and self._kept.image is frame.image:
            return self._kept
        mapping = ImageMapping.of_size(
            frame.width, frame.height, self._settings.image_size, self.network.config.patch_size
        )
        image = network_image(frame.image_on(self._device), mapping)
        return _EncodedFrame(frame.image, mapping, self._encode(image))

    def _pointmap(self, view: ViewPrediction, mapping: ImageMapping) -> Pointmap:
        confidence = 1 - 1 / view.confidence[0]
        sure = (confidence >= self._settings.min_point_confidence) & view.points[0].isfinite().all(dim=-1)
        points = torch.where(sure[..., None], view.points[0], 0.0)
        points, confidence = pointmap_on_frame(points, torch.where(sure, confidence, 0.0), mapping)
        return Pointmap(points, confidence, metric=self._settings.metric)


def _loaded(settings: Mast3rSettings) -> Mast3rNetwork | ReferenceNetwork:
    if settings.implementation == "reference":
        return load_reference(settings.checkpoint)
    return load_network(settings.checkpoint)


def _precision(settings: Mast3rSettings, device: torch.device) -> torch.dtype:
    name = settings.precision
    if settings.implementation == "reference":
        if name not in ("auto", "float32"):
            raise SettingsError(f"mast3r.implementation 'reference' computes in float32, mast3r.precision is '{name}'")
        return torch.float32
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
