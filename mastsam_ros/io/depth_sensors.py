"""What real depth cameras make of exact depth: their noise, steps, holes, shadows and flying pixels.

Same arguments, same bytes. For tests and benchmarks of what generated depth images are too clean for.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
DepthSensor = Callable[[Floats, npt.NDArray[np.float64], int], Floats]
"""(depth (H, W) metres with 0 = none, K (3, 3), frame number) -> depth as the sensor gives it, of the same form."""

NOISE_Z2 = 0.0012
"""Standard deviation of depth over its square, 1/m."""
MISSING = 0.03
EDGE = 0.05
"""Change of depth between neighbours, as a share of it, at which a depth camera measures nothing."""

_PROJECTOR_M, _STEPS_PER_PX = 0.075, 8
"""Structured light: distance of projector and camera; disparity comes in steps of an eighth of a pixel."""
_PATTERN_NOISE_PX = 0.06
_PATTERN_RANGE_M = (0.5, 4.5)
_GRAZING = 0.2
"""Cosine between a surface's normal and the line of sight below which the pattern is not seen."""
_BORDER_SHARE = 0.015
"""Of the width: what registering depth to the colour camera leaves empty on one side."""
_STEREO_M, _STEREO_NOISE_PX, _STEREO_PATCH_PX = 0.05, 0.05, 1.5
"""Stereo: distance of the two cameras, noise of the disparity, and over how many pixels it is alike."""
_STEREO_RANGE_M = (0.2, 8.0)
_BLOTCHES = 0.02
"""Share of the picture in which stereo finds no match, in blotches."""


def plain_noise(depth: Floats, K: npt.NDArray[np.float64], index: int) -> Floats:
    """Independent noise of sigma 0.0012 z^2, 3 % of the pixels missing, edges missing."""
    generator = np.random.default_rng(index)
    noisy = depth + generator.normal(size=depth.shape).astype(np.float32) * NOISE_Z2 * depth**2
    noisy[_edges(depth) | (generator.random(depth.shape) < MISSING)] = 0
    return noisy


def structured_light(depth: Floats, K: npt.NDArray[np.float64], index: int) -> Floats:
    """As cameras with a pattern projector: depth in steps that grow with its square, a shadow beside everything near,
    nothing at grazing angles, beyond 0.5 to 4.5 m and at one border, where the colour camera sees farther."""
    generator = np.random.default_rng([index, 1])
    reach = float(K[0, 0]) * _PROJECTOR_M
    known = (depth > _PATTERN_RANGE_M[0]) & (depth < _PATTERN_RANGE_M[1])
    disparity = np.where(known, reach / np.maximum(depth, 0.1), 0).astype(np.float32)
    noise = generator.normal(size=depth.shape).astype(np.float32)
    noise = 3 * _PATTERN_NOISE_PX * cv2.blur(noise, (3, 3))
    stepped = np.rint((disparity + noise) * _STEPS_PER_PX) / _STEPS_PER_PX
    measured = np.where(known, reach / np.maximum(stepped, 0.1), 0).astype(np.float32)
    # The projector stands to the right: what it sees at a column that something nearer covers lies in shadow.
    column = np.arange(depth.shape[1], dtype=np.float32) - disparity
    column[~known] = np.inf
    nearest = np.minimum.accumulate(column[:, ::-1], axis=1)[:, ::-1]
    shadow = np.zeros(depth.shape, bool)
    shadow[:, :-1] = nearest[:, 1:] < column[:, :-1] - 0.5
    measured[shadow | _grazing(depth, K) | _edges(depth)] = 0
    measured[:, : round(_BORDER_SHARE * depth.shape[1])] = 0
    return measured


def stereo(depth: Floats, K: npt.NDArray[np.float64], index: int) -> Floats:
    """As pairs of cameras: noise that neighbours share, edges smeared into flying pixels, blotches without a match,
    nothing at the left border, which one camera alone sees, nor beyond 0.2 to 8 m."""
    generator = np.random.default_rng([index, 2])
    reach = float(K[0, 0]) * _STEREO_M
    known = (depth > _STEREO_RANGE_M[0]) & (depth < _STEREO_RANGE_M[1])
    disparity = np.where(known, reach / np.maximum(depth, 0.1), 0).astype(np.float32)
    smeared = cv2.GaussianBlur(disparity, (0, 0), 1.0)
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), 1.0)
    disparity = np.where(_edges(depth), smeared / np.maximum(weight, 1e-3), disparity)
    noise = cv2.GaussianBlur(generator.normal(size=depth.shape).astype(np.float32), (0, 0), _STEREO_PATCH_PX)
    noise *= _STEREO_NOISE_PX / max(float(noise.std()), 1e-6)
    measured = np.where(known, reach / np.maximum(disparity + noise, 0.1), 0).astype(np.float32)
    blotches = cv2.GaussianBlur(generator.normal(size=depth.shape).astype(np.float32), (0, 0), 4.0)
    measured[blotches > np.quantile(blotches, 1 - _BLOTCHES)] = 0
    measured[:, : round(float(np.median(disparity[known])) if known.any() else 0)] = 0
    return measured


SENSORS: dict[str, DepthSensor] = {"noise": plain_noise, "structured light": structured_light, "stereo": stereo}
"""By what the benchmark's tables call them."""


def _edges(depth: Floats) -> npt.NDArray[np.bool_]:
    kernel = np.ones((3, 3), np.uint8)
    return cv2.dilate(depth, kernel) - cv2.erode(depth, kernel) > EDGE * depth


def _grazing(depth: Floats, K: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Pixels whose surface is seen almost edge-on: inverse depth is linear on planes, its slopes give the normal."""
    w = np.where(depth > 0, 1 / np.maximum(depth, 0.1), 0).astype(np.float32)
    slope = np.array([-0.5, 0, 0.5], np.float32)
    one = np.ones(1, np.float32)
    x = (np.arange(depth.shape[1], dtype=np.float32) - np.float32(K[0, 2])) / np.float32(K[0, 0])
    y = (np.arange(depth.shape[0], dtype=np.float32)[:, None] - np.float32(K[1, 2])) / np.float32(K[1, 1])
    across = cv2.sepFilter2D(w, cv2.CV_32F, slope, one) * np.float32(K[0, 0])
    down = cv2.sepFilter2D(w, cv2.CV_32F, one, slope) * np.float32(K[1, 1])
    length = np.sqrt(across**2 + down**2 + (w - across * x - down * y) ** 2) * np.sqrt(1 + x**2 + y**2)
    return w < _GRAZING * length
