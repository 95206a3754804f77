"""Parts of one thing get one id: what goes on where a new track ends, in one line with it, is one thing with it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.types import EventKind

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]

_LARGEST, _SMALLEST = 0.06, 4e-4
"""Shares of the picture between which something can be a part of a thing."""
_FEWEST = 6
"""Pairs of pixels in which two parts touch at least."""
_DISC = 0.02
"""Radius, as a share of the root of the picture's pixels, of the discs at the ends of a contact."""
_SAME_END = 3
"""Pixels, to the side or down, from one to the next at one end of a contact, at most."""
_LIGHTNESS = 0.5
"""Weight of lightness beside colour: the sides of a thing are lit differently."""
_COLOUR_NOISE = 2.0
"""By so much the colours of one thing differ anyhow."""
ANY, WEIGHTS = 7.4, np.array([-12.0, 9.0, 4.6, -1.8])
"""Log-odds that two that touch are parts of one thing: the constant, and what each of `Contact.features` adds. About
what bench/parts.py fits on generated scenes and given ones."""
_SURE = 0.6
"""Probability from which on they are taken for that."""
_LOOK_AGAIN, _MEMORY = 2, 0.7
"""What was taken for a part is looked at again every so many frames, and keeps this share of its earlier log-odds."""
_APART, _NOT_TOUCHING = -0.7, -3.0
"""Log-odds below which it is none after all, and those of what does not touch the rest."""


@dataclass(frozen=True, eq=False)
class Contact:
    """Two instances that touch, of which one at least is new. features (4,), what `WEIGHTS` weighs: how much of the
    discs around the ends of their contact both fill, the fullest one; the share of the larger one's outline at which
    they touch; how much of their convex hull both fill; the logarithm of how far apart their colours are."""

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
        for number, group in enumerate((ids, others), 1):
            side[[self._place[id] for id in group]] = number
        boxes = self._boxes[side > 0]
        (top, left), (bottom, right) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        lab = cv2.cvtColor(np.ascontiguousarray(self._image[top:bottom, left:right]), cv2.COLOR_RGB2Lab)
        radius = max(2, round(_DISC * np.sqrt(self.size)))
        area, outline, length, colours, rim, corner = _measured(self._places, side, lab, top, left, radius)
        if not length:
            return None
        hull = cv2.convexHull(rim)
        # It goes through the middles of pixels.
        convex = area.sum() / (cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1)
        apart = (colours[0] / area[0] - colours[1] / area[1]) * [_LIGHTNESS * 100 / 255, 1, 1]
        share = length / outline[area.argmax()]
        return np.array([corner, share, convex, np.log(np.linalg.norm(apart) + _COLOUR_NOISE)])

    def _length(self, one: int, other: int) -> int:
        """Pairs of pixels in which two instances touch."""
        rows, columns = ([self._place[id] for id in self.parts[instance]] for instance in (one, other))
        return int(self._touching[np.ix_(rows, columns)].sum())

    def _may_be_part(self, instance: int) -> bool:
        identities = self._identities
        if not identities.exists(instance) or identities.constraints.edited(instance):
            return False
        # Of what the segmenter is sure of the outline, that is the whole.
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


@compiled(
    "Tuple((int64[::1], int64[::1], int64, float64[:, ::1], int32[:, ::1], float64))"
    "(int64[:, ::1], uint8[::1], uint8[:, :, ::1], int64, int64, int64)"
)
def _measured(
    places: Ints, side: Image, lab: Image, top: int, left: int, radius: int
) -> tuple[Ints, Ints, int, Floats, npt.NDArray[np.int32], float]:
    """Of two things, where `side` (N + 1,) of a place in (H, W) is 1 and where it is 2, both inside the part of the
    picture from (top, left) on of which lab is given: their pixels and how long their outlines are, (2,), and how long
    their contact is, in pairs of pixels; sums of lab, (2, 3); the outermost pixels of both in every row, (x, y); and
    how much of the discs around the ends of their contact both fill, the fullest one: half where an outline goes on
    straight, more in a notch. Half, too, where there are no ends."""
    height, width = places.shape
    rows, columns = lab.shape[:2]
    area, outline, colours, length = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros((2, 3)), 0
    rim, ends = np.empty((2 * rows, 2), np.int32), np.empty((rows * columns, 2), np.int32)
    outermost, count = 0, 0
    for y in range(top, top + rows):
        first, last = -1, -1
        for x in range(left, left + columns):
            here = side[places[y, x]]
            if here == 0:
                continue
            first, last = (x if first < 0 else first), x
            area[here - 1] += 1
            for channel in range(3):
                colours[here - 1, channel] += lab[y - top, x - left, channel]
            at_contact, at_rim = False, False
            for ny in range(max(0, y - 1), min(height, y + 2)):
                for nx in range(max(0, x - 1), min(width, x + 2)):
                    there = side[places[ny, nx]]
                    at_rim |= there == 0
                    if there != here and (ny == y or nx == x):
                        outline[here - 1] += 1
                        at_contact |= there != 0
                        length += here == 1 and there == 2
            if at_contact and at_rim:
                ends[count, 0], ends[count, 1] = x, y
                count += 1
        if first >= 0:
            rim[outermost, 0], rim[outermost, 1] = first, y
            rim[outermost + 1, 0], rim[outermost + 1, 1] = last, y
            outermost += 2
    # The ends: pixels that lie next to each other are one.
    group = np.arange(count)
    for n in range(count):
        for other in range(n):
            if max(abs(ends[n, 0] - ends[other, 0]), abs(ends[n, 1] - ends[other, 1])) <= _SAME_END:
                old, new = group[n], group[other]
                if old != new:
                    for member in range(n + 1):
                        if group[member] == old:
                            group[member] = new
    filled, members = np.zeros(count), np.zeros(count)
    for n in range(count):
        inside, disc = 0, 0
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                if dy * dy + dx * dx <= radius * radius:
                    y, x = min(max(ends[n, 1] + dy, 0), height - 1), min(max(ends[n, 0] + dx, 0), width - 1)
                    inside += side[places[y, x]] > 0
                    disc += 1
        filled[group[n]] += inside / disc
        members[group[n]] += 1
    corner = 0.0 if count else 0.5
    for n in range(count):
        if members[n]:
            corner = max(corner, filled[n] / members[n])
    return area, outline, length, colours, rim[:outermost].copy(), corner
