"""Step 8 of the method: a label image and a depth image give a cloud whose points know their instance."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.geometry.cameras import points_at
from mastsam_ros.geometry.extents import group_extents
from mastsam_ros.geometry.flow_depth import InverseDepth
from mastsam_ros.settings import GeometrySettings
from mastsam_ros.types import Frame, LabelledCloud

_UNSURE, _HALF_SURE = 0.1, 0.03
"""Standard deviation of depth from motion, as a share of it, from which on there is no point; and half confidence."""
_LEAST_INVERSE = 1e-6


_DEPTH = "Array(float32, 2, 'C', readonly=True)"
"""Images that come with a message cannot be written."""


@compiled(f"bool_({_DEPTH}, int64, int64, float32)")
def _is_edge(depth: npt.NDArray[np.float32], v: int, u: int, ratio: np.float32) -> bool:
    """Whether a pixel's depth differs from that of one of its four neighbours by more than a share of it."""
    here = depth[v, u]
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        y, x = v + dy, u + dx
        if 0 <= y < depth.shape[0] and 0 <= x < depth.shape[1]:
            near = depth[y, x]
            if near > 0 and here > 0 and abs(here - near) > ratio * min(here, near):
                return True
    return False


def lift(frame: Frame, labels: npt.NDArray[np.uint16], settings: GeometrySettings) -> LabelledCloud | None:
    """The labelled cloud of one frame, in its camera's optical frame; None without depth or K.

    labels: (H, W) uint16 at the frame's size. Pixels without depth, beyond `max_depth_m`, or on a depth
    edge are left out. Confidence falls with the square of depth, as the noise of depth cameras grows.
    """
    if frame.depth is None or frame.K is None:
        return None
    xyz, rgb, instance, confidence = _points(
        np.ascontiguousarray(frame.depth),
        np.ascontiguousarray(frame.image),
        np.ascontiguousarray(labels),
        settings.points_stride,
        (float(frame.K[0, 0]), float(frame.K[1, 1]), float(frame.K[0, 2]), float(frame.K[1, 2])),
        settings.max_depth_m,
        settings.edge_ratio,
    )
    return LabelledCloud(xyz=xyz, rgb=rgb, instance=instance, confidence=confidence)


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
    of_each = group_extents(cloud.xyz, cloud.instance, fewest=10)
    return {instance: (middle, high - low) for instance, (low, middle, high) in of_each if instance}


def depth_edges(depth: npt.NDArray[np.float32], ratio: float, stride: int = 1) -> npt.NDArray[np.bool_]:
    """Of every `stride`-th pixel in x and y, whether its depth differs from a neighbour's by more than this share.

    depth: (H, W), 0 = no depth, which is no edge. Returns depth[::stride, ::stride]'s size.
    """
    return _edges(np.ascontiguousarray(depth, np.float32), ratio, stride)


@compiled(f"bool_[:, ::1]({_DEPTH}, float64, int64)")
def _edges(depth: npt.NDArray[np.float32], ratio: float, stride: int) -> npt.NDArray[np.bool_]:
    """As `depth_edges`."""
    height, width = depth.shape
    edges = np.zeros((-(-height // stride), -(-width // stride)), np.bool_)
    for row in range(edges.shape[0]):
        for column in range(edges.shape[1]):
            edges[row, column] = _is_edge(depth, row * stride, column * stride, np.float32(ratio))
    return edges


@compiled(
    f"Tuple((float32[:, ::1], uint8[:, ::1], uint32[::1], float32[::1]))({_DEPTH},"
    " Array(uint8, 3, 'C', readonly=True), Array(uint16, 2, 'C', readonly=True), int64, UniTuple(float64, 4), float64,"
    " float64)"
)
def _points(
    depth: npt.NDArray[np.float32],
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint16],
    stride: int,
    camera: tuple[float, float, float, float],
    farthest: float,
    ratio: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """What `lift` puts in a cloud. camera: fx, fy, cx, cy."""
    height, width = depth.shape
    most = (-(-height // stride)) * (-(-width // stride))
    xyz, rgb = np.empty((most, 3), np.float32), np.empty((most, 3), np.uint8)
    instance, confidence = np.empty(most, np.uint32), np.empty(most, np.float32)
    fx, fy = np.float32(camera[0]), np.float32(camera[1])
    cx, cy = np.float32(camera[2]), np.float32(camera[3])
    count = 0
    for v in range(0, height, stride):
        y = (np.float32(v) - cy) / fy
        for u in range(0, width, stride):
            z = depth[v, u]
            if not (z > 0 and z <= farthest) or _is_edge(depth, v, u, np.float32(ratio)):
                continue
            xyz[count, 0], xyz[count, 1], xyz[count, 2] = (np.float32(u) - cx) / fx * z, y * z, z
            for c in range(3):
                rgb[count, c] = image[v, u, c]
            instance[count] = labels[v, u]
            share = z / np.float32(4)
            confidence[count] = np.float32(1) / (np.float32(1) + share * share)
            count += 1
    return xyz[:count].copy(), rgb[:count].copy(), instance[:count].copy(), confidence[:count].copy()
