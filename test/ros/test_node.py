"""The node as its own process, over real DDS."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mastsam_ros.msg", reason="the messages are not built: make build")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger

from mastsam_ros.io import point_cloud2
from mastsam_ros.msg import InstanceArray, TrackEvent
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.types import Frame

RELIABLE = ("-p", "node.reliability:=reliable")
K = np.array([[150.0, 0, 79.5], [0, 150, 59.5], [0, 0, 1]])


def labels_of(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, "<u2").reshape(message.height, message.width)


def stamp_of(message) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def test_every_output_carries_the_input_stamp_and_equals_the_offline_result(start_node, robot, picture):
    node = start_node(*RELIABLE, "-p", "node.depth_topic:=depth")
    robot.listen(Image, "/mastsam/labels", "/mastsam/overlay")
    robot.listen(InstanceArray, "/mastsam/instances")
    robot.listen(PointCloud2, "/mastsam/points")
    robot.listen(TrackEvent, "/mastsam/events")
    robot.listen(DiagnosticArray, "/diagnostics")
    images, depths = robot.publisher(Image, "/image"), robot.publisher(Image, "/depth")
    infos = robot.publisher(CameraInfo, "/camera_info")
    infos.publish(CameraInfo(width=160, height=120, k=K.ravel().tolist()))
    time.sleep(0.5)

    depth = np.full((120, 160), 2000, "<u2")
    depth[:10] = 0
    mastsam = create_mastsam()
    for n in range(4):
        stamp = 1_700_000_000_123_456_789 + n * 33_000_000
        image = picture(2 * n)
        images.publish(robot.image(image, stamp))
        header = robot.header(stamp + 1_000_000)  # depth may come a little later
        raw = {"16UC1": depth, "32FC1": depth.astype("<f4") * np.float32(0.001)}
        encoding = "16UC1" if n % 2 else "32FC1"
        content = raw[encoding]
        depths.publish(
            Image(
                header=header,
                height=120,
                width=160,
                step=160 * content.itemsize,
                encoding=encoding,
                data=content.tobytes(),
            )
        )
        expected = mastsam.step(Frame(image, stamp, "camera_optical", K, depth.astype(np.float32) / 1000))
        for topic in ("labels", "instances", "points", "overlay"):
            message = robot.wait(f"/mastsam/{topic}", n + 1)[n]
            assert stamp_of(message) == stamp and message.header.frame_id == "camera_optical", topic
        message = robot.received["/mastsam/labels"][n]
        assert message.encoding == "mono16" and np.array_equal(labels_of(message), expected.labels)

    assert expected.points is not None and expected.tracks
    cloud = robot.received["/mastsam/points"][-1]
    fields = [point_cloud2.Field(f.name, f.offset, f.datatype, f.count) for f in cloud.fields]
    points = point_cloud2.unpack(fields, cloud.point_step, cloud.width * cloud.height, cloud.data)
    assert np.array_equal(points.instance, expected.points.instance) and np.allclose(points.xyz, expected.points.xyz)

    instances = robot.received["/mastsam/instances"][-1]
    assert (instances.width, instances.height) == (160, 120)
    assert [i.id for i in instances.instances] == [track.id for track in expected.tracks]
    assert any(i.has_position and abs(i.position.z - 2.0) < 0.1 for i in instances.instances)
    assert any(event.kind == TrackEvent.KIND_BORN for event in robot.received["/mastsam/events"])
    assert not any(event.kind == TrackEvent.KIND_RESET for event in robot.received["/mastsam/events"])

    assert robot.settled_counts(4)["processed"] == 4
    values = robot.counts()
    assert values["model state"] == "ready" and float(values["memory MB"]) > 1
    assert {"match ms p50, p95", "latency ms p50, p95", "total ms p50, p95"} <= set(values)

    status = node.end(signal.SIGINT)
    assert status == 0 and "Traceback" not in node.log, node.log


def test_the_latest_frame_wins_and_the_counts_add_up(start_node, robot, picture):
    start_node(*RELIABLE)
    robot.listen(Image, "/mastsam/labels")
    robot.listen(DiagnosticArray, "/diagnostics")
    images = robot.publisher(Image, "/image")
    sent = 40
    for n in range(sent):
        images.publish(robot.image(picture(n, 640, 480), 1_000_000_000 + n))
        time.sleep(1 / 60)
    counts = robot.settled_counts(sent)
    assert counts["received"] == sent and counts["failed"] == 0
    assert counts["skipped"] > 0 and counts["processed"] > 0
    stamps = [stamp_of(message) for message in robot.wait("/mastsam/labels", counts["processed"])]
    assert len(stamps) == counts["processed"] and stamps == sorted(set(stamps))
    assert stamps[-1] == 1_000_000_000 + sent - 1, "the newest frame was dropped"


def test_bad_input_is_told_in_one_line_and_the_node_lives_on(start_node, robot, picture):
    node = start_node(*RELIABLE)
    robot.listen(Image, "/mastsam/labels")
    robot.listen(TrackEvent, "/mastsam/events")
    robot.listen(DiagnosticArray, "/diagnostics")
    images = robot.publisher(Image, "/image")
    header = robot.header(1_000_000_000)
    bad = [
        Image(header=header),
        Image(header=header, height=4, width=4, step=12, encoding="64FC9", data=bytes(48)),
        Image(header=header, height=4, width=4, step=12, encoding="rgb8", data=bytes(47)),
        Image(header=header, height=4, width=4, step=3, encoding="rgb8", data=bytes(48)),
        Image(header=header, height=2**32 - 1, width=2**32 - 1, step=2**32 - 1, encoding="rgb8"),
        Image(header=header, height=1, width=1, step=3, encoding="rgb8", data=bytes(3)),
    ]
    for number, message in enumerate(bad):
        images.publish(message)
        assert robot.settled_counts(number + 1)["failed"] == number + 1
    said = [line for line in node.lines if "image dropped" in line]
    assert 1 <= len(said) < len(bad), node.log
    assert robot.received["/diagnostics"][-1].status[0].level == DiagnosticStatus.WARN

    def ids(number, image, stamp):
        images.publish(robot.image(image, stamp))
        message = robot.wait("/mastsam/labels", number)[number - 1]
        assert (message.height, message.width) == image.shape[:2]
        return set(np.unique(labels_of(message)).tolist()) - {0}

    def resets():
        return [event.reason for event in robot.received["/mastsam/events"] if event.kind == TrackEvent.KIND_RESET]

    first = ids(1, picture(), 2_000_000_000)
    assert first and ids(2, picture(1), 2_033_000_000) & first and not resets()
    black = np.zeros((120, 160, 3), np.uint8)
    assert not ids(3, black, 2_066_000_000)
    assert ids(4, picture(2), 2_099_000_000) & first

    other = ids(5, picture(0, 200, 150), 2_133_000_000)
    assert other and not other & first
    robot.wait_until(lambda: len(resets()) == 1)
    assert "200x150" in resets()[-1]

    looped = ids(6, picture(1, 200, 150), 1_000_000_000)
    assert looped and not looped & other
    robot.wait_until(lambda: len(resets()) == 2)
    assert "jumped back by 1.133 s" in resets()[-1]
    node.wait_for("tracks start anew: stamps jumped back")
    assert node.process.poll() is None and "Traceback" not in node.log


def test_compressed_images_services_and_parameters(start_node, robot, picture):
    reliable = "qos_overrides./camera/jpeg.subscription.reliability:=reliable"
    arguments = ("-p", "node.compressed:=true", "-r", "image:=/camera/jpeg", "-r", "__ns:=/robot1")
    node = start_node("-p", reliable, *arguments)
    robot.listen(Image, "/robot1/mastsam/labels")
    robot.listen(TrackEvent, "/robot1/mastsam/events")
    robot.listen(DiagnosticArray, "/diagnostics")
    images = robot.publisher(CompressedImage, "/camera/jpeg")

    def send(stamp, kind="jpeg"):
        content = cv2.imencode(f".{kind}", picture()[:, :, ::-1])[1].tobytes()
        images.publish(CompressedImage(header=robot.header(stamp), format=kind, data=content))

    def set_parameters(**values):
        request = SetParametersAtomically.Request()
        for name, value in values.items():
            content = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)
            request.parameters.append(Parameter(name=name.replace("__", "."), value=content))
        return robot.call(SetParametersAtomically, "/robot1/mastsam/set_parameters_atomically", request).result

    send(1_000_000_000)
    robot.wait("/robot1/mastsam/labels", 1)
    assert set_parameters(tracker__update_interval=2, flow__scale=1).successful
    refused = set_parameters(tracker__update_interval=3, frame__working_pixels=-2)
    assert not refused.successful and "working_pixels" in refused.reason
    send(2_000_000_000, "png")
    robot.wait("/robot1/mastsam/labels", 2)

    assert robot.call(Trigger, "/robot1/mastsam/reset", Trigger.Request()).success
    send(3_000_000_000)
    robot.wait("/robot1/mastsam/labels", 3)
    robot.wait_until(lambda: any("~/reset" in event.reason for event in robot.received["/robot1/mastsam/events"]))
    assert any("~/reset" in event.reason for event in robot.received["/robot1/mastsam/events"])

    assert robot.call(SetBool, "/robot1/mastsam/enable", SetBool.Request(data=False)).success
    send(4_000_000_000)
    assert robot.settled_counts(4)["skipped"] == 1
    images.publish(CompressedImage(header=robot.header(5_000_000_000), format="jpeg", data=b"\xff\xd8 no picture"))
    robot.call(SetBool, "/robot1/mastsam/enable", SetBool.Request(data=True))
    images.publish(CompressedImage(header=robot.header(6_000_000_000), format="jpeg", data=b"\xff\xd8 no picture"))
    node.wait_for("image dropped")
    send(7_000_000_000)
    robot.wait("/robot1/mastsam/labels", 4)
    assert node.end(signal.SIGTERM) == 0 and "Traceback" not in node.log, node.log


def test_compressed_depth_gives_the_points_of_raw_depth(start_node, robot, picture):
    start_node(*RELIABLE, "-p", "node.depth_topic:=depth", "-p", "node.compressed_depth:=true")
    robot.listen(PointCloud2, "/mastsam/points")
    robot.listen(DiagnosticArray, "/diagnostics")
    images, depths = robot.publisher(Image, "/image"), robot.publisher(CompressedImage, "/depth")
    infos = robot.publisher(CameraInfo, "/camera_info")
    infos.publish(CameraInfo(width=160, height=120, k=K.ravel().tolist()))
    time.sleep(0.5)
    millimetres = np.tile(np.arange(1000, 2600, 10, dtype=np.uint16), (120, 1))
    png = cv2.imencode(".png", millimetres)[1].tobytes()
    quantised = np.round(100 / (millimetres / 1000) + 2.0).astype(np.uint16)  # 32FC1 as inverse depth
    inverse = struct.pack("<Iff", 0, 100.0, 2.0) + cv2.imencode(".png", quantised)[1].tobytes()
    forms = {"16UC1; compressedDepth png": bytes(12) + png, "png": png, "32FC1; compressedDepth png": inverse}
    for n, (form, content) in enumerate(forms.items()):
        stamp = (n + 1) * 1_000_000_000
        depths.publish(CompressedImage(header=robot.header(stamp), format=form, data=content))
        images.publish(robot.image(picture(), stamp))
        cloud = robot.wait("/mastsam/points", n + 1)[n]
        assert stamp_of(cloud) == stamp
        fields = [point_cloud2.Field(f.name, f.offset, f.datatype, f.count) for f in cloud.fields]
        z = point_cloud2.unpack(fields, cloud.point_step, cloud.width * cloud.height, cloud.data).xyz[:, 2]
        expected = millimetres[::2, ::2].ravel() / 1000
        assert len(z) == len(expected) and np.allclose(np.sort(z), np.sort(expected), rtol=0.03), form
    depths.publish(CompressedImage(header=robot.header(4_000_000_000), format="jpeg", data=png))
    images.publish(robot.image(picture(), 4_000_000_000))
    assert robot.settled_counts(4)["failed"] == 1
    status = robot.received["/diagnostics"][-1].status[0]
    assert "unknown compressed depth format" in status.message


def test_topics_of_image_transport_have_its_names(start_node, robot, picture):
    transports = ("-p", "node.image_transport:=compressed", "-p", "node.depth_transport:=compressedDepth")
    start_node(*RELIABLE, "-p", "node.image_topic:=/color/image_raw", "-p", "node.depth_topic:=depth", *transports)
    robot.listen(PointCloud2, "/mastsam/points")
    images = robot.publisher(CompressedImage, "/color/image_raw/compressed")
    depths = robot.publisher(CompressedImage, "/depth/compressedDepth")
    infos = robot.publisher(CameraInfo, "/camera_info")
    infos.publish(CameraInfo(width=160, height=120, k=K.ravel().tolist()))
    time.sleep(0.5)
    depth = bytes(12) + cv2.imencode(".png", np.full((120, 160), 1500, np.uint16))[1].tobytes()
    header, jpeg = robot.header(1_000_000_000), cv2.imencode(".jpg", picture()[:, :, ::-1])[1].tobytes()
    depths.publish(CompressedImage(header=header, format="16UC1; compressedDepth png", data=depth))
    images.publish(CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=jpeg))
    assert robot.wait("/mastsam/points", 1)[0].width > 0


def test_a_silent_topic_is_explained(start_node, robot):
    node = start_node(*RELIABLE, "-p", "node.input_timeout_s:=1.0")
    node.wait_for("nobody publishes it")
    assert "node.image_topic" in node.log
    robot.node.create_publisher(Image, "/image", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    node.wait_for("QoS is incompatible (reliability), nothing of it arrives; set node.reliability:=best_effort", 10)


def test_every_encoding_that_cameras_send_is_labelled(start_node, robot, picture):
    start_node(*RELIABLE)
    robot.listen(Image, "/mastsam/labels")
    robot.listen(DiagnosticArray, "/diagnostics")
    images = robot.publisher(Image, "/image")
    rgb = picture()
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    two = np.stack([np.full_like(grey, 128), grey], axis=2)  # colour difference, lightness
    pixels = {
        "rgb8": rgb,
        "bgr8": rgb[:, :, ::-1],
        "rgba8": np.dstack([rgb, grey]),
        "bgra8": np.dstack([rgb[:, :, ::-1], grey]),
        "mono8": grey,
        "mono16": grey.astype("<u2") << 8,
        "yuv422": two,
        "yuv422_yuy2": two[:, :, ::-1],
        **{f"bayer_{pattern}8": grey for pattern in ("rggb", "bggr", "gbrg", "grbg")},
    }
    for number, (encoding, content) in enumerate(pixels.items(), start=1):
        rows = np.ascontiguousarray(content).reshape(120, -1).view(np.uint8)
        padded = np.pad(rows, ((0, 0), (0, 7)))  # honour step
        header = robot.header(number * 100_000_000)
        message = Image(header=header, height=120, width=160, step=padded.shape[1], encoding=encoding)
        message.data = padded.tobytes()
        images.publish(message)
        labels = labels_of(robot.wait("/mastsam/labels", number)[number - 1])
        assert labels.any() and len(np.unique(labels)) > 2, encoding
    big = Image(header=robot.header(9_000_000_000), height=120, width=160, step=320, encoding="mono16", is_bigendian=1)
    big.data = (grey.astype(">u2") << 8).astype(">u2").tobytes()
    images.publish(big)
    assert labels_of(robot.wait("/mastsam/labels", len(pixels) + 1)[-1]).any()
    assert robot.settled_counts(len(pixels) + 1)["failed"] == 0


def test_distortion_is_refused_unless_the_images_are_rectified(start_node, robot, picture):
    node = start_node(*RELIABLE, "-p", "node.depth_topic:=depth")
    robot.listen(Image, "/mastsam/labels")
    robot.listen(PointCloud2, "/mastsam/points")
    images, depths = robot.publisher(Image, "/image"), robot.publisher(Image, "/depth")
    infos = robot.publisher(CameraInfo, "/camera_info")
    p = np.zeros((3, 4))
    p[:, :3] = K
    info = CameraInfo(width=160, height=120, k=K.ravel().tolist(), p=p.ravel().tolist(), d=[0.2, 0.1, 0.0, 0.0])
    infos.publish(info)
    robot.listen(DiagnosticArray, "/diagnostics")
    time.sleep(0.5)

    def told(text, yes=True):
        status = robot.received["/diagnostics"]
        return robot.wait_until(lambda: status and status[-1].status[0].message.startswith(text) == yes, 10)

    def send(number):
        header = robot.header(number * 100_000_000)
        depth = Image(header=header, height=120, width=160, step=320, encoding="16UC1")
        depth.data = np.full((120, 160), 2000, "<u2").tobytes()
        depths.publish(depth)
        images.publish(robot.image(picture(), number * 100_000_000))
        robot.wait("/mastsam/labels", number)

    send(1)
    node.wait_for("camera_info tells of lens distortion: no points; rectify the images")
    assert not robot.received["/mastsam/points"] and told("camera_info tells of lens distortion")
    rectified = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=True)
    request = SetParametersAtomically.Request(parameters=[Parameter(name="node.rectified", value=rectified)])
    assert robot.call(SetParametersAtomically, "/mastsam/set_parameters_atomically", request).result.successful
    send(2)
    assert stamp_of(robot.wait("/mastsam/points", 1)[0]) == 200_000_000
    assert told("camera_info", yes=False), robot.received["/diagnostics"][-1].status[0].message
    assert "camera_info has changed" not in node.log
    info.p[0] = info.p[5] = 180.0
    infos.publish(info)
    time.sleep(0.5)
    send(3)
    node.wait_for(f"camera_info has changed: focal length {K[0, 0]:.1f} -> 180.0, centre", 10)


def test_subscribers_that_hear_nothing_are_told_of_once(start_node, robot):
    node = start_node()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for _ in range(3):
        robot.node.create_subscription(Image, "/mastsam/labels", print, latched)
    robot.node.create_subscription(PointCloud2, "/mastsam/map", print, latched)
    said = "~/labels: a subscriber's QoS is incompatible (durability), it hears nothing; offered is reliable, volatile"
    node.wait_for(said, 20)
    time.sleep(1)
    assert node.log.count("hears nothing") == 1 and "incompatible QoS" not in node.log, node.log


def test_stamps_are_of_the_ros_clock_and_latencies_of_the_steady_one(start_node, robot, picture):
    start_node(*RELIABLE, "-p", "use_sim_time:=true")
    robot.listen(DiagnosticArray, "/diagnostics")
    images, clocks = robot.publisher(Image, "/image"), robot.publisher(Clock, "/clock")
    assert robot.wait_until(lambda: robot.received["/diagnostics"]), (
        "diagnostics go on while simulated time stands still"
    )
    images.publish(robot.image(picture(), 1_000_000_000))
    assert robot.settled_counts(1)["processed"] == 1
    assert float(robot.counts()["latency ms p50, p95"].split(",")[0]) > 0
    clocks.publish(Clock(clock=robot.header(77_000_000_000).stamp))
    assert robot.wait_until(lambda: stamp_of(robot.received["/diagnostics"][-1]) == 77_000_000_000)


def test_a_depth_topic_that_dies_costs_the_points_only(start_node, robot, picture):
    node = start_node(*RELIABLE, "-p", "node.input_timeout_s:=1.0", "-p", "node.depth_topic:=depth")
    robot.listen(Image, "/mastsam/labels")
    robot.listen(PointCloud2, "/mastsam/points")
    robot.listen(DiagnosticArray, "/diagnostics")
    images, infos = robot.publisher(Image, "/image"), robot.publisher(CameraInfo, "/camera_info")
    infos.publish(CameraInfo(width=160, height=120, k=K.ravel().tolist()))
    sent = 0

    def send(depths=None):
        nonlocal sent
        sent += 1
        stamp = sent * 100_000_000
        if depths is not None:
            depth = Image(header=robot.header(stamp), height=120, width=160, step=320, encoding="16UC1")
            depth.data = np.full((120, 160), 2000, "<u2").tobytes()
            depths.publish(depth)
        images.publish(robot.image(picture(), stamp))

    def send_until(condition, depths=None):
        for _ in range(400):
            send(depths)
            if robot.wait_until(condition, 0.1):
                return
        raise AssertionError(node.log)

    send_until(lambda: robot.received["/mastsam/labels"])
    node.wait_for("labels go on without depth: nothing came for")
    assert "nobody publishes it; set node.depth_topic" in node.log and not robot.received["/mastsam/points"]
    depths = robot.publisher(Image, "/depth")
    send_until(lambda: robot.received["/mastsam/points"], depths)
    robot.node.destroy_publisher(depths)
    gone = stamp_of(robot.received["/mastsam/points"][-1]) + 2_000_000_000
    send_until(lambda: stamp_of(robot.received["/mastsam/labels"][-1]) > gone)
    counts = robot.settled_counts(sent)
    assert counts["unpaired"] > 0 and counts["processed"] > 2 and counts["failed"] == 0
    assert sum("labels go on without depth" in line for line in node.lines) <= 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("-p", "tracker.nonsense:=1"), "mastsam_node: unknown setting 'tracker.nonsense'"),
        (("-p", "frame.working_pixels:=-5"), "mastsam_node: frame.working_pixels must be in"),
        (("-p", "node.image_topic:=no topic"), "mastsam_node: node.image_topic 'no topic' is not a topic name"),
        (("--nonsense",), "mastsam_node: unknown behind --ros-args: ['--nonsense']"),
    ],
)
def test_a_wrong_start_is_one_line(start_node, arguments, line):
    node = start_node(*arguments, ready=False)
    assert node.process.wait(40) == 1
    node.end()
    assert [said for said in node.lines if said.startswith(line)] and "Traceback" not in node.log, node.log


def test_what_a_start_does_not_take_or_cannot_do_is_said_at_once(start_node, tmp_path):
    (tmp_path / "file").touch()
    node = start_node("-p", f"node.map_file:={tmp_path / 'file' / 'room'}", "--", "--cameras", "front")
    warnings = [line.partition("[mastsam]: ")[2] for line in node.lines if "[WARN]" in line]
    assert warnings == [
        "not taken: --cameras front; parameters (-p name:=value) and remappings (-r from:=to) stand behind --ros-args",
        f"the map cannot be saved: nothing can be written to {tmp_path / 'file'}",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.4, 1.8])
def test_a_signal_while_starting_leaves_no_traceback_and_no_process(start_node, number, delay):
    node = start_node(ready=False)
    time.sleep(delay)
    node.end(number)
    assert "Traceback" not in node.log, node.log
    with pytest.raises(ProcessLookupError):
        os.kill(node.process.pid, 0)


def test_missing_ros_is_one_line():
    code = "import sys; sys.modules['rclpy'] = None; from mastsam_ros.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "ROS 2 is not there" in done.stderr and "pip install" in done.stderr
