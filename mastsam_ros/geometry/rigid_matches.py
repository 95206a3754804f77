"""Dense matches checked by depth and pose: where flow fails and the place is at rest, the pose tells where it was."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.geometry.pose import rigid_flow
from mastsam_ros.types import Frame, Matches

_AGREE_PX = 2.0
"""Flow that is closer to the motion of a place at rest is left alone: it is finer."""
_SAME_DEPTH = 0.01
"""Depth may differ by this share from what the pose predicts, beyond ..."""
_NOISE = 0.004
"""... so much inverse depth, 1/m, which cameras' noise makes up to."""
_COLOUR_MARGIN = 3.0
"""Grey levels by which flow must match colours better than the pose to be believed: things that move on their own."""


def checked_matches(
    matches: Matches, previous: Frame, current: Frame, T_previous_current: npt.NDArray[np.float64]
) -> Matches:
    """The matches, with those of dense flow replaced where depth and pose know better; sparse ones unchanged.

    A pixel is taken for a place at rest if the previous depth image shows a surface where the pose puts it and its
    colour there is no worse than where the flow leads. What moves on its own fails one of the two.
    """
    if matches.flow_back is None or previous.depth is None or current.depth is None or current.K is None:
        return matches
    flow = matches.flow_back.cpu().numpy()
    visible = np.ones(flow.shape[:2], bool) if matches.visible is None else matches.visible.cpu().numpy()
    rigid = rigid_flow(current.depth, current.K, T_previous_current, previous.K)
    expected = _depth_before(current.depth, current.K, T_previous_current)
    rest = _at_rest(rigid, flow, visible, expected, previous.depth, (previous.image, current.image))
    if not rest.any():
        return matches
    width = visible.shape[1]
    confidence = np.zeros(visible.size, np.float32)
    x, y = np.rint(matches.xy1.cpu().numpy()).astype(np.int64).T
    confidence[y * width + x] = matches.confidence.cpu().numpy()
    confidence[rest.ravel()] = 1
    flow, visible = flow.copy(), visible | rest
    flow[rest] = rigid[rest]
    at = np.flatnonzero(visible)
    rows = at // width
    xy1 = np.stack([at - rows * width, rows], axis=1).astype(np.float32)
    device = matches.flow_back.device
    return replace(
        matches,
        xy0=torch.from_numpy(xy1 + flow.reshape(-1, 2).take(at, axis=0)).to(device),
        xy1=torch.from_numpy(xy1).to(device),
        confidence=torch.from_numpy(confidence.take(at)).to(device),
        flow_back=torch.from_numpy(flow).to(device),
        visible=torch.from_numpy(visible).to(device),
    )


def _depth_before(
    depth: npt.NDArray[np.float32], K: npt.NDArray[np.float64], T_previous_current: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(H, W): depth in the previous view of what each pixel of a depth image (H, W) shows."""
    height, width = depth.shape
    along_x, along_y, along_z, start = T_previous_current[2]
    x, y = (np.arange(width) - K[0, 2]) / K[0, 0], (np.arange(height)[:, None] - K[1, 2]) / K[1, 1]
    return depth * (along_x * x + (along_y * y + along_z)) + start


def _at_rest(
    rigid: npt.NDArray[np.float32],
    flow: npt.NDArray[np.float32],
    visible: npt.NDArray[np.bool_],
    expected: npt.NDArray[np.float64],
    previous: npt.NDArray[np.float32],
    images: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
) -> npt.NDArray[np.bool_]:
    """(H, W): pixels that the pose explains and flow does not.

    expected: (H, W) depth of each pixel's place in the previous view. previous: its depth image. images: of both.
    """
    height, width = visible.shape
    known = ~np.isnan(rigid[..., 0])
    apart = np.abs(rigid - flow)
    rows, columns = np.nonzero(known & (~visible | (np.maximum(apart[..., 0], apart[..., 1]) > _AGREE_PX)))
    before = np.stack([columns, rows], axis=1) + rigid[rows, columns]
    x, y = before.T
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    rows, columns, before = rows[inside], columns[inside], before[inside].astype(np.float32)
    at = np.rint(before).astype(np.int64)
    found = previous[at[:, 1], at[:, 0]]
    w = 1 / np.maximum(found, 1e-3)
    same = (found > 0) & (np.abs(w - 1 / np.maximum(expected[rows, columns], 1e-3)) < _SAME_DEPTH * w + _NOISE)
    rows, columns, before = rows[same], columns[same], before[same]
    colours, now = (cv2.blur(image, (3, 3)) for image in images)
    colour = now[rows, columns].astype(np.float32)
    led = np.stack([columns, rows], axis=1) + flow[rows, columns]
    by_pose, by_flow = (np.abs(_sampled(colours, xy) - colour).mean(axis=1) for xy in (before, led.astype(np.float32)))
    better = ~visible[rows, columns] | (by_pose <= by_flow + _COLOUR_MARGIN)
    result = np.zeros(visible.shape, bool)
    result[rows[better], columns[better]] = True
    return result


def _sampled(image: npt.NDArray, xy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, 3) colours at the pixels nearest to (N, 2)."""
    x = np.rint(xy[:, 0]).astype(np.int64).clip(0, image.shape[1] - 1)
    y = np.rint(xy[:, 1]).astype(np.int64).clip(0, image.shape[0] - 1)
    return image[y, x].astype(np.float32)
