"""The large flat surfaces of a depth image: floor, walls, table tops; those of one frame are looked for in the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled
from mastsam_ros.segmenters.regions.depth.connected import Bools, Floats, Ints, components
from mastsam_ros.segmenters.regions.depth.surface import Surface

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
SMALLEST_PIECE_PX = 24
"""Smaller loose pieces are never a plane's."""
CONTACT_PIXELS = 15
EDGE_STEP = 5
"""Pixels between the points compared at the edge of two planes; a table's rim is not much wider."""


@dataclass(frozen=True, eq=False)
class Planes:
    """The planes of one frame.

    equations: (P, 3) float64, p of p . X = 1. ids: (P,) int32, numbers that stay from frame to frame. on_plane: (H, W)
    int32, 1 + the row of the plane on which a pixel lies, 0 for none. thickness: metres that a surface may be off.
    """

    equations: npt.NDArray[np.float64]
    ids: Ints
    on_plane: Ints
    thickness: float


class PlaneFinder:
    """Finds the planes of depth images one by one, those of the previous frame first.

    thickness: metres that a surface may be off its plane beside the noise. smallest_m2: of a plane.
    """

    def __init__(self, thickness: float, smallest_m2: float) -> None:
        self.thickness, self.smallest_m2 = thickness, smallest_m2
        self.reset()

    def reset(self) -> None:
        """Forgets the planes of the previous frame."""
        self._equations: npt.NDArray[np.float64] = np.zeros((0, 3))
        self._ids: Ints = np.zeros(0, np.int32)
        self._on_plane: Ints = np.zeros((0, 0), np.int32)
        self._next_id = 1

    def lose_sight(self) -> None:
        """A frame measured nothing: its planes are none, but numbers go on counting."""
        self._equations, self._ids, self._on_plane = self._equations[:0], self._ids[:0], self._on_plane[:0, :0]

    def update(self, surface: Surface, T_previous_current: npt.NDArray[np.float64] | None) -> Planes:
        """The planes of one frame. T_previous_current: as `DepthLayer.update`'s."""
        carried = _carried(self._equations, T_previous_current)
        self._equations, rows = self._find_planes(surface, carried)
        on_plane = self._assign(surface, self._equations)
        _release_loose_pieces(surface, self._equations, on_plane)
        self._ids = self._identify(rows, carried, on_plane)
        self._on_plane = on_plane.copy()
        return Planes(self._equations, self._ids, on_plane, self.thickness)

    def _find_planes(
        self, surface: Surface, carried: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
        """Planes (P, 3), and for each the row of `carried` that it continues, or -1.

        RANSAC on the cells; hypotheses are the planes of the previous frame and the cells that nothing explains.
        """
        cells = _cells(surface, self.thickness)
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
            support = (self._explained(surface, cells, hypotheses, 2.0) & free).astype(np.float64) @ cells.count
            # What is known wins over what is about as good, or planes would jitter.
            support[: len(followed)] *= KNOWN_PLANE_BONUS
            best = int(np.argmax(support))
            row = int(followed[best]) if best < len(followed) else -1
            plane = self._refine(surface, cells, hypotheses[best], free)
            explained = self._explained(surface, cells, plane[None], 1.0)[0] & free
            if row >= 0:
                untried[row] = False
            if cells.count[explained].sum() >= smallest and cells.area[explained].sum() >= self.smallest_m2:
                planes.append(plane)
                rows.append(row)
                free &= ~explained
            elif row < 0:
                free &= ~explained
                free[proposing[best - len(followed)]] = False
        return np.array(planes).reshape(-1, 3), np.array(rows, np.int32)

    def _explained(
        self, surface: Surface, cells: _Cells, planes: npt.NDArray[np.float64], slack: float
    ) -> npt.NDArray[np.bool_]:
        """(P, C) bool: the cells that lie on each plane, in place and in direction."""
        length = np.linalg.norm(planes, axis=1)
        noise = slack * PLANE_SIGMAS * surface.smooth_noise
        return _on_planes(cells.w, cells.rays, cells.directions, planes, length, noise, slack * self.thickness)

    def _refine(
        self, surface: Surface, cells: _Cells, plane: npt.NDArray[np.float64], free: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """Least squares over the cells that the plane explains, a few times; the support grows on the way."""
        for slack in (2.0, 1.5, 1.0, 1.0):
            chosen = self._explained(surface, cells, plane[None], slack)[0] & free
            if chosen.sum() < 2:
                break
            sums = chosen.astype(np.float64) @ cells.equations
            plane = np.linalg.solve(sums[:9].reshape(3, 3), sums[9:])
        return plane

    def _assign(self, surface: Surface, planes: npt.NDArray[np.float64]) -> Ints:
        """(H, W) int32: 1 + the row of the plane on which a pixel lies, 0 for none."""
        noise = PLANE_SIGMAS * surface.smooth_noise
        return _nearest_plane(surface.valid, surface.w, surface.rays, surface.normals, planes, noise, self.thickness)

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
        unit = self._equations / np.linalg.norm(self._equations, axis=1, keepdims=True)
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


@compiled(
    "int32[:, ::1](bool_[:, ::1], float32[:, ::1], float32[:, :, ::1], float32[:, :, ::1], float64[:, ::1], float64,"
    " float64)"
)
def _nearest_plane(
    valid: Bools,
    w: Floats,
    rays: Floats,
    normals: Floats,
    planes: npt.NDArray[np.float64],
    noise: float,
    thickness: float,
) -> Ints:
    """As `PlaneFinder._assign`. noise: how far w may be off beside the thickness in metres."""
    on_plane = np.zeros(w.shape, np.int32)
    equation = planes.astype(np.float32)
    length = np.sqrt((planes * planes).sum(axis=1))
    unit = (-planes / length.reshape(-1, 1)).astype(np.float32)
    thick = (thickness * length).astype(np.float32)
    for v in range(w.shape[0]):
        for u in range(w.shape[1]):
            if not valid[v, u]:
                continue
            nearest = np.float32(np.inf)
            for p in range(len(planes)):
                expected = equation[p, 0] * rays[v, u, 0] + (equation[p, 1] * rays[v, u, 1] + equation[p, 2])
                off, limit = abs(w[v, u] - expected), np.float32(noise) + thick[p] * w[v, u]
                if not off < limit * min(nearest, np.float32(1)):
                    continue
                distance = off / limit
                aligned = unit[p, 0] * normals[v, u, 0] + unit[p, 1] * normals[v, u, 1] + unit[p, 2] * normals[v, u, 2]
                if aligned > PLANE_ALIGNMENT or (distance < 0.5 and aligned > CLOSE_ALIGNMENT):
                    on_plane[v, u] = p + 1
                    nearest = distance
    return on_plane


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
    equations: npt.NDArray[np.float64]
    """(C, 12), sums of ray ray^T, row by row, and of ray * w: normal equations that add up over cells."""
    flat: npt.NDArray[np.bool_]
    """(C,), the cell is one plane as far as the noise tells."""


def _cells(surface: Surface, thickness: float) -> _Cells:
    """Normal equations of w = p . ray in every cell."""
    height, width = surface.w.shape
    rows, columns = max(1, height // CELL), max(1, width // CELL)
    # Cells of equal size; the last few rows and columns belong to none.
    side_y, side_x = min(CELL, height), min(CELL, width)
    pixels = float(side_y * side_x)

    sums = _cell_sums(surface.valid, surface.w, surface.rays, rows, columns, side_y, side_x)
    n, sx, sy, sxx, sxy, syy, sw, swx, swy, sww = sums.T
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
        np.concatenate([squares.reshape(-1, 9), products], axis=1),
        variance < allowed * allowed,
    )


@compiled("float64[:, ::1](bool_[:, ::1], float32[:, ::1], float32[:, :, ::1], int64, int64, int64, int64)")
def _cell_sums(
    valid: Bools, w: Floats, rays: Floats, rows: int, columns: int, side_y: int, side_x: int
) -> npt.NDArray[np.float64]:
    """(rows * columns, 10): of each cell the pixels, and the sums of x, y, xx, xy, yy of their rays, w, wx, wy, ww."""
    sums = np.zeros((rows * columns, 10))
    for cell in range(rows * columns):
        top, left = cell // columns * side_y, cell % columns * side_x
        n, sx, sy, sxx, sxy, syy, sw, swx, swy, sww = 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for v in range(top, top + side_y):
            for u in range(left, left + side_x):
                if valid[v, u]:
                    x, y, depth = float(rays[v, u, 0]), float(rays[v, u, 1]), float(w[v, u])
                    n += 1
                    sx += x
                    sy += y
                    sxx += x * x
                    sxy += x * y
                    syy += y * y
                    sw += depth
                    swx += depth * x
                    swy += depth * y
                    sww += depth * depth
        of = sums[cell]
        of[0], of[1], of[2], of[3], of[4], of[5] = n, sx, sy, sxx, sxy, syy
        of[6], of[7], of[8], of[9] = sw, swx, swy, sww
    return sums


@compiled(
    "bool_[:, ::1](float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[::1], float64, float64)"
)
def _on_planes(
    w: npt.NDArray[np.float64],
    rays: npt.NDArray[np.float64],
    directions: npt.NDArray[np.float64],
    planes: npt.NDArray[np.float64],
    length: npt.NDArray[np.float64],
    noise: float,
    thickness: float,
) -> npt.NDArray[np.bool_]:
    """(P, C): as `PlaneFinder._explained`. length: (P,) of the planes. noise: how far w may be off beside the thickness
    in metres."""
    lie = np.empty((len(planes), len(w)), np.bool_)
    for p in range(len(planes)):
        a, b, c = planes[p, 0], planes[p, 1], planes[p, 2]
        for n in range(len(w)):
            off = abs(w[n] - (a * rays[n, 0] + b * rays[n, 1] + c * rays[n, 2]))
            aligned = a * directions[n, 0] + b * directions[n, 1] + c * directions[n, 2]
            lie[p, n] = (off < noise + thickness * length[p] * w[n]) & (aligned > CELL_ALIGNMENT * length[p])
    return lie


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


def _release_loose_pieces(surface: Surface, planes: npt.NDArray[np.float64], on_plane: Ints) -> None:
    """Takes small pieces away from a plane unless something stands before it there; changed in place.

    What happens to lie on the extension of a plane, a box as high as the table for example, ends in front of
    other things; a piece of table between two boxes ends behind them.
    """
    flat = on_plane > 0
    across = flat[:, :-1] & (on_plane[:, :-1] == on_plane[:, 1:])
    down = flat[:-1] & (on_plane[:-1] == on_plane[1:])
    count, pieces = components(flat, across, down)
    area, owner, outline, front = _pieces(pieces, on_plane, surface.valid, surface.w, surface.rays, planes, count)
    small = area < SMALLEST_PLANE_SHARE * flat.size
    for row in range(1, len(planes) + 1):
        mine = np.flatnonzero(owner == row)
        if len(mine):
            small[mine[np.argmax(area[mine])]] = False
    small[0] = False
    loose = small & ((front < FRONT_SHARE * np.maximum(outline, 1)) | (area < SMALLEST_PIECE_PX))
    if loose.any():
        on_plane[loose[pieces]] = 0


@compiled(
    "UniTuple(int64[::1], 4)(int32[:, ::1], int32[:, ::1], bool_[:, ::1], float32[:, ::1], float32[:, :, ::1],"
    " float64[:, ::1], int64)"
)
def _pieces(
    pieces: Ints, on_plane: Ints, valid: Bools, w: Floats, rays: Floats, planes: npt.NDArray[np.float64], count: int
) -> tuple[npt.NDArray[np.int64], ...]:
    """Of each piece 1..count of a plane: pixels, the plane's number, pixels round it, those in front of the plane."""
    height, width = pieces.shape
    area, owner = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    outline, front = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    for v in range(height):
        for u in range(width):
            piece = pieces[v, u]
            area[piece] += 1
            if piece == 0:
                continue
            owner[piece] = on_plane[v, u]
            p = on_plane[v, u] - 1
            for dy, dx in ((0, 2), (0, -2), (2, 0), (-2, 0)):
                y, x = v + dy, u + dx
                if 0 <= y < height and 0 <= x < width and on_plane[y, x] != on_plane[v, u] and valid[y, x]:
                    outline[piece] += 1
                    expected = (
                        rays[y, x, 0] * planes[p, 0] + rays[y, x, 1] * planes[p, 1] + rays[y, x, 2] * planes[p, 2]
                    )
                    front[piece] += w[y, x] > expected
    return area, owner, outline, front


def _outward_edges(surface: Surface, planes: npt.NDArray[np.float64], on_plane: Ints) -> Bools:
    """(P, P): which planes meet along a convex edge: on each side of it the plane that is seen is the farther one."""
    meeting, convex = _meetings(on_plane, surface.rays, planes)
    meeting, convex = meeting + meeting.T, convex + convex.T
    return (convex >= CONTACT_PIXELS) & (convex > 0.5 * meeting)


@compiled("UniTuple(float64[:, ::1], 2)(int32[:, ::1], float32[:, :, ::1], float64[:, ::1])")
def _meetings(
    on_plane: Ints, rays: Floats, planes: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(P, P) pixels where two planes meet, the first on the left or above, and how many of them look convex."""
    height, width = on_plane.shape
    meeting, convex = np.zeros((len(planes), len(planes))), np.zeros((len(planes), len(planes)))
    for v in range(height):
        for u in range(width):
            a = on_plane[v, u] - 1
            if a < 0:
                continue
            for y, x in ((v, u + EDGE_STEP), (v + EDGE_STEP, u)):
                if y >= height or x >= width or on_plane[y, x] == 0 or on_plane[y, x] == a + 1:
                    continue
                b = on_plane[y, x] - 1
                before, after = 0.0, 0.0
                for c in range(3):
                    before += (planes[a, c] - planes[b, c]) * rays[v, u, c]
                    after += (planes[a, c] - planes[b, c]) * rays[y, x, c]
                meeting[a, b] += 1
                convex[a, b] += before < 0 and after > 0
    return meeting, convex


def same_thing(surface: Surface, planes: Planes) -> Ints:
    """(P,) int32: planes with the same number are one thing, being the same plane twice or its convex faces."""
    equations = planes.equations
    group = np.arange(len(equations), dtype=np.int32)
    unit = equations / np.linalg.norm(equations, axis=1, keepdims=True)
    outward = _outward_edges(surface, equations, planes.on_plane)
    for a in range(len(equations)):
        for b in range(a + 1, len(equations)):
            if group[a] != group[b] and (outward[a, b] or _coincide(surface, planes, a, b, unit[a] @ unit[b])):
                group[group == group[b]] = group[a]
    return group


def _coincide(surface: Surface, planes: Planes, a: int, b: int, cosine: float) -> bool:
    """Whether the pixels of plane b lie, for the most part, on plane a."""
    if cosine < SAME_PLANE_ALIGNMENT:
        return False
    plane, noise = planes.equations[a], PLANE_SIGMAS * surface.smooth_noise
    return _share_on(planes.on_plane, b + 1, surface.w, surface.rays, plane, 2 * noise, 2 * planes.thickness) > 0.5


@compiled("float64(int32[:, ::1], int64, float32[:, ::1], float32[:, :, ::1], float64[::1], float64, float64)")
def _share_on(
    on_plane: Ints, number: int, w: Floats, rays: Floats, plane: npt.NDArray[np.float64], noise: float, thickness: float
) -> float:
    """Share of the pixels with this number that lie on another plane; 0 of none. noise: as in `_nearest_plane`."""
    size = np.sqrt(plane[0] ** 2 + plane[1] ** 2 + plane[2] ** 2)
    count, near = 0, 0
    for v in range(w.shape[0]):
        for u in range(w.shape[1]):
            if on_plane[v, u] == number:
                count += 1
                off = abs(w[v, u] - (plane[0] * rays[v, u, 0] + plane[1] * rays[v, u, 1] + plane[2]))
                near += off < noise + thickness * size * w[v, u]
    return near / max(count, 1)
