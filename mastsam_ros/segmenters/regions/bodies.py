"""Bodies: segments that motion or depth sets apart, followed so that two that touch are not taken for one."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

_GROWN_UP = 8
"""Frames for which two segments must have been apart to stay apart when they touch..."""
_HELD = 8
"""... for a frame, and one more for each in which they were apart beyond that, at most so many: the line drifts."""
_PRESENT = 0.3
"""Share of a body's carried pixels that must lie in a segment for the body to be in it."""
_TRACE = 0.05
"""Share of a segment that a body's carried pixels must have."""


class Bodies:
    """Gives segments numbers that stay the same from frame to frame, as far as the flow carries them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets every body."""
        self._image: npt.NDArray[np.int32] | None = None
        self._age: dict[int, int] = {}
        self._apart: dict[int, int] = {}

    def update(
        self, segments: npt.NDArray[np.int32], flow_back: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.int32]:
        """segments (H, W) int32, 0 = none -> bodies (H, W) int32, 0 = none.

        flow_back: (H, W, 2) pixels, current -> previous; None stands for no motion. A segment that holds two
        bodies which were apart for long enough is divided between them; else it is one body, the oldest in it.
        """
        carried = self._carried(segments.shape, flow_back)
        count = int(segments.max(initial=0))
        image = np.zeros(segments.shape, np.int32)
        if count == 0:
            self._image, self._age, self._apart = image, {}, {}
            return image
        numbers = max(self._age, default=0) + 1
        shared = _met(segments, carried, count + 1, numbers)
        size, whole = shared.sum(axis=1), shared.sum(axis=0)
        shared[:, 0] = 0
        number_of = np.zeros(count + 1, np.int32)
        age: dict[int, int] = {}
        apart: dict[int, int] = {}
        for segment in np.argsort(-size[1:], kind="stable") + 1:
            own = shared[segment]
            inside = np.flatnonzero((own > _PRESENT * whole) & (own > _TRACE * size[segment]))
            inside = [int(body) for body in inside if body not in age]
            grown = [body for body in inside if self._apart[body] >= _GROWN_UP]
            if len(grown) > 1:
                _divide(image, segments == segment, carried, grown)
                age.update({body: self._age[body] + 1 for body in grown})
                apart.update({body: self._apart[body] - 1 for body in grown})
                continue
            body = max(inside, key=lambda b: (self._age[b], own[b]), default=0)
            if body == 0:
                # Numbers that neither frame uses are given again: they stay as small as the bodies are few.
                body = next(n for n in range(1, numbers + count + 1) if n not in self._age and n not in age)
            age[body] = self._age.get(body, 0) + 1
            apart[body] = min(self._apart.get(body, 0) + 1, _GROWN_UP + _HELD)
            number_of[segment] = body
        image = np.where(image > 0, image, number_of.take(segments))
        self._image, self._age, self._apart = image, age, apart
        return image

    def _carried(self, shape: tuple[int, ...], flow_back: npt.NDArray[np.float32] | None) -> npt.NDArray[np.int32]:
        if self._image is None or self._image.shape != shape:
            self.reset()
            return np.zeros(shape, np.int32)
        if flow_back is None:
            return self._image
        return _moved(self._image, flow_back)


@compiled("int32[:, ::1](int32[:, ::1], float32[:, :, ::1])")
def _moved(image: npt.NDArray[np.int32], flow_back: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """(H, W): what an image shows where the flow (H, W, 2) leads; 0 outside."""
    height, width = image.shape
    moved = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            from_x = np.rint(np.float32(x) + flow_back[y, x, 0])
            from_y = np.rint(np.float32(y) + flow_back[y, x, 1])
            if 0 <= from_x < width and 0 <= from_y < height:
                moved[y, x] = image[int(from_y), int(from_x)]
    return moved


@compiled("int64[:, ::1](int32[:, ::1], int32[:, ::1], int64, int64)")
def _met(first: npt.NDArray[np.int32], second: npt.NDArray[np.int32], count: int, other: int) -> npt.NDArray[np.int64]:
    """(count, other): pixels where `first` (H, W) < count and `second` (H, W) < other have which values."""
    pairs = np.zeros((count, other), np.int64)
    for y in range(first.shape[0]):
        for x in range(first.shape[1]):
            pairs[first[y, x], second[y, x]] += 1
    return pairs


def _divide(
    image: npt.NDArray[np.int32],
    inside: npt.NDArray[np.bool_],
    carried: npt.NDArray[np.int32],
    bodies: list[int],
) -> None:
    """Writes into `image` the nearest of the carried bodies at every pixel of `inside`."""
    seeds = inside & np.isin(carried, bodies)
    _, nearest = cv2.distanceTransformWithLabels(
        (~seeds).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    owner = np.zeros(int(nearest.max()) + 1, np.int32)
    owner[nearest[seeds]] = carried[seeds]
    image[inside] = owner[nearest[inside]]
