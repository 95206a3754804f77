"""Matchers: the seam, and which backend answers to which name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from mastsam_ros.backends import resolved
from mastsam_ros.types import Frame, Matches

if TYPE_CHECKING:
    from mastsam_ros.settings import Settings


class Matcher(Protocol):
    """Anything that says where points of the previous frame are now. One method, no base class."""

    def match(self, previous: Frame, current: Frame) -> Matches:
        """Matches from `previous` to `current`, in pixels of each."""


@runtime_checkable
class MatchingAhead(Matcher, Protocol):
    """A matcher that goes by the two pictures alone and may be asked on another thread, for a pair that comes next.

    Never twice at the same time. Nobody has to be: otherwise every pair is matched in its own step.
    """

    matches_ahead: Literal[True]


@runtime_checkable
class Connecting(Matcher, Protocol):
    """A matcher that can say in short how well two views match. Nobody has to be: otherwise they are matched for it."""

    def connection(self, first: Frame, second: Frame) -> float:
        """How much of the second picture shows what the first shows; 0 for two places."""


def create_matcher(settings: Settings, like: Matcher | None = None) -> Matcher:
    """The matcher that `settings.matcher.name` names, on the device that `settings.device` names.

    A matcher serves one camera. like: another one, whose network the new one uses where it has the same weights.
    Raises ModelError for weights that cannot be loaded, SettingsError if the device is not there.
    """
    settings = resolved(settings)
    if settings.matcher.name == "mast3r":
        from mastsam_ros.device import torch_device
        from mastsam_ros.matchers.mast3r.matcher import Mast3rMatcher

        network = like.network if isinstance(like, Mast3rMatcher) else None
        return Mast3rMatcher(settings.mast3r, torch_device(settings.device), network)
    if settings.matcher.name == "features":
        from mastsam_ros.matchers.features import FeatureMatcher

        return FeatureMatcher(settings.flow)
    from mastsam_ros.matchers.flow import FlowMatcher

    return FlowMatcher(settings.flow)
