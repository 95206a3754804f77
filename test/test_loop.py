"""The same frames to and fro, many times: nothing that is kept between frames may grow."""

from __future__ import annotations

import dataclasses

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings


def test_what_is_kept_does_not_grow() -> None:
    views = [view.frame for view in SampleScene(41, "orbit", 10, 200, 150, objects=6)]
    once = [*views, *views[-2:0:-1]]
    mastsam = create_mastsam(Settings())
    kept = []
    for loop in range(7):
        for number, view in enumerate(once):
            stamp_ns = (loop * len(once) + number) * 100_000_000
            result = mastsam.step(dataclasses.replace(view, stamp_ns=stamp_ns, T_world_camera=None))
        kept.append((len(mastsam.map.map), len(mastsam.map.odometry.keyframes), len(result.tracks)))
    voxels, keyframes, tracks = zip(*kept, strict=True)
    assert voxels[-1] < 1.03 * voxels[2] and keyframes[-1] == keyframes[2] and tracks[-1] <= tracks[2] + 2, kept
    assert set(mastsam._lost._last) <= mastsam._identities.known()
    assert mastsam.map.map.instances.keys() <= mastsam._identities.known()
