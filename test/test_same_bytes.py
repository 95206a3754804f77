"""Same input, same bytes: where arrays happen to lie in memory changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from mastsam_ros.segmenters.regions.motion import lengths
from mastsam_ros.tracker.materials import slopes

VECTORS = np.random.default_rng(0).uniform(0.001, 0.3, (97, 131, 2)).astype(np.float32)


@pytest.mark.parametrize(("of", "values"), [(lengths, VECTORS), (slopes, np.ascontiguousarray(VECTORS[..., 0]))])
def test_where_the_result_lies_changes_no_bit(
    of: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]], values: npt.NDArray[np.float32]
) -> None:
    # Results that are kept lie at different distances from a multiple of 64 bytes; large ones have pages of their own.
    kept, between, places = [], [], np.random.default_rng(1)
    for _ in range(40):
        between.append(np.empty(int(places.integers(1, 5000)), np.uint8))
        kept.append(of(values))
    assert len({result.ctypes.data % 64 for result in kept}) > 1
    assert len({result.tobytes() for result in kept}) == 1
