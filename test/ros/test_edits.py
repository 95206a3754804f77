"""People in the loop over real DDS: services from many clients at once while frames flow, and clicks from RViz."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")

import rclpy
from geometry_msgs.msg import Point, PointStamped, TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from mastsam_ros.msg import InstanceArray, TrackEvent
from mastsam_ros.srv import AddInstance, MergeInstances, RemoveInstance, RenameInstance, SplitInstance

RELIABLE = ("-p", "node.reliability:=reliable", "-p", "geometry.map:=false")


def shown(message):
    return {instance.id: instance.label for instance in message.instances}


def settle(robot, images, picture, condition, stamp):
    """Sends the same picture until the condition holds of the last instances."""
    for n in range(60):
        images.publish(robot.image(picture(), stamp + n * 10_000_000))
        before = len(robot.received["/mastsam/instances"])
        robot.wait("/mastsam/instances", before + 1)
        if condition(shown(robot.received["/mastsam/instances"][-1])):
            return shown(robot.received["/mastsam/instances"][-1])
    raise AssertionError(shown(robot.received["/mastsam/instances"][-1]))


def test_ten_clients_at_once_while_frames_flow(start_node, robot, picture):
    node = start_node(*RELIABLE)
    robot.listen(InstanceArray, "/mastsam/instances")
    robot.listen(TrackEvent, "/mastsam/events")
    images = robot.publisher(Image, "/image")
    first = settle(robot, images, picture, lambda ids: len(ids) >= 4, 1_000_000_000)
    ids = sorted(first)

    clients = [rclpy.create_node(f"person_{n}", context=robot.node.context) for n in range(10)]
    for client in clients:
        robot.node.executor.add_node(client)
    kinds = {
        "rename_instance": RenameInstance,
        "merge_instances": MergeInstances,
        "remove_instance": RemoveInstance,
        "split_instance": SplitInstance,
        "add_instance": AddInstance,
    }
    doors = [
        {name: client.create_client(kind, f"/mastsam/{name}") for name, kind in kinds.items()} for client in clients
    ]
    assert all(door.wait_for_service(60) for room in doors for door in room.values())
    time.sleep(0.5)
    asked = []
    for n, room in enumerate(doors):
        asked.append(("rename", room["rename_instance"].call_async(RenameInstance.Request(id=ids[0], label=f"by {n}"))))
        asked.append(("merge", room["merge_instances"].call_async(MergeInstances.Request(ids=[ids[0], ids[1]]))))
        asked.append(("remove", room["remove_instance"].call_async(RemoveInstance.Request(id=ids[2]))))
        asked.append(("split", room["split_instance"].call_async(SplitInstance.Request(id=60_000, x=[1.0], y=[1.0]))))
        asked.append(("add", room["add_instance"].call_async(AddInstance.Request(x=[1.0], y=[2.0, 3.0]))))
        images.publish(robot.image(picture(), 2_000_000_000 + n * 10_000_000))
        time.sleep(0.02)
    assert robot.wait_until(lambda: all(answer.done() for _, answer in asked), 60)
    done = {name: [answer.result() for kind, answer in asked if kind == name] for name, _ in asked}
    # An id can end once: of those who ask for it at the same time one is told that it is done.
    assert [sum(r.success for r in done[name]) for name in ("rename", "merge", "remove", "split", "add")] == [
        10, 1, 1, 0, 0
    ]  # fmt: skip
    assert all(r.success != r.message.startswith("there is no instance") for r in done["merge"] + done["remove"])
    assert all("60000" in r.message for r in done["split"]) and all("differ" in r.message for r in done["add"])

    now = settle(robot, images, picture, lambda ids_: ids[1] not in ids_ and ids[2] not in ids_, 3_000_000_000)
    assert ids[0] in now and now[ids[0]].startswith("by ")
    events = [(event.kind, event.id, event.other_id) for event in robot.received["/mastsam/events"]]
    assert events.count((TrackEvent.KIND_MERGED, ids[1], ids[0])) == 1
    assert events.count((TrackEvent.KIND_REMOVED, ids[2], 0)) == 1
    assert sum(kind == TrackEvent.KIND_RENAMED for kind, _, _ in events) == 10
    for client in clients:
        robot.node.executor.remove_node(client)
        client.destroy_node()
    assert "Traceback" not in node.log


def test_a_click_names_what_it_hits_or_says_why_not(start_node, robot, picture):
    node = start_node(*RELIABLE)
    robot.listen(InstanceArray, "/mastsam/instances")
    robot.listen(Image, "/mastsam/labels")
    images = robot.publisher(Image, "/image")
    infos = robot.publisher(CameraInfo, "/camera_info")
    clicks = robot.publisher(PointStamped, "/clicked_point")
    K = np.array([[150.0, 0, 79.5], [0, 150, 59.5], [0, 0, 1]])
    infos.publish(CameraInfo(width=160, height=120, k=K.ravel().tolist()))
    time.sleep(0.5)
    settle(robot, images, picture, lambda ids: len(ids) >= 4, 1_000_000_000)
    labels = robot.wait("/mastsam/labels", 1)[-1]
    image = np.frombuffer(labels.data, "<u2").reshape(labels.height, labels.width)
    x, y = 30, 50  # on the first box
    point = Point(x=(x - 79.5) / 150 * 2, y=(y - 59.5) / 150 * 2, z=2.0)
    clicks.publish(PointStamped(header=robot.header(1_000_000_000), point=point))
    node.wait_for(f"clicked: instance {image[y, x]} at ({x}, {y})")
    behind = PointStamped(header=robot.header(1_000_000_000), point=Point(x=0.0, y=0.0, z=-1.0))
    clicks.publish(behind)
    node.wait_for("is not before the camera")
    behind.header.frame_id = "nowhere"
    clicks.publish(behind)
    node.wait_for("clicked point not taken: ")
    assert robot.wait_until(lambda: "nowhere" in node.log) and "Traceback" not in node.log


def test_a_click_in_another_frame_goes_through_tf(start_node, robot, picture):
    tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not there: make build")
    node = start_node(*RELIABLE, "-p", "node.pose_topic:=tf", "-p", "node.pose_tolerance_ms:=1.0")
    robot.listen(InstanceArray, "/mastsam/instances")
    robot.listen(Image, "/mastsam/labels")
    images, infos = robot.publisher(Image, "/image"), robot.publisher(CameraInfo, "/camera_info")
    clicks = robot.publisher(PointStamped, "/clicked_point")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    fixed = robot.node.create_publisher(tf2_msgs.TFMessage, "/tf_static", latched)
    # The camera looks along the x axis of the robot, 0.1 m before and 0.5 m above its middle.
    mounted = TransformStamped(header=robot.header(0), child_frame_id="camera_optical")
    mounted.header.frame_id = "base"
    move, turn = mounted.transform.translation, mounted.transform.rotation
    move.x, move.z = 0.1, 0.5
    turn.x, turn.y, turn.z, turn.w = -0.5, 0.5, -0.5, 0.5
    fixed.publish(tf2_msgs.TFMessage(transforms=[mounted]))
    infos.publish(CameraInfo(width=160, height=120, k=[150.0, 0, 79.5, 0, 150, 59.5, 0, 0, 1]))
    time.sleep(0.5)
    settle(robot, images, picture, lambda ids: len(ids) >= 4, 1_000_000_000)
    labels = robot.wait("/mastsam/labels", 1)[-1]
    image = np.frombuffer(labels.data, "<u2").reshape(labels.height, labels.width)
    x, y, z = 30, 50, 2.0  # on the first box
    right, down = (x - 79.5) / 150 * z, (y - 59.5) / 150 * z
    click = PointStamped(header=robot.header(1_000_000_000), point=Point(x=0.1 + z, y=-right, z=0.5 - down))
    click.header.frame_id = "base"
    clicks.publish(click)
    node.wait_for(f"clicked: instance {image[y, x]} at ({x}, {y})")
    click.header.frame_id = "cupboard"
    clicks.publish(click)
    node.wait_for("clicked point not taken: nobody says where 'cupboard' is")
    assert "Traceback" not in node.log
