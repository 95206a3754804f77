"""The sample scene: a generated room with a table and objects, seen by a moving camera, with exact truth.

Same arguments, same bytes. It stands in for a camera in the demo, the tests and the benchmark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.io import sample_textures as paint
from mastsam_ros.io.frame_bag import FrameBag
from mastsam_ros.io.ray_caster import AreaLight, Cone, Ellipsoid, Flat, RayCaster, Shifts, Surface
from mastsam_ros.types import Frame, InputError

PATHS = ("orbit", "look_away", "wide_baseline")
ROOM_HALF_M = 3.0
ROOM_HEIGHT_M = 2.8
TABLE_HALF_M = (0.8, 0.52)
TABLE_HEIGHT_M = 0.75
OBJECT_DENSITY = 900.0
"""Texture pixels per metre on objects: about what the nearest view shows."""
CONTACT_M = 0.001
"""Room between objects that touch."""
MOVED_M = 0.2
"""What somebody moves ends up at least this far from where it was."""
WALK_M = 1.9
"""The walker's way, to both sides of where it is nearest to the table."""


@dataclass(frozen=True, eq=False)
class SceneView:
    """One rendered view: a Frame with K, depth and T_world_camera, and the truth, instance (H, W) uint16."""

    frame: Frame
    instance: npt.NDArray[np.uint16]


@dataclass(frozen=True)
class _Design:
    """One kind of object: its name, radius and height for placing, whether something can stand on it, how to build."""

    name: str
    radius: float
    height: float
    flat_top: bool
    build: Callable[[_Builder, npt.NDArray[np.float64], float], None]


class SampleScene:
    """A textured room, a table and `objects` things on it, seen from `frames` places along `path`.

    seed: chooses the layout, the textures and the colours. path: "orbit" (1.4 degrees a frame round the
    table), "look_away" (the camera turns until the table is out of view, and comes back) or
    "wide_baseline" (5.3 degrees a frame). stacked: some objects touch or stand on each other; without
    it all stand apart. moved: somebody moves one object across the table half-way through, while `look_away`
    does not see it. walker: something of a person's size walks past the table. noise: standard deviation of
    the image noise in grey levels.

    Raises InputError for an unknown path, numbers that make no scene, or `moved` on a path that always looks.
    """

    def __init__(
        self,
        seed: int = 0,
        path: str = "orbit",
        frames: int = 60,
        width: int = 640,
        height: int = 480,
        objects: int = 13,
        stacked: bool = False,
        noise: float = 1.5,
        rate_hz: float = 10.0,
        moved: bool = False,
        walker: bool = False,
    ):
        if path not in PATHS:
            raise InputError(f"the sample scene's path must be one of {', '.join(PATHS)}, got '{path}'")
        if frames < 1 or width < 16 or height < 16 or not 1 <= objects <= len(_DESIGNS) or noise < 0 or rate_hz <= 0:
            raise InputError(
                f"the sample scene needs frames >= 1, at least 16x16 pixels, 1..{len(_DESIGNS)} objects, noise >= 0"
                f" and rate_hz > 0, got {frames}, {width}x{height}, {objects}, {noise}, {rate_hz}"
            )
        if moved and path != "look_away":
            raise InputError(
                f"the sample scene's object is moved while the path look_away does not see it, got '{path}'"
            )
        self.seed, self.path, self.frames = seed, path, frames
        self.width, self.height, self.noise, self.rate_hz = width, height, noise, rate_hz
        focal = 514.68 * width / 640
        self.K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
        rng = np.random.default_rng([seed, 7])
        builder = _Builder(rng)
        _build_room(builder, rng)
        first_object = len(builder.names) + 1
        placed = _place_objects(builder, rng, objects, stacked)
        self.object_ids: tuple[int, ...] = tuple(range(first_object, len(builder.names) + 1))
        """Ids of the things on the table; the rest is the room and the furniture."""
        self.touching: tuple[tuple[int, int], ...] = tuple(
            (first_object + spot.partner, first_object + number)
            for number, spot in enumerate(placed)
            if spot.partner is not None
        )
        """Pairs of ids that touch: side by side, or the second stands on the first."""
        self._poses = _camera_path(path, frames, np.random.default_rng([seed, 8]))
        lamp = (float(rng.choice([-1.0, 1.0]) * rng.uniform(0.7, 1.3)), float(rng.uniform(-1.2, 1.2)), 2.6)
        self.moved: dict[int, npt.NDArray[np.float64]] = {}
        """What is moved, and by how much: (3,) metres."""
        if moved:
            number, shift = _new_place(np.random.default_rng([seed, 10]), placed)
            self.moved[first_object + number] = shift
        self._walk: npt.NDArray[np.float64] | None = None
        self.walker_id = 0
        """Id of what walks through the room, 0: nothing does."""
        if walker:
            self._walk = _walk(np.random.default_rng([seed, 11]), self._poses)
            _build_walker(builder, np.random.default_rng([seed, 12]), self._walk[len(self._walk) // 2])
            self.walker_id = len(builder.names)
        self.instance_names: dict[int, str] = dict(enumerate(builder.names, start=1))
        self._caster = RayCaster(builder.surfaces, AreaLight(lamp), seed, {*self.moved, self.walker_id})

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[SceneView]:
        return (self.render(index) for index in range(self.frames))

    def stamp_ns(self, index: int) -> int:
        """Stamp of a frame: the first is at one second."""
        return 1_000_000_000 + round(index * 1e9 / self.rate_hz)

    def T_world_camera(self, index: int) -> npt.NDArray[np.float64]:
        """(4, 4) pose of the optical frame: x right, y down, z forward, metres."""
        return self._poses[index].copy()

    def render(self, index: int) -> SceneView:
        """The view from place `index`. Raises InputError if there is no such place."""
        if not 0 <= index < self.frames:
            raise InputError(f"the sample scene has frames 0..{self.frames - 1}, got {index}")
        T, shifts = self._poses[index], self._shifts(index)
        depth, instance = self._caster.geometry(self.K, T, self.width, self.height, shifts)
        image = self._caster.image(self.K, T, self.width, self.height, shifts)
        if self.noise > 0:
            rng = np.random.default_rng([self.seed, 9, index])
            grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(self.noise)
            image = np.clip(image + grain + 0.5, 0, 255).astype(np.uint8)
        return SceneView(Frame(image, self.stamp_ns(index), "camera", self.K, depth, T.copy()), instance)

    def _shifts(self, index: int) -> Shifts:
        """What is elsewhere than it was built, in one frame."""
        shifts = dict(self.moved) if 2 * index >= self.frames else {}
        if self._walk is not None:
            shifts[self.walker_id] = self._walk[index] - self._walk[len(self._walk) // 2]
        return shifts

    def description(self) -> dict[str, object]:
        """What `scene.json` says: size, K, poses, names; `objects` are the ids of the things on the table.

        `touching` are the pairs of them that touch, `moving` the ids that do not stay where they are.
        """
        return {
            "width": self.width,
            "height": self.height,
            "K": self.K.tolist(),
            "depth_unit": "mm",
            "rate_hz": self.rate_hz,
            "camera_to_world_optical": [pose.ravel().tolist() for pose in self._poses],
            "instances": {str(number): name for number, name in self.instance_names.items()},
            "objects": list(self.object_ids),
            "touching": [list(pair) for pair in self.touching],
            "moving": [*self.moved, *([self.walker_id] if self.walker_id else [])],
        }

    def write_scene_folder(self, folder: str | Path) -> Path:
        """Writes rgb/*.jpg, depth/*.png (uint16 millimetres), instance/*.png (uint16) and scene.json."""
        folder = Path(folder)
        for name in ("rgb", "depth", "instance"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for index, view in enumerate(self):
            bgr = np.ascontiguousarray(view.frame.image[..., ::-1])
            millimetres = np.rint(np.asarray(view.frame.depth) * 1000).astype(np.uint16)
            cv2.imwrite(str(folder / "rgb" / f"{index:05d}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
            cv2.imwrite(str(folder / "depth" / f"{index:05d}.png"), millimetres)
            cv2.imwrite(str(folder / "instance" / f"{index:05d}.png"), view.instance)
        (folder / "scene.json").write_text(json.dumps(self.description()), encoding="utf-8")
        return folder

    def write_bag(self, folder: str | Path) -> Path:
        """Writes a rosbag2 (mcap) with the topics of `frame_bag.TOPICS`. Raises InputError if `folder` exists."""
        with FrameBag(folder) as bag:
            for view in self:
                bag.add(view.frame, view.instance)
        return Path(folder)


def _camera_path(path: str, frames: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(frames, 4, 4) T_world_camera."""
    start = rng.uniform(0, 2 * np.pi)
    turn = rng.choice([-1.0, 1.0])
    poses = []
    for index in range(frames):
        share = index / max(frames - 1, 1)
        if path == "look_away":
            angle = start + 0.06 * np.sin(2 * np.pi * share)
            eye = np.array([1.45 * np.cos(angle), 1.45 * np.sin(angle), 1.3])
            away = turn * np.radians(80) * (0.5 - 0.5 * np.cos(2 * np.pi * share))
            heading = angle + np.pi + away
            target = eye + np.array([np.cos(heading), np.sin(heading), -0.45])
        else:
            step, swing, lift = (1.4, 0.08, 1.35) if path == "orbit" else (5.3, 0.05, 1.2)
            angle = start + turn * np.radians(step) * index
            radius = 1.5 + swing * np.sin(2.1 * angle)
            eye = np.array([radius * np.cos(angle), radius * np.sin(angle), lift + 0.2 * np.sin(1.3 * angle + 0.5)])
            target = np.array([0.05 * np.cos(3 * angle), 0.05 * np.sin(2 * angle), TABLE_HEIGHT_M + 0.02])
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        T = np.eye(4)
        T[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        T[:3, 3] = eye
        poses.append(T)
    return np.stack(poses)


def _yaw(angle: float) -> npt.NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


class _Builder:
    """Collects surfaces; a shape belongs to the instance that was named last."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.surfaces: list[Surface] = []
        self.names: list[str] = []

    def instance(self, name: str) -> None:
        self.names.append(name)

    def _painted(self, painter: paint.Paint, width_m: float, height_m: float, density: float) -> paint.Texture:
        size = [max(round(length * density), 8) for length in (width_m, height_m)]
        return painter(self.rng, size[0], size[1], density).astype(np.float32)

    def flat(
        self,
        axes: npt.NDArray[np.float64],
        center: npt.NDArray[np.float64],
        half: tuple[float, float],
        painter: paint.Paint,
        density: float = OBJECT_DENSITY,
        is_disk: bool = False,
    ) -> None:
        texture = self._painted(painter, 2 * half[0], 2 * half[1], density)
        self.surfaces.append(Flat(axes, center, len(self.names), texture, half, is_disk))

    def box(
        self,
        base: npt.NDArray[np.float64],
        half: tuple[float, float, float],
        yaw: float,
        side: paint.Paint,
        top: paint.Paint | None = None,
        density: float = OBJECT_DENSITY,
    ) -> None:
        """A box that stands on `base`; its faces get v downwards, so that a label stands upright."""
        R = _yaw(yaw)
        hx, hy, hz = half
        center = base + [0, 0, hz]
        up = np.array([0, 0, 1.0])
        for normal, depth, width in ((R[:, 0], hx, hy), (-R[:, 0], hx, hy), (R[:, 1], hy, hx), (-R[:, 1], hy, hx)):
            axes = np.stack([np.cross(up, normal), up, normal], axis=1)
            self.flat(axes, center + normal * depth, (width, hz), side, density)
        top = top or side
        self.flat(R, center + up * hz, (hx, hy), top, density)
        self.flat(R * [1, -1, -1], center - up * hz, (hx, hy), top, density)

    def cone(
        self,
        base: npt.NDArray[np.float64],
        bottom: float,
        top: float,
        height: float,
        yaw: float,
        side: paint.Paint,
        cap: paint.Paint | None = None,
        density: float = OBJECT_DENSITY,
    ) -> None:
        """A cylinder or cut cone that stands on `base`, closed on top and below."""
        R = _yaw(yaw)
        texture = self._painted(side, 2 * np.pi * max(bottom, top), height, density)
        self.surfaces.append(Cone(R, base, len(self.names), texture, bottom, top, height))
        up = np.array([0, 0, 1.0])
        if top > 0.002:
            self.flat(R, base + up * height, (top, top), cap or side, density, is_disk=True)
        self.flat(R * [1, -1, -1], base, (bottom, bottom), cap or side, density, is_disk=True)

    def ellipsoid(
        self,
        base: npt.NDArray[np.float64],
        radii: tuple[float, float, float],
        yaw: float,
        painter: paint.Paint,
        lying: bool = False,
    ) -> None:
        """An ellipsoid that rests on `base`; lying, its poles point sideways."""
        R = _yaw(yaw)
        if lying:
            R = R @ np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
        lift = radii[0] if lying else radii[2]
        texture = self._painted(painter, 2 * np.pi * max(radii[:2]), np.pi * max(radii), OBJECT_DENSITY)
        self.surfaces.append(Ellipsoid(R, base + [0, 0, lift], len(self.names), texture, radii))


def _build_room(builder: _Builder, rng: np.random.Generator) -> None:
    """Floor, walls, ceiling, pictures, a shelf, a pillar and the table."""
    floors = (
        paint.planks((0.26, 0.21, 0.18), (0.5, 0.43, 0.37)),
        paint.tiles((0.42, 0.4, 0.38), (0.68, 0.66, 0.62)),
        paint.planks((0.4, 0.27, 0.16), (0.66, 0.48, 0.31)),
    )
    walls = [
        paint.wallpaper((0.68, 0.66, 0.56), (0.5, 0.5, 0.42)),
        paint.plaster((0.72, 0.68, 0.6)),
        paint.bricks((0.45, 0.23, 0.17), (0.68, 0.42, 0.32)),
        paint.planks((0.6, 0.6, 0.6), (0.82, 0.82, 0.81), (2.9, 0.2), (0.4, 0.4, 0.4)),
        paint.plaster((0.52, 0.6, 0.64)),
        paint.wallpaper((0.56, 0.64, 0.66), (0.8, 0.82, 0.8), 0.3),
    ]
    zero = np.zeros(3)
    h = ROOM_HALF_M
    builder.instance("floor")
    builder.flat(np.eye(3), zero, (h, h), floors[rng.integers(len(floors))], 300)
    up = np.array([0, 0, 1.0])
    kinds = rng.permutation(len(walls))[:4]
    inward = [-_yaw(k * np.pi / 2)[:, 0] for k in range(4)]
    for letter, normal, kind in zip("abcd", inward, kinds, strict=True):
        builder.instance(f"wall_{letter}")
        axes = np.stack([np.cross(up, normal), up, normal], axis=1)
        middle = -normal * h + up * ROOM_HEIGHT_M / 2
        builder.flat(axes, middle, (h, ROOM_HEIGHT_M / 2), walls[kind], 200)
    builder.instance("ceiling")
    builder.flat(np.diag([1.0, -1, -1]), up * ROOM_HEIGHT_M, (h, h), paint.plain((0.85, 0.85, 0.83)), 40)
    for number, wall in enumerate(rng.permutation(4)[:3]):
        builder.instance(f"picture{number}")
        normal = inward[wall]
        along = np.cross(up, normal)
        half = (float(rng.uniform(0.3, 0.5)), float(rng.uniform(0.22, 0.34)))
        middle = -normal * (h - 0.03) + along * rng.uniform(-1.2, 1.2) + up * rng.uniform(1.2, 1.5)
        axes = np.stack([along, up, normal], axis=1)
        builder.flat(axes, middle, half, paint.framed, 220)
        for side, reach, other in ((along, half[0], half[1]), (up, half[1], half[0])):
            for sign in (-1.0, 1.0):
                edge = np.stack([np.cross(normal, sign * side), normal, sign * side], axis=1)
                center = middle + sign * side * reach - normal * 0.015
                builder.flat(edge, center, (other, 0.015), paint.plain((0.25, 0.15, 0.08)), 60)

    oak = paint.wood((0.3, 0.18, 0.1), (0.48, 0.31, 0.19))
    corner = _yaw(np.pi / 2 * rng.integers(4))
    builder.instance("shelf")
    builder.box(corner @ [1.0, h - 0.3, 0], (0.5, 0.22, 0.62), math.atan2(corner[1, 0], corner[0, 0]), oak, None, 250)
    builder.instance("pillar")
    concrete = paint.granite((0.5, 0.5, 0.5), (0.72, 0.72, 0.7), 0.2)
    builder.cone(corner @ [-1.9, h - 0.75, 0], 0.15, 0.15, ROOM_HEIGHT_M - 0.01, 0, concrete, None, 200)

    builder.instance("table")
    tops = (
        paint.wood((0.66, 0.5, 0.34), (0.84, 0.69, 0.5)),
        paint.wood((0.5, 0.34, 0.21), (0.68, 0.5, 0.34)),
        paint.wood((0.72, 0.66, 0.58), (0.88, 0.83, 0.75)),
    )
    top = tops[rng.integers(len(tops))]
    builder.box(np.array([0, 0, TABLE_HEIGHT_M - 0.045]), (*TABLE_HALF_M, 0.0225), 0, top, None, 500)
    leg = paint.plain((0.16, 0.13, 0.12), 0.2)
    for number, (x, y) in enumerate(((-1, -1), (1, -1), (1, 1), (-1, 1))):
        builder.instance(f"leg{number}")
        foot = np.array([x * (TABLE_HALF_M[0] - 0.07), y * (TABLE_HALF_M[1] - 0.07), 0])
        builder.box(foot, (0.035, 0.035, (TABLE_HEIGHT_M - 0.046) / 2), 0, leg, None, 150)


@dataclass(frozen=True)
class _Placed:
    """An object on the table. open: nothing stands on it, and it stands on the table itself. partner: the number of
    the object that it touches or stands on."""

    design: _Design
    spot: npt.NDArray[np.float64]
    open: bool
    partner: int | None


def _place_objects(builder: _Builder, rng: np.random.Generator, count: int, stacked: bool) -> list[_Placed]:
    """Objects on the table, apart from each other; with `stacked` every third touches another or stands on it."""
    designs = [_DESIGNS[k] for k in sorted(rng.permutation(len(_DESIGNS))[:count])]
    designs.sort(key=lambda design: (-design.radius, design.name))
    placed: list[_Placed] = []
    for number, design in enumerate(designs):
        joined = stacked and number % 3 == 2
        spot, partner = _free_spot(rng, design, placed, joined)
        hosts = [
            k for k, p in enumerate(placed) if p.open and p.design.flat_top and p.design.radius > 1.1 * design.radius
        ]
        on_top = joined and number % 2 == 0 and bool(hosts)
        if on_top:
            partner = hosts[int(rng.integers(len(hosts)))]
            host = placed[partner]
            placed[partner] = replace(host, open=False)
            spot = host.spot + [0, 0, host.design.height]
        first_surface = len(builder.surfaces)
        builder.instance(design.name)
        design.build(builder, spot, float(rng.uniform(-np.pi, np.pi)))
        if partner is not None and not on_top:
            own = builder.surfaces[first_surface:]
            first_instance = own[0].instance - number
            other = [s for s in builder.surfaces[:first_surface] if s.instance == first_instance + partner]
            spot = spot + _push(own, other, placed[partner].spot - spot)
        placed.append(_Placed(design, spot, not on_top, partner))
    return placed


def _free_spot(
    rng: np.random.Generator, design: _Design, placed: list[_Placed], joined: bool
) -> tuple[npt.NDArray[np.float64], int | None]:
    """The best of many random spots: as far from the others as the table allows, or, joined, near one, its number."""
    candidates = rng.uniform(-1, 1, (200, 2)) * (np.array(TABLE_HALF_M) - design.radius - 0.03)
    gaps = np.stack(
        [np.linalg.norm(candidates - p.spot[:2], axis=1) - p.design.radius - design.radius for p in placed]
        or [np.ones(len(candidates))]
    )
    nearest = gaps.min(axis=0)
    partner = None
    if joined and placed:
        second = np.sort(gaps, axis=0)[1] if len(gaps) > 1 else nearest + 1
        best = int(np.argmin(np.abs(nearest - 0.002) + np.maximum(0.05 - second, 0)))
        partner = int(np.argmin(gaps[:, best]))
    else:
        best = int(np.flatnonzero(nearest >= min(0.06, nearest.max()))[0])
    return np.array([*candidates[best], TABLE_HEIGHT_M]), partner


def _push(own: list[Surface], other: list[Surface], way: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Slides the surfaces `own` along the table in the direction `way` until they touch the `other`; by how much."""
    from scipy.spatial import cKDTree

    way = np.array([way[0], way[1], 0]) / np.linalg.norm(way[:2])
    v, u = (grid.ravel() for grid in np.meshgrid(*[np.linspace(0, 1, 80)] * 2, indexing="ij"))
    mine, theirs = (
        np.concatenate([s.points(u, v)[0] @ s.axes.T + s.origin for s in surfaces]) for surfaces in (own, other)
    )
    tree, moved = cKDTree(theirs), 0.0
    for _ in range(20):
        room = float(tree.query(mine + moved * way)[0].min()) - CONTACT_M
        moved += room
        if room < CONTACT_M or moved > 0.3:
            break
    for surface in own:
        surface.origin = surface.origin + moved * way
    return moved * way


def _new_place(rng: np.random.Generator, placed: list[_Placed]) -> tuple[int, npt.NDArray[np.float64]]:
    """Which object is moved, and by how much: a free-standing one, to where there is the most room."""
    joined = {p.partner for p in placed}
    alone = [n for n, p in enumerate(placed) if p.open and p.partner is None and n not in joined]
    number = alone[int(rng.integers(len(alone)))]
    chosen = placed[number]
    candidates = rng.uniform(-1, 1, (400, 2)) * (np.array(TABLE_HALF_M) - chosen.design.radius - 0.03)
    candidates = candidates[np.linalg.norm(candidates - chosen.spot[:2], axis=1) > MOVED_M + chosen.design.radius]
    gaps = [
        np.linalg.norm(candidates - p.spot[:2], axis=1) - p.design.radius - chosen.design.radius
        for n, p in enumerate(placed)
        if n != number
    ]
    room = np.min(gaps, axis=0) if gaps else np.ones(len(candidates))
    return number, np.array([*(candidates[int(np.argmax(room))] - chosen.spot[:2]), 0.0])


def _walk(rng: np.random.Generator, poses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(frames, 3) where the walker stands: a straight line past the table, behind it as the camera sees it."""
    eye = poses[len(poses) // 2, :2, 3]
    angle = math.atan2(eye[1], eye[0]) + rng.choice([-1.0, 1.0]) * rng.uniform(1.8, 2.6)
    away, along = _yaw(angle)[:, 0], _yaw(angle)[:, 1]
    return np.stack([1.15 * away + along * way for way in np.linspace(-WALK_M, WALK_M, len(poses))])


def _build_walker(builder: _Builder, rng: np.random.Generator, base: npt.NDArray[np.float64]) -> None:
    """Legs, coat and head: as tall and as wide as a person."""
    builder.instance("walker")
    cloth = paint.stripes((0.2, 0.22, 0.3), (0.26, 0.28, 0.38), 9)
    coat = paint.granite((0.45, 0.2, 0.16), (0.6, 0.3, 0.24), 0.05)
    yaw = float(rng.uniform(-np.pi, np.pi))
    builder.cone(base, 0.13, 0.15, 0.8, yaw, cloth, None, 200)
    builder.cone(base + [0, 0, 0.8], 0.2, 0.23, 0.45, yaw, coat, None, 200)
    builder.cone(base + [0, 0, 1.25], 0.23, 0.08, 0.2, yaw, coat, None, 200)
    builder.ellipsoid(base + [0, 0, 1.44], (0.09, 0.09, 0.13), yaw, paint.plain((0.75, 0.55, 0.45)))


def _bottle(color: paint.Color) -> Callable[[_Builder, npt.NDArray[np.float64], float], None]:
    def build(builder: _Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
        glass, up = paint.plain(color, 0.12), np.array([0, 0, 1.0])
        builder.cone(base, 0.036, 0.036, 0.05, yaw, glass)
        builder.cone(
            base + 0.05 * up, 0.037, 0.037, 0.06, yaw, paint.label((0.26, 0.5, 0.26), color, (0.7, 0.72, 0.55))
        )
        builder.cone(base + 0.11 * up, 0.036, 0.014, 0.07, yaw, glass)
        builder.cone(base + 0.18 * up, 0.014, 0.014, 0.05, yaw, glass, paint.plain((0.8, 0.72, 0.3)))

    return build


def _carton(builder: _Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
    side = paint.label((0.93, 0.94, 0.95), (0.8, 0.86, 0.93), (0.3, 0.45, 0.7))
    builder.box(base, (0.036, 0.036, 0.085), yaw, side, paint.plain((0.9, 0.91, 0.92)))
    builder.box(base + [0, 0, 0.17], (0.036, 0.01, 0.014), yaw, paint.plain((0.9, 0.91, 0.92)))


def _vase(builder: _Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
    glaze = paint.granite((0.16, 0.38, 0.42), (0.32, 0.58, 0.6))
    builder.cone(base, 0.035, 0.06, 0.08, yaw, glaze)
    builder.cone(base + [0, 0, 0.08], 0.06, 0.028, 0.06, yaw, glaze)
    builder.cone(base + [0, 0, 0.14], 0.028, 0.04, 0.03, yaw, glaze, paint.plain((0.08, 0.16, 0.18)))


def _lamp(builder: _Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
    builder.cone(base, 0.05, 0.05, 0.012, yaw, paint.plain((0.2, 0.2, 0.22)))
    builder.cone(base + [0, 0, 0.012], 0.008, 0.008, 0.1, yaw, paint.plain((0.7, 0.6, 0.3)))
    builder.cone(
        base + [0, 0, 0.1], 0.07, 0.042, 0.09, yaw, paint.stripes((0.92, 0.84, 0.66), (0.86, 0.74, 0.54), 12, True)
    )


def _tin(
    painter: paint.Paint, radius: float, height: float
) -> Callable[[_Builder, npt.NDArray[np.float64], float], None]:
    def build(builder: _Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
        builder.cone(base, radius, radius, height, yaw, painter, paint.ribbed((0.75, 0.75, 0.77), 3))

    return build


def _mug(builder: _Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
    builder.cone(
        base,
        0.043,
        0.047,
        0.095,
        yaw,
        paint.stripes((0.17, 0.33, 0.6), (0.22, 0.4, 0.68), 5),
        paint.plain((0.3, 0.18, 0.1)),
    )
    out = _yaw(yaw)[:, 0]
    builder.box(base + 0.062 * out + [0, 0, 0.02], (0.016, 0.007, 0.028), yaw, paint.plain((0.17, 0.33, 0.6)))


def _block(
    painter: paint.Paint, half: tuple[float, float, float], top: paint.Paint | None = None
) -> Callable[[_Builder, npt.NDArray[np.float64], float], None]:
    def build(builder: _Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
        builder.box(base, half, yaw, painter, top)

    return build


def _round(
    painter: paint.Paint, radii: tuple[float, float, float], lying: bool = False
) -> Callable[[_Builder, npt.NDArray[np.float64], float], None]:
    def build(builder: _Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
        builder.ellipsoid(base, radii, yaw, painter, lying)

    return build


def _pylon(builder: _Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
    builder.box(base, (0.055, 0.055, 0.006), yaw, paint.plain((0.85, 0.32, 0.1)))
    builder.cone(base + [0, 0, 0.012], 0.045, 0.008, 0.15, yaw, paint.stripes((0.88, 0.34, 0.1), (0.93, 0.46, 0.2), 3))


_DESIGNS = (
    _Design(
        "cereal",
        0.085,
        0.22,
        False,
        _block(paint.label((0.8, 0.2, 0.14), (0.95, 0.78, 0.2), (0.35, 0.1, 0.08)), (0.075, 0.027, 0.11)),
    ),
    _Design("carton", 0.05, 0.2, False, _carton),
    _Design(
        "juice",
        0.035,
        0.12,
        True,
        _tin(paint.label((0.8, 0.13, 0.16), (0.95, 0.93, 0.9), (0.5, 0.05, 0.1)), 0.034, 0.12),
    ),
    _Design("tin", 0.052, 0.11, True, _tin(paint.ribbed((0.72, 0.73, 0.75), 9), 0.05, 0.11)),
    _Design("bottle", 0.037, 0.23, False, _bottle((0.18, 0.42, 0.2))),
    _Design("mug", 0.08, 0.1, False, _mug),
    _Design(
        "ball",
        0.065,
        0.13,
        False,
        _round(paint.panels(((0.72, 0.16, 0.14), (0.84, 0.26, 0.2))), (0.065, 0.065, 0.065)),
    ),
    _Design(
        "orange",
        0.04,
        0.08,
        False,
        _round(paint.granite((0.83, 0.42, 0.07), (0.98, 0.6, 0.16), 0.006), (0.04, 0.04, 0.038)),
    ),
    _Design(
        "lemon",
        0.04,
        0.05,
        False,
        _round(paint.granite((0.84, 0.72, 0.12), (0.98, 0.88, 0.28), 0.006), (0.028, 0.028, 0.04), True),
    ),
    _Design(
        "book",
        0.125,
        0.045,
        True,
        _block(
            paint.stripes((0.9, 0.88, 0.8), (0.78, 0.76, 0.68), 8),
            (0.1, 0.075, 0.0225),
            paint.label((0.16, 0.3, 0.42), (0.2, 0.36, 0.5), (0.78, 0.66, 0.4)),
        ),
    ),
    _Design(
        "gift", 0.092, 0.12, True, _block(paint.dots((0.36, 0.18, 0.46), (0.46, 0.28, 0.56), 6), (0.065, 0.065, 0.06))
    ),
    _Design(
        "block",
        0.066,
        0.07,
        True,
        _block(paint.wood((0.42, 0.26, 0.13), (0.66, 0.45, 0.26), 0.008), (0.055, 0.036, 0.035)),
    ),
    _Design(
        "stone", 0.075, 0.1, True, _block(paint.granite((0.3, 0.3, 0.31), (0.54, 0.53, 0.51)), (0.052, 0.052, 0.05))
    ),
    _Design("pylon", 0.078, 0.16, False, _pylon),
    _Design("vase", 0.062, 0.17, False, _vase),
    _Design("lamp", 0.072, 0.19, False, _lamp),
)
