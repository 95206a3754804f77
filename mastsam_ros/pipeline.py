"""One frame in, one label image out: `Mastsam.step` is the method, in the order of the paper."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.allocator import keep_freed_memory
from mastsam_ros.backends import resolved
from mastsam_ros.device import looking_is_free, on_host, one_thread, torch_device, upload, use_threads
from mastsam_ros.geometry.cameras import working_view
from mastsam_ros.geometry.lifting import lift, lift_structure
from mastsam_ros.geometry.pointmaps import PointmapLifter, PointmapPair
from mastsam_ros.geometry.structure import Structure
from mastsam_ros.io.map_file import load_map, save_map
from mastsam_ros.masks import look_up
from mastsam_ros.matchers import Matcher, MatchingAhead, create_matcher
from mastsam_ros.segmenters import LookingAhead, MasksSuffice, RoughOutlines, Segmenter, create_segmenter
from mastsam_ros.settings import Settings
from mastsam_ros.stages import SecondCore, StageTimer
from mastsam_ros.tracker.arrivals import Arrivals
from mastsam_ros.tracker.discovery import uncovered_region
from mastsam_ros.tracker.edits import Editor
from mastsam_ros.tracker.identity import IdCounter, Identities, Snapshot
from mastsam_ros.tracker.listing import listed
from mastsam_ros.tracker.map_revival import MapRevival
from mastsam_ros.tracker.mapper import Mapper
from mastsam_ros.tracker.outlines import enlarge, without_crumbs
from mastsam_ros.tracker.overlap import OverlapFilter
from mastsam_ros.tracker.ownership import Ownership
from mastsam_ros.tracker.pointing import Pointed, RecentViews, asked, pointed
from mastsam_ros.tracker.propagation import Carried, carry
from mastsam_ros.tracker.reidentification import Reidentification
from mastsam_ros.tracker.representatives import prompts_from
from mastsam_ros.tracker.revival import LostTracks
from mastsam_ros.tracker.seen_places import SeenPlaces
from mastsam_ros.tracker.seen_views import SeenViews, bring_back
from mastsam_ros.tracker.selection import Chosen, Figures, choose, keep_carried, outlined
from mastsam_ros.tracker.self_check import SelfChecker, sampled_places
from mastsam_ros.tracker.settling import settled
from mastsam_ros.tracker.sharpening import sharpened
from mastsam_ros.tracker.world import World
from mastsam_ros.types import (
    EventKind,
    Frame,
    FrameResult,
    InputError,
    LabelledCloud,
    Matches,
    PointPrompts,
    PoseState,
    SelfCheck,
    Track,
    TrackEvent,
    Unprompted,
    WorldMap,
)
from mastsam_ros.upcoming import Prepared, Upcoming

_LOG = logging.getLogger(__name__)
_FLAT_IMAGE = 2.0
"""Standard deviation in grey levels below which a picture shows nothing (lens cap, black or constant frame)."""
_PATIENCE = 5
"""Frames in a row that may fail before the tracks start anew: what to match with is then too long ago."""


@dataclass(frozen=True, eq=False)
class Moment:
    """What a frame is matched with: a view at working size, and its tracks, index (H, W) int64, n + 1 = active[n]."""

    view: Frame
    index: torch.Tensor
    active: tuple[int, ...]


class Mastsam:
    """Instance masks whose ids stay the same from view to view (paper, section IV).

    matcher, segmenter: anything with the methods of `Matcher` and `Segmenter`. One object serves one camera.
    ids: where new ids come from; objects that share it never give the same one. world: of cameras whose frames bring
    their poses in one frame; those that share it (and the ids) keep one map, in which a thing has one id for all of
    them. They step one after the other.
    """

    def __init__(
        self,
        matcher: Matcher,
        segmenter: Segmenter,
        settings: Settings | None = None,
        ids: IdCounter | None = None,
        world: World | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.device = torch_device(self.settings.device)
        self.matcher = matcher
        self.segmenter = segmenter
        tracker = self.settings.tracker
        world = world or World(self.settings.geometry)
        self._identities = Identities(tracker, ids, world.constraints)
        self._overlap = OverlapFilter(tracker)
        self._lost = LostTracks(tracker)
        self._seen = SeenViews(tracker)
        self._places = SeenPlaces()
        self.map = Mapper(self.settings.geometry, world, self._identities)
        self._revival = MapRevival(self.map)
        self.structure = Structure(self.settings.geometry)
        self._pointmaps = PointmapLifter()
        self._ownership = Ownership(self._identities, self._overlap, self._revival)
        self._arrivals = Arrivals(tracker, self._identities, self._lost, self._revival)
        self._reidentification = Reidentification(
            tracker, self._identities, self._arrivals, self._lost, self._places, self.map, self._revival
        )
        self._editor = Editor(self._identities, self._revival, tracker)
        self._recent = RecentViews()
        self._frames = 0
        self._previous: Frame | None = None
        self._pending: list[TrackEvent] = []
        self._blank = False
        self._checker = SelfChecker()
        self.clock: Callable[[], float] = time.perf_counter
        """What the stages are timed with, seconds."""
        self._timer = StageTimer(self.clock)
        self._second_core = SecondCore()
        self._upcoming = Upcoming(self._second_core)
        self._faults = 0
        self._before = self._snapshot()
        self._committed = False
        self._in_order = True
        self.lasting_map = False
        """The map is one that later runs are to have: only who says so empties it."""

    def step(self, frame: Frame, upcoming: Frame | None = None) -> FrameResult:
        """Segments one frame, with the ids of the frames before.

        upcoming: the frame of the next step, where it is known already: a second core does what it can for it beside
        the end of this one. The results are the same.
        Returns labels (H, W) uint16 at the frame's size. A frame of another size than the last one starts anew.
        A frame that shows nothing (black or constant) gets no labels and changes nothing. Raises MastsamError
        where a matcher or segmenter cannot go on, IdsExhaustedError after 65535 ids.

        A fault, memory that runs out among them, costs this frame alone: the tracks are what they were before it. Only
        after several in a row, or if it came while the map was being changed, do they start anew: the map, too, then.
        """
        self._before = self._snapshot()
        self._committed = False
        try:
            result = self._advance(frame, upcoming)
        except Exception:
            # Nothing goes on behind the back of the next frame.
            self._second_core.finish()
            self._faults += 1
            # A first frame may have begun a world in which nothing is yet.
            began = self._previous is None and not self.map.map.instances
            if self._committed or began or self._faults > _PATIENCE:
                failed = "a frame failed" if self._faults == 1 else f"{self._faults} frames in a row failed"
                self.reset(failed, empty_map=self._committed or None)
            else:
                lives, streaks, self._editor.index = self._before
                self._identities.restore(lives)
                self._overlap.restore(streaks)
                self.map.interrupt()
                self.structure.interrupt()
            raise
        self._faults = 0
        return result

    def _advance(self, frame: Frame, upcoming: Frame | None) -> FrameResult:
        """The method in the order of the paper: match (2), carry (3), prompts (4), choose (5), tell apart (6), discover
        (7; in the first frame, which has nothing to carry, that is 1), and lift (8)."""
        timer = self._timer = StageTimer(self.clock)
        with timer("prepare"):
            prepared = self._upcoming.take(frame)
            view = self._view(frame) if prepared is None else prepared.view
        if self._shows_nothing(view):
            return self._empty_result(frame)
        if self._previous is not None and self._previous.image.shape != view.image.shape:
            self.reset(f"image size changed to {frame.width}x{frame.height}")
            self._before = self._snapshot()
        self._identities.begin_frame()
        self._editor.index = self._reidentification.follow_other_cameras(self._editor.index)
        ahead = self._look_ahead(view) if prepared is None or view.depth is not None else None
        matches = self._matched(view, prepared)
        follows = matches if self._in_order else None
        with ExitStack() as finishing, ExitStack() as looking_round:
            with self._meanwhile("segment", lambda: self._set_frame(view, follows, ahead)):
                with self._timer("pose"):
                    self.structure.locate(view, matches)
                looking_round.enter_context(self._meanwhile("pose", self._look_round))
                finishing.enter_context(self._meanwhile("pose", self.map.finish))
                self._prepare(upcoming, view)
                active, carried = self._carried(view, matches)
                prompts = self._prompts(carried)
            chosen, unprompted = self._chosen(prompts, carried)
            looking_round.close()
            index, uncovered, figures = self._told_apart(view, active, carried, chosen, unprompted)
            self._discover(view, active, index, uncovered, carried, matches, figures)
            index = self._settled(view, active, index, carried, figures)
        self._committed = True
        index, image, active, places, pair = self._identified(view, index, active, matches)
        self._editor.index, self._previous = index, view
        self._recent.add(view, frame.width, frame.height)
        owners, shown = self._shown(image, active)
        known = self._identities.known_anywhere()
        with self._meanwhile("map", lambda: self._remember(view, image, active, owners, known)):
            with timer("outline"):
                labels = self._at_full_size(shown, frame)
            with timer("lift"):
                points = self._lifted(frame, view, labels, pair)
            events = (*self._take_pending(), *self._identities.told())
            tracks = listed(self._identities, labels, points)
            check = self._checked(shown, places, events)
            if upcoming is not None:
                with timer("upcoming"):
                    self._upcoming.wait()
        self._frames += 1
        return self._result(frame, labels, tracks, events, points, check)

    def _matched(self, view: Frame, prepared: Prepared | None) -> Matches | None:
        """Step 2, and where the camera is in the map: the matches, corrected where that is known."""
        previous = self._previous
        with self._timer("match"):
            matches = prepared.matches if prepared is not None and prepared.previous is previous else None
            if matches is None and previous is not None:
                matches = self.matcher.match(previous, view)
        with self._timer("pose"):
            return self.map.locate(view, matches, self._frames)

    def _carried(self, view: Frame, matches: Matches | None) -> tuple[list[int], Carried | None]:
        """Step 3: the active ids, those among them that an earlier view brings back, and where they are now."""
        active = list(self._identities.active)
        if not active:
            return active, None
        with self._timer("carry"), one_thread(self.device):
            carried = carry(self._editor.index, len(active), matches, self.settings.tracker)
        with self._timer("recall"), one_thread(self.device):
            active, carried = self._recalled(view, active, carried)
            return active, self._places.carried_too(self.structure.placed, active, carried)

    def _prompts(self, carried: Carried | None) -> PointPrompts | None:
        """Step 4."""
        if carried is None:
            return None
        with self._timer("prompt"), one_thread(self.device):
            confidence = upload(self._identities.confidence(), self.device)
            wanted = not isinstance(self.segmenter, MasksSuffice)
            return prompts_from(carried, confidence, self.settings.tracker, wanted)

    def _chosen(self, prompts: PointPrompts | None, carried: Carried | None) -> tuple[Chosen | None, Unprompted | None]:
        """Step 5: of what the segmenter answers, one mask per track; and what it would see unasked."""
        tracker = self.settings.tracker
        if carried is None or prompts is None:
            return None, None
        with self._timer("predict"):
            answer = self.segmenter.predict(prompts).to(self.device) if tracker.reprompt else None
        with self._timer("choose"), one_thread(self.device):
            chosen = choose(answer, carried, tracker) if answer is not None else keep_carried(carried)
            may_stand_in = upload(self._identities.may_stand_in(), self.device)
            return chosen.standing_in(may_stand_in, carried), None if answer is None else answer.unprompted

    def _told_apart(
        self,
        view: Frame,
        active: list[int],
        carried: Carried | None,
        chosen: Chosen | None,
        unprompted: Unprompted | None,
    ) -> tuple[torch.Tensor, int, Figures | None]:
        """Step 6; nothing is anybody's in a frame to which nothing was carried."""
        if carried is None or chosen is None:
            nobody = torch.zeros(view.height, view.width, dtype=torch.int64, device=self.device)
            return nobody, view.height * view.width, None
        with self._timer("overlap"), one_thread(self.device):
            return self._ownership.decide(active, carried, chosen, unprompted)

    def _discover(
        self,
        view: Frame,
        active: list[int],
        index: torch.Tensor,
        uncovered: int,
        carried: Carried | None,
        matches: Matches | None,
        figures: Figures | None,
    ) -> None:
        """Step 7: where it is time, what nothing covers is segmented anew. Writes into active and index."""
        first = self._previous is None
        with self._timer("discover"):
            with one_thread(self.device):
                tracker = self.settings.tracker
                region = None if first else uncovered_region(index, uncovered, self._frames, tracker)
            if first or region is not None:
                answer = self.segmenter.everything(region).to(self.device)
                with one_thread(self.device):
                    self._arrivals.take_in(answer, view, active, index, region, carried, matches, figures)

    def _settled(
        self,
        view: Frame,
        active: list[int],
        index: torch.Tensor,
        carried: Carried | None,
        figures: Figures | None,
    ) -> torch.Tensor:
        """The index whose outlines hold still where nothing holds them elsewhere."""
        if carried is None or figures is None or not self.settings.tracker.settle_outlines:
            return index
        with self._timer("settle"), one_thread(self.device):
            sure = upload(outlined(active, figures, self._identities, self.settings.tracker), self.device)
            return settled(index, carried.index, sure, view.image_on(self.device))

    def _identified(
        self, view: Frame, index: torch.Tensor, active: list[int], matches: Matches | None
    ) -> tuple[torch.Tensor, npt.NDArray[np.int64], list[int], npt.NDArray[np.float32] | None, PointmapPair | None]:
        """Who is who in the end: the index, the same on the host, the active ids; and what else was fetched."""
        with self._timer("identify"), one_thread(self.device):
            self._revival.followed()
            index = self._revival.divide(index, active, self._identities)
            image, places, pair = self._fetched(view, index, matches)
            return *self._reidentification.decide(view, index, image, active, matches), places, pair

    def _shown(
        self, image: npt.NDArray[np.int64], active: list[int]
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """Tracks and instances (H, W) at working size."""
        with self._timer("outline"), one_thread(self.device):
            owners = self._owners(image, active)
            return owners, self._identities.constraints.as_instances(owners)

    def _at_full_size(self, shown: npt.NDArray[np.uint16], frame: Frame) -> npt.NDArray[np.uint16]:
        """Labels (H, W) at the frame's size."""
        rough = isinstance(self.segmenter, RoughOutlines) and self.settings.tracker.sharpen_outlines
        return (sharpened if rough else enlarge)(shown, frame.image)

    def _remember(
        self,
        view: Frame,
        image: npt.NDArray[np.int64],
        active: list[int],
        owners: npt.NDArray[np.uint16],
        known: set[int],
    ) -> None:
        """What later frames are compared with: the view with its labels, where it is in space, and the map."""
        if self.structure.placed_depth is not None:
            tracked = np.take(np.array([0, *active], np.uint16), image)
            self._places.remember(self.structure.placed, self.structure.placed_depth, tracked)
        if self.settings.tracker.recall:
            self._seen.remember(view, owners, self._frames)
        self.map.remember(owners, known)

    def _lifted(
        self, frame: Frame, view: Frame, labels: npt.NDArray[np.uint16], pair: PointmapPair | None
    ) -> LabelledCloud | None:
        """Step 8: points from depth at full size where there is any, else from the matcher's pointmap."""
        if not self.settings.geometry.points:
            return None
        if view.depth is not None:
            return lift(frame, labels, self.settings.geometry)
        if self.structure.depth is not None:
            metric = self.structure.metric
            return lift_structure(view, labels, self.structure.depth, metric, self.settings.geometry)
        if pair is None:
            return None
        return self._pointmaps.lift(self._frames, view, labels, pair, self.settings.geometry)

    def _checked(
        self, shown: npt.NDArray[np.uint16], places: npt.NDArray[np.float32] | None, events: tuple[TrackEvent, ...]
    ) -> SelfCheck:
        with self._timer("check"):
            merged = {event.id: event.other_id for event in events if event.kind is EventKind.MERGED}
            return self._checker.check(shown, places, merged)

    def configure(self, settings: Settings) -> None:
        """Tracks on with other settings from the next frame on. The device, matcher and segmenter stay as they are."""
        self.settings = settings
        self._upcoming.forget()
        self._identities.settings = self._overlap.settings = settings.tracker
        self._lost.settings = self._seen.settings = settings.tracker
        self._arrivals.settings = self._reidentification.settings = self._editor.settings = settings.tracker
        self.structure.settings = settings.geometry
        if self.map.configure(settings.geometry):
            self._revival.reset()

    def reset(self, reason: str = "asked for", empty_map: bool | None = None) -> None:
        """Ends every track and forgets the previous frame; ids go on counting. Told with the next result.

        empty_map: whether the map is emptied and edits are dropped, too. If not, what is seen of it comes back under
        its id, and with it what people said of it. None: if it is not `lasting_map`, and no other camera shares it.
        """
        if empty_map is None:
            empty_map = not (self.map.shared or (self.lasting_map and self.map.map.instances))
        self.map.reset(empty_map)
        self._revival.reset()
        self._pending = [*self._take_pending(), self._identities.reset(reason, self.map.map.instances)]
        self._overlap.reset()
        self._lost.reset()
        self._seen.reset()
        self._places.reset()
        self.structure.reset()
        self._pointmaps.reset()
        self._checker.reset()
        self._recent.reset()
        self._previous = None

    def expect_poses(self) -> None:
        """Says that frames bring their pose: until the first does, the map waits, and makes no world of its own."""
        self.map.odometry.expects_given = self.map.odometry.given = True

    def add_instance(
        self,
        xy: npt.ArrayLike = (),
        on_instance: Sequence[bool] | None = None,
        box_xywh: Sequence[float] | None = None,
        stamp_ns: int | None = None,
        label: str = "",
    ) -> int:
        """Makes an instance of what points (K, 2) and a box (x, y, width, height), in pixels of the labels, show.

        on_instance: of each point, whether it lies on the instance (all do if None) or beside it. stamp_ns: of the
        picture that was looked at, None for the latest. Returns its id; the one that it has if it is an instance
        already. Edits hold until `reset`, and are told with the next result. Raises EditError, and changes nothing,
        where it cannot be done: this and the four below.
        """
        what = self._in_latest(pointed(xy, on_instance, box_xywh), stamp_ns)
        return self._editor.add(what, self._segmented, label)

    def split_instance(self, id: int, xy: npt.ArrayLike, stamp_ns: int | None = None, label: str = "") -> int:
        """Makes the part of an instance on which the points (K, 2) lie an instance of its own, for good: its id."""
        return self._editor.split(int(id), self._in_latest(pointed(xy), stamp_ns), self._segmented, label)

    def merge_instances(self, ids: Sequence[int]) -> int:
        """Makes several instances one, for good: the first, whose id it returns."""
        return self._editor.merge([int(id) for id in ids])

    def remove_instance(self, id: int) -> None:
        """Ends an instance: what it covers stays unlabelled for as long as it can be followed."""
        self._editor.remove(int(id))

    def rename_instance(self, id: int, label: str) -> None:
        """Gives an instance a name; an empty one takes it away."""
        self._editor.rename(int(id), label)

    def corrected(self, frame: Frame, result: FrameResult) -> FrameResult:
        """The last step's result with the edits made since; otherwise they show from the next frame on.

        frame, result: what `step` was given and gave last. A picture of nothing has nothing to correct, nor has one
        before `reset`. Points of a matcher's pointmap keep the ids that they had.
        """
        if self._blank or self._previous is None:
            return result
        owners = self._owners(on_host(self._editor.index)[0], self._identities.active)
        labels = self._at_full_size(self._identities.constraints.as_instances(owners), frame)
        points = self._lifted(frame, self._view(frame), labels, None)
        points = result.points if points is None else points
        events = (*result.events, *self._take_pending())
        return replace(
            result, labels=labels, tracks=listed(self._identities, labels, points), events=events, points=points
        )

    def world_map(self) -> WorldMap:
        """The map of instances as it is now; without depth, K or a pose nothing ever enters it."""
        return self.map.world_map(self._identities.constraints)

    def save_map(self, path: Path) -> None:
        """Writes the map of instances to `path`.ply, .json and .npz. Raises OutputError if that is not possible."""
        identities = self._identities
        save_map(path, self.map.map, self.map.odometry.keyframes, identities.next_id, identities.constraints)

    def load_map(self, path: Path) -> bool:
        """Goes on with the map of an earlier run before the first frame; False if there is none at `path`.

        Its ids come back where they lie, once a known view is recognised. Raises InputError for a damaged map.
        """
        saved = load_map(path)
        if saved is None:
            return False
        if saved.voxel_m != self.settings.geometry.map_voxel_m:
            raise InputError(
                f"the map {path} has voxels of {saved.voxel_m} m, the settings"
                f" {self.settings.geometry.map_voxel_m} m: set geometry.map_voxel_m={saved.voxel_m}"
            )
        self.map.odometry.adopt(saved.keyframes)
        # Made with poses from outside, the map lies in their world: nothing but such a pose leads back there.
        self.map.odometry.given |= len(saved.voxels) > 0 and not saved.keyframes
        self.map.map.adopt(saved.voxels, saved.instances)
        self._identities.adopt(saved.instances, saved.next_id)
        saved.edits.keep_only(saved.instances)
        self._identities.constraints.become(saved.edits)
        return True

    def moment(self) -> Moment | None:
        """The last view as it is now, edits included; None before the first."""
        if self._previous is None:
            return None
        return Moment(self._previous, self._editor.index, tuple(self._identities.active))

    def go_on_from(self, moment: Moment | None, became: Mapping[int, int] | None = None) -> None:
        """Has the next frame matched with an earlier view, or with none, not with the last: for views without order.

        became: the ids that ids which ended since then go on as. What the segmenter knows of motion is forgotten.
        """
        self._in_order = False
        self._checker.reset()
        self.map.interrupt()
        self.structure.interrupt()
        if moment is None:
            self._previous, active, table = None, list[int](), [0]
        else:
            goes_on = [_last(id, became or {}) for id in moment.active]
            active = [id for id in dict.fromkeys(goes_on) if self._identities.exists(id)]
            table = [0, *(active.index(id) + 1 if id in active else 0 for id in goes_on)]
            self._previous = moment.view
            self._editor.index = look_up(upload(table, self.device), moment.index)
        self._identities.look_at(active)

    def _view(self, frame: Frame) -> Frame:
        if frame.depth is not None and not self.settings.frame.use_depth:
            frame = Frame(frame.image, frame.stamp_ns, frame.frame_id, frame.K, None, frame.T_world_camera)
        return working_view(frame, self.settings.working_pixels)

    def _shows_nothing(self, view: Frame) -> bool:
        """True for a black or constant picture; the first of several is told."""
        before, self._blank = self._blank, bool(view.image[::4, ::4].std() < _FLAT_IMAGE)
        if self._blank and not before:
            _LOG.warning("frame %d shows nothing (black or constant): no labels until it ends", self._frames)
        return self._blank

    def _look_ahead(self, view: Frame) -> Future[None] | None:
        """Starts the segmenter on what it needs no matches for, where it uses a second core; `_set_frame` ends it."""
        if not isinstance(self.segmenter, LookingAhead):
            return None
        follows = self._previous is not None and self._in_order
        segmenter = self.segmenter
        return self._second_core.start(lambda: segmenter.look_ahead(view, follows))

    def _prepare(self, frame: Frame | None, view: Frame) -> None:
        """Starts what the next step would begin with, if its frame is known. view: the current one, which it follows.

        With depth that is only its picture at working size: the second core has enough to do then, and what the
        segmenter knows of depth it takes from each frame once.
        """
        segmenter, matcher = self.segmenter, self.matcher
        if frame is None or not isinstance(segmenter, LookingAhead):
            return

        def prepared() -> Prepared:
            following = self._view(frame)
            if following.depth is not None:
                return Prepared(following, view, None)
            same_size = following.image.shape == view.image.shape
            matches = matcher.match(view, following) if same_size and isinstance(matcher, MatchingAhead) else None
            segmenter.look_ahead(following, self._in_order)
            return Prepared(following, view, matches)

        self._upcoming.prepare(frame, prepared)

    def _set_frame(self, view: Frame, matches: Matches | None, ahead: Future[None] | None) -> None:
        if ahead is not None:
            ahead.result()  # which stood before this in the queue
        self.segmenter.set_frame(view, matches)

    def _look_round(self) -> None:
        """What is known of where the current view is, beyond its pose."""
        self.map.look_round()
        self.structure.measure()

    def _meanwhile(self, stage: str, work: Callable[[], None]) -> AbstractContextManager[None]:
        """Does the work of a stage while the body runs; before the body if the segmenter uses no second core."""
        if isinstance(self.segmenter, LookingAhead):
            return self._second_core.meanwhile(self._timer, stage, work)
        with self._timer(stage):
            work()
        return nullcontext()

    def _recalled(self, view: Frame, active: list[int], carried: Carried) -> tuple[list[int], Carried]:
        """Lost tracks come back where an earlier view shows them; where the map knows the place, the map decides."""
        tracker, identities = self.settings.tracker, self._identities
        if not tracker.recall or self._revival.speaks:
            return active, carried
        wanted = [id for id in identities.lost() if identities[id].hits >= tracker.mature_after]
        recalled = self._seen.recall(view, set(wanted), self._frames)
        if recalled is None:
            return active, carried
        before = set(active)
        active, carried = bring_back(recalled, wanted, active, carried, identities, tracker.carry_cell)
        if not before.issuperset(active):
            self._seen.look_again_soon()
        identities.active = list(active)
        return active, carried

    def _fetched(
        self, view: Frame, index: torch.Tensor, matches: Matches | None
    ) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.float32] | None, PointmapPair | None]:
        """The index (H, W), some matches' places and what the pointmaps are lifted from, on the host.

        This is the one transfer of images out of the device.
        """
        wanted = [index if looking_is_free(self.device) else index.to(torch.int32)]
        if matches is None:
            return on_host(*wanted)[0], None, None
        lifts = self.settings.geometry.points and view.depth is None
        pair = PointmapPair.of(matches, self.settings.geometry) if lifts else None
        image, places, *values = on_host(*wanted, sampled_places(matches), *(pair.values if pair is not None else ()))
        return image, places, None if pair is None else replace(pair, values=tuple(values))

    def _owners(self, image: npt.NDArray[np.integer], active: list[int]) -> npt.NDArray[np.uint16]:
        """(H, W) uint16 tracks at working size from the index, tentative tracks under their parent's id."""
        owners = np.take(np.array([0] + [self._identities.shown_as(id) for id in active], np.uint16), image)
        return without_crumbs(owners, 2 * self.settings.tracker.min_area_share * image.size)

    def _in_latest(self, what: Pointed, stamp_ns: int | None) -> Pointed:
        return self._recent.on_latest(what, stamp_ns, self.matcher.match)

    def _segmented(self, what: Pointed) -> tuple[torch.Tensor, float]:
        """The segmenter's answer in the latest view, whose frame it has: mask (H, W) bool and score."""
        return asked(self.segmenter.predict, what)

    def _snapshot(self) -> tuple[Snapshot, dict[tuple[int, int], int], torch.Tensor]:
        """What a frame that fails goes back to."""
        return self._identities.snapshot(), self._overlap.snapshot(), self._editor.index

    def _take_pending(self) -> tuple[TrackEvent, ...]:
        pending = (*self._pending, *self._editor.events)
        self._pending, self._editor.events = [], []
        return pending

    def _empty_result(self, frame: Frame) -> FrameResult:
        labels = np.zeros((frame.height, frame.width), dtype=np.uint16)
        self._frames += 1
        return self._result(frame, labels, (), self._take_pending(), None)

    def _result(
        self,
        frame: Frame,
        labels: npt.NDArray[np.uint16],
        tracks: tuple[Track, ...],
        events: tuple[TrackEvent, ...],
        points: LabelledCloud | None,
        check: SelfCheck | None = None,
    ) -> FrameResult:
        return FrameResult(
            labels,
            tracks,
            events,
            points,
            self._timer.milliseconds(),
            self._frames - 1,
            frame.stamp_ns,
            frame.frame_id,
            check,
            *self._pose(frame, located=check is not None),
        )

    def _pose(self, frame: Frame, located: bool) -> tuple[npt.NDArray[np.float64] | None, PoseState]:
        if frame.T_world_camera is not None:
            return frame.T_world_camera, PoseState.GIVEN
        if not located:
            return None, PoseState.UNKNOWN
        where = self.structure if self.map.pose is PoseState.UNKNOWN else self.map
        return where.T_world_camera, where.pose


def create_mastsam(
    settings: Settings | None = None,
    like: Mastsam | None = None,
    ids: IdCounter | None = None,
    world: World | None = None,
) -> Mastsam:
    """A pipeline with the matcher and the segmenter that the settings name.

    For the whole process it sets the threads (`settings.threads`) and what is done with freed memory
    (`keep_freed_memory`).

    like: the pipeline of another camera with the same models; the new one shares their networks. ids, world: as
    `Mastsam`'s.
    Raises SettingsError if the device is not there, MissingPackageError or ModelError for a backend that is not.
    """
    settings = resolved(settings or Settings())
    use_threads(settings.threads)
    keep_freed_memory()
    matcher = create_matcher(settings, like.matcher if like is not None else None)
    segmenter = create_segmenter(settings, like.segmenter if like is not None else None)
    return Mastsam(matcher, segmenter, settings, ids, world)


def _last(id: int, became: Mapping[int, int]) -> int:
    """What an id goes on as in the end."""
    for _ in range(len(became)):
        if id not in became:
            break
        id = became[id]
    return id
