"""What can be asked of the running node: services, answered by the thread that owns the model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import PointStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future as RosFuture
from std_srvs.srv import SetBool, Trigger

from mastsam_ros.pipeline import Mastsam
from mastsam_ros.ros.conversions import stamp_nanoseconds
from mastsam_ros.ros.interface import COMMON_SERVICES, SERVICES
from mastsam_ros.ros.message_types import message_class
from mastsam_ros.types import EditError, MastsamError

_ASKED_FOR = "asked for by ~/reset"
Answer = TypeVar("Answer")
Ask = Callable[[Callable[[Mastsam], Answer]], "Future[Answer]"]
"""Has a function called with the pipeline in the worker's thread, between two frames; the future holds its answer."""


class Services:
    """The services of one camera, as interface.py declares them.

    prefix: what the services' names begin with, `~/` or `~/NAME/`. ask: as `Ask` says. enable: switches processing on
    or off. save_map: writes the camera's map and says in a line what was done; it runs in the worker's thread.
    """

    def __init__(
        self,
        node: Node,
        prefix: str,
        ask: Ask,
        enable: Callable[[bool], None],
        save_map: Callable[[Mastsam], str],
    ) -> None:
        self._node, self._ask, self._enable, self._save_map = node, ask, enable, save_map
        # A service that awaits its answer must hold up neither images nor other services.
        group = ReentrantCallbackGroup()
        answers = {
            "reset": self._on_reset,
            "enable": self._on_enable,
            "save_map": self._on_save_map,
            "add_instance": self._on_add,
            "remove_instance": self._on_remove,
            "merge_instances": self._on_merge,
            "split_instance": self._on_split,
            "rename_instance": self._on_rename,
        }
        for name, service in SERVICES.items():
            kind = message_class(service.type)
            node.create_service(kind, f"{prefix}{name}", answers[name], callback_group=group)

    async def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def reset(mastsam: Mastsam) -> str:
            mastsam.reset(_ASKED_FOR, empty_map=not mastsam.map.shared)
            return "tracks start anew with the next image"

        return await _answered(self._node, self._ask(reset), response)

    async def _on_save_map(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await _answered(self._node, self._ask(self._save_map), response)

    async def _on_add(self, request: Any, response: Any) -> Any:
        def add(mastsam: Mastsam) -> str:
            if len(request.on_instance) != len(request.x):
                raise EditError(f"x and on_instance differ: {len(request.x)} points, {len(request.on_instance)} flags")
            box = (request.box_x, request.box_y, request.box_width, request.box_height)
            response.id = mastsam.add_instance(
                _points(request), request.on_instance, box if any(box[2:]) else None, _stamp(request), request.label
            )
            return f"instance {response.id}"

        return await _answered(self._node, self._ask(add), response)

    async def _on_remove(self, request: Any, response: Any) -> Any:
        def remove(mastsam: Mastsam) -> str:
            mastsam.remove_instance(request.id)
            return f"instance {request.id} removed"

        return await _answered(self._node, self._ask(remove), response)

    async def _on_merge(self, request: Any, response: Any) -> Any:
        def merge(mastsam: Mastsam) -> str:
            return f"one instance: {mastsam.merge_instances([int(id) for id in request.ids])}"

        return await _answered(self._node, self._ask(merge), response)

    async def _on_split(self, request: Any, response: Any) -> Any:
        def split(mastsam: Mastsam) -> str:
            response.new_id = mastsam.split_instance(request.id, _points(request), _stamp(request), request.label)
            return f"instance {response.new_id} split off {request.id}"

        return await _answered(self._node, self._ask(split), response)

    async def _on_rename(self, request: Any, response: Any) -> Any:
        def rename(mastsam: Mastsam) -> str:
            mastsam.rename_instance(request.id, request.label)
            return f"instance {request.id} is called '{request.label}'"

        return await _answered(self._node, self._ask(rename), response)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enable(bool(request.data))
        response.success, response.message = True, "on" if request.data else "off: images are skipped"
        return response


class CommonServices:
    """What is asked of all cameras of a node at once.

    several: there are several, so that each has services of its own. reset_all: has all of them start anew. click: has
    one of them add what was clicked at. Both futures hold a line that says what was done.
    """

    def __init__(
        self,
        node: Node,
        several: bool,
        reset_all: Callable[[str], Future[str]],
        click: Callable[[PointStamped], Future[str]],
    ) -> None:
        self._node, self._reset_all, self._click = node, reset_all, click
        node.create_subscription(PointStamped, "/clicked_point", self._on_click, 10)
        answers = {"reset": self._on_reset}
        for name, service in COMMON_SERVICES.items() if several else ():
            kind = message_class(service.type)
            node.create_service(kind, f"~/{name}", answers[name], callback_group=ReentrantCallbackGroup())

    async def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await _answered(self._node, self._reset_all(_ASKED_FOR), response)

    def _on_click(self, message: PointStamped) -> None:
        """Adds what was clicked at; the log says what came of it, for nobody waits for an answer."""

        def told(answer: Future[str]) -> None:
            error = answer.exception()
            if error is None:
                self._node.get_logger().info(f"clicked: {answer.result()}")
            else:
                self._node.get_logger().warning(f"clicked point not taken: {' '.join(str(error).split())}")

        self._click(message).add_done_callback(told)


async def _answered(node: Node, answer: Future[str], response: Any) -> Any:
    """The response, with what was done or why not; the executor goes on until the worker's thread has the answer."""
    executor = node.executor
    done: RosFuture[None] = RosFuture(executor=executor)

    def on_done(_: Future[str]) -> None:
        done.set_result(None)
        executor.wake()  # it looks at what awaits only when it is awake

    answer.add_done_callback(on_done)
    await done
    try:
        response.message, response.success = answer.result(), True
    except Exception as error:  # noqa: BLE001 - whatever a backend raises, who asked gets an answer
        known = isinstance(error, MastsamError)
        response.success, response.message = False, str(error) if known else f"{type(error).__name__}: {error}"
    return response


def _points(request: Any) -> npt.NDArray[np.float64]:
    """(K, 2) pixels of a request's x and y. Raises EditError where they differ in length."""
    if len(request.x) != len(request.y):
        raise EditError(f"x and y differ: {len(request.x)} and {len(request.y)} values")
    return np.stack([np.asarray(axis, np.float64) for axis in (request.x, request.y)], axis=1)


def _stamp(request: Any) -> int | None:
    """Nanoseconds; None, the latest image, for a stamp of zero."""
    return stamp_nanoseconds(request.stamp) or None
