"""The node: an image comes, the worker steps on the latest one, and the result goes out with the image's stamp."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from mastsam_ros.io.camera_info import intrinsics_of
from mastsam_ros.matchers import create_matcher
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.ros.conversions import Input, frame_of
from mastsam_ros.ros.diagnostics import Statistics, status_message
from mastsam_ros.ros.inputs import Inputs
from mastsam_ros.ros.log import Complaints, RosLogHandler
from mastsam_ros.ros.outputs import Outputs
from mastsam_ros.ros.parameters import SettingsParameters
from mastsam_ros.ros.worker import ModelWorker
from mastsam_ros.segmenters import create_segmenter
from mastsam_ros.settings import Settings
from mastsam_ros.types import EventKind, Frame, FrameResult, InputError, MastsamError, ModelError

_STOP_TIMEOUT_S = 5.0


class MastsamNode(Node):
    """Camera topics in, consistent labels out. The executor's thread receives, the worker's thread owns the model.

    create: makes the pipeline from the settings.

    Raises SettingsError if it was started with an unknown parameter or a wrong value.
    """

    def __init__(self, create: Callable[[Settings], Mastsam] = create_mastsam) -> None:
        super().__init__("mastsam", automatically_declare_parameters_from_overrides=True)
        self._complaints = Complaints(self.get_logger())
        self._watch = Complaints(self.get_logger(), interval_s=30.0)
        self._log_handler = RosLogHandler(self.get_logger())
        logging.getLogger("mastsam_ros").addHandler(self._log_handler)
        self._tunable = SettingsParameters(self, self._change)
        self._statistics = Statistics()
        self._outputs = Outputs(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._inputs: Inputs | None = None
        self._create_pipeline = create
        self._state, self._fault = "loading", ""
        self._failure: Exception | None = None
        self._chosen: dict[str, str] = {}
        self._enabled = True
        self._last_stamp_ns: int | None = None
        self._worker: ModelWorker[Mastsam, Input] = ModelWorker(
            self._create_model, self._on_ready, self._on_failed, self._process
        )
        self._state_changed = self.create_guard_condition(self._on_state_changed)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/enable", self._on_enable)
        # On the steady clock: simulated time may stand still, and then this has to be said.
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._worker.start()

    def close(self) -> bool:
        """Stops the worker. False if it is still busy, with a model that takes long to load."""
        logging.getLogger("mastsam_ros").removeHandler(self._log_handler)
        return self._worker.stop(_STOP_TIMEOUT_S)

    # In the worker's thread

    def _create_model(self) -> Mastsam:
        mastsam = self._create_pipeline(self._tunable.settings)
        names = mastsam.settings
        self._chosen = {
            "matcher": names.matcher.name,
            "segmenter": names.segmenter.name,
            "device": str(mastsam.device),
        }
        warm_up(mastsam)
        return mastsam

    def _on_ready(self) -> None:
        self._state = "ready"
        self._state_changed.trigger()

    def _on_failed(self, error: Exception) -> None:
        known = isinstance(error, MastsamError)
        self._failure = error if known else ModelError(f"{type(error).__name__}: {error} ({_place(error)})")
        self._state_changed.trigger()

    def _process(self, mastsam: Mastsam, messages: Input) -> None:
        start = time.perf_counter()
        try:
            frame = frame_of(messages, self._camera)
        except InputError as error:
            self._fail("input", f"image dropped: {error}")
            return
        self._notice_time(mastsam, frame.stamp_ns)
        converted = time.perf_counter()
        result = self._step(mastsam, frame)
        if result is None:
            return
        stepped = time.perf_counter()
        try:
            self._outputs.publish(result, frame.image, messages.image.header)
        except Exception:
            if self.context.ok():
                raise
            return  # shut down between two messages
        self._tell_resets(result)
        if result.points is not None and not result.points.metric:
            self._watch.warn("metric", "points are not metric: their scale is unknown and may change")
        self._fault = ""
        self._statistics.processed(
            {
                "convert": (converted - start) * 1e3,
                **result.timings_ms,
                "publish": (time.perf_counter() - stepped) * 1e3,
                "latency": (time.monotonic_ns() - messages.arrived_ns) / 1e6,
            }
        )

    def _camera(self, width: int, height: int) -> npt.NDArray[np.float64] | None:
        info = self._inputs.camera_info if self._inputs is not None else None
        settings = self._tunable.settings.node
        if info is None:
            return None
        try:
            return intrinsics_of(info, width, height, settings.rectified)
        except InputError as error:
            if settings.depth_topic:
                self._complaints.warn("camera_info", str(error))
            return None

    def _step(self, mastsam: Mastsam, frame: Frame) -> FrameResult | None:
        """The result, or None: what went wrong has been said, and the tracks start anew."""
        try:
            return mastsam.step(frame)
        except (torch.cuda.OutOfMemoryError, MemoryError):
            self._fail("memory", "frame dropped: out of memory; set frame.working_pixels lower or device:=cpu")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            reason = "out of memory"
        except MastsamError as error:
            self._fail("step", f"frame dropped: {error}")
            reason = "a frame failed"
        except Exception as error:  # a fault in a backend must not take the robot's node down
            logging.getLogger(__name__).debug("step failed", exc_info=True)
            self._fail("fault", f"frame dropped: {type(error).__name__}: {error} ({_place(error)})")
            reason = "a frame failed"
        # A step that broke off may leave half a frame behind.
        mastsam.reset(reason)
        return None

    def _notice_time(self, mastsam: Mastsam, stamp_ns: int) -> None:
        if self._last_stamp_ns is not None and stamp_ns < self._last_stamp_ns:
            mastsam.reset(f"stamps jumped back by {(self._last_stamp_ns - stamp_ns) / 1e9:.3f} s")
        self._last_stamp_ns = stamp_ns

    def _tell_resets(self, result: FrameResult) -> None:
        for event in result.events:
            if event.kind is EventKind.RESET:
                self.get_logger().info(f"tracks start anew: {event.reason}")

    def _fail(self, kind: str, text: str) -> None:
        self._statistics.add(failed=1)
        self._fault = text
        self._complaints.error(kind, text)

    def _reconfigure(self, mastsam: Mastsam, settings: Settings) -> None:
        old = mastsam.settings
        # What was chosen at the start stays.
        kept = ("device", "matcher.name", "segmenter.name", "mast3r.checkpoint", "sam.checkpoint")
        settings = settings.updated({path: old.flat()[path] for path in kept})
        try:
            if _section(settings, settings.matcher.name) != _section(old, old.matcher.name):
                mastsam.matcher = create_matcher(settings)
            if _section(settings, settings.segmenter.name) != _section(old, old.segmenter.name):
                mastsam.segmenter = create_segmenter(settings)
        except MastsamError as error:
            self._complaints.error("settings", f"new settings not taken: {error}")
            return
        mastsam.configure(settings)

    # In the executor's thread

    def _on_state_changed(self) -> None:
        if self._failure is not None:
            raise self._failure
        settings = self._tunable.settings
        # Only now, so that whoever waits for this subscription knows that the node is ready.
        self._inputs = Inputs(self, settings.node, self._statistics, self._complaints, self._deliver)
        self.get_logger().info(
            f"ready: {', '.join(f'{part} {name}' for part, name in self._chosen.items())}; "
            f"waiting for images on {self._inputs.image_topic}"
        )

    def _deliver(self, messages: Input) -> None:
        if not self._enabled or self._worker.box.put(messages):
            self._statistics.add(skipped=1)

    def _change(self, settings: Settings) -> None:
        if self._inputs is not None:
            self._inputs.configure(settings.node)
        self._worker.request(lambda mastsam: self._reconfigure(mastsam, settings))

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._worker.request(lambda mastsam: mastsam.reset("asked for by ~/reset"))
        response.success, response.message = True, "tracks start anew with the next image"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = bool(request.data)
        response.success, response.message = True, "on" if self._enabled else "off: images are skipped"
        return response

    def _report(self) -> None:
        problem = self._inputs.problem() if self._inputs is not None and self._enabled else ""
        if problem:
            # Without the seconds in it: a new reason is told at once.
            self._watch.warn(re.sub(r"\d+", "", problem), problem)
        state = self._state if self._enabled else "off"
        name = f"{self.get_fully_qualified_name().lstrip('/')}: tracking"
        status = status_message(name, "", self._statistics, state, self._fault or problem, self._chosen)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def warm_up(mastsam: Mastsam) -> None:
    """Has the backends run once on two made-up images, so that the first real one is not the slow one."""
    rehearsal = Mastsam(mastsam.matcher, mastsam.segmenter, mastsam.settings)
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    rehearsal.step(Frame(image))
    rehearsal.step(Frame(np.roll(image, 2, axis=1)))


def _section(settings: Settings, name: str) -> object:
    """The settings of the backend of this name."""
    return getattr(settings, name, None)


def _place(error: Exception) -> str:
    """File and line where an unexpected error came up."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace is not None else ""


def main(arguments: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM. Returns the exit status: 0, or 1 after an error, said in one line."""
    node: MastsamNode | None = None
    status = 0
    try:
        rclpy.init(args=arguments)
        node = MastsamNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (MastsamError, ParameterException, RCLError) as error:
        sys.stderr.write(f"mastsam_node: {' '.join(str(error).split())}\n")
        status = 1
    finished = node.close() if node is not None else True
    if node is not None and finished:
        node.destroy_node()
    rclpy.try_shutdown()
    if not finished:
        # A thread inside a model library cannot be ended; the interpreter must not tear down under it.
        sys.stderr.flush()
        os._exit(status)
    return status
