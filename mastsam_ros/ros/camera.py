"""One camera of the node: it receives in the executor's thread, and processes in the worker's."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PointStamped
from rclpy.node import Node
from std_msgs.msg import Header

from mastsam_ros.io.camera_info import intrinsics_of
from mastsam_ros.pipeline import Mastsam
from mastsam_ros.ros.conversions import Input, frame_of
from mastsam_ros.ros.diagnostics import Statistics, status_message
from mastsam_ros.ros.inputs import Inputs
from mastsam_ros.ros.log import Complaints
from mastsam_ros.ros.outputs import Outputs
from mastsam_ros.ros.poses import Poses
from mastsam_ros.settings import Settings
from mastsam_ros.types import (
    EditError,
    EventKind,
    Frame,
    FrameResult,
    InputError,
    MastsamError,
    OutputError,
    PoseState,
)

_SAME_LENS = 1e-3
"""Relative difference up to which intrinsics are the same."""


class Camera:
    """Its topics, its counts, its faults. `process` alone runs in the worker's thread, with this camera's pipeline.

    name: one of several cameras', or empty. settings: gives those that hold now. poses: the node's tree of frames.
    """

    def __init__(self, node: Node, name: str, settings: Callable[[], Settings], poses: Poses) -> None:
        self._node, self.name, self._settings, self._poses = node, name, settings, poses
        self.prefix = f"~/{name}/" if name else "~/"
        """What the names of its topics and services begin with."""
        self._logger = node.get_logger().get_child(name) if name else node.get_logger()
        self._complaints = Complaints(self._logger)
        self._watch = Complaints(self._logger, interval_s=30.0)
        self.enabled = True
        """Off: images are skipped."""
        self.statistics = Statistics()
        self.inputs: Inputs | None = None
        """The subscriptions, while there are any."""
        self._map_frame = settings().node.map_frame_of(name)
        shares = settings().node.one_world
        self.keeps_map = not shares or name == settings().node.camera_names[0]
        """False where another camera loads, publishes and saves the map that this one shares."""
        map_prefix = "~/" if shares else self.prefix
        shown = map_prefix if self.keeps_map else None
        self.outputs = Outputs(node, self.prefix, shown, self._map_frame, self._complaints)
        self._begin()

    def _begin(self) -> None:
        self._fault = self._misplaced = self._uncalibrated = ""
        self._pose = PoseState.UNKNOWN
        self._last_stamp_ns: int | None = None
        self._picture: tuple[str, int, int, npt.NDArray[np.float64] | None] | None = None

    # In the executor's thread

    @property
    def topic(self) -> str:
        """The image topic's full name, or '' while nothing is subscribed."""
        return self.inputs.image_topic if self.inputs is not None else ""

    def subscribe(self, deliver: Callable[[Input], None]) -> None:
        """Has images received. Raises SettingsError for a topic name that is none."""
        settings = self._settings().node.for_camera(self.name)
        self.inputs = Inputs(self._node, settings, self.statistics, self._complaints, deliver)

    def unsubscribe(self) -> None:
        """Nothing is received from now on."""
        if self.inputs is not None:
            self.inputs.close()
        self.inputs = None

    def configure(self, settings: Settings) -> None:
        """Takes over what can change while images come."""
        if self.inputs is not None:
            self.inputs.configure(settings.node.for_camera(self.name))

    def enable(self, enabled: bool) -> None:
        """Has images processed, or skipped."""
        self.enabled = enabled

    def status(self, state: str, chosen: dict[str, str]) -> DiagnosticStatus:
        """This camera's part of /diagnostics. state: the node's. chosen: the models and where they run."""
        problem = self.inputs.problem() if self.inputs is not None and self.enabled else ""
        if self.inputs is not None and not self.enabled:
            state = "off"
        if problem:
            self._watch.warn(_without_numbers(problem), problem)
        quality = self.statistics.quality()
        doubt = quality.problem(self._settings().node) if quality is not None else ""
        if doubt:
            self._watch.warn("quality", doubt)
        name = f"{self._node.get_fully_qualified_name().lstrip('/')}: {self.name or 'tracking'}"
        values = {**chosen, "pose": self._pose.value, **self._map_shared_with()}
        values.update(quality.values() if quality is not None else {})
        problem = self._fault or problem or self._misplaced or self._uncalibrated or doubt
        return status_message(name, self.statistics, state, problem, values)

    def _map_shared_with(self) -> dict[str, str]:
        """Of one of several cameras: whose map it is."""
        settings = self._settings().node
        if settings.one_world:
            return {"map": "one for all cameras"}
        if not self.name:
            return {}
        why = "node.share_map is off" if settings.pose_topic else "without node.pose_topic nobody says where they stand"
        return {"map": f"its own, and ids of its own for what other cameras see: {why}"}

    @property
    def map_is_due(self) -> bool:
        """True if somebody waits for the map."""
        return self.outputs.map_is_due(self._settings().node.map_interval_s)

    # In the worker's thread

    def prepare(self, mastsam: Mastsam) -> None:
        """Before the first frame: nothing is left of the pipeline before this one; where the world comes from, and the
        map of an earlier run. Raises InputError."""
        self._begin()
        if self._poses.given:
            mastsam.expect_poses()
        path = self._settings().node.map_path(self.name)
        mastsam.lasting_map = path is not None
        if path is not None and self.keeps_map:
            loaded = mastsam.load_map(path)
            count = len(mastsam.world_map().instances)
            self._logger.info(f"map loaded from {path}: {count} instances" if loaded else f"no map at {path} yet")
            # Now, not after an hour of mapping.
            if not _may_be_made(path.parent):
                self._logger.warning(f"the map cannot be saved: nothing can be written to {path.parent}")

    def save_map(self, mastsam: Mastsam) -> str:
        """Writes the map to its file; says what was written. Raises MastsamError where that is not possible."""
        path = self._settings().node.map_path(self.name)
        if path is None:
            raise OutputError("nowhere to save the map: start the node with node.map_file")
        mastsam.save_map(path)
        return f"map saved to {path}: {len(mastsam.world_map().instances)} instances"

    def click(self, mastsam: Mastsam, message: PointStamped) -> str:
        """Adds what a point of the world shows; says which instance it is. Raises MastsamError where it cannot."""
        if self._picture is None:
            raise EditError("there is no picture yet: wait for the first frame")
        frame_id, width, height, K = self._picture
        if K is None:
            raise EditError("without intrinsics a point has no place in the picture: publish camera_info")
        point = np.array([message.point.x, message.point.y, message.point.z, 1.0])
        clicked_in = message.header.frame_id.lstrip("/")
        if clicked_in == self._map_frame and mastsam.map.T_world_camera is not None:
            point = np.linalg.inv(mastsam.map.T_world_camera) @ point
        elif clicked_in != frame_id.lstrip("/"):
            point = self._poses.between(frame_id, clicked_in, self._last_stamp_ns or 0) @ point
        if not np.isfinite(point).all() or point[2] <= 0:
            raise EditError(f"the point {np.round(point[:3], 3).tolist()} is not before the camera")
        x, y = (K @ point[:3])[:2] / point[2]
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise EditError(f"the point falls on ({x:.0f}, {y:.0f}), outside the picture of {width}x{height}")
        return f"instance {mastsam.add_instance([(x, y)])} at ({x:.0f}, {y:.0f})"

    def publish_map(self, mastsam: Mastsam) -> None:
        """The map as it is now, with the stamp of the last frame that was entered."""
        world = mastsam.world_map()
        entered_ns = max((instance.last_seen_ns for instance in world.instances), default=0)
        self.outputs.publish_map(world, entered_ns or self._last_stamp_ns or self._node.get_clock().now().nanoseconds)

    def process(self, mastsam: Mastsam, messages: Input) -> None:
        """One frame from its messages to what is published; faults are told and cost this frame."""
        start = time.perf_counter()
        try:
            frame = frame_of(messages, self._intrinsics, self._place)
        except InputError as error:
            self._fail("input", f"image dropped: {error}")
            return
        self._notice_time(mastsam, frame.stamp_ns)
        self._notice_lens(frame)
        self._picture = (frame.frame_id, frame.width, frame.height, frame.K)
        converted = time.perf_counter()
        result = self._step(mastsam, frame)
        if result is None:
            return
        if self.inputs is None:  # deactivated meanwhile
            self.statistics.add(skipped=1)
            return
        stepped = time.perf_counter()
        try:
            self.outputs.publish(result, frame.image, messages.image.header)
            self._tell_place(result, messages.image.header.stamp)
            if self.map_is_due:
                self.publish_map(mastsam)
        except Exception as error:  # noqa: BLE001 - no fault in one result must take the robot's node down
            if self._node.context.ok():  # else it was shut down between two messages
                self._fail("publish", f"result not published: {type(error).__name__}: {error} ({place_of(error)})")
            return
        self._tell(result)
        self._fault = ""
        self.statistics.processed(
            {
                "convert": (converted - start) * 1e3,
                **result.timings_ms,
                "publish": (time.perf_counter() - stepped) * 1e3,
                "latency": (time.monotonic_ns() - messages.arrived_ns) / 1e6,
            },
            result.check,
        )

    def _place(self, frame_id: str, stamp_ns: int) -> npt.NDArray[np.float64] | None:
        """The pose from outside, or None: that it is missing has been said."""
        if not self._poses.given:
            return None
        try:
            T = self._poses.at(frame_id, stamp_ns)
        except InputError as error:
            self._misplaced = f"no pose from outside: {error}"
            self._complaints.warn(_without_numbers(self._misplaced), self._misplaced)
            return None
        self._misplaced = ""
        return T

    def _tell_place(self, result: FrameResult, stamp: Time) -> None:
        self._pose = result.pose
        if not self._poses.given:
            lost = result.pose is PoseState.LOST
            self._misplaced = "the camera's pose is lost: the map pauses until a known view comes back" if lost else ""
        if result.T_world_camera is not None and result.pose is not PoseState.UP_TO_SCALE:
            try:
                header = Header(stamp=stamp, frame_id=self._map_frame)
                self._poses.tell(result.T_world_camera, header, result.frame_id)
            except InputError as error:
                self._misplaced = f"no transform to /tf: {error}"
                self._complaints.warn("tf", self._misplaced)

    def _intrinsics(self, width: int, height: int) -> npt.NDArray[np.float64] | None:
        inputs, settings = self.inputs, self._settings().node
        if inputs is None or inputs.camera_info is None:
            return None
        try:
            K = intrinsics_of(inputs.camera_info, width, height, settings.rectified)
        except InputError as error:
            if settings.depth_topic:
                self._uncalibrated = str(error)
                self._complaints.warn(_without_numbers(self._uncalibrated), self._uncalibrated)
            return None
        self._uncalibrated = ""
        return K

    def _step(self, mastsam: Mastsam, frame: Frame) -> FrameResult | None:
        """The result, or None: what went wrong has been said, and the pipeline goes on with the next frame."""
        try:
            return mastsam.step(frame)
        except (torch.cuda.OutOfMemoryError, MemoryError):
            self._fail("memory", "frame dropped: out of memory; set frame.working_pixels lower or device:=cpu")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        except MastsamError as error:
            self._fail("step", f"frame dropped: {error}")
        except Exception as error:  # a fault in a backend must not take the robot's node down
            logging.getLogger(__name__).debug("step failed", exc_info=True)
            self._fail("fault", f"frame dropped: {type(error).__name__}: {error} ({place_of(error)})")
        return None

    def _notice_time(self, mastsam: Mastsam, stamp_ns: int) -> None:
        if self._last_stamp_ns is not None and stamp_ns < self._last_stamp_ns:
            mastsam.reset(f"stamps jumped back by {(self._last_stamp_ns - stamp_ns) / 1e9:.3f} s")
            self._poses.clear()
        self._last_stamp_ns = stamp_ns

    def _notice_lens(self, frame: Frame) -> None:
        """Says that the picture that comes is of the same size, but through another lens than the last one."""
        if self._picture is None:
            return
        frame_id, width, height, before = self._picture
        same = (frame.frame_id, frame.width, frame.height) == (frame_id, width, height)
        if before is None or frame.K is None or not same or np.allclose(frame.K, before, rtol=_SAME_LENS):
            return
        focal = f"focal length {before[0, 0]:.1f} -> {frame.K[0, 0]:.1f}"
        centre = f"centre {before[0, 2]:.1f}, {before[1, 2]:.1f} -> {frame.K[0, 2]:.1f}, {frame.K[1, 2]:.1f} pixels"
        cure = f"if the map does not fit any more, call {self.prefix}reset"
        self._complaints.warn("lens", f"camera_info has changed: {focal}, {centre}; {cure}")

    def _tell(self, result: FrameResult) -> None:
        for event in result.events:
            if event.kind is EventKind.RESET:
                # Without the numbers in it: each kind of reason is told at once.
                self._complaints.info(_without_numbers(event.reason), f"tracks start anew: {event.reason}")
        if result.points is not None and not result.points.metric:
            self._watch.warn("metric", "points are not metric: their scale is unknown and may change")

    def _fail(self, kind: str, text: str) -> None:
        self.statistics.add(failed=1)
        self._fault = text
        self._complaints.error(kind, text)


def _without_numbers(text: str) -> str:
    """A text without its numbers, which differ from time to time."""
    return "".join(sign for sign in text if not sign.isdigit())


def _may_be_made(folder: Path) -> bool:
    """True if something can be written into a folder that may not be there yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def place_of(error: BaseException) -> str:
    """File and line where an unexpected error came up."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace is not None else ""
