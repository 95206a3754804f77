"""Which tracks move on their own: their flow and depth disagree with what the camera's motion alone would do."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.device import on_host, one_thread, upload
from mastsam_ros.geometry.depth_noise import inverse_depth_noise, inverse_of
from mastsam_ros.types import Frame, Matches

_MOVES_PX, _MOVES_SHARE = 2.0, 0.1
"""A track's median flow may be off that of the scene at rest by this much, and by this share of the latter."""
_MOVES_SIGMAS = 4.0
_LEAST_NOISE = 1e-3
"""Noise of inverse depth, 1/m, that is reckoned with at least: places are found to a pixel."""
_FEWEST = 6
"""Pixels with flow that tell whether a track moves."""
_FOUND_MOVING, _SURE, _MOST = 2, 4, 6
"""What one frame of motion adds to a track's score, from where on it is sure to move, and the most that it can have:
every frame at rest takes one away."""


class MovingTracks:
    """A score per track: 0 at rest. One frame of motion keeps a track out of the map for a moment, two throw it out."""

    def __init__(self) -> None:
        self._score: dict[int, int] = {}

    def reset(self) -> None:
        """Forgets every track."""
        self._score = {}

    @property
    def ids(self) -> set[int]:
        """Tracks that moved lately."""
        return {id for id, score in self._score.items() if score}

    def update(
        self,
        owners: npt.NDArray[np.int32],
        motion: npt.NDArray[np.float32],
        flowing: npt.NDArray[np.bool_],
        known: Set[int],
    ) -> tuple[set[int], set[int]]:
        """Tracks that are not to enter the map now, and those whose voxels are to leave it.

        owners: (N,) the track of each pixel, 0 = none. motion: (N, 3) as `own_motion` gives it, where flowing (N,).
        known: ids that the map has; a new one waits until it was seen at rest.
        """
        out, leaving = set(), set()
        area = np.bincount(owners, minlength=1)
        count = np.bincount(owners[flowing], minlength=len(area))
        medians = _medians(owners, motion, flowing, count)
        for id in (1 + np.flatnonzero(area[1:])).tolist():
            score = self._score.get(id, 0)
            if count[id] < _FEWEST:
                if score or id not in known:
                    out.add(id)
                continue
            moves = float(np.abs(medians[id]).max()) > 1
            self._score[id] = min(_MOST, score + _FOUND_MOVING) if moves else max(0, score - 1)
            if self._score[id]:
                out.add(id)
            if moves and self._score[id] >= _SURE:
                leaving.add(id)
        return out, leaving

    def keep_only(self, ids: Set[int]) -> None:
        """Drops tracks that no longer exist, and those at rest."""
        self._score = {id: score for id, score in self._score.items() if score and id in ids}


def off_moving(matches: Matches | None, owners: npt.NDArray[np.uint16] | None, moving: Set[int]) -> Matches | None:
    """The matches that do not start on the tracks `moving`, for the camera's motion; all where none of them moves.

    owners: (H, W) the track of each pixel of the previous view.
    """
    if matches is None or owners is None or not moving or len(matches) == 0:
        return matches
    moves = np.zeros(1 + max(int(owners.max(initial=0)), *moving), bool)
    moves[list(moving)] = True
    device = matches.xy0.device
    with one_thread(device):
        rest = upload(_not_on(moves, np.ascontiguousarray(owners), on_host(matches.xy0)[0]), device)
        xy0, xy1 = (xy.index_select(0, rest) for xy in (matches.xy0, matches.xy1))
        return Matches(xy0, xy1, matches.confidence.index_select(0, rest))


@compiled("int64[::1](bool_[::1], Array(uint16, 2, 'C', readonly=True), Array(float32, 2, 'C', readonly=True))")
def _not_on(
    moves: npt.NDArray[np.bool_], owners: npt.NDArray[np.uint16], xy: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Which points (N, 2) do not lie on tracks that move; owners: (H, W) tracks. Outside it is as on the edge."""
    height, width = owners.shape
    rest = np.empty(len(xy), np.int64)
    count = 0
    for n in range(len(xy)):
        x, y = min(max(np.rint(xy[n, 0]), 0), width - 1), min(max(np.rint(xy[n, 1]), 0), height - 1)
        if not moves[owners[int(y), int(x)]]:
            rest[count] = n
            count += 1
    return rest[:count].copy()


@compiled("float32[:, ::1](int32[::1], float32[:, ::1], bool_[::1], int64[::1])")
def _medians(
    owners: npt.NDArray[np.int32],
    motion: npt.NDArray[np.float32],
    flowing: npt.NDArray[np.bool_],
    count: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Median motion (T, 3) of each track's flowing pixels, of which it has `count` (T,)."""
    start = np.zeros(len(count) + 1, np.int64)
    start[1:] = np.cumsum(count)
    place = start[:-1].copy()
    ordered = np.empty((3, start[-1]), np.float32)
    for n in range(len(owners)):
        if flowing[n]:
            for c in range(3):
                ordered[c, place[owners[n]]] = motion[n, c]
            place[owners[n]] += 1
    medians = np.zeros((len(count), 3), np.float32)
    for track in range(1, len(count)):
        if count[track]:
            for c in range(3):
                medians[track, c] = np.median(ordered[c, start[track] : start[track + 1]])
    return medians


def at_rest(
    owners: npt.NDArray[np.int32], moving: Set[int], motion: npt.NDArray[np.float32], flowing: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """(N,) bool: pixels that neither move themselves nor belong to tracks `moving`; else as `MovingTracks.update`."""
    moves = np.zeros(1 + max(int(owners.max(initial=0)), *moving, 0), bool)
    moves[list(moving)] = True
    return _at_rest(owners, moves, motion, flowing)


@compiled("bool_[::1](int32[::1], bool_[::1], float32[:, ::1], bool_[::1])")
def _at_rest(
    owners: npt.NDArray[np.int32],
    moves: npt.NDArray[np.bool_],
    motion: npt.NDArray[np.float32],
    flowing: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """As `at_rest`. moves: (T,) by track."""
    rests = np.empty(len(owners), np.bool_)
    for n in range(len(owners)):
        most = max(abs(motion[n, 0]), abs(motion[n, 1]), abs(motion[n, 2]))
        rests[n] = not (moves[owners[n]] or (flowing[n] and most > 1))
    return rests


def own_motion(
    points: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    before: Frame,
    T_world_before: npt.NDArray[np.float64],
    matches: Matches | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """How far places moved on their own since the previous view, and of which of them this is known.

    points: (N, 3) in the world, of pixels at rows, columns (N,). Returns (N, 3): what the flow is off in x and y, and
    the inverse depth, each in units of what is still at rest; (N,) bool, False where there is no flow or no depth.
    """
    nothing = np.zeros((len(points), 3), np.float32), np.zeros(len(points), bool)
    if matches is None or matches.flow_back is None or before.depth is None or before.K is None:
        return nothing
    flow = on_host(matches.flow_back)[0]
    seen = np.ones(flow.shape[:2], bool) if matches.visible is None else on_host(matches.visible)[0]
    noise = max(_LEAST_NOISE, inverse_depth_noise(inverse_of(before.depth[::4])))
    T: npt.NDArray[np.float32] = np.linalg.inv(T_world_before).astype(np.float32)
    there = points @ T[:3, :3].T + T[:3, 3]
    K, depth = before.K.astype(np.float32), np.ascontiguousarray(before.depth)
    return _own_motion(there, rows, columns, np.ascontiguousarray(flow), seen, depth, K, _MOVES_SIGMAS * noise)


@compiled(
    "Tuple((float32[:, ::1], bool_[::1]))(float32[:, ::1], int64[::1], int64[::1],"
    " Array(float32, 3, 'C', readonly=True), Array(bool_, 2, 'C', readonly=True),"
    " Array(float32, 2, 'C', readonly=True), float32[:, ::1], float64)"
)
def _own_motion(
    there: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    flow: npt.NDArray[np.float32],
    visible: npt.NDArray[np.bool_],
    depth: npt.NDArray[np.float32],
    K: npt.NDArray[np.float32],
    noise: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """As `own_motion`. there: (N, 3) in the previous camera. flow, visible, depth: images; noise: of 1 / depth that is
    still at rest."""
    height, width = depth.shape
    motion, known = np.zeros((len(there), 3), np.float32), np.zeros(len(there), np.bool_)
    for n in range(len(there)):
        row, column = rows[n], columns[n]
        z = max(there[n, 2], np.float32(1e-3))
        still_x, still_y = there[n, 0] / z * K[0, 0] + K[0, 2], there[n, 1] / z * K[1, 1] + K[1, 2]
        led_x, led_y = np.float32(column) + flow[row, column, 0], np.float32(row) + flow[row, column, 1]
        x, y = np.rint(led_x), np.rint(led_y)
        found = np.float32(0)
        if there[n, 2] > 0 and 0 <= x < width and 0 <= y < height and visible[row, column]:
            found = depth[int(y), int(x)]
            known[n] = found > 0
        at_rest = _MOVES_PX + _MOVES_SHARE * np.sqrt((float(still_x) - column) ** 2 + (float(still_y) - row) ** 2)
        motion[n, 0], motion[n, 1] = (led_x - still_x) / at_rest, (led_y - still_y) / at_rest
        motion[n, 2] = (np.float32(1) / max(found, np.float32(1e-3)) - np.float32(1) / z) / noise
    return motion, known
