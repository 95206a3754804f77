"""Consistency: the share of pixels that keep their id, between frames of a video and over all views of a scene."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from mastsam_ros.geometry.flow_fields import led_to
from mastsam_ros.types import InputError

VOXEL_M = 0.02
"""Edge of the voxels of the hashed H, metres."""
MOST_POINTS = 2_000_000
"""Of the exact H: 100 views at its usual 20,000 pixels."""
DEGENERATE_SHARE = 0.95
_KEY_BITS = 16
_HALF_RANGE = 1 << (_KEY_BITS - 1)


# ---- video without geometry ------------------------------------------------------------------------------------


def matched_pixels(previous: npt.NDArray[np.uint8], current: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Where each pixel of the current frame was in the previous one, by optical flow (method.md, "published numbers").

    previous, current: (H, W, 3) uint8 RGB. Returns (H, W) int32: the flat index of the nearest previous
    pixel, -1 where there is none. Flow is DIS (medium) at full size; a pixel is matched if the flow
    forward and back comes home to within one pixel.
    """
    before, now = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (previous, current))
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there, back = dis.calc(now, before, None), dis.calc(before, now, None)
    height, width = now.shape
    to_x, to_y = led_to(there)
    home = cv2.remap(back, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(1e3, 1e3))
    error = there + home
    column, row = np.rint(to_x).astype(np.int32), np.rint(to_y).astype(np.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    matched = inside & ((error * error).sum(axis=2) < 1.0)
    return np.where(matched, row * width + column, -1).astype(np.int32)


def pair_consistency(
    previous: npt.NDArray[np.integer], current: npt.NDArray[np.integer], matched: npt.NDArray[np.int32]
) -> float:
    """Share of the matched pixels whose ids in the two frames are equal, both labelled; NaN without matches.

    previous, current: (H, W) label images, 0 = unlabelled. matched: from `matched_pixels`.
    """
    if previous.shape != current.shape or matched.shape != current.shape:
        raise InputError(
            f"labels and matches must have one size, got {previous.shape}, {current.shape}, {matched.shape}"
        )
    usable = matched >= 0
    now, before = current[usable], previous.ravel()[matched[usable]]
    return float(((now == before) & (now > 0)).mean()) if len(now) else float("nan")


# ---- scenes with geometry: H (paper, eq. 4-6) ------------------------------------------------------------------


def world_points(
    depth: npt.NDArray[np.float32], K: npt.NDArray[np.float64], T_world_camera: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(H, W, 3) world coordinates of every pixel, the paper's f_i (eq. 2); NaN where there is no depth.

    depth: (H, W) metres. K: (3, 3). T_world_camera: (4, 4).
    """
    height, width = depth.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    z = np.where(depth > 0, depth, np.nan).astype(np.float64)
    camera = np.stack([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z], axis=-1)
    return camera @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]


class LabelConsistency:
    """H of label images, pixels that share a voxel being the same place: linear in the pixels.

    With one-hot features the cosine is 1 for equal ids and 0 otherwise (unlabelled: 0 with everything), so
    H is the sum over voxels and ids of count(voxel, id)^2 / count(voxel), by the number of pixels. What is
    kept are those counts: the memory grows with the surface seen, not with the number of frames.
    """

    def __init__(self, voxel_m: float = VOXEL_M) -> None:
        if voxel_m <= 0:
            raise InputError(f"voxel_m must be positive, got {voxel_m}")
        self._voxel_m = voxel_m
        self._keys = np.zeros(0, np.uint64)
        self._counts: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._pending: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]] = []

    def add(self, labels: npt.NDArray[np.integer], points: npt.NDArray[np.floating]) -> None:
        """Counts one view. labels: (...) ids up to 65535. points: (..., 3) metres; rows with NaN are left out.

        Raises InputError if a point lies more than 32767 voxels from the origin.
        """
        xyz = points.reshape(-1, 3)
        valid = np.isfinite(xyz).all(axis=1)
        voxel = np.floor(xyz[valid] / self._voxel_m).astype(np.int64) + _HALF_RANGE
        if voxel.size and (voxel.min() < 0 or voxel.max() >= 2 * _HALF_RANGE):
            raise InputError(f"points must lie within {_HALF_RANGE * self._voxel_m:.0f} m of the origin")
        key = (voxel[:, 0] << (3 * _KEY_BITS)) | (voxel[:, 1] << (2 * _KEY_BITS)) | (voxel[:, 2] << _KEY_BITS)
        key |= labels.ravel()[valid].astype(np.int64)
        keys, counts = np.unique(key.view(np.uint64), return_counts=True)
        self._pending.append((keys, counts))
        if len(self._pending) == 8:
            self._merge()

    def _merge(self) -> None:
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
        counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
        self._keys, where = np.unique(keys, return_inverse=True)
        self._counts = np.bincount(where, counts, len(self._keys)).astype(np.int64)
        self._pending.clear()

    def value(self) -> float:
        """H in [0, 1]; NaN before any pixel with a point was added."""
        self._merge()
        if not len(self._keys):
            return float("nan")
        _, voxel = np.unique(self._keys >> np.uint64(_KEY_BITS), return_inverse=True)
        in_voxel = np.bincount(voxel, self._counts)
        labelled = (self._keys & np.uint64(2**_KEY_BITS - 1)) > 0
        agreeing = (self._counts.astype(np.float64) ** 2 / in_voxel[voxel])[labelled]
        return float(agreeing.sum() / self._counts.sum())


def hashed_consistency(
    features: npt.NDArray[np.floating], points: npt.NDArray[np.floating], voxel_m: float = VOXEL_M
) -> float:
    """H (paper, eq. 6) of any features, pixels that share a voxel being the same place. Linear in the pixels.

    features: (N, D), compared by cosine (a zero row agrees with nothing, itself included).
    points: (N, 3) metres, one per pixel of all views. In one voxel the mean over all pairs of the cosine is
    the squared length of the mean unit feature.
    """
    unit = _unit_rows(features, points)
    _, voxel = np.unique(np.floor(points / voxel_m).astype(np.int64), axis=0, return_inverse=True)
    voxel = voxel.ravel()
    sums = np.zeros((voxel.max() + 1, unit.shape[1]))
    np.add.at(sums, voxel, unit)
    return float(((sums**2).sum(axis=1) / np.bincount(voxel)).sum() / len(points))


def exact_consistency(
    features: npt.NDArray[np.floating],
    points: npt.NDArray[np.floating],
    radius_m: float = VOXEL_M / 2,
    queries: npt.NDArray[np.integer] | None = None,
) -> float:
    """H (paper, eq. 4-6) by radius search: every pixel against all that lie within radius_m of it.

    features: (N, D), compared by cosine; for labels see `one_hot`. points: (N, 3) metres. queries: indices of
    the pixels to average over (None: all), for an estimate on large scenes; the neighbours are always all.
    """
    unit = _unit_rows(features, points)
    tree = cKDTree(points)
    chosen = np.arange(len(points)) if queries is None else np.asarray(queries)
    total = 0.0
    for start in range(0, len(chosen), 4096):
        block = chosen[start : start + 4096]
        neighbours = tree.query_ball_point(points[block], radius_m)
        lengths = np.array([len(found) for found in neighbours])
        flat = np.concatenate([np.asarray(found, dtype=np.int64) for found in neighbours])
        cosine = np.einsum("nd,nd->n", unit[flat], unit[np.repeat(block, lengths)])
        total += float((np.add.reduceat(cosine, np.cumsum(lengths) - lengths) / lengths).sum())
    return total / len(chosen)


class ExactLabelConsistency:
    """H of label images by radius search (paper, eq. 4-6), on a grid of pixels; for a check of the hashed H.

    About `pixels` of every view, evenly spread, are neighbours, and `queries` of all of them, drawn with a fixed seed,
    are averaged over. Of many views fewer pixels are taken, so that no more than MOST_POINTS are kept, 20 bytes each.
    """

    def __init__(self, views: int, radius_m: float = VOXEL_M / 2, pixels: int = 20_000, queries: int = 20_000) -> None:
        self._radius_m, self._queries = radius_m, queries
        self._pixels = min(pixels, MOST_POINTS // max(views, 1))
        self._labels: list[npt.NDArray[np.int64]] = []
        self._points: list[npt.NDArray[np.float32]] = []

    def add(self, labels: npt.NDArray[np.integer], points: npt.NDArray[np.floating]) -> None:
        """Takes one view. labels: (H, W) ids. points: (H, W, 3) metres; pixels with NaN are left out."""
        stride = max(1, round((labels.size / self._pixels) ** 0.5))
        grid = np.s_[stride // 2 :: stride, stride // 2 :: stride]
        xyz = points[grid].reshape(-1, 3)
        valid = np.isfinite(xyz).all(axis=1)
        self._points.append(xyz[valid].astype(np.float32))
        self._labels.append(labels[grid].ravel()[valid].astype(np.int64))

    def value(self) -> float:
        """H in [0, 1]; NaN before any pixel with a point was added."""
        if not any(len(points) for points in self._points):
            return float("nan")
        labels, points = np.concatenate(self._labels), np.concatenate(self._points)
        count = min(self._queries, len(points))
        queries = np.random.default_rng(0).choice(len(points), count, replace=False)
        tree, total = cKDTree(points), 0.0
        for start in range(0, count, 1024):
            block = queries[start : start + 1024]
            neighbours = tree.query_ball_point(points[block], self._radius_m)
            lengths = np.array([len(found) for found in neighbours])
            flat = np.concatenate([np.asarray(found, dtype=np.int64) for found in neighbours])
            own = np.repeat(labels[block], lengths)
            equal = (labels[flat] == own) & (own > 0)  # cosine of one-hot features
            total += float((np.add.reduceat(equal, np.cumsum(lengths) - lengths, dtype=np.int64) / lengths).sum())
        return total / count


def one_hot(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """(N, D) one-hot features of (N,) ids; unlabelled (0) is a row of zeros."""
    ids, column = np.unique(labels, return_inverse=True)
    features = np.eye(len(ids))[column.ravel()]
    features[labels == 0] = 0
    return features


def _unit_rows(features: npt.NDArray[np.floating], points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    if features.ndim != 2 or points.shape != (len(features), 3) or not len(points):
        raise InputError(f"expected features (N, D) and points (N, 3), N > 0, got {features.shape} and {points.shape}")
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1), dtype=np.float64)


def degenerate(largest_share: float) -> bool:
    """True for an answer that consistency cannot judge: (nearly) everything under one id scores H = 1.

    largest_share: mean share of the picture under its largest id.
    """
    return largest_share > DEGENERATE_SHARE


def mean_percent(shares: Sequence[float]) -> float:
    """Mean of the pairs' shares that are not NaN, in percent; NaN if there are none."""
    finite = [share for share in shares if np.isfinite(share)]
    return 100 * float(np.mean(finite)) if finite else float("nan")
