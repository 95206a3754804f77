"""The demo's session with the real node: the topics of its bags, at a pace that the node can follow."""

from __future__ import annotations

from pathlib import Path

from mastsam_ros.io.frame_bag import TOPICS
from mastsam_ros.node_session import Session, run_session
from mastsam_ros.settings import Settings
from mastsam_ros.types import InputError

RATE_HZ = 5.0
"""Images are sent at most this fast, and slower where the node takes longer, if no rate is asked for."""


def play_to_node(
    bag: Path, result_bag: Path, logs: Path, settings: Settings, rate: float | None, use_depth: bool
) -> Session:
    """Plays the bag to the node and records its answers into `result_bag`, which must not exist.

    rate: speed, 1 is the bag's own pace. None: at most RATE_HZ images per second, and never one before the last
    is answered. Raises MastsamError if one of the three processes fails, with the last line it said.
    """
    counts, images_per_second = _contents(bag)
    if not counts.get("image"):
        raise InputError(f"{bag} has no images on {TOPICS['image']}")
    has_depth = use_depth and "depth" in counts and "camera_info" in counts
    inputs = ["image", *(["depth", "camera_info"] if has_depth else [])]
    settings = settings.updated(
        {f"node.{name}_topic": TOPICS[name] if name in inputs else "" for name in ("image", "depth", "camera_info")}
    )
    pace = rate or min(1.0, RATE_HZ / images_per_second)
    return run_session(bag, result_bag, logs, settings, rate=pace, follow=rate is None)


def _contents(bag: Path) -> tuple[dict[str, int], float]:
    """Messages per name of TOPICS, and images per second."""
    from rosbags.rosbag2 import Reader

    names = {topic: name for name, topic in TOPICS.items()}
    with Reader(bag) as reader:
        counts = {names[c.topic]: c.msgcount for c in reader.connections if c.topic in names and c.msgcount}
        return counts, max(counts.get("image", 0) - 1, 1) / max(reader.duration / 1e9, 1e-3)
