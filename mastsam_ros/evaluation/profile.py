"""Where a step's time goes: CPU time of each stage beside a floor, below which no rewriting of it can get."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.evaluation.datasets import LabelledSequence
from mastsam_ros.evaluation.tables import table
from mastsam_ros.geometry.cameras import scale_intrinsics, working_view
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.segmenters import MasksSuffice, RoughOutlines, Segmenter
from mastsam_ros.settings import Settings
from mastsam_ros.types import Frame, InputError

_WARM_UP = 3
"""Frames before which times are not counted: the first has no matches, and memory is still being asked for."""
_FEWEST = 2
_REPEATS = 15
_COPIED_BYTES = 1 << 25


@dataclass(frozen=True)
class Stage:
    """One stage: milliseconds of CPU time, of wall time where the second core helps, of the floor, and what that is."""

    name: str
    cpu_ms: float
    wall_ms: float
    floor_ms: float
    floor: str


class _InTurn:
    """A segmenter that is not offered the second core, so that each stage's time is its own."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.set_frame, self.predict, self.everything = segmenter.set_frame, segmenter.predict, segmenter.everything
        if isinstance(segmenter, MasksSuffice):
            self.masks_suffice = segmenter.masks_suffice
        if isinstance(segmenter, RoughOutlines):
            self.rough_outlines = segmenter.rough_outlines


def profile(
    sequence: LabelledSequence, settings: Settings, geometry: bool, frames: int, pixels: int | None = None
) -> list[Stage]:
    """Means over `frames` frames of a sequence, which starts anew where it ends.

    geometry: with depth and K. pixels: frames are resized to about so many first; None: as they are. CPU times are
    taken with one thread and the stages in turn, wall times as in use. Raises InputError for too few frames.
    """
    if min(frames, len(sequence.frames)) < _FEWEST:
        raise InputError(
            f"a profile needs at least {_FEWEST} frames, got {min(frames, len(sequence.frames))} of {sequence.name}"
        )
    shown = [_resized(sequence.frame(n, geometry), pixels) for n in range(min(frames, len(sequence.frames)))]
    wall = _stages(create_mastsam(settings), shown, frames)
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        alone = create_mastsam(settings)
        alone.segmenter, alone.clock = _InTurn(alone.segmenter), time.process_time
        cpu = _stages(alone, shown, frames)
        floors = _floors(shown[-2], shown[-1], settings)
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    return [Stage(name, spent, wall[name], *floors.get(name, (0.0, ""))) for name, spent in cpu.items()]


def profile_table(title: str, stages: Sequence[Stage]) -> str:
    """The table of one profile; the last row is the whole step."""
    total = stages[-1].cpu_ms
    rows = [(s.name, [s.cpu_ms, 100 * s.cpu_ms / total, s.floor_ms, s.wall_ms]) for s in stages]
    text = table([title, "CPU ms", "share %", "floor ms", "wall ms"], rows, ".1f .0f .2f .1f")
    return "\n".join([text, "", *(f"{s.name}: {s.floor}" for s in stages if s.floor)])


def _stages(mastsam: Mastsam, shown: list[Frame], frames: int) -> dict[str, float]:
    """Mean milliseconds of every stage, the rest of the step as "other", the whole as "total"."""
    spent: dict[str, float] = defaultdict(float)
    for n in range(_WARM_UP + frames):
        # There and back again: no jump at the end.
        place = n % max(1, 2 * len(shown) - 2)
        timings = mastsam.step(shown[min(place, 2 * len(shown) - 2 - place)]).timings_ms
        if n >= _WARM_UP:
            for stage, took in timings.items():
                spent[stage] += took / frames
    total = spent.pop("total")
    return {**spent, "other": total - sum(spent.values()), "total": total}


def _resized(frame: Frame, pixels: int | None) -> Frame:
    if pixels is None:
        return frame
    ratio = math.sqrt(pixels / (frame.height * frame.width))
    size = (round(frame.width * ratio), round(frame.height * ratio))
    image = np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    depth = None if frame.depth is None else cv2.resize(frame.depth, size, interpolation=cv2.INTER_NEAREST_EXACT)
    K = None if frame.K is None else scale_intrinsics(frame.K, size[0] / frame.width, size[1] / frame.height)
    return replace(frame, image=image, depth=depth, K=K)


def _cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of a call, the median of some."""
    spent = []
    for _ in range(_REPEATS):
        start = time.thread_time()
        work()
        spent.append(time.thread_time() - start)
    return 1e3 * float(np.median(spent))


def _floors(before: Frame, now: Frame, settings: Settings) -> dict[str, tuple[float, str]]:
    """Per stage the cost of the library calls that it cannot do without, or of touching its input and output once."""
    view0, view = (working_view(frame, settings.working_pixels) for frame in (before, now))
    pixels, size = view.height * view.width, (view.width, view.height)
    source, target = np.zeros(_COPIED_BYTES, np.uint8), np.ones(_COPIED_BYTES, np.uint8)
    # A copy touches every byte twice.
    per_byte = _cpu_ms(lambda: np.copyto(target, source)) / (2 * _COPIED_BYTES)
    numbers: npt.NDArray[np.int64] = np.arange(pixels) // 40
    histogram = _cpu_ms(lambda: np.bincount(numbers, minlength=pixels // 40 + 1)), "one histogram of the pixels"
    floors = {
        "prepare": (_cpu_ms(lambda: cv2.resize(now.image, size, interpolation=cv2.INTER_AREA)), "the resize alone"),
        "match": (_flow_floor(view0, view, settings), "the two optical flow calls alone"),
        "segment": (_segment_floor(view, settings), "bilateral filter, watershed and partition tree alone"),
        "carry": (37 * pixels * per_byte, "matches and index read, index written, once"),
        "predict": histogram,
        "choose": histogram,
        "overlap": (28 * pixels * per_byte, "candidates and carried index read, index written, once"),
        "discover": histogram,
        "identify": (19 * pixels * per_byte, "index and picture read, index written, once"),
        "outline": _outline_floor(now, view, settings),
    }
    if now.depth is not None and now.K is not None:
        points = now.depth.size / settings.geometry.points_stride**2
        keys = np.random.default_rng(0).integers(0, 1 << 60, pixels // 4)
        sums = "sums in windows of the depth, of which normals are made, alone"
        floors["segment"] = _window_floor(view), sums
        floors["pose"] = _corner_flow_floor(view0, view), "Lucas-Kanade flow of a keyframe's corners alone"
        floors["map"] = _cpu_ms(lambda: np.sort(keys)), "one sort of the points' keys"
        floors["lift"] = (4 * now.depth.size + 30 * points) * per_byte, "depth read, points written, once"
    floors["total"] = sum(spent for spent, _ in floors.values()), ""
    return floors


def _flow_floor(before: Frame, now: Frame, settings: Settings) -> float:
    deep = before.depth is not None and now.depth is not None
    scale = settings.flow.scale_with_depth if deep else settings.flow.scale
    size = (max(16, round(now.width * scale)), max(16, round(now.height * scale)))
    greys = [cv2.resize(cv2.cvtColor(f.image, cv2.COLOR_RGB2GRAY), size) for f in (before, now)]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return 2 * _cpu_ms(lambda: flow.calc(greys[0], greys[1], None))


def _segment_floor(view: Frame, settings: Settings) -> float:
    from mastsam_ros.segmenters.regions import superpixels
    from mastsam_ros.segmenters.regions.partition_tree import climbed

    smooth = superpixels.smoothed(view.image)
    graph = superpixels.build_region_graph(smooth, settings.regions.superpixel_spacing)
    moments, sides = graph.moments(superpixels.compressed_lab(smooth)), np.zeros(graph.count, np.int64)
    _, places = np.unique(graph.labels, return_index=True)
    seeds = np.zeros(graph.labels.size, np.int32)
    seeds[places] = np.arange(1, len(places) + 1)
    seeds = seeds.reshape(graph.labels.shape)
    return (
        _cpu_ms(lambda: superpixels.smoothed(view.image))
        + _cpu_ms(lambda: cv2.watershed(smooth, seeds.copy()))
        + _cpu_ms(lambda: climbed(graph.edges, graph.boundary, moments, sides, 16.0, 17.0, 51.0))
    )


def _window_floor(view: Frame) -> float:
    images = [np.ones((view.height, view.width), kind) for kind in (*[np.float32] * 6, *[np.float64] * 4)]
    window = np.ones(3)
    return _cpu_ms(lambda: [cv2.sepFilter2D(image, -1, window, window) for image in images])


def _outline_floor(frame: Frame, view: Frame, settings: Settings) -> tuple[float, str]:
    labels = np.zeros((view.height, view.width), np.uint16)
    size = (frame.width, frame.height)
    enlarged = _cpu_ms(lambda: cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT))
    if not settings.tracker.sharpen_outlines:
        return enlarged, "the resize alone"
    return enlarged + _cpu_ms(lambda: cv2.cvtColor(frame.image, cv2.COLOR_RGB2Lab)), "the resize and the colours alone"


def _corner_flow_floor(before: Frame, now: Frame) -> float:
    greys = [cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY) for frame in (before, now)]
    corners = cv2.goodFeaturesToTrack(greys[0], 700, 0.001, 5.0)
    if corners is None:
        return 0.0
    return _cpu_ms(lambda: cv2.calcOpticalFlowPyrLK(greys[0], greys[1], corners, None, winSize=(9, 9), maxLevel=1))
