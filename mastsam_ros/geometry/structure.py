"""Pose and depth of frames that come without depth: what pictures and K tell, up to one scale for all of it."""

from __future__ import annotations

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


class Structure:
    """Structure from the motion of one camera, where a frame has K and no depth and the matcher gives no pointmap.

    With poses from outside it is metric.
    """

    def __init__(self, settings: GeometrySettings) -> None:
        self.settings = settings
        self._odometry = VisualOdometry(FORWARD_LEFT_UP)
        self._flow_depth = FlowDepth()
        self._stereo = MotionStereo()
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._odometry.reset()
        self._flow_depth.reset()
        self._stereo.reset()
        self._follows = False
        self._unit = PoseState.UNKNOWN
        self.pose = PoseState.UNKNOWN
        """Where the pose of the current view comes from."""
        self.T_world_camera: npt.NDArray[np.float64] | None = None
        """(4, 4) pose of the current view, None where it is not known."""
        self.depth: InverseDepth | None = None
        """Of the current view; None where it is not known."""

    @property
    def metric(self) -> bool:
        """Whether lengths are metres."""
        return self.pose is PoseState.GIVEN

    def interrupt(self) -> None:
        """The next frame's matches do not come from the last one."""
        self._odometry.interrupt()
        self._follows = False

    def locate(self, view: Frame, matches: Matches | None) -> None:
        """Finds pose and depth of the next frame. matches: from the frame before."""
        self.T_world_camera, self.depth, self.pose = None, None, PoseState.UNKNOWN
        follows, self._follows = self._follows, False
        known = matches is not None and matches.pointmap1 is not None
        if view.K is None or view.depth is not None or known or not self.settings.structure:
            self._odometry.interrupt()
            return
        if view.T_world_camera is not None:
            self._odometry.interrupt()
            T, distance, self.pose = view.T_world_camera, self._flow_depth.distance or FIRST_DISTANCE, PoseState.GIVEN
            near, far = distance / _SPREAD, distance * _SPREAD
        else:
            T, distance = self._odometry.track(view, matches), self._odometry.distance
            if T is None:
                self.pose = PoseState.LOST if self._odometry.lost else PoseState.UNKNOWN
                if not self._odometry.started:
                    self._stereo.reset()  # the next world has another scale
                return
            self.pose = PoseState.UP_TO_SCALE
            near, far = self._odometry.range()
        if self.pose is not self._unit:
            self._stereo.reset()  # views of another world
        self._unit = self.pose
        back, visible = None, None
        if follows and matches is not None and matches.flow_back is not None:
            back = matches.flow_back.cpu().numpy()
            visible = None if matches.visible is None else matches.visible.cpu().numpy()
        self.T_world_camera, self._follows = T, True
        # Halved, as FlowDepth's grid is: every pixel stays where it was.
        grey = np.asarray(cv2.pyrDown(cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY)), np.uint8)
        stereo = self._stereo.update(grey, np.diag([1 / GRID, 1 / GRID, 1]) @ view.K, T, near, far)
        size = (view.height, view.width)
        self.depth = self._flow_depth.update(view.K, T, distance, back, visible, size, stereo)
