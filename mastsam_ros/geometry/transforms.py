"""Rigid transforms between named frames over time, as tf has them: a tree, interpolated at a stamp. Needs no ROS."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mastsam_ros.types import InputError

_KEPT_NS = 10_000_000_000
"""Older transforms are forgotten, counted from the newest of the same frame; tf keeps as much."""
_SILENT_S, _MOST_SILENT, _SWEPT = 30.0, 1000, 1000
"""A frame that nobody has told of for so long keeps its last transform alone, and only so many of these are kept: who
names frames by a number that rises tells of ever new ones. Looked at every so many transforms."""
_LONGEST_CHAIN = 64


def quaternion_xyzw(R: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(4,) unit quaternion x, y, z, w with w >= 0 of a rotation matrix (3, 3)."""
    # Of four ways the one that divides by the largest component.
    diagonal = np.diag(R)
    four_squares = np.append(1 + 2 * diagonal - diagonal.sum(), 1 + diagonal.sum())
    n = int(np.argmax(four_squares))
    q = np.empty(4)
    if n == 3:
        q[:3] = R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]
    else:
        j, k = (n + 1) % 3, (n + 2) % 3
        q[j], q[k], q[3] = R[j, n] + R[n, j], R[k, n] + R[n, k], R[k, j] - R[j, k]
    q[n] = four_squares[n]
    q /= np.linalg.norm(q)
    return -q if q[3] < 0 else q


def rotation_of(xyzw: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Rotation matrix (3, 3) of a quaternion x, y, z, w. Raises InputError if its length is not 1 within 1 %."""
    q = np.asarray(xyzw, np.float64)
    length = np.linalg.norm(q)
    if not abs(length - 1) < 0.01:
        raise InputError(f"a rotation must be a unit quaternion x, y, z, w, got {q.tolist()}")
    x, y, z, w = q / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def transform(translation: npt.ArrayLike, xyzw: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(4, 4) from a translation (3,) and a quaternion x, y, z, w. Raises InputError for what is neither."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation_of(xyzw), translation
    if not np.isfinite(T).all():
        raise InputError(f"a translation must be finite, got {T[:3, 3].tolist()}")
    return T


def pose_matrix(pose: Any) -> npt.NDArray[np.float64]:
    """(4, 4) of a geometry_msgs/Pose, whoever read the message. Raises InputError for what is no pose."""
    place, turn = pose.position, pose.orientation
    return transform((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))


def interpolated(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], share: float
) -> npt.NDArray[np.float64]:
    """Between two poses (4, 4): straight in place and along the shorter arc in rotation; share 0 is the first."""
    q0, q1 = quaternion_xyzw(first[:3, :3]), quaternion_xyzw(second[:3, :3])
    if q0 @ q1 < 0:
        q1 = -q1
    angle = np.arccos(np.clip(q0 @ q1, -1, 1))
    a, b = (1 - share, share) if angle < 1e-6 else np.sin([(1 - share) * angle, share * angle])
    q = a * q0 + b * q1
    return transform((1 - share) * first[:3, 3] + share * second[:3, 3], q / np.linalg.norm(q))


@dataclass(frozen=True, order=True)
class _Reading:
    stamp_ns: int
    T: npt.NDArray[np.float64] = field(compare=False)


class Transforms:
    """The tree of frames: each has one parent, and a pose in it, fixed or known at stamps. Threads may share it.

    kept_ns: readings that are so much older than the newest of their frame are forgotten; None: none is.
    """

    def __init__(self, kept_ns: int | None = _KEPT_NS) -> None:
        self._kept_ns = kept_ns
        self._changed = threading.Condition()
        self._parents: dict[str, str] = {}
        self._fixed: dict[str, npt.NDArray[np.float64]] = {}
        self._moving: dict[str, list[_Reading]] = {}
        self._heard_s: dict[str, float] = {}
        """When what moves was told of last, by the steady clock; who was heard of last is the last one."""
        self._put = 0

    def clear(self) -> None:
        """Forgets what moves: after time has jumped back it is of another time. What is fixed stays."""
        with self._changed:
            for child in self._moving:
                self._parents.pop(child, None)
            self._moving.clear()
            self._heard_s.clear()

    def put(self, parent: str, child: str, T_parent_child: npt.NDArray[np.float64], stamp_ns: int | None) -> None:
        """Takes a transform (4, 4) in; stamp_ns None: it always holds. A child that changes its parent starts anew."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if not parent or not child or parent == child:
            raise InputError(f"a transform needs two different frames, got parent '{parent}' and child '{child}'")
        with self._changed:
            if self._parents.get(child) != parent or stamp_ns is None:
                self._moving.pop(child, None)
                self._heard_s.pop(child, None)
                self._fixed.pop(child, None)
            self._parents[child] = parent
            if stamp_ns is None:
                self._fixed[child] = T_parent_child
            else:
                self._fixed.pop(child, None)
                readings = self._moving.setdefault(child, [])
                kept_ns = self._kept_ns
                self._heard_s.pop(child, None)
                self._heard_s[child] = time.monotonic()
                if kept_ns is not None and readings and stamp_ns < readings[-1].stamp_ns - kept_ns:
                    readings.clear()  # time has jumped back: a bag loops
                place = bisect_left(readings, stamp_ns, key=lambda reading: reading.stamp_ns)
                if place < len(readings) and readings[place].stamp_ns == stamp_ns:
                    readings[place] = _Reading(stamp_ns, T_parent_child)
                else:
                    insort(readings, _Reading(stamp_ns, T_parent_child))
                if kept_ns is not None and readings[0].stamp_ns < readings[-1].stamp_ns - kept_ns:
                    oldest = readings[-1].stamp_ns - kept_ns
                    del readings[: bisect_left(readings, oldest, key=lambda reading: reading.stamp_ns)]
                self._put += 1
                if kept_ns is not None and self._put % _SWEPT == 0:
                    self._sweep()
            self._changed.notify_all()

    def _sweep(self) -> None:
        """Keeps little of what nobody tells of any more."""
        since = time.monotonic() - _SILENT_S
        silent = [child for child, heard_s in self._heard_s.items() if heard_s < since]
        for child in silent:
            del self._moving[child][:-1]
        for child in silent[: max(0, len(silent) - _MOST_SILENT)]:
            del self._moving[child], self._heard_s[child], self._parents[child]

    def look_up(
        self, target: str, source: str, stamp_ns: int, tolerance_ns: int, wait_s: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """`T_target_source` (4, 4) at a stamp, interpolated between the readings on either side of it.

        A reading on one side alone serves if it is at most the tolerance away, and so do two with the stamp between
        them if the nearer is. wait_s: so long a reading after the stamp is waited for. Raises InputError that says
        what is missing.
        """
        end = time.monotonic() + wait_s
        with self._changed:
            while True:
                chains = self._chains(target.lstrip("/"), source.lstrip("/"))
                late = chains is None or any(self._late(child, stamp_ns) for chain in chains for child in chain)
                left = end - time.monotonic()
                if not late or left <= 0:
                    break
                self._changed.wait(left)
            if chains is None:
                raise InputError(self._unconnected(target, source))
            up, down = (self._product(chain, stamp_ns, tolerance_ns) for chain in chains)
        return np.linalg.inv(up) @ down

    def _chains(self, target: str, source: str) -> tuple[list[str], list[str]] | None:
        """Frames below the common ancestor on the way up from target, and from source; None if there is no way."""
        ups = []
        for frame in (target, source):
            way = [frame]
            while way[-1] in self._parents and len(way) < _LONGEST_CHAIN:
                way.append(self._parents[way[-1]])
            ups.append(way)
        common = next((frame for frame in ups[0] if frame in ups[1]), None)
        if common is None:
            return None
        return ups[0][: ups[0].index(common)], ups[1][: ups[1].index(common)]

    def _late(self, child: str, stamp_ns: int) -> bool:
        return child in self._moving and self._moving[child][-1].stamp_ns < stamp_ns

    def _product(self, chain: list[str], stamp_ns: int, tolerance_ns: int) -> npt.NDArray[np.float64]:
        """Pose of the first frame of the chain in the parent of the last."""
        T = np.eye(4)
        for child in chain:
            T = self._at(child, stamp_ns, tolerance_ns) @ T
        return T

    def _at(self, child: str, stamp_ns: int, tolerance_ns: int) -> npt.NDArray[np.float64]:
        if child in self._fixed:
            return self._fixed[child]
        readings = self._moving[child]
        place = bisect_left(readings, stamp_ns, key=lambda reading: reading.stamp_ns)
        around = readings[max(0, place - 1) : place + 1]
        nearest = min(around, key=lambda reading: abs(reading.stamp_ns - stamp_ns))
        gap = abs(nearest.stamp_ns - stamp_ns)
        if gap > tolerance_ns:
            when = "old" if nearest.stamp_ns < stamp_ns else "young"
            raise InputError(
                f"the transform from '{child}' to '{self._parents[child]}' nearest in time is {gap / 1e6:.0f} ms too"
                f" {when}, at most {tolerance_ns / 1e6:.0f} ms are tolerated"
            )
        if len(around) < 2:
            return nearest.T
        before, after = around
        span = after.stamp_ns - before.stamp_ns
        return interpolated(before.T, after.T, (stamp_ns - before.stamp_ns) / span)

    def _unconnected(self, target: str, source: str) -> str:
        known = sorted({*self._parents, *self._parents.values()})
        missing = [f"'{frame}'" for frame in (target, source) if frame.lstrip("/") not in known]
        if missing:
            listed = f"known are {', '.join(known[:12])}" if known else "no transform has come"
            return f"nobody says where {' and '.join(missing)} is: {listed}"
        return f"no chain of transforms connects '{source}' with '{target}'"
