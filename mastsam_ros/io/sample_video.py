"""The sample video: something that moves by itself, outdoors, before a camera that moves too, with its exact mask.

Same arguments, same bytes. Beside the sample scene, where everything rests, it is the other kind of data: one thing
that walks, rolls or changes its shape, its shadow, trees before and behind it, onlookers, smoke, and one mask, as in
DAVIS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.io import sample_textures as paint
from mastsam_ros.io.ray_caster import AreaLight, Moves, RayCaster
from mastsam_ros.io.sample_camera import Pose, SampleCamera
from mastsam_ros.io.sample_objects import Builder, look_at, translation, yaw_matrix
from mastsam_ros.io.sample_scene import SceneView
from mastsam_ros.types import Frame, InputError

MOVERS = ("person", "animal", "car", "balloon", "dancer", "rider")
CAMERAS = ("follow", "pan", "still", "meet")
MOVER_ID = 1
RATE_HZ = 25.0
SUN = AreaLight(center=(12.0, -16.0, 26.0), edge=3.0, strength=950.0, ambient=0.45)
SHADOW = 0.45
"""Share of the light that the mover takes from the ground under it."""
DENSITY = 150.0
"""Texture pixels per metre on what moves."""
ONLOOKERS = 7
PUFFS_PER_S, PUFF_LIFE_S = 25, 1.2
Cloth = Callable[[np.random.Generator], paint.Paint]
Turn = Callable[[float], npt.NDArray[np.float64]]
"""Time in seconds -> (4, 4) where a part is, as seen from the whole."""


@dataclass(frozen=True)
class _Mover:
    """What moves: metres per second, from how far it is looked at, how wide and long its shadow is, and how it bobs:
    (metres, turns per second)."""

    speed: float
    distance: float
    shadow: tuple[float, float]
    bob: tuple[float, float]
    turns: dict[int, Turn]
    """Number of a surface -> how its part moves against the whole; others do not."""
    whole: Turn | None = None
    """How the whole turns and leans where it stands."""


class SampleVideo:
    """`frames` pictures of one thing that moves by itself, 25 a second.

    seed: chooses the place, the textures, the colours and the direction. mover: "person" and "animal" move their legs
    and heads, "car" is rigid, "balloon" changes its shape, "dancer" turns on the spot, "rider" is one thing with the
    motorcycle. camera: "follow" goes along, "pan" turns after it, "still" does neither, "meet" stands where it comes
    to. occluders: trees between it and the camera. shadow: it casts one, which is not part of it. water: the ground is
    water, whose waves run from it and with it. waits: share of the video for which it stands still before it goes.
    crowd: people stand behind it, who sway. smoke: it leaves some behind. camouflage: it has the colours of the ground.
    haze: share of a grey veil before everything. noise, shake_deg, shutter, dimming: see `SampleCamera`.

    Raises InputError for an unknown mover or camera, or numbers that make no video.
    """

    def __init__(
        self,
        seed: int = 0,
        mover: str = "person",
        camera: str = "follow",
        frames: int = 50,
        width: int = 854,
        height: int = 480,
        occluders: bool = False,
        shadow: bool = True,
        water: bool = False,
        waits: float = 0.0,
        crowd: bool = False,
        smoke: bool = False,
        camouflage: bool = False,
        haze: float = 0.0,
        noise: float = 2.0,
        shake_deg: float = 0.15,
        shutter: float = 0.3,
        dimming: float = 0.0,
    ) -> None:
        if mover not in MOVERS or camera not in CAMERAS:
            raise InputError(
                f"the sample video's mover must be one of {', '.join(MOVERS)}, its camera one of"
                f" {', '.join(CAMERAS)}, got '{mover}' and '{camera}'"
            )
        if frames < 1 or width < 16 or height < 16:
            raise InputError(
                f"the sample video needs frames >= 1 and at least 16x16 pixels, got {frames}, {width}x{height}"
            )
        if not (0 <= waits < 1 and 0 <= haze < 1):
            raise InputError(f"the sample video needs waits and haze in [0, 1), got {waits} and {haze}")
        self.seed, self.frames, self.width, self.height = seed, frames, width, height
        self._waits, self._haze = waits, haze
        self._camera = SampleCamera(seed, frames, noise, shake_deg if camera != "still" else 0.0, shutter, dimming)
        focal = 0.85 * width
        self.K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
        rng = np.random.default_rng([seed, 21])
        self._direction = float(rng.choice([-1.0, 1.0]))
        builder = Builder(rng)
        builder.instance(mover)
        earth = _GROUNDS[np.random.default_rng([seed, 22]).integers(len(_GROUNDS))] if camouflage else None
        self._mover = _BUILD[mover](builder, rng, _cloth if earth is None else lambda _: earth)
        self._parts = range(len(builder.surfaces))
        distance = self._mover.distance * rng.uniform(0.85, 1.25)
        self._ground = _build_place(builder, rng, distance if occluders else None, water, earth)
        self._shadow, self._water = SHADOW * shadow, water
        self._smoke = _Smoke(np.random.default_rng([seed, 24]), self._place) if smoke else None
        self._pose = self._camera.held(_camera_way(camera, self._place, frames, distance, rng))
        # Last, so that nothing else is other with them than without.
        self._onlookers = _crowd(builder, np.random.default_rng([seed, 23])) if crowd else {}
        self.instance_names = dict(enumerate(builder.names, start=1))
        self._caster = RayCaster(builder.surfaces, SUN, seed, {*self._parts, *self._onlookers})

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[SceneView]:
        return (self.render(index) for index in range(self.frames))

    def render(self, index: int) -> SceneView:
        """Frame `index`; its depth and pose are exact and its instance MOVER_ID is what moves. Raises InputError."""
        if not 0 <= index < self.frames:
            raise InputError(f"the sample video has frames 0..{self.frames - 1}, got {index}")
        T = self._pose(float(index))
        depth, instance = self._caster.geometry(self.K, T, self.width, self.height, self._moves(float(index)))
        image = self._camera.picture(self._seen, index)
        frame = Frame(image, round(index * 1e9 / RATE_HZ), "camera", self.K, depth, T)
        return SceneView(frame, instance)

    def write_davis_folder(self, root: str | Path, name: str) -> None:
        """Adds the video to a folder in the layout of DAVIS 2016: JPEGImages/480p/`name`, Annotations/480p/`name`."""
        images, truths = (Path(root) / part / "480p" / name for part in ("JPEGImages", "Annotations"))
        for folder in (images, truths):
            folder.mkdir(parents=True, exist_ok=True)
        for index, view in enumerate(self):
            bgr = np.ascontiguousarray(view.frame.image[..., ::-1])
            cv2.imwrite(str(images / f"{index:05d}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
            cv2.imwrite(str(truths / f"{index:05d}.png"), np.where(view.instance == MOVER_ID, 255, 0).astype(np.uint8))

    def _place(self, time: float) -> npt.NDArray[np.float64]:
        """(3,) where the mover stands at a time in frames; half-way it is in the middle."""
        way = self._mover.speed * (self._gone(time) - (self.frames - 1) / 2) / RATE_HZ
        return np.array([self._direction * way, 0.25 * math.sin(0.8 * way), 0])

    def _gone(self, time: float) -> float:
        """Frames that it has gone for, as if it were always under way: it takes half a second to its speed."""
        if not self._waits:
            return time
        start, ramp = self._waits * self.frames, RATE_HZ / 2
        going = max(time - start, 0.0)
        return (self.frames - 1) / 2 * self._waits + (going**2 / (2 * ramp) if going < ramp else going - ramp / 2)

    def _moves(self, time: float) -> Moves:
        seconds, (bob, pace) = self._gone(time) / RATE_HZ, self._mover.bob
        whole = translation(self._place(time) + [0, 0, bob * abs(math.sin(math.pi * pace * seconds))])
        if self._direction < 0:
            whole = whole @ np.diag([-1.0, -1, 1, 1])
        if self._mover.whole is not None:
            whole = whole @ self._mover.whole(seconds)
        moves = {
            number: whole @ self._mover.turns[number](seconds) if number in self._mover.turns else whole
            for number in self._parts
        }
        return moves | {number: turn(time / RATE_HZ) for number, turn in self._onlookers.items()}

    def _seen(self, time: float) -> npt.NDArray[np.uint8]:
        T, moves = self._pose(time), self._moves(time)
        image = self._caster.image(self.K, T, self.width, self.height, moves)
        if self._shadow or self._water or self._smoke is not None:
            depth, instance = self._caster.geometry(self.K, T, self.width, self.height, moves)
            image = self._on_ground(image, depth, np.isin(instance, self._ground), time)
            if self._smoke is not None:
                image = self._smoke.before(image, depth, self.K, T, time)
        return np.asarray(image * (1 - self._haze) + 150 * self._haze, np.uint8) if self._haze else image

    def _on_ground(
        self, image: npt.NDArray[np.uint8], depth: npt.NDArray, on_ground: npt.NDArray[np.bool_], time: float
    ) -> npt.NDArray[np.uint8]:
        """The picture with waves and the shadow on what is ground (H, W)."""
        T = self._pose(time)
        x, y = np.meshgrid(np.arange(self.width, dtype=np.float32), np.arange(self.height, dtype=np.float32))
        rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ (T[:3, :3] @ np.linalg.inv(self.K)).T
        offset = (rays * depth[..., None] + T[:3, 3] - self._place(time))[..., :2]
        if self._water:
            waves = _waves(offset, offset + self._place(time)[:2], time / RATE_HZ) * self.width / 854
            moved = cv2.remap(image, x, y + waves.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            image = np.where(on_ground[..., None], moved, image)
        # The shadow falls away from the sun, longer than the mover is wide.
        away = -np.array(SUN.center[:2]) / np.hypot(*SUN.center[:2])
        width, length = self._mover.shadow
        along, across = (offset - 0.5 * length * away) @ away, offset @ np.array([-away[1], away[0]])
        distance = np.hypot(along / (0.5 * length + 0.5 * width), across / width)
        dark = self._shadow * np.clip((1.15 - distance) / 0.3, 0, 1) * on_ground
        return np.asarray(image * (1 - dark[..., None]), np.uint8)


class _Smoke:
    """Puffs that what moves leaves behind: they drift along a little, spread and fade."""

    def __init__(self, rng: np.random.Generator, place: Pose) -> None:
        """place: time in frames -> (3,) where they come from."""
        self._place = place
        self._texture = paint.fractal(rng, 256, 256, 48, 4)
        self._wind = rng.uniform((-0.4, 0.0, 0.25), (0.4, 0.3, 0.5))

    def before(
        self,
        image: npt.NDArray[np.uint8],
        depth: npt.NDArray,
        K: npt.NDArray[np.float64],
        T: npt.NDArray[np.float64],
        time: float,
    ) -> npt.NDArray[np.uint8]:
        """The picture (H, W, 3), whose depth (H, W) is known, behind the smoke of that time."""
        clear = np.ones(depth.shape, np.float32)
        latest = math.floor(time / RATE_HZ * PUFFS_PER_S)
        for number in range(latest, latest - round(PUFF_LIFE_S * PUFFS_PER_S), -1):
            born = number / PUFFS_PER_S * RATE_HZ
            age = (time - born) / RATE_HZ
            x, y, z = (self._place(born) + age * self._wind + [0, 0, 0.15] - T[:3, 3]) @ T[:3, :3]
            if z < 0.5:
                continue
            reach = K[0, 0] * (0.12 + 0.5 * age) / z
            u, v = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
            left, top = (max(0, round(a - 2 * reach)) for a in (u, v))
            right, bottom = (max(0, round(a + 2 * reach)) for a in (u, v))
            window = (slice(top, bottom), slice(left, right))
            if not clear[window].size:
                continue
            across, down = (
                (np.arange(part.start, part.start + n) - middle) / reach
                for part, n, middle in zip(window[::-1], clear[window].shape[::-1], (u, v), strict=True)
            )
            rows, columns = ((40 * a + 37 * number).astype(np.int64) % 256 for a in (down, across))
            dense = np.exp(-(down[:, None] ** 2 + across**2)) * self._texture[np.ix_(rows, columns)]
            behind = (depth[window] > z) | (depth[window] == 0)
            clear[window] *= 1 - 0.5 * (1 - age / PUFF_LIFE_S) * np.asarray(dense * behind, np.float32)
        return np.asarray(image * clear[..., None] + 215 * (1 - clear[..., None]), np.uint8)


def _waves(offset: npt.NDArray[np.float64], place: npt.NDArray[np.float64], seconds: float) -> npt.NDArray[np.float64]:
    """(H, W) pixels by which water at `place` (H, W, 2), `offset` away from what makes the waves, moves the picture."""
    wind = np.sin(place @ [5.0, 3.0] - 4 * seconds) + np.sin(place @ [-3.0, 8.0] - 5 * seconds)
    distance = np.linalg.norm(offset, axis=-1)
    wake = np.sin(14 * distance - 12 * seconds) * np.exp(-0.5 * distance**2)
    return 1.2 * wind + 5 * wake


def _camera_way(camera: str, place: Pose, frames: int, distance: float, rng: np.random.Generator) -> Pose:
    """follow: beside the mover, a little behind; pan: from one spot; still: at one spot, to where it passes; meet: from
    ahead, where it comes near."""
    height = rng.uniform(0.25, 0.5) * distance
    lag, lead = rng.uniform(4, 9), rng.uniform(-0.8, 0.8)
    middle = (frames - 1) / 2
    ahead = (place(float(frames)) - place(0.0)) * [1, 0, 0]

    def pose(time: float) -> npt.NDArray[np.float64]:
        seen = place(time - lag) * [1, 0, 0] if camera != "still" else place(middle) * [1, 0, 0]
        at = seen if camera == "follow" else place(middle) * [1, 0, 0]
        if camera == "meet":
            return look_at(place(frames) * [1, 0, 0] + [0, -0.5 * distance, height] + 0.3 * ahead, seen + [0, 0, 0.4])
        return look_at(at + [lead, -distance, height], seen + [0, 0, 0.16 * distance])

    return pose


_GROUNDS = (
    paint.granite((0.2, 0.28, 0.1), (0.46, 0.52, 0.25), 0.06),
    paint.granite((0.36, 0.35, 0.34), (0.56, 0.55, 0.52), 0.05),
    paint.tiles((0.46, 0.42, 0.38), (0.64, 0.6, 0.54), 0.5),
    paint.granite((0.55, 0.46, 0.32), (0.75, 0.66, 0.5), 0.08),
)


def _build_place(
    builder: Builder, rng: np.random.Generator, from_m: float | None, water: bool, earth: paint.Paint | None
) -> tuple[int, ...]:
    """Ground, what stands behind, sky and trees. Returns the instances that a shadow falls on.

    from_m: how far away the camera is that trees hide the mover from, metres; None: none do. earth: what the ground
    looks like, chosen here if None.
    """
    walls = (
        paint.bricks((0.42, 0.22, 0.16), (0.62, 0.38, 0.28)),
        paint.granite((0.08, 0.18, 0.06), (0.3, 0.45, 0.18), 0.18),
        paint.planks((0.36, 0.27, 0.2), (0.6, 0.5, 0.4), (2.0, 0.2)),
        paint.plaster((0.62, 0.58, 0.5), 0.3),
    )
    near, far = rng.permutation(len(_GROUNDS))[:2]
    sea = paint.granite((0.16, 0.24, 0.26), (0.42, 0.5, 0.5), 0.25)
    builder.instance("ground")
    builder.flat(np.eye(3), np.zeros(3), (13.0, 4.5), sea if water else earth or _GROUNDS[near], 75)
    builder.instance("land")
    builder.flat(np.eye(3), np.array([0, 10, -0.03]), (90.0, 22.0), _GROUNDS[far], 16)
    toward = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # a wall that is seen from where the camera is
    builder.instance("wall")
    high = float(rng.uniform(1.2, 3.0))
    builder.flat(toward, np.array([0, rng.uniform(5, 9), high / 2]), (60.0, high / 2), walls[rng.integers(4)], 30)
    builder.instance("sky")
    builder.flat(toward, np.array([0, 30, 12]), (160.0, 14.0), _clouds, 6)
    bark = paint.wood((0.18, 0.13, 0.09), (0.36, 0.28, 0.2))
    for number in range(int(rng.integers(4, 8))):
        x, y = rng.uniform(-11, 11), rng.uniform(2.5, 5.0)
        if from_m is not None and number < 2:
            x, y = (number - 0.5) * rng.uniform(1.0, 2.0), -0.4 * from_m
        builder.instance(f"tree{number}")
        girth, tall = rng.uniform(0.07, 0.2), rng.uniform(2.2, 3.5)
        builder.cone(np.array([x, y, 0]), girth, 0.7 * girth, tall, 0.0, bark, None, 80)
        leaves = paint.granite((0.07, 0.17, 0.05), (0.3, 0.42, 0.16), 0.12)
        builder.ellipsoid(np.array([x, y, tall - 0.2]), (1.0, 1.0, rng.uniform(0.7, 1.4)), 0.0, leaves, density=60)
    return builder.names.index("ground") + 1, builder.names.index("land") + 1


def _clouds(rng: np.random.Generator, width: int, height: int, _density: float) -> paint.Texture:
    return paint.between(paint.fractal(rng, width, height, 0.3 * height, 4, 3.0), (0.5, 0.66, 0.86), (0.95, 0.95, 0.94))


def _cloth(rng: np.random.Generator) -> paint.Paint:
    """A pattern in colours of its own."""
    colors = rng.uniform(0.12, 0.9, (2, 3))
    grey = colors.mean(axis=1, keepdims=True)
    first, second = (tuple(color) for color in (grey + 0.6 * (colors - grey)).tolist())
    patterns = (
        paint.plain(first, 0.15),
        paint.stripes(first, second, int(rng.integers(3, 9))),
        paint.granite(first, tuple(min(1.25 * part, 1.0) for part in first), 0.06),
        paint.dots(first, second, int(rng.integers(4, 10))),
    )
    return patterns[rng.integers(len(patterns))]


def _swing(pivot: tuple[float, float, float], reach: float, pace: float, phase: float) -> Turn:
    """To and fro about the y axis through `pivot`: reach in radians, pace in swings per second."""

    def turn(seconds: float) -> npt.NDArray[np.float64]:
        angle = reach * math.sin(2 * math.pi * (pace * seconds) + phase)
        c, s = math.cos(angle), math.sin(angle)
        R = np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1.0]])
        return translation(pivot) @ R @ translation([-part for part in pivot])

    return turn


def _roll(hub: tuple[float, float, float], rate: float) -> Turn:
    """Round the y axis through `hub`, rate in radians per second."""

    def turn(seconds: float) -> npt.NDArray[np.float64]:
        T = np.eye(4)
        T[:3, :3] = cv2.Rodrigues(np.array([0, rate * seconds, 0]))[0]
        return translation(hub) @ T @ translation([-part for part in hub])

    return turn


class _Limbs:
    """Remembers how the surfaces move that were built since the last call."""

    def __init__(self, builder: Builder) -> None:
        self._builder, self._from = builder, len(builder.surfaces)
        self.turns: dict[int, Turn] = {}

    def move(self, turn: Turn | None) -> None:
        """What was built since moves so; None: with the whole."""
        if turn is not None:
            self.turns |= dict.fromkeys(range(self._from, len(self._builder.surfaces)), turn)
        self._from = len(self._builder.surfaces)


def _person(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> _Mover:
    pace, size = float(rng.uniform(0.8, 1.1)), float(rng.uniform(0.85, 1.1))
    turns = _figure(builder, rng, cloth, size, (0.45, 0.5), (pace, pace))
    return _Mover(float(rng.uniform(1.1, 1.6)), 4.2, (0.3, 1.5), (0.03, 2 * pace), turns)


def _dancer(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> _Mover:
    pace, size = float(rng.uniform(0.6, 1.0)), float(rng.uniform(0.85, 1.1))
    turns = _figure(builder, rng, cloth, size, (0.8, 1.4), (pace, 1.3 * pace))
    lean, turned = _swing((0, 0, 0), 0.35, 0.7 * pace, 0.0), float(rng.uniform(2, 5))

    def whole(seconds: float) -> npt.NDArray[np.float64]:
        T = lean(seconds)
        T[:3, :3] = yaw_matrix(1.3 * math.sin(turned * seconds)) @ T[:3, :3]
        return T

    return _Mover(float(rng.uniform(0.2, 0.5)), 4.2, (0.4, 1.5), (0.2, pace), turns, whole)


def _rider(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> _Mover:
    limbs, speed, enamel, dress, trousers = _Limbs(builder), float(rng.uniform(3, 6)), *(cloth(rng) for _ in range(3))
    tyre, black = paint.dots((0.06, 0.06, 0.06), (0.3, 0.3, 0.3), 5), paint.plain((0.08, 0.08, 0.09))
    for x in (-0.62, 0.62):
        for side in (-1.0, 1.0):
            axes = np.array([[-side, 0, 0], [0, 0, side], [0, 1.0, 0]])
            builder.flat(axes, np.array([x, 0.05 * side, 0.3]), (0.3, 0.3), tyre, DENSITY, is_disk=True)
        limbs.move(_roll((x, 0, 0.3), speed / 0.3))
    builder.box(np.array([0, 0, 0.35]), (0.42, 0.09, 0.16), 0.0, enamel, black, DENSITY)
    builder.box(np.array([-0.25, 0, 0.67]), (0.35, 0.1, 0.05), 0.0, black, None, DENSITY)
    limbs.move(None)
    builder.cone(np.array([0.62, 0, 0.3]), 0.04, 0.04, 0.7, 0.0, black, None, DENSITY)
    limbs.move(_swing((0.62, 0, 0.3), -0.4, 0.0, math.pi / 2))
    for side in (-0.13, 0.13):
        builder.cone(np.array([-0.15, side, 0.75]), 0.09, 0.07, 0.45, 0.0, trousers, None, DENSITY)
        limbs.move(_swing((-0.15, side, 0.75), 1.75, 0.0, math.pi / 2))
        builder.cone(np.array([0.2, side, 0.25]), 0.05, 0.07, 0.5, 0.0, trousers, black, DENSITY)
        limbs.move(None)
    sway, hip = float(rng.uniform(0.6, 1.2)), (-0.2, 0.0, 0.75)

    def rocking(lean: float) -> Turn:
        rock, leant = _swing(hip, 0.1, sway, 0.0), _swing(hip, lean, 0.0, math.pi / 2)
        return lambda seconds: rock(seconds) @ leant(0.0)

    builder.cone(np.array(hip), 0.15, 0.2, 0.52, 0.0, dress, None, DENSITY)
    builder.ellipsoid(np.array([-0.18, 0, 1.28]), (0.14, 0.12, 0.14), 0.0, enamel, density=DENSITY)
    limbs.move(rocking(0.35))
    for side in (-0.2, 0.2):
        builder.cone(np.array([0.0, side, 1.2]), 0.06, 0.045, 0.5, 0.0, dress, black, DENSITY)
        limbs.move(_swing((0.0, side, 1.2), 2.0, 0.0, math.pi / 2))
    return _Mover(speed, 4.0, (0.5, 1.8), (0.03, 3.0), limbs.turns)


def _crowd(builder: Builder, rng: np.random.Generator) -> dict[int, Turn]:
    """People who stand behind and sway a little: number of a surface -> where its part is."""
    turns: dict[int, Turn] = {}
    for number in range(ONLOOKERS):
        builder.instance(f"onlooker{number}")
        first, size = len(builder.surfaces), float(rng.uniform(0.85, 1.1))
        arms = _figure(builder, rng, _cloth, size, (0.0, 0.15), (1.0, float(rng.uniform(0.2, 0.8))))
        stands = translation(((number - ONLOOKERS / 2) * 0.75 + rng.uniform(-0.25, 0.25), rng.uniform(1.3, 2.2), 0))
        stands[:3, :3] = yaw_matrix(float(rng.uniform(-2.2, -0.9)))
        sway = _swing((0, 0, 0), 0.04, float(rng.uniform(0.2, 0.6)), float(rng.uniform(0, 6)))
        turns |= {n: _placed(stands, sway, arms.get(n)) for n in range(first, len(builder.surfaces))}
    return turns


def _placed(stands: npt.NDArray[np.float64], sway: Turn, part: Turn | None) -> Turn:
    return lambda seconds: stands @ sway(seconds) @ (np.eye(4) if part is None else part(seconds))


def _figure(
    builder: Builder,
    rng: np.random.Generator,
    cloth: Cloth,
    size: float,
    reach: tuple[float, float],
    pace: tuple[float, float],
) -> dict[int, Turn]:
    """Somebody upright. reach, pace: of the legs and of the arms, as `_swing` has them. Returns how the limbs move."""
    limbs = _Limbs(builder)
    light, coat, trousers = float(rng.uniform(0.35, 0.8)), cloth(rng), cloth(rng)
    skin, leather = paint.plain((light, 0.76 * light, 0.62 * light), 0.1), paint.plain((0.1, 0.08, 0.07))
    hip, shoulder = 0.82 * size, 1.38 * size
    for side, phase in ((-0.1, 0.0), (0.1, math.pi)):
        builder.cone(np.array([0, side, 0.0]), 0.06, 0.09, hip, 0.0, trousers, None, DENSITY)
        builder.box(np.array([0.05, side, 0.0]), (0.13, 0.045, 0.04), 0.0, leather, None, DENSITY)
        limbs.move(_swing((0, side, hip), reach[0], pace[0], phase))
        builder.cone(np.array([0, 2.5 * side, hip - 0.05]), 0.04, 0.055, shoulder - hip, 0.0, coat, skin, DENSITY)
        limbs.move(_swing((0, 2.5 * side, shoulder), reach[1], pace[1], phase + math.pi))
    builder.cone(np.array([0, 0, hip - 0.06]), 0.16, 0.21, shoulder - hip + 0.1, 0.0, coat, None, DENSITY)
    builder.ellipsoid(np.array([0.02, 0, shoulder + 0.02]), (0.09, 0.08, 0.12), 0.0, skin, density=DENSITY)
    return limbs.turns


def _animal(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> _Mover:
    limbs, pace, leg = _Limbs(builder), float(rng.uniform(1.2, 1.8)), float(rng.uniform(0.35, 0.7))
    coat, head = cloth(rng), cloth(rng)
    long = float(rng.uniform(0.45, 0.6))
    for x, side, phase in ((-long, -0.1, 0.0), (-long, 0.1, math.pi), (long, -0.1, 2.6), (long, 0.1, 2.6 + math.pi)):
        builder.cone(np.array([0.8 * x, side, 0.0]), 0.04, 0.07, leg + 0.1, 0.0, coat, None, DENSITY)
        limbs.move(_swing((0.8 * x, side, leg + 0.1), 0.5, pace, phase))
    builder.ellipsoid(np.array([0, 0, leg]), (long, 0.19, 0.2), 0.0, coat, density=DENSITY)
    limbs.move(None)
    neck = (0.85 * long, 0.0, leg + 0.25)
    builder.cone(np.array(neck), 0.11, 0.08, 0.3, 0.0, coat, None, DENSITY)
    builder.ellipsoid(np.array([neck[0] + 0.09, 0, neck[2] + 0.22]), (0.19, 0.09, 0.1), 0.0, head, density=DENSITY)
    limbs.move(_swing(neck, 0.25, pace / 2, 1.0))
    tail = (-0.95 * long, 0.0, leg + 0.25)
    builder.cone(np.array(tail), 0.035, 0.012, 0.4, 0.0, head, None, DENSITY)
    limbs.move(lambda seconds: _swing(tail, 0.5, 2 * pace, 0.0)(seconds) @ _swing(tail, -0.9, 0.0, math.pi / 2)(0.0))
    return _Mover(float(rng.uniform(1.2, 2.4)), 2.5, (0.35, 1.0), (0.04, 2 * pace), limbs.turns)


def _car(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> _Mover:
    paint_of_it, glass = cloth(rng), paint.plain((0.12, 0.15, 0.18), 0.3)
    tyre = paint.plain((0.06, 0.06, 0.06))
    builder.box(np.array([0, 0, 0.28]), (1.5, 0.7, 0.26), 0.0, paint_of_it, None, 80)
    builder.box(np.array([-0.2, 0, 0.8]), (0.8, 0.62, 0.24), 0.0, glass, paint_of_it, 80)
    for x, side in ((-0.95, -1.0), (0.95, -1.0), (-0.95, 1.0), (0.95, 1.0)):
        axes = np.array([[-side, 0, 0], [0, 0, side], [0, 1.0, 0]])
        builder.flat(axes, np.array([x, 0.71 * side, 0.31]), (0.31, 0.31), tyre, 80, is_disk=True)
    return _Mover(float(rng.uniform(3.0, 6.0)), 5.0, (0.9, 2.6), (0.0, 0.0), {})


def _balloon(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> _Mover:
    limbs = _Limbs(builder)
    pace, radius, high = float(rng.uniform(0.5, 0.9)), float(rng.uniform(0.3, 0.5)), float(rng.uniform(0.2, 0.9))
    builder.ellipsoid(np.array([0, 0, high]), (radius, radius, 1.15 * radius), 0.0, cloth(rng), density=DENSITY)
    middle = translation((0, 0, high + radius))

    def breathe(seconds: float) -> npt.NDArray[np.float64]:
        wave = 0.3 * math.sin(2 * math.pi * pace * seconds)
        shape = np.diag([1 + wave, 1.0, 1 - wave, 1.0])
        shape[0, 2] = 0.4 * math.sin(2 * math.pi * 0.6 * pace * seconds)
        return middle @ shape @ np.linalg.inv(middle)

    limbs.move(breathe)
    return _Mover(float(rng.uniform(0.8, 2.0)), 2.8, (radius, 2 * radius), (0.25, pace), limbs.turns)


_BUILD = {
    "person": _person,
    "animal": _animal,
    "car": _car,
    "balloon": _balloon,
    "dancer": _dancer,
    "rider": _rider,
}
