"""Promptable segmenters: the seam, and which backend answers to which name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from mastsam_ros.backends import resolved
from mastsam_ros.types import CandidateMasks, Frame, Matches, PointPrompts

if TYPE_CHECKING:
    import torch

    from mastsam_ros.settings import Settings


class Segmenter(Protocol):
    """Anything that answers point prompts with masks. Three methods, no base class."""

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        """Does the costly work once per frame. `matches` lead from the previous frame to this one, or are None."""

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        """Several candidate masks for every prompt: masks (N, C, H, W) bool, scores (N, C)."""

    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        """Automatic masks (N, 1, H, W); only inside `region` (H, W) bool if it is given."""


@runtime_checkable
class LookingAhead(Segmenter, Protocol):
    """A segmenter that uses a second core: this method and `set_frame` may be called from another thread than the rest.

    Never two methods at the same time, but that `look_ahead` at the next frame may run while `predict` and `everything`
    answer for the current one. Nobody has to have it: without it every method is called in turn.
    """

    def look_ahead(self, frame: Frame, follows: bool) -> None:
        """The part of the next `set_frame` that needs no matches. follows: whether it will be given any. It changes no
        answer for the current frame, nor, if another frame comes instead, for that one; frames with depth are shown to
        it only in their own step."""


@runtime_checkable
class MasksSuffice(Segmenter, Protocol):
    """A segmenter that follows tracks by their carried masks alone: what it is asked then has no points."""

    masks_suffice: Literal[True]


@runtime_checkable
class RoughOutlines(Segmenter, Protocol):
    """A segmenter whose outlines are a pixel or two off: labels at full size follow those of the picture instead."""

    rough_outlines: Literal[True]


def create_segmenter(settings: Settings, like: Segmenter | None = None) -> Segmenter:
    """The segmenter that `settings.segmenter.name` names, on the device that `settings.device` names.

    A segmenter serves one camera. like: another one, whose network the new one uses where it has the same weights.
    Raises MissingPackageError for a package that is not installed, ModelError for weights that cannot be loaded.
    """
    settings = resolved(settings)
    if settings.segmenter.name in ("sam", "hf_sam"):
        from mastsam_ros.device import torch_device
        from mastsam_ros.segmenters.hf_sam import create_hf_sam_segmenter
        from mastsam_ros.segmenters.prompted import PromptedSegmenter
        from mastsam_ros.segmenters.sam import create_sam_segmenter

        device = torch_device(settings.device)
        if isinstance(like, PromptedSegmenter):
            return PromptedSegmenter(like.network, settings.sam, device)
        create = create_sam_segmenter if settings.segmenter.name == "sam" else create_hf_sam_segmenter
        return create(settings.sam, device)
    from mastsam_ros.segmenters.regions import RegionSegmenter

    return RegionSegmenter(settings.regions)
