"""What is told of a frame's instances: one `Track` for each that people know of, in view or not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.lifting import instance_extents
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.outlines import bounding_boxes
from mastsam_ros.types import LabelledCloud, Track, TrackState, triple


def listed(identities: Identities, labels: npt.NDArray[np.uint16], points: LabelledCloud | None) -> tuple[Track, ...]:
    """By rising id. labels: (H, W) uint16 instances. points: the same in space, of which only metres are told."""
    boxes = bounding_boxes(labels)
    extents = instance_extents(points) if points is not None and points.metric else {}
    tracks = []
    for id, lives in identities.instances().items():
        # Of several tracks that are one instance, the one that is in view and was seen most often stands for it.
        life = max(lives, key=lambda life: (life.state is TrackState.TRACKED, life.hits))
        area, box = boxes.get(id, (0, (0, 0, 0, 0)))
        position, size = extents.get(id, (None, None))
        tracks.append(
            Track(
                id=id,
                state=life.state,
                score=round(float(min(1.0, max(0.0, life.score))), 4),
                area=area,
                box_xywh=box,
                age=max(life.age for life in lives),
                position=None if position is None else triple(position),
                size=None if size is None else triple(size),
                label=identities.constraints.names.get(id, ""),
            )
        )
    return tuple(tracks)
