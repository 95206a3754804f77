"""Planes and free-standing objects in one depth image: the embedded default's evidence from geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.segmenters.regions.depth.connected import Bools, Floats, Ints
from mastsam_ros.segmenters.regions.depth.objects import free_standing, give_back
from mastsam_ros.segmenters.regions.depth.outlines import fill
from mastsam_ros.segmenters.regions.depth.planes import PlaneFinder, Planes, same_thing
from mastsam_ros.segmenters.regions.depth.surface import Surface, measured_surface
from mastsam_ros.settings import RegionsSettings


@dataclass(frozen=True, eq=False)
class DepthSegments:
    """What the depth of one frame shows.

    labels: (H, W) int32, 0 = none, 1..n; planes come first. is_plane: (n + 1,) bool, True for floor,
    walls, table tops. planes: (n + 1, 4) float32, unit normal towards the camera and offset in metres
    (n . X + offset = 0, offset = distance of the camera) of a segment's largest plane; zeros for objects.
    plane_ids: (n + 1,) int32, a number that stays with a plane from frame to frame; 0 for objects.
    noise: standard deviation of the inverse depth, 1/m; the depth's own is noise * z^2.
    """

    labels: Ints
    is_plane: Bools
    planes: Floats
    plane_ids: Ints
    noise: float

    @property
    def count(self) -> int:
        """Number of segments n."""
        return len(self.is_plane) - 1


class DepthLayer:
    """Segments depth images one by one; planes found in one frame are looked for first in the next."""

    def __init__(self, settings: RegionsSettings) -> None:
        self.settings = settings
        self._planes = PlaneFinder(settings.surface_tolerance_m, settings.plane_area_m2)

    def reset(self) -> None:
        """Forgets the planes of the previous frame."""
        self._planes.reset()

    def update(
        self,
        depth: Floats,
        K: npt.NDArray[np.float64],
        lab: Floats | None = None,
        T_previous_current: npt.NDArray[np.float64] | None = None,
    ) -> DepthSegments:
        """Planes and objects of one frame.

        depth: (H, W) metres; 0, NaN and infinity mean none. K: (3, 3) at that size. lab: (H, W, 3) CIE Lab
        of the picture, which then decides outlines where depth is missing or noisy. T_previous_current:
        (4, 4), maps points of this camera to the previous one, if known; it carries the planes over.
        """
        surface = measured_surface(depth, K)
        if surface is None:
            self._planes.lose_sight()
            nothing = np.zeros(depth.shape, np.int32)
            return DepthSegments(nothing, np.zeros(1, bool), np.zeros((1, 4), np.float32), np.zeros(1, np.int32), 0.0)
        planes = self._planes.update(surface, T_previous_current)
        objects = free_standing(surface, planes, self.settings.crease_angle_deg, lab)
        give_back(surface, planes, objects)
        return _joined_up(surface, planes, objects, lab)


def _joined_up(surface: Surface, planes: Planes, objects: Ints, lab: Floats | None) -> DepthSegments:
    """One label image of planes and objects, its holes filled, and the table that belongs to it."""
    number, group = len(planes.equations), same_thing(surface, planes)
    area = np.bincount(planes.on_plane.ravel(), minlength=number + 1)[1:]
    leaders = [members[np.argmax(area[members])] for members in (np.flatnonzero(group == g) for g in np.unique(group))]
    lookup = np.zeros(number + 1, np.int32)
    for label, leader in enumerate(leaders, 1):
        lookup[1:][group == group[leader]] = label
    lookup = np.append(lookup, np.arange(1, int(objects.max()) + 1, dtype=np.int32) + np.int32(len(leaders)))
    labels = np.take(lookup, np.where(objects > 0, objects + number, planes.on_plane))
    labels = fill(labels, surface, lab)
    count = len(leaders) + int(objects.max())
    kept = np.bincount(labels.ravel(), minlength=count + 1) > 0
    kept[0] = True
    labels = np.take(np.cumsum(kept, dtype=np.int32) - 1, labels)
    is_plane = np.zeros(count + 1, bool)
    equations = np.zeros((count + 1, 4), np.float32)
    plane_ids = np.zeros(count + 1, np.int32)
    for label, leader in enumerate(leaders, 1):
        size = float(np.linalg.norm(planes.equations[leader]))
        is_plane[label] = True
        equations[label] = np.r_[-planes.equations[leader], 1.0] / size
        plane_ids[label] = planes.ids[leader]
    return DepthSegments(labels, is_plane[kept], equations[kept], plane_ids[kept], surface.noise)
