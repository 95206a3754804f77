"""Writes the tables of topics, services and parameters: `python -m mastsam_ros.ros.reference docs/reference.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from mastsam_ros.ros.interface import (
    COMMON_SERVICES,
    DIAGNOSTICS,
    EVIDENCE,
    INPUTS,
    OUTPUTS,
    SERVICES,
    TF,
    Service,
    Topic,
)
from mastsam_ros.setting_fields import SettingInfo
from mastsam_ros.settings import Settings

_HEAD = """\
# Reference: topics, services, parameters

Written from the code by `python -m mastsam_ros.ros.reference docs/reference.md`; the node is made from the same
tables.
"""
_OUTPUTS = """\
## Published

Names stand below the node's own, `~/`, which is `/mastsam/` unless the node is renamed; with several cameras
(`node.cameras`) below `~/NAME/`. All are reliable. *Latched* is transient_local: who joins late gets the last
message. What belongs to a frame has the stamp and the frame of its image. `labels`, `points`, `overlay`, `map` and
`map_instances` are made only while somebody subscribes.
"""
_INPUTS = """\
## Subscribed

Reliability of images, intrinsics and depth: `node.reliability`; each can be overridden (`qos_overrides`).
"""
_EVENTS = """\
Whoever keeps a list of instances can keep it by the events alone. An id is born once, before anything else is told of
it. Lost and revived take turns. Merged, into an id that was born before, or removed ends it, and it never comes again.
`reset` ends all of them; what is seen of a map that stays comes back as revived. Of several cameras that share a map,
an id that one of them was told of may be revived, or end, in another one's events.
"""
_MAP = """\
## Frames

`map`, `map_instances` and `odometry` are in `node.map_frame`. With own odometry its origin is the first camera's
place, its x axis the camera's direction, its z axis the picture's upward direction: level if the camera was (REP
103). It drifts slowly and jumps where a known view is recognised, as REP 105 has it of `map`. Each of several cameras
has a world of its own then, in `<map_frame>_<NAME>`. Lengths without a scale are never published in these frames:
what comes from pictures and intrinsics alone (`points`, `odometry`) is in `<camera frame>_unscaled` and
`<map_frame>_unscaled`, and not on /tf.

`node.publish_tf` tells /tf of own odometry. A frame has one parent, so say what is to hang below the map:

| the camera | `node.tf_child_frame` | then /tf has |
|---|---|---|
| stands alone, nothing else places its frame | empty | map -> the images' frame |
| has a driver that publishes its tree | the root of that tree, e.g. `camera_link` | map -> camera_link |
| is on a robot with odometry (REP 105) | `odom` | map -> odom; odom -> base_link stays the robot's |

**Poses from outside** (`node.pose_topic`) take precedence: `tf` looks the camera's frame up in `node.map_frame` at
each image's stamp; an odometry topic gives the pose of its `child_frame_id`, from which /tf_static leads to the
camera. Between two readings the pose is interpolated; beyond the last it is waited for `node.pose_tolerance_ms`.
Where it is missing, that is said; own odometry then goes on from the last pose, in the same world, as long as the
motion since can be measured, and else the map pauses. Before the first pose from outside nothing enters the map. A
source that jumps smears the map: prefer one that is smooth over one that is corrected in steps.
"""


def reference() -> str:
    """The text of docs/reference.md."""
    parts = [
        _HEAD,
        _OUTPUTS,
        _table(("topic", "type", "", "queue"), (_output(topic) for topic in (*OUTPUTS.values(), DIAGNOSTICS, TF))),
        _INPUTS,
        _table(
            ("parameter or topic", "type", "default", ""),
            ((f"`{i.parameter}`", _either(i.types, i.compressed), _default(i.parameter), i.meaning) for i in INPUTS),
        ),
        "## Services\n",
        _table(("service", "type", ""), (_service(service) for service in SERVICES.values())),
        "Of several cameras each has these below `~/NAME/`. All of them together have:\n",
        _table(("service", "type", ""), (_service(service) for service in COMMON_SERVICES.values())),
        "A managed node (`lifecycle_msgs`) has its transitions beside these.\n",
        "## Events\n",
        _EVENTS,
        "`evidence` in [0, 1] says how sure an event is. What a person asked for has 1.\n",
        _table(("kind", "evidence"), ((kind.value, meaning) for kind, meaning in EVIDENCE.items())),
        _MAP,
        "## Parameters\n",
        "As in `config/mastsam.yaml`. *Fixed*: a change needs a restart. A wrong value is refused, with the reason.\n",
        *_parameters(),
    ]
    return "\n".join(parts)


def _output(topic: Topic) -> tuple[str, ...]:
    name = topic.name if topic.name.startswith("/") else f"~/{topic.name}"
    return f"`{name}`", f"`{topic.type}`", topic.meaning, f"{topic.depth}{', latched' if topic.latched else ''}"


def _service(service: Service) -> tuple[str, ...]:
    return f"`~/{service.name}`", f"`{service.type}`", service.meaning


def _either(types: tuple[str, ...], compressed: str) -> str:
    text = f"`{types[0]}`"
    return f"{text}; `{types[1]}` with `{compressed}`" if compressed else text


def _default(parameter: str) -> str:
    values = {info.path: info.default for info in Settings.infos()}
    return f"`{values[parameter]}`" if values.get(parameter) else ""


def _parameters() -> Iterator[str]:
    sections: dict[str, list[SettingInfo]] = {}
    for info in Settings.infos():
        sections.setdefault(info.path.rpartition(".")[0], []).append(info)
    for section, infos in sections.items():
        yield f"### {section or 'General'}\n"
        yield _table(("parameter", "default", "values", ""), (_parameter(info) for info in infos))


def _parameter(info: SettingInfo) -> tuple[str, ...]:
    default = f"`{str(info.default).lower() if info.type is bool else info.default}`" if info.default != "" else ""
    if info.choices:
        values = ", ".join(info.choices)
    elif info.type in (int, float) and info.minimum is not None:
        values = f"{info.minimum:g} to {info.maximum:g}" if info.maximum is not None else f"from {info.minimum:g}"
    else:
        values = "" if info.type is bool else info.type.__name__
    return f"`{info.path}`", default, values, info.description + (" Fixed." if info.read_only else "")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def write_reference(path: Path) -> None:
    """Writes docs/reference.md."""
    path.write_text(reference(), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Writes the file named, or prints it."""
    if arguments:
        write_reference(Path(arguments[0]))
    else:
        sys.stdout.write(reference())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
