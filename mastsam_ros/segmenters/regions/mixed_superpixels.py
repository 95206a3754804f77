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
_SQUARINGS = 7
"""After so many the second axis of a covariance counts a thousandth of the first if it had 95 % of its variance."""
_LEAST_VARIANCE = _GAP**2 / 8
"""Of all colours together, for two that far apart of which the smaller part is about a seventh."""


def split_mixed(labels: npt.NDArray[np.int32], lab: npt.NDArray[np.float32], moments: Floats) -> int:
    """Splits in place the superpixels that hold two colours, and returns how many there are then.

    labels: (H, W), 0..S-1; the part of what is split that has more of the channel in which both differ most is
    numbered S, S + 1, ... lab: (H, W, 3), see `compressed_lab`. moments: (S, 10) of it, see `RegionGraph.moments`. A
    part need not be connected.
    """
    place, axes, middle = _mixed(moments)
    return int(_split(labels, lab, place, axes, middle, len(moments)))


@compiled("Tuple((int64[::1], float64[:, ::1], float64[::1]))(float64[:, ::1])")
def _mixed(moments: Floats) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Which of the K superpixels that may hold two colours each one is (S,), -1 for none; the axis (K, 3), of the
    colours as they are, along which its colours differ most; and where along it their mean is, (K,)."""
    place = np.full(len(moments), -1)
    axes, middle = np.empty((len(moments), 3)), np.empty(len(moments))
    weights = (_LIGHTNESS, 1.0, 1.0)
    mean, power, product = np.empty(3), np.empty((3, 3)), np.empty((3, 3))
    count = 0
    for s in range(len(moments)):
        area = moments[s, 0]
        if area < 2 * _SMALLEST:
            continue
        variance, n = 0.0, 4
        for a in range(3):
            mean[a] = moments[s, 1 + a] / area
            for b in range(a, 3):
                # The products are xx, xy, xz, yy, yz, zz.
                power[a, b] = (moments[s, n] / area - mean[a] * moments[s, 1 + b] / area) * weights[a] * weights[b]
                power[b, a] = power[a, b]
                n += 1
            variance += power[a, a]
        if variance < _LEAST_VARIANCE:
            continue
        # What is squared again and again is left with its largest axis.
        for _ in range(_SQUARINGS):
            size = power[0, 0] + power[1, 1] + power[2, 2]
            for a in range(3):
                for b in range(3):
                    product[a, b] = 0.0
                    for c in range(3):
                        product[a, b] += power[a, c] / size * (power[c, b] / size)
            power[:] = product
        strongest = 0
        for a in range(1, 3):
            if power[a, a] > power[strongest, strongest]:
                strongest = a
        # Which way an axis points is not defined: its strongest part is positive.
        length = np.sqrt(power[0, strongest] ** 2 + power[1, strongest] ** 2 + power[2, strongest] ** 2)
        middle[count] = 0.0
        for a in range(3):
            axes[count, a] = power[a, strongest] / length * weights[a]
            middle[count] += axes[count, a] * mean[a]
        place[s] = count
        count += 1
    return place, axes[:count].copy(), middle[:count].copy()


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
