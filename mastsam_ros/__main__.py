"""`python -m mastsam_ros` runs the node, as `ros2 run mastsam_ros mastsam_node` does."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Runs the node; a missing ROS is said in one line. Returns the exit status."""
    # Until rclpy takes over, Ctrl-C ends the process at once instead of with a traceback out of some import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A robot's cores are shared: threads that spin while they wait made a step up to 20 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Huge pages under numpy's arrays are no faster here, and memory that has them grows for minutes.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    from mastsam_ros.ros.memory import free_messages, one_arena

    one_arena()
    free_messages()
    try:
        from mastsam_ros.ros.node import main as run_node
    except ModuleNotFoundError as error:
        if error.name == "mastsam_ros.msg":
            return _fail("the messages are not built: run `make build`, or colcon build")
        if error.name is not None and error.name.partition(".")[0] in _ROS_MODULES:
            return _fail(
                f"ROS 2 is not there ({error.name} is missing): source an installed distribution, "
                "or pip install 'mastsam_ros[ros]'"
            )
        raise
    return run_node()


def _fail(text: str) -> int:
    sys.stderr.write(f"mastsam_node: {text}\n")
    return 1


_ROS_MODULES = {
    "builtin_interfaces",
    "diagnostic_msgs",
    "geometry_msgs",
    "lifecycle_msgs",
    "rcl_interfaces",
    "rclpy",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
}

if __name__ == "__main__":
    sys.exit(main())
