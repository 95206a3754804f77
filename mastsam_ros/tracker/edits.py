"""What people ask for, done to the tracks of the latest frame and kept as constraints for the frames to come."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from mastsam_ros.device import on_host, upload
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.constraints import Constraints
from mastsam_ros.tracker.identity import Identities, Life
from mastsam_ros.tracker.map_revival import MapRevival
from mastsam_ros.tracker.pointing import Pointed
from mastsam_ros.types import EditError, EventKind, TrackEvent, TrackState

_REST = 0.1
"""A part that leaves less than this share of its instance is the instance itself."""
_OVERLAP = 0.05
"""Share of a new mask, or of the instance it was taken from, that makes the two neighbours a person told apart."""
_LISTED = 12
_LONGEST_NAME = 100
"""Characters: every frame's result has the name in it."""

Segment = Callable[[Pointed], "tuple[torch.Tensor, float]"]
"""Asks the segmenter for the mask (H, W) bool in the latest view and its score; raises EditError."""


class Editor:
    """Edits between two frames.

    index: (H, W) int64, n + 1 where `identities.active[n]` is, at working size; edits write it anew. events: what
    was done, to be told with the next result.
    """

    def __init__(self, identities: Identities, map: MapRevival, settings: TrackerSettings) -> None:
        self._identities, self._map, self.settings = identities, map, settings
        self.index = torch.zeros(0, 0, dtype=torch.int64)
        self.events: list[TrackEvent] = []

    def rename(self, id: int, label: str) -> None:
        """Gives an instance a name; "" takes it away. Raises EditError for an unknown id, or what is no name."""
        label = _name_of(label)
        self._tracks_anywhere(id)  # it exists
        self._name(id, label)

    def remove(self, id: int) -> None:
        """Ends an instance. Its tracks go on unseen, so that it is not found again. Raises EditError."""
        tracks = {life.id for life in self._tracks_anywhere(id)}
        shown = {track for track in self._identities.known() if self._shown_as(track) == id}
        self._detach(sorted(tracks | shown), 0)
        self._said.merged(id, 0)
        self._tell(EventKind.REMOVED, id, reason="asked for")

    def merge(self, ids: list[int]) -> int:
        """Makes several instances one, the first; the tracks that they are go on as its parts. Raises EditError."""
        ids = list(dict.fromkeys(ids))
        if len(ids) < 2:
            raise EditError(f"two or more different ids make one instance, got {ids}")
        tracks = {id: self._tracks_anywhere(id) for id in ids}
        into, was_lost = ids[0], not _in_view(tracks[ids[0]])
        for id in ids[1:]:
            for life in tracks[id]:
                self._said.link(life.id, into)
            self._said.merged(id, into)
            self._tell(EventKind.MERGED, id, into, "asked for")
        # What was told apart and is now one is one.
        if was_lost and any(_in_view(tracks[id]) for id in ids[1:]):
            self._tell(EventKind.REVIVED, into, reason="asked for: a part of it is in view")
        return into

    def add(self, what: Pointed, segment: Segment, label: str) -> int:
        """The instance that was pointed at: a new id, or the one that it has. Raises EditError."""
        label = _name_of(label)
        mask, score = segment(what)
        shared, own = self._shared(mask)
        size = int(mask.sum())
        active, said = self._identities.active, self._said
        iou = shared / np.maximum(own + size - shared, 1)
        n = int(iou.argmax()) if len(iou) else -1
        known = self._of_several(shared, own, size)
        if n >= 0 and iou[n] >= self.settings.join_iou:
            id = self._known_as(active[n])
            said.shaped.add(active[n])
            self._put(mask, n)
        elif known:
            id = known
        else:
            id = self._born(mask, score)
            for other, (both, whole) in enumerate(zip(shared, own, strict=True)):
                if both >= _OVERLAP * min(size, whole):
                    said.tell_apart(id, said.instance(active[other]))
        if label:
            self._name(id, label)
        return id

    def split(self, id: int, what: Pointed, segment: Segment, label: str) -> int:
        """Makes the part that was pointed at an instance of its own. Returns its id. Raises EditError."""
        label = _name_of(label)
        whole = {life.id for life in self._tracks_of(id)}
        number = {n: track for n, track in enumerate(self._identities.active, start=1) if self._shown_as(track) == id}
        x, y = np.rint(what.xy).astype(np.int64).T
        there = on_host(self.index)[0][y, x].tolist()
        if not set(there) <= number.keys():
            raise EditError(f"a point is not on instance {id}: every point must lie on the part of it to split off")
        hit = sorted({number[n] for n in there})
        if not whole.intersection(hit):
            part = self._known_as(hit[0])
            self._detach(hit[1:], part)
        elif whole.issuperset(hit) and whole.intersection(number.values()) - set(hit):
            # What was merged comes apart where it was joined.
            part = self._identities.new_id()
            self._detach(hit, part)
            self._tell(EventKind.BORN, part, reason=f"asked for: split off {id}")
        else:
            inside = torch.from_numpy(np.isin(on_host(self.index)[0], list(number)))
            mask, score = segment(_with_the_far_end(what, inside))
            mask = mask & inside
            size, area = int(mask.sum()), int(inside.sum())
            if size < self._smallest or size > (1 - _REST) * area:
                raise EditError(
                    f"the segmenter sees no such part of instance {id} ({size} of its {area} pixels):"
                    " point at other places of the part, or at more"
                )
            part = self._born(mask, score, f"asked for: split off {id}")
        self._said.tell_apart(part, id)
        if label:
            self._name(part, label)
        return part

    @property
    def _said(self) -> Constraints:
        return self._identities.constraints

    @property
    def _smallest(self) -> float:
        return max(1.0, self.settings.min_area_share * self.index.numel())

    def _tracks_of(self, id: int) -> list[Life]:
        instances = self._identities.instances()
        if id not in instances:
            known = ", ".join(str(known) for known in list(instances)[:_LISTED])
            more = ", ..." if len(instances) > _LISTED else ""
            raise EditError(f"there is no instance {id}: there are {known + more or 'none yet'}")
        return instances[id]

    def _tracks_anywhere(self, id: int) -> list[Life]:
        """The tracks of an instance, here or with another camera of the same world."""
        for other in self._identities.others:
            if id not in self._identities.instances() and id in (there := other.instances()):
                return there[id]
        return self._tracks_of(id)

    def _shown_as(self, track: int) -> int:
        return self._said.instance(self._identities.shown_as(track))

    def _detach(self, tracks: list[int], instance: int) -> None:
        """The tracks are parts of that instance, and no longer only shown as a part of another track."""
        for track in tracks:
            self._said.link(track, instance)
            if self._identities.exists(track):
                self._identities.confirm(track)

    def _of_several(self, shared: np.ndarray, own: np.ndarray, size: int) -> int:
        """The instance of several tracks that a mask of `size` pixels is, 0 if it is none. As `_shared` gives them."""
        instances = np.array([self._shown_as(track) for track in self._identities.active], np.int64)
        both, whole = np.bincount(instances, shared, 1), np.bincount(instances, own, 1)
        both[0] = 0
        best = int(both.argmax())
        return best if both[best] >= max(1, self.settings.join_iou * (whole[best] + size - both[best])) else 0

    def _known_as(self, track: int) -> int:
        """The id of the instance that a track is, which it is from now on; what only looked like a piece is its own."""
        id = self._said.instance(track)
        if track in self._said.pieces and id != track and any(life.id != track for life in self._tracks_of(id)):
            self._detach([track], track)
            self._tell(EventKind.BORN, track, reason=f"asked for: not a piece of {id}")
            self._said.tell_apart(track, id)
            return track
        if id == 0:  # removed, and asked for again
            id = self._identities.new_id()
            self._said.link(track, id)
            self._tell(EventKind.BORN, id, reason="asked for")
        elif self._identities[track].state is TrackState.TENTATIVE:
            self._identities.confirm(track)
            self._tell(EventKind.BORN, id, reason="asked for")
        return id

    def _born(self, mask: torch.Tensor, score: float, reason: str = "asked for") -> int:
        """A new id with this mask (H, W) bool."""
        if int(mask.sum()) < self._smallest:
            raise EditError(f"what was pointed at has {int(mask.sum())} pixels, too few for an instance")
        id = self._identities.born(score, sure=True)
        self._tell(EventKind.BORN, id, reason=reason)
        self._said.shaped.add(id)
        # A person is sure: what they made is trusted, and coasts, from the start.
        self._identities[id].hits = self.settings.mature_after
        self._identities.active.append(id)
        self._put(mask, len(self._identities.active) - 1)
        return id

    def _put(self, mask: torch.Tensor, n: int) -> None:
        self.index = torch.where(upload(mask, self.index.device), n + 1, self.index)
        self._map.relabel(mask.numpy(), self._identities.active[n])

    def _shared(self, mask: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Of every active track the pixels within the mask (N,), and all of its pixels (N,)."""
        count = len(self._identities.active) + 1
        index = on_host(self.index)[0]
        own = np.bincount(index.ravel(), minlength=count)[1:]
        return np.bincount(index[mask.numpy()], minlength=count)[1:], own

    def _name(self, id: int, label: str) -> None:
        if label:
            self._said.names[id] = label
        else:
            self._said.names.pop(id, None)
        self._tell(EventKind.RENAMED, id, reason=label)

    def _tell(self, kind: EventKind, id: int, other_id: int = 0, reason: str = "") -> None:
        self.events.append(TrackEvent(kind, id, other_id, reason, evidence=1.0))


def _name_of(label: str) -> str:
    """The name without what surrounds it. Raises EditError for one that is too long for a name or not in one line."""
    label = label.strip()
    if len(label) > _LONGEST_NAME or not label.isprintable():
        raise EditError(
            f"a name has up to {_LONGEST_NAME} printable characters in one line, got {len(label)}: {label[:20]!r}"
        )
    return label


def _in_view(tracks: list[Life]) -> bool:
    return any(life.state is TrackState.TRACKED for life in tracks)


def _with_the_far_end(what: Pointed, inside: torch.Tensor) -> Pointed:
    """The points, and as one beside the part the pixel of the instance (H, W) bool that is farthest from them."""
    rows, columns = np.nonzero(inside.cpu().numpy())
    places = np.stack([columns, rows], axis=1).astype(np.float64)
    distance = np.min([np.square(places - point).sum(axis=1) for point in what.xy], axis=0)
    far = places[int(distance.argmax())]
    return Pointed(np.vstack([what.xy, far]), np.append(what.on_instance, False))
