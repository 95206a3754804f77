"""Recognises a track that was lost for a few frames by its colour, size and expected place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from mastsam_ros.device import looking_is_free, on_host, upload
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.moments import histograms, moments
from mastsam_ros.types import Matches

COLOUR_FLOOR = 8.0**2
"""Variance in grey levels squared added to every channel: shading and noise move colours about as much."""
_MATCHES = 4096
"""Matches that are looked through for where a lost track has gone..."""
_NEAREST = 9
"""... and how many near it are asked."""
_ASTRAY = 1.0
"""Share of that motion by which the track itself may have moved otherwise: it may be nearer or farther."""
_WHOLE = 0.6
"""A mask below this share of the remembered area is a sliver of the object..."""
_STRANGE = 0.6
"""Divergence of the colours, as a share of what recognition accepts, from which on a mask is not the track that it was
carried from..."""
STRANGE_FRAMES = 4
"""... for so many frames: after that it has changed."""
_FADE = 0.98
"""... and that area shrinks by this per frame at most: what goes behind something step by step was larger once, but a
change for good is accepted in time."""
_MEMORY = 0.8
"""Share that what is known of a track's colours keeps per frame."""
_PER_REACH = 0.125
"""A histogram may differ by this share of what is accepted less for each reach that the mask is off its place..."""
_GROWN = 1.6
"""... and the logarithm of its area by the remembered one must be less."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """What a mask looks like: area in pixels, centre (2,) pixels, colour mean (3,) and covariance (3, 3), and the share
    of its pixels of every colour, (COLOURS,), where that is asked for."""

    area: torch.Tensor
    centre: torch.Tensor
    mean: torch.Tensor
    covariance: torch.Tensor
    colours: torch.Tensor | None = None

    def of(self, rows: list[int]) -> Appearance:
        """Those of some of stacked ones."""
        chosen = upload(rows, self.area.device, torch.int64)
        colours = None if self.colours is None else self.colours[chosen]
        return Appearance(self.area[chosen], self.centre[chosen], self.mean[chosen], self.covariance[chosen], colours)


def appearances(index: torch.Tensor, count: int, image: torch.Tensor, colours: bool = False) -> Appearance:
    """Appearance of every n in 1..count of `index` (H, W), stacked: area (N,), centre (N, 2), mean (N, 3), ...

    image: (H, W, 3) uint8. Every second pixel is read in both directions. colours: whether histograms are asked for.
    """
    totals = moments(index, count, image)
    size = totals[:, :1].clamp(min=1)
    mean = totals[:, 3:6] / size
    rr, rg, rb, gg, gb, bb = totals[:, 6:].unbind(dim=1)
    square = torch.stack([rr, rg, rb, rg, gg, gb, rb, gb, bb], dim=1).view(-1, 3, 3)
    covariance = square / size[..., None] - mean[:, :, None] * mean[:, None, :]
    floor = torch.eye(3, dtype=torch.float64, device=index.device) * COLOUR_FLOOR
    shares = histograms(index, count, image) if colours else None
    return Appearance(totals[:, 0] * 4, totals[:, 1:3] / size, mean, covariance + floor, shares)


class LostTracks:
    """The appearance of tracks that went out of view, moved along with what surrounds them."""

    def __init__(self, settings: TrackerSettings) -> None:
        self.settings = settings
        self._last: dict[int, Appearance] = {}
        self._whole_areas: dict[int, float] = {}
        """`_last`'s areas, so that comparing them asks no device."""
        self._colours: dict[int, torch.Tensor] = {}
        """Of every track, the mean of its last histograms in which it was whole."""
        self._moved: dict[int, torch.Tensor] = {}
        """Pixels by which the expected places were moved since."""
        self._up_to_date: set[int] = set()
        """Ids whose expected place was moved since `remember`."""
        self._slivers: dict[int, int] = {}
        """Ids that were slivers in their last frame in view, and for how many frames they had been."""
        self._strange: dict[int, int] = {}
        """Ids of `strangers`, and for how many frames they have been: in this frame, and in the one before."""
        self._were_strange: dict[int, int] = {}
        self.likeness: dict[tuple[int, int], float] = {}
        """Of what was recognised since `remember`, (id, mask): 1 for equal colours at the expected place, 0 for the
        least that is accepted."""

    def reset(self) -> None:
        """Forgets everything."""
        self._last.clear()
        self._whole_areas.clear()
        self._colours.clear()
        self._moved.clear()
        self._up_to_date.clear()
        self._slivers.clear()
        self._strange.clear()
        self._were_strange.clear()

    def remember(self, ids: list[int], seen: Appearance, areas: list[float], found: list[bool] | None = None) -> None:
        """Ends a frame: keeps the appearance of every id in view, but not of the last sliver before it was hidden.

        areas: `seen.area` as the host knows it already. found: of each id, whether its mask is its own in this frame:
        where another one stands in for it, what is known of it stays, as it does for `strangers`.
        """
        self.likeness = {}
        self._up_to_date.clear()
        own = [there and id not in self._strange for id, there in zip(ids, found or [True] * len(ids), strict=True)]
        self._were_strange, self._strange = self._strange, {}
        parts = (part.unbind() for part in (seen.area, seen.centre, seen.mean, seen.covariance))
        shares = [None] * len(ids) if seen.colours is None else seen.colours.unbind()
        for id, area, is_own, colours, *part in zip(ids, areas, own, shares, *parts, strict=True):
            if not is_own and id in self._last:
                continue
            look = Appearance(*part)
            whole_area = self._whole_areas.get(id, 0.0)
            if area < _WHOLE * whole_area:
                self._slivers[id] = self._slivers.get(id, 0) + 1
                look = replace(self._last[id], area=look.area, centre=look.centre)
            else:
                self._slivers.pop(id, None)
                if colours is not None:
                    self._colours[id] = self._colours.get(id, colours).lerp(colours, 1 - _MEMORY)
            least = whole_area * _FADE
            self._last[id], self._whole_areas[id] = replace(look, area=look.area.clamp(min=least)), max(area, least)
            self._moved.pop(id, None)

    def strangers(self, ids: list[int], seen: Appearance) -> dict[int, int]:
        """Those of the ids whose masks look like something else than they did, and for how many frames by now.

        Where one thing passes before another, a mask may go over to it. What has looked like something else for a few
        frames has changed, and is none. ids: (N,), in view; seen: the looks of each, N rows. To be asked before
        `remember`, which keeps what is known of them as it was.
        """
        rows = [n for n, id in enumerate(ids) if id in self._last]
        if not rows:
            return {}
        now, before = seen.of(rows), [self._last[ids[n]] for n in rows]
        mean, covariance = (torch.stack([getattr(look, name) for look in before]) for name in ("mean", "covariance"))
        (unlike,) = on_host(jensen_shannon(now.mean, now.covariance, mean, covariance))
        since = {ids[n]: self._were_strange.get(ids[n], 0) + 1 for n in rows}
        strange = [ids[n] for n, far in zip(rows, unlike, strict=True) if far > _STRANGE * self.settings.revival_colour]
        self._strange = {id: since[id] for id in strange if since[id] <= STRANGE_FRAMES}
        return self._strange

    def slivers(self, areas: Mapping[int, float]) -> dict[int, int]:
        """Ids of which hardly more than a sliver of what they were is in view, and for how many frames by now.

        What goes behind something leaves one; what is born beside it may be the rest, or the thing when it comes out
        again. areas: of each id in view, pixels. To be asked before `remember`.
        """
        small = [id for id, area in areas.items() if area < _WHOLE * self._whole_areas.get(id, 0.0)]
        return {id: self._slivers.get(id, 0) + 1 for id in small}

    def keep_only(self, ids: set[int]) -> None:
        """Drops ids that no longer exist."""
        self._last = {id: look for id, look in self._last.items() if id in ids}
        self._whole_areas = {id: self._whole_areas[id] for id in self._last}
        self._colours = {id: colours for id, colours in self._colours.items() if id in ids}
        self._moved = {id: moved for id, moved in self._moved.items() if id in ids}
        self._slivers = {id: frames for id, frames in self._slivers.items() if id in ids}

    def move(self, lost: list[int], matches: Matches) -> None:
        """Moves the expected place of lost tracks by the median motion of the matches nearest to it, once a frame."""
        looks = {id: self._last[id] for id in lost if id in self._last and id not in self._up_to_date}
        if not looks or len(matches) == 0:
            return
        self._up_to_date.update(looks)
        device = next(iter(looks.values())).centre.device
        some = slice(None, None, -(-len(matches) // _MATCHES))
        xy0, xy1 = matches.xy0[some].to(device).double(), matches.xy1[some].to(device).double()
        centres = torch.stack([look.centre for look in looks.values()])
        distance = torch.cdist(centres, xy0)
        nearest = torch.topk(distance, min(_NEAREST, len(xy0)), dim=1, largest=False).indices
        motion = (xy1 - xy0)[nearest].median(dim=1).values
        for (id, look), step in zip(looks.items(), motion, strict=True):
            self._last[id] = Appearance(look.area, look.centre + step, look.mean, look.covariance)
            self._moved[id] = self._moved.get(id, 0.0) + step.norm()

    def recognise(
        self,
        lost: list[int],
        new: Appearance,
        placed: Mapping[int, Mapping[int, float]] = MappingProxyType({}),
        possible: Callable[[int, int], bool] = lambda _id, _n: True,
        wholes: Sequence[Set[int]] = (),
    ) -> dict[int, int]:
        """Which new mask (0-based) is which lost id: at most one each, the closest first.

        placed: for ids whose place in the world is known, how far each new mask (0-based) that can be it is from there,
        as a share of how far it may be; the place in the picture does not count for them. possible: whether an id may
        be a new mask (0-based). wholes: of each new mask, ids in view of which it may be a piece: if its colours are
        nearer to theirs, it is.
        """
        ids = [id for id in lost if id in self._last]
        if not ids or not len(new.area):
            return {}
        looks = [self._last[id] for id in ids]
        # One row per lost track, one column per new mask.
        area, centre, mean, covariance = (
            torch.stack([getattr(look, name) for look in looks])[:, None]
            for name in ("area", "centre", "mean", "covariance")
        )
        ratio = torch.log(new.area.clamp(min=1) / area.clamp(min=1))
        distance = (new.centre - centre).norm(dim=-1)
        still = area.new_zeros(())
        moved = torch.stack([self._moved.get(id, still) for id in ids])[:, None]
        reach = torch.clamp(0.7 * area.sqrt(), min=self.settings.revival_radius_px) + _ASTRAY * moved
        difference = jensen_shannon(new.mean, new.covariance, mean, covariance)
        # It may come back behind something, a part at first, but not larger than it was.
        fits = (ratio < self.settings.revival_size_ratio) & (ratio > -3 * self.settings.revival_size_ratio)
        away, unlike = distance / reach, difference / self.settings.revival_colour
        known = upload([[id in placed] for id in ids], away.device)
        if placed:
            count = len(new.area)
            rows = [[placed.get(id, {}).get(n, torch.inf) for n in range(count)] for id in ids]
            away = torch.where(known, upload(rows, away.device, away.dtype), away)
        # The nearer it is, the less alike it has to be; the world's places are surer than the picture's.
        fits &= (away + unlike < 2) & (unlike < torch.where(known, 2.0, 1.0))
        cost = (unlike + away).masked_fill(~fits, torch.inf)
        accepted = self.settings.revival_histogram
        if new.colours is not None and accepted > 0:
            apart = self._apart(ids, new.colours)
            alike = apart < self._apart_from(wholes, new.colours)
            apart = apart / accepted + _PER_REACH * away
            alike &= (apart < 1) & (ratio < _GROWN) & ~known
            cost = torch.where(alike, torch.minimum(cost, 2 * apart), cost)
        pairs = [
            (value, id, n)
            for id, row in zip(ids, on_host(cost)[0].tolist(), strict=True)
            for n, value in enumerate(row)
            if value < torch.inf and possible(id, n)
        ]
        result: dict[int, int] = {}
        for value, id, n in sorted(pairs):
            if n not in result and id not in result.values():
                result[n] = id
                self.likeness[id, n] = 1 - value / 2
        return result

    def _apart(self, ids: Sequence[int], colours: torch.Tensor) -> torch.Tensor:
        """(I, N) Bhattacharyya distance of histograms (N, COLOURS) from those of known ids; 1 for unknown ones."""
        nothing = torch.zeros_like(colours[0])
        known = [self._colours.get(id, nothing) for id in ids]
        if looking_is_free(colours.device):  # few of all colours are there
            there = colours.sum(dim=0).nonzero().flatten()
            known, colours = [shares[there] for shares in known], colours[:, there]
        return 1 - torch.stack(known).sqrt() @ colours.sqrt().T

    def _apart_from(self, wholes: Sequence[Set[int]], colours: torch.Tensor) -> torch.Tensor:
        """(N,) the same from the nearest of each one's wholes, infinity where it has none."""
        ids = sorted(set().union(*wholes))
        if not ids:
            return colours.new_full((len(colours),), torch.inf)
        others = upload([[id not in whole for whole in wholes] for id in ids], colours.device)
        return self._apart(ids, colours).masked_fill(others, torch.inf).amin(dim=0)


def jensen_shannon(
    mean: torch.Tensor, covariance: torch.Tensor, other_mean: torch.Tensor, other_covariance: torch.Tensor
) -> torch.Tensor:
    """Divergence (...) of Gaussians from other ones, (..., 3) and (..., 3, 3), with the Gaussian of the pooled
    moments as their mixture.

    0 for equal ones; the half log-ratio of volumes, so that texture does not count as difference.
    """
    shift = mean - other_mean
    pooled = 0.5 * (covariance + other_covariance) + 0.25 * shift[..., :, None] * shift[..., None, :]
    return 0.5 * torch.logdet(pooled) - 0.25 * (torch.logdet(covariance) + torch.logdet(other_covariance))
