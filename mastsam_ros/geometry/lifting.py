"""Step 8 of the method: a label image and a depth image give a cloud whose points know their instance."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.cameras import points_at
from mastsam_ros.geometry.flow_depth import InverseDepth
from mastsam_ros.settings import GeometrySettings
from mastsam_ros.types import Frame, LabelledCloud

_UNSURE, _HALF_SURE = 0.1, 0.03
"""Standard deviation of depth from motion, as a share of it, from which on there is no point; and half confidence."""
_LEAST_INVERSE = 1e-6


def lift(frame: Frame, labels: npt.NDArray[np.uint16], settings: GeometrySettings) -> LabelledCloud | None:
    """The labelled cloud of one frame, in its camera's optical frame; None without depth or K.

    labels: (H, W) uint16 at the frame's size. Pixels without depth, beyond `max_depth_m`, or on a depth
    edge are left out. Confidence falls with the square of depth, as the noise of depth cameras grows.
    """
    if frame.depth is None or frame.K is None:
        return None
    depth, stride = frame.depth, settings.points_stride
    sampled = depth[::stride, ::stride]
    keep = (sampled > 0) & (sampled <= settings.max_depth_m) & ~depth_edges(depth, settings.edge_ratio, stride)
    rows, columns = (stride * place for place in np.nonzero(keep))
    xyz = points_at(depth, frame.K, rows, columns)
    return LabelledCloud(
        xyz=xyz,
        rgb=frame.image[rows, columns],
        instance=labels[rows, columns].astype(np.uint32),
        confidence=(1.0 / (1.0 + (xyz[:, 2] / 4.0) ** 2)).astype(np.float32),
    )


def lift_structure(
    view: Frame, labels: npt.NDArray[np.uint16], structure: InverseDepth, metric: bool, settings: GeometrySettings
) -> LabelledCloud:
    """The labelled cloud of a frame whose depth was found from motion, in its camera's optical frame.

    labels: (H, W) uint16 at any size. One point per pixel of `structure`, fewer where `points_stride` is coarser.
    Places that were not measured, and edges, are left out; beyond `max_depth_m` too, where lengths are metric.
    Confidence is 1 for what is exact and 0.5 for a standard deviation of `_HALF_SURE` of the distance.
    """
    height, width = structure.w.shape
    step = max(1, round(settings.points_stride * width / labels.shape[1]))
    depth = np.asarray(1 / np.maximum(structure.w, _LEAST_INVERSE), np.float32)
    share = (structure.sigma / np.maximum(structure.w, _LEAST_INVERSE))[::step, ::step]
    keep = (share < _UNSURE) & ~depth_edges(depth, settings.edge_ratio, step)
    if metric:
        keep &= depth[::step, ::step] <= settings.max_depth_m
    rows, columns = (step * place for place in np.nonzero(keep))
    small = cv2.resize(view.image, (width, height), interpolation=cv2.INTER_AREA)
    ids = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return LabelledCloud(
        xyz=points_at(depth, structure.K, rows, columns),
        rgb=np.asarray(small, np.uint8)[rows, columns],
        instance=np.asarray(ids)[rows, columns].astype(np.uint32),
        confidence=(1 / (1 + (share[keep] / _HALF_SURE) ** 2)).astype(np.float32),
        metric=metric,
    )


def instance_extents(cloud: LabelledCloud) -> dict[int, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Per instance id: position (3,), the median of its points, and size (3,), from the 5th to the 95th percentile.

    Instances with fewer than 10 points are left out.
    """
    order = np.argsort(cloud.instance, kind="stable")
    ids, starts = np.unique(cloud.instance[order], return_index=True)
    groups = np.split(cloud.xyz[order].T.astype(np.float64), starts[1:], axis=1)
    extents = {}
    for instance, points in zip(ids.tolist(), groups, strict=bool(len(cloud))):  # nothing still splits into one group
        if instance and points.shape[1] >= 10:
            low, middle, high = _quantiles(np.sort(points, axis=1), (0.05, 0.5, 0.95))
            extents[instance] = (middle, high - low)
    return extents


def _quantiles(ordered: npt.NDArray[np.float64], shares: tuple[float, ...]) -> Iterator[npt.NDArray[np.float64]]:
    """Quantiles (3,) of ordered rows (3, N), as numpy's, which takes longer for the many small groups of a frame."""
    last = ordered.shape[1] - 1
    for share in shares:
        below = int(share * last)
        rest = share * last - below
        yield (1 - rest) * ordered[:, below] + rest * ordered[:, min(below + 1, last)]


def depth_edges(depth: npt.NDArray[np.float32], ratio: float, stride: int = 1) -> npt.NDArray[np.bool_]:
    """Of every `stride`-th pixel in x and y, whether its depth differs from a neighbour's by more than this share.

    depth: (H, W), 0 = no depth, which is no edge. Returns depth[::stride, ::stride]'s size.
    """
    height, width = depth.shape
    framed = np.zeros((height + 2, width + 2), depth.dtype)
    framed[1:-1, 1:-1] = depth
    here = depth[::stride, ::stride]
    edges = np.zeros(here.shape, dtype=bool)
    for row, column in ((0, 1), (2, 1), (1, 0), (1, 2)):
        near = framed[row : row + height : stride, column : column + width : stride]
        nearer = np.minimum(here, near)
        edges |= (np.abs(here - near) > ratio * nearer) & (nearer > 0)
    return edges
