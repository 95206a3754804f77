"""Several cameras in one node: topics of their own, ids that none shares with another, and turns."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, PointStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool, Trigger

from mastsam_ros.io.sample_scene import SampleScene, SceneView
from mastsam_ros.msg import InstanceArray, MapInstanceArray, TrackEvent
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.tracker.identity import IdCounter
from mastsam_ros.types import Frame

TWO = ("-p", "node.reliability:=reliable", "-p", "node.cameras:=front rear")


def labels_of(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, "<u2").reshape(message.height, message.width)


def counts_of(robot, camera: str) -> dict[str, int]:
    if not robot.received["/diagnostics"]:
        return {}
    statuses = {status.name: status for status in robot.received["/diagnostics"][-1].status}
    values = {pair.key: pair.value for pair in statuses[f"mastsam: {camera}"].values}
    return {name: int(values[name]) for name in ("received", "lost", "processed", "skipped", "failed", "unpaired")}


def maps_told(robot) -> set[str]:
    statuses = robot.received["/diagnostics"][-1].status
    assert len(statuses) == 2
    return {pair.value for status in statuses for pair in status.values if pair.key == "map"}


def settled(robot, camera: str, sent: int) -> dict[str, int]:
    """The counts once every image is one of them; on a busy machine some are overwritten in DDS' queue: lost. Only what
    is missing between two that came is known to be lost: the first and the last one must arrive."""

    def done() -> bool:
        counts = counts_of(robot, camera)
        dealt_with = sum(counts.get(name, 0) for name in ("processed", "skipped", "failed", "unpaired"))
        return bool(counts) and counts["received"] + counts["lost"] == sent and counts["received"] == dealt_with

    assert robot.wait_until(done, 40), counts_of(robot, camera)
    return counts_of(robot, camera)


def test_each_has_its_own_topics_and_ids_and_equals_the_offline_result(start_node, robot, picture):
    node = start_node(*TWO)
    assert "waiting for images on /front/image, /rear/image" in node.log
    robot.listen(Image, "/mastsam/front/labels", "/mastsam/rear/labels")
    robot.listen(InstanceArray, "/mastsam/front/instances", "/mastsam/rear/instances")
    robot.listen(TrackEvent, "/mastsam/front/events", "/mastsam/rear/events")
    robot.listen(DiagnosticArray, "/diagnostics")
    images = {name: robot.publisher(Image, f"/{name}/image") for name in ("front", "rear")}
    ids = IdCounter()
    front = create_mastsam(ids=ids)
    mastsams = {"front": front, "rear": create_mastsam(front.settings, front, ids)}
    seen: dict[str, set[int]] = {"front": set(), "rear": set()}
    for n in range(3):
        for name, size in (("front", (160, 120)), ("rear", (200, 150))):
            stamp = (n + 1) * 1_000_000_000 if name == "front" else 5_000_000_000 + n
            image = picture(2 * n, *size)
            images[name].publish(robot.image(image, stamp))
            message = robot.wait(f"/mastsam/{name}/labels", n + 1)[n]
            assert np.array_equal(labels_of(message), mastsams[name].step(Frame(image, stamp)).labels), (name, n)
            seen[name] |= set(labels_of(message).ravel().tolist()) - {0}
    assert seen["front"] and seen["rear"] and not seen["front"] & seen["rear"]
    for name in ("front", "rear"):
        assert settled(robot, name, 3)["processed"] == 3
        assert {i.id for i in robot.wait(f"/mastsam/{name}/instances", 3)[-1].instances} <= seen[name]

    assert maps_told(robot) == {
        "its own, and ids of its own for what other cameras see: without node.pose_topic nobody says where they stand"
    }
    assert robot.call(Trigger, "/mastsam/front/reset", Trigger.Request()).success
    assert robot.call(SetBool, "/mastsam/rear/enable", SetBool.Request(data=False)).success
    for name in ("front", "rear"):
        images[name].publish(robot.image(picture(0, 160, 120), 6_000_000_000))
    fresh = set(labels_of(robot.wait("/mastsam/front/labels", 4)[3]).ravel().tolist()) - {0}
    assert fresh and not fresh & (seen["front"] | seen["rear"])
    assert settled(robot, "rear", 4)["skipped"] == 1
    assert not any(event.kind == TrackEvent.KIND_RESET for event in robot.received["/mastsam/rear/events"])
    assert node.end() == 0 and "Traceback" not in node.log, node.log


def test_a_click_is_taken_by_the_first_camera_that_sees_it(start_node, robot, picture):
    node = start_node(*TWO)
    clicks = robot.publisher(PointStamped, "/clicked_point")
    for name, focal in (("front", 600.0), ("rear", 150.0)):  # the front one sees less
        robot.listen(Image, f"/mastsam/{name}/labels")
        info = CameraInfo(width=160, height=120, k=[focal, 0.0, 79.5, 0.0, focal, 59.5, 0.0, 0.0, 1.0])
        robot.publisher(CameraInfo, f"/{name}/camera_info").publish(info)
    for name in ("front", "rear"):
        robot.publisher(Image, f"/{name}/image").publish(robot.image(picture(), 1_000_000_000))
        robot.wait(f"/mastsam/{name}/labels", 1)
    for x, said in (
        (0.0, "clicked: front: instance"),
        (-0.6, "clicked: rear: instance"),
        (5.0, "clicked point not taken: front: the point falls on (1580, 60), outside the picture of 160x120; rear: "),
    ):
        clicks.publish(PointStamped(header=robot.header(1_000_000_000), point=Point(x=x, y=0.0, z=2.0)))
        node.wait_for(said, 20)
    assert node.log.count("clicked") == 3, node.log


def test_a_fast_camera_does_not_starve_a_slow_one(start_node, robot, picture):
    start_node(*TWO)
    robot.listen(DiagnosticArray, "/diagnostics")
    images = {name: robot.publisher(Image, f"/{name}/image") for name in ("front", "rear")}
    sent = {"front": 0, "rear": 0}

    def send(n: int, *names: str) -> None:
        for name in names:
            sent[name] += 1
            images[name].publish(robot.image(picture(n, 640, 480), 1_000_000_000 + n))

    send(0, "front", "rear")
    for name in images:
        settled(robot, name, 1)
    for n in range(1, 48):
        send(n, *(("front", "rear") if n % 4 == 0 else ("front",)))
        time.sleep(1 / 60)
    time.sleep(2)  # by then the queues are empty, and what follows arrives
    send(48, "front", "rear")
    counts = {name: settled(robot, name, count) for name, count in sent.items()}
    assert counts["front"]["skipped"] > 0, counts
    # Taking turns, the slow camera gets every other step until its images are used up.
    assert counts["rear"]["processed"] >= min(sent["rear"], counts["front"]["processed"] - 2) * 0.5, counts


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("-p", "node.cameras:=front front"), "mastsam_node: node.cameras must be different names"),
        (("-p", "node.cameras:=front re-ar"), "mastsam_node: node.cameras: 're-ar' is no name"),
        (
            ("-p", "node.cameras:=front rear", "-p", "node.image_topic:=/image"),
            "mastsam_node: node.image_topic '/image' is one for all of node.cameras",
        ),
    ],
)
def test_wrong_names_are_one_line(start_node, arguments, line):
    node = start_node(*arguments, ready=False)
    assert node.process.wait(40) == 1
    node.end()
    assert [said for said in node.lines if said.startswith(line)] and "Traceback" not in node.log, node.log


# One world: both cameras are mounted on one robot, and localisation tells where it is.


@pytest.fixture(scope="module")
def views() -> dict[str, list[SceneView]]:
    scene = SampleScene(4, "orbit", 40, 200, 150, objects=5)
    return {name: [scene.render(first + n) for n in range(4)] for name, first in (("front", 0), ("rear", 14))}


def test_cameras_of_one_world_share_map_and_ids(start_node, robot, views, tmp_path):
    tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not there: make build")
    arguments = ("-p", "node.pose_topic:=tf", "-p", "node.depth_topic:=depth", "-p", "node.map_interval_s:=0.0")
    node = start_node(*TWO, *arguments, "-p", f"node.map_file:={tmp_path / 'room'}")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    # By two moving frames: what lies between each camera and the robot differs from frame to frame in this scene.
    moving = robot.publisher(tf2_msgs.TFMessage, "/tf")
    fixed = robot.node.create_publisher(tf2_msgs.TFMessage, "/tf_static", latched)
    fixed.publish(
        tf2_msgs.TFMessage(
            transforms=[robot.transform(f"{name}_link", f"{name}_optical", np.eye(4), 0) for name in views]
        )
    )
    for name in views:
        robot.listen(Image, f"/mastsam/{name}/labels")
        robot.listen(TrackEvent, f"/mastsam/{name}/events")
    robot.listen(MapInstanceArray, "/mastsam/map_instances")
    robot.listen(DiagnosticArray, "/diagnostics")
    senders = {name: {kind: robot.publisher(Image, f"/{name}/{kind}") for kind in ("image", "depth")} for name in views}
    infos = {name: robot.publisher(CameraInfo, f"/{name}/camera_info") for name in views}
    for n in range(4):
        stamp_ns = (n + 1) * 100_000_000
        for name, seen in views.items():
            frame = seen[n].frame
            link = robot.transform("map", f"{name}_link", frame.T_world_camera, stamp_ns)
            moving.publish(tf2_msgs.TFMessage(transforms=[link]))
            infos[name].publish(CameraInfo(width=200, height=150, k=frame.K.ravel().tolist()))
            robot.wait_until(lambda: False, 0.5 if n == 0 else 0.1)  # they come by other ways than the images
            image = robot.image(frame.image, stamp_ns)
            depth = Image(height=150, width=200, step=800, encoding="32FC1", data=frame.depth.tobytes())
            depth.header = image.header
            image.header.frame_id = f"{name}_optical"
            senders[name]["depth"].publish(depth)
            senders[name]["image"].publish(image)
            robot.wait(f"/mastsam/{name}/labels", n + 1)
    assert "no pose from outside" not in node.log, node.log
    ids = {}
    for name, seen in views.items():
        labels = labels_of(robot.received[f"/mastsam/{name}/labels"][-1])
        for number in np.unique(seen[-1].instance).tolist():
            if number and (seen[-1].instance == number).sum() >= 60:
                ids.setdefault(number, {})[name] = int(np.bincount(labels[seen[-1].instance == number]).argmax())
    both = [found for found in ids.values() if len(found) == 2]
    assert len(both) >= 5 and np.mean([found["front"] == found["rear"] > 0 for found in both]) >= 0.8, ids
    assert robot.wait_until(lambda: robot.received["/mastsam/map_instances"])
    known = {instance.id for instance in robot.received["/mastsam/map_instances"][-1].instances}
    assert {found["front"] for found in both} & known and robot.node.count_publishers("/mastsam/front/map") == 0
    assert maps_told(robot) == {"one for all cameras"}
    # One camera that starts anew leaves the map to the others; all of them together do not.
    said = {}
    for reset in ("", "/mastsam/front/reset", "/mastsam/reset"):
        assert not reset or robot.call(Trigger, reset, Trigger.Request()).success
        saved = robot.call(Trigger, "/mastsam/rear/save_map", Trigger.Request())
        assert saved.success, saved.message
        said[reset] = int(saved.message.split()[-2])
    assert said[""] == said["/mastsam/front/reset"] > 5 and said["/mastsam/reset"] == 0
    assert {file.name for file in tmp_path.glob("room*")} == {"room.ply", "room.json", "room.npz"}
    assert node.end() == 0 and "Traceback" not in node.log, node.log
