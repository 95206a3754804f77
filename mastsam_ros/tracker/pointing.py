"""What a person pointed at: points and a box in a recent view, carried to the latest one, and the mask they mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.device import on_host
from mastsam_ros.types import CandidateMasks, EditError, Frame, Matches, PointPrompts

_KEPT_VIEWS = 20
"""Views that can still be pointed into: two or three seconds of what was segmented, and bounded memory."""
_NEAREST = 9
"""Matches that are asked where a point has gone..."""
_REACH = 0.03
"""... and how far from it they may be, as a share of the picture's longer side."""
_BOX_SAMPLES = 6
_WHOLE_BOX = 0.5
"""IoU of a mask's bounding box with the box that was drawn below which the mask is something else."""


@dataclass(frozen=True, eq=False)
class Pointed:
    """Points (K, 2) pixels, whether each lies on the instance (K,), and a box (x0, y0, x1, y1) or None."""

    xy: npt.NDArray[np.float64]
    on_instance: npt.NDArray[np.bool_]
    box: npt.NDArray[np.float64] | None = None

    def prompts(self) -> PointPrompts:
        """The same as a prompt for a segmenter, padded where there are no points."""
        xy, labels = torch.zeros(1, 1, 2), torch.full((1, 1), -1)
        if len(self.xy):
            xy, labels = torch.from_numpy(self.xy)[None], torch.from_numpy(self.on_instance.astype(np.int64))[None]
        boxes = None if self.box is None else torch.from_numpy(self.box)[None]
        return PointPrompts(xy, labels, boxes=boxes)


def pointed(
    xy: Sequence[Sequence[float]] | npt.ArrayLike,
    on_instance: Sequence[bool] | None = None,
    box_xywh: Sequence[float] | None = None,
) -> Pointed:
    """What was given, checked. on_instance: of each point, all True if None. Raises EditError."""
    points = np.asarray(xy, np.float64)
    points = points.reshape(0, 2) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise EditError(f"points must be finite pairs x, y of pixels, got shape {points.shape}")
    on = np.ones(len(points), bool) if on_instance is None else np.asarray(on_instance, bool)
    if on.shape != (len(points),):
        raise EditError(
            f"each point needs to be told on or beside the instance: got {len(points)} points, {len(on)} times"
        )
    box = None
    if box_xywh is not None:
        x, y, width, height = (float(value) for value in box_xywh)
        if not np.isfinite([x, y, width, height]).all() or width < 1 or height < 1:
            raise EditError(f"a box needs x, y, width and height with an extent, got {[x, y, width, height]}")
        box = np.array([x, y, x + width - 1, y + height - 1])
    if box is None and not on.any():
        raise EditError("give at least one point on the instance, or a box round it")
    return Pointed(points, on, box)


class RecentViews:
    """The last views (working size) with the size of the picture that each is of: as far back as one can point."""

    def __init__(self) -> None:
        self._views: deque[tuple[Frame, int, int]] = deque(maxlen=_KEPT_VIEWS)

    def reset(self) -> None:
        """Forgets them."""
        self._views.clear()

    def add(self, view: Frame, width: int, height: int) -> None:
        """Keeps a view of a picture of this size; of the ones before only what can be looked at."""
        if self._views:
            before, *size = self._views[-1]
            self._views[-1] = (Frame(before.image, before.stamp_ns, before.frame_id), size[0], size[1])
        self._views.append((view, width, height))

    def on_latest(self, what: Pointed, stamp_ns: int | None, match: Callable[[Frame, Frame], Matches]) -> Pointed:
        """What was pointed at in pixels of the latest view, carried along the matches of the views between.

        what: in pixels of the picture. stamp_ns: the picture's; None or later than all: the latest. A picture that was
        skipped counts as the view nearest to it. Raises EditError for a stamp that is too old, for points outside the
        picture, and for points that cannot be followed.
        """
        if not self._views:
            raise EditError("there is no picture yet: wait for the first frame")
        stamps = [view.stamp_ns for view, _, _ in self._views]
        place = len(stamps) - 1
        if stamp_ns is not None and stamp_ns < stamps[-1]:
            if stamp_ns < stamps[0]:
                raise EditError(
                    f"the picture is {(stamps[-1] - stamp_ns) / 1e9:.2f} s old, the oldest kept one"
                    f" {(stamps[-1] - stamps[0]) / 1e9:.2f} s: point into a newer one, or give no stamp"
                )
            place = min(range(len(stamps)), key=lambda n: abs(stamps[n] - stamp_ns))
        view, width, height = self._views[place]
        what = _inside(what, view, width, height)
        for number in range(place + 1, len(self._views)):
            following = self._views[number][0]
            what = _carried(what, match(view, following), following)
            view = following
        return what


def asked(predict: Callable[[PointPrompts], CandidateMasks], what: Pointed) -> tuple[torch.Tensor, float]:
    """What a segmenter sees there in the view that it has, mask (H, W) bool and score; raises EditError for nothing."""
    answer = meant(predict(what.prompts()), what)
    if answer is None and what.box is not None and not len(what.xy):
        # A segmenter that knows points only.
        centre = Pointed((what.box[:2] + what.box[2:])[None] / 2, np.array([True]), what.box)
        answer = meant(predict(centre.prompts()), centre)
    if answer is None:
        raise EditError("the segmenter sees nothing there: point at other places, or draw a closer box")
    return answer


def meant(candidates: CandidateMasks, what: Pointed) -> tuple[torch.Tensor, float] | None:
    """The candidate, (H, W) bool, that fits the points and the box best, and its score; None if none fits.

    Of candidates that hold every point on the instance, none beside it, and fill the box: the best score.
    """
    best: tuple[float, float, int] | None = None
    masks, scores = on_host(candidates.masks[0], candidates.scores[0])
    for n, (mask, score) in enumerate(zip(masks, scores.tolist(), strict=True)):
        if score <= 0 or not mask.any():
            continue
        fit = _fit(mask, what)
        if fit > 0 and (best is None or (fit, score) > best[:2]):
            best = (fit, score, n)
    return None if best is None else (torch.from_numpy(masks[best[2]]), best[1])


def _fit(mask: npt.NDArray[np.bool_], what: Pointed) -> float:
    """Share of the points that a mask is right about, times its box's IoU with the box; 0 if it misses the thing."""
    x, y = np.rint(what.xy).astype(int).T.reshape(2, -1)
    held = mask[y, x]
    if what.on_instance.any() and not held[what.on_instance].any():
        return 0.0
    fit = float((held == what.on_instance).mean()) if len(held) else 1.0
    if what.box is not None:
        rows, columns = np.nonzero(mask)
        x0, y0, x1, y1 = what.box
        low = np.maximum([columns.min(), rows.min()], [x0, y0])
        high = np.minimum([columns.max(), rows.max()], [x1, y1])
        both = float(np.prod(np.maximum(high - low + 1, 0)))
        own = (np.ptp(columns) + 1) * (np.ptp(rows) + 1)
        iou = both / (own + (x1 - x0 + 1) * (y1 - y0 + 1) - both)
        fit *= iou if iou >= _WHOLE_BOX else 0.0
    return fit


def _inside(what: Pointed, view: Frame, width: int, height: int) -> Pointed:
    """Pixels of the picture as pixels of the view, the box cut to it. Raises EditError for points outside."""
    for x, y in what.xy:
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise EditError(f"the point ({x:g}, {y:g}) lies outside the picture of {width}x{height}")
    scale = np.array([view.width / width, view.height / height])
    limit = np.array([view.width - 1, view.height - 1])
    xy = np.clip((what.xy + 0.5) * scale - 0.5, 0, limit)
    box = what.box
    if box is not None:
        low, high = np.maximum(box[:2], 0), np.minimum(box[2:], [width - 1, height - 1])
        if (high < low).any():
            raise EditError(f"the box {box.tolist()} lies outside the picture of {width}x{height}")
        box = np.concatenate([np.clip((corner + 0.5) * scale - 0.5, 0, limit) for corner in (low, high)])
    return Pointed(xy, what.on_instance, box)


def _carried(what: Pointed, matches: Matches, view: Frame) -> Pointed:
    """One view further. Points beside the instance that are lost are left out."""
    xy0, xy1 = on_host(matches.xy0, matches.xy1)
    limit = np.array([view.width - 1, view.height - 1])
    reach = _REACH * max(view.width, view.height)
    motion, found = _motions(what.xy, xy0, xy1, reach)
    xy = what.xy + motion
    found &= ((xy > -0.5) & (xy < limit + 0.5)).all(axis=1)
    box = what.box
    if box is not None:
        sides = [np.linspace(box[axis], box[axis + 2], _BOX_SAMPLES) for axis in (0, 1)]
        samples = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
        motion, known = _motions(samples, xy0, xy1, reach)
        if not known.any():
            raise EditError("what is in the box cannot be followed to the latest picture: give no stamp")
        box = box + np.tile(np.median(motion[known], axis=0), 2)
        box = np.concatenate([np.clip(box[:2], 0, limit), np.clip(box[2:], 0, limit)])
    elif not (found & what.on_instance).any():
        raise EditError("what was pointed at cannot be followed to the latest picture: give no stamp")
    return Pointed(np.clip(xy[found], 0, limit), what.on_instance[found], box)


def _motions(
    xy: npt.NDArray[np.float64], xy0: npt.NDArray[np.float32], xy1: npt.NDArray[np.float32], reach: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The median motion (K, 2) of the matches nearest to each point, and whether there are any within reach."""
    motion, found = np.zeros((len(xy), 2)), np.zeros(len(xy), bool)
    for n, point in enumerate(xy):
        distance = np.square(xy0 - point).sum(axis=1)
        near = np.nonzero(distance <= reach**2)[0]
        near = near[np.argsort(distance[near], kind="stable")[:_NEAREST]]
        if len(near):
            motion[n], found[n] = np.median(xy1[near] - xy0[near], axis=0), True
    return motion, found
