"""Shapes put together from surfaces, and the things that stand on the sample scene's table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.io import sample_textures as paint
from mastsam_ros.io.ray_caster import Cone, Ellipsoid, Flat, Surface

OBJECT_DENSITY = 900.0
"""Texture pixels per metre on objects: about what the nearest view shows."""


def yaw_matrix(angle: float) -> npt.NDArray[np.float64]:
    """(3, 3) turn by an angle in radians about z, which points up."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def translation(shift: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(4, 4) shift by (3,) metres."""
    T = np.eye(4)
    T[:3, 3] = shift
    return T


def look_at(eye: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(4, 4) T_world_camera of an upright camera at `eye` that looks at `target`."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    T[:3, 3] = eye
    return T


class Builder:
    """Collects surfaces; a shape belongs to the instance that was named last.

    repaint: gives every instance's colours another hue and another brightness; None: they stay.
    """

    def __init__(self, rng: np.random.Generator, repaint: np.random.Generator | None = None):
        self.rng = rng
        self.surfaces: list[Surface] = []
        self.names: list[str] = []
        self._repaint = repaint
        self._mixed = np.eye(3)

    def instance(self, name: str) -> None:
        """What is built from here on belongs to this."""
        self.names.append(name)
        if self._repaint is not None:
            hue = self._repaint.uniform(0, 2 * np.pi) * np.full(3, 3**-0.5)  # a turn about the greys
            self._mixed = cv2.Rodrigues(hue)[0] * self._repaint.uniform(0.65, 1.15)

    def _painted(self, painter: paint.Paint, width_m: float, height_m: float, density: float) -> paint.Texture:
        size = [max(round(length * density), 8) for length in (width_m, height_m)]
        texture = painter(self.rng, size[0], size[1], density).astype(np.float32)
        return texture if self._repaint is None else np.clip(texture @ self._mixed.T.astype(np.float32), 0, 1)

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
        R = yaw_matrix(yaw)
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
        R = yaw_matrix(yaw)
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
        density: float = OBJECT_DENSITY,
    ) -> None:
        """An ellipsoid that rests on `base`; lying, its poles point sideways."""
        R = yaw_matrix(yaw)
        if lying:
            R = R @ np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
        lift = radii[0] if lying else radii[2]
        texture = self._painted(painter, 2 * np.pi * max(radii[:2]), np.pi * max(radii), density)
        self.surfaces.append(Ellipsoid(R, base + [0, 0, lift], len(self.names), texture, radii))


@dataclass(frozen=True)
class Design:
    """One kind of object: its name, radius and height for placing, whether something can stand on it, how to build."""

    name: str
    radius: float
    height: float
    flat_top: bool
    build: Callable[[Builder, npt.NDArray[np.float64], float], None]


def _bottle(color: paint.Color) -> Callable[[Builder, npt.NDArray[np.float64], float], None]:
    def build(builder: Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
        glass, up = paint.plain(color, 0.12), np.array([0, 0, 1.0])
        builder.cone(base, 0.036, 0.036, 0.05, yaw, glass)
        builder.cone(
            base + 0.05 * up, 0.037, 0.037, 0.06, yaw, paint.label((0.26, 0.5, 0.26), color, (0.7, 0.72, 0.55))
        )
        builder.cone(base + 0.11 * up, 0.036, 0.014, 0.07, yaw, glass)
        builder.cone(base + 0.18 * up, 0.014, 0.014, 0.05, yaw, glass, paint.plain((0.8, 0.72, 0.3)))

    return build


def _carton(builder: Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
    side = paint.label((0.93, 0.94, 0.95), (0.8, 0.86, 0.93), (0.3, 0.45, 0.7))
    builder.box(base, (0.036, 0.036, 0.085), yaw, side, paint.plain((0.9, 0.91, 0.92)))
    builder.box(base + [0, 0, 0.17], (0.036, 0.01, 0.014), yaw, paint.plain((0.9, 0.91, 0.92)))


def _vase(builder: Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
    glaze = paint.granite((0.16, 0.38, 0.42), (0.32, 0.58, 0.6))
    builder.cone(base, 0.035, 0.06, 0.08, yaw, glaze)
    builder.cone(base + [0, 0, 0.08], 0.06, 0.028, 0.06, yaw, glaze)
    builder.cone(base + [0, 0, 0.14], 0.028, 0.04, 0.03, yaw, glaze, paint.plain((0.08, 0.16, 0.18)))


def _lamp(builder: Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
    builder.cone(base, 0.05, 0.05, 0.012, yaw, paint.plain((0.2, 0.2, 0.22)))
    builder.cone(base + [0, 0, 0.012], 0.008, 0.008, 0.1, yaw, paint.plain((0.7, 0.6, 0.3)))
    builder.cone(
        base + [0, 0, 0.1], 0.07, 0.042, 0.09, yaw, paint.stripes((0.92, 0.84, 0.66), (0.86, 0.74, 0.54), 12, True)
    )


def _tin(
    painter: paint.Paint, radius: float, height: float
) -> Callable[[Builder, npt.NDArray[np.float64], float], None]:
    def build(builder: Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
        builder.cone(base, radius, radius, height, yaw, painter, paint.ribbed((0.75, 0.75, 0.77), 3))

    return build


def _mug(builder: Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
    builder.cone(
        base,
        0.043,
        0.047,
        0.095,
        yaw,
        paint.stripes((0.17, 0.33, 0.6), (0.22, 0.4, 0.68), 5),
        paint.plain((0.3, 0.18, 0.1)),
    )
    out = yaw_matrix(yaw)[:, 0]
    builder.box(base + 0.062 * out + [0, 0, 0.02], (0.016, 0.007, 0.028), yaw, paint.plain((0.17, 0.33, 0.6)))


def _block(
    painter: paint.Paint, half: tuple[float, float, float], top: paint.Paint | None = None
) -> Callable[[Builder, npt.NDArray[np.float64], float], None]:
    def build(builder: Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
        builder.box(base, half, yaw, painter, top)

    return build


def _round(
    painter: paint.Paint, radii: tuple[float, float, float], lying: bool = False
) -> Callable[[Builder, npt.NDArray[np.float64], float], None]:
    def build(builder: Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
        builder.ellipsoid(base, radii, yaw, painter, lying)

    return build


def _pylon(builder: Builder, base: npt.NDArray[np.float64], yaw: float) -> None:
    builder.box(base, (0.055, 0.055, 0.006), yaw, paint.plain((0.85, 0.32, 0.1)))
    builder.cone(base + [0, 0, 0.012], 0.045, 0.008, 0.15, yaw, paint.stripes((0.88, 0.34, 0.1), (0.93, 0.46, 0.2), 3))


DESIGNS = (
    Design(
        "cereal",
        0.085,
        0.22,
        False,
        _block(paint.label((0.8, 0.2, 0.14), (0.95, 0.78, 0.2), (0.35, 0.1, 0.08)), (0.075, 0.027, 0.11)),
    ),
    Design("carton", 0.05, 0.2, False, _carton),
    Design(
        "juice",
        0.035,
        0.12,
        True,
        _tin(paint.label((0.8, 0.13, 0.16), (0.95, 0.93, 0.9), (0.5, 0.05, 0.1)), 0.034, 0.12),
    ),
    Design("tin", 0.052, 0.11, True, _tin(paint.ribbed((0.72, 0.73, 0.75), 9), 0.05, 0.11)),
    Design("bottle", 0.037, 0.23, False, _bottle((0.18, 0.42, 0.2))),
    Design("mug", 0.08, 0.1, False, _mug),
    Design(
        "ball",
        0.065,
        0.13,
        False,
        _round(paint.panels(((0.72, 0.16, 0.14), (0.84, 0.26, 0.2))), (0.065, 0.065, 0.065)),
    ),
    Design(
        "orange",
        0.04,
        0.08,
        False,
        _round(paint.granite((0.83, 0.42, 0.07), (0.98, 0.6, 0.16), 0.006), (0.04, 0.04, 0.038)),
    ),
    Design(
        "lemon",
        0.04,
        0.05,
        False,
        _round(paint.granite((0.84, 0.72, 0.12), (0.98, 0.88, 0.28), 0.006), (0.028, 0.028, 0.04), True),
    ),
    Design(
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
    Design(
        "gift", 0.092, 0.12, True, _block(paint.dots((0.36, 0.18, 0.46), (0.46, 0.28, 0.56), 6), (0.065, 0.065, 0.06))
    ),
    Design(
        "block",
        0.066,
        0.07,
        True,
        _block(paint.wood((0.42, 0.26, 0.13), (0.66, 0.45, 0.26), 0.008), (0.055, 0.036, 0.035)),
    ),
    Design(
        "stone", 0.075, 0.1, True, _block(paint.granite((0.3, 0.3, 0.31), (0.54, 0.53, 0.51)), (0.052, 0.052, 0.05))
    ),
    Design("pylon", 0.078, 0.16, False, _pylon),
    Design("vase", 0.062, 0.17, False, _vase),
    Design("lamp", 0.072, 0.19, False, _lamp),
)
