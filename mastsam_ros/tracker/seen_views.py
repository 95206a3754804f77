"""Recognises views that were seen before: tracks that were lost since then come back where they were in them."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.device import on_host, upload
from mastsam_ros.geometry.flow_fields import led_to, resized
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.propagation import Carried
from mastsam_ros.types import EventKind, Frame, TrackState

_REMEMBER_INTERVAL = 8
"""Frames from one remembered view to the next."""
_FIRST_PAUSE, _LONGEST_PAUSE = 2, 8
"""Frames from one look at the remembered views to the next while tracks are lost; each one in vain doubles them."""
_NEARER = 0.05
"""Correlation with a remembered view by which it must have grown since the last look for the pause to be cut short."""
_TRIED = 2
"""Of the views that hold lost tracks, those most like the current one are tried, beside one of the rest in turn."""
_FEATURES = 600
_RATIO = 0.8
_AGREE, _AGREE_SHARE = 20, 0.3
"""Features, and share of the matched ones, that one homography must explain."""
_REPROJECTION_PX = 4.0
_SMALL = (24, 18)
"""Size of the small pictures that tell roughly how alike two views are."""
_COLOUR = 20.0
"""Grey levels by which a place may differ between the views, beyond a change of the light as a whole."""
_SEEN_AGAIN = 0.6
"""Share of what the view should show of a track that must be seen again."""
_FREE = 0.5
"""Share of a lost track's place that no track may hold but those that give way: newer ones that are tentative ..."""
_LARGE_PART = 0.25
"""... or hold so large a share of it; a small newer track in it may be an object that was not told apart before."""
_MOSTLY = 0.5
"""A track of which more than this share gives way ends."""


@dataclass(frozen=True, eq=False)
class SeenView:
    """A view and its labels: grey (H, W) uint8, labels (H, W) uint16, small: (18, 24) float32 of mean 0 and length 1,
    xy (L, 2) float32 and features (L, 32) uint8: its ORB features."""

    number: int
    grey: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint16]
    ids: frozenset[int]
    small: npt.NDArray[np.float32]
    xy: npt.NDArray[np.float32]
    features: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Recalled:
    """The labels of an earlier view where they would be in the current one, (H, W) int64 each, 0 = none.

    expected: wherever the earlier view reaches; confirmed: where the current view shows the same. age: frames since.
    """

    expected: npt.NDArray[np.int64]
    confirmed: npt.NDArray[np.int64]
    age: int


class SeenViews:
    """A bounded number of earlier views with their labels."""

    def __init__(self, settings: TrackerSettings) -> None:
        self.settings = settings
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._orb = cv2.ORB.create(_FEATURES, fastThreshold=10)
        self.reset()

    def reset(self) -> None:
        """Forgets every view."""
        self._views: list[SeenView] = []
        self._turn = 0
        self._pause, self._last_try, self._next_try, self._nearest = _FIRST_PAUSE, -_FIRST_PAUSE, 0, 0.0

    def __len__(self) -> int:
        return len(self._views)

    def remember(self, view: Frame, shown: npt.NDArray[np.uint16], number: int) -> None:
        """Keeps every eighth frame: shown (H, W) uint16 ids. Beyond `recall_views` the later of the two views most
        like each other goes."""
        if number % _REMEMBER_INTERVAL:
            return
        grey = _grey(view)
        xy, features = self._described(grey)
        ids = frozenset(np.unique(shown).tolist()) - {0}
        self._views.append(SeenView(number, grey, shown.copy(), ids, _small(grey), xy, features))
        if len(self._views) > self.settings.recall_views:
            small = np.stack([seen.small.ravel() for seen in self._views])
            alike = np.triu(small @ small.T, 1)
            del self._views[int(np.unravel_index(np.argmax(alike), alike.shape)[1])]

    def recall(self, view: Frame, wanted: Set[int], number: int) -> Recalled | None:
        """What an earlier view that holds one of the `wanted` ids says about this one, None if none is recognised."""
        if number < self._last_try + _FIRST_PAUSE or not wanted:
            return None
        grey = _grey(view)
        holding = [seen for seen in self._views if seen.ids & wanted and seen.grey.shape == grey.shape]
        if not holding:
            return None
        small = _small(grey)
        alike = {seen.number: float((seen.small * small).sum()) for seen in holding}
        nearest = max(alike.values())
        if number < self._next_try and nearest < self._nearest + _NEARER:
            return None
        self._last_try, self._next_try, self._nearest = number, number + self._pause, nearest
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        xy, features = self._described(grey)
        holding.sort(key=lambda seen: -alike[seen.number])
        self._turn += 1
        tried = holding[:_TRIED] + holding[_TRIED:][self._turn % max(1, len(holding) - _TRIED) :][:1]
        for seen in tried:
            H = _homography(xy, features, seen)
            if H is not None:
                return self._carried(seen, grey, H, number - seen.number)
        return None

    def look_again_soon(self) -> None:
        """What was recalled brought a track back: the next frames may bring more."""
        self._pause, self._next_try = _FIRST_PAUSE, self._last_try + _FIRST_PAUSE

    def _described(self, grey: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        points, features = self._orb.detectAndCompute(grey, None)
        if features is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8)
        return np.array([point.pt for point in points], np.float32), np.asarray(features, np.uint8)

    def _carried(self, seen: SeenView, grey: npt.NDArray[np.uint8], H: npt.NDArray[np.float64], age: int) -> Recalled:
        """Labels of the earlier view, carried by flow that starts from the homography (current -> earlier)."""
        height, width = grey.shape
        size = (max(16, width // 2), max(16, height // 2))
        scale = np.array([width / size[0], height / size[1]])
        shrink = np.diag([*(1 / scale), 1.0])
        now, before = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (grey, seen.grey))
        there = _moved(shrink @ H @ np.linalg.inv(shrink), size)
        flow = self._flow.calc(now, before, there)
        at_x, at_y = led_to(flow)
        inside = (at_x >= 0) & (at_y >= 0) & (at_x <= size[0] - 1) & (at_y <= size[1] - 1)
        difference = cv2.blur(now, (3, 3)).astype(np.float32)
        difference -= cv2.remap(cv2.blur(before, (3, 3)), at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if inside.any():
            difference -= np.median(difference[inside])
        same = inside & (np.abs(difference) < _COLOUR)
        flow = resized(flow, (height, width)) * scale.astype(np.float32)
        expected = cv2.remap(seen.labels, *led_to(flow), cv2.INTER_NEAREST, borderValue=0).astype(np.int64)
        known = cv2.resize(same.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        return Recalled(expected, np.where(known, expected, 0), age)


def bring_back(
    recalled: Recalled, wanted: list[int], active: list[int], carried: Carried, identities: Identities, cell: int
) -> tuple[list[int], Carried]:
    """Revives lost tracks where the recalled labels put them; what is carried then holds them like the others.

    wanted: lost ids. active: N ids of what is carried. Tracks that are newer than the earlier view give way; those that
    lie mostly in a revived one are merged into it.
    Returns the active ids and what is carried, with the revived ones behind the others; one point per `cell` pixels.
    """
    device = carried.index.device
    index = on_host(carried.index)[0]
    area = np.bincount(index.ravel(), minlength=len(active) + 1)
    newer = np.array([True, *(identities[id].age <= recalled.age for id in active)])
    tentative = np.array([True, *(identities[id].state is TrackState.TENTATIVE for id in active)])
    expected = np.bincount(recalled.expected.ravel())
    result, revived = list(active), []
    for id in wanted:
        place = recalled.confirmed == id
        seen = int(place.sum())
        if not seen or seen < _SEEN_AGAIN * expected[id]:
            continue
        inside = np.bincount(index[place], minlength=len(area))[: len(area)]
        gives_way = newer & (tentative | (inside >= _LARGE_PART * seen))
        if inside[gives_way].sum() < _FREE * seen:
            continue
        identities.revive(id, "its view was recognised")
        identities.weigh(EventKind.REVIVED, id, seen / expected[id])
        result.append(id)
        ends = np.flatnonzero(gives_way & (inside > _MOSTLY * area))
        given = place & np.append(gives_way, np.zeros(len(result), bool))[index] | np.isin(index, ends[ends > 0])
        index = np.where(given, len(result), index)
        revived.append(len(result))
        for n in ends[ends > 0].tolist():
            identities.merge(active[n - 1], id, "lies where the other was lost")
            identities.weigh(EventKind.MERGED, active[n - 1], inside[n] / area[n])
    if not revived:
        return active, carried
    rows, columns = np.nonzero(np.isin(index[::cell, ::cell], revived))
    xy = upload(np.stack([columns, rows], axis=1).astype(np.float32) * cell, device)
    track = upload(index[::cell, ::cell][rows, columns] - 1, device)
    now = upload(index, device)
    x, y = carried.xy.round().long().T
    kept = now[y.clamp(0, now.shape[0] - 1), x.clamp(0, now.shape[1] - 1)] == carried.track + 1
    kept &= carried.track >= 0
    # Numbers of tracks that ended are given away.
    stays = [identities.exists(id) for id in result]
    table = upload([0, *np.cumsum(stays).tolist()], device)
    return [id for id, there in zip(result, stays, strict=True) if there], Carried(
        table[now],
        carried.matched,
        torch.cat([carried.xy[kept], xy]),
        table[torch.cat([carried.track[kept], track]) + 1] - 1,
        torch.cat([carried.interior[kept], torch.ones(len(xy), dtype=torch.bool, device=device)]),
        sum(stays),
        carried.moved,
    )


def _grey(view: Frame) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _small(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    small = cv2.resize(grey, _SMALL, interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), np.float32)


def _homography(
    xy: npt.NDArray[np.float32], features: npt.NDArray[np.uint8], seen: SeenView
) -> npt.NDArray[np.float64] | None:
    """(3, 3), pixels of the current view -> pixels of the earlier one; None where too few features agree on one."""
    if min(len(xy), len(seen.xy)) < _AGREE:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(features, seen.features, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < _RATIO * pair[1].distance]
    if len(good) < _AGREE:
        return None
    now = xy[[match.queryIdx for match in good]]
    before = seen.xy[[match.trainIdx for match in good]]
    cv2.setRNGSeed(0)
    H, inliers = cv2.findHomography(now, before, cv2.RANSAC, _REPROJECTION_PX)
    if H is None or inliers.sum() < max(_AGREE, _AGREE_SHARE * len(good)) or abs(np.linalg.det(H)) < 1e-3:
        return None
    return np.asarray(H, np.float64)


def _moved(H: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(H, W, 2) float32: where the homography takes each pixel, minus where it is."""
    x, y = np.meshgrid(np.arange(size[0], dtype=np.float64), np.arange(size[1], dtype=np.float64))
    w = H[2, 0] * x + H[2, 1] * y + H[2, 2]
    w = np.where(np.abs(w) < 1e-6, 1e-6, w)
    moved = np.stack([(H[0, 0] * x + H[0, 1] * y + H[0, 2]) / w - x, (H[1, 0] * x + H[1, 1] * y + H[1, 2]) / w - y], 2)
    limit = 2.0 * max(size)
    return np.asarray(moved.clip(-limit, limit), np.float32)
