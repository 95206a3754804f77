"""Who is who: the life of every id from birth to removal, and the events that tell of it."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.constraints import Constraints
from mastsam_ros.types import MAX_ID, EventKind, IdsExhaustedError, TrackEvent, TrackState

_QUALITY_MEMORY = 0.8
"""Share of the old value that a track's running agreement keeps per frame."""
_NO_CHANCE = 3
"""Frames after which something small or thin that has grown was not there by chance."""
_EVER = 1 << 32
"""Frames; what a person decided is senior to everything that the tracker found."""


@dataclass
class Life:
    """One id. parent: the id under which it is shown while it is tentative, 0 for its own. free: it was never part of
    its parent, which only stands in for it. part: its pixels were the parent's before it was born. was_missing:
    `missing` before it was seen in this frame. own: frames in which the segmenter saw it unasked, less those in which
    it saw it as a part of something. proof: frames in which it saw it unasked, those in which it stood out counted more
    often and those in which it hardly did less; None where it says nothing of that. told_apart: frames in which motion
    told it from what is behind it, less those in which it did not. belongs: log-odds that it is a part of the thing of
    which it was taken for one, as seen lately; None for all else."""

    id: int
    state: TrackState
    parent: int
    score: float
    quality: float = 1.0
    age: int = 1
    hits: int = 1
    missing: int = 0
    was_missing: int = 0
    free: bool = False
    part: bool = False
    own: int = 0
    proof: float | None = None
    told_apart: int = 0
    belongs: float | None = None


Snapshot = tuple[list[Life], list[int], Constraints]
"""All lives, the active ids and what people said, at one moment."""


class IdCounter:
    """Gives the ids 1, 2, 3, ... Trackers that share one never give the same id: those of several cameras."""

    def __init__(self) -> None:
        self.next = 1

    def take(self) -> int:
        """A new id. Raises IdsExhaustedError after 65535 ids: ids are never reused."""
        if self.next > MAX_ID:
            raise IdsExhaustedError(
                f"all {MAX_ID} ids of a 16-bit label image are used: start the node or the run anew"
            )
        self.next += 1
        return self.next - 1


class Identities:
    """The ids that exist: `active` ones own pixels, lost ones may come back, the others are gone for good.

    constraints: what people said of them. Events tell of instances, as people see them. others: the trackers of other
    cameras in the same world, which share the constraints.
    """

    def __init__(
        self, settings: TrackerSettings, ids: IdCounter | None = None, constraints: Constraints | None = None
    ) -> None:
        self.settings = settings
        self._lives: dict[int, Life] = {}
        self._ids = ids or IdCounter()
        self.constraints = Constraints() if constraints is None else constraints
        self.others: list[Identities] = []
        self.active: list[int] = []
        """Ids in the order of the index image: `active[n]` owns the pixels with index n + 1."""
        self.events: list[TrackEvent] = []
        """What happened since `begin_frame`."""
        self._evidence: dict[tuple[EventKind, int], float] = {}
        self.joined: list[tuple[int, int]] = []
        """Tracks that ended since then, and those that they go on as."""

    @property
    def next_id(self) -> int:
        """The first id that was never given."""
        return self._ids.next

    def adopt(self, ids: Iterable[int], next_id: int) -> None:
        """Takes over the ids of an earlier run, as lost ones that may come back; new ids start at `next_id`."""
        for id in ids:
            self._lives[id] = Life(id, TrackState.LOST, 0, 0.0, missing=1)
        self._ids.next = max(self._ids.next, next_id)

    def snapshot(self) -> Snapshot:
        """What `restore` takes to make this moment's lives come back."""
        return [replace(life) for life in self._lives.values()], list(self.active), self.constraints.copy()

    def restore(self, snapshot: Snapshot) -> None:
        """Undoes what happened since the snapshot; ids that were given since are never given again."""
        lives, self.active, said = snapshot
        self.constraints.become(said)
        self._lives = {life.id: life for life in lives}
        self.events = []

    def begin_frame(self) -> None:
        """Starts a frame: every life grows older, the events of the last frame are dropped."""
        self.events, self.joined = [], []
        self._evidence = {}
        for life in self._lives.values():
            life.age += 1

    def reset(self, reason: str, in_map: Iterable[int] = ()) -> TrackEvent:
        """Ends every track; ids go on counting. Returns the event that says so.

        in_map: the ids of a map that stays. Those that no other camera knows may come back, as lost ones.
        """
        self._lives.clear()
        self.adopt(set(in_map) - self.known_anywhere(), self.next_id)
        self.constraints.keep_only(self.known_anywhere())
        self.active = []
        self.events = []
        return TrackEvent(EventKind.RESET, 0, reason=reason)

    def weigh(self, kind: EventKind, id: int, evidence: float) -> None:
        """Says how sure, in [0, 1], what happens to the id in this frame is."""
        self._evidence[kind, id] = evidence

    def evidence(self, kind: EventKind, id: int) -> float:
        """What was said of how sure it is, 1 if nothing was."""
        return self._evidence.get((kind, id), 1.0)

    def told(self) -> tuple[TrackEvent, ...]:
        """What happened since `begin_frame`, each event with its evidence: 1 for what a person asked for.

        Births and losses are as sure as the id itself: the segmenter's score of a new mask, the running agreement of
        one that was tracked. The others are as sure as they were said to be (`weigh`).
        """
        return tuple(replace(event, evidence=round(self._sure(event), 4)) for event in self.events)

    def _sure(self, event: TrackEvent) -> float:
        life = self._lives.get(event.id)
        sure = 1.0
        if life is not None and event.kind in (EventKind.BORN, EventKind.LOST):
            sure = life.score if event.kind is EventKind.BORN and life.hits == 1 else life.quality
        return min(1.0, max(0.0, self._evidence.get((event.kind, event.id), sure)))

    def __getitem__(self, id: int) -> Life:
        return self._lives[id]

    def exists(self, id: int) -> bool:
        """False once the id was merged, removed, or ended before it was shown."""
        return id in self._lives

    def known(self) -> set[int]:
        """Every id that exists."""
        return set(self._lives)

    def known_anywhere(self) -> set[int]:
        """Every id that this tracker or one of the others knows."""
        return self.known().union(*(other.known() for other in self.others))

    def look_at(self, ids: list[int]) -> None:
        """An earlier view is looked at again, in which these ids were active; nothing is told of that."""
        for life in list(self._lives.values()):
            if life.id in ids:
                life.missing = 0
                if life.state is TrackState.LOST:
                    life.state = TrackState.TRACKED
            elif life.state is TrackState.TRACKED:
                life.state, life.missing = TrackState.LOST, 1
            elif life.state is TrackState.TENTATIVE:
                del self._lives[life.id]
        self.active = list(ids)

    def meet(self, id: int) -> None:
        """An id that others gave is known here, too: as a lost one that may come into view."""
        age = max((other[id].age for other in self.others if other.exists(id)), default=1)
        self._lives[id] = Life(id, TrackState.LOST, 0, 0.0, age=age, missing=1)

    def goes_on_as(self, id: int, into: int, reason: str) -> None:
        """What was tracked as `id` is `into`, a lost one or one that only others know."""
        life, is_new = self._lives[id], into not in self._lives
        if is_new:
            self.meet(into)
        survivor = self._lives[into]
        survivor.score, survivor.quality = life.score, life.quality
        if life.state is not TrackState.LOST:
            if is_new:
                survivor.state, survivor.missing = TrackState.TRACKED, 0
            elif survivor.state is TrackState.LOST:
                self.revive(into, reason)
        self.active = [into if known == id else known for known in self.active]
        self.merge(id, into, reason)

    def found_as(self, id: int, into: int, reason: str) -> None:
        """What was tracked as `id` is `into`, which is lost or was not found in this frame."""
        if self._lives[into].state is TrackState.LOST:
            self.goes_on_as(id, into, reason)
            return
        self._lives[into].missing = 0
        self.active = [known for known in self.active if known != id]
        self.merge(id, into, reason)

    def lost(self) -> list[int]:
        """Ids that are out of view and may come back, in the order of birth."""
        return [life.id for life in self._lives.values() if life.state is TrackState.LOST]

    def ages(self) -> list[int]:
        """Frames since birth of every active id; what a person decided is older than all else."""
        said = self.constraints.edited
        return [self._lives[id].age + (_EVER if said(id) else 0) for id in self.active]

    def apart(self, first: int, second: int) -> bool:
        """True if people said enough of two tracks for the tracker not to join them by itself."""
        return self.constraints.edited(first) and self.constraints.edited(second)

    def instances(self) -> dict[int, list[Life]]:
        """Every instance that people know of, by rising id, with its tracks."""
        found: dict[int, list[Life]] = {}
        for life in self._lives.values():
            instance = self.constraints.instance(life.id)
            if life.state is not TrackState.TENTATIVE and instance:
                found.setdefault(instance, []).append(life)
        return dict(sorted(found.items()))

    def confidence(self) -> npt.NDArray[np.float32]:
        """(N,) how far the mask of each active id can be trusted: it grows with age and running agreement."""
        grown = self.settings.mature_after
        lives = [self._lives[id] for id in self.active]
        return np.array([min(1.0, life.hits / grown) * life.quality for life in lives], dtype=np.float32)

    def seen(self, id: int, agreement: float, score: float) -> None:
        """The id was found in this frame."""
        life = self._lives[id]
        life.hits += 1
        life.was_missing, life.missing = life.missing, 0
        life.quality = _QUALITY_MEMORY * life.quality + (1 - _QUALITY_MEMORY) * agreement
        life.score = score
        # A part whose outline the segmenter is sure of is one in its own right.
        doubtful = score < self.settings.confirm_new_score
        if doubtful and life.proof is not None:
            proven = life.proof >= self.settings.confirm_after
        else:
            needed = self.settings.confirm_part_after if doubtful and life.part else self.settings.confirm_after
            proven = life.hits >= needed
        if life.state is TrackState.TENTATIVE and proven and life.quality >= self.settings.confirm_quality:
            self._confirm(life, "seen in enough frames")

    def may_stand_in(self) -> npt.NDArray[np.bool_]:
        """(N,) of each active id: whether its carried mask may stand in for it if it is not found in this frame."""
        lives = [self._lives[id] for id in self.active]
        return np.array([self._stands_in(life, life.missing + 1) for life in lives], dtype=bool)

    def coasted(self, id: int) -> bool:
        """The id was not found; True while its carried mask may stand in for it."""
        life = self._lives[id]
        life.missing += 1
        return self._stands_in(life, life.missing)

    def doubted(self, id: int) -> bool:
        """What `seen` found was another thing's mask; True while the carried mask may stand in."""
        life = self._lives[id]
        life.missing = life.was_missing + 1
        return self._stands_in(life, life.missing)

    def grown(self, id: int) -> None:
        """The id has become large: it is shown as itself unless it was part of its parent."""
        life = self._lives[id]
        if life.state is TrackState.TENTATIVE and life.free and life.hits >= _NO_CHANCE:
            self._confirm(life, "large enough to be seen")

    def _stands_in(self, life: Life, missing: int) -> bool:
        mature = life.state is TrackState.TRACKED and life.hits >= self.settings.mature_after
        return mature and missing <= self.settings.coast_frames

    def merge(self, id: int, into: int, reason: str = "masks coincide") -> None:
        """The id ends; its pixels go on as `into`."""
        life, survivor = self._lives.pop(id), self._lives[into]
        survivor.hits = max(survivor.hits, life.hits)
        if life.state is not TrackState.TENTATIVE:
            if survivor.state is TrackState.TENTATIVE:
                self._confirm(survivor, "took over a track")
            self.joined.append((id, into))
            instance, goes_on_as = self.constraints.instance(id), self.constraints.instance(into)
            if instance == id and goes_on_as:
                self.constraints.follow(id, goes_on_as)
            if instance not in (0, goes_on_as):
                rest = self._others_of(instance, id)
                if rest and life.state is TrackState.TRACKED:
                    self._tell_if_lost(instance, rest)
                elif not rest:
                    kind = EventKind.MERGED if goes_on_as else EventKind.REMOVED
                    self.events.append(TrackEvent(kind, instance, goes_on_as, reason))
                    self.constraints.merged(instance, goes_on_as)
        for other in self._lives.values():
            if other.parent == id:
                other.parent = into if other.id != into else 0

    def disappear(self, id: int) -> None:
        """The id has no pixels any more."""
        life = self._lives[id]
        if life.state is TrackState.TENTATIVE:
            del self._lives[id]
        elif life.state is TrackState.TRACKED:
            life.state = TrackState.LOST
            life.missing = max(1, life.missing)
            self._tell(EventKind.LOST, id, "not found in the view")

    def revive(self, id: int, reason: str) -> None:
        """A lost id is in view again."""
        life = self._lives[id]
        life.state, life.missing = TrackState.TRACKED, 0
        life.own = min(0, life.own)
        self._tell(EventKind.REVIVED, id, reason)

    def new_id(self) -> int:
        """An id that was never given, for an instance. Raises IdsExhaustedError after 65535 ids."""
        return self._ids.take()

    def born(
        self,
        score: float,
        parent: int = 0,
        sure: bool = False,
        free: bool = False,
        part: bool = False,
        part_of: int | None = None,
    ) -> int:
        """A new id. It is tentative and shown as its parent unless it is `sure` or has none.

        free: it was never part of the parent, and need not prove itself once it has `grown`. part: its pixels were
        the parent's; a known thing falls apart more often than a new one parts from it, so that a part has to prove
        itself for longer. part_of: the instance that it is a part of, 0 for one that was removed, where constraints
        say so.

        Raises IdsExhaustedError after 65535 ids: ids are never reused.
        """
        life = Life(self._ids.take(), TrackState.TENTATIVE, parent, score, free=free, part=part)
        self._lives[life.id] = life
        if part_of is not None:
            self.constraints.link(life.id, part_of)
        if sure or parent == 0 or part_of is not None:
            self._confirm(life, "segmented in a region without a mask")
        return life.id

    def piece_of(self, id: int, whole: int) -> None:
        """The id, shown for the first time, and its own pieces are pieces of the instance that another id is."""
        said, instance = self.constraints, self.constraints.instance(whole)
        said.merged(id, instance)
        said.pieces[id] = instance
        # Nobody has heard of it; and nobody hears of what goes on as a new one before that is born.
        events = [event for event in self.events if event.id != id]
        events = [replace(event, other_id=instance) if event.other_id == id else event for event in events]
        self.events = sorted(events, key=lambda event: event.kind is not EventKind.BORN)

    def no_piece(self, id: int) -> None:
        """The id is a thing by itself after all, and none of those that were taken for pieces of it is one.

        They stay pieces of each other: of the first of them that is in view. While none is, they wait.
        """
        said = self.constraints
        if id in said.shown:
            return
        instance = said.instance(id)
        own = [id] if instance != id and self._others_of(instance, id) else []
        left = [track for track, whole in said.pieces.items() if whole == id and instance == id]
        own += [track for track in left if self._in_view(track)][:1]
        for track in own:
            whole = said.instance(track)
            rest = self._others_of(whole, track)
            del said.pieces[track]
            if whole == id:
                said.follow(id, track)
            self.events.append(TrackEvent(EventKind.BORN, track, reason="a thing by itself after all"))
            self._tell_if_lost(whole, rest)

    def _in_view(self, id: int) -> bool:
        return self.exists(id) and self[id].state is TrackState.TRACKED

    def end_frame(self, active: list[int], waiting: Set[int] = frozenset()) -> None:
        """Ends a frame: sets the active ids, frees orphans, forgets what has been lost for too long.

        waiting: lost ids that cannot be seen from here; for them the time stands still.
        """
        self.active = active
        in_view = set(active)
        for life in list(self._lives.values()):
            if life.state is TrackState.TENTATIVE and life.parent not in in_view:
                self._confirm(life, "what it was part of is gone")
            if life.state is TrackState.LOST and life.id not in waiting:
                life.missing += 1
                if life.missing > self.settings.forget_after:
                    del self._lives[life.id]
                    elsewhere = any(other.exists(life.id) for other in self.others)
                    if not elsewhere and not self._others_of(self.constraints.instance(life.id), life.id):
                        self._tell(EventKind.REMOVED, life.id, "lost for too long")
        self.constraints.keep_only(self.known_anywhere() if self.others else self._lives)

    def shown_as(self, id: int) -> int:
        """The id under which the pixels of `id` are shown: its own, or that of what a tentative id is part of.

        0 if the id has ended.
        """
        for _ in range(len(self._lives)):
            life = self._lives.get(id)
            if life is None:
                return 0
            if life.state is not TrackState.TENTATIVE or life.parent not in self._lives:
                break
            id = life.parent
        return id

    def confirm(self, id: int) -> None:
        """A tentative id is shown as its own."""
        if self._lives[id].state is TrackState.TENTATIVE:
            self._confirm(self._lives[id], "asked for")

    def _confirm(self, life: Life, reason: str) -> None:
        life.state, life.parent = TrackState.TRACKED, 0
        own = self.constraints.instance(life.id) == life.id
        self._tell(EventKind.BORN if own else EventKind.REVIVED, life.id, reason)

    def _tell(self, kind: EventKind, id: int, reason: str) -> None:
        """Of an instance of several tracks only what changes for the whole; nothing of what was removed."""
        instance = self.constraints.instance(id)
        if instance and not any(life.state is TrackState.TRACKED for life in self._others_of(instance, id)):
            self.events.append(TrackEvent(kind, instance, reason=reason))

    def _tell_if_lost(self, instance: int, rest: list[Life]) -> None:
        """What was in view of an instance is another's; the rest of its tracks may not be in view."""
        if not any(life.state is TrackState.TRACKED for life in rest):
            self.events.append(TrackEvent(EventKind.LOST, instance, reason="what is left of it is not in view"))

    def _others_of(self, instance: int, id: int) -> list[Life]:
        """The tracks of an instance beside `id`."""
        if not self.constraints.shown and not self.constraints.pieces:
            return []
        said = self.constraints.instance
        return [life for life in self._lives.values() if life.id != id and said(life.id) == instance]
