"""Views without order: matched each with each, segmented from the first one outwards, the best connected ones first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from mastsam_ros.geometry.cameras import working_view
from mastsam_ros.interrupts import interrupts_wait
from mastsam_ros.matchers.features import FeatureMatcher
from mastsam_ros.matchers.view_graph import Step, connections, spanning_order
from mastsam_ros.settings import Settings
from mastsam_ros.types import EventKind, Frame, FrameResult, InputError

if TYPE_CHECKING:
    from mastsam_ros.pipeline import Mastsam, Moment

_LOG = logging.getLogger(__name__)

Correct = Callable[[int, FrameResult], FrameResult]
"""Given a view's place in the set and its result, makes the edits that are due and returns the result with them."""

_MOST_DESCRIBED = 256
"""Views whose features are held at a time while all are compared: half a gigabyte."""


def without_order(settings: Settings) -> Settings:
    """The settings for views without order: what looks back in time is off, and features in place of the flow.

    settings: resolved ones (`backends.resolved`); of a matcher that is still `auto` nobody knows that it is the flow.
    """
    changes: dict[str, object] = {"geometry.map": False, "tracker.revival": False, "tracker.recall": False}
    if settings.matcher.name == "flow":
        changes["matcher.name"] = "features"
    return settings.updated(changes)


def plan(
    mastsam: Mastsam, frames: Sequence[Frame], root: int | None = None, done: Callable[[int], object] = lambda _: None
) -> list[Step]:
    """In which order the views are segmented, and each from which other one. Costs a comparison of each two views.

    root: the first one; None: the best connected. done: called with the number of pairs compared. Raises InputError for
    pictures of different sizes.
    """
    views = [working_view(frame, mastsam.settings.working_pixels) for frame in frames]
    for number, view in enumerate(views):
        if view.image.shape != views[0].image.shape:
            raise InputError(
                f"views without order must have one size: picture {number} has {frames[number].width}x"
                f"{frames[number].height}, the first {frames[0].width}x{frames[0].height}"
            )
    if isinstance(mastsam.matcher, FeatureMatcher):
        mastsam.matcher.kept_views = min(len(views), _MOST_DESCRIBED)
    order = spanning_order(connections(mastsam.matcher, views, done), root)
    begin_anew = [n for n, step in enumerate(order) if n and step.origin is None]
    if begin_anew:
        _LOG.warning(
            "%d of %d views cannot be reached from the first one: their ids begin anew",
            len(order) - begin_anew[0],
            len(order),
        )
    return order


def stepped_without_order(
    mastsam: Mastsam, frames: Sequence[Frame], order: Sequence[Step], correct: Correct | None = None
) -> Iterator[tuple[int, FrameResult]]:
    """Each view's place in the set and its result, in the order of the plan."""
    moments: dict[int, Moment] = {}
    became: dict[int, int] = {}
    for step in order:
        mastsam.go_on_from(None if step.origin is None else moments.get(step.origin), became)
        with interrupts_wait():
            result = mastsam.step(frames[step.view])
        if correct is not None:
            result = correct(step.view, result)
        if (moment := mastsam.moment()) is not None:
            moments[step.view] = moment
        became |= {event.id: event.other_id for event in result.events if event.kind is EventKind.MERGED}
        yield step.view, result
