"""The code in the documentation runs, and what the documentation points to is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from mastsam_ros.settings import Settings

ROOT = Path(__file__).parents[1]


def python_in(page: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def test_the_readme_from_python() -> None:
    names: dict = {}
    exec(compile(python_in("README.md"), "README.md", "exec"), names)
    result = names["result"]
    assert result.labels.dtype == np.uint16 and len(result.tracks) > 5 and len(result.points) > 1000


def test_the_measures_from_python() -> None:
    names: dict = {}
    exec(compile(python_in("docs/evaluation.md"), "docs/evaluation.md", "exec"), names)
    assert names["J"] == pytest.approx(18 / 22) and 0 < names["F"] < 1
    assert names["H"] == pytest.approx((5 / 3 + 1) / 4) and 0 < names["H_exact"] < 1


def test_own_parts_track() -> None:
    names: dict = {}
    exec(compile(python_in("docs/own_parts.md"), "docs/own_parts.md", "exec"), names)
    rng = np.random.default_rng(0)

    def texture(height: int, width: int, colour: tuple[int, int, int]) -> np.ndarray:
        noise = cv2.GaussianBlur(rng.normal(0, 60, (height, width)).astype(np.float32), (0, 0), 1.5)
        return (np.array(colour) + noise[..., None]).clip(0, 255).astype(np.uint8)

    ground, blob = texture(150, 260, (40, 90, 40)), texture(40, 40, (200, 40, 40))
    ids = []
    for shift in range(0, 24, 4):
        image = ground[:, 40 - shift : 240 - shift].copy()
        image[50:90, 60 + shift : 100 + shift] = blob
        labels = names["mastsam"].step(names["Frame"](image)).labels
        ids.append(int(labels[70, 80 + shift]))
    assert len(set(ids)) == 1 and ids[0] > 0


@pytest.mark.parametrize(
    "page", sorted(p.relative_to(ROOT).as_posix() for p in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target


def said_in_the_code() -> str:
    """Every text constant of the package, those joined over several lines included, one per line."""
    texts = []
    for path in (ROOT / "mastsam_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
    return "\n".join(texts)


def test_the_lines_of_troubleshooting_are_said_by_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 20
    code = said_in_the_code()
    # A line is put together from several texts: each stretch between the parts that differ must be one of them.
    filled_in = r"…|; |: |FASTDDS_BUILTIN_TRANSPORTS|node\.image_topic|sensor_msgs/msg/Image|\(reliability\)|too old"
    stretches = {stretch.strip(" ;:") for line in lines for stretch in re.split(filled_in, line)}
    assert [stretch for stretch in sorted(stretches) if stretch not in code] == []


def test_the_settings_of_troubleshooting_exist() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    sections = "frame|matcher|segmenter|regions|sam|tracker|geometry|node"
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)", page))
    assert len(named) > 10 and named <= {info.path for info in Settings.infos()}
