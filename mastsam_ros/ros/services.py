"""What can be asked of the running node: services, answered by the thread that owns the model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future as RosFuture
from std_srvs.srv import SetBool, Trigger

from mastsam_ros.pipeline import Mastsam
from mastsam_ros.ros.interface import SERVICES
from mastsam_ros.ros.message_types import message_class
from mastsam_ros.types import MastsamError

Answer = TypeVar("Answer")
Ask = Callable[[Callable[[Mastsam], Answer]], "Future[Answer]"]
"""Has a function called with the pipeline in the worker's thread, between two frames; the future holds its answer."""


class Services:
    """The services of one camera, as interface.py declares them.

    prefix: what the services' names begin with, `~/` or `~/NAME/`. ask: as `Ask` says. enable: switches processing on
    or off. save_map: writes the camera's map, and says in a line what was written; runs in the worker's thread.
    """

    def __init__(
        self, node: Node, prefix: str, ask: Ask, enable: Callable[[bool], None], save_map: Callable[[Mastsam], str]
    ) -> None:
        self._node, self._ask, self._enable, self._save_map = node, ask, enable, save_map
        # A service that awaits its answer must hold up neither images nor other services.
        group = ReentrantCallbackGroup()
        answers = {"reset": self._on_reset, "enable": self._on_enable, "save_map": self._on_save_map}
        for name, service in SERVICES.items():
            kind = message_class(service.type)
            node.create_service(kind, f"{prefix}{name}", answers[name], callback_group=group)

    async def answer(self, question: Callable[[Mastsam], Answer]) -> Answer:
        """What `question` gives in the worker's thread; the executor goes on meanwhile. Raises what it raises."""
        executor = self._node.executor
        done: RosFuture[Future[Answer]] = RosFuture(executor=executor)

        def on_done(answer: Future[Answer]) -> None:
            done.set_result(answer)
            executor.wake()  # it looks at what awaits only when it is awake

        self._ask(question).add_done_callback(on_done)
        return (await done).result()

    async def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            await self.answer(lambda mastsam: mastsam.reset("asked for by ~/reset"))
        except MastsamError as error:
            response.success, response.message = False, str(error)
        else:
            response.success, response.message = True, "tracks start anew with the next image"
        return response

    async def _on_save_map(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message = await self.answer(self._save_map)
        except MastsamError as error:
            response.success, response.message = False, str(error)
        else:
            response.success = True
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enable(bool(request.data))
        response.success, response.message = True, "on" if request.data else "off: images are skipped"
        return response
