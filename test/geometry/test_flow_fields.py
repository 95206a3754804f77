"""Where a flow leads, and flows of another size."""

from __future__ import annotations

import cv2
import numpy as np

from mastsam_ros.geometry.flow_fields import led_to, resized


def test_a_picture_shifted_by_its_flow_is_the_other_one() -> None:
    before = np.random.default_rng(0).random((12, 17)).astype(np.float32)
    now = np.roll(before, (2, 3), (0, 1))
    flow = np.broadcast_to(np.array([-3, -2], np.float32), (12, 17, 2)).copy()
    flow.flags.writeable = False
    x, y = led_to(flow)
    assert (x[0, 0], y[0, 0], x[5, 9], y[5, 9]) == (-3, -2, 6, 3)
    brought = cv2.remap(before, x, y, cv2.INTER_LINEAR)
    np.testing.assert_allclose(brought[2:, 3:], now[2:, 3:], atol=1e-6)


def test_a_field_of_that_size_is_left_alone_and_any_other_is_linear_in_between() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32), (4, 1))
    assert resized(ramp, (4, 8)) is ramp
    larger = resized(np.dstack([ramp, 2 * ramp]), (8, 16))
    assert larger.shape == (8, 16, 2) and larger.dtype == np.float32
    np.testing.assert_allclose(larger[3, 1:-1, 0], np.arange(0.25, 7, 0.5))
    np.testing.assert_allclose(larger[..., 1], 2 * larger[..., 0])
