"""The settings on a command line: --config, --set, and shortcuts for what is set most often."""

from __future__ import annotations

import argparse
from pathlib import Path

from mastsam_ros.settings import Settings


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """--config, --set and the shortcuts for what is set most often."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings, a ROS parameter file too")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="one setting, such as tracker.update_interval=5 (repeatable)",
    )
    parser.add_argument("--matcher", metavar="NAME", help="matcher.name")
    parser.add_argument("--segmenter", metavar="NAME", help="segmenter.name")
    parser.add_argument("--device", metavar="NAME", help="auto, cuda or cpu")


def settings_from(arguments: argparse.Namespace) -> Settings:
    """The settings that a command line asks for. Raises SettingsError."""
    settings = Settings.load(arguments.config) if arguments.config else Settings()
    settings = settings.with_assignments(arguments.set)
    shortcuts = {
        "matcher.name": arguments.matcher,
        "segmenter.name": arguments.segmenter,
        "device": arguments.device,
    }
    return settings.updated({path: value for path, value in shortcuts.items() if value is not None})
