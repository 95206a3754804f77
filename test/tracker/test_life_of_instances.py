"""What mappers downstream are told adds up, whatever happens to tracks, pieces and edits, in whatever order."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mastsam_ros.settings import GeometrySettings, TrackerSettings
from mastsam_ros.tracker.edits import Editor
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.map_revival import MapRevival
from mastsam_ros.tracker.mapper import Mapper
from mastsam_ros.tracker.pointing import Pointed
from mastsam_ros.types import EditError, EventKind, TrackEvent, TrackState

SETTINGS = TrackerSettings(confirm_after=2, confirm_part_after=3, forget_after=2, min_area_share=0.0001)
WHICH = st.integers(0, 1 << 16)
WIDE = 8
"""Rows and columns of a track in the picture."""
SHOWN = (TrackState.TRACKED, TrackState.LOST)


class Downstream:
    """Somebody who knows nothing but the events: every instance there is, and whether it is in view."""

    def __init__(self) -> None:
        self.in_view: dict[int, bool] = {}
        self.ended: set[int] = set()

    def hears(self, event: TrackEvent) -> None:
        kind, id = event.kind, event.id
        if kind is EventKind.RESET:
            self.ended |= self.in_view.keys()
            self.in_view = {}
            return
        if kind is EventKind.BORN:
            assert id not in self.in_view and id not in self.ended, f"{event}: born once"
            self.in_view[id] = True
            return
        assert id in self.in_view, f"{event}: of what was never told of, or has ended"
        if kind in (EventKind.MERGED, EventKind.REMOVED):
            del self.in_view[id]
            self.ended.add(id)
            if kind is EventKind.MERGED:
                assert event.other_id in self.in_view, f"{event}: goes on as what is not there"
        elif kind in (EventKind.LOST, EventKind.REVIVED):
            assert self.in_view[id] == (kind is EventKind.LOST), f"{event}: it is so already"
            self.in_view[id] = kind is EventKind.REVIVED


class Instances(RuleBasedStateMachine):
    """Frames in which anything happens that the tracker, the materials and people can do."""

    @initialize()
    def begin(self) -> None:
        self.identities = Identities(SETTINGS)
        mapper = Mapper(GeometrySettings(), identities=self.identities)
        self.editor = Editor(self.identities, MapRevival(mapper), SETTINGS)
        self.downstream = Downstream()
        self.in_frame = False
        self.active: list[int] = []

    def one_of(self, ids: list[int], which: int) -> int:
        return ids[which % len(ids)]

    @precondition(lambda self: not self.in_frame)
    @rule(elsewhere=st.lists(st.tuples(WHICH, WHICH), max_size=2))
    def begin_frame(self, elsewhere: list[tuple[int, int]]) -> None:
        """elsewhere: what other cameras found to be one thing, in view here or not."""
        identities = self.identities
        self.before = identities.snapshot()
        identities.begin_frame()
        for which, other in elsewhere:
            known = [life.id for life in map(identities.__getitem__, identities.known()) if life.state in SHOWN]
            id, into = (self.one_of(known, n) for n in (which, other)) if known else (0, 0)
            if id != into:
                both = {id, into} <= set(identities.active)
                identities.active = [kept for kept in identities.active if kept != id or not both]
                identities.goes_on_as(id, into, "one thing for several cameras")
        self.active, self.in_frame = list(identities.active), True

    @precondition(lambda self: self.in_frame)
    @rule(which=WHICH, tentative=st.booleans(), sure=st.booleans())
    def born(self, which: int, tentative: bool, sure: bool) -> None:
        parent = self.identities.shown_as(self.one_of(self.active, which)) if tentative and self.active else 0
        self.active.append(self.identities.born(0.8, parent, sure))

    @precondition(lambda self: self.in_frame and self.active)
    @rule(which=WHICH)
    def disappear(self, which: int) -> None:
        id = self.one_of(self.active, which)
        self.active.remove(id)
        self.identities.disappear(id)

    @precondition(lambda self: self.in_frame and self.identities.lost())
    @rule(which=WHICH)
    def revive(self, which: int) -> None:
        id = self.one_of(self.identities.lost(), which)
        self.identities.revive(id, "seen again")
        self.active.append(id)

    @precondition(lambda self: self.in_frame and self.active)
    @rule(which=WHICH)
    def seen(self, which: int) -> None:
        self.identities.seen(self.one_of(self.active, which), 1.0, 0.8)

    @precondition(lambda self: self.in_frame and len(self.active) > 1)
    @rule(which=WHICH, other=WHICH)
    def merge(self, which: int, other: int) -> None:
        id, into = self.one_of(self.active, which), self.one_of(self.active, other)
        if id != into and not self.identities.apart(id, into):
            self.active.remove(id)
            self.identities.merge(id, into)

    @precondition(lambda self: self.in_frame and self.active and self.identities.lost())
    @rule(which=WHICH, other=WHICH)
    def goes_on_as_a_lost_one(self, which: int, other: int) -> None:
        id, into = self.one_of(self.active, which), self.one_of(self.identities.lost(), other)
        if not self.identities.constraints.edited(id):
            self.active[self.active.index(id)] = into
            self.identities.goes_on_as(id, into, "looks as it did")

    @precondition(lambda self: self.in_frame)
    @rule()
    def fails(self) -> None:
        self.identities.restore(self.before)
        self.in_frame = False

    @precondition(lambda self: self.in_frame)
    @rule(data=st.lists(st.tuples(WHICH, WHICH, st.booleans()), max_size=4))
    def end_frame(self, data: list[tuple[int, int, bool]]) -> None:
        """As `join_pieces` and `join_parts` have it: what is no piece any more, what was born, what is no part now."""
        identities, said = self.identities, self.identities.constraints
        identities.end_frame(self.active)
        for which, _, parts in data:
            pieces = [id for id in self.active if id in {*said.pieces, *said.pieces.values()}]
            if parts and pieces:
                identities.no_piece(self.one_of(pieces, which))
        for which, other, parts in data:
            born = [event.id for event in identities.events if event.kind is EventKind.BORN]
            wholes = list(dict.fromkeys(identities.shown_as(id) for id in self.active))
            if parts or not born or not wholes:
                continue
            id, whole = self.one_of(born, which), self.one_of(wholes, other)
            new = id in wholes and not said.edited(id)
            if new and said.instance(whole) not in (0, id) and not said.cut(id, whole):
                identities.piece_of(id, whole)
        for which, _, parts in data:
            if parts and said.pieces:
                identities.no_piece(self.one_of(sorted(said.pieces), which))
        self.in_frame = False
        self.tell((*self.editor.events, *identities.told()))
        self.editor.events = []
        self.editor.index = torch.arange(1, len(self.active) + 1).repeat_interleave(WIDE)[:, None].repeat(1, WIDE)

    def tell(self, events: tuple[TrackEvent, ...]) -> None:
        for event in events:
            self.downstream.hears(event)

    def edit(self, *things: int) -> list[int]:
        known = list(self.identities.instances())
        return [self.one_of(known, which) for which in things] if known else []

    @precondition(lambda self: not self.in_frame)
    @rule(which=WHICH, other=WHICH)
    def people_merge(self, which: int, other: int) -> None:
        ids = self.edit(which, other)
        if len(set(ids)) == 2:
            self.editor.merge(ids)

    @precondition(lambda self: not self.in_frame)
    @rule(which=WHICH)
    def people_remove(self, which: int) -> None:
        for id in self.edit(which):
            self.editor.remove(id)

    @precondition(lambda self: not self.in_frame)
    @rule(which=WHICH)
    def people_rename(self, which: int) -> None:
        for id in self.edit(which):
            self.editor.rename(id, "thing")

    @precondition(lambda self: not self.in_frame and self.identities.active)
    @rule(which=WHICH, part=st.booleans())
    def people_split(self, which: int, part: bool) -> None:
        n = which % len(self.identities.active)
        id = self.identities.constraints.instance(self.identities.shown_as(self.identities.active[n]))
        mask, points = self.pointed_at(n, part)
        if id and mask.any():
            with suppress(EditError):
                self.editor.split(id, points, lambda _: (mask, 0.9), "")

    @precondition(lambda self: not self.in_frame and self.identities.active)
    @rule(which=WHICH, part=st.booleans(), whole=st.booleans())
    def people_add(self, which: int, part: bool, whole: bool) -> None:
        n = which % len(self.identities.active)
        mask, points = self.pointed_at(n, part)
        instances = [self.identities.shown_as(id) for id in self.identities.active]
        instances = [self.identities.constraints.instance(id) for id in instances]
        if whole:
            numbers = [m + 1 for m, id in enumerate(instances) if id == instances[n]]
            mask = torch.isin(self.editor.index, torch.tensor(numbers))
        if mask.any():
            self.editor.add(points, lambda _: (mask, 0.9), "")

    def pointed_at(self, n: int, part: bool) -> tuple[torch.Tensor, Pointed]:
        """The mask of active track n, or the first half of its rows, and a point in it."""
        mask = self.editor.index == n + 1
        rows = np.flatnonzero(mask.any(dim=1).numpy())
        if part:
            mask[rows[len(rows) // 2 :]] = False
        return mask, Pointed(np.array([[1.0, *rows[:1]]]), np.array([True]))

    @precondition(lambda self: not self.in_frame)
    @rule(keep=st.sets(st.integers(1, 9)))
    def reset(self, keep: set[int]) -> None:
        """The map may stay, and with it some ids, which are out of view until they are seen again."""
        stays = {id for id in keep & self.identities.known() if self.identities[id].state is not TrackState.TENTATIVE}
        self.tell((*self.editor.events, self.identities.reset("asked for", stays)))
        for id in self.identities.instances():
            assert id in self.downstream.ended, "what stays was told of"
            self.downstream.ended.remove(id)
            self.downstream.in_view[id] = False
        self.editor.events, self.editor.index = [], torch.zeros(0, 0, dtype=torch.int64)

    @invariant()
    def what_was_told_is_what_there_is(self) -> None:
        if self.in_frame or self.editor.events:
            return  # it is told with the next frame
        instances = self.identities.instances()
        told = self.downstream.in_view
        assert told.keys() == instances.keys(), "told of, and there"
        shown = {self.identities.constraints.instance(self.identities.shown_as(id)) for id in self.identities.active}
        assert shown - {0} <= told.keys(), "shown, and told of"
        tracked = {id for id, lives in instances.items() if any(life.state is TrackState.TRACKED for life in lives)}
        assert {id for id, in_view in told.items() if in_view} == tracked, "in view"


TestInstances = Instances.TestCase
TestInstances.settings = settings(
    max_examples=100,
    report_multiple_bugs=False,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
