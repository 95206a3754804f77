"""What stands free: connected pixels off the planes, cut at gaps and creases; rims and bumps go back to their plane."""

from __future__ import annotations

import cv2
import numpy as np

from mastsam_ros.segmenters.regions.depth.connected import (
    Bools,
    Floats,
    Ints,
    components,
    distance_inside,
    grow,
    neighbour_slices,
)
from mastsam_ros.segmenters.regions.depth.planes import CONTACT_PIXELS, PLANE_SIGMAS, Planes
from mastsam_ros.segmenters.regions.depth.surface import OUTLIER_SIGMAS, Surface

RIM_STEP_M = 0.02
"""A rim is rounded or bevelled by at most this much."""
RIM_REACH = 3
"""Pixels between the points compared there."""
SHORTEST_CREASE_STEP = 2
"""Normals are compared this many pixels to both sides of a crease, or as many as the local windows reach."""
SMOOTH_SHARE = 0.3
"""Parts are one thing if this share of their contact is neither gap nor inward crease."""
SIMILAR_COLOUR = 10.0
"""Lab distance up to which two parts look alike; a crease between them must then be sharper by half."""
UNLIKE_COLOUR, SHARP = 16.0, 2.0
"""Lab distance from which on two sides look different, and times the limit that a crease between them then counts."""
SMALLEST_OBJECT_PX = 24
THINNEST_OBJECT_PX = 1.5
BEHIND_SHARE = 0.95
LOW_SHARE = 0.9
"""The rest of a bump may be anything; noise has no upper end."""


def free_standing(surface: Surface, planes: Planes, crease_angle_deg: float, lab: Floats | None) -> Ints:
    """(H, W) int32, 1..n: connected pixels off the planes, cut at gaps and at creases sharper than the angle.

    lab: (H, W, 3) CIE Lab of the picture, or None.
    """
    loose = surface.valid & (planes.on_plane == 0)
    across, down = _joined(surface, loose, planes.thickness)
    limit = -2 * np.sin(np.deg2rad(crease_angle_deg) / 2)
    crease = _concavity(surface, loose, planes.thickness, limit, lab)
    # Where a crease passes into a gap the two may leave a hole between them; broad walls close it.
    wall = (crease <= limit).astype(np.uint8)
    for links, first, second in ((across, np.s_[:, :-1], np.s_[:, 1:]), (down, np.s_[:-1], np.s_[1:])):
        gap = loose[first] & loose[second] & ~links
        wall[first] |= gap
        wall[second] |= gap
    body = loose & (wall == 0)
    count, parts = components(body, across & body[:, :-1] & body[:, 1:], down & body[:-1] & body[1:])
    grow(parts, loose, across, down, 2 * surface.radius + 4)
    # What creases cut off all round, thin bars for example, are parts too.
    rest = loose & (parts == 0)
    more, others = components(rest, across & rest[:, :-1] & rest[:, 1:], down & rest[:-1] & rest[1:])
    parts = np.where(others > 0, others + count, parts)
    return _merge_parts(parts, count + more, loose, across, down, crease, limit, lab)


def _joined(surface: Surface, loose: Bools, step: float) -> tuple[Bools, Bools]:
    """Whether a pixel and its right, and its lower neighbour belong to one surface: (H, W-1), (H-1, W).

    step: metres that a surface may be off beside the noise.
    """
    w = surface.w
    noise = OUTLIER_SIGMAS * surface.smooth_noise
    joined = []
    for slope, first, second in (
        (surface.du, np.s_[:, :-1], np.s_[:, 1:]),
        (surface.dv, np.s_[:-1], np.s_[1:]),
    ):
        # Where both slopes lead to the same place in the middle there is no step, however steep the surface;
        # an edge between the two pixels may lie anywhere between them.
        jump = np.abs(w[first] - w[second] + 0.5 * (slope[first] + slope[second]))
        jump -= 0.5 * np.abs(slope[first] - slope[second])
        nearer = np.maximum(w[first], w[second])
        joined.append(loose[first] & loose[second] & (jump < noise + step * nearer * nearer))
    return joined[0], joined[1]


def give_back(surface: Surface, planes: Planes, objects: Ints) -> None:
    """Gives rims and bumps to the plane that they touch most; `objects` and `planes.on_plane` change in place.

    A rim lies wholly behind the plane and meets it at an outward edge. A bump does not stand out of the
    noise: the smaller it is, the more it would have to.
    """
    count, equations, on_plane = int(objects.max()), planes.equations, planes.on_plane
    if not count or not len(equations):
        return
    contacts = np.zeros((count + 1, len(equations) + 1))
    height = np.zeros_like(contacts)
    near = OUTLIER_SIGMAS * surface.smooth_noise
    for first, second in neighbour_slices(RIM_REACH):
        touching = (objects[first] > 0) & (on_plane[second] > 0)
        w = surface.w[first][touching]
        close = np.abs(w - surface.w[second][touching]) < near + RIM_STEP_M * w * w
        part, plane = objects[first][touching][close], on_plane[second][touching][close]
        expected = np.einsum("ni,ni->n", equations[plane - 1], surface.rays[first][touching][close])
        np.add.at(contacts, (part, plane), 1)
        np.add.at(height, (part, plane), w[close] - expected)
    home = contacts.argmax(1)
    each = np.arange(count + 1)
    here = (objects > 0) & (home[objects] > 0)
    part, w = objects[here], surface.w[here]
    plane = equations[home[part] - 1]
    above = w - np.einsum("ni,ni->n", plane, surface.rays[here])
    above /= PLANE_SIGMAS * surface.smooth_noise + planes.thickness * w * np.linalg.norm(plane, axis=1)
    area = np.maximum(np.bincount(part, minlength=count + 1), 1)
    behind = np.bincount(part, above < 1, count + 1) / area
    low = np.bincount(part, np.abs(above) < 1 + np.sqrt(SMALLEST_OBJECT_PX / area)[part], count + 1) / area
    rim = (contacts[each, home] >= CONTACT_PIXELS) & (height[each, home] < 0) & (behind > BEHIND_SHARE)
    returned = (rim | (low > LOW_SHARE)) & (home > 0)
    given = here & returned[objects]
    on_plane[given] = home[objects[given]]
    objects[given] = 0


def _concavity(surface: Surface, loose: Bools, thickness: float, limit: float, lab: Floats | None) -> Floats:
    """(H, W): how much surfaces turn towards each other round a pixel, across or down, whichever is more.

    (n_i - n_j) . (x_i - x_j) / |x_i - x_j| of the points on both sides (the convexity criterion of locally
    convex connected patches): negative in inward creases, -2 sin(angle / 2) for a crease of that angle. Where the
    colours on both sides differ, a crease that is half as sharp as `limit` counts as sharp, and so does a step between
    the two sides: a narrow ledge joins them pixel by pixel, but they do not lead into each other.
    """
    step = max(SHORTEST_CREASE_STEP, surface.radius)
    lowest = np.zeros(loose.shape, np.float32)
    height, width = loose.shape
    points = surface.rays.reshape(-1, 3)
    normals = surface.normals.reshape(-1, 3)
    flat_w, noise = surface.w.ravel(), OUTLIER_SIGMAS * surface.smooth_noise
    colours = None if lab is None else cv2.blur(lab, (3, 3)).reshape(-1, 3)
    for dy, dx, slope in ((0, step, surface.du.ravel()), (step, 0, surface.dv.ravel())):
        if height <= 2 * dy or width <= 2 * dx:
            continue
        first = loose[: height - 2 * dy, : width - 2 * dx]
        second = loose[2 * dy :, 2 * dx :]
        middle = loose[dy : height - dy, dx : width - dx]
        y, x = np.nonzero(first & middle & second)
        i = y * width + x
        j = i + 2 * dy * width + 2 * dx
        apart = points[i] / flat_w[i, None] - points[j] / flat_w[j, None]
        turn = np.einsum("nc,nc->n", normals[i] - normals[j], apart)
        turn /= np.sqrt(np.einsum("nc,nc->n", apart, apart)) + 1e-9
        if colours is not None:
            nearer = np.maximum(flat_w[i], flat_w[j])
            off = np.abs(flat_w[i] - flat_w[j] + step * (slope[i] + slope[j])) - step * np.abs(slope[i] - slope[j])
            bent = (turn < 0.5 * limit) | (off > noise + thickness * nearer * nearer)
            i_bent, j_bent = i[bent], j[bent]
            unlike = np.linalg.norm(colours[i_bent] - colours[j_bent], axis=1) > UNLIKE_COLOUR
            turn[np.flatnonzero(bent)[unlike]] = np.minimum(turn[np.flatnonzero(bent)[unlike]], SHARP * limit)
        centre = i + dy * width + dx
        lowest.ravel()[centre] = np.minimum(lowest.ravel()[centre], turn)
    return lowest


def _merge_parts(
    parts: Ints, count: int, loose: Bools, across: Bools, down: Bools, crease: Floats, limit: float, lab: Floats | None
) -> Ints:
    """Joins parts that pass into each other along most of their contact, and crumbs with what they touch; 1..n."""
    first, second, depth, linked = [], [], [], []
    for links, a, b in ((across, np.s_[:, :-1], np.s_[:, 1:]), (down, np.s_[:-1], np.s_[1:])):
        contact = loose[a] & loose[b] & (parts[a] != parts[b])
        first.append(parts[a][contact])
        second.append(parts[b][contact])
        depth.append(np.minimum(crease[a][contact], crease[b][contact]))
        linked.append(links[contact])
    low = np.minimum(np.concatenate(first), np.concatenate(second)).astype(np.int64)
    high = np.maximum(np.concatenate(first), np.concatenate(second)).astype(np.int64)
    pairs, index = np.unique(low * (count + 1) + high, return_inverse=True)
    low, high = np.divmod(pairs, count + 1)
    area = np.bincount(parts.ravel(), minlength=count + 1)
    required = np.full(len(pairs), limit)
    if lab is not None:
        flat = parts.ravel()
        colour = np.stack([np.bincount(flat, c.ravel(), count + 1) for c in np.moveaxis(lab, 2, 0)], 1)
        colour = colour / np.maximum(area, 1)[:, None]
        alike = np.linalg.norm(colour[low] - colour[high], axis=1) < SIMILAR_COLOUR
        required[alike] = 1.5 * limit
    link = np.concatenate(linked)
    contacts = np.bincount(index, minlength=len(pairs))
    links = np.bincount(index, link, len(pairs))
    smooth = np.bincount(index, link & (np.concatenate(depth) >= required[index]), len(pairs))
    group = np.arange(count + 1)
    for crumbs in (False, True):
        size = np.bincount(group, area, count + 1)
        for pair in np.argsort(-links, kind="stable"):
            a, b = group[low[pair]], group[high[pair]]
            small = min(size[a], size[b]) < SMALLEST_OBJECT_PX
            if a != b and links[pair] and (small if crumbs else smooth[pair] > SMOOTH_SHARE * contacts[pair]):
                group[group == b] = a
                size[a] += size[b]
    group[0] = 0
    merged = group[parts]
    return without_crumbs(merged)


def without_crumbs(parts: Ints) -> Ints:
    """Parts numbered 1..n, those left out that are too small or too thin to be told from noise."""
    count = int(parts.max())
    area = np.bincount(parts.ravel(), minlength=count + 1)
    core = np.bincount(parts[distance_inside(parts) >= THINNEST_OBJECT_PX], minlength=count + 1)
    good = (area >= SMALLEST_OBJECT_PX) & (core > 0)
    good[0] = False
    return np.where(good, np.cumsum(good), 0).astype(np.int32)[parts]
