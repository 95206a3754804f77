"""Dense matches checked by depth and pose: where flow fails and the place is at rest, the pose tells where it was."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.compiled import compiled
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
    flow = np.array(matches.flow_back.cpu().numpy(), np.float32, order="C")
    seen = np.ones(flow.shape[:2], bool) if matches.visible is None else matches.visible.cpu().numpy()
    K, K_previous = current.K, current.K if previous.K is None else previous.K
    R, t = T_previous_current[:3, :3], T_previous_current[:3, 3]
    rest = _take_from_pose(
        flow,
        np.ascontiguousarray(seen),
        np.array(current.depth, np.float32, order="C"),
        np.array(previous.depth, np.float32, order="C"),
        cv2.blur(current.image, (3, 3)),
        cv2.blur(previous.image, (3, 3)),
        # Pixel -> homogeneous pixel of the previous image, up to the factor z: K' (R K^-1 (u, v, 1) + t / z).
        np.array(np.column_stack([K_previous @ R @ np.linalg.inv(K), K_previous @ t]), np.float32, order="C"),
        np.array([*(R[2] @ np.linalg.inv(K)), t[2]]),
    )
    if not rest.any():
        return matches
    visible = seen | rest
    sure = _confidence_image(
        np.ascontiguousarray(matches.xy1.cpu()), np.ascontiguousarray(matches.confidence.cpu()), rest
    )
    xy0, xy1, of_match = _packed(flow, visible, sure)
    device = matches.flow_back.device
    return replace(
        matches,
        xy0=torch.from_numpy(xy0).to(device),
        xy1=torch.from_numpy(xy1).to(device),
        confidence=torch.from_numpy(of_match).to(device),
        flow_back=torch.from_numpy(flow).to(device),
        visible=torch.from_numpy(visible).to(device),
    )


@compiled(
    "bool_[:, ::1](float32[:, :, ::1], bool_[:, ::1], float32[:, ::1], float32[:, ::1], uint8[:, :, ::1],"
    " uint8[:, :, ::1], float32[:, ::1], float64[::1])"
)
def _take_from_pose(
    flow: npt.NDArray[np.float32],
    visible: npt.NDArray[np.bool_],
    depth: npt.NDArray[np.float32],
    depth_before: npt.NDArray[np.float32],
    image: npt.NDArray[np.uint8],
    image_before: npt.NDArray[np.uint8],
    projection: npt.NDArray[np.float32],
    along_z: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """(H, W): pixels that the pose explains and flow (H, W, 2) does not; there the flow is replaced.

    visible: (H, W), where the flow is believed. projection: (3, 4), homogeneous pixel and inverse depth -> homogeneous
    pixel of the previous view. along_z: (4,), the same, times depth -> depth there. depth, image: of both views.
    """
    height, width = visible.shape
    rest = np.zeros((height, width), np.bool_)
    for v in range(height):
        for u in range(width):
            if not (depth[v, u] > 0 and np.isfinite(depth[v, u])):
                continue
            x, y = np.float32(u), np.float32(v)
            w = np.float32(1) / depth[v, u]
            z = projection[2, 0] * x + (projection[2, 1] * y + projection[2, 2]) + projection[2, 3] * w
            if not z > np.float32(1e-6):
                continue
            rigid_x = (projection[0, 0] * x + (projection[0, 1] * y + projection[0, 2]) + projection[0, 3] * w) / z - x
            rigid_y = (projection[1, 0] * x + (projection[1, 1] * y + projection[1, 2]) + projection[1, 3] * w) / z - y
            if visible[v, u] and max(abs(rigid_x - flow[v, u, 0]), abs(rigid_y - flow[v, u, 1])) <= _AGREE_PX:
                continue
            if not (0 <= x + rigid_x <= width - 1 and 0 <= y + rigid_y <= height - 1):
                continue
            row, column = int(np.rint(y + rigid_y)), int(np.rint(x + rigid_x))
            found = depth_before[row, column]
            expected = depth[v, u] * (along_z[0] * u + along_z[1] * v + along_z[2]) + along_z[3]
            inverse = np.float32(1) / max(found, np.float32(1e-3))
            limit = np.float32(_SAME_DEPTH) * inverse + np.float32(_NOISE)
            if not (found > 0 and abs(inverse - 1 / max(expected, 1e-3)) < limit):
                continue
            if visible[v, u]:
                led_row = int(min(max(np.rint(y + flow[v, u, 1]), 0), height - 1))
                led_column = int(min(max(np.rint(x + flow[v, u, 0]), 0), width - 1))
                by_pose, by_flow = np.float32(0), np.float32(0)
                for c in range(3):
                    now = np.int32(image[v, u, c])
                    by_pose += np.float32(abs(np.int32(image_before[row, column, c]) - now))
                    by_flow += np.float32(abs(np.int32(image_before[led_row, led_column, c]) - now))
                if by_pose / np.float32(3) > by_flow / np.float32(3) + np.float32(_COLOUR_MARGIN):
                    continue
            rest[v, u] = True
            flow[v, u, 0], flow[v, u, 1] = rigid_x, rigid_y
    return rest


@compiled(
    "float32[:, ::1](Array(float32, 2, 'C', readonly=True), Array(float32, 1, 'C', readonly=True), bool_[:, ::1])"
)
def _confidence_image(
    xy: npt.NDArray[np.float32], of_match: npt.NDArray[np.float32], rest: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """(H, W): the confidence (N,) of matches in the pixels xy (N, 2) where they are, 1 where `rest` (H, W) is."""
    confidence = rest.astype(np.float32)
    for n in range(len(xy)):
        x, y = int(np.rint(xy[n, 0])), int(np.rint(xy[n, 1]))
        if not rest[y, x]:
            confidence[y, x] = of_match[n]
    return confidence


@compiled("Tuple((float32[:, ::1], float32[:, ::1], float32[::1]))(float32[:, :, ::1], bool_[:, ::1], float32[:, ::1])")
def _packed(
    flow: npt.NDArray[np.float32], visible: npt.NDArray[np.bool_], confidence: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Places in the previous and the current view (N, 2), and confidence (N,), of the visible pixels (H, W)."""
    before, now = np.empty((visible.size, 2), np.float32), np.empty((visible.size, 2), np.float32)
    sure = np.empty(visible.size, np.float32)
    count = 0
    for y in range(visible.shape[0]):
        for x in range(visible.shape[1]):
            if visible[y, x]:
                before[count, 0] = np.float32(x) + flow[y, x, 0]
                before[count, 1] = np.float32(y) + flow[y, x, 1]
                now[count, 0], now[count, 1] = x, y
                sure[count] = confidence[y, x]
                count += 1
    return before[:count].copy(), now[:count].copy(), sure[:count].copy()
