"""The node's topics and services, each declared once: the node and docs/reference.md are made from these tables."""

from __future__ import annotations

from dataclasses import dataclass

from mastsam_ros.types import EventKind


@dataclass(frozen=True)
class Topic:
    """A topic that the node publishes. name: below the camera's prefix, or absolute. type: `package/msg/Name`.

    depth: messages kept for a slow subscriber. latched: transient_local, who joins late gets the last one.
    """

    name: str
    type: str
    meaning: str
    depth: int = 5
    latched: bool = False


@dataclass(frozen=True)
class Input:
    """A topic that the node subscribes to. parameter: the setting that names it, or the topic itself. types: the first,
    or the second where `compressed`, another setting, says so."""

    parameter: str
    types: tuple[str, ...]
    meaning: str
    compressed: str = ""


@dataclass(frozen=True)
class Service:
    """A service of the node. name: below the camera's prefix. type: `package/srv/Name`."""

    name: str
    type: str
    meaning: str


INPUTS = (
    Input(
        "node.image_topic",
        ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
        "Colour images: rgb8, bgr8, rgba8, bgra8, mono8, mono16, yuv422, yuyv, Bayer 8 bit; compressed: jpeg, png.",
        "node.compressed",
    ),
    Input("node.camera_info_topic", ("sensor_msgs/msg/CameraInfo",), "Intrinsics; the last ones that came hold."),
    Input(
        "node.depth_topic",
        ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
        "Depth registered to the colour image: 32FC1 metres or 16UC1 millimetres; compressed: png or rvl.",
        "node.compressed_depth",
    ),
    Input(
        "node.pose_topic",
        ("nav_msgs/msg/Odometry",),
        "Poses from outside, in place of own odometry. Where it is `tf`, they are read from /tf.",
    ),
    Input("/tf", ("tf2_msgs/msg/TFMessage",), "With node.pose_topic, or with node.publish_tf and node.tf_child_frame."),
    Input("/tf_static", ("tf2_msgs/msg/TFMessage",), "As /tf; how the camera is mounted, mostly."),
    Input(
        "/clicked_point",
        ("geometry_msgs/msg/PointStamped",),
        "RViz's Publish Point: what is seen there becomes an instance. In the camera's frame, in node.map_frame, or in"
        " one that /tf leads to where it is read.",
    ),
)

_LARGE = 2
"""Depth of what is a megabyte and more: for a subscriber that once fell behind, DDS keeps so many for good."""

OUTPUTS = {
    topic.name: topic
    for topic in (
        Topic("labels", "sensor_msgs/msg/Image", "mono16, the id of every pixel, 0 = unlabelled"),
        Topic("instances", "mastsam_ros/msg/InstanceArray", "id, state, score, box, area, age, 3D position and size"),
        Topic(
            "points",
            "sensor_msgs/msg/PointCloud2",
            "x, y, z, rgb, instance (uint32), confidence; camera's frame, <frame>_unscaled where not metric",
            depth=_LARGE,
        ),
        Topic("overlay", "sensor_msgs/msg/Image", "rgb8, the picture with its masks; a colour is an id", depth=_LARGE),
        # One frame can tell of hundreds of tracks, and none of it may be overtaken.
        Topic(
            "events",
            "mastsam_ros/msg/TrackEvent",
            "born, lost, revived, merged, removed, reset, renamed, each with its evidence",
            depth=1000,
        ),
        Topic(
            "odometry",
            "nav_msgs/msg/Odometry",
            "the camera's pose in node.map_frame, own or given, where it is known; up to scale in <map_frame>_unscaled."
            " Covariance: own 2 cm and 0.02 rad, from outside unknown (zeros). No twist (variance 1e6)",
        ),
        Topic(
            "map",
            "sensor_msgs/msg/PointCloud2",
            "the map's voxels: x, y, z, rgb, instance, confidence, in node.map_frame",
            depth=1,
            latched=True,
        ),
        Topic(
            "map_instances",
            "mastsam_ros/msg/MapInstanceArray",
            "the map's instances: id, label, position, size, voxels, views, last seen",
            depth=1,
            latched=True,
        ),
    )
}
"""By name below `~/`, or `~/NAME/` for one of several cameras. Reliable."""

MAP = ("map", "map_instances")
"""What is published below `~/` once, where several cameras share a map."""

DIAGNOSTICS = Topic(
    "/diagnostics",
    "diagnostic_msgs/msg/DiagnosticArray",
    "once a second: counts, rates, latency per stage, memory, models, pose, and how good the results look",
    depth=10,
)
TF = Topic(
    "/tf",
    "tf2_msgs/msg/TFMessage",
    "with node.publish_tf: node.map_frame to node.tf_child_frame, or to the camera's frame; never of a pose given",
    depth=100,
)

SERVICES = {
    service.name: service
    for service in (
        Service(
            "reset",
            "std_srvs/srv/Trigger",
            "every track ends, the map is emptied unless other cameras share it; ids go on counting",
        ),
        Service("enable", "std_srvs/srv/SetBool", "false: images are skipped"),
        Service("save_map", "std_srvs/srv/Trigger", "writes the map to node.map_file"),
        Service("add_instance", "mastsam_ros/srv/AddInstance", "makes an instance of what points and a box show"),
        Service("remove_instance", "mastsam_ros/srv/RemoveInstance", "ends an instance, and keeps it from coming back"),
        Service("merge_instances", "mastsam_ros/srv/MergeInstances", "several ids are one instance from now on"),
        Service("split_instance", "mastsam_ros/srv/SplitInstance", "a part of an instance is another from now on"),
        Service("rename_instance", "mastsam_ros/srv/RenameInstance", "gives an instance a name"),
    )
}
"""By name below `~/`, or `~/NAME/` for one of several cameras."""

COMMON_SERVICES = {
    service.name: service
    for service in (
        Service("reset", "std_srvs/srv/Trigger", "every track of every camera ends, and every map is emptied"),
    )
}
"""What several cameras have besides, by name below `~/`."""

EVIDENCE = {
    EventKind.BORN: "the segmenter's own score of the new mask; of one that had to prove itself, its agreement since",
    EventKind.LOST: "its running agreement until then: how sure it is that there was such a thing",
    EventKind.REVIVED: "by the map: share of the mask's known voxels that are the id's; by looks: 1 for equal colours"
    " at the expected place, 0 for the least that is accepted; by an earlier view: share of its mask that shows again",
    EventKind.MERGED: "IoU of the two masks; of a young id that is an old one come back, the evidence of that, or the"
    " share of the young one that lies in it",
    EventKind.REMOVED: "1: it was looked for, and not found, for tracker.forget_after frames",
    EventKind.RESET: "1",
    EventKind.RENAMED: "1: a person said so",
}
"""What the evidence of each kind of event means."""
