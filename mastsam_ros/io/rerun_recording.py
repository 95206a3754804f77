"""A recording for the Rerun viewer: image, masks, cloud, map, ids and events over time. Needs the package rerun-sdk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mastsam_ros.geometry.odometry import FORWARD_LEFT_UP
from mastsam_ros.types import EventKind, Frame, FrameResult, LabelledCloud, MissingPackageError, WorldMap
from mastsam_ros.viz import colors

if TYPE_CHECKING:
    import rerun as rr

_JPEG_QUALITY = 85
_MAP_INTERVAL_NS = 1_000_000_000


class RerunRecording:
    """Writes frames and their results to `path` (.rrd), whole up to the last frame whenever the process ends.

    world_map: gives the map after the latest frame, or None where there is none. Raises MissingPackageError without
    rerun-sdk.
    """

    def __init__(self, path: Path, world_map: Callable[[], WorldMap] | None = None) -> None:
        try:
            import rerun as rr
            import rerun.blueprint as rrb
        except ImportError as error:
            raise MissingPackageError(
                "a recording for Rerun needs rerun-sdk: pip install 'mastsam_ros[rerun]'"
            ) from error
        self._rr: Any = rr
        self._world_map = world_map
        self._map_ns: int | None = None
        self._named: set[int] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream: rr.RecordingStream = rr.RecordingStream("mastsam_ros")
        picture = rrb.Spatial2DView(origin="/world/camera/image", name="image and masks")
        over_time = rrb.Vertical(
            picture,
            rrb.TimeSeriesView(origin="/tracks", name="area of every id, pixels"),
            rrb.TimeSeriesView(origin="/check", name="self-check"),
            rrb.TextLogView(origin="/events", name="events"),
            row_shares=[3, 1, 1, 1],
        )
        world = rrb.Spatial3DView(origin="/world", name="cloud and map")
        self._stream.save(path, default_blueprint=rrb.Blueprint(rrb.Horizontal(world, over_time)))
        self._stream.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def write(self, stem: str, frame: Frame, result: FrameResult) -> None:
        """Writes one frame."""
        rr, stream = self._rr, self._stream
        stream.set_time("frame", sequence=result.index)
        stream.set_time("stamp", timestamp=np.datetime64(result.stamp_ns, "ns"))
        self._name([track.id for track in result.tracks])
        T = FORWARD_LEFT_UP if result.T_world_camera is None else result.T_world_camera
        stream.log("world/camera", rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
        if frame.K is not None:
            stream.log(
                "world/camera/image", rr.Pinhole(image_from_camera=frame.K, resolution=[frame.width, frame.height])
            )
        stream.log("world/camera/image", rr.Image(frame.image).compress(jpeg_quality=_JPEG_QUALITY))
        stream.log("world/camera/image/labels", rr.SegmentationImage(result.labels, opacity=0.5))
        if result.points is not None:
            stream.log("world/camera/points", self._points(result.points))
        for track in result.tracks:
            stream.log(f"tracks/{track.id}", rr.Scalars(float(track.area)))
        for name, value in (vars(result.check) if result.check is not None else {}).items():
            if value is not None:
                stream.log(f"check/{name}", rr.Scalars(float(value)))
        for event in result.events:
            onward = f" -> {event.other_id}" if event.kind is EventKind.MERGED else ""
            text = f"{event.kind.value} {event.id}{onward}: {event.reason} ({event.evidence:.2f})"
            stream.log("events", rr.TextLog(text, level="INFO"))
        due = self._map_ns is None or abs(result.stamp_ns - self._map_ns) >= _MAP_INTERVAL_NS
        if self._world_map is not None and result.T_world_camera is not None and due:
            self.write_map(self._world_map())
            self._map_ns = result.stamp_ns

    def write_map(self, world: WorldMap) -> None:
        """Writes the map as it is after the frame written last."""
        self._name([instance.id for instance in world.instances])
        self._stream.log("world/map", self._points(world.cloud))

    def close(self) -> None:
        """Finishes the file, with the map at its end."""
        if self._world_map is not None and self._map_ns is not None:
            self.write_map(self._world_map())
        self._stream.flush()
        self._stream.disconnect()

    def _points(self, cloud: LabelledCloud) -> Any:
        """Points in the colours of their ids, as the overlay has them; the labels' shade is that of the picture."""
        ids = cloud.instance.astype(np.uint16)
        return self._rr.Points3D(cloud.xyz, colors=colors(ids), class_ids=ids)

    def _name(self, ids: list[int]) -> None:
        """Gives ids their colours and names: the whole table anew, since the last one holds."""
        if not set(ids) <= self._named:
            self._named.update(ids)
            table = [(id, f"id {id}", tuple(colors([id])[0].tolist())) for id in sorted(self._named)]
            self._stream.log("world", self._rr.AnnotationContext([(0, "none", (0, 0, 0, 0)), *table]))
