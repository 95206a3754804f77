"""What a real camera adds to a generated picture: a hand that shakes, an open shutter, light that changes, grain."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.types import InputError

Pose = Callable[[float], npt.NDArray[np.float64]]
"""Time in frames -> T_world_camera (4, 4)."""
SHAKE_M_PER_DEG = 0.01
"""A hand that turns by a degree moves by so much."""
EXPOSURES = 5
"""Pictures that one with an open shutter is the mean of."""


class SampleCamera:
    """Faults that depend on seed and frame alone; without any, pictures stay as they are.

    noise: standard deviation of the grain, grey levels. shake_deg: standard deviation of a hand's unrest, degrees.
    shutter: share of the time between two frames for which it is open. dimming: share of the light that is lost and
    comes back in the course of the sequence, the blue first; a third of it at one blow. Raises InputError.
    """

    def __init__(
        self,
        seed: int,
        frames: int,
        noise: float = 0.0,
        shake_deg: float = 0.0,
        shutter: float = 0.0,
        dimming: float = 0.0,
    ) -> None:
        if frames < 1 or min(noise, shake_deg, shutter, dimming) < 0 or shutter > 1 or dimming > 0.9:
            raise InputError(
                "the sample camera needs frames >= 1, noise >= 0, shake_deg >= 0, shutter in [0, 1] and dimming in"
                f" [0, 0.9], got {frames}, {noise}, {shake_deg}, {shutter}, {dimming}"
            )
        self.seed, self.frames = seed, frames
        self.noise, self.shake_deg, self.shutter, self.dimming = noise, shake_deg, shutter, dimming
        rng = np.random.default_rng([seed, 13])
        # Turns about and shifts along x, y, z: four waves each, from a slow sway to a tremor.
        self._waves = rng.uniform(0.03, 0.45, (6, 4)), rng.uniform(0, 2 * np.pi, (6, 4))
        self._blow = frames * rng.uniform(0.3, 0.7)

    def held(self, pose: Pose) -> Pose:
        """The same way of the camera, in a hand."""
        if not self.shake_deg:
            return pose

        def shaken(time: float) -> npt.NDArray[np.float64]:
            frequency, phase = self._waves
            unrest = np.sin(2 * np.pi * frequency * time + phase).sum(axis=1) * np.sqrt(0.5) * self.shake_deg
            T = np.eye(4)
            T[:3, :3] = cv2.Rodrigues(np.radians(unrest[:3]))[0]
            T[:3, 3] = SHAKE_M_PER_DEG * unrest[3:]
            return pose(time) @ T

        return shaken

    def picture(self, render: Callable[[float], npt.NDArray[np.uint8]], index: int) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8: what the camera makes of what `render` shows at any time about frame `index`."""
        if not self.shutter and not self.dimming and not self.noise:
            return render(float(index))
        times = index + self.shutter * np.linspace(-0.5, 0.5, EXPOSURES if self.shutter else 1)
        exposed = np.mean([render(float(time)) for time in times], axis=0, dtype=np.float32) * self._light(index)
        grain = np.random.default_rng([self.seed, 9, index]).standard_normal(exposed.shape, dtype=np.float32)
        return np.asarray(np.clip(exposed + grain * np.float32(self.noise) + 0.5, 0, 255), np.uint8)

    def _light(self, index: int) -> npt.NDArray[np.float32]:
        """What is left of red, green and blue."""
        level = 1 - self.dimming * (0.5 - 0.5 * np.cos(2 * np.pi * index / self.frames))
        level *= 1 - self.dimming / 3 * (index >= self._blow)
        return np.asarray(level ** np.array([0.8, 1.0, 1.25]), np.float32)
