"""The node with MASt3R and Segment Anything, tiny models of random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")

from sensor_msgs.msg import Image

from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame


def test_the_node_gives_what_the_pipeline_gives(start_node, robot, picture, tiny_models):
    parameters = [part for path, value in tiny_models.items() for part in ("-p", f"{path}:={json.dumps(value)}")]
    node = start_node("-p", "node.reliability:=reliable", "-p", "node.camera_info_topic:=''", *parameters)
    assert "ready: matcher mast3r, segmenter hf_sam, device cpu" in node.log
    robot.listen(Image, "/mastsam/labels")
    images = robot.publisher(Image, "/image")
    mastsam = create_mastsam(Settings.from_mapping(tiny_models))
    for n in range(3):
        stamp = 1_000_000_000 + n * 33_000_000
        images.publish(robot.image(picture(2 * n), stamp))
        expected = mastsam.step(Frame(picture(2 * n), stamp))
        message = robot.wait("/mastsam/labels", n + 1)[n]
        labels = np.frombuffer(message.data, "<u2").reshape(message.height, message.width)
        np.testing.assert_array_equal(labels, expected.labels)


def test_the_node_says_what_was_chosen_and_why(start_node):
    node = start_node("-p", "device:=cpu", "-p", "node.camera_info_topic:=''")
    assert "matcher flow, segmenter regions on cpu: device is cpu" in node.log
