"""The code in the documentation runs, and what the documentation points to is there."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

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
