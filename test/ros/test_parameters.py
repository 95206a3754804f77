"""ROS parameters stand for the settings, all of them, and wrong ones are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy
from rclpy.parameter import Parameter

from mastsam_ros.ros.parameter_file import main, parameter_file
from mastsam_ros.ros.parameters import SettingsParameters, describe
from mastsam_ros.settings import Settings
from mastsam_ros.types import SettingsError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make_node(ros_domain):
    contexts = []

    def make(*arguments):
        context = rclpy.Context()
        rclpy.init(args=["--ros-args", *arguments] if arguments else [], context=context)
        contexts.append(context)
        return rclpy.create_node("mastsam", context=context, automatically_declare_parameters_from_overrides=True)

    yield make
    for context in contexts:
        context.try_shutdown()


def test_every_setting_is_a_parameter_with_its_meaning_and_range(make_node):
    node = make_node()
    parameters = SettingsParameters(node, lambda settings: None)
    assert parameters.settings == Settings()
    for info in Settings.infos():
        assert node.get_parameter(info.path).value == info.default
        descriptor = node.describe_parameter(info.path)
        assert descriptor.description == info.description and descriptor.read_only == info.read_only
    interval = node.describe_parameter("tracker.update_interval").integer_range[0]
    assert (interval.from_value, interval.to_value) == (1, 10_000)
    assert node.describe_parameter("flow.scale").floating_point_range[0].to_value == 1.0
    assert "cuda" in node.describe_parameter("device").additional_constraints


def test_the_written_file_agrees_with_the_settings(tmp_path):
    file = ROOT / "config" / "mastsam.yaml"
    assert file.read_text(encoding="utf-8") == parameter_file(), (
        "out of date: python -m mastsam_ros.ros.parameter_file config/mastsam.yaml"
    )
    assert Settings.load(file) == Settings()
    written = yaml.safe_load(parameter_file())["/**"]["ros__parameters"]
    assert set(Settings().to_mapping()) == set(written)
    assert main([str(tmp_path / "again.yaml")]) == 0
    assert (tmp_path / "again.yaml").read_text(encoding="utf-8") == parameter_file()


def test_a_parameter_file_is_read_by_ros(make_node, tmp_path):
    node = make_node("--params-file", str(ROOT / "config" / "mastsam.yaml"), "-p", "tracker.update_interval:=9")
    parameters = SettingsParameters(node, lambda settings: None)
    assert parameters.settings == Settings().updated({"tracker.update_interval": 9})


def test_whole_numbers_serve_where_fractions_are_expected(make_node):
    node = make_node("-p", "flow.scale:=1")
    assert SettingsParameters(node, lambda settings: None).settings.flow.scale == 1.0
    assert node.get_parameter("flow.scale").type_ == Parameter.Type.DOUBLE


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("tracker.update_intervall:=3", "unknown setting 'tracker.update_intervall'; did you mean 'tracker.update_int"),
        ("tracker.update_interval:=0", r"tracker.update_interval must be in \[1, 10000\], got 0"),
        ("device:=tpu", "device must be one of auto, cuda, cpu, got 'tpu'"),
        ("device:=[cpu]", "device must be str"),
    ],
)
def test_wrong_arguments_are_refused(make_node, argument, reason):
    with pytest.raises(SettingsError, match=reason):
        SettingsParameters(make_node("-p", argument), lambda settings: None)


def test_a_set_of_changes_is_taken_whole_or_not_at_all(make_node):
    changes = []
    node = make_node()
    parameters = SettingsParameters(node, changes.append)

    good = Parameter("tracker.update_interval", value=7)
    result = node.set_parameters_atomically([good, Parameter("geometry.points_stride", value=3)])
    assert result.successful and changes[-1].tracker.update_interval == 7 and changes[-1].geometry.points_stride == 3

    for bad in (
        Parameter("geometry.points_stride", value=0),
        Parameter("geometry.points_stride", value="two"),
        Parameter("matcher.name", value="mast3r"),
        Parameter("flow.scale", value=float("nan")),
    ):
        result = node.set_parameters_atomically([Parameter("tracker.update_interval", value=8), bad])
        assert not result.successful and bad.name.split(".")[-1] in result.reason, result.reason
    assert node.set_parameters_atomically([Parameter("flow.scale", value=1)]).successful
    assert len(changes) == 2 and parameters.settings.tracker.update_interval == 7
    assert node.get_parameter("tracker.update_interval").value == 7


def test_a_choice_is_checked_while_the_node_runs():
    info = next(info for info in Settings.infos() if info.path == "node.reliability")
    assert describe(info).read_only and "best_effort" in describe(info).additional_constraints
