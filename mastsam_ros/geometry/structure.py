"""Pose and depth of frames that come without depth: what pictures and K tell, up to one scale for all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.flow_depth import GRID, FlowDepth, InverseDepth
from mastsam_ros.geometry.motion_stereo import MotionStereo
from mastsam_ros.geometry.odometry import FORWARD_LEFT_UP
from mastsam_ros.geometry.visual_odometry import FIRST_DISTANCE, VisualOdometry
from mastsam_ros.settings import GeometrySettings
from mastsam_ros.types import Frame, Matches, PoseState

_SPREAD = 2.5
"""Where the pose is given, things are looked for between the usual distance divided and multiplied by this."""
_USUAL_FOCAL = 1.0
"""Focal length that is assumed where none is known, as a share of the longer side of the picture."""


@dataclass(frozen=True, eq=False)
class LocatedView:
    """A view in space: its K (3, 3), T_world_camera (4, 4), and a typical distance of what it shows, in the same unit.

    world: views with different ones have nothing to do with each other.
    """

    view: Frame
    K: npt.NDArray[np.float64]
    T_world_camera: npt.NDArray[np.float64]
    distance: float
    world: int


class Structure:
    """Structure from the motion of one camera, where a frame has no depth and the matcher gives no pointmap.

    With poses from outside it is metric. Where a frame has no K either, a usual focal length is assumed: what comes of
    it is bent, but views agree on it nearly as well as on the truth, so that `placed` serves to find places again;
    nothing else is told.
    """

    def __init__(self, settings: GeometrySettings) -> None:
        self.settings = settings
        self._odometry = VisualOdometry(FORWARD_LEFT_UP)
        self._flow_depth = FlowDepth()
        self._stereo = MotionStereo()
        self._world = 0
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._odometry.reset()
        self._flow_depth.reset()
        self._stereo.reset()
        self._follows = self._assumed = False
        self._unit = PoseState.UNKNOWN
        self._world += 1
        self._distance, self._range = FIRST_DISTANCE, (FIRST_DISTANCE, FIRST_DISTANCE)
        self._matches: Matches | None = None
        self._due = False
        self.pose = PoseState.UNKNOWN
        """Where the pose of the current view comes from."""
        self.T_world_camera: npt.NDArray[np.float64] | None = None
        """(4, 4) pose of the current view, None where it is not known."""
        self.depth: InverseDepth | None = None
        """Of the current view, once `measure` was called; None where it is not known."""
        self.placed: LocatedView | None = None
        """The current view where its pose is known, or would be if K were as assumed..."""
        self.placed_depth: InverseDepth | None = None
        """... and its depth, once `measure` was called."""

    @property
    def metric(self) -> bool:
        """Whether lengths are metres."""
        return self.pose is PoseState.GIVEN

    def interrupt(self) -> None:
        """The next frame's matches do not come from the last one."""
        self._odometry.interrupt()
        self._follows = self._due = False

    def locate(self, view: Frame, matches: Matches | None) -> None:
        """Finds the pose of the next frame. matches: from the frame before."""
        self.T_world_camera, self.depth, self.pose = None, None, PoseState.UNKNOWN
        self.placed, self.placed_depth, self._due = None, None, False
        known = matches is not None and matches.pointmap1 is not None
        if view.depth is not None or known or not self.settings.structure:
            self.interrupt()
            return
        if (view.K is None) != self._assumed:
            self.reset()
            self._assumed = self._odometry.silent = view.K is None
        K = view.K if view.K is not None else _usual_intrinsics(view)
        T, pose = self._located(replace(view, K=K), matches)
        follows, self._follows = self._follows, T is not None
        if T is not None:
            self.placed = LocatedView(view, K, T, self._distance, self._world)
            self._matches, self._due = matches if follows else None, True
        if not self._assumed:
            self.T_world_camera, self.pose = T, pose

    def measure(self) -> None:
        """Measures the depth of the frame that was located last; nothing but `lift` and later frames needs it."""
        if self.placed is None or not self._due:
            return
        self._due = False
        self.placed_depth = self._measured(self.placed, self._matches)
        if not self._assumed:
            self.depth = self.placed_depth

    def _located(self, view: Frame, matches: Matches | None) -> tuple[npt.NDArray[np.float64] | None, PoseState]:
        """The pose of a view with K, and where it comes from; the range of distances of what is seen is kept."""
        if view.T_world_camera is not None and not self._assumed:
            self._odometry.interrupt()
            distance = self._flow_depth.distance or FIRST_DISTANCE
            self._distance, self._range = distance, (distance / _SPREAD, distance * _SPREAD)
            T, pose = view.T_world_camera, PoseState.GIVEN
        else:
            T, pose = self._odometry.track(view, matches), PoseState.UP_TO_SCALE
            if T is None:
                if not self._odometry.started:
                    self._leave()  # the next world has another scale
                return None, PoseState.LOST if self._odometry.lost else PoseState.UNKNOWN
            self._distance, self._range = self._odometry.distance, self._odometry.range()
        if pose is not self._unit:
            self._leave()
        self._unit = pose
        return T, pose

    def _leave(self) -> None:
        """What was seen is of another world."""
        self._stereo.reset()
        self._world += 1

    def _measured(self, placed: LocatedView, matches: Matches | None) -> InverseDepth | None:
        """matches: from the view before, None where that has no pose."""
        view, K, T = placed.view, placed.K, placed.T_world_camera
        back, visible = None, None
        if matches is not None and matches.flow_back is not None:
            back = matches.flow_back.cpu().numpy()
            visible = None if matches.visible is None else matches.visible.cpu().numpy()
        # Halved, as FlowDepth's grid is: every pixel stays where it was.
        grey = np.asarray(cv2.pyrDown(cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY)), np.uint8)
        stereo = self._stereo.update(grey, np.diag([1 / GRID, 1 / GRID, 1]) @ K, T, *self._range)
        return self._flow_depth.update(K, T, self._distance, back, visible, (view.height, view.width), stereo)


def _usual_intrinsics(view: Frame) -> npt.NDArray[np.float64]:
    focal = _USUAL_FOCAL * max(view.width, view.height)
    return np.array([[focal, 0, (view.width - 1) / 2], [0, focal, (view.height - 1) / 2], [0, 0, 1]])
