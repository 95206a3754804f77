"""What cameras have in common whose poses are known in one frame: the map, what people said, and who is who."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.instance_map import InstanceMap
from mastsam_ros.geometry.voxels import Voxels
from mastsam_ros.settings import GeometrySettings
from mastsam_ros.tracker.constraints import Constraints
from mastsam_ros.tracker.identity import Identities

_SAME = 0.5
"""IoU, over the voxels that two cameras see at about the same time, from which on two ids are one thing ..."""
_FEWEST = 12
"""... which must be so many voxels ..."""
_AGREE_AFTER = 3
"""... in so many comparisons in a row: one frame in which a camera takes two things for one must not end an id."""
_SAME_TIME_NS = 500_000_000


@dataclass(frozen=True)
class Join:
    """Two ids turned out to be one thing: `id` goes on as `into`. evidence: [0, 1]."""

    id: int
    into: int
    evidence: float


@dataclass(eq=False)
class Member:
    """One camera of a world, and what it still has to follow. sightings: id -> its first and last frame, by its own
    count, in which this camera entered it into the map. entered: the voxels of its last frame, of which stamp."""

    identities: Identities
    sightings: dict[int, tuple[int, int]] = field(default_factory=dict)
    entered: tuple[int, Voxels] | None = None
    joins: list[Join] = field(default_factory=list)

    def saw(self, ids: npt.NDArray[np.int32], number: int) -> None:
        """Frame `number` showed these ids."""
        for id in ids.tolist():
            self.sightings[id] = (self.sightings.get(id, (number, number))[0], number)

    def goes_on_as(self, id: int, into: int) -> None:
        """Sightings of `id` are those of `into`."""
        if (gone := self.sightings.pop(id, None)) is not None:
            first, last = self.sightings.get(into, gone)
            self.sightings[into] = (min(first, gone[0]), max(last, gone[1]))

    def saw_both(self, first: int, second: int) -> bool:
        """True if there was a time at which this camera had both in view: they are two things."""
        if first not in self.sightings or second not in self.sightings:
            return False
        (begin, end), (other_begin, other_end) = self.sightings[first], self.sightings[second]
        return begin <= other_end and other_begin <= end


class World:
    """The map of one camera, or of several whose poses are given in one frame; each goes on with a tracker of its own.

    An instance that one camera entered is found by the others where it lies, under the id that it has. Where two
    cameras gave one thing two ids before they knew, the ids are joined, and the smaller goes on: each camera follows
    with its next frame. Cameras of one world step one after the other, never at the same time.
    """

    def __init__(self, settings: GeometrySettings) -> None:
        self.map = InstanceMap(settings)
        self.constraints = Constraints()
        self.seen_ns: dict[int, int] = {}
        """Stamp of the last frame that shows each id."""
        self.number = -1
        """Of the current frame: a camera's own number while it is alone, else frames of all cameras so far, less one.
        """
        self._members: list[Member] = []
        self._streaks: dict[tuple[int, int], int] = {}

    def join(self, identities: Identities) -> Member:
        """Takes a camera in, by its tracker."""
        for member in self._members:
            member.identities.others.append(identities)
            identities.others.append(member.identities)
        self._members.append(Member(identities))
        return self._members[-1]

    def reset(self) -> None:
        """Empties the map."""
        self.map.reset()
        self.seen_ns = {}
        self._streaks = {}
        for member in self._members:
            member.sightings, member.entered, member.joins = {}, None, []

    @property
    def shared(self) -> bool:
        """True if there are several cameras in it."""
        return len(self._members) > 1

    def forget(self, member: Member) -> None:
        """Drops what this camera saw lately, but not what it entered into the map: it starts anew."""
        member.sightings, member.entered, member.joins = {}, None, []
        self._streaks = {}

    def begin(self, number: int) -> None:
        """A camera begins a frame, which it counts as this number."""
        self.number = self.number + 1 if self.shared else number

    def elsewhere(self, member: Member) -> set[int]:
        """Ids in the map that other cameras know and this one does not, nor did before it joined them in this frame."""
        if not self.shared:
            return set()
        identities = member.identities
        return self.map.instances.keys() - identities.known() - {id for id, _ in identities.joined}

    def two_things(self, first: int, second: int, but: Member | None = None) -> bool:
        """True if a camera, other than `but`, has seen both at the same time."""
        return any(member is not but and member.saw_both(first, second) for member in self._members)

    def merged(self, member: Member, id: int, into: int, evidence: float) -> None:
        """This camera's tracker joined two ids: the map does so now, the other cameras with their next frame."""
        self.map.merge(id, into)
        member.goes_on_as(id, into)
        for other in self._members:
            if other is not member:
                other.joins.append(Join(id, into, evidence))

    def same(self, first: int, second: int, evidence: float) -> None:
        """Two ids are one thing: the map joins them now, every camera with its next frame. The smaller id goes on."""
        into, id = sorted((first, second))
        self.map.merge(id, into)
        for member in self._members:
            member.joins.append(Join(id, into, evidence))

    def keep_only(self, known: Set[int]) -> None:
        """Drops what was found out about ids that no longer exist."""
        self._streaks = {pair: times for pair, times in self._streaks.items() if known >= set(pair)}

    def compare(self, member: Member, stamp_ns: int, entered: Voxels) -> None:
        """Takes what a camera's frame entered, and joins the ids that it and another camera gave the same things."""
        if not self.shared:
            return
        member.entered = (stamp_ns, entered)
        here = set(np.unique(entered.instance).tolist())
        for other in self._members:
            if other is member or other.entered is None or abs(other.entered[0] - stamp_ns) > _SAME_TIME_NS:
                continue
            alike = _alike(entered, other.entered[1])
            there = set(np.unique(other.entered[1].instance).tolist())
            for pair in [pair for pair in self._streaks if _is_between(pair, here, there) and pair not in alike]:
                del self._streaks[pair]
            for pair, iou in alike.items():
                self._streaks[pair] = self._streaks.get(pair, 0) + 1
                if self._streaks[pair] >= _AGREE_AFTER and self._may_be_one(*pair):
                    del self._streaks[pair]
                    self.same(*pair, iou)

    def _may_be_one(self, first: int, second: int) -> bool:
        said = self.constraints
        told = said.cut(first, second) or (said.edited(first) and said.edited(second))
        return not told and not self.two_things(first, second)


def _alike(here: Voxels, there: Voxels) -> dict[tuple[int, int], float]:
    """Pairs of ids, the smaller first, that two cameras give the same voxels, with their IoU over common voxels."""
    if not len(here) or not len(there):
        return {}
    place = np.searchsorted(there.key, here.key).clip(max=len(there) - 1)
    common = there.key[place] == here.key
    a, b = here.instance[common].astype(np.int64), there.instance[place[common]].astype(np.int64)
    pairs, number = np.unique(a << 32 | b, return_counts=True)
    total_a, total_b = np.bincount(a), np.bincount(b)
    result = {}
    for pair, both in zip(pairs.tolist(), number.tolist(), strict=True):
        first, second = pair >> 32, pair & 0xFFFFFFFF
        iou = both / (total_a[first] + total_b[second] - both)
        if first != second and both >= _FEWEST and iou >= _SAME:
            result[min(first, second), max(first, second)] = float(iou)
    return result


def _is_between(pair: tuple[int, int], here: set[int], there: set[int]) -> bool:
    first, second = pair
    return (first in here and second in there) or (second in here and first in there)
