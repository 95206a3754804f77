"""Labels of earlier views where they lie in space: what comes into view again has the id that it had."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from mastsam_ros.compiled import compiled
from mastsam_ros.device import upload
from mastsam_ros.geometry.flow_depth import GRID, InverseDepth
from mastsam_ros.geometry.structure import LocatedView
from mastsam_ros.tracker.propagation import Carried

_INTERVAL = 4
"""Frames from one view that is kept to the next."""
_MOST_VIEWS = 40
_ASKED = 3
"""Of the views that are kept, so many of the nearest are asked."""
_UNSURE = 0.15
"""Inverse depth that may be off by a larger share of itself puts nothing anywhere."""
_COLOUR = 16.0
"""Grey levels by which a place may look different, in the mean of the three colours."""
_MARGIN = 2
"""Places so near to an outline, in steps of `GRID` pixels, are left to the segmenter: depth is not so exact there..."""
_LARGE = 0.01
"""... and so is what a track shows that has less than this share of the view: it is all outline."""
_IDS = 1 << 16


@dataclass(frozen=True, eq=False)
class _Place:
    """A view in space, every `GRID`-th pixel of it: ids (h, w) uint16, 0 = none, colours (h, w, 3) uint8."""

    T_world_camera: npt.NDArray[np.float64]
    w: npt.NDArray[np.float32]
    sigma: npt.NDArray[np.float32]
    ids: npt.NDArray[np.uint16]
    colours: npt.NDArray[np.uint8]


class SeenPlaces:
    """A bounded number of views of one camera with their labels, which are drawn as another view would show them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets every view."""
        self._views: list[_Place] = []
        self._last: _Place | None = None
        self._world = self._count = 0
        self._became = np.arange(_IDS).astype(np.uint16)

    def remember(self, placed: LocatedView | None, depth: InverseDepth | None, ids: npt.NDArray[np.uint16]) -> None:
        """Keeps a view with its depth and its ids (H, W), 0 = none: the last one, and every fourth."""
        if placed is None or depth is None:
            return
        self._enter(placed.world)
        if self._last is not None and self._count % _INTERVAL == 0:
            self._views = [*self._views[1 - _MOST_VIEWS :], self._last]
        self._count += 1
        labels = np.ascontiguousarray(ids[::GRID, ::GRID])
        self._last = _Place(placed.T_world_camera, depth.w, depth.sigma, labels, _colours(placed))

    def merge(self, id: int, into: int) -> None:
        """What was labelled with one id has the other from now on."""
        self._became[self._became == id] = into

    def carried_too(self, placed: LocatedView | None, active: list[int], carried: Carried) -> Carried:
        """What was carried to the current view, and what earlier views show of large tracks where there is no match.

        active: the ids of the tracks that are carried.
        """
        last = self._last
        if last is None or placed is None or placed.world != self._world or not self._views:
            return carried
        number = np.zeros(_IDS, np.int64)
        number[active] = np.arange(1, len(active) + 1)
        there = upload(number[self._became[self._drawn(last, placed)]], carried.index.device)
        there = _surely(there, carried)
        height, width = carried.index.shape
        there = there.repeat_interleave(GRID, 0).repeat_interleave(GRID, 1)[:height, :width]
        return replace(carried, index=torch.where(carried.matched | (there == 0), carried.index, there))

    def _enter(self, world: int) -> None:
        if world != self._world:
            became = self._became
            self.reset()
            self._world, self._became = world, became

    def _drawn(self, last: _Place, placed: LocatedView) -> npt.NDArray[np.uint16]:
        """(h, w) ids that the last view, or else the nearest ones, show at every `GRID`-th pixel of this one."""
        here, now = placed.T_world_camera, _colours(placed)
        K = np.diag([1 / GRID, 1 / GRID, 1]) @ placed.K

        def far(view: _Place) -> float:
            T = np.linalg.inv(view.T_world_camera) @ here
            turn = np.arccos(np.clip((np.trace(T[:3, :3]) - 1) / 2, -1, 1))
            return float(np.linalg.norm(T[:3, 3]) / placed.distance + turn)

        def projection(view: _Place) -> npt.NDArray[np.float32]:
            T = np.linalg.inv(here) @ view.T_world_camera
            return np.column_stack([K @ T[:3, :3] @ np.linalg.inv(K), K @ T[:3, 3]]).astype(np.float32)

        drawn = np.zeros(now.shape[:2], np.uint16)
        for view in (last, *sorted(self._views, key=far)[:_ASKED]):
            _draw(drawn, view.w, view.sigma, view.ids, view.colours, projection(view), now)
        return drawn


def _surely(there: torch.Tensor, carried: Carried) -> torch.Tensor:
    """The tracks (h, w) drawn at every `GRID`-th pixel without the small ones, and without what is near an outline."""
    matched = torch.where(carried.matched, carried.index, 0)[::GRID, ::GRID]
    seen = torch.where(matched > 0, matched, there)
    across = (seen[:, 1:] != seen[:, :-1]) & (seen[:, 1:] > 0) & (seen[:, :-1] > 0)
    down = (seen[1:] != seen[:-1]) & (seen[1:] > 0) & (seen[:-1] > 0)
    edge = F.pad(across, (0, 1)) | F.pad(across, (1, 0)) | F.pad(down, (0, 0, 0, 1)) | F.pad(down, (0, 0, 1, 0))
    near = F.max_pool2d(edge[None].float(), 2 * _MARGIN + 1, 1, _MARGIN)[0] > 0
    area = torch.zeros(carried.count + 1, dtype=torch.int64, device=seen.device)
    area.scatter_add_(0, seen.flatten(), torch.ones_like(seen).flatten())
    return torch.where(near | (area[there] < _LARGE * seen.numel()), 0, there)


def _colours(placed: LocatedView) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(cv2.blur(placed.view.image, (3, 3))[::GRID, ::GRID])


@compiled(
    "void(uint16[:, ::1], float32[:, ::1], float32[:, ::1], uint16[:, ::1], uint8[:, :, ::1], float32[:, ::1],"
    " uint8[:, :, ::1])"
)
def _draw(
    drawn: npt.NDArray[np.uint16],
    w: npt.NDArray[np.float32],
    sigma: npt.NDArray[np.float32],
    ids: npt.NDArray[np.uint16],
    colours: npt.NDArray[np.uint8],
    projection: npt.NDArray[np.float32],
    now: npt.NDArray[np.uint8],
) -> None:
    """Writes into `drawn` (h, w), where it is 0, the ids of what a view shows: nearer things before farther ones, and
    nothing where the nearest one has another colour than there is now. Gaps of a pixel are closed.

    projection: (3, 4), homogeneous pixel and inverse depth -> homogeneous pixel of the drawn view.
    """
    height, width = drawn.shape
    nearest = np.zeros((height, width), np.float32)
    found = np.zeros((height, width), np.uint16)
    P = projection
    for v in range(w.shape[0]):
        for u in range(w.shape[1]):
            known = w[v, u]
            if not known > 0 or sigma[v, u] > np.float32(_UNSURE) * known:
                continue
            z = P[2, 0] * u + P[2, 1] * v + P[2, 2] + P[2, 3] * known
            if not z > np.float32(1e-6):
                continue
            x = int(np.rint((P[0, 0] * u + P[0, 1] * v + P[0, 2] + P[0, 3] * known) / z))
            y = int(np.rint((P[1, 0] * u + P[1, 1] * v + P[1, 2] + P[1, 3] * known) / z))
            if not (0 <= x < width and 0 <= y < height):
                continue
            near = known / z
            if near > nearest[y, x]:
                difference = 0
                for c in range(3):
                    difference += abs(np.int32(colours[v, u, c]) - np.int32(now[y, x, c]))
                nearest[y, x] = near
                found[y, x] = ids[v, u] if difference <= 3 * _COLOUR else 0
    for y in range(height):
        for x in range(width):
            if drawn[y, x] > 0:
                continue
            drawn[y, x] = found[y, x]
            if nearest[y, x] > 0:
                continue
            best = np.float32(0)
            for row in range(max(y - 1, 0), min(y + 2, height)):
                for column in range(max(x - 1, 0), min(x + 2, width)):
                    if found[row, column] > 0 and nearest[row, column] > best:
                        best = nearest[row, column]
                        drawn[y, x] = found[row, column]
