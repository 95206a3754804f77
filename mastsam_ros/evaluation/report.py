"""The evaluation as one self-contained HTML page: figures, curves, ids against true objects, and the worst frames."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.evaluation.columns import ALWAYS, COLUMNS, mean_of
from mastsam_ros.evaluation.datasets import read_image, read_labels
from mastsam_ros.evaluation.protocols import Scored
from mastsam_ros.evaluation.tables import cell
from mastsam_ros.io import html_page
from mastsam_ros.viz import colors, overlay

Image = npt.NDArray[np.uint8]
CURVE_COLORS = ("#0b6bcb", "#d9480f", "#2b8a3e", "#862e9c", "#a61e4d", "#5f3dc4")
WORST_FRAMES = 4
PICTURE_WIDTH = 420
STRIP_COLUMNS = 4  # of html_page.film_strip
MOST_ROWS = 26
MOST_POINTS = 1000


def report(systems: Mapping[str, Sequence[Scored]], protocols: Sequence[str]) -> str:
    """The page. systems: name -> its sequences; the first is the one that the page is about."""
    first = next(iter(systems))
    body = [_figures(systems, protocols)]
    for scored in systems[first]:
        others = {
            name: next((s for s in of if s.score.name == scored.score.name), None) for name, of in systems.items()
        }
        body.append(_sequence(scored, {name: other for name, other in others.items() if other is not None}))
    names = ", ".join(name for name in systems if name != first)
    lead = f"{first}, compared with {names}" if names else first
    return html_page.page("Evaluation", lead, body)


def _figures(systems: Mapping[str, Sequence[Scored]], protocols: Sequence[str]) -> str:
    scores = {name: [scored.score for scored in of] for name, of in systems.items()}
    blocks = []
    for protocol in protocols:
        columns = [
            column
            for column in (*COLUMNS[protocol], *ALWAYS)
            if any(mean_of(column, of) is not None for of in scores.values())
        ]
        if all(column in ALWAYS for column in columns):
            continue
        several = len(scores) > 1
        rows, means = [], []
        for sequence in dict.fromkeys(score.name for of in scores.values() for score in of):
            for name, score in ((name, score) for name, of in scores.items() for score in of if score.name == sequence):
                mark = " (degenerate: nearly one id for everything)" if score.degenerate else ""
                values = [cell(column.value(score), column.format) for column in columns]
                rows.append([sequence + mark, *([name] if several else []), *values])
        for name, of in scores.items():
            if len(of) > 1:
                values = [cell(mean_of(column, of), column.format) for column in columns]
                means.append(["mean", *([name] if several else []), *values])
        heads = ["sequence", *(["system"] if several else []), *(column.head for column in columns)]
        numbers = range(2 if several else 1, len(heads))
        blocks.append(f"<h3>{protocol}</h3>" + html_page.figure_table(heads, rows + means, numbers, sums=len(means)))
    note = "Consistency says nothing alone: read it beside coverage and the number of masks."
    return html_page.section("Figures", note, *blocks)


def _sequence(scored: Scored, systems: Mapping[str, Scored]) -> str:
    blocks = [
        curves("best mask IoU", _aligned({name: (of, of.curves.best_mask) for name, of in systems.items()})),
        curves("best track IoU", _aligned({name: (of, of.curves.best_track) for name, of in systems.items()})),
    ]
    if scored.curves.consistency:
        pairs = _aligned({name: (of, of.curves.consistency) for name, of in systems.items()})
        blocks.append(curves("consistency with the frame before", pairs))
    for name, of in systems.items():
        blocks += [f"<h3>ids of {html.escape(name)} on the true objects</h3>", _ids_over_time(of)]
    blocks += ["<h3>worst frames</h3>", *_worst_frames(scored, systems)]
    said = [f"{name}: {note}." for name, of in systems.items() for note in of.score.notes]
    note = " ".join([f"{scored.score.frames} frames. White outlines are the truth.", *said])
    return html_page.section(scored.score.name, note, *blocks)


def _aligned(lines: Mapping[str, tuple[Scored, Sequence[float]]]) -> dict[str, Sequence[float]]:
    """The last values of each curve over the frames of all systems; NaN in frames that a system has no labels for."""
    stems = {files.stem for scored, _ in lines.values() for files in scored.sequence.frames}
    place = {stem: n for n, stem in enumerate(sorted(stems, key=lambda stem: (len(stem), stem)))}
    aligned: dict[str, Sequence[float]] = {}
    for name, (scored, values) in lines.items():
        line = [float("nan")] * len(place)
        for files, value in zip(scored.sequence.frames[scored.score.frames - len(values) :], values, strict=True):
            line[place[files.stem]] = value
        aligned[name] = line
    return aligned


def curves(title: str, lines: Mapping[str, Sequence[float]]) -> str:
    """Values in [0, 1] over the frames as an SVG, a line per name; NaN leaves a gap.

    Of a sequence of more frames than the plot has pixels, a point is the mean of several.
    """
    width, height, left, top = 1060.0, 190.0, 40.0, 26.0
    plot_width, plot_height = width - left - 10, height - top - 22
    count = max((len(values) for values in lines.values()), default=1)
    together = -(-count // MOST_POINTS)
    if together > 1:
        title += f", means of {together} frames"
    parts = [f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(title)}">']
    parts.append(f'<text x="{left:g}" y="14">{html.escape(title)}</text>')
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + plot_height * (1 - level)
        parts.append(f'<line class="rule" x1="{left:g}" y1="{y:.1f}" x2="{width - 10:g}" y2="{y:.1f}"/>')
        parts.append(f'<text class="soft" x="{left - 6:g}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>')
    for frame in sorted({0, count // 4, count // 2, 3 * count // 4, count - 1}):
        x = left + plot_width * frame / max(count - 1, 1)
        told = str(frame) if frame else "frame 0"
        parts.append(f'<text class="soft" x="{x:.1f}" y="{height - 5:g}" text-anchor="middle">{told}</text>')
    for place, (name, values) in enumerate(lines.items()):
        color = CURVE_COLORS[place % len(CURVE_COLORS)]
        path, pen_down = [], False
        for frame, value in _means(values, together):
            if np.isfinite(value):
                x = left + plot_width * frame / max(count - 1, 1)
                path.append(f"{'L' if pen_down else 'M'}{x:.1f} {top + plot_height * (1 - value):.1f}")
            pen_down = bool(np.isfinite(value))
        parts.append(f'<path d="{" ".join(path)}" fill="none" stroke="{color}" stroke-width="1.6"/>')
        x = width - 10 - 150 * (len(lines) - 1 - place)
        parts.append(f'<text x="{x:g}" y="14" text-anchor="end" style="fill:{color}">{html.escape(name)}</text>')
    return f"<figure>{''.join(parts)}</svg></figure>"


def _means(values: Sequence[float], together: int) -> list[tuple[float, float]]:
    """(frame, value) of every point; together: so many frames make one point, in their middle."""
    points = []
    for start in range(0, len(values), together):
        part = np.asarray(values[start : start + together])
        known = part[np.isfinite(part)]
        points.append((start + (len(part) - 1) / 2, float(known.mean()) if len(known) else float("nan")))
    return points


def _ids_over_time(scored: Scored) -> str:
    """A row per true object: the id that covers most of it in each frame, in the id's colour."""
    counted = scored.sequence.objects
    spans = scored.curves.spans
    instances = sorted(instance for instance in spans if counted is None or instance in counted)[:MOST_ROWS]
    width, left, pitch, bar = 1060.0, 128.0, 21.0, 13.0
    height, step = pitch * len(instances) + 4, (width - left - 64) / max(scored.score.frames, 1)
    parts = [f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="ids over time">']
    for place, instance in enumerate(instances):
        y, name = pitch * place, scored.sequence.names.get(instance, f"object {instance}")
        parts.append(f'<text x="{left - 12:g}" y="{y + bar - 2:g}" text-anchor="end">{html.escape(name)}</text>')
        drawn = -1
        for id, begin, end in spans[instance]:  # between them it is out of view
            if drawn == (drawn := round(step * begin)) and step * (end - begin) < 1:
                continue  # several in one pixel: the first is shown
            fill = f'fill="rgb({",".join(map(str, colors([id])[0]))})"' if id else 'class="bed"'
            told = f"{name}: {f'id {id}' if id else 'unlabelled'}, frames {begin} to {end - 1}"
            parts.append(
                f'<rect x="{left + step * begin:.1f}" y="{y:g}" width="{max(step * (end - begin), 0.8):.1f}"'
                f' height="{bar:g}" rx="2" {fill}><title>{html.escape(told)}</title></rect>'
            )
        distinct = len({span.id for span in spans[instance] if span.id})
        note = f"{distinct} id" if distinct == 1 else f"{distinct} ids"
        parts.append(f'<text class="soft" x="{width - 52:g}" y="{y + bar - 2:g}">{note}</text>')
    return f"<figure>{''.join(parts)}</svg></figure>"


def worst_frames(curve: Sequence[float], count: int = WORST_FRAMES) -> list[int]:
    """The frames with the lowest values, at least a tenth of the sequence apart, in the order of time."""
    apart, chosen = max(1, len(curve) // 10), list[int]()
    for frame in np.argsort(np.where(np.isnan(curve), np.inf, curve), kind="stable"):
        if np.isfinite(curve[frame]) and all(abs(int(frame) - other) >= apart for other in chosen):
            chosen.append(int(frame))
        if len(chosen) == count:
            break
    return sorted(chosen)


def _worst_frames(scored: Scored, systems: Mapping[str, Scored]) -> list[str]:
    strips: list[list[tuple[Image, str]]] = []
    curve = scored.curves.best_track
    for frame in worst_frames(curve):
        files = scored.sequence.frames[frame]
        truth = scored.sequence.truth(files)
        image = read_image(files.image) if files.image is not None else np.full((*truth.shape, 3), 40, np.uint8)
        pictures: list[tuple[Image, str]] = [(_shrunk(image), f"frame {files.stem}")]
        for name, of in systems.items():
            place = next((n for n, other in enumerate(of.sequence.frames) if other.stem == files.stem), None)
            picture, caption = image, f"{name}: not answered"
            if place is not None:
                picture = overlay(image, read_labels(of.labels[files.stem]), alpha=0.55)
                caption = f"{name}: best track IoU {of.curves.best_track[place]:.2f}"
            pictures.append((_shrunk(_with_outline(picture, truth)), caption))
        strips.append(pictures)
    if STRIP_COLUMNS % (1 + len(systems)) == 0:  # several frames fill a row
        strips = [[picture for strip in strips for picture in strip]]
    return [html_page.film_strip(strip) for strip in strips]


def _with_outline(picture: Image, truth: npt.NDArray[np.uint16]) -> Image:
    signed = truth.astype(np.float32)
    edge = cv2.morphologyEx(signed, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    drawn = picture.copy()
    drawn[edge] = 255
    return drawn


def _shrunk(image: Image) -> Image:
    height = max(1, round(image.shape[0] * PICTURE_WIDTH / image.shape[1]))
    return np.asarray(cv2.resize(image, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
