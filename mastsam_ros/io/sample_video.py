"""The sample video: something that moves by itself, outdoors, before a camera that moves too, with its exact mask.

Same arguments, same bytes. Beside the sample scene, where everything rests, it is the other kind of data: one thing
that walks, rolls or changes its shape, its shadow, trees before and behind it, onlookers, smoke, and one mask, as in
DAVIS.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.io.ray_caster import AreaLight, Moves, RayCaster
from mastsam_ros.io.sample_camera import Pose, SampleCamera
from mastsam_ros.io.sample_movers import MOVERS, cloth_of_its_own, onlookers
from mastsam_ros.io.sample_objects import Builder, look_at, translation
from mastsam_ros.io.sample_outdoors import GROUNDS, Smoke, build_place, ripples
from mastsam_ros.io.sample_scene import SceneView
from mastsam_ros.types import Frame, InputError

CAMERAS = ("follow", "pan", "still", "meet")
MOVER_ID = 1
RATE_HZ = 25.0
SUN = AreaLight(center=(12.0, -16.0, 26.0), edge=3.0, strength=950.0, ambient=0.45)
SHADOW = 0.45
"""Share of the light that the mover takes from the ground under it."""


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
        earth = GROUNDS[np.random.default_rng([seed, 22]).integers(len(GROUNDS))] if camouflage else None
        self._mover = MOVERS[mover](builder, rng, cloth_of_its_own if earth is None else lambda _: earth)
        self._parts = range(len(builder.surfaces))
        distance = self._mover.distance * rng.uniform(0.85, 1.25)
        self._ground = build_place(builder, rng, distance if occluders else None, water, earth)
        self._shadow, self._water = SHADOW * shadow, water
        self._smoke = Smoke(np.random.default_rng([seed, 24]), self._place, RATE_HZ) if smoke else None
        self._pose = self._camera.held(_camera_way(camera, self._place, frames, distance, rng))
        # Last, so that nothing else is other with them than without.
        self._onlookers = onlookers(builder, np.random.default_rng([seed, 23])) if crowd else {}
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
            waves = ripples(offset, offset + self._place(time)[:2], time / RATE_HZ) * self.width / 854
            moved = cv2.remap(image, x, y + waves.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            image = np.where(on_ground[..., None], moved, image)
        # The shadow falls away from the sun, longer than the mover is wide.
        away = -np.array(SUN.center[:2]) / np.hypot(*SUN.center[:2])
        width, length = self._mover.shadow
        along, across = (offset - 0.5 * length * away) @ away, offset @ np.array([-away[1], away[0]])
        distance = np.hypot(along / (0.5 * length + 0.5 * width), across / width)
        dark = self._shadow * np.clip((1.15 - distance) / 0.3, 0, 1) * on_ground
        return np.asarray(image * (1 - dark[..., None]), np.uint8)


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
