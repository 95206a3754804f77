"""Parts of one thing get one id: what goes on where a new track ends, in one line with it, is one thing with it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.touching import FIRST, SECOND, Sides, Touch, around, symmetry
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.types import EventKind

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]

_LARGEST, _SMALLEST = 0.06, 4e-4
"""Shares of the picture between which something can be a part of a thing."""
_FEWEST = 6
"""Pairs of pixels in which two parts touch at least."""
_HUES, _HUES_APART = 64, 307.0
"""Steps in which the shares of red and of blue are told apart, and in how many they reach from none to all."""
_DARK = 4.0
"""Grey levels that are added to each channel: what is about as dark has no hue."""
_GREY, _COLOURFUL = 128, 40.0
"""What has no hue, in a and b of 8 bit Lab, and how far from it hues say all that they can."""
_CHANCE = 0.1
"""By so much things share hues anyhow..."""
_NEVER_ALIKE = 0.05
"""... and by this share a thing and its mirror image differ, by the pixels."""
ANY, WEIGHTS = 10.4, np.array([-10.7, 6.3, 2.95, 0.78])
"""Log-odds that two that touch are parts of one thing: the constant, and what each of `Contact.features` adds. What
bench/parts.py fits on generated scenes."""
_SURE = 0.7
"""Probability from which on they are taken for that."""
_LOOK_AGAIN, _MEMORY = 2, 0.7
"""What was taken for a part is looked at again every so many frames, and keeps this share of its earlier log-odds."""
_TOLD_APART = 2
"""After so many frames in which motion told something from the rest (`Life.told_apart`) it is no part of it."""
_APART, _NOT_TOUCHING = -0.7, -3.0
"""Log-odds below which it is none after all, and those of what does not touch the rest."""


@dataclass(frozen=True, eq=False)
class Contact:
    """Two instances that touch, of which one at least is new. features (4,), what `WEIGHTS` weighs:
    `Touch.corner`, `Touch.contact`, the logarithm of how much of their hues they share, and minus the logarithm of what
    `symmetry` lacks of 1."""

    first: int
    second: int
    features: Floats

    @property
    def odds(self) -> float:
        """Log-odds that both are parts of one thing."""
        return float(ANY + self.features @ WEIGHTS)


class _Picture:
    """What is shown where, by ids, and the instances that they are parts of."""

    def __init__(self, index: Ints, active: list[int], image: Image, identities: Identities) -> None:
        """As `join_parts`."""
        shown = [identities.shown_as(id) for id in active]
        self._place = {id: n + 1 for n, id in enumerate(dict.fromkeys(shown))}
        self._places = np.take(np.array([0, *(self._place[id] for id in shown)]), index)
        self._boxes, self._touching = _extent(self._places, len(self._place))
        self._image = image
        self.size = index.size
        """Pixels of the picture."""
        self._identities = identities
        self.parts: dict[int, set[int]] = {}
        """Instance -> its ids."""
        for id in self._place:
            self.parts.setdefault(identities.constraints.instance(id), set()).add(id)

    def area(self, ids: set[int]) -> int:
        """Pixels of all of them."""
        places = [self._place[id] for id in ids]
        return int(self._touching[places, places].sum())

    def join(self, instance: int, into: int) -> None:
        """One instance is a part of another one."""
        self.parts[into] |= self.parts.pop(instance)

    def contacts(self, new: set[int], of: int | None = None) -> list[Contact]:
        """Of all instances that may be parts of one thing, one of two among the new ones; or only those `of` one."""
        smallest, largest = _SMALLEST * self.size, _LARGEST * self.size
        fit = [
            one for one, ids in self.parts.items() if self._may_be_part(one) and smallest <= self.area(ids) <= largest
        ]
        cut = self._identities.constraints.cut
        pairs = [
            (one, other)
            for n, one in enumerate(fit)
            for other in fit[n + 1 :]
            if (one in new or other in new)
            and of in (None, one, other)
            and self._length(one, other) >= _FEWEST
            and not cut(one, other)
        ]
        compared = [self.compared(self.parts[one], self.parts[other]) for one, other in pairs]
        return [
            Contact(*pair, features) for pair, features in zip(pairs, compared, strict=True) if features is not None
        ]

    def compared(self, ids: set[int], others: set[int]) -> Floats | None:
        """As `Contact.features`; None where they do not touch."""
        side = np.zeros(len(self._place) + 1, np.uint8)
        for number, group in ((FIRST, ids), (SECOND, others)):
            side[[self._place[id] for id in group]] = number
        boxes = self._boxes[side > 0]
        there = around(np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)]), self._places.shape)
        sides = np.take(side, self._places[there])
        touch = Touch.of(sides, self.size)
        if touch is None:
            return None
        hues = _shared_hues(np.ascontiguousarray(self._image[there]), sides)
        alike = symmetry(sides)
        return np.array([touch.corner, touch.contact, np.log(hues + _CHANCE), -np.log(1 - alike + _NEVER_ALIKE)])

    def _length(self, one: int, other: int) -> int:
        """Pairs of pixels in which two instances touch."""
        rows, columns = ([self._place[id] for id in self.parts[instance]] for instance in (one, other))
        return int(self._touching[np.ix_(rows, columns)].sum())

    def _may_be_part(self, instance: int) -> bool:
        identities = self._identities
        if not identities.exists(instance) or identities.constraints.edited(instance):
            return False
        # Of what the segmenter is sure of the outline, that is the whole; so is what motion tells from what it touches.
        if any(identities[id].told_apart >= _TOLD_APART for id in self.parts[instance]):
            return False
        return identities[instance].score < identities.settings.confirm_score


def join_parts(index: Ints, active: list[int], image: Image, identities: Identities) -> None:
    """Decides for every id that is shown for the first time in this frame with what it touches it is one thing.

    The likeliest two are joined first, and count as one for the rest. They are one instance then, as pieces of a
    surface are (`join_pieces`): each is still carried and prompted by itself. What later views show apart from the rest
    is told as a thing by itself. index: (H, W), n + 1 where active[n] is; image: (H, W, 3) RGB.
    """
    new = {event.id for event in identities.events if event.kind is EventKind.BORN}
    due = [id for id in active if _is_due(id, identities)]
    if not new and not due:
        return
    picture = _Picture(index, active, image, identities)
    found = picture.contacts(new) if new else []
    while found and (best := max(found, key=lambda contact: contact.odds)).odds > np.log(_SURE / (1 - _SURE)):
        # Nobody has heard of what is new; of two that are, the larger goes on.
        pair = best.first, best.second
        part, into = sorted(pair, key=lambda id: (id not in new, picture.area(picture.parts[id]), -id))
        identities.piece_of(part, into)
        identities[part].belongs = best.odds
        picture.join(part, into)
        new.discard(part)
        found = [contact for contact in found if not {part, into} & {contact.first, contact.second}]
        found += picture.contacts(new, into)
    for id in due:
        _look_again(id, picture, identities)


def contacts(index: Ints, active: list[int], image: Image, identities: Identities) -> list[Contact]:
    """What `join_parts` decides by, before anything is joined."""
    new = {event.id for event in identities.events if event.kind is EventKind.BORN}
    return _Picture(index, active, image, identities).contacts(new) if new else []


def _shared_hues(image: Image, sides: Sides) -> float:
    """How much of their hues both things of `sides` (h, w) share, whatever the light, in a picture (h, w, 3) RGB: 0
    where one of them has hardly any, to 1."""
    counts, lab = _hues(image, cv2.cvtColor(image, cv2.COLOR_RGB2Lab), sides)
    pixels = counts.sum(axis=1)
    colour = np.hypot(*(lab.T / pixels - _GREY))
    shared = np.sqrt(counts.prod(axis=0)).sum() / np.sqrt(pixels.prod())
    return float(shared * min(*colour, _COLOURFUL) / _COLOURFUL)


@compiled("Tuple((float64[:, ::1], float64[:, ::1]))(uint8[:, :, ::1], uint8[:, :, ::1], uint8[:, ::1])")
def _hues(image: Image, lab: Image, sides: Sides) -> tuple[Floats, Floats]:
    """Of `FIRST` and `SECOND`: pixels by shares of red and of blue (2, _HUES * _HUES), and sums of a and b, (2, 2)."""
    counts, sums = np.zeros((2, _HUES * _HUES)), np.zeros((2, 2))
    step = 256 / _HUES
    for y in range(sides.shape[0]):
        for x in range(sides.shape[1]):
            side = sides[y, x]
            if side in (FIRST, SECOND):
                red, blue = image[y, x, 0] + _DARK, image[y, x, 2] + _DARK
                light = red + blue + image[y, x, 1] + _DARK
                red_step = int(min(max((red / light - 1 / 3) * _HUES_APART + 128, 0), 255) / step)
                blue_step = int(min(max((blue / light - 1 / 3) * _HUES_APART + 128, 0), 255) / step)
                counts[side - FIRST, red_step * _HUES + blue_step] += 1
                sums[side - FIRST, 0] += lab[y, x, 1]
                sums[side - FIRST, 1] += lab[y, x, 2]
    return counts, sums


def _is_due(id: int, identities: Identities) -> bool:
    life = identities[id]
    return life.belongs is not None and life.age % _LOOK_AGAIN == 0 and id in identities.constraints.pieces


def _look_again(id: int, picture: _Picture, identities: Identities) -> None:
    """Whether what was taken for a part of a thing still looks like one."""
    rest = picture.parts.get(identities.constraints.instance(id), set()) - {id}
    if not rest or min(picture.area({id}), picture.area(rest)) < _SMALLEST * picture.size:
        return
    features, life = picture.compared({id}, rest), identities[id]
    odds = _NOT_TOUCHING if features is None else float(ANY + features @ WEIGHTS)
    life.belongs = _MEMORY * (life.belongs or 0.0) + (1 - _MEMORY) * odds
    if life.belongs < _APART:
        life.belongs = None
        identities.no_piece(id)


@compiled("Tuple((int64[:, ::1], int64[:, ::1]))(int64[:, ::1], int64)")
def _extent(places: Ints, count: int) -> tuple[Ints, Ints]:
    """Of what is at each of `count` places, 1..count in (H, W), and of 0: the first row and column, and those behind
    the last (N + 1, 4); and in how many pairs of pixels it touches what is at each other (N + 1, N + 1), its own pixels
    on the diagonal."""
    height, width = places.shape
    boxes, pairs = np.zeros((count + 1, 4), np.int64), np.zeros((count + 1, count + 1), np.int64)
    boxes[:, 0], boxes[:, 1] = height, width
    for y in range(height):
        for x in range(width):
            here = places[y, x]
            box = boxes[here]
            box[0], box[1] = min(box[0], y), min(box[1], x)
            box[2], box[3] = max(box[2], y + 1), max(box[3], x + 1)
            pairs[here, here] += 1
            for ny, nx in ((y, x + 1), (y + 1, x)):
                if ny < height and nx < width and places[ny, nx] != here:
                    pairs[here, places[ny, nx]] += 1
                    pairs[places[ny, nx], here] += 1
    return boxes, pairs
