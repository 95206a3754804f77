"""Superpixels that hold two colours, because only one of two thin things had a seed, are split between them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mastsam_ros.compiled import compiled

Floats = npt.NDArray[np.float64]

_GAP = 12.0
"""Distance of two colours in Lab, lightness weighed, from which on they are two."""
_LIGHTNESS = 0.5
"""Weight of lightness beside colour: light and shade on one thing are one colour sooner than two things are."""
_SMALLEST = 8
"""Pixels that both parts must have."""
_WITHIN = 0.4
"""Share of the variance along the line between both colours that may be within them: where a few pixels are unlike all
others there is more. A ramp has a quarter, and normal noise .36: those are kept out by the gap."""
_LEAST_VARIANCE = _GAP**2 / 8
"""Of all colours together, for two that far apart of which the smaller part is about a seventh."""


def split_mixed(labels: npt.NDArray[np.int32], lab: npt.NDArray[np.float32], moments: Floats) -> int:
    """Splits in place the superpixels that hold two colours, and returns how many there are then.

    labels: (H, W), 0..S-1; the part of what is split that has more of the channel in which both differ most is
    numbered S, S + 1, ... lab: (H, W, 3), see `compressed_lab`. moments: (S, 10) of it, see `RegionGraph.moments`. A
    part need not be connected.
    """
    weights = np.array([_LIGHTNESS, 1.0, 1.0])
    area = moments[:, 0]
    mean = moments[:, 1:4] / area[:, None]
    products = moments[:, [4, 5, 6, 5, 7, 8, 6, 8, 9]].reshape(-1, 3, 3) / area[:, None, None]
    covariance = (products - mean[:, :, None] * mean[:, None, :]) * (weights[:, None] * weights)
    mixed = np.trace(covariance, axis1=1, axis2=2) >= _LEAST_VARIANCE
    mixed = np.flatnonzero(mixed & (area >= 2 * _SMALLEST))
    axes = np.linalg.eigh(covariance[mixed])[1][:, :, -1]
    # Which way an axis points is not defined.
    strongest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(len(axes)), strongest])[:, None]
    place = np.full(len(moments), -1)
    place[mixed] = np.arange(len(mixed))
    axes = np.ascontiguousarray(axes * weights)
    return int(_split(labels, lab, place, axes, (axes * mean[mixed]).sum(axis=1), len(moments)))


@compiled("int64(int32[:, ::1], float32[:, :, ::1], int64[::1], float64[:, ::1], float64[::1], int64)")
def _split(
    labels: npt.NDArray[np.int32],
    lab: npt.NDArray[np.float32],
    place: npt.NDArray[np.int64],
    axes: Floats,
    middle: Floats,
    count: int,
) -> int:
    """`split_mixed` in the superpixels that may be split. place: (count,), which of the K each one is, -1
    for none. axes: (K, 3), of the colours as they are in lab; middle: (K,), where along them they are cut."""
    height, width = labels.shape
    # Pixels below and above the middle, how far from it they are in sum, and the sum of the squares.
    below, above = np.zeros((len(axes), 3)), np.zeros((len(axes), 3))
    for y in range(height):
        for x in range(width):
            k = place[labels[y, x]]
            if k >= 0:
                along = axes[k, 0] * lab[y, x, 0] + axes[k, 1] * lab[y, x, 1] + axes[k, 2] * lab[y, x, 2] - middle[k]
                side = above if along >= 0 else below
                side[k, 0] += 1
                side[k, 1] += along
                side[k, 2] += along * along
    number = np.full(len(axes), -1)
    for k in range(len(axes)):
        low, high = below[k], above[k]
        if min(low[0], high[0]) < _SMALLEST or high[1] / high[0] - low[1] / low[0] < _GAP:
            continue
        total = low[2] + high[2]
        if total - low[1] * low[1] / low[0] - high[1] * high[1] / high[0] <= _WITHIN * total:
            number[k] = count
            count += 1
    for y in range(height):
        for x in range(width):
            k = place[labels[y, x]]
            if k >= 0 and number[k] >= 0:
                along = axes[k, 0] * lab[y, x, 0] + axes[k, 1] * lab[y, x, 1] + axes[k, 2] * lab[y, x, 2] - middle[k]
                if along >= 0:
                    labels[y, x] = number[k]
    return count
