"""Quality of service of inputs and outputs, and the sentence that names the cure when no image comes through."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

LARGE_DATA = "FASTDDS_BUILTIN_TRANSPORTS"
_ONE_DATAGRAM = 64_000
"""Bytes. Larger messages travel in fragments, and best effort loses all if it loses one."""


def input_qos(reliability: str, depth: int) -> QoSProfile:
    """For sensors: volatile, and reliable only if asked for."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
    )


def output_qos(depth: int = 5, latched: bool = False) -> QoSProfile:
    """Reliable, so that best effort subscribers match too; shallow, for what comes once per frame; volatile, or
    latched: who joins late gets the last one."""
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
    )


def large_data_cure() -> str:
    """What makes large images arrive over Fast DDS."""
    if _confined():
        return (
            "have the camera driver and this node use reliable (node.reliability:=reliable), or leave out "
            f"ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, which overrules {LARGE_DATA}"
        )
    return (
        f"set {LARGE_DATA}=LARGE_DATA for the camera driver and for this node, "
        "or have both use reliable (node.reliability:=reliable)"
    )


def _confined() -> bool:
    """True where Fast DDS keeps to this machine and to transports of its own choice."""
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    return reach == "LOCALHOST" or os.environ.get("ROS_LOCALHOST_ONLY") == "1"


def large_best_effort_warning(topic: str, size: int, reliability: ReliabilityPolicy, middleware: str) -> str | None:
    """A warning for an image of `size` bytes that best effort over plain UDP can lose, or None."""
    if reliability != ReliabilityPolicy.BEST_EFFORT or size <= _ONE_DATAGRAM or "fastrtps" not in middleware:
        return None
    if os.environ.get(LARGE_DATA, "").startswith("LARGE_DATA") and not _confined():
        return None
    return f"{topic}: images of {size} bytes come best effort and can get lost; {large_data_cure()}"


def incompatible_qos_warning(topic: str, policy: QoSPolicyKind) -> str:
    """What to do about a publisher that offers less than is asked for."""
    cure = "set node.reliability:=best_effort" if policy == QoSPolicyKind.RELIABILITY else "change the publisher's QoS"
    return f"{topic}: a publisher's QoS is incompatible ({policy.name.lower()}), nothing of it arrives; {cure}"


def incompatible_subscriber_warning(topic: str, policy: QoSPolicyKind, latched: bool) -> str:
    """What is the matter with a subscriber that asks for more than is offered."""
    durability = "transient_local" if latched else "volatile"
    kind = policy.name.lower()
    return f"{topic}: a subscriber's QoS is incompatible ({kind}), it hears nothing; offered is reliable, {durability}"


def why_no_image(
    topic: str,
    parameter: str,
    message_type: str,
    reliability: ReliabilityPolicy,
    publishers: Sequence[TopicEndpointInfo],
    others: Sequence[str],
) -> str:
    """Why nothing arrives on `topic`, and the cure.

    message_type: what is subscribed to, such as sensor_msgs/msg/Image. others: topics that carry this type.
    """
    if not publishers:
        elsewhere = f"; {message_type} is published on {', '.join(sorted(others)[:5])}" if others else ""
        return f"{topic}: nobody publishes it; set {parameter} or remap it{elsewhere}"
    matching = [publisher for publisher in publishers if publisher.topic_type == message_type]
    if not matching:
        carries_images = "Image" in publishers[0].topic_type
        cure = (
            "see node.image_transport, node.compressed, node.compressed_depth"
            if carries_images
            else f"set {parameter} or remap it"
        )
        return f"{topic}: carries {publishers[0].topic_type}, expected {message_type}; {cure}"
    offers = {publisher.qos_profile.reliability for publisher in matching}
    if reliability == ReliabilityPolicy.RELIABLE and offers == {ReliabilityPolicy.BEST_EFFORT}:
        return incompatible_qos_warning(topic, QoSPolicyKind.RELIABILITY)
    if reliability == ReliabilityPolicy.BEST_EFFORT:
        return f"{topic}: it is published, but nothing arrives; if the images are large, {large_data_cure()}"
    return f"{topic}: it is published, but nothing arrives; is the publisher paused?"
