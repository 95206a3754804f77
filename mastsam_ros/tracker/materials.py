"""Pieces of one surface get one id: what is of the material of a large thing in view is a part of it from birth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.types import EventKind

Floats = npt.NDArray[np.float64]

_LARGE, _HUGE = 0.03, 0.1
"""Shares of the picture from which on something can be a surface of which other things are pieces, where it goes on
beyond the picture and where it does not."""
_DARK = 8.0
"""Grey levels added before the logarithm, so that noise in the dark counts for little."""
_LOGS = np.log(np.arange(256, dtype=np.float32) + np.float32(_DARK))
"""Of every grey level."""
_COARSE = 2.0
"""Pixels, standard deviation of the blur before the coarse slopes are taken."""
_FLAT = 0.004
"""Slope of the logarithm of the intensity, per pixel, that noise makes."""
_INNER = 30
"""Pixels off the outlines that must be there for those at the outlines not to be asked."""
_BESIDE = 2
"""Pixels from an outline to what it touches."""
_COLOUR_NOISE = 0.01
"""By so much the colours of two pieces of one surface differ anyhow."""
ANY, WEIGHTS = -8.1, np.array([-3.0, -4.6, -2.6, 2.3])
"""Log-odds that a new track is a piece of a large one: the constant, and what each of `Comparison.differences` adds.
About what bench/materials.py fits on generated scenes and given ones."""
_SURE = 0.6
"""Probability from which on it is taken for one..."""
_APART, _APART_AFTER_ALL = 3, 8
"""Frames in which motion told something from what is behind it (`Life.told_apart`) from which on it does not become a
piece of anything, and is none any more."""
_ENCLOSED = 0.6
"""... unless this share of its outline lies on a third thing, and it does not reach the edge of the picture..."""
_THING, _COMPACT = 0.004, 0.9
"""... or it is at most this share of the picture, does not reach its edge, and fills so much of its convex hull: a
thing before a wall of its own colour is lost if it is taken for a piece of that; a speck of the wall costs an id."""


@dataclass(frozen=True, eq=False)
class Materials:
    """What each of N tracks is made of: area (N,) share of the picture; colour (N, 2), means of log(r / g) and
    log(b / g), which light and shadow leave alone; shade (N,), mean logarithm of the intensity; texture (N, 2),
    logarithms of the mean slopes of that, fine and coarse."""

    area: Floats
    colour: Floats
    shade: Floats
    texture: Floats

    @staticmethod
    def of(index: npt.NDArray[np.int64], count: int, image: npt.NDArray[np.uint8]) -> Materials:
        """index: (H, W), n + 1 where track n of `count` is. image: (H, W, 3) RGB."""
        logs = cv2.LUT(image, _LOGS)
        shade = (logs[..., 0] + logs[..., 1] + logs[..., 2]) / np.float32(3)
        coarse = cv2.GaussianBlur(shade, (0, 0), _COARSE)
        area, size, sums = _sums(index, count, logs, shade, slopes(shade), slopes(coarse))
        means = sums / np.maximum(size, 1)[:, None]
        texture = np.log(means[:, 3:] * [1, 2 * _COARSE] + _FLAT)
        return Materials(area / index.size, means[:, :2], means[:, 2], texture)

    def differences(self, piece: int, wholes: npt.NDArray[np.int64], contact: Floats) -> Floats:
        """As `Comparison.differences`, of tracks by their places. contact: (N,) with each of all tracks."""
        colour = np.linalg.norm(self.colour[wholes] - self.colour[piece], axis=1)
        shade = np.abs(self.shade[wholes] - self.shade[piece])
        texture = np.abs(self.texture[wholes] - self.texture[piece]).mean(axis=1)
        return np.stack([np.log(colour + _COLOUR_NOISE), shade**2, texture, contact[wholes]], axis=1)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A new track beside K large ones of which it may be a piece. differences: (K, 4), what `WEIGHTS` weighs: logarithm
    of how far apart their colours are, squared difference of their shades, difference of their textures, and the share
    of the new one's outline at which they touch. possible: (K,) bool, False for all that a third thing keeps apart."""

    id: int
    wholes: list[int]
    differences: Floats
    possible: npt.NDArray[np.bool_]


def join_pieces(
    index: npt.NDArray[np.int64], active: list[int], image: npt.NDArray[np.uint8], identities: Identities
) -> None:
    """Decides for every id that is shown for the first time in this frame whether it is a piece of another one.

    Then it is one instance with that, as tracks are that people merged: it is still carried and prompted by itself, and
    no id that was ever seen changes. What is a piece of two things makes them one if one of them is new, too. What
    people decided about is left alone. What turns out to have an outline of which the segmenter is sure, because it
    moves by itself, is no piece any more, nor is what motion keeps telling from what is behind it. index: (H, W), n + 1
    where active[n] is; image: (H, W, 3) RGB.
    """
    in_pieces = {*identities.constraints.pieces, *identities.constraints.pieces.values()}
    for id in active:
        life = identities[id]
        apart = id in identities.constraints.pieces and life.told_apart >= _APART_AFTER_ALL
        if apart or (id in in_pieces and life.score >= identities.settings.confirm_score):
            identities.no_piece(id)
    never_seen = {event.id for event in identities.events if event.kind is EventKind.BORN}
    instance = identities.constraints.instance
    for new in comparisons(index, active, image, identities):
        odds = np.where(new.possible, ANY + new.differences @ WEIGHTS, -np.inf)
        found = [new.wholes[k] for k in np.argsort(-odds, kind="stable") if odds[k] > np.log(_SURE / (1 - _SURE))]
        for whole in found[:1]:
            identities.piece_of(new.id, whole)
        for other in found[1:]:
            here, there = sorted((instance(new.id), instance(other)), key=lambda id: (id in never_seen, id))
            if here != there and there in never_seen and not identities.constraints.cut(here, there):
                identities.piece_of(there, here)


def comparisons(
    index: npt.NDArray[np.int64], active: list[int], image: npt.NDArray[np.uint8], identities: Identities
) -> Iterator[Comparison]:
    """What `join_pieces` decides by, the largest new id first; what is joined meanwhile counts for the next."""
    born = {event.id for event in identities.events if event.kind is EventKind.BORN}
    shown = [identities.shown_as(id) for id in active]
    ids = list(dict.fromkeys(shown))
    new = [id for id in ids if id in born]
    if not new or len(ids) < 2:
        return
    place = {id: n for n, id in enumerate(ids)}
    index = np.take(np.array([0, *(place[id] + 1 for id in shown)]), index)
    materials = Materials.of(index, len(ids), image)
    area, said = materials.area, identities.constraints
    new.sort(key=lambda id: (-area[place[id]], id))
    rank = {id: n for n, id in enumerate(new)}
    frame = np.concatenate([index[0], index[-1], index[:, 0], index[:, -1]])
    goes_on = np.bincount(frame, minlength=len(ids) + 1)[1:] > 0
    large = np.flatnonzero(area >= np.where(goes_on, _LARGE, _HUGE)).tolist()
    for id in new:
        if area[place[id]] <= _THING and _is_compact(index == place[id] + 1):
            continue
        # Of two that are new, the smaller may be a piece of the larger.
        wholes = [n for n in large if rank.get(ids[n], -1) < rank[id] and _may_be_one(id, ids[n], identities)]
        if wholes:
            contact, on = _contact(index, place[id] + 1)
            # What another thing encloses lies on that, and is no piece of a third one.
            third = [on > 0 and said.instance(ids[on - 1]) != said.instance(ids[n]) for n in wholes]
            differences = materials.differences(place[id], np.array(wholes), contact[1:])
            yield Comparison(id, [ids[n] for n in wholes], differences, ~np.array(third))


def _may_be_one(id: int, whole: int, identities: Identities) -> bool:
    said, sure = identities.constraints, identities.settings.confirm_score
    if said.edited(id) or said.instance(whole) == 0 or said.cut(id, whole):
        return False
    if identities[id].told_apart >= _APART:
        return False
    # What lies beyond an outline that the segmenter is sure of is no part of it.
    return max(identities[id].score, identities[whole].score) < sure


def _is_compact(mask: npt.NDArray[np.bool_]) -> bool:
    """Whether a mask (H, W) fills its convex hull, or nearly, and does not reach the edge of the picture."""
    if not mask.any() or mask[[0, -1]].any() or mask[:, [0, -1]].any():
        return False
    hull = cv2.convexHull(cv2.findNonZero(mask.view(np.uint8)))
    return bool(np.count_nonzero(mask) >= _COMPACT * cv2.contourArea(hull))


def _contact(index: npt.NDArray[np.int64], number: int) -> tuple[Floats, int]:
    """Share of the outline of what has the number in index (H, W) that each number touches, (N + 1,); 0 is nothing.

    Also the number of what encloses it, 0 if nothing does. The edge of the picture is no outline.
    """
    mask = (index == number).astype(np.uint8)
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    y, x = np.nonzero(mask != inside)
    steps = [
        (dy, dx)
        for dy in range(-_BESIDE, _BESIDE + 1)
        for dx in range(-_BESIDE, _BESIDE + 1)
        if dy * dy + dx * dx <= _BESIDE**2 + 1
    ]
    framed = np.pad(index, _BESIDE)
    touched = np.zeros((len(y), max(int(index.max()), number) + 1), bool)
    row = np.arange(len(y))
    for dy, dx in steps:
        touched[row, framed[y + _BESIDE + dy, x + _BESIDE + dx]] = True
    share = touched.mean(axis=0) if len(y) else np.zeros(touched.shape[1])
    share[number] = 0.0
    around = int(share[1:].argmax()) + 1
    reaches_out = mask[[0, -1]].any() or mask[:, [0, -1]].any()
    return share, 0 if reaches_out or share[around] <= _ENCLOSED else around


@compiled(
    "Tuple((int64[::1], int64[::1], float64[:, ::1]))(int64[:, ::1], int64, float32[:, :, ::1], float32[:, ::1],"
    " float32[:, ::1], float32[:, ::1])"
)
def _sums(
    index: npt.NDArray[np.int64],
    count: int,
    logs: npt.NDArray[np.float32],
    shade: npt.NDArray[np.float32],
    fine: npt.NDArray[np.float32],
    coarse: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Of each of `count` tracks: its pixels and those asked, which are off its outline if there are some, (count,); and
    over these the sums (count, 5) of log(r / g) and log(b / g), by logs (H, W, 3), and of the other three (H, W)."""
    height, width = index.shape
    area, inner = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    off_outline = np.ones((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            here = index[y, x]
            for side in range(8):
                by, bx = y + (side + (side > 3)) // 3 - 1, x + (side + (side > 3)) % 3 - 1
                if 0 <= by < height and 0 <= bx < width and index[by, bx] != here:
                    off_outline[y, x] = False
                    break
            area[here] += 1
            inner[here] += off_outline[y, x]
    size, sums = np.zeros(count + 1, np.int64), np.zeros((count + 1, 5))
    for y in range(height):
        for x in range(width):
            here = index[y, x]
            if off_outline[y, x] or inner[here] < _INNER:
                size[here] += 1
                of = sums[here]
                of[0] += logs[y, x, 0] - logs[y, x, 1]
                of[1] += logs[y, x, 2] - logs[y, x, 1]
                of[2] += shade[y, x]
                of[3] += fine[y, x]
                of[4] += coarse[y, x]
    return area[1:], size[1:], sums[1:]


def slopes(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Steepness (H, W) of an image (H, W), per pixel."""
    across, down = (cv2.Sobel(image, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    return np.sqrt(across * across + down * down)
