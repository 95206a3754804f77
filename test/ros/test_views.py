"""The views that come with the node show topics that it has, with a quality of service that fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mastsam_ros.io.point_cloud2 import FIELDS
from mastsam_ros.ros.interface import DIAGNOSTICS, OUTPUTS
from mastsam_ros.ros.message_types import message_class

ROOT = Path(__file__).parents[2]
NODE = "mastsam/"


def leaves(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    else:
        assert tree["direction"] in ("row", "column") and 0 < tree["splitPercentage"] < 100
        yield from leaves(tree["first"])
        yield from leaves(tree["second"])


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


@pytest.mark.skipif(not (ROOT / "foxglove").exists(), reason="the installed package is laid out otherwise")
def test_the_foxglove_layout_shows_what_the_node_publishes():
    layout = json.loads((ROOT / "foxglove" / "mastsam.json").read_text(encoding="utf-8"))
    shown = list(leaves(layout["layout"]))
    assert sorted(shown) == sorted(layout["configById"])
    named = {text for text in texts(layout["configById"]) if text.startswith(f"/{NODE}")}
    topics = {text.removeprefix(f"/{NODE}").partition(".")[0] for text in named}
    assert {"map", "points", "overlay", "events", "odometry", "map_instances", "instances"} <= topics <= OUTPUTS.keys()
    assert DIAGNOSTICS.name in set(texts(layout["configById"]))
    # Every path leads to a field of the message that its topic carries.
    pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")
    for path in named:
        topic, _, field = path.removeprefix(f"/{NODE}").partition(".")
        name = field.partition(".")[0].partition("[")[0]
        assert not name or name in message_class(OUTPUTS[topic].type).get_fields_and_field_types(), path
    for settings in layout["configById"]["3D!world"]["topics"].values():
        assert settings.get("colorField", "rgb") in {field.name for field in FIELDS}


@pytest.mark.skipif(not (ROOT / "rviz").exists(), reason="the installed package is laid out otherwise")
def test_the_rviz_configuration_asks_for_what_the_node_offers():
    config = yaml.safe_load((ROOT / "rviz" / "mastsam.rviz").read_text(encoding="utf-8"))
    displays = [display for display in config["Visualization Manager"]["Displays"] if "Topic" in display]
    topics = [display["Topic"] for display in displays]
    own = {topic["Value"].removeprefix(NODE): topic for topic in topics if topic["Value"].startswith(NODE)}
    assert {"points", "map", "odometry", "overlay"} <= own.keys() <= OUTPUTS.keys()
    for name, topic in own.items():
        assert (topic["Durability Policy"] == "Transient Local") == OUTPUTS[name].latched, name
        assert topic["Reliability Policy"] == "Reliable", name
    for display in displays:
        name = display["Topic"]["Value"].removeprefix(NODE)
        if name in own:  # rviz_default_plugins are called as the messages that they show
            assert display["Class"].partition("/")[2] == OUTPUTS[name].type.rpartition("/")[2], name
    tools = {tool["Class"].partition("/")[2] for tool in config["Visualization Manager"]["Tools"]}
    assert "PublishPoint" in tools, "what /clicked_point listens to"
