"""What moves by itself in the sample video, and who stands behind it: made of parts that swing, roll and breathe."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.io import sample_textures as paint
from mastsam_ros.io.sample_objects import Builder, translation, yaw_matrix

DENSITY = 150.0
"""Texture pixels per metre on what moves."""
ONLOOKERS = 7
Cloth = Callable[[np.random.Generator], paint.Paint]
Turn = Callable[[float], npt.NDArray[np.float64]]
"""Time in seconds -> (4, 4) where a part is, as seen from the whole."""


@dataclass(frozen=True)
class Mover:
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


def cloth_of_its_own(rng: np.random.Generator) -> paint.Paint:
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


def _person(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> Mover:
    pace, size = float(rng.uniform(0.8, 1.1)), float(rng.uniform(0.85, 1.1))
    turns = _figure(builder, rng, cloth, size, (0.45, 0.5), (pace, pace))
    return Mover(float(rng.uniform(1.1, 1.6)), 4.2, (0.3, 1.5), (0.03, 2 * pace), turns)


def _dancer(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> Mover:
    pace, size = float(rng.uniform(0.6, 1.0)), float(rng.uniform(0.85, 1.1))
    turns = _figure(builder, rng, cloth, size, (0.8, 1.4), (pace, 1.3 * pace))
    lean, turned = _swing((0, 0, 0), 0.35, 0.7 * pace, 0.0), float(rng.uniform(2, 5))

    def whole(seconds: float) -> npt.NDArray[np.float64]:
        T = lean(seconds)
        T[:3, :3] = yaw_matrix(1.3 * math.sin(turned * seconds)) @ T[:3, :3]
        return T

    return Mover(float(rng.uniform(0.2, 0.5)), 4.2, (0.4, 1.5), (0.2, pace), turns, whole)


def _rider(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> Mover:
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
    return Mover(speed, 4.0, (0.5, 1.8), (0.03, 3.0), limbs.turns)


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


def _animal(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> Mover:
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
    return Mover(float(rng.uniform(1.2, 2.4)), 2.5, (0.35, 1.0), (0.04, 2 * pace), limbs.turns)


def _car(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> Mover:
    paint_of_it, glass = cloth(rng), paint.plain((0.12, 0.15, 0.18), 0.3)
    tyre = paint.plain((0.06, 0.06, 0.06))
    builder.box(np.array([0, 0, 0.28]), (1.5, 0.7, 0.26), 0.0, paint_of_it, None, 80)
    builder.box(np.array([-0.2, 0, 0.8]), (0.8, 0.62, 0.24), 0.0, glass, paint_of_it, 80)
    for x, side in ((-0.95, -1.0), (0.95, -1.0), (-0.95, 1.0), (0.95, 1.0)):
        axes = np.array([[-side, 0, 0], [0, 0, side], [0, 1.0, 0]])
        builder.flat(axes, np.array([x, 0.71 * side, 0.31]), (0.31, 0.31), tyre, 80, is_disk=True)
    return Mover(float(rng.uniform(3.0, 6.0)), 5.0, (0.9, 2.6), (0.0, 0.0), {})


def _balloon(builder: Builder, rng: np.random.Generator, cloth: Cloth) -> Mover:
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
    return Mover(float(rng.uniform(0.8, 2.0)), 2.8, (radius, 2 * radius), (0.25, pace), limbs.turns)


def onlookers(builder: Builder, rng: np.random.Generator) -> dict[int, Turn]:
    """People who stand behind and sway a little: number of a surface -> where its part is."""
    turns: dict[int, Turn] = {}
    for number in range(ONLOOKERS):
        builder.instance(f"onlooker{number}")
        first, size = len(builder.surfaces), float(rng.uniform(0.85, 1.1))
        arms = _figure(builder, rng, cloth_of_its_own, size, (0.0, 0.15), (1.0, float(rng.uniform(0.2, 0.8))))
        stands = translation(((number - ONLOOKERS / 2) * 0.75 + rng.uniform(-0.25, 0.25), rng.uniform(1.3, 2.2), 0))
        stands[:3, :3] = yaw_matrix(float(rng.uniform(-2.2, -0.9)))
        sway = _swing((0, 0, 0), 0.04, float(rng.uniform(0.2, 0.6)), float(rng.uniform(0, 6)))
        turns |= {n: _placed(stands, sway, arms.get(n)) for n in range(first, len(builder.surfaces))}
    return turns


def _placed(stands: npt.NDArray[np.float64], sway: Turn, part: Turn | None) -> Turn:
    return lambda seconds: stands @ sway(seconds) @ (np.eye(4) if part is None else part(seconds))


MOVERS: dict[str, Callable[[Builder, np.random.Generator, Cloth], Mover]] = {
    "person": _person,
    "animal": _animal,
    "car": _car,
    "balloon": _balloon,
    "dancer": _dancer,
    "rider": _rider,
}
