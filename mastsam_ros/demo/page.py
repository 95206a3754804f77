"""The demo's page: what the node saw and said, ids over time, the labelled cloud, the figures and the settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.demo.outcome import Outcome, versions
from mastsam_ros.io import html_page
from mastsam_ros.io.cloud_view import join_clouds, render_cloud
from mastsam_ros.io.frame_bag import read_frames
from mastsam_ros.io.result_bag import read_clouds
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame
from mastsam_ros.viz import overlay

MOST_ROWS = 48
"""Of the chart of ids."""


def demo_page(outcome: Outcome, name: str) -> str:
    """The page as HTML. name: what was played, for people."""
    figures = outcome.figures()
    seconds = [(stamp - outcome.stamps[0]) / 1e9 for stamp in outcome.stamps]
    blocks = [html_page.tiles(_tiles(outcome, figures))]
    blocks.append(
        html_page.section(
            "What the node saw, and what it said",
            "Camera image on the left, the published labels on the right. A colour is an id: it should stay on its "
            "object while the camera moves.",
            html_page.video(_side_by_side(outcome), _video_rate(outcome), "Every answered frame, in a loop."),
            html_page.film_strip(_strip(outcome, 8)),
        )
    )
    if outcome.object_ids:
        rows = [
            html_page.TimelineRow(entry["name"], outcome.object_ids[entry["name"]], f"{entry['tube_iou']:.2f}")
            for entry in outcome.objects
        ]
        blocks.append(
            html_page.section(
                "The id that each true object carries",
                "One colour from end to end: the object kept its id. Grey: in view, but no id. Nothing: out of view. "
                "On the right the tube IoU.",
                html_page.timeline(rows, seconds),
            )
        )
    blocks.append(
        html_page.section(
            "All ids over time",
            f"Every id that was shown in at least three frames, by birth; of many the {MOST_ROWS} largest.",
            html_page.timeline(_id_rows(outcome), seconds),
        )
    )
    blocks.extend(_cloud_section(outcome))
    note = "Counted on the answered frames."
    if outcome.objects:
        note = (
            "Scored on the answered frames. Consistency alone says little: read it with masks per frame and coverage."
        )
    blocks.append(
        html_page.section(
            "Figures",
            note,
            html_page.figure_table(("figure", "value", "meaning"), outcome.table()),
        )
    )
    stages = [(key.removesuffix(" ms p50, p95"), *value.split(", ")) for key, value in outcome.diagnostics.items()
              if key.endswith(" ms p50, p95")]  # fmt: skip
    if stages:
        table = html_page.figure_table(("stage", "p50 ms", "p95 ms"), stages, numbers=(1, 2))
        blocks.append(html_page.details("Milliseconds per stage, as the node reports them", table))
    rows_of_settings = [
        (info.path, json.dumps(outcome.session.settings.flat()[info.path]), info.description)
        for info in Settings.infos()
    ]
    table = html_page.figure_table(("setting", "value", "meaning"), rows_of_settings)
    blocks.append(html_page.section("Effective settings", "What the node was started with.",
                                    html_page.details("Show all settings", table)))  # fmt: skip
    lead = (
        f"{name}, {outcome.sent} images, played over DDS to the running ROS 2 node, "
        f"{'each after the answer to the last' if outcome.session.follows else 'in real time'}; "
        "this page shows what the node published."
    )
    numbers = ", ".join(f"{package} {number}" for package, number in versions().items())
    return html_page.page("mastsam_ros demo", lead, blocks, f"Written by `mastsam demo` with {numbers}.")


def _tiles(outcome: Outcome, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    tiles = []
    if outcome.objects:
        found = round(figures["objects_found"] * len(outcome.objects))
        tiles += [
            ("objects found", f"{found}", f"of {len(outcome.objects)}"),
            ("ids kept to the end", f"{100 * (figures['ids_kept'] or 0):.0f}", "%"),
            ("consistency H", f"{100 * figures['H']:.1f}", "%"),
        ]
    else:
        tiles.append(("ids in all", f"{figures['ids']}", ""))
        tiles.append(("masks per frame", f"{figures['masks_per_frame']:.1f}", ""))
        tiles.append(("labelled pixels", f"{100 * figures['coverage']:.0f}", "%"))
    if figures["latency_ms_p50"] is not None:
        tiles.append(("latency p50 / p95", f"{figures['latency_ms_p50']:.0f} / {figures['latency_ms_p95']:.0f}", "ms"))
    tiles.append(("images dropped", f"{100 * figures['drop_share']:.1f}", f"% of {figures['frames_sent']}"))
    return tiles


def _answered(outcome: Outcome) -> Iterator[tuple[int, Frame, npt.NDArray[np.uint16]]]:
    """Index, frame and labels of every frame that was answered."""
    by_stamp = {stamp: index for index, stamp in enumerate(outcome.stamps)}
    for frame, _ in read_frames(outcome.session.bag):
        index = by_stamp.get(frame.stamp_ns)
        if index is not None:
            yield index, frame, outcome.results[index].result.labels


def _shrunk(image: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    if image.shape[1] <= width:
        return image
    height = round(image.shape[0] * width / image.shape[1])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _side_by_side(outcome: Outcome) -> Iterator[npt.NDArray[np.uint8]]:
    for _, frame, labels in _answered(outcome):
        yield np.hstack([_shrunk(frame.image, 640), _shrunk(overlay(frame.image, labels, 0.55), 640)])


def _video_rate(outcome: Outcome) -> float:
    span = (outcome.stamps[-1] - outcome.stamps[0]) / 1e9
    return float(np.clip((len(outcome.stamps) - 1) / max(span, 1e-3), 2, 30))


def _strip(outcome: Outcome, count: int) -> list[tuple[npt.NDArray[np.uint8], str]]:
    chosen = set(np.linspace(0, len(outcome.results) - 1, min(count, len(outcome.results))).astype(int).tolist())
    pictures = []
    for index, frame, labels in _answered(outcome):
        if index in chosen:
            time_s = (frame.stamp_ns - outcome.stamps[0]) / 1e9
            pictures.append((_shrunk(overlay(frame.image, labels, 0.55), 640), f"{time_s:.1f} s"))
    return pictures


def write_strip(outcome: Outcome, path: Path) -> None:
    """Camera above, labels below, three times: the picture for the README."""
    chosen = set(np.linspace(0, len(outcome.results) - 1, min(3, len(outcome.results))).astype(int).tolist())
    columns = []
    for index, frame, labels in _answered(outcome):
        if index in chosen:
            shown = overlay(frame.image, labels, 0.55)
            gap = np.full((8, min(frame.width, 420), 3), 255, np.uint8)
            columns.append(np.vstack([_shrunk(frame.image, 420), gap, _shrunk(shown, 420)]))
            columns.append(np.full((columns[-1].shape[0], 8, 3), 255, np.uint8))
    picture = np.hstack(columns[:-1])
    cv2.imwrite(str(path), np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])


def _id_rows(outcome: Outcome) -> list[html_page.TimelineRow]:
    count = len(outcome.results)
    shown: dict[int, list[int]] = {}
    area: dict[int, int] = {}
    for index, item in enumerate(outcome.results):
        numbers, pixels = np.unique(item.result.labels, return_counts=True)
        for number, size in zip(numbers.tolist(), pixels.tolist(), strict=True):
            if number:
                shown.setdefault(number, [-1] * count)[index] = number
                area[number] = area.get(number, 0) + size
    lasting = [number for number, ids in shown.items() if sum(i > 0 for i in ids) >= min(3, count)]
    largest = sorted(sorted(lasting, key=lambda n: -area[n])[:MOST_ROWS])
    return [html_page.TimelineRow(f"id {number}", shown[number]) for number in largest]


def _cloud_section(outcome: Outcome) -> list[str]:
    """The labelled clouds of all frames in one, from two sides; of one frame where no poses are known."""
    poses = {frame.stamp_ns: frame.T_world_camera for _, frame, _ in _answered(outcome)}
    known = {stamp: T for stamp, T in poses.items() if T is not None}
    if known:
        every = max(len(known) // 25, 1)
        chosen = set(sorted(known)[::every])
        cloud = join_clouds(
            (c, known[stamp]) for stamp, c in read_clouds(outcome.session.result_bag) if stamp in chosen
        )
        eyes = np.stack([T[:3, 3] for T in known.values()])
        target = _common_focus(list(known.values()))
        note = f"The published clouds of {len(chosen)} frames, joined with the camera's true poses."
        up = np.array([0, 0, 1.0])
        middle = eyes[len(eyes) // 2] - target
        views = [
            (target + _turned(middle, 35) * 1.2 + up * 0.2, "From the camera's side."),
            (target + _turned(middle, -75) * 0.85 + up * 1.35, "From above, turned by 110 degrees."),
        ]
    else:
        clouds = list(islice(read_clouds(outcome.session.result_bag), len(outcome.results) // 2 + 1))
        if not clouds:
            return []
        cloud = clouds[-1][1]
        depth = float(np.median(cloud.xyz[:, 2])) if len(cloud) else 1.0
        target, up = np.array([0, 0, depth]), np.array([0, -1.0, 0])
        note = "The published cloud of one frame."
        views = [
            (np.array([0.25 * depth, -0.2 * depth, 0.0]), "From the right of the camera."),
            (np.array([-0.5 * depth, -0.7 * depth, 0.1 * depth]), "From the left, and from above."),
        ]
    if not len(cloud):
        return []
    pictures = [
        html_page.picture(html_page.png(render_cloud(cloud, eye, target, up=up)), caption) for eye, caption in views
    ]
    return [html_page.section("The labelled cloud", note, html_page.pair(*pictures))]


def _turned(vector: npt.NDArray[np.float64], degrees: float) -> npt.NDArray[np.float64]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ vector


def _common_focus(poses: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """The point that is nearest to all optical axes (least squares)."""
    A, b = np.zeros((3, 3)), np.zeros(3)
    for T in poses:
        across = np.eye(3) - np.outer(T[:3, 2], T[:3, 2])
        A += across
        b += across @ T[:3, 3]
    # One pose, or parallel axes: the regularisation keeps the point two metres ahead.
    ahead = np.mean([T[:3, 3] + 2 * T[:3, 2] for T in poses], axis=0)
    return np.linalg.solve(A + 1e-3 * np.eye(3), b + 1e-3 * ahead)
