"""Procedural textures of the sample scene: each is (h, w, 3) float32 in [0, 1], the same for the same generator."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Texture = npt.NDArray[np.float32]
Color = tuple[float, float, float]
Paint = Callable[[np.random.Generator, int, int, float], Texture]
"""Paints (generator, width, height in pixels, pixels per metre)."""


def fractal(
    rng: np.random.Generator, width: int, height: int, cell: float, octaves: int = 4, stretch: float = 1.0
) -> Texture:
    """Smooth noise (h, w) in about [0, 1]: cells of `cell` pixels (times `stretch` along x), then finer ones.

    The left and the right edge fit together, so that it can go round a cylinder.
    """
    total, weight, sum_of_weights = np.zeros((height, width), np.float32), 1.0, 0.0
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        grid = rng.random((int(height / step) + 3, int(width / (step * stretch)) + 3), dtype=np.float32)
        grid[:, -1] = grid[:, 0]
        total += np.float32(weight) * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        sum_of_weights += weight
        weight *= 0.55
    return np.clip(0.5 + (total / np.float32(sum_of_weights) - 0.5) * 1.5, 0, 1)


def between(amount: Texture, low: Color, high: Color) -> Texture:
    """Colours from `low` (amount 0) to `high` (amount 1)."""
    return np.array(low, np.float32) + amount[..., None] * (np.array(high, np.float32) - np.array(low, np.float32))


def plain(color: Color, grain: float = 0.05) -> Paint:
    """One colour, hardly uneven."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        tone = 1 + grain * (fractal(rng, width, height, 0.03 * density) - 0.5)
        return np.clip(np.array(color, np.float32) * tone[..., None], 0, 1)

    return paint


def wood(low: Color, high: Color, cell_m: float = 0.02) -> Paint:
    """Grain along x."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        warp = fractal(rng, width, height, 0.25 * density, 2, stretch=3.0)
        fine = fractal(rng, width, height, cell_m * density, 3, stretch=14.0)
        rings = 0.5 + 0.5 * np.sin(40 * warp + 6 * fine)
        return between(np.clip(0.35 * rings + 0.65 * fine, 0, 1), low, high)

    return paint


def planks(
    low: Color, high: Color, board_m: tuple[float, float] = (1.1, 0.16), gap: Color = (0.1, 0.09, 0.08)
) -> Paint:
    """Floor boards along x, each of its own tone, rows shifted against each other."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        length, breadth = board_m[0] * density, board_m[1] * density
        rows = np.arange(height) // breadth
        shift = rng.random(int(rows[-1]) + 1) * length
        column = (np.arange(width)[None] + shift[rows.astype(int)][:, None]) / length
        boards = column.astype(int)
        tones = rng.random((int(rows[-1]) + 1, int(boards.max()) + 1), dtype=np.float32)
        tone = tones[rows.astype(int)[:, None], boards]
        grain = fractal(rng, width, height, 0.03 * density, 3, stretch=10.0)
        texture = between(np.clip(0.55 * tone + 0.6 * (grain - 0.5) + 0.2, 0, 1), low, high)
        seam = np.minimum(column % 1, 1 - column % 1) * length < 0.003 * density
        across = np.arange(height) % breadth
        seam |= (np.minimum(across, breadth - across) < 0.003 * density)[:, None]
        texture[seam] = gap
        return texture

    return paint


def tiles(low: Color, high: Color, edge_m: float = 0.33, joint: Color = (0.55, 0.53, 0.5)) -> Paint:
    """Square tiles with joints; every tile has its own tone."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        edge = edge_m * density
        x, y = np.arange(width) / edge, np.arange(height) / edge
        tones = rng.random((int(y[-1]) + 1, int(x[-1]) + 1), dtype=np.float32)
        tone = tones[y.astype(int)[:, None], x.astype(int)[None]]
        cloud = fractal(rng, width, height, 0.12 * density)
        texture = between(np.clip(0.4 * tone + 0.7 * cloud - 0.05, 0, 1), low, high)
        width_of_joint = 0.006 / edge_m
        texture[(y % 1 < width_of_joint)] = joint
        texture[:, x % 1 < width_of_joint] = joint
        return texture

    return paint


def wallpaper(ground: Color, figure: Color, period_m: float = 0.22) -> Paint:
    """Soft vertical stripes with a small ornament in each second one."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        x = np.arange(width)[None] / (period_m * density)
        y = np.arange(height)[:, None] / (period_m * density)
        stripe = 0.25 * (np.sin(2 * np.pi * x) > 0)
        dx, dy = (x + 0.25) % 1 - 0.5, (y + 0.5 * (np.floor(x + 0.25) % 2)) % 1 - 0.5
        radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
        flower = 0.5 * (radius < 0.16 * (1 + 0.5 * np.cos(5 * angle)))
        fibre = 0.12 * (fractal(rng, width, height, 0.012 * density, 2) - 0.5)
        return between(np.clip(stripe + flower + fibre, 0, 1).astype(np.float32), ground, figure)

    return paint


def plaster(color: Color, depth: float = 0.16) -> Paint:
    """A rough painted wall."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        tone = 0.5 * fractal(rng, width, height, 0.5 * density, 3) + 0.5 * fractal(
            rng, width, height, 0.02 * density, 3
        )
        return np.clip(np.array(color, np.float32) * (1 + depth * (tone - 0.5))[..., None] * 1.02, 0, 1)

    return paint


def bricks(low: Color, high: Color, joint: Color = (0.72, 0.7, 0.66)) -> Paint:
    """A brick wall in running bond."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        rows = np.arange(height) / (0.085 * density)
        row = rows.astype(int)
        column = np.arange(width)[None] / (0.25 * density) + 0.5 * (row % 2)[:, None]
        tones = rng.random((row[-1] + 1, int(column.max()) + 1), dtype=np.float32)
        tone = tones[row[:, None], column.astype(int)]
        rough = fractal(rng, width, height, 0.03 * density, 3)
        texture = between(np.clip(0.6 * tone + 0.6 * rough - 0.1, 0, 1), low, high)
        texture[(rows % 1 < 0.13)[:, None] | (column % 1 < 0.045)] = joint
        return texture

    return paint


def granite(low: Color, high: Color, cell_m: float = 0.012) -> Paint:
    """Speckled stone."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        cloud = fractal(rng, width, height, cell_m * density, 3)
        speckle = fractal(rng, width, height, 0.004 * density, 2)
        return between(np.clip(0.5 + 1.3 * (0.6 * cloud + 0.4 * speckle - 0.5), 0, 1), low, high)

    return paint


def stripes(first: Color, second: Color, count: int, along_x: bool = False) -> Paint:
    """Even stripes: rings about a cylinder, or bars with `along_x`."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        length = width if along_x else height
        wave = (np.arange(length) * 2 * count // length) % 2
        amount = np.broadcast_to(wave[None] if along_x else wave[:, None], (height, width)).astype(np.float32)
        tone = 1 + 0.05 * (fractal(rng, width, height, 0.03 * density) - 0.5)
        return np.clip(between(amount, first, second) * tone[..., None], 0, 1)

    return paint


def dots(ground: Color, figure: Color, count: int) -> Paint:
    """Staggered dots, `count` of them along x."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        x = np.arange(width)[None] * (count / width)
        y = np.arange(height)[:, None] * (count / width)
        x = x + 0.5 * (np.floor(y) % 2)
        amount = (np.hypot(x % 1 - 0.5, y % 1 - 0.5) < 0.28).astype(np.float32)
        tone = 1 + 0.05 * (fractal(rng, width, height, 0.03 * density) - 0.5)
        return np.clip(between(amount, ground, figure) * tone[..., None], 0, 1)

    return paint


def label(ground: Color, band: Color, ink: Color) -> Paint:
    """A package: a coloured band with a badge, and lines of something like print below it."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        canvas = np.full((height, width, 3), ground, np.float32)
        top, bottom = (int(height * share) for share in rng.uniform((0.1, 0.5), (0.2, 0.62)))
        canvas[top:bottom] = band
        center = (int(width * rng.uniform(0.4, 0.6)), (top + bottom) // 2)
        axes = (max(int(0.3 * min(width, 1.4 * height)), 2), max(int(0.36 * (bottom - top)), 2))
        cv2.ellipse(canvas, center, axes, float(rng.uniform(-15, 15)), 0, 360, ink, -1, cv2.LINE_AA)
        inner = (max(axes[0] - 6, 1), max(axes[1] - 5, 1))
        cv2.ellipse(canvas, center, inner, 0, 0, 360, ground, -1, cv2.LINE_AA)
        line = max(height // 22, 2)
        for y in range(bottom + 2 * line, height - 2 * line, 2 * line):
            x = int(0.1 * width)
            while x < 0.88 * width:
                end = int(x + width * rng.uniform(0.04, 0.16))
                cv2.rectangle(canvas, (x, y), (min(end, int(0.9 * width)), y + line // 2), ink, -1)
                x = end + line
        for x in range(center[0] - inner[0] // 2, center[0] + inner[0] // 2, max(inner[0] // 4, 2)):
            top_of_letter = center[1] - int(inner[1] * rng.uniform(0.2, 0.5))
            cv2.rectangle(canvas, (x, top_of_letter), (x + max(inner[0] // 9, 1), center[1] + inner[1] // 3), band, -1)
        tone = 1 + 0.05 * (fractal(rng, width, height, 0.03 * density) - 0.5)
        return np.clip(canvas * tone[..., None], 0, 1)

    return paint


def ribbed(color: Color, ribs: int) -> Paint:
    """Sheet metal with rings."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        ring = 0.5 + 0.5 * np.cos(2 * np.pi * ribs * np.arange(height) / height)
        sheen = 0.5 + 0.5 * np.cos(4 * np.pi * np.arange(width) / width + 1)
        tone = (
            0.75 + 0.2 * ring[:, None] + 0.16 * sheen[None] + 0.1 * (fractal(rng, width, height, 0.02 * density) - 0.5)
        )
        return np.clip(np.array(color, np.float32) * tone[..., None].astype(np.float32), 0, 1)

    return paint


def panels(colors: tuple[Color, ...]) -> Paint:
    """Sectors about the poles, like a beach ball."""

    def paint(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
        sector = np.arange(width) * 2 * len(colors) // width % len(colors)
        canvas = np.broadcast_to(np.array(colors, np.float32)[sector][None], (height, width, 3)).copy()
        canvas[: height // 9] = canvas[-height // 9 :] = colors[0]
        return np.clip(canvas * (1 + 0.04 * (fractal(rng, width, height, 0.03 * density) - 0.5))[..., None], 0, 1)

    return paint


def framed(rng: np.random.Generator, width: int, height: int, density: float) -> Texture:
    """A landscape in a wooden frame."""
    horizon = int(height * rng.uniform(0.4, 0.6))
    sky = between(fractal(rng, width, height, 0.3 * width, 4, stretch=2.0), (0.35, 0.55, 0.8), (0.95, 0.93, 0.88))
    land = between(fractal(rng, width, height, 0.2 * width, 4), (0.15, 0.3, 0.14), (0.7, 0.62, 0.3))
    ridge = horizon + (fractal(rng, width, 1, 0.3 * width, 4)[0] - 0.5) * 0.5 * height
    picture = np.where((np.arange(height)[:, None] < ridge[None])[..., None], sky, land)
    sun = (int(width * rng.uniform(0.2, 0.8)), int(0.25 * height))
    cv2.circle(picture, sun, max(height // 12, 2), (0.98, 0.85, 0.5), -1, cv2.LINE_AA)
    border = max(int(0.035 * density), 2)
    inner = picture[border : height - border, border : width - border].copy()
    picture[:] = wood((0.2, 0.11, 0.05), (0.42, 0.25, 0.12))(rng, width, height, density)
    picture[border : height - border, border : width - border] = inner
    return picture.astype(np.float32)
