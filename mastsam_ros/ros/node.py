"""The managed node: its life cycle, its parameters and its diagnostics.

An image comes (inputs.py), the worker (worker.py) has its camera (camera.py) step on the latest one, and the result
goes out with the image's stamp (outputs.py). Between two images the worker does what services (services.py) ask for.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import TypeVar

import cv2
import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from rclpy._rclpy_pybind11 import RCLError, UnknownROSArgsError
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.utilities import remove_ros_args

from mastsam_ros.matchers import create_matcher
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.ros.camera import Camera, place_of
from mastsam_ros.ros.conversions import Input
from mastsam_ros.ros.interface import DIAGNOSTICS
from mastsam_ros.ros.log import Complaints, RosLogHandler
from mastsam_ros.ros.memory import give_back
from mastsam_ros.ros.outputs import create_publisher
from mastsam_ros.ros.parameters import SettingsParameters
from mastsam_ros.ros.poses import Poses
from mastsam_ros.ros.services import CommonServices, Services
from mastsam_ros.ros.worker import ModelWorker
from mastsam_ros.segmenters import create_segmenter
from mastsam_ros.settings import Settings
from mastsam_ros.tracker.identity import IdCounter
from mastsam_ros.tracker.world import World
from mastsam_ros.types import EditError, Frame, MastsamError, ModelError, SettingsError

_STOP_TIMEOUT_S = 5.0
_SAVE_TIMEOUT_S = 30.0
_REPORT_INTERVAL_S = 1.0
_GIVE_BACK_INTERVAL_S = 1.0
"""How often free memory goes back to the system: what the node holds beyond what is in use is what so long takes."""
Answer = TypeVar("Answer")


class MastsamNode(LifecycleNode):
    """Camera topics in, consistent labels out. The executor's thread receives, the worker's thread owns the model.

    The life cycle: configure loads the model and warms it up, activate subscribes, deactivate stops receiving,
    cleanup frees the model and the device's memory, shutdown does both. With `node.autostart` the node loads at once
    and goes through configure and activate by itself; a fault on that way is raised out of the executor's spin.

    create: makes the pipeline of a camera from the settings, the pipeline of another camera to share its models with,
    or None, the source of ids, and the world to share its map with other cameras in, or None.

    Raises SettingsError if it was started with an unknown parameter or a wrong value.
    """

    def __init__(
        self, create: Callable[[Settings, Mastsam | None, IdCounter, World | None], Mastsam] = create_mastsam
    ) -> None:
        super().__init__("mastsam", automatically_declare_parameters_from_overrides=True)
        self._complaints = Complaints(self.get_logger())
        self._log_handler = RosLogHandler(self.get_logger())
        logging.getLogger("mastsam_ros").addHandler(self._log_handler)
        logging.getLogger("mastsam_ros").setLevel(logging.INFO)  # which matcher and segmenter were chosen, and why
        self._tunable = SettingsParameters(self, self._change)
        self._create_pipeline = create
        self._ids = IdCounter()
        names = self._tunable.settings.node.camera_names
        self._poses = Poses(self, self._tunable.settings.node, self._complaints)
        self._cameras = [Camera(self, name, lambda: self._tunable.settings, self._poses) for name in names]
        for number, camera in enumerate(self._cameras):
            Services(self, camera.prefix, partial(self._ask, number), camera.enable, camera.save_map)
        CommonServices(self, len(names) > 1, self._reset_all, self._click)
        self._diagnostics = create_publisher(self, DIAGNOSTICS)
        self._worker: ModelWorker[list[Mastsam], Input] | None = None
        self._state = "unconfigured"
        self._chosen: dict[str, str] = {}
        self._failure: Exception | None = None
        # What the worker's thread has to tell is dealt with in the executor's.
        self._worker_tells = self.create_guard_condition(self._on_worker_tells)
        # On the steady clock: simulated time may stand still, and then this has to be said.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_REPORT_INTERVAL_S, self._report, clock=steady)
        self.create_timer(_GIVE_BACK_INTERVAL_S, give_back, clock=steady)
        self._starting_itself = False
        if self._tunable.settings.node.autostart:
            self._load()

    def close(self) -> bool:
        """Stops the worker. False if it is still busy, with a model that takes long to load."""
        logging.getLogger("mastsam_ros").removeHandler(self._log_handler)
        return self._free()

    # The life cycle, in the executor's thread

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model and warms it up."""
        return self._transition("configure", self._configure, "inactive")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes."""
        return self._transition("activate", self._activate, "ready")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Receives nothing more; the frame in work is finished."""
        return self._transition("deactivate", self._deactivate, "inactive")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees the model and the device's memory."""
        return self._transition("cleanup", self._clean_up, "unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state: receives nothing more, frees everything."""
        return self._transition("shutdown", self._clean_up, "finalized")

    def _transition(self, name: str, act: Callable[[], None], state: str) -> TransitionCallbackReturn:
        """What a transition does; a fault is told in one line, and the node stays in the state before."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it without a word
            self._failure = _readable(error)
            if self.context.ok() and not self._starting_itself:
                self.get_logger().error(f"{name} failed: {' '.join(str(self._failure).split())}")
            return TransitionCallbackReturn.FAILURE
        self._state, self._failure = state, None
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        worker = self._load()
        reported = time.monotonic()
        while not worker.loading.done():
            if not self.context.ok():
                raise MastsamError("the node was ended while its model was being loaded")
            if time.monotonic() - reported >= _REPORT_INTERVAL_S:
                self._report()
                reported = time.monotonic()
            time.sleep(0.01)
        if worker.loading.exception() is not None:
            self._worker, self._state = None, "unconfigured"
            worker.loading.result()

    def _activate(self) -> None:
        # Only now, so that whoever waits for this subscription knows that the node is ready.
        try:
            for number, camera in enumerate(self._cameras):
                camera.subscribe(partial(self._deliver, number))
        except SettingsError:
            for camera in self._cameras:
                camera.unsubscribe()
            raise
        chosen = ", ".join(f"{part} {name}" for part, name in self._chosen.items())
        topics = ", ".join(camera.topic for camera in self._cameras)
        self.get_logger().info(f"ready: {chosen}; waiting for images on {topics}")

    def _deactivate(self) -> None:
        for camera in self._cameras:
            camera.unsubscribe()
        if self._worker is not None:
            self._skip_waiting(self._worker)
            # What is in work may still be published; what takes longer is dropped when it is done.
            wait([self._worker.request(lambda mastsams: None)], _STOP_TIMEOUT_S)

    def _clean_up(self) -> None:
        for camera in self._cameras:
            camera.unsubscribe()
        if not self._free():
            raise MastsamError(f"the model is still at work after {_STOP_TIMEOUT_S:g} s")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # The model and its worker

    def _load(self) -> ModelWorker[list[Mastsam], Input]:
        """The worker, which loads the model if it has none yet."""
        if self._worker is None:
            self._state = "loading"
            self._worker = ModelWorker(self._create_models, self._process, self._on_worker_failed, len(self._cameras))
            self._worker.loading.add_done_callback(lambda _: self._worker_tells.trigger())
            self._worker.start()
        return self._worker

    def _free(self) -> bool:
        """Ends the worker, and its model with it; False if it is still busy."""
        if self._worker is None:
            return True
        self._skip_waiting(self._worker)
        if self._tunable.settings.node.map_file and self._worker.loading.done():
            self._save_maps()
        if not self._worker.stop(_STOP_TIMEOUT_S):
            return False
        self._worker, self._chosen = None, {}
        return True

    def _save_maps(self) -> None:
        keepers = [(number, camera) for number, camera in enumerate(self._cameras) if camera.keeps_map]
        answers = [self._ask(number, camera.save_map) for number, camera in keepers]
        wait(answers, _SAVE_TIMEOUT_S)
        for answer in answers:
            error = answer.exception() if answer.done() else f"the model is busy for over {_SAVE_TIMEOUT_S:g} s"
            if error is None:
                self.get_logger().info(answer.result())
            else:
                self.get_logger().error(f"the map is not saved: {error}")

    def _skip_waiting(self, worker: ModelWorker[list[Mastsam], Input]) -> None:
        for camera, waiting in zip(self._cameras, worker.inbox.clear(), strict=True):
            camera.statistics.add(skipped=waiting)

    def _on_worker_tells(self) -> None:
        if self._tunable.settings.node.autostart and self._state == "loading":
            self._starting_itself = True
            self.trigger_configure()
            if self._failure is None:
                self.trigger_activate()
            self._starting_itself = False
        elif self._state != "ready":
            return
        if self._failure is not None and self.context.ok():
            raise self._failure

    def _ask(self, camera: int, question: Callable[[Mastsam], Answer]) -> Future[Answer]:
        return self._ask_all(lambda mastsams: question(mastsams[camera]))

    def _reset_all(self, reason: str) -> Future[str]:
        def reset(mastsams: list[Mastsam]) -> str:
            for mastsam in mastsams:
                mastsam.reset(reason, empty_map=True)
            return "the tracks of all cameras, and the map, start anew with the next images"

        return self._ask_all(reset)

    def _click(self, message: PointStamped) -> Future[str]:
        def click(mastsams: list[Mastsam]) -> str:
            """The first camera that can adds it: two that see one thing must not make two instances of it."""
            reasons = []
            for camera, mastsam in zip(self._cameras, mastsams, strict=True):
                who = f"{camera.name}: " if camera.name else ""
                try:
                    return who + camera.click(mastsam, message)
                except MastsamError as error:
                    reasons.append(f"{who}{error}")
            raise EditError("; ".join(reasons))

        return self._ask_all(click)

    def _ask_all(self, question: Callable[[list[Mastsam]], Answer]) -> Future[Answer]:
        if self._worker is not None:
            return self._worker.request(question)
        answer: Future[Answer] = Future()
        answer.set_exception(MastsamError("the model is not loaded: configure the node first"))
        return answer

    # In the worker's thread

    def _create_models(self) -> list[Mastsam]:
        settings = self._tunable.settings
        world = World(settings.geometry) if settings.node.one_world else None
        first = self._create_pipeline(settings, None, self._ids, world)
        names = first.settings
        self._chosen = {
            "matcher": names.matcher.name,
            "segmenter": names.segmenter.name,
            "device": str(first.device),
        }
        warm_up(first)
        others = self._cameras[1:]
        mastsams = [first, *(self._create_pipeline(first.settings, first, self._ids, world) for _ in others)]
        for camera, mastsam in zip(self._cameras, mastsams, strict=True):
            camera.prepare(mastsam)
        return mastsams

    def _process(self, mastsams: list[Mastsam], camera: int, messages: Input) -> None:
        self._cameras[camera].process(mastsams[camera], messages)

    def _on_worker_failed(self, error: Exception) -> None:
        self._failure = _readable(error)
        self._worker_tells.trigger()

    def _reconfigure(self, mastsams: list[Mastsam], settings: Settings) -> None:
        try:
            for mastsam in mastsams:
                _reconfigure(mastsam, settings)
        except MastsamError as error:
            self._complaints.error("settings", f"new settings not taken: {error}")

    # While it runs, in the executor's thread

    def _deliver(self, number: int, messages: Input) -> None:
        camera = self._cameras[number]
        if not camera.enabled or self._worker is None or self._worker.inbox.put(messages, number):
            camera.statistics.add(skipped=1)

    def _change(self, settings: Settings) -> None:
        for camera in self._cameras:
            camera.configure(settings)
        if self._worker is not None:
            self._worker.request(lambda mastsams: self._reconfigure(mastsams, settings))

    def _report(self) -> None:
        message = DiagnosticArray(status=[camera.status(self._state, self._chosen) for camera in self._cameras])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        for number, camera in enumerate(self._cameras):
            # Who joins while no images come gets the map nevertheless.
            if self._worker is not None and self._worker.loading.done() and camera.map_is_due:
                self._ask(number, camera.publish_map)


def warm_up(mastsam: Mastsam) -> None:
    """Has the backends run once on two made-up images, so that the first real one is not the slow one."""
    rehearsal = Mastsam(mastsam.matcher, mastsam.segmenter, mastsam.settings)
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    rehearsal.step(Frame(image))
    rehearsal.step(Frame(np.roll(image, 2, axis=1)))


def _reconfigure(mastsam: Mastsam, settings: Settings) -> None:
    old = mastsam.settings
    # What was chosen at the start stays.
    kept = ("device", "matcher.name", "segmenter.name", "mast3r.checkpoint", "sam.checkpoint")
    settings = settings.updated({path: old.flat()[path] for path in kept})
    if _section(settings, settings.matcher.name) != _section(old, old.matcher.name):
        mastsam.matcher = create_matcher(settings, mastsam.matcher)
    if _section(settings, settings.segmenter.name) != _section(old, old.segmenter.name):
        mastsam.segmenter = create_segmenter(settings, mastsam.segmenter)
    mastsam.configure(settings)


def _section(settings: Settings, name: str) -> object:
    """The settings of the backend of this name."""
    return getattr(settings, name, None)


def _readable(error: Exception) -> Exception:
    """The error itself if it is one of ours, else one that says where it came up."""
    if isinstance(error, MastsamError):
        return error
    return ModelError(f"{type(error).__name__}: {error} ({place_of(error)})")


def main(arguments: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM. Returns the exit status: 0, or 1 after an error, said in one line."""
    node: MastsamNode | None = None
    executor: SingleThreadedExecutor | None = None
    status = 0
    try:
        rclpy.init(args=arguments)
        node = MastsamNode()
        if not_taken := remove_ros_args(arguments if arguments is not None else sys.argv)[1:]:
            cure = "parameters (-p name:=value) and remappings (-r from:=to) stand behind --ros-args"
            node.get_logger().warning(f"not taken: {' '.join(not_taken)}; {cure}")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except UnknownROSArgsError as error:
        sys.stderr.write(f"mastsam_node: unknown behind --ros-args: {error}\n")
        status = 1
    except (MastsamError, ParameterException, RCLError) as error:
        # A signal may end the context while the executor is about to wait in it; that is no fault.
        if not isinstance(error, RCLError) or node is None or node.context.ok():
            sys.stderr.write(f"mastsam_node: {' '.join(str(error).split())}\n")
            status = 1
    try:
        finished = node.close() if node is not None else True
    except KeyboardInterrupt:  # a second one: nobody wants to wait until the map is saved
        finished = False
    if executor is not None:
        # An error keeps it alive: at the interpreter's end it would complain of a context that is gone.
        executor.shutdown(timeout_sec=0)
    if node is not None and finished:
        node.destroy_node()
    rclpy.try_shutdown()
    if not finished:
        # A thread inside a model library cannot be ended; the interpreter must not tear down under it.
        sys.stderr.flush()
        os._exit(status)
    return status
