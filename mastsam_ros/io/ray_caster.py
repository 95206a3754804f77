"""A small ray-caster for the sample scene: textured surfaces, baked soft light, exact depth and instances.

The light is computed once, into the textures; a frame is then one intersection per surface inside its box in the
image, and one texture look-up. What moves takes its light along and casts no shadow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
Moves = Mapping[int, npt.NDArray[np.float64]]
"""Number of a surface -> (4, 4) affine map from where it was built to where it is."""
SELF_DISTANCE_M = 1e-4
AMBIENT_REACH_M = 0.35
"""Surfaces within this distance darken each other's corners."""
LIGHT_GRID_PER_M = 70.0
ATLAS_WIDTH = 4096
ATLAS_MARGIN = 2


class Surface(ABC):
    """One textured piece of surface with its own frame: columns of `axes` are local x, y, z in the world."""

    def __init__(self, axes: npt.NDArray[np.float64], origin: npt.NDArray[np.float64], instance: int, texture: Array):
        self.axes = axes
        self.origin = origin
        self.instance = instance
        self.texture = texture
        """(h, w, 3) float32 in [0, 1], displayed colour in plain white light."""

    @abstractmethod
    def hit(self, o: tuple, d: tuple) -> tuple[Array, Array, Array]:
        """Nearest t > 0 with o + t d on the surface (infinite: none), and its texture coordinates u, v in [0, 1].

        o, d: local x, y and z, as arrays or scalars that broadcast against each other.
        """

    @abstractmethod
    def points(self, u: Points, v: Points) -> tuple[Points, Points]:
        """Local points (N, 3) and outward normals (N, 3) at texture coordinates u, v (N,)."""

    @property
    @abstractmethod
    def extent(self) -> npt.NDArray[np.float64]:
        """Local lower and upper bounds (2, 3), metres."""

    @property
    @abstractmethod
    def size(self) -> tuple[float, float]:
        """Metres along u and along v."""

    def faces_away(self, o: npt.NDArray[np.float64]) -> bool:
        """Whether nothing of it can be seen from the local point o."""
        return False

    def corners(self) -> npt.NDArray[np.float64]:
        """(8, 3) world corners of its local bounding box."""
        low, high = self.extent
        picks = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
        return np.where(picks, high, low) @ self.axes.T + self.origin


class Flat(Surface):
    """A rectangle, or a disk, in the local x-y plane; seen from +z."""

    def __init__(self, axes, origin, instance, texture, half: tuple[float, float], is_disk: bool = False):  # type: ignore[no-untyped-def]
        super().__init__(axes, origin, instance, texture)
        self.half = half
        self.is_disk = is_disk

    def hit(self, o: tuple, d: tuple) -> tuple[Array, Array, Array]:
        t = -o[2] / d[2]
        x = (o[0] + t * d[0]) / self.half[0]
        y = (o[1] + t * d[1]) / self.half[1]
        inside = (x * x + y * y <= 1) if self.is_disk else (np.abs(x) <= 1) & (np.abs(y) <= 1)
        return np.where(inside & (t > 0), t, np.float32(np.inf)), 0.5 + 0.5 * x, 0.5 - 0.5 * y

    def points(self, u: Points, v: Points) -> tuple[Points, Points]:
        x, y = (2 * u - 1) * self.half[0], (1 - 2 * v) * self.half[1]
        normals = np.zeros((len(u), 3))
        normals[:, 2] = 1
        return np.stack([x, y, np.zeros_like(x)], axis=1), normals

    def faces_away(self, o: npt.NDArray[np.float64]) -> bool:
        return bool(o[2] <= 0)

    @property
    def extent(self) -> npt.NDArray[np.float64]:
        return np.array([[-self.half[0], -self.half[1], 0], [self.half[0], self.half[1], 0]])

    @property
    def size(self) -> tuple[float, float]:
        return 2 * self.half[0], 2 * self.half[1]


class Cone(Surface):
    """The side of a cylinder or of a cut cone about local z: radius `bottom` at z = 0, `top` at z = `height`."""

    def __init__(self, axes, origin, instance, texture, bottom: float, top: float, height: float):  # type: ignore[no-untyped-def]
        super().__init__(axes, origin, instance, texture)
        self.bottom, self.top, self.height = bottom, top, height

    def hit(self, o: tuple, d: tuple) -> tuple[Array, Array, Array]:
        slope = (self.top - self.bottom) / self.height
        radius = self.bottom + slope * o[2]
        a = d[0] * d[0] + d[1] * d[1] - slope * slope * d[2] * d[2]
        b = o[0] * d[0] + o[1] * d[1] - slope * d[2] * radius
        c = o[0] * o[0] + o[1] * o[1] - radius * radius
        root = np.sqrt(b * b - a * c)  # NaN where the ray passes by; every comparison below is then false
        best = np.full(np.shape(root), np.inf, np.float32)
        for t in ((-b - root) / a, (-b + root) / a):
            z = o[2] + t * d[2]
            valid = (t > 0) & (z >= 0) & (z <= self.height) & (t < best)
            best = np.where(valid, t, best)
        seen = np.where(np.isfinite(best), best, np.float32(0))
        u = np.arctan2(o[1] + seen * d[1], o[0] + seen * d[0]) * np.float32(0.5 / np.pi) + np.float32(0.5)
        return best, u, 1 - (o[2] + seen * d[2]) / self.height

    def points(self, u: Points, v: Points) -> tuple[Points, Points]:
        angle, z = (u - 0.5) * 2 * np.pi, (1 - v) * self.height
        radius = self.bottom + (self.top - self.bottom) * (1 - v)
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)
        normals = np.stack(
            [np.cos(angle), np.sin(angle), np.full_like(angle, (self.bottom - self.top) / self.height)], axis=1
        )
        return points, normals / np.linalg.norm(normals, axis=1, keepdims=True)

    @property
    def extent(self) -> npt.NDArray[np.float64]:
        radius = max(self.bottom, self.top)
        return np.array([[-radius, -radius, 0], [radius, radius, self.height]])

    @property
    def size(self) -> tuple[float, float]:
        return 2 * np.pi * max(self.bottom, self.top), self.height


class Ellipsoid(Surface):
    """A sphere stretched along the local axes."""

    def __init__(self, axes, origin, instance, texture, radii: tuple[float, float, float]):  # type: ignore[no-untyped-def]
        super().__init__(axes, origin, instance, texture)
        self.radii = radii

    def hit(self, o: tuple, d: tuple) -> tuple[Array, Array, Array]:
        ox, oy, oz = (o[k] / self.radii[k] for k in range(3))
        dx, dy, dz = (d[k] / self.radii[k] for k in range(3))
        a = dx * dx + dy * dy + dz * dz
        b = ox * dx + oy * dy + oz * dz
        root = np.sqrt(b * b - a * (ox * ox + oy * oy + oz * oz - 1))
        t = (-b - root) / a
        best = np.where(t > 0, t, np.float32(np.inf))
        seen = np.where(np.isfinite(best), best, np.float32(0))
        u = np.arctan2(oy + seen * dy, ox + seen * dx) * np.float32(0.5 / np.pi) + np.float32(0.5)
        v = np.arccos(np.clip(oz + seen * dz, -1, 1)) * np.float32(1 / np.pi)
        return best, u, v

    def points(self, u: Points, v: Points) -> tuple[Points, Points]:
        angle, polar = (u - 0.5) * 2 * np.pi, v * np.pi
        unit = np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)], axis=1)
        normals = unit / np.array(self.radii)
        return unit * np.array(self.radii), normals / np.linalg.norm(normals, axis=1, keepdims=True)

    @property
    def extent(self) -> npt.NDArray[np.float64]:
        radii = np.array(self.radii)
        return np.stack([-radii, radii])

    @property
    def size(self) -> tuple[float, float]:
        return 2 * np.pi * max(self.radii[:2]), np.pi * max(self.radii)


@dataclass(frozen=True)
class AreaLight:
    """A square lamp that shines downwards: centre and edge in metres, strength at one metre, and what the room adds."""

    center: tuple[float, float, float]
    edge: float = 0.45
    strength: float = 4.2
    ambient: float = 0.36


class RayCaster:
    """Renders a list of surfaces under one lamp. Building it bakes the light (about a second).

    moving: numbers of surfaces that cast no shadow, because they will not stay where they were built.
    """

    def __init__(self, surfaces: list[Surface], light: AreaLight, seed: int = 0, moving: Collection[int] = ()):
        self.surfaces = surfaces
        lights = _bake(surfaces, light, np.random.default_rng(seed), moving)
        lit = []
        for surface, shade in zip(surfaces, lights, strict=True):
            height, width = surface.texture.shape[:2]
            # Textures are colours as displayed: the light is brought to the same gamma before it multiplies them.
            shade = cv2.resize(shade, (width, height), interpolation=cv2.INTER_LINEAR) ** np.float32(1 / 2.2)
            lit.append(np.clip(surface.texture * shade[..., None] * 255, 0, 255).astype(np.uint8))
        self._atlas, self._places = _pack(lit)

    def cast(
        self,
        K: npt.NDArray[np.float64],
        T_world_camera: npt.NDArray[np.float64],
        width: int,
        height: int,
        split: int,
        moves: Moves | None = None,
    ) -> tuple[Array, npt.NDArray[np.int16], Array, Array]:
        """Depth (infinite: nothing), surface index (-1: nothing) and atlas x, y for split x split rays per pixel."""
        depth = np.full((height * split, width * split), np.inf, np.float32)
        index = np.full(depth.shape, -1, np.int16)
        atlas_x, atlas_y = np.zeros_like(depth), np.zeros_like(depth)
        columns = ((np.arange(width * split) + 0.5) / split - 0.5)[None, :]
        rows = ((np.arange(height * split) + 0.5) / split - 0.5)[:, None]
        rays = T_world_camera[:3, :3] @ np.linalg.inv(K)  # times (x, y, 1): a ray whose t is the depth
        camera = T_world_camera[:3, 3]
        for number, surface in enumerate(self.surfaces):
            to_local, origin, corners = surface.axes.T, surface.origin, surface.corners()
            if moves is not None and number in moves:
                linear, shift = moves[number][:3, :3], moves[number][:3, 3]
                to_local = np.linalg.inv(linear @ surface.axes)
                origin, corners = linear @ origin + shift, corners @ linear.T + shift
            o = to_local @ (camera - origin)
            if surface.faces_away(o):
                continue
            box = _image_box(corners, K, T_world_camera, width, height)
            if box is None:
                continue
            x0, y0, x1, y1 = (value * split for value in box)
            linear = to_local @ rays
            x, y = columns[:, x0:x1], rows[y0:y1]
            d = tuple((linear[k, 0] * x + (linear[k, 1] * y + linear[k, 2])).astype(np.float32) for k in range(3))
            with np.errstate(invalid="ignore", divide="ignore"):
                t, u, v = surface.hit(tuple(np.float32(value) for value in o), d)
                nearer = t < depth[y0:y1, x0:x1]
            left, top, tile_width, tile_height = self._places[number]
            np.copyto(depth[y0:y1, x0:x1], t, where=nearer)
            index[y0:y1, x0:x1][nearer] = number
            np.copyto(atlas_x[y0:y1, x0:x1], left + u * (tile_width - 1), where=nearer)
            np.copyto(atlas_y[y0:y1, x0:x1], top + v * (tile_height - 1), where=nearer)
        return depth, index, atlas_x, atlas_y

    def geometry(
        self,
        K: npt.NDArray[np.float64],
        T_world_camera: npt.NDArray[np.float64],
        width: int,
        height: int,
        moves: Moves | None = None,
    ) -> tuple[Array, npt.NDArray[np.uint16]]:
        """Depth (H, W) metres and instance ids (H, W) at the pixel centres; 0 where there is nothing."""
        depth, index, _, _ = self.cast(K, T_world_camera, width, height, 1, moves)
        instances = np.array([surface.instance for surface in self.surfaces] + [0], np.uint16)
        return np.where(np.isfinite(depth), depth, np.float32(0)), instances[index]

    def image(
        self,
        K: npt.NDArray[np.float64],
        T_world_camera: npt.NDArray[np.float64],
        width: int,
        height: int,
        moves: Moves | None = None,
    ) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, four rays per pixel."""
        _, index, atlas_x, atlas_y = self.cast(K, T_world_camera, width, height, 2, moves)
        fine = cv2.remap(self._atlas, atlas_x, atlas_y, cv2.INTER_LINEAR)
        fine[index < 0] = 0
        return np.asarray(cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _image_box(
    corners: npt.NDArray[np.float64],
    K: npt.NDArray[np.float64],
    T_world_camera: npt.NDArray[np.float64],
    width: int,
    height: int,
) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 (exclusive) around the projected corners, None if out of view, the whole image if near."""
    local = (corners - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
    if (local[:, 2] <= 0).all():
        return None
    if local[:, 2].min() < 0.05:
        return 0, 0, width, height
    pixels = local @ K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    x0, y0 = np.clip(np.floor(pixels.min(axis=0)), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, (width, height)).astype(int)
    return (int(x0), int(y0), int(x1), int(y1)) if x1 > x0 and y1 > y0 else None


def _pack(tiles: list[npt.NDArray[np.uint8]]) -> tuple[npt.NDArray[np.uint8], list[tuple[int, int, int, int]]]:
    """All tiles in one image, in rows of falling height, and each one's left, top, width, height."""
    places: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * len(tiles)
    x = y = row_height = 0
    for number in sorted(range(len(tiles)), key=lambda k: (-tiles[k].shape[0], k)):
        height, width = tiles[number].shape[:2]
        if x + width + 2 * ATLAS_MARGIN > ATLAS_WIDTH:
            x, y, row_height = 0, y + row_height, 0
        places[number] = (x + ATLAS_MARGIN, y + ATLAS_MARGIN, width, height)
        x += width + 2 * ATLAS_MARGIN
        row_height = max(row_height, height + 2 * ATLAS_MARGIN)
    atlas = np.zeros((y + row_height, ATLAS_WIDTH, 3), np.uint8)
    for (left, top, width, height), tile in zip(places, tiles, strict=True):
        m = ATLAS_MARGIN
        framed = cv2.copyMakeBorder(tile, m, m, m, m, cv2.BORDER_REPLICATE)
        atlas[top - m : top + height + m, left - m : left + width + m] = framed
    return atlas, places


def _bake(
    surfaces: list[Surface], light: AreaLight, rng: np.random.Generator, moving: Collection[int] = ()
) -> list[Array]:
    """Light that falls on every surface: a coarse (h, w) float32 grid each; 1 shows the texture as it is."""
    shapes, points, normals, owners = [], [], [], []
    for number, surface in enumerate(surfaces):
        shape = tuple(int(np.clip(round(length * LIGHT_GRID_PER_M), 5, 128)) for length in surface.size[::-1])
        v, u = (grid.ravel() for grid in np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij"))
        # Just inside the rim: a texel on an edge would lie inside whatever the surface stands on.
        local_points, local_normals = surface.points(0.002 + 0.996 * u, 0.002 + 0.996 * v)
        shapes.append(shape)
        points.append(local_points @ surface.axes.T + surface.origin)
        normals.append(local_normals @ surface.axes.T)
        owners.append(np.full(len(u), number))
    at, normal, owner = np.concatenate(points), np.concatenate(normals), np.concatenate(owners)
    at = at + 2 * SELF_DISTANCE_M * normal

    side = 3
    cells = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) + 0.5) / side - 0.5
    lamps = np.array(light.center) + light.edge * np.pad(cells, ((0, 0), (0, 1)))
    direct = np.zeros(len(at))
    hidden = _occlusion(surfaces, moving, at, owner, lamps[:, None, :] - at[None], spread=light.edge)
    for lamp, blocked in zip(lamps, hidden, strict=True):
        way = lamp - at
        distance = np.linalg.norm(way, axis=1)
        cosine = np.maximum((normal * way).sum(axis=1) / distance, 0) * np.maximum(way[:, 2] / distance, 0)
        direct += np.where(blocked, 0, cosine / distance**2) * light.strength / len(lamps)

    # Directions about the normal, cosine-weighted and stratified: what they meet nearby darkens the surface.
    count = 12
    turn = 2 * np.pi * (np.arange(count) * 0.618034 % 1)
    rise = np.sqrt((np.arange(count) + 0.5) / count)
    helper = np.where(np.abs(normal[:, :1]) < 0.7, [[1.0, 0, 0]], [[0, 1.0, 0]])
    tangent = np.cross(normal, helper)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    other = np.cross(normal, tangent)
    start = rng.uniform(0, 2 * np.pi, len(at))
    ways = np.stack(
        [
            rise[k] * (np.cos(turn[k] + start)[:, None] * tangent + np.sin(turn[k] + start)[:, None] * other)
            + np.sqrt(1 - rise[k] ** 2) * normal
            for k in range(count)
        ]
    )
    nearby = _occlusion(surfaces, moving, at, owner, ways * AMBIENT_REACH_M, reach=AMBIENT_REACH_M)
    openness = 1 - 0.75 * nearby.mean(axis=0)

    shades, begin = [], 0
    for shape in shapes:
        end = begin + shape[0] * shape[1]
        ambient = cv2.GaussianBlur(openness[begin:end].reshape(shape).astype(np.float32), (5, 5), 1.2)
        lamp_light = cv2.GaussianBlur(direct[begin:end].reshape(shape).astype(np.float32), (3, 3), 0.6)
        shades.append(light.ambient * ambient + lamp_light * (0.4 + 0.6 * ambient))
        begin = end
    return shades


def _occlusion(
    surfaces: list[Surface],
    moving: Collection[int],
    at: npt.NDArray[np.float64],
    owner: npt.NDArray[np.int64],
    ways: npt.NDArray[np.float64],
    reach: float | None = None,
    spread: float = 0.0,
) -> npt.NDArray[np.bool_]:
    """(R, N) bool: whether at + t * ways[r] meets another surface for t in (0, 1), those numbered in `moving` aside.

    Only surfaces whose bounding sphere comes within `reach` metres of the point are tried; without
    `reach`, those that come within `spread` metres of the mean ray.
    """
    met = np.zeros(ways.shape[:2], bool)
    x, y, z = np.ascontiguousarray(at.T, np.float32)
    mx, my, mz = np.ascontiguousarray(ways.mean(axis=0).T, np.float32)
    inverse = 1 / np.maximum(mx * mx + my * my + mz * mz, np.float32(1e-12))
    for number, surface in enumerate(surfaces):
        if number in moving:
            continue
        corners = surface.corners()
        center = corners.mean(axis=0).astype(np.float32)
        radius = np.float32(np.linalg.norm(corners - center, axis=1).max())
        ax, ay, az = center[0] - x, center[1] - y, center[2] - z
        if reach is not None:
            near = ax * ax + ay * ay + az * az < (radius + np.float32(reach)) ** 2
        else:
            along = np.clip((ax * mx + ay * my + az * mz) * inverse, 0, 1)
            ax, ay, az = ax - along * mx, ay - along * my, az - along * mz
            near = ax * ax + ay * ay + az * az < (radius + np.float32(spread)) ** 2
        picked = np.flatnonzero(near & (owner != number))
        if not len(picked):
            continue
        o = ((at[picked] - surface.origin) @ surface.axes).astype(np.float32)
        d = (ways[:, picked] @ surface.axes).astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            t, _, _ = surface.hit((o[:, 0], o[:, 1], o[:, 2]), (d[..., 0], d[..., 1], d[..., 2]))
        met[:, picked] |= t < 1
    return met
