"""Writes the commented parameter file: `python -m mastsam_ros.ros.parameter_file config/mastsam.yaml`.

In a checkout docs/reference.md, which lists the parameters too, is written with it.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

from mastsam_ros.ros.reference import write_reference
from mastsam_ros.setting_fields import Scalar, SettingInfo
from mastsam_ros.settings import Settings

_HEADER = """\
# All parameters with their defaults. Written by: python -m mastsam_ros.ros.parameter_file config/mastsam.yaml
# `mastsam run --config` reads this file too.
/**:
  ros__parameters:
"""


def parameter_file() -> str:
    """The text of config/mastsam.yaml: every setting with its default, its meaning and its limits."""
    lines: list[str] = []
    section = ""
    for info in Settings.infos():
        group, _, name = info.path.rpartition(".")
        if group != section:
            lines.append(f"    {group}:")
            section = group
        indent = " " * (6 if group else 4)
        lines += textwrap.wrap(_comment(info), 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        lines.append(f"{indent}{name}: {_scalar(info.default)}")
    return _HEADER + "\n".join(lines) + "\n"


def _comment(info: SettingInfo) -> str:
    limits = []
    if info.choices:
        limits.append(" | ".join(info.choices))
    elif info.minimum is not None and info.maximum is not None:
        limits.append(f"{info.type(info.minimum)} to {info.type(info.maximum)}")
    if info.read_only:
        limits.append("needs a restart")
    return f"{info.description} ({'; '.join(limits)})" if limits else info.description


def _scalar(value: Scalar) -> str:
    if isinstance(value, float):
        text = repr(value)
        # YAML takes 1e-06 for text: its numbers have a point.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return json.dumps(value)


def main(arguments: list[str]) -> int:
    """Writes the file named, or prints it."""
    if arguments:
        path = Path(arguments[0])
        path.write_text(parameter_file(), encoding="utf-8")
        page = path.resolve().parents[1] / "docs" / "reference.md"
        if page.exists():
            write_reference(page)
    else:
        sys.stdout.write(parameter_file())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
