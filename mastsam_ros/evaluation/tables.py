"""Plain text tables that are Markdown too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]], formats: str) -> str:
    """A Markdown table, its columns aligned. formats: one format per value, separated by spaces; NaN and None: -."""
    cells = [list(heads)]
    for name, values in rows:
        cells.append([name, *(_cell(v, f) for v, f in zip(values, formats.split(), strict=True))])
    widths = [max(len(row[n]) for row in cells) for n in range(len(heads))]
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if n == 0 else ":") for n, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(value: Any, format_spec: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return format(value, format_spec)


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    return [cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))]
