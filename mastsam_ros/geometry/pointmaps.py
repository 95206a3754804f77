"""Labels to points without depth: the matcher's pointmap, brought into the current camera (method, step 8)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.settings import GeometrySettings
from mastsam_ros.types import Frame, LabelledCloud, Matches, Pointmap

_LATTICE = 8000
"""Pixels, evenly spread, that pose and scale are estimated from: so few are quickly gone through..."""
_POSE_POINTS = 2000
"""... and so many of them at most the pose needs; more add time, not precision."""
_LEAST_POINTS, _LEAST_SHARE = 30, 0.3
"""So many of them, and this share, must agree on the pose."""
_PIXEL_TOLERANCE = 2.0
_OWN_WORD = 0.1
"""A metric pair's own scale counts for so much beside the carried one: about ten pairs' mean holds."""


@dataclass(frozen=True, eq=False)
class PointmapPair:
    """What a pair of views is lifted from, on the device or, once its `values` were fetched, on the host.

    values: every `stride`-th pixel of the current view's pointmap, (h, w, 4) float32, points and confidence, 0 also at
    edges; and a lattice of every `step`-th pixel of it and, where there is one, of the previous view's, (1 or 2, h, w,
    4). size: (height, width) of the pointmaps.
    """

    values: tuple[torch.Tensor, ...] | tuple[npt.NDArray[np.float32], ...]
    step: int
    stride: int
    size: tuple[int, int]
    metric: bool

    @staticmethod
    def of(matches: Matches, settings: GeometrySettings) -> PointmapPair | None:
        """From the matches' pointmaps; None where there are none."""
        now, before = matches.pointmap1, matches.pointmap0
        if now is None:
            return None
        height, width = now.confidence.shape
        step, stride = max(1, math.isqrt(height * width // _LATTICE)), settings.points_stride
        both = [now]
        if before is not None and before.confidence.shape == now.confidence.shape:
            both.append(before)
        lattice = torch.stack([_sampled(one, step, one.confidence) for one in both])
        # Seen from the previous camera, whose frame they are in: the current one's place is not known yet.
        distance = torch.where(now.confidence > 0, now.points.norm(dim=-1), 0)
        chosen = torch.where(_edges(distance, settings.edge_ratio), 0, now.confidence)
        sampled = _sampled(now, stride, chosen)
        return PointmapPair((sampled, lattice), step, stride, (height, width), now.metric)


def _sampled(pointmap: Pointmap, step: int, confidence: torch.Tensor) -> torch.Tensor:
    """(h, w, 4) float32: every `step`-th pixel's point, and its confidence of (H, W)."""
    every = slice(None, None, step)
    return torch.cat([pointmap.points[every, every], confidence[every, every, None]], dim=-1)


@dataclass(frozen=True, eq=False)
class _Lattice:
    """Every `step`-th pixel of a pointmap of `size` (height, width), on the host: points (h, w, 3) float64,
    confidence (h, w)."""

    points: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float32]
    step: int
    size: tuple[int, int]

    @staticmethod
    def of(pair: PointmapPair) -> list[_Lattice]:
        """Those of the pair: the current view's, and the previous one's if it is there."""
        lattices = np.asarray(pair.values[1])
        return [_Lattice(one[..., :3].astype(np.float64), one[..., 3], pair.step, pair.size) for one in lattices]


class PointmapLifter:
    """Clouds from pairs of views, whose scale goes on from pair to pair.

    A network gives each pair of views its own scale. The frame that two pairs share has a depth in both: their ratio
    (median of the logarithms) brings the new pair to the scale of the ones before. Of a metric model the pairs' own
    scales are right on average, and the carried one is drawn towards them, so that its errors do not add up.
    """

    def __init__(self) -> None:
        self._log_scale = 0.0
        self._seen: tuple[int, npt.NDArray[np.float64]] | None = None

    @property
    def scale(self) -> float:
        """What the latest pair's points were multiplied by."""
        return math.exp(self._log_scale)

    def reset(self) -> None:
        """The next pair's scale is its own."""
        self._log_scale, self._seen = 0.0, None

    def lift(
        self, number: int, view: Frame, labels: npt.NDArray[np.uint16], pair: PointmapPair, settings: GeometrySettings
    ) -> LabelledCloud | None:
        """The labelled cloud of frame `number`, in its camera's optical frame, from the pair that it ends.

        labels: (H, W) uint16 at any size. pair: its values on the host. The pointmap is in the previous frame's camera;
        where the current camera is in there follows from the pixels that its points are seen at. Without K the focal
        length is that of the previous view's own pointmap, which the same camera saw. None where the points do not
        agree on one pose. `metric` as the pointmap says; points beyond `max_depth_m` are left out where it is.
        """
        now, *rest = _Lattice.of(pair)
        own = rest[0] if rest else None
        seen, self._seen = self._seen, None
        K = view.K if view.K is not None else _intrinsics(own)
        T = camera_in_pointmap(now.points, now.confidence, K, now.step) if K is not None else None
        if T is None:
            return None
        if own is not None:
            self._carry_scale(seen[1] if seen is not None and seen[0] == number - 1 else None, own, pair.metric)
        in_camera = now.points @ T[2, :3] + T[2, 3]
        self._seen = number, np.where((now.confidence > 0) & (in_camera > 0), in_camera * self.scale, 0)
        return _cloud(view, labels, pair, T, self.scale, settings)

    def _carry_scale(self, seen: npt.NDArray[np.float64] | None, own: _Lattice, metric: bool) -> None:
        """seen: (h, w) depth of the pair's first frame at the carried scale, 0 = none; own: the same as it sees it."""
        depth = np.where(own.confidence > 0, own.points[..., 2], 0)
        if seen is not None and seen.shape == depth.shape:
            both = (seen > 0) & (depth > 0)
            if both.sum() >= _LEAST_POINTS:
                self._log_scale = float(np.median(np.log(seen[both] / depth[both])))
        if metric:
            self._log_scale *= 1 - _OWN_WORD


def _cloud(
    view: Frame,
    labels: npt.NDArray[np.uint16],
    pair: PointmapPair,
    T_camera_pointmap: npt.NDArray[np.float64],
    scale: float,
    settings: GeometrySettings,
) -> LabelledCloud:
    """The sampled points in the current camera, those that are behind it or too far left out."""
    sampled = np.asarray(pair.values[0])
    T = T_camera_pointmap.astype(np.float32)
    xyz = (sampled[..., :3] @ T[:3, :3].T + T[:3, 3]) * np.float32(scale)
    keep = (sampled[..., 3] > 0) & (xyz[..., 2] > 0)
    if pair.metric:
        keep &= xyz[..., 2] <= settings.max_depth_m
    rows, columns = np.nonzero(keep)
    xyz, confidence = xyz[rows, columns], sampled[rows, columns, 3]
    rows, columns = rows * pair.stride, columns * pair.stride
    height, width = pair.size
    if labels.shape != (height, width):
        labels = np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint16)
    return LabelledCloud(
        xyz=np.ascontiguousarray(xyz, dtype=np.float32),
        rgb=view.image[rows, columns],
        instance=labels[rows, columns].astype(np.uint32),
        confidence=confidence.clip(0, 1),
        metric=pair.metric,
    )


def _edges(depth: torch.Tensor, ratio: float) -> torch.Tensor:
    """As `depth_edges`, on the device: (H, W) bool of depth (H, W), 0 = none."""
    edges = torch.zeros_like(depth, dtype=torch.bool)
    for axis in (0, 1):
        count = depth.shape[axis] - 1
        near, far = depth.narrow(axis, 0, count), depth.narrow(axis, 1, count)
        jump = ((near - far).abs() > ratio * torch.minimum(near, far)) & (near > 0) & (far > 0)
        edges.narrow(axis, 0, count).logical_or_(jump)
        edges.narrow(axis, 1, count).logical_or_(jump)
    return edges


def camera_in_pointmap(
    points: npt.NDArray[np.float64], confidence: npt.NDArray[np.float32], K: npt.NDArray[np.float64], step: int = 1
) -> npt.NDArray[np.float64] | None:
    """`T_camera_pointmap` (4, 4): maps the points into the camera that sees point (y, x) at pixel (step x, step y).

    points: (H, W, 3). confidence: (H, W), 0 = no point. K: (3, 3). Points that moved by themselves or are wrong may be
    up to about half. None where too few agree. Deterministic.
    """
    rows, columns = np.nonzero((confidence > 0) & np.isfinite(points).all(axis=-1))
    if len(rows) < _LEAST_POINTS:
        return None
    chosen = np.random.default_rng(0).permutation(len(rows))[:_POSE_POINTS]
    rows, columns = rows[chosen], columns[chosen]
    seen = step * np.stack([columns, rows], axis=-1).astype(np.float64)
    places = points[rows, columns]
    size = np.median(np.linalg.norm(places, axis=1))
    if not size > 0:
        return None
    found, rotation, shift, inliers = cv2.solvePnPRansac(
        places / size,  # any scale will do, and numbers near 1 suit the solver
        seen,
        K,
        None,
        reprojectionError=_PIXEL_TOLERANCE,
        iterationsCount=200,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not found or inliers is None or len(inliers) < max(_LEAST_POINTS, _LEAST_SHARE * len(chosen)):
        return None
    agreeing = inliers.ravel()
    rotation, shift = cv2.solvePnPRefineLM(places[agreeing] / size, seen[agreeing], K, None, rotation, shift)
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(rotation)[0]
    T[:3, 3] = shift.ravel() * size
    return T


def _intrinsics(own: _Lattice | None) -> npt.NDArray[np.float64] | None:
    """K (3, 3) of a camera with its centre in the middle, from a pointmap in that camera's own frame.

    Every point with its pixel gives a focal length; their median holds. None without enough points.
    """
    if own is None:
        return None
    height, width = own.size
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    y, x = np.mgrid[: height : own.step, : width : own.step]
    from_centre = np.hypot(x - centre[0], y - centre[1])
    off_axis = np.hypot(own.points[..., 0], own.points[..., 1])
    usable = (own.confidence > 0) & (own.points[..., 2] > 0) & (off_axis > 0)
    usable &= from_centre > 0.1 * max(height, width)  # nearer ones are mostly noise
    if usable.sum() < _LEAST_POINTS:
        return None
    focal = float(np.median(from_centre[usable] * own.points[..., 2][usable] / off_axis[usable]))
    return np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
