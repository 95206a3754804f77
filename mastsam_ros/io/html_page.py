"""Building blocks of self-contained HTML pages: figures, pictures, film strips, timelines. No external resources."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.io.video import VideoWriter
from mastsam_ros.viz import colors

Image = npt.NDArray[np.uint8]
DENSE_COLUMNS = 10
"""Tables of more columns are set smaller, so that they fit."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60666d; --line: #e3e5e8; --ground: #ffffff;
  --raised: #f6f7f8; --accent: #0b6bcb; --good: #18794e; --empty: #eceef0; }
@media (prefers-color-scheme: dark) { :root { --ink: #eceef0; --soft: #9ba1a8; --line: #2e3338; --ground: #14171a;
  --raised: #1c2024; --accent: #6cb2ff; --good: #5bc99b; --empty: #24292e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 44px 28px 72px; }
header { margin-bottom: 28px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 6px; font-weight: 650; }
h2 { font-size: 19px; letter-spacing: -0.005em; margin: 52px 0 4px; font-weight: 620; }
p { margin: 0 0 14px; max-width: 76ch; }
.lead { color: var(--soft); font-size: 16px; }
h2 + p { color: var(--soft); margin-bottom: 16px; }
code, .mono { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr)); gap: 1px; overflow: hidden;
  background: var(--line); border: 1px solid var(--line); border-radius: 10px; margin: 22px 0; }
.tile { background: var(--ground); padding: 15px 18px 13px; }
.tile b { display: block; font-size: 25px; line-height: 1.25; font-weight: 620; letter-spacing: -0.015em;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile b small { font-size: 14px; font-weight: 500; color: var(--soft); letter-spacing: 0; }
.tile span { color: var(--soft); font-size: 13px; }
figure { margin: 0 0 16px; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 6px; }
img, video { display: block; width: 100%; height: auto; border-radius: 8px; background: var(--raised); }
.strip { display: grid; gap: 10px; grid-template-columns: repeat(4, 1fr); margin-bottom: 14px; }
.three { grid-template-columns: repeat(3, 1fr); }
.strip figure { margin: 0; }
.pair { display: grid; gap: 18px; grid-template-columns: 1fr 1fr; }
@media (max-width: 760px) { .strip { grid-template-columns: 1fr 1fr; } .pair { grid-template-columns: 1fr; } }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 550; color: var(--soft); font-size: 12.5px; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.soft { color: var(--soft); }
.scroll { overflow-x: auto; }
.dense th, .dense td { padding-right: 9px; font-size: 12.5px; } .dense th { font-size: 11.5px; }
tr.sum td { font-weight: 620; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 12.5px; font-family: inherit; }
svg .soft { fill: var(--soft); } svg .rule { stroke: var(--line); } svg .bed { fill: var(--empty); }
details { border-top: 1px solid var(--line); margin-top: 14px; padding-top: 10px; }
summary { cursor: pointer; color: var(--accent); margin-bottom: 10px; }
footer { margin-top: 56px; padding-top: 16px; border-top: 1px solid var(--line); color: var(--soft); font-size: 13px; }
"""


def page(title: str, lead: str, body: Iterable[str], footer: str = "") -> str:
    """A whole page. title, lead, footer: plain text; body: HTML blocks from the functions below."""
    foot = f"<footer>{html.escape(footer)}</footer>" if footer else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p></header>\n'
        + "\n".join(body)
        + f"\n{foot}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, note: str, *blocks: str) -> str:
    """A heading, one or two sentences about what is below (plain text), and the blocks."""
    return f"<section><h2>{html.escape(title)}</h2><p>{html.escape(note)}</p>{''.join(blocks)}</section>"


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """The few figures that matter, large: (name, value, what stands small behind the value)."""
    cells = (
        f'<div class="tile"><b>{html.escape(value)}<small> {html.escape(unit)}</small></b>'
        f"<span>{html.escape(name)}</span></div>"
        for name, value, unit in figures
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def figure_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (1,), sums: int = 0
) -> str:
    """A table; `numbers` are the columns that are set flush right, the last `sums` rows stand out."""
    mark = [' class="number"' if column in numbers else "" for column in range(len(heads))]
    head = "".join(f"<th{kind}>{html.escape(text)}</th>" for kind, text in zip(mark, heads, strict=True))
    lines = [
        "".join(f"<td{kind}>{html.escape(text)}</td>" for kind, text in zip(mark, row, strict=True)) for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines[: len(lines) - sums])
    body += "".join(f'<tr class="sum">{line}</tr>' for line in lines[len(lines) - sums :])
    kind = ' class="dense"' if len(heads) > DENSE_COLUMNS else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def details(summary: str, block: str) -> str:
    """A block that opens on a click."""
    return f"<details><summary>{html.escape(summary)}</summary>{block}</details>"


def jpeg(image: Image, quality: int = 82) -> str:
    """A picture (H, W, 3) uint8 RGB as a data address."""
    done, content = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _data_address("image/jpeg", content.tobytes() if done else b"")


def png(image: Image) -> str:
    """A picture (H, W, 4) uint8 RGBA as a data address."""
    done, content = cv2.imencode(".png", np.ascontiguousarray(image[..., [2, 1, 0, 3]]))
    return _data_address("image/png", content.tobytes() if done else b"")


def picture(address: str, caption: str, alt: str = "") -> str:
    """One picture with its caption."""
    return (
        f'<figure><img src="{address}" alt="{html.escape(alt or caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def film_strip(pictures: Iterable[tuple[Image, str]]) -> str:
    """Pictures (H, W, 3) in rows of four (of three, if there are no more), each with its caption."""
    figures = [picture(jpeg(image), caption) for image, caption in pictures]
    kind = "strip three" if len(figures) == 3 else "strip"
    return f'<div class="{kind}">{"".join(figures)}</div>'


def pair(*blocks: str) -> str:
    """Two blocks side by side."""
    return f'<div class="pair">{"".join(blocks)}</div>'


def video(pictures: Iterable[Image], fps: float, caption: str) -> str:
    """Pictures (H, W, 3), all of one size, as a video that plays by itself, in a loop and without sound."""
    address = _data_address("video/mp4", mp4(pictures, fps))
    return (
        f'<figure><video src="{address}" controls autoplay loop muted playsinline></video>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def mp4(pictures: Iterable[Image], fps: float) -> bytes:
    """Pictures (H, W, 3), all of one size, as a video. Raises MissingPackageError without PyAV."""
    target = BytesIO()
    writer = VideoWriter(target, fps, crf=25)
    for image in pictures:
        writer.write(image)
    writer.close()
    return target.getvalue()


@dataclass(frozen=True)
class TimelineRow:
    """What one row of a timeline shows: per frame an id, 0 where there is none though there should be, -1 for blank."""

    name: str
    ids: Sequence[int]
    note: str = ""


def timeline(rows: Sequence[TimelineRow], seconds: Sequence[float]) -> str:
    """Ids over time as an SVG: a row per name, a bar per unbroken run of one id in the id's colour.

    seconds: time of every frame, rising.
    """
    left, right, top, pitch, bar, width = 128.0, 64.0, 10.0, 21.0, 13.0, 1060.0
    height = top + pitch * len(rows) + 26
    times = np.asarray(seconds, np.float64) - (seconds[0] if len(seconds) else 0)
    last = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    edges = np.append(times, times[-1:] + last)  # a frame lasts until the next one
    x = left + (width - left - right) * edges / edges[-1]
    parts = [f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="ids over time">']
    for time in _round_times(float(edges[-1])):
        place = left + (width - left - right) * time / edges[-1]
        parts.append(f'<line class="rule" x1="{place:.1f}" y1="{top - 6:g}" x2="{place:.1f}" y2="{height - 20:g}"/>')
        parts.append(
            f'<text class="soft" x="{place:.1f}" y="{height - 5:g}" text-anchor="middle">{round(time, 3):g} s</text>'
        )
    for number_of_row, row in enumerate(rows):
        y = top + pitch * number_of_row
        parts.append(f'<text x="{left - 12:g}" y="{y + bar - 2:g}" text-anchor="end">{html.escape(row.name)}</text>')
        for begin, end, number in _runs(row.ids):
            if number < 0:
                continue
            fill = f'fill="rgb({",".join(map(str, colors([number])[0]))})"' if number else 'class="bed"'
            told = f"{row.name}: " + (f"id {number}" if number else "no id")
            parts.append(
                f'<rect x="{x[begin]:.1f}" y="{y:g}" width="{max(x[end] - x[begin], 0.8):.1f}" height="{bar:g}" rx="2" '
                f"{fill}><title>{html.escape(told)}, {edges[begin]:.2f} to {edges[end]:.2f} s</title></rect>"
            )
        if row.note:
            note_x = width - right + 12
            parts.append(f'<text class="soft" x="{note_x:g}" y="{y + bar - 2:g}">{html.escape(row.note)}</text>')
    return "".join([*parts, "</svg>"])


def _runs(ids: Sequence[int]) -> list[tuple[int, int, int]]:
    """Begin, end (exclusive) and value of every unbroken run."""
    runs: list[tuple[int, int, int]] = []
    for index, number in enumerate(ids):
        if runs and runs[-1][2] == number:
            runs[-1] = (runs[-1][0], index + 1, number)
        else:
            runs.append((index, index + 1, number))
    return runs


def _round_times(span: float) -> list[float]:
    """Four to nine round numbers from 0 to `span`."""
    power = 10 ** math.floor(math.log10(span / 4))
    distance = next(power * factor for factor in (5, 2, 1) if span / (power * factor) >= 4 or factor == 1)
    return [float(time) for time in np.arange(0, span, distance)]


def _data_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
