"""A view with its place in the map of instances."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.cameras import points_at
from mastsam_ros.geometry.depth_noise import smoothed_depth
from mastsam_ros.geometry.instance_map import InstanceMap
from mastsam_ros.geometry.lifting import depth_edges
from mastsam_ros.geometry.map_rendering import rendered
from mastsam_ros.geometry.presence import Presence
from mastsam_ros.types import Frame, InputError

STRIDE = 2
"""Every so many pixels, in x and y, are looked up and entered."""
FEWEST = 12
"""Pixels with a voxel that tell something."""


class PlacedView:
    """A view whose pose is known: its sampled pixels as points of the world, and the voxels that they fall in."""

    def __init__(self, view: Frame, T: npt.NDArray[np.float64], number: int, map: InstanceMap) -> None:
        if view.depth is None or view.K is None:
            raise InputError("a view without depth or K has no place in the map")
        self.view, self.T, self.K, self.number = view, T, view.K, number
        self.depth = smoothed_depth(view.depth)
        sampled = self.depth[::STRIDE, ::STRIDE]
        measured = (sampled > 0) & (sampled <= map.settings.map_radius_m)
        self.rows, self.columns = (STRIDE * place for place in np.nonzero(measured))
        R, t = T[:3, :3].astype(np.float32), T[:3, 3].astype(np.float32)
        ray: npt.NDArray[np.float32] = points_at(self.depth, view.K, self.rows, self.columns) @ R.T
        self.points: npt.NDArray[np.float32] = ray + t
        self.rgb = view.image[self.rows, self.columns]
        self.sure = ~depth_edges(view.depth, map.settings.edge_ratio, STRIDE)[measured]
        self.voxel = map.look_up(self.points, ray / np.sqrt(np.einsum("nc,nc->n", ray, ray))[:, None])
        self.keys = map.keys(self.points, self.voxel)
        self._everywhere: tuple[npt.NDArray[np.int64], ...] | None = None
        self.presence: dict[int, Presence | None] = {}
        """Of the ids that were asked for since the map's own ids last changed; None for one that has no voxels."""

    @functools.cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """(N,): its points by rising keys."""
        return np.argsort(self.keys, kind="stable")

    def everywhere(self, map: InstanceMap) -> tuple[npt.NDArray[np.int64], ...]:
        """Rows, columns and voxels (-1: none) of sampled pixels; where no depth was measured, what the map shows."""
        if self._everywhere is None:
            blind = np.stack(np.nonzero(self.depth[::STRIDE, ::STRIDE] == 0))
            found = np.full(blind.shape[1], -1, np.int64)
            if len(found) >= FEWEST and len(map):
                size = map.settings.map_voxel_m
                found = rendered(map.voxels.xyz, self.T, self.K, self.depth.shape, STRIDE, size)[blind[0], blind[1]]
            rows, columns = STRIDE * blind[:, found >= 0]
            self._everywhere = (
                np.concatenate([self.rows, rows]),
                np.concatenate([self.columns, columns]),
                np.concatenate([self.voxel, found[found >= 0]]),
            )
        return self._everywhere
