"""Recognises tracks by where they are in the world: an object that was out of sight comes back under its own id."""

from __future__ import annotations

from collections.abc import Set

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.device import on_host, upload
from mastsam_ros.geometry.extents import group_extents
from mastsam_ros.geometry.instance_map import Separation
from mastsam_ros.geometry.presence import Presence
from mastsam_ros.tracker.departed import Departed
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.mapper import Mapper
from mastsam_ros.tracker.placed_view import FEWEST, STRIDE, PlacedView
from mastsam_ros.tracker.world import Join
from mastsam_ros.types import EventKind, InputError, TrackState

_CLAIM = 0.5
"""Share of a mask's known voxels that must be an id's for the mask to be that id..."""
_KNOWN = 0.1
"""... and share of the mask's pixels that these must be: the rest may come into view for the first time."""
_FEW, _FEW_CLAIM = 6, 0.7
"""Pixels with a voxel that tell, of a small thing, if this share of them is an id's: fewer than `FEWEST`."""
_PART, _FEWEST_OF_PART = 0.3, 6
"""Share of a new mask that must lie on a thing's voxels for it to have been part of it, and pixels that tell."""
_FIRM = 3
"""Votes that a voxel must have to say whose mask lies on it."""
_ANOTHERS, _OWN = 0.7, 0.15
"""Share of a mask's voxels from which on it is another id's, if at most so many are its own."""
_COLOUR = 50.0
"""Mean colours of a mask and of the voxels it lies on may differ by so many grey levels."""
_COMPACT_M = 0.8
"""Larger things are recognised by the voxels that they lie on alone."""
_IN_FRONT, _IN_FRONT_M = 0.8, 0.02
"""Share of what lies between two ends of one thing that must be nearer, and by how much, metres."""
_GROWN = 2.5
"""So many times as large as what was seen of it a thing may turn out to be."""


class MapRevival:
    """What the map says about who is who. Where the pose of the current view is not known it says nothing."""

    def __init__(self, mapper: Mapper) -> None:
        self._mapper = mapper
        self._world, self._member, self._map = mapper.world, mapper.member, mapper.map
        self._departed = Departed()
        self.agreement: dict[tuple[int, int], float] = {}
        """Of the last look-up, (id, mask): share of the mask's known voxels that are the id's."""

    def reset(self) -> None:
        """Forgets what lost things were like."""
        self._departed.reset()

    @property
    def speaks(self) -> bool:
        """Whether the map knows the place."""
        return self._mapper.T_world_camera is not None

    @property
    def _view(self) -> PlacedView | None:
        return self._mapper.view

    def elsewhere(self) -> set[int]:
        """Ids in the map that only other cameras know."""
        return self._world.elsewhere(self._member)

    @property
    def joins(self) -> list[Join]:
        """The ids that other cameras, or the map, have joined, and that this camera does not know to be one yet."""
        return self._member.joins

    def followed(self) -> None:
        """The tracker knows of the joins now."""
        for join in self._member.joins:
            self._member.goes_on_as(join.id, join.into)
        self._member.joins = []

    def two_things(self, first: int, second: int) -> bool:
        """True if another camera of this world has seen both ids at the same time."""
        return self._world.two_things(first, second, but=self._member)

    def recognise(
        self, index: torch.Tensor, count: int, wanted: set[int], several: Set[int] = frozenset()
    ) -> dict[int, int]:
        """Which of `count` masks lies where which wanted id is in the map: mask (0-based) -> id.

        index: (H, W) int64, n + 1 = mask n. Each id is one mask at most, but those in `several` any number.
        """
        view, self.agreement = self._view, {}
        if view is None or not wanted or not count:
            return {}
        rows, columns, voxel = view.everywhere(self._map)
        mask = on_host(index)[0][rows, columns]
        on = (mask > 0) & (voxel >= 0)
        voxel, rgb, mask_on = voxel[on], view.view.image[rows[on], columns[on]], mask[on]
        instance = self._map.voxels.instance[voxel]
        area, known = np.bincount(mask, minlength=count + 1), np.bincount(mask_on, minlength=count + 1)
        pairs = []
        for id in sorted(wanted & set(np.unique(instance).tolist())):
            votes = np.bincount(mask_on[instance == id], minlength=count + 1)
            enough = (votes >= _CLAIM * known) & (votes >= _KNOWN * area)
            enough &= (votes >= FEWEST) | ((votes >= _FEW) & (votes >= _FEW_CLAIM * known))
            for n in np.nonzero(enough)[0].tolist():
                both = (instance == id) & (mask_on == n)
                difference = rgb[both].mean(axis=0) - self._map.voxels.rgb[voxel[both]].mean(axis=0)
                if np.linalg.norm(difference) < _COLOUR:
                    pairs.append((-int(votes[n]), id, n - 1))
                    self.agreement[id, n - 1] = float(votes[n] / known[n])
        result: dict[int, int] = {}
        for _, id, n in sorted(pairs):
            if n not in result and (id not in result.values() or id in several):
                result[n] = id
        return result

    def nearness(self, new: torch.Tensor, count: int, wanted: set[int]) -> dict[int, dict[int, float]]:
        """How near new masks are to where wanted ids were: id -> mask (0-based) -> distance, 1 is as far as may be.

        Only for ids of compact things that the map knows: what comes out from behind something shows other sides
        than it did, at a place about as far from those as it is large. new: (H, W) int64, n + 1 = mask n.
        """
        view = self._view
        if view is None or not wanted or not count:
            return {}
        mask = on_host(new)[0][view.rows, view.columns]
        on = np.flatnonzero(mask)
        extents = group_extents(view.points.take(on, axis=0), mask.take(on), FEWEST)
        boxes = {n - 1: (low, high) for n, (low, _, high) in extents}
        result: dict[int, dict[int, float]] = {}
        for id, (low, high) in self._map.boxes(wanted).items():
            size = high - low
            if size.max() > _COMPACT_M:
                continue
            reach = max(size.max(), 2 * self._map.settings.map_voxel_m)
            result[id] = {}
            for n, (new_low, new_high) in boxes.items():
                whole = np.maximum(high, new_high) - np.minimum(low, new_low)
                apart = np.linalg.norm(np.maximum(np.maximum(low - new_high, new_low - high), 0))
                if (whole <= _GROWN * reach).all():
                    result[id][n] = float(apart / reach)
        return result

    def origins(
        self, new: torch.Tensor, parents: list[int], held: list[bool], active: list[int]
    ) -> tuple[list[int], list[bool]]:
        """Which track (0-based in `active`, -1: none) each new mask seems to come from, and whether it was part of it.

        new: (H, W) int64, n + 1 = mask n. parents, held: what the picture says. What lies on a track's voxels was part
        of it. What does not only came out from before or behind it.
        """
        view = self._view
        if view is None or not parents:
            return parents, held
        area, _, votes = self._votes(on_host(new)[0], len(parents))
        place = {id: n for n, id in enumerate(active)}
        parents, held = list(parents), list(held)
        for n, parent in enumerate(parents):
            if area[n] < _FEWEST_OF_PART:
                continue
            best = int(votes[n].argmax())
            if votes[n, best] >= _CLAIM * area[n] and best in place:
                parents[n], held[n] = place[best], True
            elif held[n]:
                id = active[parent]
                held[n] = bool(id < votes.shape[1] and votes[n, id] >= _PART * area[n])
        return parents, held

    def put_right(
        self, image: npt.NDArray[np.integer], active: list[int], identities: Identities
    ) -> npt.NDArray[np.int64] | None:
        """Ends what slid from one thing onto another: a mask that lies on another id's voxels, not on its own, is that
        other id's.

        image: (H, W), n + 1 where `active[n]` is; a lost id that comes back is appended to `active`. Returns what each
        value of the image is from now on, (len(active) + 1,), None if all is right.
        """
        view = self._view
        if view is None or not active:
            return None
        area, known, votes = self._votes(image, len(active))
        table = np.arange(len(active) + 1)
        own_voxels = np.bincount(self._map.voxels.instance, minlength=votes.shape[1])
        still = self._mapper.moving.ids
        for n, id in enumerate(list(active)):
            if not identities.exists(id) or id in still or identities.constraints.edited(id) or id >= votes.shape[1]:
                continue
            best = int(votes[n].argmax())
            slid = votes[n, best] >= FEWEST and votes[n, best] >= _ANOTHERS * known[n] and known[n] >= _PART * area[n]
            slid = slid and votes[n, id] < _OWN * known[n] and own_voxels[id] >= FEWEST
            if not slid or best == id or not identities.exists(best):
                continue
            if best not in active:
                if best not in identities.lost():
                    continue
                identities.revive(best, "lies where it was lost")
                identities.weigh(EventKind.REVIVED, best, float(votes[n, best] / known[n]))
                active.append(best)
            table[n + 1] = active.index(best) + 1
        return None if (table == np.arange(len(table))).all() else table

    def _votes(
        self, image: npt.NDArray[np.integer], count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of each of `count` masks (n + 1 in image): its pixels, those with a firm voxel, and these by id."""
        view = self._view
        if view is None:
            raise InputError("nothing is known of a view without a place in the map")
        mask = image[view.rows, view.columns].astype(np.int64)
        on = (mask > 0) & (view.voxel >= 0)
        on[on] = self._map.voxels.votes[view.voxel[on]] >= _FIRM
        instance = self._map.voxels.instance[view.voxel[on]].astype(np.int64)
        ids = int(self._map.voxels.instance.max(initial=0)) + 1
        votes = np.bincount(mask[on] * ids + instance, minlength=(count + 1) * ids).reshape(count + 1, ids)[1:]
        area: npt.NDArray[np.int64] = np.bincount(mask, minlength=count + 1)[1:]
        return area, votes.sum(axis=1), votes

    def cut_off(self, new: torch.Tensor, index: torch.Tensor, active: list[int]) -> dict[int, dict[int, float]]:
        """As `nearness`, of new masks that something nearer divides from an active id's mask: two ends of one thing.

        new, index: (H, W) int64, n + 1 = new mask n, and where `active[n]` is; 0 in `active` is nobody.
        """
        view = self._view
        if view is None:
            return {}
        masks, owners = on_host(new, index)
        count = int(masks.max())
        if not count:
            return {}
        result: dict[int, dict[int, float]] = {}
        for id, near in self.nearness(new, count, set(active) - {0}).items():
            close = {n: distance for n, distance in near.items() if distance < 1}
            theirs = owners == active.index(id) + 1 if close else owners
            result[id] = {n: d for n, d in close.items() if _divided(masks == n + 1, theirs, view.depth)}
        return result

    def reunite(self, index: torch.Tensor, active: list[int], identities: Identities) -> list[int]:
        """Gives young tracks their old ids: those that lie where a track was lost before they were born, and those that
        are like one that is gone from its place.

        index: (H, W) int64, n + 1 where `active[n]` is. Returns `active` with the old ids in place of the young.
        """
        view, lost = self._view, set(identities.lost())
        self._departed.keep_only(lost)
        elsewhere = self.elsewhere()
        if view is None or not (lost or elsewhere):
            return active
        result = list(active)
        for n, id in self.recognise(index, len(active), lost | elsewhere).items():
            if identities.constraints.edited(active[n]) or self.two_things(active[n], id):
                continue
            if id in elsewhere and identities[active[n]].state is TrackState.TENTATIVE:
                identities.meet(id)  # nobody has heard of the young one
                self._reunited(active[n], id, "lies where {} was lost", self.agreement[id, n], identities)
                result[n] = id
            elif id in elsewhere:
                self._world.same(active[n], id, self.agreement[id, n])
                view.presence.clear()
            # Two that were in view at the same time are two.
            elif id in self._map.instances and identities[active[n]].age <= view.number - self._last_seen(id):
                self._reunited(active[n], id, "lies where {} was lost", self.agreement[id, n], identities)
                result[n] = id
        lost -= set(result)
        empty = {id for id, where in self._presence(lost).items() if where is Presence.GONE}
        self._departed.update(self._map, {id: self._last_seen(id) for id in lost}, empty)
        born = {id: view.number - identities[id].age for id in result if not identities.constraints.edited(id)}
        for id, (old, evidence) in self._departed.elsewhere(
            self._map, born, self._mapper.odometry.keyframes, view.K
        ).items():
            self._reunited(id, old, "looks like {}, which is gone from its place", evidence, identities)
            result[result.index(id)] = old
        return result

    def _reunited(self, young: int, old: int, how: str, evidence: float, identities: Identities) -> None:
        identities.revive(old, how.format("it"))
        identities.merge(young, old, how.format("the other"))
        for kind, told in ((EventKind.REVIVED, old), (EventKind.MERGED, young)):
            identities.weigh(kind, told, evidence)
        self._mapper.merge(young, old, evidence)

    def _last_seen(self, id: int) -> int:
        """This camera's last frame that shows the id; one before all others if none does."""
        return self._member.sightings.get(id, (-1, -1))[1]

    def divide(self, index: torch.Tensor, active: list[int], identities: Identities) -> torch.Tensor:
        """Brings parts back that a person split off: where the map has them, they end the mask that took them in.

        index: (H, W) int64, n + 1 where `active[n]` is; the parts found are appended to `active`. Returns the index.
        """
        view, cut = self._view, identities.constraints.cut
        if view is None or not identities.constraints.cuts:
            return index
        for id in [lost for lost in identities.lost() if any(cut(lost, other) for other in active)]:
            others = [n + 1 for n, other in enumerate(active) if cut(id, other)]
            mask = on_host(index)[0]
            there = np.zeros(mask.shape, np.uint8)
            known = view.voxel >= 0
            there[view.rows[known], view.columns[known]] = self._map.voxels.instance[view.voxel[known]] == id
            # Every STRIDE-th pixel was looked up: closing fills what lies between.
            kernel = np.ones((2 * STRIDE + 1, 2 * STRIDE + 1), np.uint8)
            part = (cv2.morphologyEx(there, cv2.MORPH_CLOSE, kernel) > 0) & np.isin(mask, others)
            if (there > 0)[part].sum() < FEWEST:
                continue
            active.append(id)
            index = torch.where(upload(part, index.device), len(active), index)
            identities.revive(id, "lies where it was split off")
        return index

    def relabel(self, mask: npt.NDArray[np.bool_], id: int) -> None:
        """The voxels that `mask` (H, W) covers in the current view are `id`'s from now on."""
        view = self._view
        if view is None:
            return
        inside = mask[view.rows, view.columns] & view.sure
        points = view.points[inside]
        ray = points - view.T[:3, 3].astype(np.float32)
        voxel = self._map.look_up(points, ray / np.linalg.norm(ray, axis=1, keepdims=True))
        self._map.relabel(np.unique(voxel[voxel >= 0]), id, self._world.number)
        view.presence.clear()
        self._member.sightings.setdefault(id, (view.number, view.number))

    def separation(self, first: int, second: int) -> Separation:
        """How far two ids are known to be two things in the map."""
        return Separation.UNKNOWN if not self.speaks else self._map.separation(first, second)

    def waiting(self, identities: Identities) -> set[int]:
        """Lost ids that cannot be seen from here: out of view, or hidden, or nobody knows where here is."""
        view = self._view
        if view is None:
            return set(self._map.instances) if self._mapper.odometry.lost else set()
        where = self._presence(set(identities.lost()))
        return {id for id, presence in where.items() if presence in (Presence.OUT_OF_VIEW, Presence.OCCLUDED)}

    def _presence(self, ids: Set[int]) -> dict[int, Presence]:
        view = self._view
        if view is None:
            return {}
        if unknown := sorted(ids - view.presence.keys()):
            found = self._map.presence(unknown, view.T, view.K, view.depth)
            view.presence.update({id: found.get(id) for id in unknown})
        return {id: where for id in sorted(ids) if (where := view.presence[id]) is not None}

    def in_plain_view(self, ids: set[int]) -> set[int]:
        """Those of the ids whose places are in view and not empty: what the segmenter misses there is its fault."""
        return {id for id, where in self._presence(ids).items() if where is Presence.IN_VIEW}


def _divided(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], depth: npt.NDArray[np.float32]) -> bool:
    """Whether what lies between two masks (H, W), on the straight line between their middles, is nearer than both."""
    if not second.any():
        return False
    ends = []
    for mask in (first, second):
        pixels = np.argwhere(mask)
        ends.append(pixels[np.argmin(((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1))])
    steps = np.linspace(0, 1, int(np.abs(ends[1] - ends[0]).max()) + 1)[:, None]
    row, column = np.rint(ends[0] + steps * (ends[1] - ends[0])).astype(np.int64).T
    between = ~(first | second)[row, column]
    nearest = min(
        float(np.median(depth[mask & (depth > 0)])) if (mask & (depth > 0)).any() else 0.0 for mask in (first, second)
    )
    z = depth[row, column][between]
    return bool(len(z) and ((z > 0) & (z < nearest - _IN_FRONT_M)).mean() > _IN_FRONT)
