"""The node's subscriptions: images, intrinsics, depth; what belongs together, and what is wrong when nothing comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mastsam_ros.ros.conversions import Input, stamp_nanoseconds
from mastsam_ros.ros.diagnostics import Statistics
from mastsam_ros.ros.log import Complaints
from mastsam_ros.ros.qos import incompatible_qos_warning, input_qos, large_best_effort_warning, why_no_image
from mastsam_ros.ros.sync import StampSync
from mastsam_ros.settings import NodeSettings
from mastsam_ros.types import SettingsError

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks
try:
    from rclpy.subscription import MessageInfo
except ImportError:  # Humble: callbacks get the message alone
    MessageInfo = None


class Inputs:
    """Subscribes when it is made. deliver: called with every image, or every pair where there is a depth topic.

    Raises SettingsError for a topic name that is none.
    """

    def __init__(
        self,
        node: Node,
        settings: NodeSettings,
        statistics: Statistics,
        complaints: Complaints,
        deliver: Callable[[Input], None],
    ) -> None:
        self._node, self._settings = node, settings
        self._statistics, self._complaints, self._deliver = statistics, complaints, deliver
        self._sync: StampSync[Input, Image | CompressedImage] = StampSync(settings.sync_queue, _tolerance_ns(settings))
        self.camera_info: CameraInfo | None = None
        """The latest intrinsics that came."""
        self._last: dict[str, float] = {}
        self._images_began: float | None = None
        self._told_unpaired = (0, 0)
        self._number: int | None = None
        self._subscriptions: list[Subscription] = []
        self._depth = self._camera_info = None
        try:
            image_type = CompressedImage if settings.compressed else Image
            self._image = self._subscribe(
                "node.image_topic",
                image_type,
                settings.image_topic,
                self._on_image if MessageInfo is None else self._on_numbered_image,
            )
            if settings.camera_info_topic:
                self._camera_info = self._subscribe(
                    "node.camera_info_topic", CameraInfo, settings.camera_info_topic, self._on_camera_info
                )
            if settings.depth_topic:
                depth_type = CompressedImage if settings.compressed_depth else Image
                self._depth = self._subscribe("node.depth_topic", depth_type, settings.depth_topic, self._on_depth)
        except SettingsError:
            self.close()
            raise

    @property
    def image_topic(self) -> str:
        """The image topic's full name."""
        return str(self._image.topic_name)

    def configure(self, settings: NodeSettings) -> None:
        """Takes over what can change while the node runs."""
        self._settings = settings
        self._sync.tolerance_ns = _tolerance_ns(settings)

    def close(self) -> None:
        """Ends the subscriptions; what waits for its partner is counted as unpaired."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._statistics.add(unpaired=self._sync.waiting)

    def problem(self) -> str:
        """What keeps frames from coming and the cure, or an empty text. One line."""
        now, timeout = time.monotonic(), self._settings.input_timeout_s
        if now - self._last["node.image_topic"] > timeout:
            return self._why_nothing(self._image, "node.image_topic")
        if self._depth is not None and now - self._last["node.depth_topic"] > timeout:
            return "labels go on without depth: " + self._why_nothing(self._depth, "node.depth_topic")
        missing = self._camera_info if self._depth is not None and self.camera_info is None else None
        if missing is not None and now - self._last["node.camera_info_topic"] > timeout:
            return "no points without intrinsics: " + self._why_nothing(missing, "node.camera_info_topic")
        return ""

    def _subscribe(self, parameter: str, kind: Any, topic: str, callback: Callable[..., None]) -> Subscription:
        events = SubscriptionEventCallbacks(
            message_lost=self._on_lost if parameter == "node.image_topic" and MessageInfo is None else None,
            incompatible_qos=partial(self._on_incompatible_qos, topic),
        )
        self._last[parameter] = time.monotonic()
        try:
            subscription = self._node.create_subscription(
                kind,
                topic,
                callback,
                input_qos(self._settings.reliability, self._settings.queue_depth),
                event_callbacks=events,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        except InvalidTopicNameException as error:
            raise SettingsError(f"{parameter} '{topic}' is not a topic name: {' '.join(str(error).split())}") from error
        self._subscriptions.append(subscription)
        return subscription

    def _on_numbered_image(self, message: Image | CompressedImage, info: dict[str, Any]) -> None:
        """Counts what is missing before this image: what DDS lost, and what was overwritten in its queue unseen."""
        number = info.get("publication_sequence_number")
        if number is not None:
            before, self._number = self._number, number
            missing = number - before - 1 if before is not None else 0
            # Two publishers count each for itself, and a new one begins anew.
            if missing > 0 and self._node.count_publishers(self._image.topic_name) == 1:
                self._statistics.add(lost=missing)
        self._on_image(message)

    def _on_image(self, message: Image | CompressedImage) -> None:
        arrived_ns = time.monotonic_ns()
        if not self._statistics.counts.received:
            self._warn_of_large_best_effort(len(message.data))
        now = time.monotonic()
        if self._images_began is None or now - self._last["node.image_topic"] > self._settings.input_timeout_s:
            self._images_began = now  # before that depth had no reason to come
        self._last["node.image_topic"] = now
        self._statistics.add(received=1)
        messages = Input(message, None, arrived_ns)
        if self._depth is None or self._depth_is_silent():
            self._deliver(messages)
        else:
            self._paired(self._sync.add_first(stamp_nanoseconds(message.header.stamp), messages))

    def _depth_is_silent(self) -> bool:
        """True while no depth has come for the time that a warning takes: images wait for it no longer."""
        since = max(self._last["node.depth_topic"], self._images_began or 0.0)
        if time.monotonic() - since <= self._settings.input_timeout_s:
            return False
        self._sync.give_up_first()
        self._paired(None)
        return True

    def _on_depth(self, message: Image | CompressedImage) -> None:
        self._last["node.depth_topic"] = time.monotonic()
        self._paired(self._sync.add_second(stamp_nanoseconds(message.header.stamp), message))

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._last["node.camera_info_topic"] = time.monotonic()
        self.camera_info = message

    def _paired(self, pair: tuple[Input, Image | CompressedImage] | None) -> None:
        images, depths = self._told_unpaired
        self._told_unpaired = (self._sync.unpaired_first, self._sync.unpaired_second)
        self._statistics.add(
            unpaired=self._sync.unpaired_first - images, unpaired_depth=self._sync.unpaired_second - depths
        )
        if pair is not None:
            messages, depth = pair
            self._deliver(Input(messages.image, depth, messages.arrived_ns))

    def _on_lost(self, event: Any) -> None:
        self._statistics.add(lost=event.total_count_change)

    def _on_incompatible_qos(self, topic: str, event: Any) -> None:
        policy = QoSPolicyKind(int(event.last_policy_kind))
        self._complaints.warn(f"qos {topic}", incompatible_qos_warning(topic, policy))

    def _warn_of_large_best_effort(self, size: int) -> None:
        warning = large_best_effort_warning(
            self.image_topic, size, self._image.qos_profile.reliability, get_rmw_implementation_identifier()
        )
        if warning:
            self._complaints.warn("large best effort", warning)

    def _why_nothing(self, subscription: Subscription, parameter: str) -> str:
        topic, kind = str(subscription.topic_name), _type_name(subscription.msg_type)
        own = f"{self._node.get_fully_qualified_name()}/"
        others = [name for name, kinds in self._node.get_topic_names_and_types() if kind in kinds]
        return f"nothing came for {time.monotonic() - self._last[parameter]:.0f} s on " + why_no_image(
            topic,
            parameter,
            kind,
            subscription.qos_profile.reliability,
            self._node.get_publishers_info_by_topic(topic),
            [name for name in others if not name.startswith(own) and self._node.count_publishers(name)],
        )


def _type_name(kind: Any) -> str:
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


def _tolerance_ns(settings: NodeSettings) -> int:
    return round(settings.sync_tolerance_ms * 1e6)
