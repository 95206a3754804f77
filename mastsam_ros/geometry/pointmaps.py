"""Labels to points without depth: the matcher's pointmap, brought into the current camera (method, step 8)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.lifting import depth_edges
from mastsam_ros.settings import GeometrySettings
from mastsam_ros.types import Frame, LabelledCloud, Matches, Pointmap

_POSE_POINTS = 2000
"""Pixels that the camera's pose is estimated from; more add time, not precision."""
_LEAST_POINTS, _LEAST_SHARE = 30, 0.3
"""So many of them, and this share, must agree on the pose."""
_PIXEL_TOLERANCE = 2.0


def lift_pointmap(
    view: Frame, labels: npt.NDArray[np.uint16], matches: Matches, settings: GeometrySettings
) -> LabelledCloud | None:
    """The labelled cloud of the frame `view`, in its camera's optical frame, from `matches.pointmap1`.

    labels: (H, W) uint16 at any size. The pointmap is in the previous frame's camera; where the current camera is in
    there follows from the pixels that its points are seen at. Without K the focal length is that of `pointmap0`,
    which the same camera saw. None without a pointmap, or where the points do not agree on one pose. `metric` as
    the pointmap says; points beyond `max_depth_m` are left out where it is.
    """
    pointmap = matches.pointmap1
    if pointmap is None:
        return None
    points = pointmap.points.cpu().numpy().astype(np.float64)
    confidence = pointmap.confidence.cpu().numpy()
    K = view.K if view.K is not None else _intrinsics(matches.pointmap0)
    T = camera_in_pointmap(points, confidence, K) if K is not None else None
    if T is None:
        return None
    xyz = (points @ T[:3, :3].T + T[:3, 3]).astype(np.float32)
    depth = np.where((confidence > 0) & (xyz[..., 2] > 0), xyz[..., 2], 0)
    keep = (depth > 0) & ~depth_edges(depth, settings.edge_ratio)
    if pointmap.metric:
        keep &= depth <= settings.max_depth_m
    sampled = np.zeros_like(keep)
    sampled[:: settings.points_stride, :: settings.points_stride] = True
    rows, columns = np.nonzero(keep & sampled)
    if labels.shape != keep.shape:
        labels = np.asarray(cv2.resize(labels, keep.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint16)
    return LabelledCloud(
        xyz=xyz[rows, columns],
        rgb=view.image[rows, columns],
        instance=labels[rows, columns].astype(np.uint32),
        confidence=confidence[rows, columns].clip(0, 1).astype(np.float32),
        metric=pointmap.metric,
    )


def camera_in_pointmap(
    points: npt.NDArray[np.float64], confidence: npt.NDArray[np.float32], K: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64] | None:
    """`T_camera_pointmap` (4, 4): maps the points into the camera that sees point (y, x) at pixel (x, y).

    points: (H, W, 3). confidence: (H, W), 0 = no point. K: (3, 3). Points that moved by themselves or are wrong may be
    up to about half. None where too few agree. Deterministic.
    """
    rows, columns = np.nonzero((confidence > 0) & np.isfinite(points).all(axis=-1))
    if len(rows) < _LEAST_POINTS:
        return None
    chosen = np.random.default_rng(0).permutation(len(rows))[:_POSE_POINTS]
    rows, columns = rows[chosen], columns[chosen]
    seen = np.stack([columns, rows], axis=-1).astype(np.float64)
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


def _intrinsics(pointmap: Pointmap | None) -> npt.NDArray[np.float64] | None:
    """K (3, 3) of a camera with its centre in the middle, from a pointmap in that camera's own frame.

    Every point with its pixel gives a focal length; their median holds. None without enough points.
    """
    if pointmap is None:
        return None
    points = pointmap.points.cpu().numpy().astype(np.float64)
    height, width = points.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    y, x = np.mgrid[:height, :width]
    from_centre = np.hypot(x - centre[0], y - centre[1])
    off_axis = np.hypot(points[..., 0], points[..., 1])
    usable = (pointmap.confidence.cpu().numpy() > 0) & (points[..., 2] > 0) & (off_axis > 0)
    usable &= from_centre > 0.1 * max(height, width)  # nearer ones are mostly noise
    if usable.sum() < _LEAST_POINTS:
        return None
    focal = float(np.median(from_centre[usable] * points[..., 2][usable] / off_axis[usable]))
    return np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
