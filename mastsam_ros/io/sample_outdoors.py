"""The sample video's place: ground, walls, trees and sky, waves on the water, and smoke."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mastsam_ros.io import sample_textures as paint
from mastsam_ros.io.sample_camera import Pose
from mastsam_ros.io.sample_objects import Builder

PUFFS_PER_S, PUFF_LIFE_S = 25, 1.2
GROUNDS = (
    paint.granite((0.2, 0.28, 0.1), (0.46, 0.52, 0.25), 0.06),
    paint.granite((0.36, 0.35, 0.34), (0.56, 0.55, 0.52), 0.05),
    paint.tiles((0.46, 0.42, 0.38), (0.64, 0.6, 0.54), 0.5),
    paint.granite((0.55, 0.46, 0.32), (0.75, 0.66, 0.5), 0.08),
)


def build_place(
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
    near, far = rng.permutation(len(GROUNDS))[:2]
    sea = paint.granite((0.16, 0.24, 0.26), (0.42, 0.5, 0.5), 0.25)
    builder.instance("ground")
    builder.flat(np.eye(3), np.zeros(3), (13.0, 4.5), sea if water else earth or GROUNDS[near], 75)
    builder.instance("land")
    builder.flat(np.eye(3), np.array([0, 10, -0.03]), (90.0, 22.0), GROUNDS[far], 16)
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


def ripples(offset: npt.NDArray[np.float64], place: npt.NDArray[np.float64], seconds: float) -> npt.NDArray[np.float64]:
    """(H, W) pixels by which water at `place` (H, W, 2), `offset` away from what makes the waves, moves the picture."""
    wind = np.sin(place @ [5.0, 3.0] - 4 * seconds) + np.sin(place @ [-3.0, 8.0] - 5 * seconds)
    distance = np.linalg.norm(offset, axis=-1)
    wake = np.sin(14 * distance - 12 * seconds) * np.exp(-0.5 * distance**2)
    return 1.2 * wind + 5 * wake


class Smoke:
    """Puffs that what moves leaves behind: they drift along a little, spread and fade."""

    def __init__(self, rng: np.random.Generator, place: Pose, rate_hz: float) -> None:
        """place: time in frames, of which there are `rate_hz` in a second -> (3,) where they come from."""
        self._place, self._rate_hz = place, rate_hz
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
        latest = math.floor(time / self._rate_hz * PUFFS_PER_S)
        for number in range(latest, latest - round(PUFF_LIFE_S * PUFFS_PER_S), -1):
            born = number / PUFFS_PER_S * self._rate_hz
            age = (time - born) / self._rate_hz
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
