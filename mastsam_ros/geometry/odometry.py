"""Where a depth camera is, frame by frame: each frame is aligned with a keyframe, so that drift is slow."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.device import on_host
from mastsam_ros.geometry.cameras import back_project
from mastsam_ros.geometry.depth_noise import inverse_depth_noise, inverse_of
from mastsam_ros.geometry.pose import RelativePose, add_error, camera_motion, rigid_motion
from mastsam_ros.types import Frame, Matches

Floats = npt.NDArray[np.float64]

_LOG = logging.getLogger(__name__)
_MATCHES = 1200
"""Matches with the previous frame that its motion is estimated from."""
_CORNERS, _CORNER_SPACING = 700, 5.0
"""Corners of a keyframe that are followed into the current frame, and their least distance in pixels."""
_PATCH = (9, 9)
"""Pixels. Larger patches are pulled off by the change of perspective."""
_PLANE_STRIDE = 9
"""Pixels between the points of a keyframe whose surface the current depth image must meet."""
_NEW_KEYFRAME = 0.75
"""Nearness (see `_nearness`) below which a frame becomes a keyframe."""
_MOST_KEYFRAMES = 80
_FOLLOWED = 0.5
"""Share of the corners, and ..."""
_FEWEST = 30
"""... number of them that must agree on the pose."""
_ORB_FEATURES, _ORB_AGREE = 800, 25
_TRIED = 3
"""Keyframes that a lost frame is compared with: the nearest ones, and as many of those that look most like it..."""
_LOOKED_AT, _LOOKED_FOR = 16, 200
"""... of so many that are looked at in turn, by this many of the frame's features."""
_DISTINCT = 0.8
"""A feature is found again if its best match is closer than the second best by this factor."""
_ITERATIONS, _CONVERGED = 10, 1e-6
_PIXEL_NOISE = 1.0
_LEAST_NOISE = 3e-4
"""Noise of inverse depth, 1/m, below which other errors matter more."""
_SURFACE_NOISE_M = 0.001
_SURFACE_CUT = 2.5
"""Distances from surfaces beyond this many standard deviations count little."""
_REACH_M = 0.05
"""Farther surfaces are not the same surface."""
_FLAT = 0.04
"""Change of inverse depth within 5x5 pixels, as a share of it, up to which a pixel lies on one surface."""


@dataclass(frozen=True, eq=False)
class DepthView:
    """What the alignment reads of a frame: grey (H, W) uint8, depth (H, W) metres and its inverse (0: none), K, and
    the standard deviation of inverse depth."""

    grey: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    inverse_depth: npt.NDArray[np.float32]
    K: npt.NDArray[np.float64]
    noise: float

    @staticmethod
    def of(frame: Frame) -> DepthView | None:
        """The view of a frame, None without depth or K."""
        if frame.depth is None or frame.K is None:
            return None
        grey = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        inverse_depth = inverse_of(frame.depth)
        return DepthView(
            grey, frame.depth, inverse_depth, frame.K, max(_LEAST_NOISE, inverse_depth_noise(inverse_depth))
        )

    @property
    def size(self) -> npt.NDArray[np.int64]:
        """(2,) width and height."""
        return np.array(self.depth.shape[::-1])


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A frame of known pose that others are aligned with.

    T_world_camera: (4, 4). grey: (H, W) uint8. depth: (H, W) float32 metres. corners: (N, 2) float32 pixels;
    corner_points: (N, 3); surface_points, normals: (M, 3), all in its camera. orb_xy (L, 2), orb (L, 32) or None.
    """

    T_world_camera: npt.NDArray[np.float64]
    grey: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    corners: npt.NDArray[np.float32]
    corner_points: npt.NDArray[np.float64]
    surface_points: npt.NDArray[np.float64]
    normals: npt.NDArray[np.float64]
    orb_xy: npt.NDArray[np.float64]
    orb: npt.NDArray[np.uint8] | None


FORWARD_LEFT_UP = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], np.float64)
"""(4, 4) pose of an optical frame (x right, y down, z forward) that looks along the x axis of a level world."""


class Odometry:
    """The pose of one depth camera over time; the first frame, or a pose given from outside, sets the world.

    origin: (4, 4) pose that the first frame has in a world of its own. expects_given: the world is that of poses from
    outside, also before the first of them has come.
    """

    def __init__(self, origin: npt.NDArray[np.float64] | None = None) -> None:
        self.origin = np.eye(4) if origin is None else origin
        self.expects_given = False
        self.reset()

    def reset(self) -> None:
        """Forgets everything; the next frame without a pose of its own is the world's origin."""
        self._keyframes: list[Keyframe] = []
        self._wanted: tuple[DepthView, npt.NDArray[np.float64]] | None = None
        """A view and its pose that become a keyframe."""
        self._previous: tuple[DepthView, npt.NDArray[np.float64]] | None = None
        self._last = self.origin
        self._turn = 0
        self.given = self.expects_given
        """True where the world is that of poses from outside."""
        self.lost = False
        """True while the pose is not known."""

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """What frames are aligned with, in the order in which they were made."""
        self.finish()
        return tuple(self._keyframes)

    def adopt(self, keyframes: tuple[Keyframe, ...], given: bool = False) -> None:
        """Goes on in the world of an earlier run: the pose is lost until one of its keyframes is recognised.

        given: it is a world of poses from outside.
        """
        self.reset()
        self._keyframes, self.lost = list(keyframes), bool(keyframes)
        self.given |= given

    def interrupt(self) -> None:
        """The next frame's matches do not come from the last one: its pose is found from keyframes."""
        self._previous = None

    def finish(self) -> None:
        """Makes a keyframe of the last frame if it is to be one: costly, and not needed before the next."""
        if self._wanted is not None:
            (view, T), self._wanted = self._wanted, None
            self._add_keyframe(view, T)

    def track(self, frame: Frame, matches: Matches | None) -> npt.NDArray[np.float64] | None:
        """`T_world_camera` (4, 4) of the frame, or None where it has no depth or K or its pose is lost.

        matches: from the previous frame that this was called with. A pose that the frame brings is taken as it is.
        Frames without one go on from the last that had one, in its world, as long as the motion since can be measured.
        """
        self.finish()
        view = DepthView.of(frame)
        if view is None:
            self._previous = None
            return None
        if frame.T_world_camera is not None:
            self._keyframes, self.given = [], True
            return self._settled(view, frame.T_world_camera, "given")
        guess = self._guess(view, matches)
        if not self._keyframes and not self.lost and (guess is not None or not self.given):
            return self._started(view, guess)
        T = self._aligned(view, guess)
        if T is None:
            T = self._relocalised(view, guess if guess is not None else self._last)
        if T is None and guess is not None and self._previous is not None:
            T = guess
            self._wanted = view, T
        if T is None:
            if not self.lost:
                back = "a pose comes from outside" if self.given and not self._keyframes else "a known view comes back"
                _LOG.warning("the camera's pose is lost: the map pauses until %s", back)
            self.lost, self._previous = True, None
            return None
        return self._settled(view, T, "found again")

    def _settled(self, view: DepthView, T: npt.NDArray[np.float64], how: str) -> npt.NDArray[np.float64]:
        if self.lost:
            _LOG.info("the camera's pose is %s: the map goes on", how)
        self.lost, self._previous, self._last = False, (view, T), T
        return T

    def _started(self, view: DepthView, guess: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64] | None:
        """The pose of the first keyframe: after frames that brought their own pose, where the last one leads.

        None where nothing can be followed from here, nor was followed to here.
        """
        keyframe = _keyframe(view, self._last if guess is None else guess)
        if len(keyframe.corners) >= _FEWEST:
            self._keyframes.append(keyframe)
        elif guess is None:
            return None
        return self._settled(view, keyframe.T_world_camera, "known")

    def _guess(self, view: DepthView, matches: Matches | None) -> npt.NDArray[np.float64] | None:
        """The pose that the matches with the previous frame lead to."""
        if self._previous is None or matches is None or len(matches) == 0:
            return None
        before, T = self._previous
        some = slice(None, None, -(-len(matches) // _MATCHES))
        xy0, xy1, weights = on_host(matches.xy0[some], matches.xy1[some], matches.confidence[some])
        motion = camera_motion(xy0, xy1, before.depth, view.depth, before.K, view.K, weights, _LEAST_NOISE)
        return T @ motion.T if motion is not None and motion.share > 0.3 else None

    def _aligned(self, view: DepthView, guess: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64] | None:
        """The guess refined against the nearest keyframe; makes the view a keyframe where none is near."""
        if guess is None or not self._keyframes:
            return None
        nearness = [_nearness(keyframe, guess, view) for keyframe in self._keyframes]
        best = int(np.argmax(nearness))
        T = align(self._keyframes[best], view, guess)
        if T is not None and nearness[best] < _NEW_KEYFRAME:
            self._wanted = view, T
        return T

    def _relocalised(self, view: DepthView, near: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
        """The pose from ORB features that the view shares with one of the keyframes."""
        xy, features = _orb(view.grey)
        if features is None:
            return None
        usable = [n for n, keyframe in enumerate(self._keyframes) if keyframe.grey.shape == view.grey.shape]
        if not usable:
            return None
        ranked = sorted(usable, key=lambda n: -_nearness(self._keyframes[n], near, view))
        # The last known place may be far away: what the views show is asked too, of all keyframes in turn.
        turn = [usable[(self._turn + n) % len(usable)] for n in range(min(_LOOKED_AT, len(usable)))]
        self._turn += len(turn)
        alike = sorted(turn, key=lambda n: -_found_again(self._keyframes[n], features))
        for n in dict.fromkeys([*alike[:_TRIED], *ranked[:_TRIED]]):
            keyframe = self._keyframes[n]
            motion = _orb_motion(keyframe, xy, features, view)
            if motion is None or motion.inliers.sum() < _ORB_AGREE:
                continue
            T = align(keyframe, view, keyframe.T_world_camera @ motion.T)
            if T is not None:
                return T
        return None

    def _add_keyframe(self, view: DepthView, T: npt.NDArray[np.float64]) -> None:
        self._keyframes.append(_keyframe(view, T))
        if len(self._keyframes) > _MOST_KEYFRAMES:
            # Of the two that are closest to each other the later one tells the least, and has drifted more.
            places = np.stack([keyframe.T_world_camera[:3, 3] for keyframe in self._keyframes])
            axes = np.stack([keyframe.T_world_camera[:3, 2] for keyframe in self._keyframes])
            apart = np.linalg.norm(places[:, None] - places, axis=2) + np.linalg.norm(axes[:, None] - axes, axis=2)
            apart[np.tril_indices(len(apart))] = np.inf
            del self._keyframes[int(np.argmin(apart.min(axis=0)))]


def align(keyframe: Keyframe, view: DepthView, guess: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """`T_world_camera` (4, 4) of the view from the guess, or None if too few corners of the keyframe agree.

    Corners are followed by Lucas-Kanade flow from where the guess puts them; then robust Gauss-Newton over their
    pixel and inverse depth and over the distance of the current depth image from the keyframe's surfaces.
    """
    K, noise = np.array(view.K, np.float64, order="C"), view.noise
    T = np.linalg.inv(guess) @ keyframe.T_world_camera
    points, xy = _followed(keyframe, view, T)
    if len(points) < _FEWEST:
        return None
    w = _sampled(view.inverse_depth, xy)
    for iteration in range(_ITERATIONS):
        cut = 3.0 if iteration < 3 else 1.5
        normal, slope = np.zeros((6, 6)), np.zeros(6)
        _add_corners(normal, slope, T, K, points, xy, w, 1.5 * noise, cut)
        _add_surfaces(normal, slope, T, K, keyframe.surface_points, keyframe.normals, view.inverse_depth, noise)
        step = -np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(6), slope)
        T = rigid_motion(step) @ T
        if np.abs(step).max() < _CONVERGED:
            break
    moved = points @ T[:3, :3].T + T[:3, 3]
    error = np.linalg.norm(_projected(moved, K) - xy, axis=1)
    agreeing = (error < 2.0) & (moved[:, 2] > 0)
    if agreeing.sum() < max(_FEWEST, _FOLLOWED * len(points)):
        return None
    return keyframe.T_world_camera @ np.linalg.inv(T)


def _followed(
    keyframe: Keyframe, view: DepthView, T: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Points (N, 3) of the keyframe's camera and the pixels (N, 2) where they are now. T: keyframe -> current."""
    moved = keyframe.corner_points @ T[:3, :3].T + T[:3, 3]
    expected = _projected(moved, view.K).astype(np.float32)
    inside = (moved[:, 2] > 0.05) & (expected > 2).all(axis=1) & (expected < view.size - 3).all(axis=1)
    if inside.sum() < _FEWEST:
        return np.zeros((0, 3)), np.zeros((0, 2))
    found, ok, error = cv2.calcOpticalFlowPyrLK(
        keyframe.grey,
        view.grey,
        keyframe.corners[inside][:, None],
        expected[inside][:, None].copy(),
        winSize=_PATCH,
        maxLevel=1,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 15, 0.01),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    xy = found[:, 0].astype(np.float64)
    good = (ok[:, 0] > 0) & (error[:, 0] < 25) & (np.linalg.norm(xy - expected[inside], axis=1) < 8)
    good &= (xy > 1).all(axis=1) & (xy < view.size - 2).all(axis=1)
    return keyframe.corner_points[inside][good], xy[good]


@compiled("void(float64[:, ::1], float64[:, ::1], int64, float64[::1])")
def _move(T: Floats, points: Floats, n: int, moved: Floats) -> None:
    """Writes point n of (N, 3), moved by T (4, 4), into `moved` (3,)."""
    for a in range(3):
        moved[a] = T[a, 0] * points[n, 0] + T[a, 1] * points[n, 1] + T[a, 2] * points[n, 2] + T[a, 3]


@compiled(
    "void(float64[:, ::1], float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1],"
    " float64[::1], float64, float64)"
)
def _add_corners(
    normal: Floats, slope: Floats, T: Floats, K: Floats, points: Floats, xy: Floats, w: Floats, noise: float, cut: float
) -> None:
    """Adds the errors of pixels xy (N, 2) and of inverse depth w (N,), 0 for none, in units of their noise, to the
    normal equations at T. points: (N, 3) of the keyframe's camera. cut: pixels beyond which an error counts little."""
    point, change = np.empty(3), np.zeros(3)
    for n in range(len(points)):
        _move(T, points, n, point)
        z = max(point[2], 0.05)
        across = (K[0, 0] * point[0] / z + K[0, 2] - xy[n, 0]) / _PIXEL_NOISE
        down = (K[1, 1] * point[1] / z + K[1, 2] - xy[n, 1]) / _PIXEL_NOISE
        weight = 1 / (1 + (across * across + down * down) / (cut / _PIXEL_NOISE) ** 2) ** 2
        change[0], change[1], change[2] = K[0, 0] / z / _PIXEL_NOISE, 0.0, -K[0, 0] * point[0] / z**2 / _PIXEL_NOISE
        add_error(normal, slope, point, change, across, weight)
        change[0], change[1], change[2] = 0.0, K[1, 1] / z / _PIXEL_NOISE, -K[1, 1] * point[1] / z**2 / _PIXEL_NOISE
        add_error(normal, slope, point, change, down, weight)
        if w[n] > 0:
            error = (1 / z - w[n]) / noise
            change[0], change[1], change[2] = 0.0, 0.0, -1 / z**2 / noise
            add_error(normal, slope, point, change, error, 1 / (1 + error**2 / (2 * cut) ** 2) ** 2)


@compiled(
    "void(float64[:, ::1], float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1],"
    " float32[:, ::1], float64)"
)
def _add_surfaces(
    normal: Floats,
    slope: Floats,
    T: Floats,
    K: Floats,
    points: Floats,
    normals: Floats,
    inverse_depth: npt.NDArray[np.float32],
    noise: float,
) -> None:
    """Adds the distances of what the current depth image shows from the keyframe's surfaces, in units of their noise,
    to the normal equations at T. points, normals: (M, 3) of the keyframe's camera. inverse_depth: (H, W) of the view,
    with that noise."""
    height, width = inverse_depth.shape
    point, now, direction, change = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for n in range(len(points)):
        _move(T, points, n, point)
        z = max(point[2], 0.05)
        u, v = np.rint(K[0, 0] * point[0] / z + K[0, 2]), np.rint(K[1, 1] * point[1] / z + K[1, 2])
        if not (point[2] > 0.05 and 0 <= u < width and 0 <= v < height):
            continue
        w = inverse_depth[int(v), int(u)]
        if not w > 0:
            continue
        z = 1 / max(float(w), 1e-3)
        now[0], now[1], now[2] = (u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z
        distance, apart = 0.0, 0.0
        for a in range(3):
            direction[a] = T[a, 0] * normals[n, 0] + T[a, 1] * normals[n, 1] + T[a, 2] * normals[n, 2]
            distance += (now[a] - point[a]) * direction[a]
            apart += (now[a] - point[a]) ** 2
        if abs(distance) >= _REACH_M or np.sqrt(apart) >= 2 * _REACH_M:
            continue
        scale = _SURFACE_NOISE_M + noise * z**2
        for a in range(3):
            change[a] = -direction[a] / scale
        error = distance / scale
        add_error(normal, slope, now, change, error, 1 / (1 + error**2 / _SURFACE_CUT**2) ** 2)


def _keyframe(view: DepthView, T: npt.NDArray[np.float64]) -> Keyframe:
    K, depth, w = view.K, view.depth, view.inverse_depth
    flat = _flat(w, view.noise)
    found = cv2.goodFeaturesToTrack(
        view.grey, _CORNERS, 0.001, _CORNER_SPACING, mask=flat.astype(np.uint8), blockSize=5
    )
    corners = np.zeros((0, 2), np.float32) if found is None else found[:, 0].astype(np.float32)
    at = np.rint(corners).astype(np.int64)
    z = 1 / np.maximum(_sampled(w, corners.astype(np.float64)), 1e-3)
    z = np.where(z > 1e2, depth[at[:, 1], at[:, 0]], z)
    corner_points = np.stack(
        [(corners[:, 0] - K[0, 2]) / K[0, 0] * z, (corners[:, 1] - K[1, 2]) / K[1, 1] * z, z], axis=1
    )
    grid = np.zeros_like(flat)
    grid[_PLANE_STRIDE // 2 :: _PLANE_STRIDE, _PLANE_STRIDE // 2 :: _PLANE_STRIDE] = True
    rows, columns = np.nonzero(grid & flat)
    points = back_project(depth, K)[rows, columns].astype(np.float64)
    normals = _normals(w, K)[rows, columns].astype(np.float64)
    orb_xy, orb = _orb(view.grey)
    return Keyframe(T, view.grey, depth, corners, corner_points.astype(np.float64), points, normals, orb_xy, orb)


def _nearness(keyframe: Keyframe, T: npt.NDArray[np.float64], view: DepthView) -> float:
    """Share of the keyframe that the pose T shows, less what turning and moving cost in likeness."""
    points = keyframe.surface_points[::4]
    if not len(points):
        return -1.0
    T_now_key = np.linalg.inv(T) @ keyframe.T_world_camera
    moved = points @ T_now_key[:3, :3].T + T_now_key[:3, 3]
    pixel = _projected(moved, view.K)
    shown = (moved[:, 2] > 0.05) & (pixel > 0).all(axis=1) & (pixel < view.size).all(axis=1)
    angle = float(np.arccos(np.clip((np.trace(T_now_key[:3, :3]) - 1) / 2, -1, 1)))
    shift = float(np.linalg.norm(T_now_key[:3, 3])) / float(np.median(points[:, 2]))
    return float(shown.mean()) - angle / (np.pi / 2) - 0.5 * shift


def _orb(grey: npt.NDArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8] | None]:
    keypoints, features = cv2.ORB.create(_ORB_FEATURES, fastThreshold=7).detectAndCompute(grey, None)
    xy = np.array([point.pt for point in keypoints], np.float64).reshape(-1, 2)
    return xy, None if features is None else np.asarray(features, np.uint8)


def _found_again(keyframe: Keyframe, features: npt.NDArray[np.uint8]) -> int:
    """How many of some of the features the keyframe has too."""
    if keyframe.orb is None or len(keyframe.orb) < 2:
        return 0
    some = features[:: max(1, len(features) // _LOOKED_FOR)]
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(some, keyframe.orb, k=2)
    return sum(best.distance < _DISTINCT * second.distance for best, second in pairs)


def _orb_motion(
    keyframe: Keyframe, xy: npt.NDArray[np.float64], features: npt.NDArray[np.uint8], view: DepthView
) -> RelativePose | None:
    if keyframe.orb is None:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(keyframe.orb, features)
    if len(pairs) < _ORB_AGREE:
        return None
    xy0 = keyframe.orb_xy[[pair.queryIdx for pair in pairs]]
    xy1 = xy[[pair.trainIdx for pair in pairs]]
    return camera_motion(xy0, xy1, keyframe.depth, view.depth, view.K, view.K, noise=4 * _LEAST_NOISE)


def _projected(points: npt.NDArray[np.float64], K: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    z = np.maximum(points[:, 2], 0.05)
    return np.stack([K[0, 0] * points[:, 0] / z + K[0, 2], K[1, 1] * points[:, 1] / z + K[1, 2]], axis=1)


def _flat(w: npt.NDArray[np.float32], noise: float) -> npt.NDArray[np.bool_]:
    """Pixels (H, W) that lie on one surface with all pixels around them."""
    kernel = np.ones((5, 5), np.uint8)
    nearest, farthest = cv2.dilate(w, kernel), cv2.erode(w, kernel)
    return (farthest > 0) & (nearest - farthest < _FLAT * w + 8 * noise)


def _normals(w: npt.NDArray[np.float32], K: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """(H, W, 3): inverse depth is linear on planes, so its slopes give the normal; good on `_flat` pixels."""
    slope = np.arange(-2, 3, dtype=np.float32) / 10
    mean = np.full(5, 0.2, np.float32)
    across = cv2.sepFilter2D(w, cv2.CV_32F, slope, mean) * np.float32(K[0, 0])
    down = cv2.sepFilter2D(w, cv2.CV_32F, mean, slope) * np.float32(K[1, 1])
    level = cv2.sepFilter2D(w, cv2.CV_32F, mean, mean)
    x = (np.arange(w.shape[1], dtype=np.float32) - np.float32(K[0, 2])) / np.float32(K[0, 0])
    y = ((np.arange(w.shape[0], dtype=np.float32) - np.float32(K[1, 2])) / np.float32(K[1, 1]))[:, None]
    normals = np.stack([across, down, level - across * x - down * y], axis=-1)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


def _sampled(w: npt.NDArray[np.float32], xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N,) inverse depth at sub-pixel places (N, 2); 0 where not all of the four pixels around are on one surface."""
    height, width = w.shape
    x0 = np.floor(xy[:, 0]).astype(np.int64).clip(0, width - 2)
    y0 = np.floor(xy[:, 1]).astype(np.int64).clip(0, height - 2)
    fx, fy = xy[:, 0] - x0, xy[:, 1] - y0
    corners = np.stack([w[y0, x0], w[y0, x0 + 1], w[y0 + 1, x0], w[y0 + 1, x0 + 1]]).astype(np.float64)
    mean = (corners * np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])).sum(axis=0)
    smooth = (corners.min(axis=0) > 0) & (np.ptp(corners, axis=0) < _FLAT * mean)
    return np.where(smooth, mean, 0.0)
