"""Step 6 of the method: of masks that overlap, each pixel gets one owner; what people said comes first."""

from __future__ import annotations

import numpy as np
import torch

from mastsam_ros.device import on_host, upload
from mastsam_ros.geometry.instance_map import Separation
from mastsam_ros.masks import TrackMasks, look_up
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.map_revival import MapRevival
from mastsam_ros.tracker.overlap import OverlapFilter, one_id_per_pixel
from mastsam_ros.tracker.propagation import Carried
from mastsam_ros.tracker.selection import Chosen, Figures
from mastsam_ros.tracker.unproven import parts_of_wholes
from mastsam_ros.types import EventKind, Unprompted

_OTHER_MIND = 0.5
"""Agreement of the segmenter's answer with a mask that a person made below which the person is believed."""
_PREFERRED = 2.0
"""More than any agreement and score: where masks overlap, one that a person made is in front."""


class Ownership:
    """Decides which track each pixel belongs to, and which tracks are one."""

    def __init__(self, identities: Identities, overlap: OverlapFilter, map_revival: MapRevival) -> None:
        self._identities = identities
        self._overlap = overlap
        self._map = map_revival

    def decide(
        self, active: list[int], carried: Carried, chosen: Chosen, unprompted: Unprompted | None
    ) -> tuple[torch.Tensor, int, Figures]:
        """Joins tracks whose masks coincide and parts with what they are parts of, and gives each pixel one id.

        Returns the index (H, W), how many of its pixels are nobody's, and the figures of what was chosen. What the host
        decides by comes in one transfer, and in nearly every frame its decisions change no pixel but by their number.
        """
        device = carried.index.device
        identities, masks, order = self._identities, chosen.masks, chosen.preference()
        shared, index = self._overlap.shared_iou(masks), one_id_per_pixel(masks, order, carried.index)
        still = carried.index.new_zeros(())
        moved = still if carried.moved is None else carried.moved
        numbers, iou, uncovered, step = on_host(chosen.numbers(), shared, (index == 0).sum(), moved)
        figures = Figures.of(numbers)
        ages = identities.ages()
        anew = float(step) / index.numel() ** 0.5
        # Before tracks are found: what this frame proves counts in it.
        parts = [] if unprompted is None else parts_of_wholes(active, ages, unprompted, identities, anew)
        for id, found, agreement, score in zip(active, figures.found, figures.agreement, figures.score, strict=True):
            if found:
                identities.seen(id, agreement, score)
            else:
                identities.coasted(id)
        masks = self._as_people_said(active, carried, masks, figures)
        if masks is not chosen.masks:
            (iou,) = on_host(self._overlap.shared_iou(masks))
        joined, hidden = self._overlap.join(active, ages, iou, figures.agreement, self._separation, parts)
        standing_in = [id for id in sorted(self._map.in_plain_view(hidden)) if identities.doubted(id)]
        if standing_in:
            hidden -= set(standing_in)
            masks = masks.replaced(upload([id in standing_in for id in active], device), carried.index)
        if hidden:
            masks = masks.emptied(upload([id not in hidden for id in active], device))
        shaped = self._shaped(active)
        if shaped or masks is not chosen.masks:
            preferred = upload([_PREFERRED * (n in shaped) for n in range(len(active))], device, torch.float32)
            index = one_id_per_pixel(masks, order + preferred, carried.index)
            (uncovered,) = on_host((index == 0).sum())
        if joined:
            place = {id: n for n, id in enumerate(active)}
            table = np.arange(len(active) + 1)
            for id, into in joined.items():
                table[place[id] + 1] = place[into] + 1
                identities.merge(id, into)
                identities.weigh(EventKind.MERGED, id, self._overlap.iou.get(id, 1.0))
            index = look_up(upload(table, device), index)
        return index, int(uncovered), figures

    def _as_people_said(self, active: list[int], carried: Carried, masks: TrackMasks, figures: Figures) -> TrackMasks:
        """A mask that a person made is kept where the segmenter has another mind; what they told apart stays apart."""
        said = self._identities.constraints
        if not said.shaped and not said.cuts:
            return masks
        shaped = [n for n in self._shaped(active) if figures.found[n] and figures.agreement[n] < _OTHER_MIND]
        if shaped:
            keep = upload([n in shaped for n in range(len(active))], carried.index.device)
            masks = masks.replaced(keep, carried.index)
        cut = [(n, m) for n, id in enumerate(active) for m, other in enumerate(active) if said.cut(id, other)]
        if not cut:
            return masks
        dense = masks.dense.clone()
        for n, other in cut:
            dense[n] &= carried.index != other + 1
        return TrackMasks(dense)

    def _shaped(self, active: list[int]) -> list[int]:
        shaped = self._identities.constraints.shaped
        return [n for n, id in enumerate(active) if id in shaped] if shaped else []

    def _separation(self, first: int, second: int) -> Separation:
        apart = self._identities.apart(first, second) or self._map.two_things(first, second)
        return Separation.APART if apart else self._map.separation(first, second)
