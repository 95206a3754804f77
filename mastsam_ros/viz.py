"""Pictures of label images: a colour for every id, and overlays on the camera image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.types import MAX_ID, InputError

_DISTINCT = 64
"""Ids that differ by less than this have clearly different colours; then the colours begin again."""


def colors(ids: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """RGB colour of each id: `ids` (N,) integers in [0, 65535] -> (N, 3) uint8.

    The same id always has the same colour; 0 (unlabelled) is black.
    """
    return _palette()[np.asarray(ids, dtype=np.int64)][..., :3].copy()


def overlay(
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint16],
    alpha: float = 0.5,
    numbers: bool = False,
    names: Mapping[int, str] | None = None,
) -> npt.NDArray[np.uint8]:
    """`image` (H, W, 3) uint8 RGB with its labels (H, W) uint16 laid over it, (H, W, 3) uint8 RGB.

    `alpha` in [0, 1] is the opacity of the masks; their outlines, one pixel inside each mask, are opaque.
    Unlabelled pixels stay as they are. `numbers` writes each id on its mask, `names` the
    names of those ids that have one.

    Raises InputError if the two sizes differ.
    """
    if image.shape[:2] != labels.shape:
        raise InputError(f"labels must have the image's size {image.shape[:2]}, got {labels.shape}")
    # One 4-byte look-up per pixel is several times faster than one of three bytes.
    packed = np.take(_palette().view(np.uint32)[:, 0], labels)
    colored = cv2.cvtColor(packed.view(np.uint8).reshape(*labels.shape, 4), cv2.COLOR_RGBA2RGB)
    picture = np.asarray(cv2.addWeighted(image, 1 - alpha, colored, alpha, 0), np.uint8)
    outline = _outline(labels)
    cv2.copyTo(colored, outline, picture)
    cv2.copyTo(image, (labels == 0).view(np.uint8), picture)
    if numbers or names:
        _draw_texts(picture, labels, outline, numbers, names or {})
    return picture


@lru_cache(maxsize=1)
def _palette() -> npt.NDArray[np.uint8]:
    """(65536, 4) uint8 RGBA, row 0 all zero: each colour in turn the farthest, in Lab, from all before it."""
    levels = np.linspace(0, 255, 12).astype(np.uint8)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = np.asarray(cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab))[0]
    strength = np.hypot(lab[:, 1], lab[:, 2])
    # Neither dark nor grey, as images are; neither white nor glaring, so that large masks can be looked at.
    usable = (lab[:, 0] >= 45) & (lab[:, 0] <= 90) & (strength >= 30) & (strength <= 70)
    rgb, lab = rgb[usable], lab[usable]
    distance = np.linalg.norm(lab - (50, 0, 0), axis=1)
    chosen = []
    for _ in range(_DISTINCT):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    palette = np.full((MAX_ID + 1, 4), 255, np.uint8)
    palette[1:, :3] = rgb[chosen][np.arange(MAX_ID) % _DISTINCT]
    palette[0] = 0
    palette.flags.writeable = False
    return palette


def _outline(labels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """(H, W) uint8, 1 where a neighbour in x or y has another label."""
    outline = np.zeros(labels.shape, bool)
    across = labels[:, 1:] != labels[:, :-1]
    down = labels[1:] != labels[:-1]
    outline[:, 1:] |= across
    outline[:, :-1] |= across
    outline[1:] |= down
    outline[:-1] |= down
    return outline.view(np.uint8)


def _draw_texts(
    picture: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint16],
    outline: npt.NDArray[np.uint8],
    numbers: bool,
    names: Mapping[int, str],
) -> None:
    inside = np.pad(((labels > 0) & (outline == 0)).view(np.uint8), 1)  # the picture's border is an outline too
    to_outline = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    for number in np.unique(labels[labels > 0]).tolist():
        # What OpenCV has no letters for is drawn as question marks.
        text = " ".join(part for part in (str(number) if numbers else "", names.get(number, "")) if part)
        if not text:
            continue
        _, radius, _, center = cv2.minMaxLoc(to_outline, (labels == number).view(np.uint8))
        if radius < 4:
            continue
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        corner = (center[0] - width // 2, center[1] + height // 2)
        cv2.putText(picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
