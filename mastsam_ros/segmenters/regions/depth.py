"""Planes and free-standing objects in one depth image: the embedded default's evidence from geometry.

Everything is measured in inverse depth w = 1/z: a plane p . X = 1 is linear there, w = p . (x/z, y/z, 1),
and the noise of stereo and structured-light cameras is the same at every distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.settings import RegionsSettings

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

NEAREST_M = 0.05
"""Nearer readings are taken as missing: no depth camera measures there."""
SMALLEST_NOISE = 2e-5
"""Standard deviation of inverse depth, 1/m, below which no image is believed (rounding to float or millimetres)."""
NORMAL_NOISE_RAD = np.deg2rad(3.0)
"""The window of the local fits grows until normals at the median depth are this exact."""
LARGEST_RADIUS = 3
"""... but not beyond 7x7 pixels, or small objects are all edge."""
SMOOTHED_SHARE = 0.35
"""What the local fit leaves of the noise, one-sided windows included (the centre of a 7x7 window: 1/7)."""
OUTLIER_SIGMAS = 4.0
ROUNDING_M = 0.0005
"""Depth in whole millimetres is off by this much, whatever the noise."""
ROUGH = 2.0
"""A window whose variance is above so many times the noise's holds more than one flat surface."""
PLANE_SIGMAS = 3.5
CELL = 16
"""Side in pixels of the cells that propose planes: a cell's own fit is exact to one degree in usual noise."""
HYPOTHESES = 64
MOST_PLANES = 12
SMALLEST_PLANE_SHARE = 0.01
"""Smaller flat parts of the picture are left to the objects, whatever their size in metres."""
PLANE_ALIGNMENT = 0.75
"""Cosine between a pixel's normal and its plane's; the normal is disturbed near every edge."""
CLOSE_ALIGNMENT = 0.3
"""The same for pixels that lie within half the tolerance."""
CELL_ALIGNMENT = 0.97
"""The same for whole cells, whose direction is exact."""
KNOWN_PLANE_BONUS = 1.2
SAME_PLANE_OVERLAP = 0.5
CARRIED_ALIGNMENT = 0.94
"""Cosine: between two frames a camera seldom turns by more than 20 degrees."""
SAME_PLANE_ALIGNMENT = 0.985
FRONT_SHARE = 0.3
"""A loose piece of a plane is kept if this share of its outline borders on things in front of the plane."""
CONTACT_PIXELS = 15
BEHIND_SHARE = 0.95
LOW_SHARE = 0.9
"""The rest of a bump may be anything; noise has no upper end."""
RIM_STEP_M = 0.02
"""A rim is rounded or bevelled by at most this much."""
RIM_REACH = 3
"""Pixels between the points compared there."""
EDGE_STEP = 5
"""Pixels between the points compared at the edge of two planes; a table's rim is not much wider."""
SHORTEST_CREASE_STEP = 2
"""Normals are compared this many pixels to both sides of a crease, or as many as the local windows reach."""
SMOOTH_SHARE = 0.3
"""Parts are one thing if this share of their contact is neither gap nor inward crease."""
SIMILAR_COLOUR = 10.0
"""Lab distance up to which two parts look alike; a crease between them must then be sharper by half."""
SMALLEST_OBJECT_PX = 24
THINNEST_OBJECT_PX = 1.5
FILL_RADIUS_PX = 8
"""Missing depth is filled up to this far from something measured; wider holes stay unlabelled."""
LARGEST_BAND_PX = 3


@dataclass(frozen=True, eq=False)
class DepthSegments:
    """What the depth of one frame shows.

    labels: (H, W) int32, 0 = none, 1..n; planes come first. is_plane: (n + 1,) bool, True for floor,
    walls, table tops. planes: (n + 1, 4) float32, unit normal towards the camera and offset in metres
    (n . X + offset = 0, offset = distance of the camera) of a segment's largest plane; zeros for objects.
    plane_ids: (n + 1,) int32, a number that stays with a plane from frame to frame; 0 for objects.
    noise: standard deviation of the inverse depth, 1/m; the depth's own is noise * z^2.
    """

    labels: Ints
    is_plane: Bools
    planes: Floats
    plane_ids: Ints
    noise: float

    @property
    def count(self) -> int:
        """Number of segments n."""
        return len(self.is_plane) - 1


@dataclass(frozen=True, eq=False)
class _Surface:
    """The measured surface, cleaned: what all steps below read."""

    valid: Bools
    w: Floats
    """(H, W) inverse depth, smoothed within surfaces."""
    du: Floats
    dv: Floats
    """(H, W) slopes of w per pixel."""
    normals: Floats
    """(H, W, 3), unit, towards the camera."""
    rays: Floats
    """(H, W, 3): (x/z, y/z, 1)."""
    focal: float
    noise: float
    """Standard deviation of one measured inverse depth."""
    radius: int
    """Of the windows in which slopes were fitted, pixels."""

    @property
    def smooth_noise(self) -> float:
        """Standard deviation of w."""
        return max(SMOOTHED_SHARE * self.noise, SMALLEST_NOISE)


class DepthLayer:
    """Segments depth images one by one; planes found in one frame are looked for first in the next."""

    def __init__(self, settings: RegionsSettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forgets the planes of the previous frame."""
        self._planes: npt.NDArray[np.float64] = np.zeros((0, 3))
        self._ids: Ints = np.zeros(0, np.int32)
        self._on_plane: Ints = np.zeros((0, 0), np.int32)
        self._next_id = 1

    def update(
        self,
        depth: Floats,
        K: npt.NDArray[np.float64],
        lab: Floats | None = None,
        T_previous_current: npt.NDArray[np.float64] | None = None,
    ) -> DepthSegments:
        """Planes and objects of one frame.

        depth: (H, W) metres; 0, NaN and infinity mean none. K: (3, 3) at that size. lab: (H, W, 3) CIE Lab
        of the picture, which then decides outlines where depth is missing or noisy. T_previous_current:
        (4, 4), maps points of this camera to the previous one, if known; it carries the planes over.
        """
        surface = _measure(depth, K)
        if surface is None:
            self._planes, self._ids, self._on_plane = self._planes[:0], self._ids[:0], self._on_plane[:0, :0]
            nothing = np.zeros(depth.shape, np.int32)
            return DepthSegments(nothing, np.zeros(1, bool), np.zeros((1, 4), np.float32), np.zeros(1, np.int32), 0.0)
        carried = _carried(self._planes, T_previous_current)
        self._planes, rows = self._find_planes(surface, carried)
        on_plane = self._assign(surface, self._planes)
        _release_loose_pieces(surface, self._planes, on_plane)
        self._ids = self._identify(rows, carried, on_plane)
        self._on_plane = on_plane.copy()
        objects = self._objects(surface, on_plane, lab)
        self._give_back(surface, self._planes, on_plane, objects)
        return self._finish(surface, self._planes, self._ids, on_plane, objects, lab)

    # Planes

    def _limit(self, surface: _Surface, plane: npt.NDArray[np.float64], w: npt.NDArray) -> npt.NDArray:
        """How far w may be from the plane's: the noise, and the settings' thickness in metres."""
        thickness = self.settings.surface_tolerance_m * float(np.linalg.norm(plane))
        return PLANE_SIGMAS * surface.smooth_noise + thickness * w

    def _find_planes(
        self, surface: _Surface, carried: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
        """Planes (P, 3), and for each the row of `carried` that it continues, or -1.

        RANSAC on the cells; hypotheses are the planes of the previous frame and the cells that nothing explains.
        """
        cells = _cells(surface, self.settings.surface_tolerance_m)
        free = cells.flat.copy()
        untried = np.ones(len(carried), bool)
        smallest = SMALLEST_PLANE_SHARE * surface.w.size
        planes: list[npt.NDArray[np.float64]] = []
        rows: list[int] = []
        while len(planes) < MOST_PLANES and cells.count[free].sum() >= smallest:
            proposing = np.flatnonzero(free)
            proposing = proposing[:: -(-len(proposing) // HYPOTHESES)]
            followed = np.flatnonzero(untried)
            hypotheses = np.concatenate([carried[followed], cells.planes[proposing]])
            support = (self._explained(surface, cells, hypotheses, 2.0) & free) @ cells.count
            # What is known wins over what is about as good, or planes would jitter.
            support[: len(followed)] *= KNOWN_PLANE_BONUS
            best = int(np.argmax(support))
            row = int(followed[best]) if best < len(followed) else -1
            plane = self._refine(surface, cells, hypotheses[best], free)
            explained = self._explained(surface, cells, plane[None], 1.0)[0] & free
            if row >= 0:
                untried[row] = False
            if cells.count[explained].sum() >= smallest and cells.area[explained].sum() >= self.settings.plane_area_m2:
                planes.append(plane)
                rows.append(row)
                free &= ~explained
            elif row < 0:
                free &= ~explained
                free[proposing[best - len(followed)]] = False
        return np.array(planes).reshape(-1, 3), np.array(rows, np.int32)

    def _explained(
        self, surface: _Surface, cells: _Cells, planes: npt.NDArray[np.float64], slack: float
    ) -> npt.NDArray[np.bool_]:
        """(P, C) bool: the cells that lie on each plane, in place and in direction."""
        residual = np.abs(cells.w - planes @ cells.rays.T)
        thickness = self.settings.surface_tolerance_m * np.linalg.norm(planes, axis=1)
        limit = PLANE_SIGMAS * surface.smooth_noise + thickness[:, None] * cells.w
        unit = planes / np.linalg.norm(planes, axis=1, keepdims=True)
        return (residual < slack * limit) & (unit @ cells.directions.T > CELL_ALIGNMENT)

    def _refine(
        self, surface: _Surface, cells: _Cells, plane: npt.NDArray[np.float64], free: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """Least squares over the cells that the plane explains, a few times; the support grows on the way."""
        for slack in (2.0, 1.5, 1.0, 1.0):
            chosen = self._explained(surface, cells, plane[None], slack)[0] & free
            if chosen.sum() < 2:
                break
            plane = np.linalg.solve(cells.squares[chosen].sum(0), cells.products[chosen].sum(0))
        return plane

    def _assign(self, surface: _Surface, planes: npt.NDArray[np.float64]) -> Ints:
        """(H, W) int32: 1 + the row of the plane on which a pixel lies, 0 for none."""
        on_plane = np.zeros(surface.w.shape, np.int32)
        nearest = np.full(surface.w.shape, np.inf, np.float32)
        for row, plane in enumerate(planes):
            distance = np.abs(surface.w - _inverse_depth(surface, plane))
            distance /= self._limit(surface, plane, surface.w)
            aligned = cv2.transform(surface.normals, (-plane / np.linalg.norm(plane))[None].astype(np.float32))
            here = (distance < 1) & (aligned > PLANE_ALIGNMENT)
            here |= (distance < 0.5) & (aligned > CLOSE_ALIGNMENT)
            here &= surface.valid & (distance < nearest)
            on_plane[here] = row + 1
            nearest[here] = distance[here]
        return on_plane

    def _identify(self, rows: npt.NDArray[np.int32], carried: npt.NDArray[np.float64], on_plane: Ints) -> Ints:
        """The number of each plane: that of the one that it continues, or a new one.

        It continues the plane whose place led to it (`rows`), or one of similar direction that covered the same
        part of the picture: without the camera's motion a far wall is soon elsewhere.
        """
        number, before = len(rows), len(carried)
        score = np.zeros((number, before))
        if number and before and self._on_plane.shape == on_plane.shape:
            both = self._on_plane.ravel().astype(np.int64) * (number + 1) + on_plane.ravel()
            table = np.bincount(both, minlength=(before + 1) * (number + 1)).reshape(before + 1, number + 1)
            smaller = np.minimum(table.sum(0)[1:, None], table.sum(1)[None, 1:])
            score = table[1:, 1:].T / np.maximum(smaller, 1)
            score[score < SAME_PLANE_OVERLAP] = 0
        led = np.flatnonzero(rows >= 0)
        score[led, rows[led]] += 1
        unit = self._planes / np.linalg.norm(self._planes, axis=1, keepdims=True)
        score[unit @ (carried / np.linalg.norm(carried, axis=1, keepdims=True)).T < CARRIED_ALIGNMENT] = 0
        numbers = np.zeros(number, np.int32)
        while score.size and score.max() > 0:
            index, row = np.unravel_index(np.argmax(score), score.shape)
            numbers[index] = self._ids[row]
            score[index], score[:, row] = 0, 0
        new = np.flatnonzero(numbers == 0)
        numbers[new] = self._next_id + np.arange(len(new))
        self._next_id += len(new)
        return numbers

    # Objects

    def _objects(self, surface: _Surface, on_plane: Ints, lab: Floats | None) -> Ints:
        """(H, W) int32, 1..n: connected pixels off the planes, cut at gaps and at concave creases."""
        loose = surface.valid & (on_plane == 0)
        across, down = self._joined(surface, loose)
        crease = _concavity(surface, loose)
        limit = -2 * np.sin(np.deg2rad(self.settings.crease_angle_deg) / 2)
        # Where a crease passes into a gap the two may leave a hole between them; broad walls close it.
        wall = (crease <= limit).astype(np.uint8)
        for links, first, second in ((across, np.s_[:, :-1], np.s_[:, 1:]), (down, np.s_[:-1], np.s_[1:])):
            gap = loose[first] & loose[second] & ~links
            wall[first] |= gap
            wall[second] |= gap
        body = loose & (wall == 0)
        count, parts = _components(body, across & body[:, :-1] & body[:, 1:], down & body[:-1] & body[1:])
        _grow(parts, loose, across, down, 2 * surface.radius + 4)
        # What creases cut off all round, thin bars for example, are parts too.
        rest = loose & (parts == 0)
        more, others = _components(rest, across & rest[:, :-1] & rest[:, 1:], down & rest[:-1] & rest[1:])
        parts = np.where(others > 0, others + count, parts)
        return _merge_parts(parts, count + more, loose, across, down, crease, limit, lab)

    def _joined(self, surface: _Surface, loose: Bools) -> tuple[Bools, Bools]:
        """Whether a pixel and its right, and its lower neighbour belong to one surface: (H, W-1), (H-1, W)."""
        w = surface.w
        noise = OUTLIER_SIGMAS * surface.smooth_noise
        step = self.settings.surface_tolerance_m
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

    def _give_back(self, surface: _Surface, planes: npt.NDArray[np.float64], on_plane: Ints, objects: Ints) -> None:
        """Gives rims and bumps to the plane that they touch most; changed in place.

        A rim lies wholly behind the plane and meets it at an outward edge. A bump does not stand out of the
        noise: the smaller it is, the more it would have to.
        """
        count = int(objects.max())
        if not count or not len(planes):
            return
        contacts = np.zeros((count + 1, len(planes) + 1))
        height = np.zeros_like(contacts)
        near = OUTLIER_SIGMAS * surface.smooth_noise
        for first, second in _neighbour_slices(RIM_REACH):
            touching = (objects[first] > 0) & (on_plane[second] > 0)
            w = surface.w[first][touching]
            close = np.abs(w - surface.w[second][touching]) < near + RIM_STEP_M * w * w
            part, plane = objects[first][touching][close], on_plane[second][touching][close]
            expected = np.einsum("ni,ni->n", planes[plane - 1], surface.rays[first][touching][close])
            np.add.at(contacts, (part, plane), 1)
            np.add.at(height, (part, plane), w[close] - expected)
        home = contacts.argmax(1)
        each = np.arange(count + 1)
        here = (objects > 0) & (home[objects] > 0)
        part, w = objects[here], surface.w[here]
        plane = planes[home[part] - 1]
        above = w - np.einsum("ni,ni->n", plane, surface.rays[here])
        above /= PLANE_SIGMAS * surface.smooth_noise + self.settings.surface_tolerance_m * w * np.linalg.norm(
            plane, axis=1
        )
        area = np.maximum(np.bincount(part, minlength=count + 1), 1)
        behind = np.bincount(part, above < 1, count + 1) / area
        low = np.bincount(part, np.abs(above) < 1 + np.sqrt(SMALLEST_OBJECT_PX / area)[part], count + 1) / area
        rim = (contacts[each, home] >= CONTACT_PIXELS) & (height[each, home] < 0) & (behind > BEHIND_SHARE)
        returned = (rim | (low > LOW_SHARE)) & (home > 0)
        given = here & returned[objects]
        on_plane[given] = home[objects[given]]
        objects[given] = 0

    def _same_thing(self, surface: _Surface, planes: npt.NDArray[np.float64], on_plane: Ints) -> Ints:
        """(P,) int32: planes with the same number are one thing, being the same plane twice or its convex faces."""
        group = np.arange(len(planes), dtype=np.int32)
        unit = planes / np.linalg.norm(planes, axis=1, keepdims=True)
        outward = _outward_edges(surface, planes, on_plane)
        for a in range(len(planes)):
            for b in range(a + 1, len(planes)):
                if group[a] != group[b] and (
                    outward[a, b] or self._coincide(surface, planes[a], unit[a] @ unit[b], on_plane == b + 1)
                ):
                    group[group == group[b]] = group[a]
        return group

    def _coincide(self, surface: _Surface, plane: npt.NDArray[np.float64], cosine: float, other: Bools) -> bool:
        """Whether the pixels of another plane lie, as a whole, on this one."""
        if cosine < SAME_PLANE_ALIGNMENT or not other.any():
            return False
        w = surface.w[other]
        off = np.abs(w - _inverse_depth(surface, plane)[other])
        return bool(np.median(off / self._limit(surface, plane, w)) < 2)

    def _finish(
        self,
        surface: _Surface,
        planes: npt.NDArray[np.float64],
        ids: Ints,
        on_plane: Ints,
        objects: Ints,
        lab: Floats | None,
    ) -> DepthSegments:
        """One label image of planes and objects, its holes filled, and the table that belongs to it."""
        group = self._same_thing(surface, planes, on_plane)
        area = np.bincount(on_plane.ravel(), minlength=len(planes) + 1)[1:]
        leaders = [
            members[np.argmax(area[members])] for members in (np.flatnonzero(group == g) for g in np.unique(group))
        ]
        lookup = np.zeros(len(planes) + 1, np.int32)
        for label, leader in enumerate(leaders, 1):
            lookup[1:][group == group[leader]] = label
        labels = lookup[on_plane]
        labels[objects > 0] = objects[objects > 0] + len(leaders)
        labels = _fill(labels, surface, lab, self.settings.surface_tolerance_m)
        count = len(leaders) + int(objects.max())
        kept = np.bincount(labels.ravel(), minlength=count + 1) > 0
        kept[0] = True
        labels = (np.cumsum(kept, dtype=np.int32) - 1)[labels]
        is_plane = np.zeros(count + 1, bool)
        equations = np.zeros((count + 1, 4), np.float32)
        plane_ids = np.zeros(count + 1, np.int32)
        for label, leader in enumerate(leaders, 1):
            size = float(np.linalg.norm(planes[leader]))
            is_plane[label] = True
            equations[label] = np.r_[-planes[leader], 1.0] / size
            plane_ids[label] = ids[leader]
        return DepthSegments(labels, is_plane[kept], equations[kept], plane_ids[kept], surface.noise)


def _measure(depth: Floats, K: npt.NDArray[np.float64]) -> _Surface | None:
    """Noise, smoothed inverse depth, slopes and normals; None if hardly anything was measured."""
    depth = np.asarray(depth, np.float32)
    measured = np.isfinite(depth) & (depth > NEAREST_M)
    if measured.sum() < SMALLEST_OBJECT_PX:
        return None
    raw = np.zeros(depth.shape, np.float32)
    raw[measured] = 1 / depth[measured]
    noise = _noise(raw, measured)
    fx, fy = float(K[0, 0]), float(K[1, 1])
    focal = float(np.sqrt(fx * fy))
    radius = _fit_radius(noise, focal, float(np.median(depth[measured])))
    du, dv, fitted, known = _fit(raw, measured, radius, noise)
    # A reading that the fit misses by far is a thin thing or an edge, not noise.
    kept = measured & ((np.abs(raw - fitted) > OUTLIER_SIGMAS * noise) | ~known)
    valid = measured | known
    w = np.where(kept, raw, fitted)
    w[~valid] = 0
    height, width = depth.shape
    x = np.arange(width, dtype=np.float32)[None] - np.float32(K[0, 2])
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(K[1, 2])
    normals = np.empty((height, width, 3), np.float32)
    normals[..., 0] = -fx * du
    normals[..., 1] = -fy * dv
    normals[..., 2] = x * du + y * dv - w
    normals /= np.sqrt(np.einsum("hwc,hwc->hw", normals, normals) + 1e-20)[..., None]
    rays = np.empty_like(normals)
    rays[..., 0] = x / fx
    rays[..., 1] = y / fy
    rays[..., 2] = 1
    return _Surface(valid, w, du, dv, normals, rays, focal, noise, radius)


def _noise(w: Floats, measured: Bools) -> float:
    """Standard deviation of w from second differences, which vanish on planes.

    At one and at three pixels' distance: many cameras' noise is alike in neighbouring pixels.
    """
    found = [SMALLEST_NOISE]
    for values, known in ((w, measured), (w.T, measured.T)):
        for step in (1, 3):
            a, b, c = np.s_[::3, : -2 * step : 2], np.s_[::3, step:-step:2], np.s_[::3, 2 * step :: 2]
            good = known[a] & known[b] & known[c]
            if good.sum() >= SMALLEST_OBJECT_PX:
                second = np.abs(values[a] - 2 * values[b] + values[c])[good]
                # 1.4826: from the median absolute value to the standard deviation; 6 = 1 + 4 + 1.
                found.append(1.4826 * float(np.median(second)) / np.sqrt(6.0))
    return max(found)


def _fit_radius(noise: float, focal: float, depth: float) -> int:
    """Radius of the window in which slopes are fitted."""
    for radius in range(1, LARGEST_RADIUS):
        side = 2 * radius + 1
        spread = np.sqrt(side * 2 * sum(k * k for k in range(1, radius + 1)))
        if noise * depth * focal < NORMAL_NOISE_RAD * spread:
            return radius
    return LARGEST_RADIUS


def _fit(w: Floats, measured: Bools, radius: int, noise: float) -> tuple[Floats, Floats, Floats, Bools]:
    """Least-squares plane of w in a window round each pixel: slopes, value, and where there is one.

    At edges the window that fits best among those shifted by its radius is taken: one that lies on one side.
    """
    du, dv, centre, variance = _window_fits(w, measured, radius)
    known = np.isfinite(variance)
    flat = ROUGH * noise * noise + (ROUNDING_M * centre * centre) ** 2
    rough = np.flatnonzero(variance > flat)
    height, width = w.shape
    row, column = np.divmod(rough, width)
    best = variance.ravel()[rough]
    source = rough.copy()
    for dy in (-radius, 0, radius):
        for dx in (-radius, 0, radius):
            at = np.clip(row + dy, 0, height - 1) * width + np.clip(column + dx, 0, width - 1)
            better = variance.ravel()[at] < best
            best[better] = variance.ravel()[at][better]
            source[better] = at[better]
    shift_y, shift_x = row - source // width, column - source % width
    slopes = [du.ravel(), dv.ravel()]
    moved = centre.ravel()[source] + shift_x * slopes[0][source] + shift_y * slopes[1][source]
    new_du, new_dv = slopes[0][source], slopes[1][source]
    du.ravel()[rough], dv.ravel()[rough], centre.ravel()[rough] = new_du, new_dv, moved
    known.ravel()[rough] = np.isfinite(best)
    # A pixel without a reading gets one only where its surroundings are one surface.
    known &= measured | (variance < flat)
    if radius < LARGEST_RADIUS:
        # The widest window reaches over holes that the small one does not.
        hole = np.flatnonzero(~(measured | known))
        if len(hole):
            wide = _window_fits(w, measured, LARGEST_RADIUS, hole)
            whole = wide[3] < ROUGH * noise * noise + (ROUNDING_M * wide[2] * wide[2]) ** 2
            for image, values in zip((du, dv, centre), wide[:3], strict=True):
                image.ravel()[hole[whole]] = values[whole]
            known.ravel()[hole[whole]] = True
    return du.astype(np.float32), dv.astype(np.float32), centre.astype(np.float32), known


def _window_fits(
    w: Floats, measured: Bools, radius: int, at: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.float64], ...]:
    """Slopes, value in the middle and variance of the plane in each window; of the pixels with index `at` only.

    The variance is infinite where too little was measured.
    """
    k = np.arange(-radius, radius + 1, dtype=np.float64)
    one, square = np.ones_like(k), k * k
    mask = measured.astype(np.float32)
    value = w.astype(np.float64)  # variances are differences of large numbers

    def total(image: npt.NDArray, along_x: npt.NDArray, along_y: npt.NDArray) -> npt.NDArray:
        kind = cv2.CV_32F if image.dtype == np.float32 else cv2.CV_64F
        sums = np.asarray(cv2.sepFilter2D(image, kind, along_x, along_y, borderType=cv2.BORDER_CONSTANT))
        return sums if at is None else sums.ravel()[at]

    n = np.maximum(total(mask, one, one), 1e-6)
    x, y = total(mask, k, one) / n, total(mask, one, k) / n
    xx = total(mask, square, one) / n - x * x
    xy = total(mask, k, k) / n - x * y
    yy = total(mask, one, square) / n - y * y
    mean = total(value, one, one) / n
    xw = total(value, k, one) / n - x * mean
    yw = total(value, one, k) / n - y * mean
    ww = total(value * value, one, one) / n - mean * mean
    determinant = xx * yy - xy * xy
    unknown = (n < one.size * one.size / 3) | (determinant < 0.05)
    determinant[unknown] = 1
    du = (xw * yy - yw * xy) / determinant
    dv = (yw * xx - xw * xy) / determinant
    variance = np.maximum(ww - du * xw - dv * yw, 0)
    variance[unknown] = np.inf
    return du, dv, mean - du * x - dv * y, variance


@dataclass(frozen=True, eq=False)
class _Cells:
    """Square cells of the picture, each with its own plane; arrays over the cells that hold enough depth."""

    planes: npt.NDArray[np.float64]
    directions: npt.NDArray[np.float64]
    """(C, 3), the planes' unit vectors."""
    rays: npt.NDArray[np.float64]
    """(C, 3), mean."""
    w: npt.NDArray[np.float64]
    """(C,), mean."""
    count: npt.NDArray[np.float64]
    """(C,), pixels."""
    area: npt.NDArray[np.float64]
    """(C,), square metres."""
    squares: npt.NDArray[np.float64]
    """(C, 3, 3), sums of ray ray^T: normal equations that add up over cells."""
    products: npt.NDArray[np.float64]
    """(C, 3), sums of ray * w."""
    flat: npt.NDArray[np.bool_]
    """(C,), the cell is one plane as far as the noise tells."""


def _cells(surface: _Surface, thickness: float) -> _Cells:
    """Normal equations of w = p . ray in every cell."""
    height, width = surface.w.shape
    rows, columns = max(1, height // CELL), max(1, width // CELL)
    # Cells of equal size; the last few rows and columns belong to none.
    side_y, side_x = min(CELL, height), min(CELL, width)
    inner = np.s_[: rows * side_y, : columns * side_x]
    pixels = float(side_y * side_x)

    def total(image: npt.NDArray) -> npt.NDArray[np.float64]:
        shrunk = cv2.resize(image[inner], (columns, rows), interpolation=cv2.INTER_AREA)
        return shrunk.astype(np.float64).ravel() * pixels

    x, y = surface.rays[..., 0].astype(np.float64), surface.rays[..., 1].astype(np.float64)
    m = surface.valid.astype(np.float64)
    w = surface.w.astype(np.float64)
    mx, my, wx, wy = m * x, m * y, w * x, w * y
    n, sx, sy, sxx, sxy, syy = (total(image) for image in (m, mx, my, mx * x, mx * y, my * y))
    sw, swx, swy, sww = (total(image) for image in (w, wx, wy, w * w))
    enough = n >= pixels / 2
    squares = np.stack([sxx, sxy, sx, sxy, syy, sy, sx, sy, n], 1).reshape(-1, 3, 3)[enough]
    products = np.stack([swx, swy, sw], 1)[enough]
    n, sww = n[enough], sww[enough]
    ridge = 1e-9 * np.eye(3)
    planes = np.asarray(np.linalg.solve(squares + ridge, products[..., None])[..., 0], np.float64)
    variance = np.maximum(sww - np.einsum("ci,ci->c", planes, products), 0) / n
    length = np.maximum(np.linalg.norm(planes, axis=1), 1e-9)
    mean_w = products[:, 2] / n
    allowed = 1.5 * surface.smooth_noise + 0.5 * thickness * length * mean_w
    # One pixel at depth z covers z^2 / f^2, more where the surface is seen aslant.
    slant = np.maximum(mean_w / length, 0.1)
    area: npt.NDArray[np.float64] = n / (mean_w * mean_w * surface.focal**2 * slant)
    return _Cells(
        planes,
        planes / length[:, None],
        squares[:, 2] / n[:, None],
        mean_w,
        n,
        area,
        squares,
        products,
        variance < allowed * allowed,
    )


def _inverse_depth(surface: _Surface, plane: npt.NDArray[np.float64]) -> Floats:
    """(H, W): the inverse depth that a plane has in every pixel."""
    a, b, c = plane.astype(np.float32)
    return a * surface.rays[:1, :, 0] + (b * surface.rays[:, :1, 1] + c)


def _carried(
    planes: npt.NDArray[np.float64], T_previous_current: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    """The previous frame's planes in this camera; as they were if the motion is not known."""
    if T_previous_current is None or not len(planes):
        return planes
    R, t = T_previous_current[:3, :3], T_previous_current[:3, 3]
    scale = 1 - planes @ t
    # A plane that the camera has passed cannot be seen any more; where it was does no harm.
    return np.where(scale[:, None] > 1e-3, planes @ R / np.maximum(scale, 1e-3)[:, None], planes)


def _release_loose_pieces(surface: _Surface, planes: npt.NDArray[np.float64], on_plane: Ints) -> None:
    """Takes small pieces away from a plane unless something stands before it there; changed in place.

    What happens to lie on the extension of a plane, a box as high as the table for example, ends in front of
    other things; a piece of table between two boxes ends behind them.
    """
    flat = on_plane > 0
    across = flat[:, :-1] & (on_plane[:, :-1] == on_plane[:, 1:])
    down = flat[:-1] & (on_plane[:-1] == on_plane[1:])
    count, pieces = _components(flat, across, down)
    area = np.bincount(pieces.ravel(), minlength=count + 1)
    owner = np.zeros(count + 1, np.int32)
    owner[pieces[flat]] = on_plane[flat]
    small = area < SMALLEST_PLANE_SHARE * flat.size
    for row in range(1, len(planes) + 1):
        mine = np.flatnonzero(owner == row)
        if len(mine):
            small[mine[np.argmax(area[mine])]] = False
    small[0] = False
    outline = np.zeros(count + 1)
    front = np.zeros(count + 1)
    for first, second in _neighbour_slices(2):
        border = small[pieces[first]] & (on_plane[second] != on_plane[first]) & surface.valid[second]
        piece = pieces[first][border]
        equation = planes[owner[piece] - 1]
        expected = np.einsum("ni,ni->n", surface.rays[second][border], equation)
        outline += np.bincount(piece, minlength=count + 1)
        front += np.bincount(piece, surface.w[second][border] > expected, minlength=count + 1)
    loose = small & ((front < FRONT_SHARE * np.maximum(outline, 1)) | (area < SMALLEST_OBJECT_PX))
    on_plane[loose[pieces]] = 0


def _outward_edges(surface: _Surface, planes: npt.NDArray[np.float64], on_plane: Ints) -> Bools:
    """(P, P): which planes meet along a convex edge: on each side of it the plane that is seen is the farther one."""
    number = len(planes)
    meeting = np.zeros((number, number))
    convex = np.zeros((number, number))
    for first, second in _neighbour_slices(EDGE_STEP)[::2]:
        edge = (on_plane[first] != on_plane[second]) & (on_plane[first] > 0) & (on_plane[second] > 0)
        a, b = on_plane[first][edge] - 1, on_plane[second][edge] - 1
        difference = planes[a] - planes[b]
        before = np.einsum("ni,ni->n", difference, surface.rays[first][edge])
        after = np.einsum("ni,ni->n", difference, surface.rays[second][edge])
        np.add.at(meeting, (a, b), 1)
        np.add.at(convex, (a, b), (before < 0) & (after > 0))
    meeting, convex = meeting + meeting.T, convex + convex.T
    return (convex >= CONTACT_PIXELS) & (convex > 0.5 * meeting)


def _concavity(surface: _Surface, loose: Bools) -> Floats:
    """(H, W): how much surfaces turn towards each other round a pixel, across or down, whichever is more.

    (n_i - n_j) . (x_i - x_j) / |x_i - x_j| of the points on both sides (the convexity criterion of locally
    convex connected patches): negative in inward creases, -2 sin(angle / 2) for a crease of that angle.
    """
    step = max(SHORTEST_CREASE_STEP, surface.radius)
    lowest = np.zeros(loose.shape, np.float32)
    height, width = loose.shape
    points = surface.rays.reshape(-1, 3)
    normals = surface.normals.reshape(-1, 3)
    flat_w = surface.w.ravel()
    for dy, dx in ((0, step), (step, 0)):
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
        centre = i + dy * width + dx
        lowest.ravel()[centre] = np.minimum(lowest.ravel()[centre], turn)
    return lowest


def _components(inside: Bools, across: Bools, down: Bools) -> tuple[int, Ints]:
    """Connected components of the pixels `inside` over the open links: their number, and (H, W) int32, 0 outside.

    Pixels and links are drawn as one image of twice the size.
    """
    height, width = inside.shape
    grid = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    grid[::2, ::2] = inside
    grid[::2, 1::2] = across
    grid[1::2, ::2] = down
    count, labels = cv2.connectedComponents(grid, connectivity=4)
    return count - 1, np.ascontiguousarray(labels[::2, ::2])


def _neighbour_slices(step: int) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of index expressions: pixels, and their neighbours `step` to the right, left, below, above."""
    everything, near, far = slice(None), slice(0, -step), slice(step, None)
    across = ((everything, near), (everything, far))
    down = ((near, everything), (far, everything))
    return [across, across[::-1], down, down[::-1]]


def _grow(parts: Ints, loose: Bools, across: Bools, down: Bools, steps: int) -> None:
    """Lets parts grow over open links into loose pixels that have none; changed in place."""
    width = loose.shape[1]
    flat = parts.ravel()
    links = np.zeros((4, *loose.shape), bool)
    links[0, :, :-1], links[1, :, 1:] = across, across
    links[2, :-1], links[3, 1:] = down, down
    links = links.reshape(4, -1)
    empty = np.flatnonzero(loose.ravel() & (flat == 0))
    for _ in range(steps):
        found = np.zeros(len(empty), np.int32)
        for link, offset in zip(links, (1, -1, width, -width), strict=True):
            open_ = link[empty] & (found == 0)
            found[open_] = flat[empty[open_] + offset]
        if not found.any():
            return
        flat[empty] = found
        empty = empty[found == 0]


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
    return _without_crumbs(merged)


def _without_crumbs(parts: Ints) -> Ints:
    """Parts numbered 1..n, those left out that are too small or too thin to be told from noise."""
    count = int(parts.max())
    area = np.bincount(parts.ravel(), minlength=count + 1)
    core = np.bincount(parts[_depth_inside(parts) >= THINNEST_OBJECT_PX], minlength=count + 1)
    good = (area >= SMALLEST_OBJECT_PX) & (core > 0)
    good[0] = False
    return np.where(good, np.cumsum(good), 0).astype(np.int32)[parts]


def _depth_inside(labels: npt.NDArray) -> Floats:
    """(H, W): distance in pixels to the nearest pixel with another label."""
    edge = np.zeros(labels.shape, bool)
    for first, second in _neighbour_slices(1):
        edge[first] |= labels[first] != labels[second]
    return cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 3) + 1


def _fill(labels: Ints, surface: _Surface, lab: Floats | None, thickness: float) -> Ints:
    """Gives pixels without a label, and where noise blurs outlines those too, to the neighbour of like colour.

    Watershed from what is sure; where depth is missing over a wide area the label stays 0.
    """
    count = int(labels.max())
    if count == 0:
        return labels
    markers = labels.copy()
    if lab is None:
        picture = np.zeros((*labels.shape, 3), np.uint8)
    else:
        picture = np.clip(lab + 0.5, 0, 255).astype(np.uint8)
        z = 1 / float(np.median(surface.w[surface.valid]))
        # An outline is unsure by as many pixels as the distance that noise hides.
        hidden = PLANE_SIGMAS * surface.smooth_noise * z * surface.focal
        band = int(np.clip(np.rint(hidden), 0, LARGEST_BAND_PX))
        if band:
            inside = _depth_inside(labels)
            thickest = np.zeros(count + 1, np.float32)
            np.maximum.at(thickest, labels.ravel(), inside.ravel())
            markers[(inside <= band) & (inside <= 0.6 * thickest[labels])] = 0
    far = cv2.distanceTransform((labels == 0).astype(np.uint8), cv2.DIST_L2, 3) > FILL_RADIUS_PX
    markers[far] = count + 1
    # OpenCV never floods the outermost pixels: a frame round the image keeps them.
    framed = np.zeros((labels.shape[0] + 2, labels.shape[1] + 2), np.int32)
    framed[1:-1, 1:-1] = markers
    cv2.watershed(cv2.copyMakeBorder(picture, 1, 1, 1, 1, cv2.BORDER_REPLICATE), framed)
    filled = np.ascontiguousarray(framed[1:-1, 1:-1])
    _close_lines(filled, picture)
    filled[filled > count] = 0
    return filled


def _close_lines(labels: Ints, picture: npt.NDArray[np.uint8]) -> None:
    """Gives the lines that a watershed leaves (-1) to the neighbour of most similar colour; changed in place."""
    height, width = labels.shape
    flat, colours = labels.ravel(), picture.reshape(-1, 3).astype(np.int32)
    lines = np.flatnonzero(flat < 0)
    while len(lines):
        y, x = np.divmod(lines, width)
        best = np.full(len(lines), np.iinfo(np.int32).max)
        found = np.full(len(lines), -1, np.int32)
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            at = np.clip(y + dy, 0, height - 1) * width + np.clip(x + dx, 0, width - 1)
            distance = np.abs(colours[at] - colours[lines]).sum(1)
            better = (flat[at] > 0) & (distance < best)
            best[better], found[better] = distance[better], flat[at][better]
        if (found < 0).all():
            flat[lines] = 0
            return
        flat[lines] = found
        lines = lines[found < 0]
