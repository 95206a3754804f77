"""A saved map and the same room, entered from the other end of the table."""

from __future__ import annotations

import dataclasses

import numpy as np

from mastsam_ros.io.sample_scene import SampleScene, SceneView
from mastsam_ros.pipeline import create_mastsam
from mastsam_ros.settings import Settings
from mastsam_ros.types import PoseState


def ids_of_objects(scene: SampleScene, view: SceneView, labels: np.ndarray) -> dict[int, int]:
    """Object in view -> the id that most of it has."""
    return {
        instance: int(np.bincount(labels[view.instance == instance]).argmax())
        for instance in scene.object_ids
        if (view.instance == instance).sum() > 100
    }


def test_ids_go_on_in_a_known_room_that_is_entered_elsewhere(tmp_path) -> None:
    scene = SampleScene(61, "orbit", 26, 320, 240, objects=7)
    first = create_mastsam(Settings())
    before: dict[int, int] = {}
    for view in scene:
        frame = dataclasses.replace(view.frame, T_world_camera=None)
        before |= ids_of_objects(scene, view, first.step(frame).labels)
    first.save_map(tmp_path / "room")
    later = SampleScene(61, "wide_baseline", 9, 320, 240, objects=7)
    assert np.linalg.norm(later.T_world_camera(8)[:3, 3] - scene.T_world_camera(0)[:3, 3]) > 0.5
    second = create_mastsam(Settings())
    assert second.load_map(tmp_path / "room")
    for index in (8, 7, 6, 5, 4):
        view = later.render(index)
        result = second.step(dataclasses.replace(view.frame, T_world_camera=None))
    assert result.pose is PoseState.OWN and result.T_world_camera is not None
    now = ids_of_objects(later, view, result.labels)
    assert len(now) >= 5
    assert sum(before.get(instance) == id for instance, id in now.items()) >= 0.8 * len(now)
