"""Who is who in the end of a frame: tracks that are one thing, or one that was seen before, go on under one id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.device import upload
from mastsam_ros.masks import look_up
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.arrivals import TINY, Arrivals, gone_on
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.map_revival import MapRevival
from mastsam_ros.tracker.mapper import Mapper
from mastsam_ros.tracker.materials import join_pieces
from mastsam_ros.tracker.parts import join_parts
from mastsam_ros.tracker.revival import LostTracks, appearances
from mastsam_ros.tracker.seen_places import SeenPlaces
from mastsam_ros.types import EventKind, Frame, Matches


class Reidentification:
    """Ends a frame's identities by what other cameras, the map, the looks of lost tracks, and the materials say."""

    def __init__(
        self,
        settings: TrackerSettings,
        identities: Identities,
        arrivals: Arrivals,
        lost: LostTracks,
        places: SeenPlaces,
        mapper: Mapper,
        revival: MapRevival,
    ) -> None:
        self.settings = settings
        self._identities = identities
        self._arrivals = arrivals
        self._lost = lost
        self._places = places
        self._mapper = mapper
        self._revival = revival

    def follow_other_cameras(self, index: torch.Tensor) -> torch.Tensor:
        """Ids that turned out to be one thing while other cameras stepped are one here, too: before the frame begins.

        index: (H, W) int64, n + 1 where `identities.active[n]` is. Returns it anew.
        """
        identities = self._identities
        for join in self._revival.joins:
            if not identities.exists(join.id):
                continue
            active = identities.active
            if join.id in active and join.into in active:
                kept = [id for id in active if id != join.id]
                places = [1 + kept.index(join.into if id == join.id else id) for id in active]
                index = look_up(upload([0, *places], index.device), index)
                identities.active = kept
            identities.goes_on_as(join.id, join.into, "one thing for several cameras")
            identities.weigh(EventKind.MERGED, join.id, join.evidence)
        return index

    def decide(
        self,
        view: Frame,
        index: torch.Tensor,
        image: npt.NDArray[np.integer],
        active: list[int],
        matches: Matches | None,
    ) -> tuple[torch.Tensor, npt.NDArray[np.int64], list[int]]:
        """The index (H, W) int64, the same on the host, and the active ids: n + 1 where active[n] is, as at the start.

        view: at working size. matches: with the view before, None in the first frame.
        """
        identities, tracker = self._identities, self.settings
        slid = self._revival.put_right(image, active, identities)
        if slid is not None:
            index, image = look_up(upload(slid, index.device), index), np.take(slid, image)
        index, image, active = self._compact(index, image, active)
        colours = tracker.revival_histogram > 0 and not self._revival.speaks
        looks = appearances(index, len(active), view.image_on(index.device), colours) if tracker.revival else None
        areas = _areas(image, active)
        again = {} if looks is None else self._arrivals.met_again(active, looks, matches, areas, image.size)
        if looks is not None and again:
            index, image, active, looks = gone_on(again, index, image, active, looks)
            areas = _areas(image, active)
        for id, into in identities.joined:
            self._mapper.merge(id, into, identities.evidence(EventKind.MERGED, id))
            self._places.merge(id, into)
        active = self._revival.reunite(index, active, identities)
        identities.end_frame(active, self._revival.waiting(identities))
        if tracker.join_pieces and view.depth is None:
            join_pieces(image, active, view.image, identities)
        if tracker.join_parts and view.depth is None:
            join_parts(image, active, view.image, identities)
        if looks is not None:
            found = [identities[id].missing == 0 for id in active]
            self._lost.remember(active, looks, areas.tolist(), found)
        return index, image, active

    def _compact(
        self, index: torch.Tensor, image: npt.NDArray[np.integer], active: list[int]
    ) -> tuple[torch.Tensor, npt.NDArray[np.int64], list[int]]:
        """Drops ids that own (almost) no pixels and numbers the rest anew: the index, the same on the host, the ids."""
        area = np.bincount(image.ravel(), minlength=len(active) + 1)[1:].tolist()
        smallest = max(1.0, self.settings.min_area_share * index.numel() / 4)
        table = np.zeros(len(active) + 1, np.int64)
        kept: list[int] = []
        for n, id in enumerate(active):
            if not self._identities.exists(id):
                continue
            if area[n] >= smallest:
                kept.append(id)
                if area[n] >= 4 * TINY * smallest:
                    self._identities.grown(id)
                table[n + 1] = len(kept)
            else:
                self._identities.disappear(id)
        self._lost.keep_only(self._identities.known())
        return look_up(upload(table, index.device), index), np.take(table, image), kept


def _areas(image: npt.NDArray[np.integer], active: list[int]) -> npt.NDArray[np.float64]:
    """(N,) pixels of each active track in the index (H, W), from every second one in both directions."""
    return 4 * np.bincount(image[::2, ::2].ravel(), minlength=len(active) + 1)[1:].astype(np.float64)
