"""Step 7 of the method, its second half: who the new masks of a frame are, new tracks or old ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.device import on_host, upload
from mastsam_ros.masks import look_up
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.discovery import new_masks, solid
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.map_revival import MapRevival
from mastsam_ros.tracker.parents import carried_from, parents_of
from mastsam_ros.tracker.propagation import Carried, occurrences
from mastsam_ros.tracker.revival import STRANGE_FRAMES, Appearance, LostTracks, appearances
from mastsam_ros.tracker.selection import Figures, outlined
from mastsam_ros.types import CandidateMasks, EventKind, Frame, Matches

_LAST_GLIMPSE = 1
"""Frames before something was lost in which what was found under its id may have been a sliver, or another's mask."""
_SMALL = 0.03
"""Share of the picture up to which a mask is looked at for having gone over to something else: floors and walls look
unlike from frame to frame."""
TINY = 2
"""Times the smallest mask: smaller new ones are not shown before they were seen in several frames."""


class Arrivals:
    """Gives the new masks of a frame their ids, by what is known of the tracks, of what was lost, and by the map."""

    def __init__(
        self,
        settings: TrackerSettings,
        identities: Identities,
        lost: LostTracks,
        map_revival: MapRevival,
    ) -> None:
        self.settings = settings
        self._identities = identities
        self._lost = lost
        self._map = map_revival

    def take_in(
        self,
        answer: CandidateMasks,
        view: Frame,
        active: list[int],
        index: torch.Tensor,
        region: torch.Tensor | None,
        carried: Carried | None,
        matches: Matches | None,
        figures: Figures | None,
    ) -> None:
        """New masks of the segmenter's answer become tracks, old ones where recognised. Writes into active and index.

        view: at working size. active: ids of the tracks. index: (H, W) int64, n + 1 where active[n] is, 0 where nothing
        is. region: (H, W) bool, what was asked for; None for all of it, in the first frame. carried, matches, figures:
        of the tracks that were there before, None if there were none.
        """
        settings, identities = self.settings, self._identities
        new, scores, area = new_masks(answer, region, settings)
        if not scores:
            return
        image = view.image_on(index.device)
        recognised = self._recognised(new, len(scores), image, matches, index, active)
        parents, held = parents_of(
            new,
            len(scores),
            index,
            len(active),
            carried,
            image,
            None if figures is None else upload(outlined(active, figures, identities, settings), index.device),
        )
        parents, held = self._map.origins(new, parents, held, active)
        # Where no score lies between the two it makes no difference.
        asked = any(settings.confirm_new_score <= score < settings.confirm_score for score in scores)
        whole = solid(new, len(scores)) if asked else [True] * len(scores)
        wholes = self._parts_of_wholes(new, len(scores), active, carried)
        first, tiny = region is None, TINY * settings.min_area_share * new.numel()
        place = np.zeros(len(scores) + 1, dtype=np.int64)
        for n, (score, parent) in enumerate(zip(scores, parents, strict=True)):
            if n in recognised:
                id, reason = recognised[n]
                if id in active and identities.constraints.linked(id):
                    id = identities.born(score, part_of=identities.constraints.instance(id))
                elif id in active:
                    place[n + 1] = active.index(id) + 1
                    continue
                else:
                    identities.revive(id, reason)
                    seen_there, looks_like = self._map.agreement.get((id, n)), self._lost.likeness.get((id, n), 0.0)
                    identities.weigh(EventKind.REVIVED, id, looks_like if seen_there is None else seen_there)
            elif n in wholes:
                id = identities.born(score, part_of=wholes[n])
            else:
                sure = first or score >= settings.confirm_score
                free = not held[n] and score >= settings.confirm_new_score
                sure |= free and area[n] >= tiny and whole[n]
                shown_as = 0 if sure or parent < 0 else identities.shown_as(active[parent])
                id = identities.born(score, shown_as, sure, free, held[n])
            active.append(id)
            place[n + 1] = len(active)
        index += look_up(upload(place, index.device), new)

    def met_again(
        self,
        active: list[int],
        looks: Appearance,
        matches: Matches | None,
        areas: npt.NDArray[np.float64],
        pixels: int,
    ) -> dict[int, int]:
        """Tracks that turn out to be what was lost, or what something else stands in for: young -> old id.

        What comes out from behind something is a sliver at first: it cannot be recognised when it is born. So what was
        born since the other was seen last is looked at again in every frame. Nor is a small thing seen whose mask went
        over to another one: it looks like something else at once. And what is left of a thing that goes behind another
        one may stay beside it, while the rest is found anew. Where the map knows the place, the map decides.
        active: (N,) ids of the tracks; looks: of each; areas: (N,) of each, pixels; pixels: of the picture.
        """
        settings, identities = self.settings, self._identities
        if not settings.revival or matches is None or self._map.speaks:
            return {}
        lives, said = [identities[id] for id in active], identities.constraints
        missed = [identities[id] for id in identities.lost()] + [life for life in lives if life.missing > 0]
        gone = {life.id: life for life in missed if life.missing <= settings.revival_frames}
        self._lost.move(list(gone), matches)
        since = {id: life.missing for id, life in gone.items()}
        old = [n for n, life in enumerate(lives) if life.missing == 0 and life.age >= settings.mature_after]
        old = [n for n in old if areas[n] <= _SMALL * pixels and not said.edited(active[n])]
        left = {active[n]: float(areas[n]) for n in old}
        slivers = self._lost.slivers(left)
        since |= slivers
        newest = min((life.age for life in lives if life.missing == 0), default=STRANGE_FRAMES + _LAST_GLIMPSE + 1)
        if newest <= STRANGE_FRAMES + _LAST_GLIMPSE:
            since |= self._lost.strangers(list(left), replace(looks, colours=None).of(old))
        gone |= {id: identities[id] for id in since if id not in gone}
        longest = max(since.values(), default=-_LAST_GLIMPSE)
        young = [n for n, life in enumerate(lives) if life.missing == 0 and life.age <= longest + _LAST_GLIMPSE]
        young = [n for n in young if not said.edited(lives[n].id)]
        if not young:
            return {}

        def may_be(id: int, n: int) -> bool:
            age = lives[young[n]].age
            larger = id not in slivers or areas[young[n]] >= left[id]
            return larger and age <= since[id] + _LAST_GLIMPSE and age < gone[id].age

        large = {id for n, id in enumerate(active) if areas[n] > _SMALL * pixels and n not in young and id not in gone}
        wholes = [large | {lives[n].parent} for n in young]
        found = self._lost.recognise(list(gone), looks.of(young), possible=may_be, wholes=wholes)
        # A mask whose id goes back to another one is nobody's; who it is, is asked when it is found anew.
        found = {n: id for n, id in found.items() if active[young[n]] not in found.values()}
        for n, id in found.items():
            identities.found_as(active[young[n]], id, "looks as it did when it was lost")
            identities.weigh(EventKind.REVIVED, id, self._lost.likeness[id, n])
        return {active[young[n]]: id for n, id in found.items()}

    def _parts_of_wholes(
        self, new: torch.Tensor, count: int, active: list[int], carried: Carried | None
    ) -> dict[int, int]:
        """New masks (0-based) that broke off what a person merged or removed, and the instance they stay with."""
        said = self._identities.constraints
        if not said.shown or carried is None:
            return {}
        origin = carried_from(new, count, len(active), carried).items()
        return {n: said.instance(active[track]) for n, track in origin if said.linked(active[track])}

    def _recognised(
        self,
        new: torch.Tensor,
        count: int,
        image: torch.Tensor,
        matches: Matches | None,
        index: torch.Tensor,
        active: list[int],
    ) -> dict[int, tuple[int, str]]:
        """New mask (0-based) -> the id that it is, lost or cut in two by what stands before it, and how it is known."""
        settings, identities = self.settings, self._identities
        owned = on_host(occurrences(index.flatten(), len(active) + 1)[1:])[0].tolist()
        present = {id: area > 0 for id, area in zip(active, owned, strict=True) if identities.exists(id)}
        lost = {*identities.lost(), *(id for id, shown in present.items() if not shown)}
        # What lies where a part of a merged or removed instance is belongs to it, in view or not.
        parts = {id for id in identities.known() if identities.constraints.linked(id)}
        elsewhere = self._map.elsewhere()
        placed = self._map.recognise(new, count, lost | parts | elsewhere, parts)
        found = {n: (id, "lies where it was lost") for n, id in placed.items()}
        for id in elsewhere.intersection(placed.values()):
            identities.meet(id)
        if not settings.revival or matches is None:
            return found
        recent = [id for id in identities.lost() if identities[id].missing <= settings.revival_frames]
        # What no match led to in this frame may be in it all the same.
        recent += [id for id, shown in present.items() if not shown]
        self._lost.move(recent, matches)
        looks = appearances(new, count, image)
        lost -= {id for id, _ in found.values()}
        near = self._map.nearness(new, count, lost)
        alike = self._lost.recognise([id for id in sorted(lost) if id in near or id in recent], looks, near)
        ends = self._map.cut_off(new, index, [id if present.get(id) else 0 for id in active])
        both = self._lost.recognise(list(ends), looks, ends)
        for pairs, reason in ((alike, "looks as it did when it was lost"), (both, "is its other end")):
            found |= {n: (id, reason) for n, id in pairs.items() if n not in found}
        return found


def gone_on(
    again: Mapping[int, int],
    index: torch.Tensor,
    image: npt.NDArray[np.int64],
    active: list[int],
    looks: Appearance,
) -> tuple[torch.Tensor, npt.NDArray[np.int64], list[int], Appearance]:
    """The index (H, W), the same on the host, the active ids and their looks, when tracks go on as other ones.

    again: young -> old id. What stood in for an old one is nobody's.
    """
    kept = [n for n, id in enumerate(active) if id not in again.values()]
    table = np.zeros(len(active) + 1, np.int64)
    table[np.array(kept, np.int64) + 1] = np.arange(1, len(kept) + 1)
    ids = [again.get(active[n], active[n]) for n in kept]
    if len(kept) < len(active):
        index, image, looks = look_up(upload(table, index.device), index), np.take(table, image), looks.of(kept)
    return index, image, ids, looks
