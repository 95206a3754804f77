"""Every setting of every stage: frozen dataclasses, the only home of defaults.

YAML <-> dataclass <-> ROS parameters go through this module; an unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mastsam_ros.setting_fields import Checked, Scalar, SettingInfo, declared_in, setting
from mastsam_ros.types import SettingsError

MAP_SUFFIXES = (".ply", ".json", ".npz")
"""Endings of a map's files, any of which, or none, may be given for the whole."""


@dataclass(frozen=True)
class FrameSettings(Checked):
    """What is done to an image before anything else."""

    working_pixels: int = setting(
        -1,
        "Images with more pixels are shrunk to about this many for matching, segmentation and tracking;"
        " labels come out at full size. 0: never shrink. -1: what suits the segmenter, 160,000 for regions and"
        " 1,048,576 for Segment Anything, which sees 1024 pixels along the long side.",
        -1,
        16_000_000,
    )
    use_depth: bool = setting(True, "Use the depth image where there is one.")


@dataclass(frozen=True)
class MatcherSettings(Checked):
    """Which matcher, and what every matcher shares."""

    name: str = setting(
        "auto",
        "Matcher: flow (embedded default), features (slower; for views that lie far apart, and `mastsam run"
        " --unordered`), mast3r (a GPU and its weights), or auto: mast3r where both are there.",
        choices=("auto", "flow", "features", "mast3r"),
        read_only=True,
    )


@dataclass(frozen=True)
class FlowSettings(Checked):
    """The embedded default's matcher: dense inverse search optical flow, forward and backward."""

    scale: float = setting(0.75, "Flow is computed at this share of the working size.", 0.1, 1.0)
    scale_with_depth: float = setting(
        0.6, "The same between two depth images: what is at rest is put right by them.", 0.1, 1.0
    )
    relative_tolerance: float = setting(
        0.02, "A match is kept if the squared forward-backward error is below this share of the squared motion...", 0, 1
    )
    absolute_tolerance: float = setting(0.25, "... plus this many square pixels.", 0, 100)


@dataclass(frozen=True)
class Mast3rSettings(Checked):
    """MASt3R as the matcher: dense local features and pointmaps of two views."""

    implementation: str = setting(
        "native",
        "The network: native (of this package) or reference (the authors' package mast3r, where it is installed).",
        choices=("native", "reference"),
        read_only=True,
    )
    checkpoint: str = setting(
        "",
        "File of the released weights, .pth or .safetensors, or a name of `mastsam weights list`."
        " Empty: the one that was fetched.",
        read_only=True,
    )
    precision: str = setting(
        "auto",
        "Numbers the network computes with; auto: bfloat16 on a GPU, float32 on the CPU.",
        choices=("auto", "float32", "bfloat16", "float16"),
        read_only=True,
    )
    compile: bool = setting(
        False, "Compile the network at the first frame: slower start, faster steps.", read_only=True
    )
    image_size: int = setting(512, "Long side of the network's image, pixels; the released model's is 512.", 32, 2048)
    metric: bool = setting(True, "The weights give points in metres, as the released model does.", read_only=True)
    subsample: int = setting(8, "Matches start from every so many pixels of the network's image, in x and y.", 1, 64)
    min_confidence: float = setting(
        0.5, "Matches below this confidence are left out; 0.5 is 1 on MASt3R's scale.", 0, 1
    )
    min_point_confidence: float = setting(
        0.33, "Points below this confidence are left out; 1 - 1/c for c on MASt3R's scale.", 0, 1
    )


@dataclass(frozen=True)
class SegmenterSettings(Checked):
    """Which segmenter, and what every segmenter shares."""

    name: str = setting(
        "auto",
        "Segmenter: regions (embedded default), sam (package segment-anything), hf_sam (package transformers), or"
        " auto: Segment Anything where there are a GPU and its weights.",
        choices=("auto", "regions", "sam", "hf_sam"),
        read_only=True,
    )


@dataclass(frozen=True)
class RegionsSettings(Checked):
    """The embedded default's segmenter: superpixels, hierarchy, motion and depth evidence."""

    use_motion: bool = setting(True, "Set apart what moves on its own.")
    use_flow_steps: bool = setting(True, "Without depth, tell things from what is behind them by steps in the flow.")
    use_notches: bool = setting(
        True,
        "Without depth, with use_flow_steps, tell touching things of one colour apart by notches in their outline.",
    )
    use_depth: bool = setting(True, "Set apart what stands free in the depth image, where there is one.")
    superpixel_spacing: int = setting(7, "Pixels between the seeds of superpixels, at working size.", 2, 64)
    lightness_weight: float = setting(0.5, "Weight of lightness beside colour.", 0, 10)
    contrast_weight: float = setting(2.0, "How much dearer outlines are where no edge is, beyond once.", 0, 100)
    noise: float = setting(4.0, "Colour variation that counts as noise.", 0.01, 100)
    boundary_cost: float = setting(17.0, "Cost of one pixel of outline, for an image of 640x480.", 0, 10_000)
    region_cost: float = setting(3.0, "Cost of one more region, in pixels of outline.", 0, 10_000)
    prior_weight: float = setting(
        0.4, "How far regions and outlines that agree with carried masks are preferred.", 0, 0.9
    )
    # Depth
    plane_area_m2: float = setting(
        0.1, "Smaller flat surfaces are objects or parts of objects, square metres.", 0, 1000
    )
    surface_tolerance_m: float = setting(
        0.005, "Lower bumps on a plane and smaller steps between objects do not count, beyond the noise, metres.", 0, 1
    )
    crease_angle_deg: float = setting(40.0, "Surfaces that meet in a sharper inward crease are two objects.", 1, 179)


@dataclass(frozen=True)
class SamSettings(Checked):
    """Segment Anything and its kin as the segmenter, `sam` and `hf_sam` alike."""

    checkpoint: str = setting(
        "",
        "sam: the published .pth file, or a name of `mastsam weights list`; empty: the largest that was fetched."
        " hf_sam: a folder with config.json and weights.",
        read_only=True,
    )
    precision: str = setting(
        "auto",
        "Numbers the networks compute with; auto: bfloat16 on a GPU, float32 on the CPU.",
        choices=("auto", "float32", "bfloat16", "float16"),
        read_only=True,
    )
    mask_prompt: bool = setting(
        False, "Give the decoder each track's carried mask as a mask prompt beside its points, as far as it is trusted."
    )
    prompts_per_call: int = setting(64, "Prompts that the decoder answers at once; bounds memory.", 1, 4096)
    grid_points: int = setting(32, "Automatic masks: prompts along the image's long side.", 1, 256)
    min_iou: float = setting(0.88, "Automatic masks below this predicted IoU are left out.", 0, 1)
    min_stability: float = setting(0.92, "Automatic masks that change more with their threshold are left out.", 0, 1)
    nms_iou: float = setting(0.7, "Of two automatic masks that overlap more than this (IoU), one is left out.", 0, 1)


@dataclass(frozen=True)
class TrackerSettings(Checked):
    """The points tracker (paper, section IV): one block per step, each can be switched off."""

    # Step 3, carry
    carry: bool = setting(True, "Move masks along the matches; off: they stay where they were.")
    min_match_confidence: float = setting(0.05, "Matches below this confidence are not used.", 0, 1)
    carry_cell: int = setting(4, "Carried points are thinned to one per cell of so many pixels.", 1, 64)
    motion_filter: bool = setting(True, "Drop carried points that move unlike their neighbours.")
    motion_tolerance_px: float = setting(1.5, "A carried point may differ by so many pixels from its neighbours...", 0)
    motion_tolerance_ratio: float = setting(0.15, "... plus this share of their motion.", 0)
    connectivity_filter: bool = setting(True, "Drop small groups of carried points away from the main body.")
    min_group_share: float = setting(0.08, "A group is small below this share of the track's largest group.", 0, 1)
    # Step 4, representatives
    representative_selection: bool = setting(True, "K-means; off: representatives are spread evenly by rank.")
    representatives: int = setting(6, "Representative points per track.", 1, 64)
    kmeans: str = setting(
        "torch", "K-means: torch (all tracks in one call), or a library.", choices=("torch", "sklearn", "cuml")
    )
    # Step 5, prompt and choose
    reprompt: bool = setting(True, "Ask the segmenter again; off: the carried mask is the new mask.")
    negative_prompts: int = setting(3, "Nearest representatives of other tracks used as negative prompts.", 0, 64)
    agreement_stride: int = setting(2, "Masks are compared at every so many pixels.", 1, 16)
    score_weight: float = setting(
        0.5, "Weight of the segmenter's score beside the agreement with what was carried.", 0, 10
    )
    score_only: bool = setting(False, "Choose by the segmenter's score alone (ablation).")
    min_carried_share: float = setting(0.4, "A candidate must hold this share of the carried mask.", 0, 1)
    # Step 6, overlap
    overlap_filtering: bool = setting(True, "Join tracks whose masks coincide.")
    join_iou: float = setting(0.7, "Masks with at least this IoU coincide.", 0, 1)
    join_young: int = setting(8, "A track younger than this many frames is joined at once...", 0)
    join_after: int = setting(4, "... others after this many frames in a row.", 1)
    # Step 7, discovery
    discovery: bool = setting(True, "Segment uncovered regions anew.")
    update_interval: int = setting(1, "Uncovered regions are segmented anew every so many frames...", 1, 10_000)
    urgent_share: float = setting(0.02, "... and at once where they cover this share of the picture.", 0, 1)
    min_area_share: float = setting(0.0003, "Masks below this share of the picture are not kept.", 0, 1)
    settle_outlines: bool = setting(True, "Pixels at an outline keep their track unless their colour says otherwise.")
    sharpen_outlines: bool = setting(
        True, "Where the segmenter's outlines are rough, labels follow those of the picture at full size."
    )
    # Identity
    join_pieces: bool = setting(
        True, "Without depth: what has the colour and the texture of a large thing in view is shown as a piece of it."
    )
    join_parts: bool = setting(
        True, "Without depth: what goes on where a thing ends, in one line with it, is shown as a part of it."
    )
    confirm_after: int = setting(6, "A new track is shown as what it is part of until it was seen so often.", 1, 1000)
    confirm_part_after: int = setting(12, "... or so often, where its pixels were a track's before...", 1, 1000)
    confirm_quality: float = setting(0.6, "... with at least this running agreement.", 0, 1)
    confirm_score: float = setting(0.9, "A new mask with this score is shown under its own id at once.", 0, 2)
    confirm_new_score: float = setting(
        0.85, "... and so is one with this score that no track was carried to, if it is not tiny.", 0, 2
    )
    mature_after: int = setting(5, "From this many frames on a track's mask is fully trusted.", 1, 1000)
    coast_frames: int = setting(
        5, "A trusted track that is not found keeps its carried mask for so many frames.", 0, 1000
    )
    forget_after: int = setting(300, "A lost track is removed after so many frames.", 1, 1_000_000)
    revival: bool = setting(True, "Recognise lost tracks by colour, size and place.")
    revival_frames: int = setting(40, "Tracks lost for longer are not recognised by appearance.", 0, 1_000_000)
    revival_radius_px: float = setting(20.0, "How far from the expected place, at least.", 0)
    revival_size_ratio: float = setting(0.8, "Largest |log| of the ratio of areas.", 0)
    revival_colour: float = setting(0.15, "Largest Jensen-Shannon divergence of the colours...", 0)
    revival_histogram: float = setting(
        0.4, "... or Bhattacharyya distance of their histograms, where no map knows the place; 0: not asked.", 0, 1
    )
    recall: bool = setting(True, "Recognise views that were seen before: tracks lost since then come back in place.")
    recall_views: int = setting(40, "Largest number of views that are remembered.", 1, 10_000)


@dataclass(frozen=True)
class GeometrySettings(Checked):
    """Lifting labels to 3D points, and the map of instances."""

    points: bool = setting(
        True, "Lift the labels to a point cloud where there is depth and K, or the matcher gives a pointmap."
    )
    points_stride: int = setting(2, "Every so many pixels, in x and in y, give one point.", 1, 64)
    max_depth_m: float = setting(20.0, "Farther points are left out, metres.", 0.1, 1000.0)
    edge_ratio: float = setting(
        0.05, "Points whose depth differs from a neighbour's by more than this share are left out.", 0.0, 10.0
    )
    structure: bool = setting(
        True,
        "Find the camera's pose and a cloud, both up to scale, from pictures and K where there is neither depth nor a"
        " pointmap; and what was seen before where matches fail, without K too.",
    )
    map: bool = setting(True, "Keep a map of instances where there is depth and K: ids survive leaving the view.")
    map_voxel_m: float = setting(0.02, "Size of the map's voxels, metres.", 0.001, 1.0)
    map_voxels: int = setting(300_000, "Largest number of voxels; the longest unseen are dropped.", 1000, 10_000_000)
    map_radius_m: float = setting(10.0, "Farther from the camera nothing is kept, metres.", 0.1, 1000.0)


@dataclass(frozen=True)
class NodeSettings(Checked):
    """The ROS 2 node: life cycle, topics, quality of service, what belongs together."""

    autostart: bool = setting(
        True,
        "The node configures and activates itself. Off: it waits for the transitions of its managed life cycle,"
        " configure (loads the model) and activate (subscribes).",
        read_only=True,
    )
    cameras: str = setting(
        "",
        "Names of several cameras, separated by spaces; they share the models, and no two instances have the same id."
        " The input topics are then NAME/image and so on, or as the topic says that holds {camera}; the outputs are"
        " ~/NAME/labels and so on. Empty: one camera without a name.",
        read_only=True,
    )
    share_map: bool = setting(
        True,
        "Several cameras whose poses come from outside (pose_topic) keep one map together: what two of them see has one"
        " id. The map is then published on ~/map and ~/map_instances.",
        read_only=True,
    )
    image_topic: str = setting("image", "Topic of the colour images.", read_only=True)
    compressed: bool = setting(False, "The image topic carries CompressedImage (jpeg or png).", read_only=True)
    image_transport: str = setting(
        "raw",
        "image_transport's name of how the colour images come: compressed is image_topic/compressed, and needs no"
        " node.compressed, which is for topics that are named otherwise.",
        choices=("raw", "compressed"),
        read_only=True,
    )
    camera_info_topic: str = setting("camera_info", "Topic of the intrinsics. Empty: none.", read_only=True)
    depth_topic: str = setting(
        "", "Topic of depth images that are registered to the colour images. Empty: none.", read_only=True
    )
    compressed_depth: bool = setting(
        False,
        "The depth topic carries CompressedImage (compressedDepth as png or rvl, or a 16-bit png).",
        read_only=True,
    )
    depth_transport: str = setting(
        "raw",
        "The same of the depth images: depth_topic/compressedDepth, or depth_topic/compressed for 16-bit png.",
        choices=("raw", "compressedDepth", "compressed"),
        read_only=True,
    )
    rectified: bool = setting(
        False, "The images are rectified: CameraInfo's P holds. Otherwise K holds and distortion is refused."
    )
    reliability: str = setting(
        "best_effort",
        "Reliability asked of the image and depth topics; best_effort is what sensors send.",
        choices=("best_effort", "reliable"),
        read_only=True,
    )
    queue_depth: int = setting(5, "Messages that DDS keeps per input topic.", 1, 1000, read_only=True)
    sync_queue: int = setting(10, "Images, and depth images, that wait for their partner.", 1, 1000, read_only=True)
    sync_tolerance_ms: float = setting(
        20.0, "Image and depth belong together if their stamps differ by at most this, milliseconds.", 0.0, 10_000.0
    )
    input_timeout_s: float = setting(
        5.0,
        "A warning is given when no image comes for so long, seconds; and when no depth does, which images then no"
        " longer wait for.",
        0.1,
        3600.0,
    )
    # The map and the camera's place in it
    map_frame: str = setting("map", "Frame of the map, of the odometry, and of poses from outside.", read_only=True)
    map_interval_s: float = setting(
        1.0, "~/map and ~/map_instances are published at most this often, seconds.", 0.0, 3600.0
    )
    map_file: str = setting(
        "",
        "The map is loaded from this file at the start, and saved there at the end and by ~/save_map: .ply, .json and"
        " .npz, as by `mastsam run --map`. Empty: neither. With several cameras that do not share one, _NAME is added.",
        read_only=True,
    )
    pose_topic: str = setting(
        "",
        "Poses of the camera from outside, which take precedence: a topic of nav_msgs/Odometry, or tf. Empty: own"
        " odometry, from depth.",
        read_only=True,
    )
    pose_tolerance_ms: float = setting(
        100.0, "A pose from outside may be so far from the image in time, and is waited for so long, milliseconds.", 0.0
    )
    publish_tf: bool = setting(
        False,
        "Publish own odometry on /tf: from map_frame to tf_child_frame. Leave it off where something else places the"
        " camera in that frame.",
        read_only=True,
    )
    tf_child_frame: str = setting(
        "",
        "Frame that /tf is told of: the root of the camera's tree, such as odom on a robot (REP 105) or camera_link."
        " Empty: the images' own frame, for a camera that nothing else places.",
        read_only=True,
    )
    # What /diagnostics warns of, over the last 300 frames
    warn_consistency: float = setting(
        0.8, "Warn where a smaller share of the matched pixels keeps its id from frame to frame.", 0.0, 1.0
    )
    warn_uncovered: float = setting(0.3, "Warn where a larger share of the picture has no label.", 0.0, 1.0)
    warn_largest: float = setting(0.95, "Warn where the largest mask covers more of the picture.", 0.0, 1.0)
    warn_switches: float = setting(0.5, "Warn where more ids per frame seem to go on under another one.", 0.0, 1000.0)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras' names; one empty one for a camera without a name. Raises SettingsError for a wrong name."""
        names = tuple(self.cameras.split()) or ("",)
        for name in names:
            if name and not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
                raise SettingsError(f"node.cameras: '{name}' is no name: letters, digits and _ only, a letter first")
        if len(set(names)) < len(names):
            raise SettingsError(f"node.cameras must be different names, got '{self.cameras}'")
        return names

    @property
    def one_world(self) -> bool:
        """True for several cameras that keep one map."""
        return self.share_map and len(self.camera_names) > 1 and bool(self.pose_topic)

    def map_frame_of(self, camera: str) -> str:
        """The frame that this camera's map is in. Of several cameras each has a world of its own, with a frame of its
        own, unless poses from outside place them all in one."""
        return f"{self.map_frame}_{camera}" if camera and not self.pose_topic else self.map_frame

    def map_path(self, camera: str) -> Path | None:
        """Where this camera's map is loaded from and saved, or None."""
        if not self.map_file:
            return None
        path = Path(self.map_file).expanduser()
        if not camera or self.one_world:
            return path
        stem = path.stem if path.suffix in MAP_SUFFIXES else path.name
        return path.with_name(f"{stem}_{camera}")

    def for_camera(self, name: str) -> NodeSettings:
        """The same with the topics of this camera, and of image_transport, in full. Raises SettingsError for a topic
        that all cameras would share."""
        topics: dict[str, Any] = {}
        for key in ("image_topic", "camera_info_topic", "depth_topic"):
            topics[key] = topic = getattr(self, key)
            if name and topic.startswith("/") and "{camera}" not in topic:
                raise SettingsError(
                    f"node.{key} '{topic}' is one for all of node.cameras: write {{camera}} where the name belongs"
                )
            own = topic.replace("{camera}", name) if name else topic
            topics[key] = own if own != topic or not topic or not name else f"{name}/{topic}"
        if self.image_transport != "raw":
            topics["image_topic"] += f"/{self.image_transport}"
            topics |= {"image_transport": "raw", "compressed": True}
        if self.depth_transport != "raw" and self.depth_topic:
            topics["depth_topic"] += f"/{self.depth_transport}"
            topics |= {"depth_transport": "raw", "compressed_depth": True}
        return dataclasses.replace(self, **topics)


@dataclass(frozen=True)
class Settings(Checked):
    """All settings. `Settings()` is the default configuration."""

    device: str = setting("auto", "Where tensors live.", choices=("auto", "cuda", "cpu"), read_only=True)
    threads: int = setting(
        0,
        "Threads that torch and OpenCV compute with on the CPU, beside the two that a step has. 0: what each takes by"
        " itself, most often one per core.",
        0,
        1024,
        read_only=True,
    )
    weights_directory: str = setting(
        "",
        "Folder of the checkpoints that `mastsam weights fetch` keeps. Empty: $XDG_CACHE_HOME/mastsam_ros.",
        read_only=True,
    )
    frame: FrameSettings = field(default_factory=FrameSettings)
    matcher: MatcherSettings = field(default_factory=MatcherSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    mast3r: Mast3rSettings = field(default_factory=Mast3rSettings)
    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    regions: RegionsSettings = field(default_factory=RegionsSettings)
    sam: SamSettings = field(default_factory=SamSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    geometry: GeometrySettings = field(default_factory=GeometrySettings)
    node: NodeSettings = field(default_factory=NodeSettings)

    @property
    def working_pixels(self) -> int:
        """`frame.working_pixels`, with the figure that suits the segmenter for -1."""
        if self.frame.working_pixels >= 0:
            return self.frame.working_pixels
        return 160_000 if self.segmenter.name in ("auto", "regions") else 1 << 20

    @staticmethod
    def infos() -> tuple[SettingInfo, ...]:
        """Every setting with its dotted path (`tracker.update_interval`), in the order of declaration."""
        return tuple(declared_in(Settings))

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> Settings:
        """Settings from nested or dotted keys: {"tracker": {"update_interval": 3}} or {"tracker.update_interval": 3}.

        Raises SettingsError for an unknown key, a wrong type or a value out of range.
        """
        return Settings().updated(_flatten(values))

    @staticmethod
    def load(path: str | Path) -> Settings:
        """Settings from a YAML file; the ROS form (`/**: ros__parameters: ...`) is read too.

        Raises SettingsError if the file cannot be read, is not YAML, or holds an unknown key or wrong value.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"cannot read settings file {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise SettingsError(f"{path} is not a YAML file: {error}") from error
        content = _parse_yaml(text, str(path))
        if content is None:
            return Settings()
        if not isinstance(content, Mapping):
            raise SettingsError(f"{path} must hold a mapping of settings, got {type(content).__name__}")
        try:
            return Settings.from_mapping(_without_ros_wrapper(content))
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from None

    def updated(self, values: Mapping[str, Any]) -> Settings:
        """A copy in which the dotted paths of `values` are replaced. Raises SettingsError."""
        nested: dict[str, dict[str, Any]] = {}
        known = {info.path for info in Settings.infos()}
        for path, value in values.items():
            if path not in known:
                if any(name.startswith(f"{path}.") for name in known):
                    if value is None:  # a section whose settings are all commented out
                        continue
                    raise SettingsError(f"'{path}' is a section of settings, not a setting: got {repr(value)[:60]}")
                close = difflib.get_close_matches(path[:100], known, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                raise SettingsError(f"unknown setting '{path[:100]}'{hint}")
            section, _, name = path.rpartition(".")
            nested.setdefault(section, {})[name] = value
        changes: dict[str, Any] = dict(nested.pop("", {}))
        for section, fields in nested.items():
            try:
                changes[section] = dataclasses.replace(getattr(self, section), **fields)
            except SettingsError as error:
                raise SettingsError(f"{section}.{error}") from None
        return dataclasses.replace(self, **changes)

    def with_assignments(self, assignments: list[str]) -> Settings:
        """A copy changed by `path=value` texts, as `--set` takes them. Raises SettingsError."""
        values: dict[str, Any] = {}
        for text in assignments:
            path, equals, value = text.partition("=")
            if not equals:
                raise SettingsError(f"expected path=value, got '{text}'")
            values[path.strip()] = _parse_yaml(value, f"the value in '{text}'")
        return self.updated(values)

    def flat(self) -> dict[str, Scalar]:
        """Dotted path -> value, in the order of declaration."""
        return _flatten(dataclasses.asdict(self))

    def to_mapping(self) -> dict[str, Any]:
        """Nested mapping of plain values, as YAML and JSON take it."""
        return dataclasses.asdict(self)


_DEEPEST = 3
"""Levels that no setting reaches; a YAML file can refer to itself without end."""


def _parse_yaml(text: str, name: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except Exception as error:  # beside YAMLError, malformed dates, numbers and nesting raise what they like
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise SettingsError(f"{name} is not YAML: {first}") from error


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(key, str):
            raise SettingsError(f"setting names are text, got {key!r}")
        if isinstance(value, Mapping):
            if prefix.count(".") > _DEEPEST:
                raise SettingsError(f"settings are nested too deep at '{prefix}{key}'")
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _without_ros_wrapper(content: Mapping[str, Any]) -> Mapping[str, Any]:
    wrapped = [v["ros__parameters"] for v in content.values() if isinstance(v, Mapping) and "ros__parameters" in v]
    if not wrapped:
        return content
    if len(wrapped) != len(content) or len(wrapped) > 1 or not isinstance(wrapped[0], Mapping):
        raise SettingsError("a ROS parameter file for this node holds one 'ros__parameters' block and nothing else")
    return {key: value for key, value in wrapped[0].items() if key != "use_sim_time"}
