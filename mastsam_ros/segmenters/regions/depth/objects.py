"""What stands free: connected pixels off the planes, cut at gaps and creases; rims and bumps go back to their plane."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.segmenters.regions.depth.connected import (
    Bools,
    Floats,
    Ints,
    components,
    grow,
)
from mastsam_ros.segmenters.regions.depth.planes import CONTACT_PIXELS, PLANE_SIGMAS, Planes
from mastsam_ros.segmenters.regions.depth.surface import OUTLIER_SIGMAS, Surface
from mastsam_ros.segmenters.regions.superpixels import sums_over

Doubles = npt.NDArray[np.float64]

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
    noise = OUTLIER_SIGMAS * surface.smooth_noise
    joined = []
    reach = 2 * surface.radius - 1
    for slope, side, dy, dx in ((surface.du, (1, reach), 0, 1), (surface.dv, (reach, 1), 1, 0)):
        # Where the slopes on both sides lead from one to the other there is no step, however steep the surface.
        # Wide windows that reach over an edge measure neither side's slope: that stands beside them.
        kernel = np.ones(side, np.uint8)
        least = cv2.erode(np.where(loose, slope, np.float32(np.inf)), kernel)
        most = cv2.dilate(np.where(loose, slope, np.float32(-np.inf)), kernel)
        joined.append(_without_step(loose, surface.w, least, most, dy, dx, noise, step))
    return joined[0], joined[1]


@compiled(
    "bool_[:, ::1](bool_[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64, float64, float64)"
)
def _without_step(
    loose: Bools, w: Floats, least: Floats, most: Floats, dy: int, dx: int, noise: float, step: float
) -> Bools:
    """Which loose pixels (H, W) join their neighbour (dy, dx) away, (H - dy, W - dx): w does not leave the slopes, from
    the least to the most, by more than the noise and `step` metres."""
    height, width = w.shape
    joined = np.zeros((height - dy, width - dx), np.bool_)
    for v in range(height - dy):
        for u in range(width - dx):
            y, x = v + dy, u + dx
            if loose[v, u] and loose[y, x]:
                change = w[y, x] - w[v, u]
                jump = max(min(least[v, u], least[y, x]) - change, change - max(most[v, u], most[y, x]))
                nearer = max(w[v, u], w[y, x])
                joined[v, u] = jump < np.float32(noise) + np.float32(step) * nearer * nearer
    return joined


def give_back(surface: Surface, planes: Planes, objects: Ints) -> None:
    """Gives rims and bumps to the plane that they touch most; `objects` and `planes.on_plane` change in place.

    A rim lies wholly behind the plane and meets it at an outward edge. A bump does not stand out of the
    noise: the smaller it is, the more it would have to.
    """
    count, equations, on_plane = int(objects.max()), planes.equations, planes.on_plane
    if not count or not len(equations):
        return
    near = OUTLIER_SIGMAS * surface.smooth_noise
    contacts, height = _touched(objects, on_plane, surface.w, surface.rays, equations, count, near)
    home = contacts.argmax(1)
    each = np.arange(count + 1)
    noise = PLANE_SIGMAS * surface.smooth_noise
    area, behind, low = _against_home(objects, home, surface.w, surface.rays, equations, count, noise, planes.thickness)
    behind, low = behind / np.maximum(area, 1), low / np.maximum(area, 1)
    rim = (contacts[each, home] >= CONTACT_PIXELS) & (height[each, home] < 0) & (behind > BEHIND_SHARE)
    returned = (rim | (low > LOW_SHARE)) & (home > 0)
    returned[0] = False
    if not returned.any():
        return
    given = np.take(returned, objects)
    on_plane[given] = home[objects[given]]
    objects[given] = 0


@compiled("float64(float64[:, ::1], int64, float32[:, :, ::1], int64, int64)")
def _on(equations: Doubles, plane: int, rays: Floats, v: int, u: int) -> float:
    """Inverse depth that a plane has in a pixel."""
    return (
        equations[plane, 0] * rays[v, u, 0] + equations[plane, 1] * rays[v, u, 1] + equations[plane, 2] * rays[v, u, 2]
    )


@compiled(
    "UniTuple(float64[:, ::1], 2)(int32[:, ::1], int32[:, ::1], float32[:, ::1], float32[:, :, ::1], float64[:, ::1],"
    " int64, float64)"
)
def _touched(
    objects: Ints, on_plane: Ints, w: Floats, rays: Floats, equations: Doubles, count: int, near: float
) -> tuple[Doubles, Doubles]:
    """(count + 1, P + 1): pixels of each object that touch each plane, and how high they are above it together."""
    rows, columns = objects.shape
    contacts, height = np.zeros((count + 1, len(equations) + 1)), np.zeros((count + 1, len(equations) + 1))
    for dy, dx in ((0, RIM_REACH), (0, -RIM_REACH), (RIM_REACH, 0), (-RIM_REACH, 0)):
        for v in range(max(0, -dy), rows - max(0, dy)):
            for u in range(max(0, -dx), columns - max(0, dx)):
                part, plane = objects[v, u], on_plane[v + dy, u + dx]
                if part == 0 or plane == 0:
                    continue
                if abs(w[v, u] - w[v + dy, u + dx]) < np.float32(near) + np.float32(RIM_STEP_M) * w[v, u] * w[v, u]:
                    contacts[part, plane] += 1
                    height[part, plane] += w[v, u] - _on(equations, plane - 1, rays, v, u)
    return contacts, height


@compiled(
    "UniTuple(float64[::1], 3)(int32[:, ::1], int64[::1], float32[:, ::1], float32[:, :, ::1], float64[:, ::1], int64,"
    " float64, float64)"
)
def _against_home(
    objects: Ints,
    home: npt.NDArray[np.int64],
    w: Floats,
    rays: Floats,
    equations: Doubles,
    count: int,
    noise: float,
    thickness: float,
) -> tuple[Doubles, Doubles, Doubles]:
    """Pixels of each object (count + 1,), of those not in front of its home plane, and of those near it."""
    area, behind, low = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count + 1)
    for v in range(objects.shape[0]):
        for u in range(objects.shape[1]):
            area[objects[v, u]] += 1
    area[0] = 0
    slack = 1 + np.sqrt(SMALLEST_OBJECT_PX / np.maximum(area, 1))
    length = np.sqrt((equations * equations).sum(axis=1))
    for v in range(objects.shape[0]):
        for u in range(objects.shape[1]):
            part = objects[v, u]
            plane = home[part] - 1
            if part == 0 or plane < 0:
                continue
            above = w[v, u] - _on(equations, plane, rays, v, u)
            limit = noise + thickness * w[v, u] * length[plane]
            behind[part] += above < limit
            low[part] += abs(above) < slack[part] * limit
    return area, behind, low


def _concavity(surface: Surface, loose: Bools, thickness: float, limit: float, lab: Floats | None) -> Floats:
    """(H, W): how much surfaces turn towards each other round a pixel, across or down, whichever is more.

    (n_i - n_j) . (x_i - x_j) / |x_i - x_j| of the points on both sides (the convexity criterion of locally
    convex connected patches): negative in inward creases, -2 sin(angle / 2) for a crease of that angle. Where the
    colours on both sides differ, a crease that is half as sharp as `limit` counts as sharp, and so does a step between
    the two sides: a narrow ledge joins them pixel by pixel, but they do not lead into each other.
    """
    step = max(SHORTEST_CREASE_STEP, surface.radius)
    colours = np.zeros((*loose.shape, 3), np.float32) if lab is None else cv2.blur(lab, (3, 3))
    noise = OUTLIER_SIGMAS * surface.smooth_noise
    lowest = np.zeros(loose.shape, np.float32)
    for dy, dx, slope in ((0, step, surface.du), (step, 0, surface.dv)):
        _turn(lowest, loose, surface.w, slope, surface.rays, surface.normals, colours, dy, dx, noise, thickness, limit)
    return lowest


@compiled(
    "void(float32[:, ::1], bool_[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, :, ::1], float32[:, :, ::1],"
    " float32[:, :, ::1], int64, int64, float64, float64, float64)"
)
def _turn(
    lowest: Floats,
    loose: Bools,
    w: Floats,
    slope: Floats,
    rays: Floats,
    normals: Floats,
    colours: Floats,
    dy: int,
    dx: int,
    noise: float,
    thickness: float,
    limit: float,
) -> None:
    """Lowers `lowest` (H, W), see `_concavity`, where surfaces turn towards each other along one axis: (dy, dx) away on
    both sides of a pixel. slope: (H, W) of w along that axis. Without colours (H, W, 3) they are all equal."""
    height, width = loose.shape
    step = dy + dx
    for v in range(dy, height - dy):
        for u in range(dx, width - dx):
            y, x, below, right = v - dy, u - dx, v + dy, u + dx
            if not (loose[v, u] and loose[y, x] and loose[below, right]):
                continue
            turn, length = np.float32(0), np.float32(0)
            for c in range(3):
                apart = rays[y, x, c] / w[y, x] - rays[below, right, c] / w[below, right]
                turn += (normals[y, x, c] - normals[below, right, c]) * apart
                length += apart * apart
            turn /= np.sqrt(length) + np.float32(1e-9)
            nearer = max(w[y, x], w[below, right])
            sum_, difference = slope[y, x] + slope[below, right], slope[y, x] - slope[below, right]
            off = abs(w[y, x] - w[below, right] + step * sum_) - step * abs(difference)
            if turn < 0.5 * limit or off > noise + thickness * nearer * nearer:
                unlike = np.float32(0)
                for c in range(3):
                    unlike += (colours[y, x, c] - colours[below, right, c]) ** 2
                if np.sqrt(unlike) > UNLIKE_COLOUR:
                    turn = min(turn, np.float32(SHARP * limit))
            lowest[v, u] = min(lowest[v, u], turn)


def _merge_parts(
    parts: Ints, count: int, loose: Bools, across: Bools, down: Bools, crease: Floats, limit: float, lab: Floats | None
) -> Ints:
    """Joins parts that pass into each other along most of their contact, and crumbs with what they touch; 1..n."""
    pair, depth, link = _part_contacts(parts, count, loose, across, down, crease)
    pairs, index = np.unique(pair, return_inverse=True)
    low, high = np.divmod(pairs, count + 1)
    area = np.bincount(parts.ravel(), minlength=count + 1)
    required = np.full(len(pairs), limit)
    if lab is not None:
        colour = sums_over(parts, lab, count + 1) / np.maximum(area, 1)[:, None]
        alike = np.linalg.norm(colour[low] - colour[high], axis=1) < SIMILAR_COLOUR
        required[alike] = 1.5 * limit
    contacts = np.bincount(index, minlength=len(pairs))
    links = np.bincount(index, link, len(pairs))
    smooth = np.bincount(index, link & (depth >= required[index]), len(pairs))
    tied = np.argsort(-links, kind="stable")
    tied = tied[links[tied] > 0]
    group = _grouped(low[tied], high[tied], (smooth > SMOOTH_SHARE * contacts)[tied], area)
    return without_crumbs(np.take(group, parts))


@compiled("int32[::1](int64[::1], int64[::1], bool_[::1], int64[::1])")
def _grouped(
    low: npt.NDArray[np.int64], high: npt.NDArray[np.int64], smooth: Bools, area: npt.NDArray[np.int64]
) -> Ints:
    """The group of each part, of `area` (count + 1,) pixels; 0 for the first. Pairs are joined in their order, smooth
    ones first, then those with a group that is a crumb."""
    count = len(area)
    group = np.arange(count).astype(np.int32)
    for crumbs in (False, True):
        size = np.zeros(count, np.int64)
        for part in range(count):
            size[group[part]] += area[part]
        for pair in range(len(low)):
            a, b = group[low[pair]], group[high[pair]]
            if a != b and (min(size[a], size[b]) < SMALLEST_OBJECT_PX if crumbs else smooth[pair]):
                group[group == b] = a
                size[a] += size[b]
    group[0] = 0
    return group


@compiled(
    "Tuple((int64[::1], float32[::1], bool_[::1]))(int32[:, ::1], int64, bool_[:, ::1], bool_[:, ::1], bool_[:, ::1],"
    " float32[:, ::1])"
)
def _part_contacts(
    parts: Ints, count: int, loose: Bools, across: Bools, down: Bools, crease: Floats
) -> tuple[npt.NDArray[np.int64], Floats, Bools]:
    """Of each place where two parts touch (N,): the lower one's number times (count + 1) and the higher one's, the
    deeper crease of the two pixels, and whether a link joins them."""
    height, width = parts.shape
    pair, depth = np.empty(2 * parts.size, np.int64), np.empty(2 * parts.size, np.float32)
    link = np.empty(2 * parts.size, np.bool_)
    contacts = 0
    for dy, dx in ((0, 1), (1, 0)):
        for v in range(height - dy):
            for u in range(width - dx):
                y, x = v + dy, u + dx
                if parts[v, u] != parts[y, x] and loose[v, u] and loose[y, x]:
                    low, high = min(parts[v, u], parts[y, x]), max(parts[v, u], parts[y, x])
                    pair[contacts] = low * (count + 1) + high
                    depth[contacts] = min(crease[v, u], crease[y, x])
                    link[contacts] = across[v, u] if dx else down[v, u]
                    contacts += 1
    return pair[:contacts].copy(), depth[:contacts].copy(), link[:contacts].copy()


def without_crumbs(parts: Ints) -> Ints:
    """Parts numbered 1..n, those left out that are too small or too thin to be told from noise."""
    area, core = _sizes(parts, int(parts.max()))
    good = (area >= SMALLEST_OBJECT_PX) & core
    good[0] = False
    return np.take(np.where(good, np.cumsum(good), 0).astype(np.int32), parts)


@compiled("Tuple((int64[::1], bool_[::1]))(int32[:, ::1], int64)")
def _sizes(parts: Ints, count: int) -> tuple[npt.NDArray[np.int64], Bools]:
    """Pixels of each part 0..count, and whether one of them has none but its own part's beside it."""
    height, width = parts.shape
    area, core = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.bool_)
    for v in range(height):
        for u in range(width):
            part = parts[v, u]
            area[part] += 1
            if core[part] or (u > 0 and parts[v, u - 1] != part) or (u + 1 < width and parts[v, u + 1] != part):
                continue
            above, below = parts[max(v - 1, 0), u], parts[min(v + 1, height - 1), u]
            core[part] = above == part and below == part
    return area, core
