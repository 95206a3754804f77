"""The map, the camera's place in it, and poses from outside, over real DDS."""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")
pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not there: make build")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from mastsam_ros.geometry.transforms import transform
from mastsam_ros.io import point_cloud2
from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.msg import MapInstanceArray
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.types import Frame

ARGUMENTS = ("-p", "node.reliability:=reliable", "-p", "node.depth_topic:=depth")
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
T_BASE_CAMERA = np.array([[0, 0, 1, 0.1], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [view.frame for view in SampleScene(1, "orbit", 10, 160, 120, objects=5, rate_hz=5)][:4]


class Camera:
    """Sends frames with depth and intrinsics to the node and waits for the answer."""

    def __init__(self, robot) -> None:
        self.robot = robot
        robot.listen(Image, "/mastsam/labels")
        robot.listen(Odometry, "/mastsam/odometry")
        robot.listen(DiagnosticArray, "/diagnostics")
        self.images, self.depths = robot.publisher(Image, "/image"), robot.publisher(Image, "/depth")
        self.infos = robot.publisher(CameraInfo, "/camera_info")
        self.sent = 0

    def send(self, frame: Frame) -> None:
        height, width = frame.depth.shape
        header = self.robot.header(frame.stamp_ns)
        self.infos.publish(CameraInfo(header=header, width=width, height=height, k=frame.K.ravel().tolist()))
        if not self.sent:
            self.robot.wait_until(lambda: False, 0.5)  # the intrinsics come by another way than the images
        data = frame.depth.astype("<f4").tobytes()
        self.depths.publish(
            Image(header=header, height=height, width=width, step=4 * width, encoding="32FC1", data=data)
        )
        self.images.publish(self.robot.image(frame.image, frame.stamp_ns))
        self.sent += 1
        self.robot.wait("/mastsam/labels", self.sent)

    def status(self, condition) -> DiagnosticStatus:
        """The node's next status that fulfils the condition on its values."""
        said = self.robot.received["/diagnostics"]
        said.clear()
        assert self.robot.wait_until(lambda: any(condition(values(m)) for m in list(said))), [values(m) for m in said]
        return next(m.status[0] for m in said if condition(values(m)))


def values(message: DiagnosticArray) -> dict[str, str]:
    return {pair.key: pair.value for pair in message.status[0].values}


def own_pose(frame: Frame) -> Frame:
    return Frame(frame.image, frame.stamp_ns, "camera_optical", frame.K, frame.depth)


def pose_of(message: Odometry) -> np.ndarray:
    place, turn = message.pose.pose.position, message.pose.pose.orientation
    return transform((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))


def told_of_map(robot, count: int) -> TransformStamped:
    """The last of so many transforms that have the map as their parent."""

    def found() -> list[TransformStamped]:
        sent = [one for message in robot.received["/tf"] for one in message.transforms]
        return [one for one in sent if one.header.frame_id == "map"]

    assert robot.wait_until(lambda: len(found()) >= count)
    return found()[-1]


def latched(robot, kind, topic: str) -> list:
    got: list = []
    robot.node.create_subscription(kind, topic, got.append, LATCHED)
    assert robot.wait_until(lambda: got), f"nothing on {topic} for who joins late"
    return got


def test_who_joins_late_gets_the_map_and_it_goes_on_the_next_day(start_node, robot, frames, tmp_path):
    arguments = (*ARGUMENTS, "-p", f"node.map_file:={tmp_path / 'room'}", "-p", "node.map_interval_s:=0.0")
    node = start_node(*arguments)
    node.wait_for("no map at")
    camera, mastsam = Camera(robot), create_mastsam()
    for frame in frames[:3]:
        camera.send(frame)
        result = mastsam.step(own_pose(frame))
    expected = mastsam.world_map()
    for message, frame in zip(robot.wait("/mastsam/odometry", 3), frames, strict=False):
        assert (message.header.frame_id, message.child_frame_id) == ("map", "camera_optical")
        assert message.header.stamp == robot.header(frame.stamp_ns).stamp
    assert np.allclose(pose_of(message), result.T_world_camera, atol=1e-6)
    assert np.allclose(np.diag(np.reshape(message.pose.covariance, (6, 6))), 0.02**2)
    assert np.all(np.diag(np.reshape(message.twist.covariance, (6, 6))) >= 1e6), "a filter must not believe the zeros"

    cloud = latched(robot, PointCloud2, "/mastsam/map")[-1]
    fields = [point_cloud2.Field(f.name, f.offset, f.datatype, f.count) for f in cloud.fields]
    got = point_cloud2.unpack(fields, cloud.point_step, cloud.width * cloud.height, cloud.data)
    assert cloud.header.frame_id == "map" and cloud.header.stamp == robot.header(frames[2].stamp_ns).stamp
    assert np.array_equal(got.xyz, expected.cloud.xyz) and np.array_equal(got.instance, expected.cloud.instance)
    table = latched(robot, MapInstanceArray, "/mastsam/map_instances")[-1]
    assert table.metric and [i.id for i in table.instances] == [i.id for i in expected.instances]
    assert [i.views for i in table.instances] == [i.views for i in expected.instances]
    camera.status(lambda found: found["pose"] == "own" and float(found["consistency %"]) > 50)

    answer = robot.call(Trigger, "/mastsam/save_map", Trigger.Request())
    assert answer.success and f"{len(expected.instances)} instances" in answer.message
    (tmp_path / "room.ply").unlink()
    assert node.end(signal.SIGINT) == 0 and "Traceback" not in node.log, node.log
    assert "map saved to" in node.log and (tmp_path / "room.ply").stat().st_size > 1000

    again = start_node(*arguments)
    again.wait_for(f"{len(expected.instances)} instances")
    assert len(latched(robot, MapInstanceArray, "/mastsam/map_instances")) >= 1, "before any image"
    camera.send(frames[1])
    camera.send(frames[0])
    camera.send(frames[1])
    robot.wait("/mastsam/odometry", 6)
    assert np.allclose(
        pose_of(robot.received["/mastsam/odometry"][-1])[:3, 3],
        pose_of(robot.received["/mastsam/odometry"][1])[:3, 3],
        atol=0.02,
    ), "another world"
    again.wait_for("tracks start anew: stamps jumped back", 20)
    saved = robot.call(Trigger, "/mastsam/save_map", Trigger.Request()).message
    assert int(saved.split()[-2]) >= len(expected.instances) - 1, "the map of yesterday outlives a clock that was set"
    assert robot.call(Trigger, "/mastsam/reset", Trigger.Request()).success
    assert " 0 instances" in robot.call(Trigger, "/mastsam/save_map", Trigger.Request()).message


def test_without_a_file_the_map_is_not_saved_and_a_place_that_cannot_be_written_is_told(start_node, robot, tmp_path):
    start_node(*ARGUMENTS, "-r", "__node:=other")
    answer = robot.call(Trigger, "/other/save_map", Trigger.Request())
    assert not answer.success and "node.map_file" in answer.message
    (tmp_path / "file").touch()
    start_node(*ARGUMENTS, "-p", f"node.map_file:={tmp_path / 'file' / 'room'}")
    answer = robot.call(Trigger, "/mastsam/save_map", Trigger.Request())
    assert not answer.success and "cannot write the map" in answer.message


def test_own_odometry_on_tf_as_rep_105_has_it(start_node, robot, frames):
    start_node(*ARGUMENTS, "-p", "node.publish_tf:=true", "-p", "node.tf_child_frame:=odom")
    robot.listen(TFMessage, "/tf")
    camera = Camera(robot)
    fixed = robot.node.create_publisher(TFMessage, "/tf_static", LATCHED)
    fixed.publish(TFMessage(transforms=[robot.transform("base", "camera_optical", T_BASE_CAMERA, 0)]))
    moving = robot.publisher(TFMessage, "/tf")
    for n, frame in enumerate(frames[:2]):
        T_odom_base = np.eye(4)
        T_odom_base[0, 3] = 0.5 * n
        moving.publish(TFMessage(transforms=[robot.transform("odom", "base", T_odom_base, frame.stamp_ns)]))
        robot.wait_until(lambda: False, 0.3)
        camera.send(frame)
        T_map_camera = pose_of(robot.wait("/mastsam/odometry", n + 1)[n])
        told = told_of_map(robot, n + 1)
        assert told.child_frame_id == "odom" and told.header.stamp == robot.header(frame.stamp_ns).stamp
        move, turn = told.transform.translation, told.transform.rotation
        T_map_odom = transform((move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w))
        assert np.allclose(T_map_odom @ T_odom_base @ T_BASE_CAMERA, T_map_camera, atol=1e-6)


@pytest.mark.parametrize("source", ["tf", "/vio"])
def test_poses_from_outside_take_precedence_and_are_missed_aloud(start_node, robot, frames, source):
    node = start_node(*ARGUMENTS, "-p", f"node.pose_topic:={source}", "-p", "node.pose_tolerance_ms:=150.0")
    camera = Camera(robot)
    camera.send(frames[0])
    node.wait_for("no pose from outside: nobody says where 'map' and 'camera_optical' is: no transform has come")
    status = camera.status(lambda found: found["pose"] == "lost")
    assert status.level == DiagnosticStatus.WARN and "no pose from outside" in status.message

    fixed = robot.node.create_publisher(TFMessage, "/tf_static", LATCHED)
    fixed.publish(TFMessage(transforms=[robot.transform("base", "camera_optical", T_BASE_CAMERA, 0)]))
    moving = robot.publisher(TFMessage if source == "tf" else Odometry, "/tf" if source == "tf" else source)

    def place(frame: Frame, offset_ns: int) -> None:
        T = frame.T_world_camera @ np.linalg.inv(T_BASE_CAMERA)
        transform_ = robot.transform("map", "base", T, frame.stamp_ns + offset_ns)
        if source == "tf":
            moving.publish(TFMessage(transforms=[transform_]))
            return
        message = Odometry(header=transform_.header, child_frame_id="base")
        where, move = message.pose.pose.position, transform_.transform.translation
        where.x, where.y, where.z = move.x, move.y, move.z
        message.pose.pose.orientation = transform_.transform.rotation
        moving.publish(message)

    for offset in (-20_000_000, 20_000_000):
        place(frames[1], offset)
    robot.wait_until(lambda: False, 0.5)
    camera.send(frames[1])
    got = robot.wait("/mastsam/odometry", 1)[0]
    assert got.header.stamp == robot.header(frames[1].stamp_ns).stamp, "nothing was told before there was a world"
    assert np.allclose(pose_of(got), frames[1].T_world_camera, atol=1e-6)
    assert not np.any(got.pose.covariance), "whoever gave the pose knows how sure it is"
    camera.status(lambda found: found["pose"] == "given")
    # The next pose does not come: own odometry leads on in the same world, and that is said.
    camera.send(frames[2])
    node.wait_for("nearest in time is 180 ms too old, at most 150 ms are tolerated")
    on = pose_of(robot.wait("/mastsam/odometry", 2)[1])
    assert np.allclose(on[:3, 3], frames[2].T_world_camera[:3, 3], atol=0.03)
    assert "Traceback" not in node.log
