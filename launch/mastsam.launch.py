"""Starts the node on a camera's topics: `ros2 launch mastsam_ros mastsam.launch.py image:=/camera/color/image_raw`."""

from __future__ import annotations

from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription

SHARE = Path(__file__).resolve().parents[1]
_RESPAWN_DELAY_S = 2.0

# Argument -> (parameter, its type, description). Left empty, what the parameter file says holds.
SETTINGS = {
    "autostart": ("node.autostart", bool, "The node configures and activates itself: true or false"),
    "cameras": ("node.cameras", str, "Names of several cameras, separated by spaces; topics are then NAME/..."),
    "image": ("node.image_topic", str, "Topic of the colour images"),
    "compressed": ("node.compressed", bool, "The colour images are compressed: true or false"),
    "image_transport": (
        "node.image_transport",
        str,
        "How the colour images come: raw, or compressed (image/compressed)",
    ),
    "camera_info": ("node.camera_info_topic", str, "Topic of the intrinsics"),
    "depth": ("node.depth_topic", str, "Topic of the depth images that are registered to colour; needed for points"),
    "compressed_depth": ("node.compressed_depth", bool, "The depth images are compressed: true or false"),
    "depth_transport": ("node.depth_transport", str, "How the depth images come: raw, compressedDepth or compressed"),
    "reliability": ("node.reliability", str, "Reliability asked of the camera: best_effort or reliable"),
    "pose": ("node.pose_topic", str, "Poses from outside: a topic of nav_msgs/Odometry, or tf"),
    "share_map": ("node.share_map", bool, "Cameras whose poses come from outside keep one map: true or false"),
    "publish_tf": ("node.publish_tf", bool, "Publish own odometry on /tf: true or false"),
    "map_file": ("node.map_file", str, "File that the map is loaded from and saved to"),
    "device": ("device", str, "Where the model runs: auto, cuda or cpu"),
    "threads": ("threads", int, "Threads that torch and OpenCV compute with on the CPU; 0: what each takes by itself"),
    "matcher": ("matcher.name", str, "Matcher"),
    "segmenter": ("segmenter.name", str, "Segmenter"),
}


def generate_launch_description() -> LaunchDescription:
    """The node, and RViz where it is asked for."""
    settings = [
        DeclareLaunchArgument(name, default_value="", description=text) for name, (_, _, text) in SETTINGS.items()
    ]
    return LaunchDescription(
        [
            *settings,
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics"),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(SHARE / "config" / "mastsam.yaml"),
                description="File with the node's parameters",
            ),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock"),
            DeclareLaunchArgument(
                "respawn",
                default_value="false",
                description="Start the node again two seconds after it has ended otherwise than by Ctrl-C",
            ),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
            DeclareLaunchArgument("rviz", default_value="false", description="Show images and cloud in RViz"),
            DeclareLaunchArgument(
                "fixed_frame", default_value="camera_color_optical_frame", description="Frame that RViz shows things in"
            ),
            OpaqueFunction(function=_nodes),
        ]
    )


def _nodes(context: LaunchContext) -> list[Node]:
    values = {name: LaunchConfiguration(name).perform(context) for name in SETTINGS}
    given = {
        parameter: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (parameter, kind, _) in SETTINGS.items()
        if values[name]
    }
    use_sim_time = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    return [
        Node(
            package="mastsam_ros",
            executable="mastsam_node",
            name="mastsam",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), {**use_sim_time, **given}],
            ros_arguments=["--log-level", ["mastsam:=", LaunchConfiguration("log_level")]],
            output="screen",
            respawn=LaunchConfiguration("respawn").perform(context).lower() in ("true", "1"),
            respawn_delay=_RESPAWN_DELAY_S,
        ),
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=LaunchConfiguration("namespace"),
            arguments=[
                "--display-config",
                str(SHARE / "rviz" / "mastsam.rviz"),
                "--fixed-frame",
                LaunchConfiguration("fixed_frame"),
            ],
            parameters=[use_sim_time],
            remappings=[("image", values["image"])] if values["image"] else [],
            condition=IfCondition(LaunchConfiguration("rviz")),
        ),
    ]
