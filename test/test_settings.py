"""Settings: defaults, YAML and back, the ROS form, and every wrong input refused with the reason."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mastsam_ros.setting_fields import SettingInfo
from mastsam_ros.settings import Settings
from mastsam_ros.types import SettingsError

INFOS = {info.path: info for info in Settings.infos()}


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def allowed(info: SettingInfo) -> st.SearchStrategy[Any]:
    """Values that a setting takes."""
    if info.choices:
        return st.sampled_from(info.choices)
    if info.type is bool:
        return st.booleans()
    if info.type is int:
        return st.integers(int(info.minimum or 0), int(info.maximum or 10**6))
    if info.type is float:
        return st.floats(info.minimum, info.maximum, allow_nan=False, allow_infinity=False)
    return st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12)


def test_every_setting_says_what_it_is_and_its_default_is_valid() -> None:
    assert "tracker.update_interval" in INFOS
    for info in INFOS.values():
        assert len(info.description) > 10, info.path
        assert type(info.default) is info.type, info.path
        Settings().updated({info.path: info.default})
        if info.type is float and info.maximum is not None:
            assert info.minimum is not None, info.path


def test_defaults_survive_yaml(tmp_path: Path) -> None:
    file = write(tmp_path, yaml.safe_dump(Settings().to_mapping()))
    assert Settings.load(file) == Settings()
    assert Settings.from_mapping(Settings().flat()) == Settings()
    assert list(Settings().flat()) == list(INFOS)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_valid_settings_survive_yaml_nested_dotted_and_in_the_ros_form(data: st.DataObject) -> None:
    paths = data.draw(st.lists(st.sampled_from(sorted(INFOS)), max_size=8, unique=True))
    values = {path: data.draw(allowed(INFOS[path]), label=path) for path in paths}
    changed = Settings().updated(values)
    assert {path: changed.flat()[path] for path in values} == values
    for mapping in (changed.to_mapping(), changed.flat()):
        assert Settings.from_mapping(yaml.safe_load(yaml.safe_dump(mapping))) == changed
    assignments = [
        f"{path}={yaml.safe_dump(value, width=1000).removesuffix('...' + chr(10))}" for path, value in values.items()
    ]
    assert Settings().with_assignments(assignments) == changed


@pytest.mark.parametrize("node", ["/**", "mastsam_node", "/camera/mastsam_node"])
def test_a_ros_parameter_file_is_read(tmp_path: Path, node: str) -> None:
    file = write(
        tmp_path, f"{node}:\n  ros__parameters:\n    use_sim_time: true\n    tracker: {{representatives: 3}}\n"
    )
    assert Settings.load(file) == Settings().updated({"tracker.representatives": 3})


def test_an_empty_file_and_an_empty_section_are_the_defaults(tmp_path: Path) -> None:
    assert Settings.load(write(tmp_path, "")) == Settings()
    assert Settings.load(write(tmp_path, "tracker:\n  # representatives: 3\nflow: {}\n")) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tracker: {update_intervall: 3}", "unknown setting 'tracker.update_intervall'.*'tracker.update_interval'"),
        ("color: red", "unknown setting 'color'"),
        ("tracker: 3", "'tracker' is a section of settings, not a setting: got 3"),
        ("tracker: {representatives: 0}", r"tracker.representatives must be in \[1, 64\], got 0"),
        ("tracker: {representatives: 2.5}", "tracker.representatives must be int, got 2.5"),
        ("tracker: {representatives: true}", "tracker.representatives must be int, got True"),
        ("tracker: {revival: 1}", "tracker.revival must be bool, got 1"),
        ("tracker: {revival_colour: .nan}", "tracker.revival_colour must be finite"),
        ("tracker: {revival_colour: -1}", "tracker.revival_colour must be at least 0"),
        ("tracker: {kmeans: [torch]}", "tracker.kmeans must be str"),
        ("tracker: {kmeans: kd-tree}", "tracker.kmeans must be one of torch, sklearn, cuml, got 'kd-tree'"),
        ("device: tpu", "device must be one of auto, cuda, cpu, got 'tpu'"),
        (f"flow: {{scale: 1{'0' * 400}}}", "flow.scale must be finite, got an integer beyond all floats"),
        ("[1, 2]", "must hold a mapping of settings, got list"),
        ("just text", "must hold a mapping of settings, got str"),
        ("a: b: c", "is not YAML"),
        ("3: {a: b}", "setting names are text, got 3"),
        ("day: 2020-99-99", "is not YAML"),
        ("a: &a\n  b: *a", "nested too deep"),
        ("a: " + "[" * 5000, "is not YAML"),
        ("a: {ros__parameters: {}}\nb: {ros__parameters: {}}", "one 'ros__parameters' block"),
        ("a: {ros__parameters: 3}", "one 'ros__parameters' block"),
    ],
)
def test_wrong_files_are_refused_by_name_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.load(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read settings file .*absent.yaml: No such file"):
        Settings.load(tmp_path / "absent.yaml")
    with pytest.raises(SettingsError, match="cannot read settings file"):
        Settings.load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SettingsError, match="not a YAML file"):
        Settings.load(tmp_path / "binary.yaml")


def test_assignments() -> None:
    changed = Settings().with_assignments(
        ["tracker.revival=false", "flow.scale=5e-1", "sam.min_iou=5E-1", "device = cpu"]
    )
    assert changed.flat() == Settings().flat() | {
        "tracker.revival": False,
        "flow.scale": 0.5,
        "sam.min_iou": 0.5,
        "device": "cpu",
    }
    with pytest.raises(SettingsError, match=r"expected path=value, got 'tracker.revival'"):
        Settings().with_assignments(["tracker.revival"])
    with pytest.raises(SettingsError, match=r"the value in 'device=\[' is not YAML"):
        Settings().with_assignments(["device=["])


def test_settings_do_not_change() -> None:
    before = Settings()
    before.updated({"tracker.revival": False})
    assert before == Settings()
    with pytest.raises(AttributeError):
        before.device = "cpu"  # type: ignore[misc]


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tracker", "flow", "device", "scale", "ros__parameters", ""]) | st.integers(), inner
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(content=YAML_VALUES)
def test_any_content_gives_settings_or_a_settings_error(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    check(tmp_path_factory, yaml.dump(content))


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("tracker.:&*!![]{}?-|>\n #%@'\"0x_e12=~"), max_size=40) | st.text(max_size=40))
def test_any_text_gives_settings_or_a_settings_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    check(tmp_path_factory, text)


def check(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        loaded = Settings.load(file)
    except SettingsError:
        return
    for path, value in loaded.flat().items():
        assert type(value) is INFOS[path].type
        assert not isinstance(value, float) or math.isfinite(value)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(sorted(INFOS)), value=YAML_VALUES)
def test_any_value_is_taken_within_its_limits_or_refused_by_name(path: str, value: Any) -> None:
    info = INFOS[path]
    try:
        taken = Settings().updated({path: value}).flat()[path]
    except SettingsError as error:
        assert path in str(error)
        return
    assert type(taken) is info.type
    if info.type in (int, float):
        assert info.minimum is None or taken >= info.minimum
        assert info.maximum is None or taken <= info.maximum
    if info.choices:
        assert taken in info.choices


def test_worlds_and_maps_of_several_cameras() -> None:
    node = Settings().updated({"node.cameras": "front rear", "node.map_file": "~/maps/room.ply"}).node
    assert [node.map_frame_of(name) for name in ("", "front")] == ["map", "map_front"], "each has a world of its own"
    placed = dataclasses.replace(node, pose_topic="tf", map_frame="odom")
    assert [placed.map_frame_of(name) for name in node.camera_names] == ["odom", "odom"]
    assert node.map_path("rear") == Path.home() / "maps" / "room_rear"
    second = dataclasses.replace(node, map_file="room.v2")
    assert second.map_path("rear") == Path("room.v2_rear"), "a dot in a name is no ending"
    assert node.map_path("") == Path.home() / "maps" / "room.ply" and Settings().node.map_path("") is None


def test_image_transport_adds_its_name_to_the_topics_of_every_camera():
    node = Settings().updated({"node.image_transport": "compressed", "node.depth_transport": "compressedDepth"}).node
    alone = node.for_camera("")
    assert (alone.image_topic, alone.compressed) == ("image/compressed", True)
    assert (alone.depth_topic, alone.compressed_depth) == ("", False), "no depth is still none"
    front = Settings().updated(
        {"node.cameras": "front", "node.depth_topic": "/{camera}/depth", "node.depth_transport": "compressedDepth"}
    )
    of_front = front.node.for_camera("front")
    assert (of_front.image_topic, of_front.compressed) == ("front/image", False)
    assert (of_front.depth_topic, of_front.compressed_depth) == ("/front/depth/compressedDepth", True)
    assert of_front.for_camera("") == of_front
