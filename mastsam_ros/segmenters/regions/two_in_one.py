"""Small things that touch and have one colour, and were taken for one: what several frames say together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.segmenters.regions.superpixels import RegionGraph
from mastsam_ros.touching import FIRST, SECOND, UNKNOWN, Touch, around

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ANY, WEIGHTS = 1.1, np.array([0.86, 7.4, -7.1, -7.5])
"""Log-odds that a part of a region and its rest are two things: the constant, and what each of `Suspect.features` adds.
About what bench/two_in_one.py fits on generated scenes and given ones."""
_BEFORE = -2.2
"""Log-odds before anything is known."""
SURE = 1.0
"""Log-odds from which on they are taken for two."""
_SAYS = 0.5
"""Share of what a frame says that counts: frames err alike."""
_FORGETS, _MOST = 0.97, 6.0
"""Share of the evidence that is left after a frame, and the most that it grows to."""
_HOPELESS = -3.2
"""Log-odds in one frame below which a part is not followed."""
_LEAST = 0.3
"""Evidence below which what is not found in a frame is forgotten."""
_SAME = 0.5
"""IoU with what was carried over from the last frame, from which on it is the same part."""
_BEHIND = 0.06
"""Share of the picture above which a region is thought to be behind what lies in it: of a smaller one nobody knows, and
what is behind it may go on there."""


@dataclass(frozen=True, eq=False)
class Suspect:
    """A part of a region that may be a thing by itself. leaves: its superpixels; rest: those of the rest of the region.

    features (4,), what `WEIGHTS` weighs: its score by the flow (`flow_steps.Parts`), and `Touch.corner`,
    `Touch.contact` and `Touch.convexity` of both.
    """

    leaves: Ints
    rest: Ints
    features: Floats

    @property
    def odds(self) -> float:
        """Log-odds that it is, as far as this frame tells."""
        return float(ANY + self.features @ WEIGHTS)


@dataclass(frozen=True, eq=False)
class Followed:
    """Suspects K from frame to frame: labels (H, W) of the superpixels S of a frame; of (S,), k + 1 where one is k's;
    evidence (K,), log-odds without `_BEFORE`."""

    labels: npt.NDArray[np.int32]
    of: Ints
    evidence: Floats

    def votes(self, graph: RegionGraph, flow: npt.NDArray[np.float32], visible: npt.NDArray[np.bool_]) -> Floats:
        """Pixels of each superpixel of the next frame that are carried over from each of them, (S, K). flow: (H, W, 2)
        from there to here; visible: (H, W)."""
        return _carried(self.labels, self.of, graph.labels, flow, visible, graph.count, len(self.evidence))


def suspects(graph: RegionGraph, cut: Ints, leaves: list[Ints], score: Floats) -> list[Suspect]:
    """Those parts that touch the rest of their region. cut: (S,) regions; leaves: superpixels of each of K parts, all
    of which lie in one region; score: (K,)."""
    if not leaves:
        return []
    boxes = _boxes(graph.labels, graph.count)
    pixels = graph.labels.size
    behind = np.where(np.bincount(cut, graph.area)[cut] > _BEHIND * pixels, 0, UNKNOWN).astype(np.uint8)
    found = []
    for part, by_flow in zip(leaves, score, strict=True):
        region = np.flatnonzero(cut == cut[part[0]])
        side = behind.copy()
        side[region] = SECOND
        side[part] = FIRST
        box = np.concatenate([boxes[region, :2].min(axis=0), boxes[region, 2:].max(axis=0)])
        touch = Touch.of(np.take(side, graph.labels[around(box, graph.labels.shape)]), pixels)
        if touch is not None:
            features = np.array([by_flow, touch.corner, touch.contact, touch.convexity])
            found.append(Suspect(part, region[side[region] == SECOND], features))
    return found


def judged(
    graph: RegionGraph,
    found: list[Suspect],
    followed: Followed | None,
    flow: npt.NDArray[np.float32],
    visible: npt.NDArray[np.bool_],
) -> tuple[list[Suspect], Floats, Followed | None]:
    """Those suspects of a frame that are not hopeless, the log-odds of each by all frames, and what is followed on.

    What agrees with what was followed so far adds to its evidence. What is not found in a frame loses little. flow:
    (H, W, 2) towards the last frame; visible: (H, W), where it is believed.
    """
    found = [suspect for suspect in found if suspect.odds >= _HOPELESS]
    before, votes = np.empty(0), np.empty((graph.count, 0))
    if followed is not None:
        before, votes = followed.evidence * _FORGETS, followed.votes(graph, flow, visible)
    same = _agreeing(graph, found, votes)
    now = [
        _SAYS * (suspect.odds - _BEFORE) + (before[same[n]] if n in same else 0.0) for n, suspect in enumerate(found)
    ]
    evidence = np.minimum(np.array(now), _MOST)
    taken, kept = np.zeros(graph.count, np.int64), list[float]()
    for n in sorted(range(len(found)), key=lambda n: (n not in same, -evidence[n])):
        if evidence[n] >= 0 and not taken[found[n].leaves].any():
            kept.append(evidence[n])
            taken[found[n].leaves] = len(kept)
    for k in set(np.flatnonzero(before > _LEAST).tolist()) - set(same.values()):
        lost = (2 * votes[:, k] > graph.area) & (taken == 0)
        if lost.any():
            kept.append(before[k])
            taken[lost] = len(kept)
    return found, _BEFORE + evidence, Followed(graph.labels, taken, np.array(kept)) if kept else None


def _agreeing(graph: RegionGraph, found: list[Suspect], votes: Floats) -> dict[int, int]:
    """Which of the suspects found are which of those that were carried over, by votes (S, K)."""
    whole, best = votes.sum(axis=0), dict[int, tuple[float, int]]()
    for n, suspect in enumerate(found if len(whole) else []):
        held = votes[suspect.leaves].sum(axis=0)
        iou = held / (whole + graph.area[suspect.leaves].sum() - held)
        k = int(iou.argmax())
        if iou[k] >= _SAME and iou[k] > best.get(k, (0.0, n))[0]:
            best[k] = float(iou[k]), n
    return {n: k for k, (_, n) in best.items()}


@compiled("float64[:, ::1](int32[:, ::1], int64[::1], int32[:, ::1], float32[:, :, ::1], bool_[:, ::1], int64, int64)")
def _carried(
    before: npt.NDArray[np.int32],
    of: Ints,
    labels: npt.NDArray[np.int32],
    flow: npt.NDArray[np.float32],
    visible: npt.NDArray[np.bool_],
    count: int,
    followed: int,
) -> Floats:
    """As `Followed.votes`."""
    height, width = labels.shape
    votes = np.zeros((count, followed))
    for y in range(height):
        for x in range(width):
            if visible[y, x]:
                row, column = int(np.rint(y + flow[y, x, 1])), int(np.rint(x + flow[y, x, 0]))
                if 0 <= row < height and 0 <= column < width and of[before[row, column]] > 0:
                    votes[labels[y, x], of[before[row, column]] - 1] += 1
    return votes


@compiled("int64[:, ::1](int32[:, ::1], int64)")
def _boxes(labels: npt.NDArray[np.int32], count: int) -> Ints:
    """Of each label 0..count-1 in (H, W): the first row and column, and those behind the last (count, 4)."""
    boxes = np.zeros((count, 4), np.int64)
    boxes[:, 0], boxes[:, 1] = labels.shape
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            box = boxes[labels[y, x]]
            box[0], box[1] = min(box[0], y), min(box[1], x)
            box[2], box[3] = max(box[2], y + 1), max(box[3], x + 1)
    return boxes
