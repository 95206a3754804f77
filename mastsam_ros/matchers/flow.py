"""The embedded default's matcher: dense optical flow, forward and backward, no weights."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.compiled import compiled
from mastsam_ros.geometry.flow_fields import led_to, resized
from mastsam_ros.settings import FlowSettings
from mastsam_ros.types import Frame, InputError, Matches


class FlowMatcher:
    """Dense inverse search flow between consecutive frames; every pixel seen in both is a match."""

    matches_ahead: Literal[True] = True

    def __init__(self, settings: FlowSettings | None = None) -> None:
        self._settings = settings or FlowSettings()
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._kept: tuple[Frame, float, npt.NDArray[np.uint8]] | None = None

    def match(self, previous: Frame, current: Frame) -> Matches:
        """Matches at every pixel of `current` that passes the forward-backward check.

        xy1 are integer pixels of the current frame, xy0 sub-pixel positions in the previous one;
        confidence falls with the forward-backward error. Raises InputError if the sizes differ.
        """
        if previous.image.shape != current.image.shape:
            raise InputError(
                f"flow needs two frames of one size, got {previous.width}x{previous.height}"
                f" and {current.width}x{current.height}"
            )
        both_deep = previous.depth is not None and current.depth is not None
        scale = self._settings.scale_with_depth if both_deep else self._settings.scale
        before, now = self._grey(previous, scale), self._grey(current, scale)
        self._kept = (current, scale, now)
        height, width = current.height, current.width
        back = self._flow.calc(now, before, None)
        forward = self._flow.calc(before, now, None)
        size = (height, width)
        confidence = resized(self._returning(back, forward), size)
        across, down = width / now.shape[1], height / now.shape[0]
        flow_back = _stretched(resized(back, size), across, down)
        flow = _stretched(resized(forward, size), across, down)
        xy0, xy1, of_match, visible = _seen_in_both(flow_back, confidence)
        return Matches(
            xy0=torch.from_numpy(xy0),
            xy1=torch.from_numpy(xy1),
            confidence=torch.from_numpy(of_match),
            flow=torch.from_numpy(flow),
            flow_back=torch.from_numpy(flow_back),
            visible=torch.from_numpy(visible),
        )

    def _grey(self, frame: Frame, scale: float) -> npt.NDArray[np.uint8]:
        """The frame in grey, at this share of its size; the previous frame's is kept, never computed twice."""
        if self._kept is not None and self._kept[0] is frame and self._kept[1] == scale:
            return self._kept[2]
        grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        if scale < 1:
            # The flow's pyramid needs a few pixels to stand on.
            size = (max(16, round(frame.width * scale)), max(16, round(frame.height * scale)))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        return np.asarray(grey, dtype=np.uint8)

    def _returning(self, back: npt.NDArray[np.float32], forward: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Confidence (H, W) in 0..1 that falls with the squared error of going back and forth."""
        returned = np.asarray(
            cv2.remap(forward, *led_to(back), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), dtype=np.float32
        )
        return _confidence(back, returned, self._settings.relative_tolerance, self._settings.absolute_tolerance)


@compiled("float32[:, ::1](float32[:, :, ::1], float32[:, :, ::1], float32, float32)")
def _confidence(
    back: npt.NDArray[np.float32], returned: npt.NDArray[np.float32], relative: float, absolute: float
) -> npt.NDArray[np.float32]:
    """(H, W): 1 where two flows (H, W, 2) cancel out, 0 from the squared error on that the tolerances allow."""
    height, width = back.shape[:2]
    confidence = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            there, home = back[y, x], returned[y, x]
            across, down = there[0] + home[0], there[1] + home[1]
            motion = (there[0] * there[0] + there[1] * there[1]) + (home[0] * home[0] + home[1] * home[1])
            error = (across * across + down * down) / (relative * motion + absolute)
            confidence[y, x] = min(max(np.float32(1) - error, np.float32(0)), np.float32(1))
    return confidence


@compiled("float32[:, :, ::1](float32[:, :, ::1], float32, float32)")
def _stretched(flow: npt.NDArray[np.float32], across: float, down: float) -> npt.NDArray[np.float32]:
    """A flow (H, W, 2) times a factor for each direction, for which numpy takes ten times as long."""
    longer = np.empty_like(flow)
    for y in range(flow.shape[0]):
        for x in range(flow.shape[1]):
            longer[y, x, 0], longer[y, x, 1] = flow[y, x, 0] * across, flow[y, x, 1] * down
    return longer


@compiled("Tuple((float32[:, ::1], float32[:, ::1], float32[::1], bool_[:, ::1]))(float32[:, :, ::1], float32[:, ::1])")
def _seen_in_both(
    flow_back: npt.NDArray[np.float32], confidence: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Matches of a dense flow (H, W, 2) where its confidence (H, W) is above 0 and it leads into the picture.

    Places in the previous and the current image (N, 2), confidence (N,), and where they are, (H, W).
    """
    height, width = confidence.shape
    before, now = np.empty((height * width, 2), np.float32), np.empty((height * width, 2), np.float32)
    sure = np.empty(height * width, np.float32)
    visible = np.zeros((height, width), np.bool_)
    count = 0
    for y in range(height):
        for x in range(width):
            to_x, to_y = np.float32(x) + flow_back[y, x, 0], np.float32(y) + flow_back[y, x, 1]
            if confidence[y, x] > 0 and 0 <= to_x <= width - 1 and 0 <= to_y <= height - 1:
                visible[y, x] = True
                before[count, 0], before[count, 1] = to_x, to_y
                now[count, 0], now[count, 1] = x, y
                sure[count] = confidence[y, x]
                count += 1
    return before[:count].copy(), now[:count].copy(), sure[:count].copy(), visible
