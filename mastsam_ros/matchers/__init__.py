"""Matchers: the seam, and which backend answers to which name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mastsam_ros.types import Frame, Matches

if TYPE_CHECKING:
    from mastsam_ros.settings import Settings


class Matcher(Protocol):
    """Anything that says where points of the previous frame are now. One method, no base class."""

    def match(self, previous: Frame, current: Frame) -> Matches:
        """Matches from `previous` to `current`, in pixels of each."""


def create_matcher(settings: Settings) -> Matcher:
    """The matcher that `settings.matcher.name` names."""
    from mastsam_ros.matchers.flow import FlowMatcher

    return FlowMatcher(settings.flow)
