"""Where a camera is from pictures and K alone, up to scale: corners followed from frame to frame, keyframes, and
bundle adjustment over the latest of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.bundle import Bundle, adjust, directions_of, resect, triangulate, turned
from mastsam_ros.types import Frame, Matches

_LOG = logging.getLogger(__name__)
Floats = npt.NDArray[np.float64]

_CORNERS, _SPACING = 400, 8.0
"""Corners that are followed, and their least distance in pixels."""
_PATCH = (13, 13)
_ROUND_TRIP_PX = 0.7
"""A corner that is followed there and back ends so near to where it was."""
_PIXEL = 0.7
"""Standard deviation of a followed corner, pixels."""
_OFF_PX = 3.0
"""A corner farther than this from where it should be is not at rest, or not where it was."""
_START_ANGLE = np.deg2rad(0.7)
"""Median parallax from which on two views tell the camera's motion..."""
_START_SHARE = 0.6
"""... if so many of the corners agree: the picture is of a place at rest..."""
_START_LEFT = 0.5
"""... and so many of the first view's are still followed."""
FIRST_DISTANCE = 2.0
"""The unit of the world makes this the median distance of what the first two keyframes show."""
_FEWEST, _FEWEST_SHARE = 25, 0.4
"""Corners, and share of those that have a place, that must agree on a pose."""
_LEFT = 0.65
"""Share of a keyframe's corners that are still followed below which a new one is due..."""
_SHIFTED = 0.06
"""... or a shift by this share of the distance of what is seen..."""
_TURNED = np.deg2rad(8.0)
"""... or so much of a turn."""
_POINT_ANGLE = np.deg2rad(1.0)
"""Rays that meet at a smaller angle do not tell how far a point is."""
_WINDOW = 8
"""Keyframes that are adjusted together; the first two of them are held."""
_MOST_KEYFRAMES = 60
_FEATURES, _RATIO = 800, 0.8
_TRIED = 3
"""Keyframes that a lost frame is compared with, beside one of the others in turn."""
_PATIENCE = 30
"""Frames after which a lost camera starts anew where it was last known to be."""


@dataclass(frozen=True, eq=False)
class View:
    """A keyframe: T_camera_world (4, 4), and the corners that it sees: landmark (N,) their numbers, xy (N, 2) pixels,
    features (L, 32) uint8 of those at `described` (L,)."""

    T_camera_world: Floats
    landmark: npt.NDArray[np.int64]
    xy: npt.NDArray[np.float32]
    described: npt.NDArray[np.int64]
    features: npt.NDArray[np.uint8]


class VisualOdometry:
    """The pose of one camera over time, from pictures and K: true up to one scale for all of it.

    The world's axes are those of the first keyframe. Nothing is known until two views show parallax; a camera that only
    turns shows none.
    """

    def __init__(self, origin: Floats | None = None) -> None:
        self._first_origin = np.eye(4) if origin is None else origin
        self._orb = cv2.ORB.create(_FEATURES, fastThreshold=7)
        self.silent = False
        """Whether nothing is logged: where nobody asked for a pose."""
        self.reset()

    def reset(self) -> None:
        """Forgets everything; the next frame is the world's origin."""
        self._begin(self._first_origin)

    def _begin(self, origin: Floats) -> None:
        """Forgets everything but the world; the next frame has this pose (4, 4) in it."""
        self._origin = origin
        self._grey: npt.NDArray[np.uint8] | None = None
        self._views: list[View] = []
        self._places = np.zeros((0, 3))
        """(landmarks, 3) in the world, NaN where not known."""
        self._landmark: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._xy: npt.NDArray[np.float32] = np.zeros((0, 2), np.float32)
        self._T = np.eye(4)
        self._turn = self._lost_for = 0
        self.started = False
        """Whether the world has a scale: two views have shown parallax."""
        self.distance = FIRST_DISTANCE
        """Median distance of the landmarks in view."""

    @property
    def lost(self) -> bool:
        """True while the pose was known and is not."""
        return self._lost_for > 0

    def range(self) -> tuple[float, float]:
        """Distances between which nearly all landmarks in view are."""
        places = self._places[self._landmark]
        z = places[np.isfinite(places[:, 0])] @ self._T[2, :3] + self._T[2, 3]
        near, far = np.percentile(z[z > 0], (1, 99)) if (z > 0).any() else (self.distance, self.distance)
        return float(near), float(far)

    def interrupt(self) -> None:
        """The next frame's matches do not come from the last one: its pose is found from keyframes."""
        self._grey = None

    def track(self, frame: Frame, matches: Matches | None) -> Floats | None:
        """`T_world_camera` (4, 4) of the frame; None without K, before the start, or where the pose is lost.

        matches: from the previous frame that this was called with; dense ones tell where to look for the corners.
        """
        if frame.K is None:
            self._grey = None
            return None
        grey = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), np.uint8)
        if self._grey is not None and self._grey.shape == grey.shape:
            self._follow(grey, matches)
        else:
            self._landmark, self._xy = self._landmark[:0], self._xy[:0]
        self._grey = grey
        if not self.started:
            self._try_start(frame.K)
            return self._pose() if self.started else None
        known = np.isfinite(self._places[self._landmark, 0])
        T = self._located(known, frame.K) if not self.lost else None
        if T is None:
            T = self._relocalised(frame.K)
        if T is None:
            self._lost(frame.K)
            return None
        self._T, self._lost_for = T, 0
        if self._is_due():
            self._add_view(frame.K)
        return self._pose()

    def _pose(self) -> Floats:
        return self._origin @ np.linalg.inv(self._T)

    def _follow(self, grey: npt.NDArray[np.uint8], matches: Matches | None) -> None:
        """Brings the corners to the new frame; those that are not found there are dropped."""
        if not len(self._xy) or self._grey is None:
            return
        start = self._xy.copy()
        if matches is not None and matches.flow is not None:
            flow = matches.flow.cpu().numpy()
            column, row = np.rint(start).astype(np.int64).T
            start += flow[row.clip(0, flow.shape[0] - 1), column.clip(0, flow.shape[1] - 1)]
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
        guessed = cv2.OPTFLOW_USE_INITIAL_FLOW
        found, ok, _ = cv2.calcOpticalFlowPyrLK(
            self._grey, grey, self._xy, start, winSize=_PATCH, maxLevel=2, criteria=criteria, flags=guessed
        )
        back, ok_back, _ = cv2.calcOpticalFlowPyrLK(
            grey, self._grey, found, self._xy.copy(), winSize=_PATCH, maxLevel=0, criteria=criteria, flags=guessed
        )
        good = (ok[:, 0] > 0) & (ok_back[:, 0] > 0) & (np.linalg.norm(back - self._xy, axis=1) < _ROUND_TRIP_PX)
        good &= (found > 2).all(axis=1) & (found < np.array(grey.shape[::-1]) - 3).all(axis=1)
        self._landmark, self._xy = self._landmark[good], found[good]

    # The start

    def _try_start(self, K: Floats) -> None:
        """Two views with parallax give a motion and the first places; without any the first view is replaced."""
        if not self._views:
            self._new_corners()
            self._remember_view()
            return
        first = self._views[0]
        _, mine, its = np.intersect1d(self._landmark, first.landmark, return_indices=True)
        if len(mine) < max(_FEWEST, _START_LEFT * len(first.landmark)):
            self._forget_all()
            self._new_corners()
            self._remember_view()
            return
        noise = _PIXEL / float(K[0, 0])
        now, before = directions_of(self._xy[mine], K), directions_of(first.xy[its], K)
        if np.median(turned(before, now, noise)[1]) < _START_ANGLE:
            return
        cv2.setRNGSeed(0)
        E, _ = cv2.findEssentialMat(before, now, np.eye(3), cv2.RANSAC, 0.999, 2 * noise)
        if E is None or E.shape != (3, 3):
            return
        _, R, t, _ = cv2.recoverPose(E, before, now, np.eye(3))
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, t.ravel()
        points, _ = triangulate(before, now, np.eye(4), T)
        usable = np.isfinite(points[:, 0])
        if usable.sum() < max(_FEWEST, _START_SHARE * len(points)):
            return
        seen = np.ones((2, int(usable.sum())), bool)
        bundle = Bundle(np.stack([np.eye(4), T]), points[usable], np.stack([before, now])[:, usable], seen)
        bundle = adjust(bundle, 1, noise)
        agree = (bundle.errors() < _OFF_PX * noise / _PIXEL).all(0)
        T = bundle.T_camera_world[1]
        points, angle = triangulate(before, now, np.eye(4), T)
        good = np.zeros(len(points), bool)
        good[np.flatnonzero(usable)[agree]] = True
        good &= np.isfinite(points[:, 0])
        if good.sum() < max(_FEWEST, _START_SHARE * len(points)) or np.median(angle[good]) < 0.5 * _START_ANGLE:
            return
        good &= angle > 0.5 * _POINT_ANGLE
        scale = FIRST_DISTANCE / float(np.median(points[good, 2]))
        T[:3, 3] *= scale
        self._places[self._landmark[mine[good]]] = scale * points[good]
        self._T, self.started = T, True
        self._log(logging.INFO, "the camera's motion is known, up to scale")
        self._add_view(K)

    def _forget_all(self) -> None:
        self._views, self._places = [], np.zeros((0, 3))
        self._landmark, self._xy = self._landmark[:0], self._xy[:0]

    # Every frame

    def _located(self, known: npt.NDArray[np.bool_], K: Floats) -> Floats | None:
        """The pose from the corners whose places are known; drops those that do not agree."""
        if known.sum() < _FEWEST:
            return None
        points, xy = self._places[self._landmark[known]], self._xy[known]
        directions, noise = directions_of(xy, K), _PIXEL / float(K[0, 0])
        guess = _sampled_pose(points, directions, 2 * _OFF_PX * noise / _PIXEL)
        if guess is None:
            return None
        T = resect(points, directions, guess, noise)
        error = _errors(points, directions, T)
        agree = error < _OFF_PX * noise / _PIXEL
        if agree.sum() < max(_FEWEST, _FEWEST_SHARE * len(points)):
            return None
        kept = np.ones(len(self._xy), bool)
        kept[np.flatnonzero(known)[~agree]] = False
        self._landmark, self._xy = self._landmark[kept], self._xy[kept]
        self.distance = float(np.median(points[agree] @ T[2, :3] + T[2, 3]))
        return T

    def _is_due(self) -> bool:
        last = self._views[-1]
        motion = self._T @ np.linalg.inv(last.T_camera_world)
        angle = np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1))
        shifted = np.linalg.norm(motion[:3, 3]) > _SHIFTED * self.distance
        return bool(shifted or angle > _TURNED or len(self._landmark) < _LEFT * len(last.landmark))

    def _add_view(self, K: Floats) -> None:
        """Makes the frame a keyframe: new places, an adjustment of the latest ones, and new corners."""
        self._remember_view()
        self._new_places(K)
        self._adjust(K)
        self._T = self._views[-1].T_camera_world
        self._new_corners()
        described, features = self._described(self._xy)
        self._views[-1] = View(self._T, self._landmark, self._xy, described, features)
        self._bound()

    def _remember_view(self) -> None:
        nothing = np.zeros((0, 32), np.uint8)
        self._views.append(View(self._T, self._landmark, self._xy, np.zeros(0, np.int64), nothing))

    def _described(self, xy: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Features (L, 32) of the corners xy (N, 2), upright, and which they are of, (L,)."""
        points = [cv2.KeyPoint(float(x), float(y), 31, 0, 0, 0, n) for n, (x, y) in enumerate(xy)]
        points, features = self._orb.compute(self._grey, points)
        if features is None:
            return np.zeros(0, np.int64), np.zeros((0, 32), np.uint8)
        return np.array([point.class_id for point in points]), np.asarray(features, np.uint8)

    def _new_corners(self) -> None:
        grey = self._grey
        missing = _CORNERS - len(self._xy)
        if grey is None or missing <= 0:
            return
        free = np.full(grey.shape, 255, np.uint8)
        for x, y in np.rint(self._xy).astype(int).tolist():
            cv2.circle(free, (x, y), int(_SPACING), 0, -1)
        found = cv2.goodFeaturesToTrack(grey, missing, 0.002, _SPACING, mask=free, blockSize=5)
        if found is None:
            return
        number = len(self._places) + np.arange(len(found))
        self._places = np.concatenate([self._places, np.full((len(found), 3), np.nan)])
        self._landmark = np.concatenate([self._landmark, number])
        self._xy = np.concatenate([self._xy, found[:, 0].astype(np.float32)])

    def _new_places(self, K: Floats) -> None:
        """Triangulates the followed corners that have no place yet, from the first keyframe that saw them."""
        wanted = ~np.isfinite(self._places[self._landmark, 0])
        if not wanted.any():
            return
        numbers, xy = self._landmark[wanted], self._xy[wanted]
        T_first, first = np.tile(np.eye(4), (len(numbers), 1, 1)), np.full((len(numbers), 2), np.nan)
        for view in reversed(self._views[:-1]):
            _, mine, its = np.intersect1d(numbers, view.landmark, return_indices=True)
            T_first[mine], first[mine] = view.T_camera_world, view.xy[its]
        there = np.isfinite(first[:, 0])
        if not there.any():
            return
        T_first, before, now = T_first[there], directions_of(first[there], K), directions_of(xy[there], K)
        points, angle = triangulate(before, now, T_first, self._T)
        limit = _OFF_PX / float(K[0, 0])
        good = np.isfinite(points[:, 0]) & (angle > _POINT_ANGLE)
        good &= _errors(points, now, self._T) < limit
        good &= _errors(points, before, T_first) < limit
        self._places[numbers[there][good]] = points[good]

    def _adjust(self, K: Floats) -> None:
        """Bundle adjustment of the latest keyframes; places that several of them do not agree on are forgotten."""
        window = self._views[-_WINDOW:]
        numbers = np.unique(np.concatenate([view.landmark for view in window]))
        numbers = numbers[np.isfinite(self._places[numbers, 0])]
        directions, seen = np.zeros((len(window), len(numbers), 2)), np.zeros((len(window), len(numbers)), bool)
        for row, view in enumerate(window):
            _, here, its = np.intersect1d(numbers, view.landmark, return_indices=True)
            directions[row, here], seen[row, here] = directions_of(view.xy[its], K), True
        several = seen.sum(0) >= 2
        numbers, directions, seen = numbers[several], directions[:, several], seen[:, several]
        if len(numbers) < _FEWEST:
            return
        noise = _PIXEL / float(K[0, 0])
        bundle = Bundle(np.stack([v.T_camera_world for v in window]), self._places[numbers], directions, seen)
        bundle = adjust(bundle, min(2, len(window) - 1), noise)
        self._views[-len(window) :] = [
            replace(view, T_camera_world=T) for view, T in zip(window, bundle.T_camera_world, strict=True)
        ]
        self._places[numbers] = bundle.points
        error = bundle.errors()
        wrong = (np.where(seen, error, 0) > _OFF_PX * noise / _PIXEL).sum(0) * 2 >= seen.sum(0)
        self._places[numbers[wrong]] = np.nan
        gone = np.isin(self._landmark, numbers[wrong])
        self._landmark, self._xy = self._landmark[~gone], self._xy[~gone]

    def _bound(self) -> None:
        """Drops a keyframe where there are too many, and the landmarks that nobody sees any more."""
        if len(self._views) <= _MOST_KEYFRAMES:
            return
        # Of the two that are closest to each other, the latest aside, the later one tells the least.
        old = np.stack([np.linalg.inv(view.T_camera_world) for view in self._views[:-_WINDOW]])
        apart = np.linalg.norm(old[:, None, :3, 3] - old[:, :3, 3], axis=2) / self.distance
        apart += np.linalg.norm(old[:, None, :3, 2] - old[:, :3, 2], axis=2)
        apart[np.tril_indices(len(apart))] = np.inf
        del self._views[int(np.argmin(apart.min(axis=0)))]
        kept = np.unique(np.concatenate([self._landmark, *(view.landmark for view in self._views)]))
        self._places = self._places[kept]
        self._landmark = np.searchsorted(kept, self._landmark)
        self._views = [replace(view, landmark=np.searchsorted(kept, view.landmark)) for view in self._views]

    # Where the camera was lost

    def _relocalised(self, K: Floats) -> Floats | None:
        """The pose from features that the picture shares with one of the keyframes; its corners are followed again."""
        if self._grey is None:
            return None
        found = cv2.goodFeaturesToTrack(self._grey, _FEATURES, 0.002, _SPACING / 2, blockSize=5)
        if found is None:
            return None
        which, features = self._described(found[:, 0])
        xy = found[which, 0]
        if len(xy) < _FEWEST:
            return None
        last = np.linalg.inv(self._T)

        def far(view: View) -> float:
            T = np.linalg.inv(view.T_camera_world)
            return float(
                np.linalg.norm(T[:3, 3] - last[:3, 3]) / self.distance + np.linalg.norm(T[:3, 2] - last[:3, 2])
            )

        ranked = sorted(range(len(self._views)), key=lambda n: far(self._views[n]))
        self._turn += 1
        for n in dict.fromkeys([*ranked[:_TRIED], ranked[self._turn % len(ranked)]]):
            view = self._views[n]
            landmark = view.landmark[view.described]
            usable = np.isfinite(self._places[landmark, 0])
            if usable.sum() < _FEWEST:
                continue
            pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(view.features[usable], features, k=2)
            good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < _RATIO * pair[1].distance]
            if len(good) < _FEWEST:
                continue
            numbers = landmark[usable][[match.queryIdx for match in good]]
            there = xy[[match.trainIdx for match in good]]
            noise = _PIXEL / float(K[0, 0])
            directions = directions_of(there, K)
            guess = _sampled_pose(self._places[numbers], directions, 2 * _OFF_PX * noise / _PIXEL)
            if guess is None:
                continue
            T = resect(self._places[numbers], directions, guess, noise)
            agree = _errors(self._places[numbers], directions, T) < _OFF_PX * noise / _PIXEL
            if agree.sum() < _FEWEST:
                continue
            numbers, at = np.unique(numbers[agree], return_index=True)
            new = ~np.isin(self._landmark, numbers)
            self._landmark = np.concatenate([self._landmark[new], numbers])
            self._xy = np.concatenate([self._xy[new], there[agree][at]])
            if self.lost:
                self._log(logging.INFO, "the camera's pose is found again")
            return T
        return None

    def _lost(self, K: Floats) -> None:
        if not self.lost:
            self._log(logging.WARNING, "the camera's pose is lost: it is looked for in the views that were seen before")
        self._lost_for += 1
        if self._lost_for > _PATIENCE:
            self._log(
                logging.WARNING, f"the camera's pose was lost for {_PATIENCE} frames: it starts anew, at another scale"
            )
            grey = self._grey
            self._begin(self._pose())
            self._grey = grey
            self._try_start(K)

    def _log(self, level: int, text: str) -> None:
        if not self.silent:
            _LOG.log(level, text)


def _errors(points: Floats, directions: Floats, T: Floats) -> Floats:
    """(N,) of directions; infinite behind the camera. T: (4, 4) or (N, 4, 4)."""
    moved = np.einsum("...ij,...j->...i", T[..., :3, :3], points) + T[..., :3, 3]
    z = moved[:, 2]
    error = np.linalg.norm(moved[:, :2] / np.maximum(z, 1e-3)[:, None] - directions, axis=1)
    return np.where(z > 1e-3, error, np.inf)


def _sampled_pose(points: Floats, directions: Floats, limit: float) -> Floats | None:
    """`T_camera_world` (4, 4) from RANSAC over points (N, 3) seen in directions (N, 2); None if none is found."""
    cv2.setRNGSeed(0)
    found, turn, shift, inliers = cv2.solvePnPRansac(
        points, directions, np.eye(3), None, reprojectionError=limit, iterationsCount=100, flags=cv2.SOLVEPNP_SQPNP
    )
    if not found or inliers is None or len(inliers) < _FEWEST:
        return None
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(turn)[0], shift.ravel()
    return T
