"""Who may import whom: the core knows no ROS, models load only where they are used, layers look downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mastsam_ros

PACKAGE = Path(mastsam_ros.__file__).parent

# A module may import what stands in its own row or below. A new module or folder at the top of the package gets its
# place here.
LAYERS = [
    {"types", "masks", "settings", "setting_fields", "settings_arguments", "device", "compiled", "stages", "weights"}
    | {"checkpoints", "backends", "interrupts", "touching", "allocator", "upcoming"},
    {"matchers", "segmenters", "tracker", "geometry"},
    {"pipeline", "io", "evaluation", "viz"},
    {"cli", "run", "unordered", "replay", "node_session", "demo", "ros", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
NEVER = {("matchers", "segmenters"), ("segmenters", "matchers")}
GENERATED = ("msg", "srv")
"""Subpackages that rosidl makes."""
ROS_MODULES = (
    "rclpy builtin_interfaces diagnostic_msgs geometry_msgs nav_msgs rcl_interfaces rosgraph_msgs sensor_msgs std_msgs "
    "std_srvs visualization_msgs tf2_ros cv_bridge launch launch_ros ament_index_python"
).split()


def _modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module of the package, the generated messages aside."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in GENERATED:
            yield ".".join(["mastsam_ros", *(p for p in parts if p != "__init__")]), path


MODULES = list(_modules())
OUTSIDE_ROS = [name for name, _ in MODULES if name.split(".")[1:2] != ["ros"] and name != "mastsam_ros.__main__"]


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """What a file imports, and whether that happens when the file itself is imported."""

    def visit(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                if child.module == "mastsam_ros":
                    yield from ((f"mastsam_ros.{alias.name}", at_import) for alias in child.names)
                else:
                    yield child.module or "", at_import
            elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            else:
                is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(child, at_import and not is_function)

    return visit(ast.parse(path.read_text(encoding="utf-8")), True)


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


BLOCK = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {ROS_MODULES!r} or name in ('mastsam_ros.msg', 'mastsam_ros.srv'):
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Blocked())
"""


def test_everything_outside_ros_imports_without_ros() -> None:
    names = [name for name in OUTSIDE_ROS if name != "mastsam_ros"]
    assert {"mastsam_ros.types", "mastsam_ros.pipeline", "mastsam_ros.tracker", "mastsam_ros.matchers"} <= set(names)
    done = _run(BLOCK + f"import importlib\nfor name in {names!r}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr


def test_the_block_works() -> None:
    done = _run(BLOCK + "import mastsam_ros.ros.node")
    assert done.returncode == 1 and "ModuleNotFoundError" in done.stderr


def test_a_missing_ros_is_one_line() -> None:
    code = "from mastsam_ros.__main__ import main\nsys.argv = ['mastsam_node']\nsys.exit(main())"
    done = _run(BLOCK + code)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "ROS 2" in done.stderr, done.stderr


def test_importing_the_package_loads_no_library() -> None:
    done = _run(
        "import sys; before = set(sys.modules); import mastsam_ros\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(loaded - set(sys.stdlib_module_names) - {'mastsam_ros', 'numpy'}))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", ["mastsam_ros.types", "mastsam_ros.settings", "mastsam_ros.cli"])
def test_torch_waits_until_it_is_needed(name: str) -> None:
    done = _run(f"import sys, {name}; print([m for m in ('torch', 'cv2', 'av', 'rclpy') if m in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_layers_look_downwards(name: str, path: Path) -> None:
    if name == "mastsam_ros":
        return
    own = name.split(".")[1]
    assert own in RANK, f"{own} has no layer yet: give it one in {Path(__file__).name}"
    for imported, at_import in _imports(path):
        root, _, rest = imported.partition(".")
        if root in ROS_MODULES or rest.split(".")[0] in GENERATED:
            assert own == "ros", f"{name} imports {imported}: only mastsam_ros.ros may"
        if root != "mastsam_ros" or own == rest.split(".")[0]:
            continue
        other = rest.split(".")[0]
        if other in {"", "__version__", *GENERATED} or other in mastsam_ros.__all__:
            continue
        assert other in RANK, f"{name} imports {imported}, which has no layer"
        assert RANK[other] <= RANK[own], f"{name} imports {imported} from the layer above"
        assert (own, other) not in NEVER, f"{name} imports {imported}: {own} and {other} stay apart"
        if other == "ros":
            assert own in {"cli", "demo", "__main__"}, f"{name} imports {imported}: nothing but the command line may"
            assert not at_import, f"{name} imports {imported} at its top: ROS may be missing"


HEAVY = {
    "mast3r",
    "transformers",
    "segment_anything",
    "cuml",
    "rerun",
    "ray",
    "sklearn",
    "safetensors",
    "rclpy",
    "av",
    "rosbags",
}


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_heavy_packages_are_imported_where_they_are_used(name: str, path: Path) -> None:
    if name.startswith("mastsam_ros.ros"):
        return
    found = {imported for imported, at_import in _imports(path) if at_import and imported.partition(".")[0] in HEAVY}
    assert found == set(), f"{name} imports them at its top"
