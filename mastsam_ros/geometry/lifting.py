"""Step 8 of the method: a label image and a depth image give a cloud whose points know their instance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.cameras import points_at
from mastsam_ros.settings import GeometrySettings
from mastsam_ros.types import Frame, LabelledCloud


def lift(frame: Frame, labels: npt.NDArray[np.uint16], settings: GeometrySettings) -> LabelledCloud | None:
    """The labelled cloud of one frame, in its camera's optical frame; None without depth or K.

    labels: (H, W) uint16 at the frame's size. Pixels without depth, beyond `max_depth_m`, or on a depth
    edge are left out. Confidence falls with the square of depth, as the noise of depth cameras grows.
    """
    if frame.depth is None or frame.K is None:
        return None
    depth, stride = frame.depth, settings.points_stride
    keep = (depth > 0) & (depth <= settings.max_depth_m) & ~depth_edges(depth, settings.edge_ratio)
    sampled = np.zeros_like(keep)
    sampled[::stride, ::stride] = True
    rows, columns = np.nonzero(keep & sampled)
    xyz = points_at(depth, frame.K, rows, columns)
    return LabelledCloud(
        xyz=xyz,
        rgb=frame.image[rows, columns],
        instance=labels[rows, columns].astype(np.uint32),
        confidence=(1.0 / (1.0 + (xyz[:, 2] / 4.0) ** 2)).astype(np.float32),
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


def depth_edges(depth: npt.NDArray[np.float32], ratio: float) -> npt.NDArray[np.bool_]:
    """(H, W) bool: pixels whose depth (H, W) differs from a neighbour's by more than this share; 0 = no depth."""
    edges = np.zeros(depth.shape, dtype=bool)
    for axis in (0, 1):
        near = np.swapaxes(depth, 0, axis)[:-1]
        far = np.swapaxes(depth, 0, axis)[1:]
        nearer = np.minimum(near, far)
        jump = (np.abs(near - far) > ratio * nearer) & (nearer > 0)
        flat = np.swapaxes(edges, 0, axis)
        flat[:-1] |= jump
        flat[1:] |= jump
    return edges
