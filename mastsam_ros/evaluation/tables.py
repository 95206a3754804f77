"""Plain text tables that are Markdown too, and the same figures as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mastsam_ros.types import InputError


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]], formats: str) -> str:
    """A Markdown table, its columns aligned. formats: one format per value, separated by spaces; NaN and None: -."""
    cells = [list(heads)]
    for name, values in rows:
        cells.append([name, *(cell(v, f) for v, f in zip(values, formats.split(), strict=True))])
    widths = [max(len(row[n]) for row in cells) for n in range(len(heads))]
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if n == 0 else ":") for n, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def cell(value: Any, format_spec: str) -> str:
    """One figure as text; NaN and None: -."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return format(value, format_spec)


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    return [cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))]


def write_json(path: Path, figures: Mapping[str, Any]) -> None:
    """Writes the figures; NaN becomes null, which every JSON reader takes. Raises InputError."""
    write_text(path, json.dumps(_plain(figures), indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file and the folders above it. Raises InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
