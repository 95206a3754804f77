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
from mastsam_ros.types import MastsamError

Answer = TypeVar("Answer")
Ask = Callable[[Callable[[Mastsam], Answer]], "Future[Answer]"]
"""Has a function called with the pipeline in the worker's thread, between two frames; the future holds its answer."""


class Services:
    """`~/reset` and `~/enable` of one camera.

    prefix: what the services' names begin with, `~/` or `~/NAME/`. ask: as `Ask` says. enable: switches processing on
    or off.
    """

    def __init__(self, node: Node, prefix: str, ask: Ask, enable: Callable[[bool], None]) -> None:
        self._node, self._ask, self._enable = node, ask, enable
        # A service that awaits its answer must hold up neither images nor other services.
        self._group = ReentrantCallbackGroup()
        node.create_service(Trigger, f"{prefix}reset", self._on_reset, callback_group=self._group)
        node.create_service(SetBool, f"{prefix}enable", self._on_enable, callback_group=self._group)

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

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enable(bool(request.data))
        response.success, response.message = True, "on" if request.data else "off: images are skipped"
        return response
