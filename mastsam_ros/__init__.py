"""Instance masks whose ids stay the same from view to view, and labelled point clouds made from them.

Importing this package loads numpy only; `Mastsam` and the backends are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# A checkout holds the Python module and the environment holds the messages that rosidl made from msg/: one package.
__path__ = extend_path(__path__, __name__)

_EXPORTS = {
    "Frame": "types",
    "FrameResult": "types",
    "Mastsam": "pipeline",
    "MastsamError": "types",
    "Settings": "settings",
}
__all__ = ["Frame", "FrameResult", "Mastsam", "MastsamError", "Settings", "__version__"]

if TYPE_CHECKING:
    from mastsam_ros.pipeline import Mastsam
    from mastsam_ros.settings import Settings
    from mastsam_ros.types import Frame, FrameResult, MastsamError


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f"mastsam_ros.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'mastsam_ros' has no attribute {name!r}")
