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
from mastsam_ros.io.encodings import metres_to_millimetres
from mastsam_ros.io.frame_bag import FrameBag
from mastsam_ros.io.ray_caster import AreaLight, Moves, RayCaster, Surface
from mastsam_ros.io.sample_camera import Pose, SampleCamera
from mastsam_ros.io.sample_objects import DESIGNS, Builder, Design, look_at, translation, yaw_matrix
from mastsam_ros.types import Frame, InputError

PATHS = ("orbit", "look_away", "wide_baseline", "walk_through")
LAYOUTS = ("table", "floor")
ROOM_HALF_M = 3.0
ROOM_HEIGHT_M = 2.8
TABLE_HALF_M = (0.8, 0.52)
TABLE_HEIGHT_M = 0.75
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


class SampleScene:
    """A textured room, a table and `objects` things on it, seen from `frames` places along `path`.

    seed: chooses the layout, the textures and the colours. path: "orbit" (1.4 degrees a frame round the
    table), "look_away" (the camera turns until the table is out of view, and comes back), "wide_baseline"
    (5.3 degrees a frame) or "walk_through" (past the table, through the room). stacked: some objects touch or
    stand on each other; without it all stand apart. moved: somebody moves one object across the table half-way
    through, while `look_away` does not see it. walker: something of a person's size walks past the table.
    layout: "table", or "floor", where everything lies on the floor and the camera is as low as a robot's.
    repainted: everything in other colours, drawn by the seed. noise, shake_deg, shutter, dimming: see `SampleCamera`.

    Raises InputError for an unknown path or layout, numbers that make no scene, or `moved` on a path that always looks.
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
        layout: str = "table",
        repainted: bool = False,
        shake_deg: float = 0.0,
        shutter: float = 0.0,
        dimming: float = 0.0,
    ):
        if path not in PATHS:
            raise InputError(f"the sample scene's path must be one of {', '.join(PATHS)}, got '{path}'")
        if layout not in LAYOUTS:
            raise InputError(f"the sample scene's layout must be one of {', '.join(LAYOUTS)}, got '{layout}'")
        if frames < 1 or width < 16 or height < 16 or not 1 <= objects <= len(DESIGNS) or noise < 0 or rate_hz <= 0:
            raise InputError(
                f"the sample scene needs frames >= 1, at least 16x16 pixels, 1..{len(DESIGNS)} objects, noise >= 0"
                f" and rate_hz > 0, got {frames}, {width}x{height}, {objects}, {noise}, {rate_hz}"
            )
        if moved and path != "look_away":
            raise InputError(
                f"the sample scene's object is moved while the path look_away does not see it, got '{path}'"
            )
        self.seed, self.path, self.frames = seed, path, frames
        self.width, self.height, self.rate_hz = width, height, rate_hz
        self._camera = SampleCamera(seed, frames, noise, shake_deg, shutter, dimming)
        focal = 514.68 * width / 640
        self.K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
        rng = np.random.default_rng([seed, 7])
        builder = Builder(rng, np.random.default_rng([seed, 14]) if repainted else None)
        ground = TABLE_HEIGHT_M if layout == "table" else 0.0
        _build_room(builder, rng, with_table=layout == "table")
        first_object = len(builder.names) + 1
        placed = _place_objects(builder, rng, objects, stacked, ground)
        self.object_ids: tuple[int, ...] = tuple(range(first_object, len(builder.names) + 1))
        """Ids of the things on the table; the rest is the room and the furniture."""
        self.touching: tuple[tuple[int, int], ...] = tuple(
            (first_object + spot.partner, first_object + number)
            for number, spot in enumerate(placed)
            if spot.partner is not None
        )
        """Pairs of ids that touch: side by side, or the second stands on the first."""
        self._pose = self._camera.held(_camera_path(path, frames, np.random.default_rng([seed, 8]), ground))
        self._poses = np.stack([self._pose(float(index)) for index in range(frames)])
        lamp = (float(rng.choice([-1.0, 1.0]) * rng.uniform(0.7, 1.3)), float(rng.uniform(-1.2, 1.2)), 2.6)
        self.moved: dict[int, npt.NDArray[np.float64]] = {}
        """What is moved, and by how much: (3,) metres."""
        if moved:
            number, shift = _new_place(np.random.default_rng([seed, 10]), placed)
            self.moved[first_object + number] = shift
        self._walk: Callable[[float], npt.NDArray[np.float64]] | None = None
        self.walker_id = 0
        """Id of what walks through the room, 0: nothing does."""
        if walker:
            self._walk = _walk(np.random.default_rng([seed, 11]), self._poses)
            _build_walker(builder, np.random.default_rng([seed, 12]), self._walk(frames // 2))
            self.walker_id = len(builder.names)
        self.instance_names: dict[int, str] = dict(enumerate(builder.names, start=1))
        moving = {number for number, s in enumerate(builder.surfaces) if s.instance in (*self.moved, self.walker_id)}
        self._caster = RayCaster(builder.surfaces, AreaLight(lamp), seed, moving)

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
        T, moves = self._poses[index], self._moves(index)
        depth, instance = self._caster.geometry(self.K, T, self.width, self.height, moves)
        image = self._camera.picture(self._seen, index)
        return SceneView(Frame(image, self.stamp_ns(index), "camera", self.K, depth, T.copy()), instance)

    def _seen(self, time: float) -> npt.NDArray[np.uint8]:
        return self._caster.image(self.K, self._pose(time), self.width, self.height, self._moves(time))

    def _moves(self, time: float) -> Moves:
        """What is elsewhere than it was built, at a time in frames."""
        shifts = dict(self.moved) if 2 * time >= self.frames else {}
        if self._walk is not None:
            shifts[self.walker_id] = self._walk(time) - self._walk(self.frames // 2)
        return {
            number: translation(shifts[surface.instance])
            for number, surface in enumerate(self._caster.surfaces)
            if surface.instance in shifts
        }

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
            millimetres = metres_to_millimetres(np.asarray(view.frame.depth, np.float32))
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


def _camera_path(path: str, frames: int, rng: np.random.Generator, ground: float) -> Pose:
    """The way of the camera; ground: the height of what the objects stand on."""
    start = rng.uniform(0, 2 * np.pi)
    turn = rng.choice([-1.0, 1.0])
    lower = np.array([0, 0, TABLE_HEIGHT_M - ground])

    def pose(time: float) -> npt.NDArray[np.float64]:
        share = time / max(frames - 1, 1)
        if path == "walk_through":
            # Quarter turns: the walls are a camera's width farther than the way is long.
            side = yaw_matrix(np.pi / 2 * round(2 * start / np.pi))
            eye = side @ [4.6 * share - 2.3, -1.25 * turn, 1.45]
            target = eye + side @ [1.5, 0.9 * turn * (1 - share), -0.5]
        elif path == "look_away":
            angle = start + 0.06 * np.sin(2 * np.pi * share)
            eye = np.array([1.45 * np.cos(angle), 1.45 * np.sin(angle), 1.3])
            away = turn * np.radians(80) * (0.5 - 0.5 * np.cos(2 * np.pi * share))
            heading = angle + np.pi + away
            target = eye + np.array([np.cos(heading), np.sin(heading), -0.45])
        else:
            step, swing, lift = (1.4, 0.08, 1.35) if path == "orbit" else (5.3, 0.05, 1.2)
            angle = start + turn * np.radians(step) * time
            radius = 1.5 + swing * np.sin(2.1 * angle)
            eye = np.array([radius * np.cos(angle), radius * np.sin(angle), lift + 0.2 * np.sin(1.3 * angle + 0.5)])
            target = np.array([0.05 * np.cos(3 * angle), 0.05 * np.sin(2 * angle), TABLE_HEIGHT_M + 0.02])
        return look_at(eye - lower, target - lower)

    return pose


def _build_room(builder: Builder, rng: np.random.Generator, with_table: bool) -> None:
    """Floor, walls, ceiling, pictures, a shelf, a pillar and, as a rule, the table."""
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
    inward = [-yaw_matrix(k * np.pi / 2)[:, 0] for k in range(4)]
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
    corner = yaw_matrix(np.pi / 2 * rng.integers(4))
    builder.instance("shelf")
    builder.box(corner @ [1.0, h - 0.3, 0], (0.5, 0.22, 0.62), math.atan2(corner[1, 0], corner[0, 0]), oak, None, 250)
    builder.instance("pillar")
    concrete = paint.granite((0.5, 0.5, 0.5), (0.72, 0.72, 0.7), 0.2)
    builder.cone(corner @ [-1.9, h - 0.75, 0], 0.15, 0.15, ROOM_HEIGHT_M - 0.01, 0, concrete, None, 200)

    if not with_table:
        return
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

    design: Design
    spot: npt.NDArray[np.float64]
    open: bool
    partner: int | None


def _place_objects(
    builder: Builder, rng: np.random.Generator, count: int, stacked: bool, ground: float
) -> list[_Placed]:
    """Objects on the table or the floor, apart from each other; `stacked`: every third touches another or is on it."""
    designs = [DESIGNS[k] for k in sorted(rng.permutation(len(DESIGNS))[:count])]
    designs.sort(key=lambda design: (-design.radius, design.name))
    placed: list[_Placed] = []
    for number, design in enumerate(designs):
        joined = stacked and number % 3 == 2
        spot, partner = _free_spot(rng, design, placed, joined, ground)
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
    rng: np.random.Generator, design: Design, placed: list[_Placed], joined: bool, ground: float
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
    return np.array([*candidates[best], ground]), partner


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


def _walk(rng: np.random.Generator, poses: npt.NDArray[np.float64]) -> Callable[[float], npt.NDArray[np.float64]]:
    """Time in frames -> (3,) where the walker stands: straight past the table, behind it as the camera sees it."""
    eye = poses[len(poses) // 2, :2, 3]
    angle = math.atan2(eye[1], eye[0]) + rng.choice([-1.0, 1.0]) * rng.uniform(1.8, 2.6)
    away, along = yaw_matrix(angle)[:, 0], yaw_matrix(angle)[:, 1]
    return lambda time: 1.15 * away + along * WALK_M * (2 * time / max(len(poses) - 1, 1) - 1)


def _build_walker(builder: Builder, rng: np.random.Generator, base: npt.NDArray[np.float64]) -> None:
    """Legs, coat and head: as tall and as wide as a person."""
    builder.instance("walker")
    cloth = paint.stripes((0.2, 0.22, 0.3), (0.26, 0.28, 0.38), 9)
    coat = paint.granite((0.45, 0.2, 0.16), (0.6, 0.3, 0.24), 0.05)
    yaw = float(rng.uniform(-np.pi, np.pi))
    builder.cone(base, 0.13, 0.15, 0.8, yaw, cloth, None, 200)
    builder.cone(base + [0, 0, 0.8], 0.2, 0.23, 0.45, yaw, coat, None, 200)
    builder.cone(base + [0, 0, 1.25], 0.23, 0.08, 0.2, yaw, coat, None, 200)
    builder.ellipsoid(base + [0, 0, 1.44], (0.09, 0.09, 0.13), yaw, paint.plain((0.75, 0.55, 0.45)))
