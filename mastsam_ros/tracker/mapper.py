"""Localisation and mapping: where one camera is, and what of its views enters the map of instances."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from mastsam_ros.geometry.instance_map import InstanceMap
from mastsam_ros.geometry.odometry import FORWARD_LEFT_UP, Odometry
from mastsam_ros.geometry.rigid_matches import checked_matches
from mastsam_ros.settings import GeometrySettings, TrackerSettings
from mastsam_ros.tracker.constraints import Constraints
from mastsam_ros.tracker.identity import Identities
from mastsam_ros.tracker.moving import MovingTracks, at_rest, off_moving, own_motion
from mastsam_ros.tracker.placed_view import PlacedView
from mastsam_ros.tracker.world import World
from mastsam_ros.types import Frame, MapInstance, Matches, PoseState, WorldMap, triple

_LOG = logging.getLogger(__name__)

_CARVE_INTERVAL = 3
"""Frames from one look for voxels that are seen through to the next."""


class Mapper:
    """The map that one camera sees, and the camera's way through it. Without depth, K or a pose the map stays empty.

    world: where the map is, of its own or shared with other cameras. identities: the camera's tracker.
    """

    def __init__(
        self, settings: GeometrySettings, world: World | None = None, identities: Identities | None = None
    ) -> None:
        self.odometry = Odometry(FORWARD_LEFT_UP)
        self.world = world or World(settings)
        self.member = self.world.join(identities or Identities(TrackerSettings()))
        self.pose = PoseState.UNKNOWN
        """Where the pose of the current view comes from."""
        self._here: tuple[Frame, npt.NDArray[np.float64], int] | None = None
        """The current view, its pose and number; None where the pose is not known."""
        self._placed: PlacedView | None = None
        self._own_world = False
        self.moving = MovingTracks()
        """What moves on its own, and so stays out of the map."""
        self._flowed: tuple[Frame, npt.NDArray[np.float64], Matches] | None = None
        """The view before the current one, its pose, and the matches between the two, until `finish` has seen them."""
        self._motion: tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]] | None = None
        """Of the current view's places, as `own_motion` gives it; None where there is no view before it."""
        self._owners: npt.NDArray[np.uint16] | None = None

    @property
    def map(self) -> InstanceMap:
        """The world's map."""
        return self.world.map

    @property
    def settings(self) -> GeometrySettings:
        """The map's settings."""
        return self.map.settings

    def configure(self, settings: GeometrySettings) -> bool:
        """Goes on with other settings; True where the map had to be emptied for them."""
        emptied = settings.map_voxel_m != self.settings.map_voxel_m or not settings.map
        if emptied:
            self.reset(empty=True)
        self.map.settings = settings
        return emptied

    @property
    def T_world_camera(self) -> npt.NDArray[np.float64] | None:
        """(4, 4) pose of the current view, None if it is not known."""
        return None if self._here is None else self._here[1]

    @property
    def view(self) -> PlacedView | None:
        """The current view as the map sees it; None where the pose is not known."""
        if self._placed is None and self._here is not None:
            self._placed = PlacedView(*self._here, self.map)
        return self._placed

    @property
    def shared(self) -> bool:
        """True if other cameras have the same map."""
        return self.world.shared

    def reset(self, empty: bool = True) -> None:
        """Forgets where the camera is; empties the map, or goes on in it where a known view is recognised."""
        if empty:
            self.world.reset()
            self.odometry.reset()
            self._own_world = False
        else:
            self.world.forget(self.member)
            self.odometry.adopt(self.odometry.keyframes, self.odometry.given)
        self.moving.reset()
        self._here, self._placed, self._owners = None, None, None
        self._flowed, self._motion = None, None
        self.pose = PoseState.UNKNOWN

    def interrupt(self) -> None:
        """The next frame's matches do not come from the last one."""
        self.odometry.interrupt()
        self._here, self._placed, self._flowed = None, None, None

    def locate(self, view: Frame, matches: Matches | None, number: int) -> Matches | None:
        """Finds the pose of frame `number` (working size). Returns the matches, corrected where it knows better."""
        self.world.begin(number)
        before, self._here, self._placed = self._here, None, None
        self._flowed, self._motion = None, None
        given, self.pose = view.T_world_camera is not None, PoseState.UNKNOWN
        if not self.settings.map:
            return matches
        if given and self._own_world:
            _LOG.warning("poses come from outside from now on: the map starts anew in their world")
            self.world.reset()
        T = self.odometry.track(view, off_moving(matches, self._owners, self.moving.ids))
        if T is None:
            self.pose = PoseState.LOST if self.odometry.lost else PoseState.UNKNOWN
            return matches
        self.pose = PoseState.GIVEN if given else PoseState.OWN
        self._own_world = not self.odometry.given
        self._here = view, T, number
        if matches is None or before is None:
            return matches
        previous, T_before, _ = before
        matches = checked_matches(matches, previous, view, np.linalg.inv(T_before) @ T)
        self._flowed = previous, T_before, matches
        return matches

    def look_round(self) -> None:
        """Looks up what the map knows of what the located view shows; whoever asks first does it otherwise."""
        _ = self.view

    def finish(self) -> None:
        """Does what `remember` and the next frame need of the located view; they do it otherwise."""
        self.odometry.finish()
        view = self.view
        if view is None:
            return
        _ = view.order
        if self._flowed is not None:
            self._motion, self._flowed = own_motion(view.points, view.rows, view.columns, *self._flowed), None

    def remember(self, shown: npt.NDArray[np.uint16], known: set[int]) -> None:
        """Enters what the view shows: shown (H, W) uint16 ids, 0 = none; known: every id that exists.

        What moves on its own stays out, and leaves the map where it was in it.
        """
        self.finish()
        view, self._owners = self.view, shown
        if view is None:
            return
        view.presence.clear()
        if view.number % _CARVE_INTERVAL == 0:
            self.map.carve(view.T, view.K, view.depth)
        instance = shown[view.rows, view.columns].astype(np.int32)
        entered = (instance > 0) & view.sure
        if self._motion is not None:
            motion, flowing = self._motion
            out, leaving = self.moving.update(instance, motion, flowing, self.map.instances.keys())
            self.moving.keep_only(known)
            self.map.forget(leaving)
            entered &= at_rest(instance, out, motion, flowing)
        world, member, stamp_ns = self.world, self.member, view.view.stamp_ns
        order = view.order[entered[view.order]]
        seen = self.map.observe(view.points, instance, view.rgb, world.number, view.keys, order)
        member.saw(np.unique(seen.instance), view.number)
        self.map.forget(self.map.instances.keys() - known)
        self.map.bound(view.T[:3, 3])
        member.sightings = {id: at for id, at in member.sightings.items() if id in known}
        in_view = {id: stamp_ns for id, seen_ in self.map.instances.items() if seen_.last_seen == world.number}
        world.seen_ns = {id: at for id, at in (world.seen_ns | in_view).items() if id in self.map.instances}
        world.keep_only(known)
        world.compare(member, stamp_ns, seen)

    def merge(self, id: int, into: int, evidence: float = 1.0) -> None:
        """What the map has of `id` is that of `into` from now on, for the other cameras of this world, too."""
        self.world.merged(self.member, id, into, evidence)
        if self._placed is not None:
            self._placed.presence.clear()

    def world_map(self, said: Constraints) -> WorldMap:
        """The map as it is now, its tracks as the instances that people see."""
        map, seen_ns = self.map.renamed(said.instance), dict[int, int]()
        for track, at in self.world.seen_ns.items():
            seen_ns[said.instance(track)] = max(at, seen_ns.get(said.instance(track), 0))
        cloud, extents = map.cloud(), map.extents()
        voxels = np.bincount(cloud.instance, minlength=1)
        instances = (
            MapInstance(
                id,
                triple(extents[id][0]),
                triple(extents[id][1]),
                int(voxels[id]),
                map.instances[id].views,
                seen_ns.get(id, 0),
                said.names.get(id, ""),
            )
            for id in sorted(extents.keys() & map.instances.keys())
        )
        return WorldMap(cloud, tuple(instances))
