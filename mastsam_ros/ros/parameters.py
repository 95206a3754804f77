"""ROS parameters made from the settings dataclasses: names, types, meaning, ranges, and one check for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from mastsam_ros.setting_fields import SettingInfo
from mastsam_ros.settings import Settings
from mastsam_ros.types import SettingsError

_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


class SettingsParameters:
    """The node's parameters, one per setting, and the settings that they stand for.

    node: made with `automatically_declare_parameters_from_overrides`, so that a name that is no setting is noticed.
    changed: called with the new settings after each change.

    Raises SettingsError if the node was started with an unknown name or a wrong value.
    """

    def __init__(self, node: Node, changed: Callable[[Settings], None]) -> None:
        self._changed = changed
        self._names = {info.path for info in Settings.infos()}
        given = {
            name: node.get_parameter(name).value
            for name in node.list_parameters([], 0).names
            if not name.startswith(_OF_ROS)
        }
        self.settings = Settings.from_mapping(given)
        values = self.settings.flat()
        for info in Settings.infos():
            if node.has_parameter(info.path):
                node.undeclare_parameter(info.path)
            node.declare_parameter(info.path, values[info.path], describe(info), ignore_override=True)
        node.add_on_set_parameters_callback(self._set)

    def _set(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        values = {parameter.name: parameter.value for parameter in parameters if parameter.name in self._names}
        if values:
            try:
                self.settings = self.settings.updated(values)
            except SettingsError as error:
                return SetParametersResult(successful=False, reason=str(error))
            self._changed(self.settings)
        return SetParametersResult(successful=True)


def describe(info: SettingInfo) -> ParameterDescriptor:
    """A setting's meaning, range and choices, as `ros2 param describe` shows them."""
    # Types are checked with the rest, where the reason is a readable one and a whole number serves as a fraction.
    descriptor = ParameterDescriptor(description=info.description, read_only=info.read_only, dynamic_typing=True)
    if info.choices:
        descriptor.additional_constraints = f"one of: {', '.join(info.choices)}"
    if info.minimum is not None and info.maximum is not None:
        if info.type is int:
            bounds = IntegerRange(from_value=int(info.minimum), to_value=int(info.maximum), step=1)
            descriptor.integer_range = [bounds]
        else:
            span = FloatingPointRange(from_value=float(info.minimum), to_value=float(info.maximum), step=0.0)
            descriptor.floating_point_range = [span]
    return descriptor
