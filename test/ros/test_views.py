"""The views that come with the node show topics that it has, with a quality of service that fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mastsam_ros.ros.interface import DIAGNOSTICS, OUTPUTS

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


@pytest.mark.skipif(not (ROOT / "rviz").exists(), reason="the installed package is laid out otherwise")
def test_the_rviz_configuration_asks_for_what_the_node_offers():
    config = yaml.safe_load((ROOT / "rviz" / "mastsam.rviz").read_text(encoding="utf-8"))
    topics = [display["Topic"] for display in config["Visualization Manager"]["Displays"] if "Topic" in display]
    own = {topic["Value"].removeprefix(NODE): topic for topic in topics if topic["Value"].startswith(NODE)}
    assert {"points", "map", "odometry", "overlay"} <= own.keys() <= OUTPUTS.keys()
    for name, topic in own.items():
        assert (topic["Durability Policy"] == "Transient Local") == OUTPUTS[name].latched, name
        assert topic["Reliability Policy"] == "Reliable", name
