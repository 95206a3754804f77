"""How far groups of points reach along each axis, stray points aside."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

_SHARES = (0.05, 0.5, 0.95)


def group_extents(
    points: npt.NDArray[np.float32], group: npt.NDArray[np.integer], fewest: int = 1
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Per group of at least `fewest` points, by rising number: 5th, 50th and 95th percentile of each axis, (3, 3).

    points: (N, 3); group: (N,) >= 0, of each point. The rows are the percentiles, as numpy interpolates them.
    """
    of_point: npt.NDArray[np.int64] = np.ascontiguousarray(group, np.int64)
    count = np.bincount(of_point)
    ends = np.cumsum(count)
    beside = _side_by_side(np.ascontiguousarray(points), of_point, ends - count)
    for number in np.flatnonzero(count >= max(fewest, 1)).tolist():
        ordered = np.sort(beside[:, ends[number] - count[number] : ends[number]], axis=1)
        yield number, _quantiles(ordered, _SHARES)


def _quantiles(ordered: npt.NDArray[np.float32], shares: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """(S, 3): quantiles of ordered rows (3, N), as numpy's, which takes longer for the many small groups of a frame."""
    last = ordered.shape[1] - 1
    place = last * np.array(shares)
    below = place.astype(np.int64)
    rest = (place - below)[:, None]
    low, high = (ordered[:, at].astype(np.float64).T for at in (below, np.minimum(below + 1, last)))
    return (1 - rest) * low + rest * high


@compiled("float32[:, ::1](Array(float32, 2, 'C', readonly=True), Array(int64, 1, 'C', readonly=True), int64[::1])")
def _side_by_side(
    points: npt.NDArray[np.float32], group: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Coordinates (3, N) of points (N, 3), those of one group side by side: of group n from starts[n] on."""
    ordered = np.empty((3, len(points)), np.float32)
    place = starts.copy()
    for n in range(len(points)):
        to = place[group[n]]
        for axis in range(3):
            ordered[axis, to] = points[n, axis]
        place[group[n]] = to + 1
    return ordered
