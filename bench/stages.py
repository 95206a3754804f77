"""A picture of every stage of one step: python bench/stages.py OUTPUT.jpg [SOURCE] [--depth] [--frame N] [--help].

Without SOURCE a generated video of an animal that walks, or with --depth a generated scene with things that touch.
Matcher and segmenter are watched from outside, through the two methods that any of them has, so that it shows the
foundation models as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mastsam_ros.io.sample_scene import SampleScene
from mastsam_ros.io.sample_video import SampleVideo
from mastsam_ros.io.sources import open_source
from mastsam_ros.pipeline import Mastsam, create_mastsam
from mastsam_ros.segmenters.regions.motion import Cues, MotionLayer
from mastsam_ros.segmenters.regions.superpixels import (
    build_region_graph,
    compressed_lab,
    gradient_magnitude,
    smoothed,
)
from mastsam_ros.settings import Settings
from mastsam_ros.types import CandidateMasks, Frame, MastsamError, Matches, PointPrompts
from mastsam_ros.viz import colors, overlay

Picture = npt.NDArray[np.uint8]
_TILE_WIDTH = 360
_COLUMNS = 4


class Watched:
    """A matcher and segmenter that remembers what the real ones were asked and what they answered."""

    def __init__(self, mastsam: Mastsam) -> None:
        self._matcher, self._segmenter = mastsam.matcher, mastsam.segmenter
        self._motion = MotionLayer()
        self.frame: Frame
        self.matches: Matches | None = None
        self.evidence: Picture | None = None
        self.regions: CandidateMasks
        self.prompts: PointPrompts | None = None

    def match(self, previous: Frame, current: Frame) -> Matches:
        """As the matcher."""
        return self._matcher.match(previous, current)

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        """As the segmenter, whose regions are asked for at once: a prompt may change them."""
        self._segmenter.set_frame(frame, matches)
        self.frame, self.matches, self.prompts = frame, matches, None
        self.regions = self._segmenter.everything(None)
        self.evidence = self._moving(frame, matches)

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        """As the segmenter."""
        self.prompts = prompts
        return self._segmenter.predict(prompts)

    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        """As the segmenter."""
        return self._segmenter.everything(region)

    def _moving(self, frame: Frame, matches: Matches | None) -> Picture | None:
        if matches is None or matches.flow_back is None or matches.visible is None or frame.depth is not None:
            self._motion.reset()
            return None
        lab = compressed_lab(smoothed(frame.image))
        graph = build_region_graph(frame.image, gradient=gradient_magnitude(lab), lab=lab)
        answer = self._motion.update(graph, Cues.of(graph, lab), matches.flow_back.numpy(), matches.visible.numpy())
        return _heat(answer.evidence[graph.labels] / 7)

    def tiles(self, labels: npt.NDArray[np.uint16]) -> Iterator[tuple[str, Picture]]:
        """Title and picture of every stage that the last frame went through."""
        image = self.frame.image
        yield "1 the picture", image
        if self.frame.depth is not None:
            yield "1 and its depth", _heat(1 - 2 * self.frame.depth / max(float(self.frame.depth.max()), 1e-6))
        if self.matches is not None and self.matches.flow_back is not None:
            yield "2 match: flow to the frame before", _flow(self.matches.flow_back.numpy())
        lab = compressed_lab(smoothed(image))
        superpixels = build_region_graph(image, gradient=gradient_magnitude(lab), lab=lab)
        yield "3 superpixels", _outlined(image, superpixels.labels)
        if self.evidence is not None:
            yield "4 own motion: blue against, red for it", self.evidence
        yield "5 bodies and the best cut of the hierarchy", overlay(image, _numbered(self.regions))
        if self.prompts is not None and self.prompts.carried is not None:
            yield "6 carried masks and their prompts", _prompted(image, self.prompts, self.prompts.carried)
        shown = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        yield "7 chosen, joined, new ones added", overlay(image, np.asarray(shown, np.uint16), numbers=True)


def _heat(values: npt.NDArray[np.float64]) -> Picture:
    """(H, W) in -1..1 -> blue to red."""
    levels = ((np.clip(values, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB), np.uint8)


def _flow(flow: npt.NDArray[np.float32]) -> Picture:
    """(H, W, 2) -> direction as hue, length as strength."""
    length, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1], angleInDegrees=True)
    strength = np.clip(length / max(float(np.percentile(length, 98)), 1e-6), 0, 1)
    hsv = cv2.merge([angle / 2, 255 * strength, np.full_like(angle, 255)]).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def _outlined(image: Picture, labels: npt.NDArray[np.int32]) -> Picture:
    picture = image.copy()
    picture[:, 1:][labels[:, 1:] != labels[:, :-1]] = 255
    picture[1:][labels[1:] != labels[:-1]] = 255
    return picture


def _numbered(answer: CandidateMasks) -> npt.NDArray[np.uint16]:
    """The best candidate of every prompt, the smaller ones on top, as labels."""
    masks = answer.masks[torch.arange(len(answer)), answer.scores.argmax(dim=1)].numpy()
    labels = np.zeros(masks.shape[1:], np.uint16)
    for number in np.argsort(-masks.sum(axis=(1, 2)), kind="stable"):
        labels[masks[number]] = number + 1
    return labels


def _prompted(image: Picture, prompts: PointPrompts, carried: torch.Tensor) -> Picture:
    picture = overlay(image, carried.numpy().astype(np.uint16))
    for track, (points, kinds) in enumerate(zip(prompts.xy.numpy(), prompts.labels.numpy(), strict=True)):
        colour = tuple(int(value) for value in colors([track + 1])[0])
        for x, y in points[kinds == 1].round().astype(int).tolist():
            cv2.circle(picture, (x, y), 3, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(picture, (x, y), 2, colour, -1, cv2.LINE_AA)
    return picture


def contact_sheet(tiles: list[tuple[str, Picture]]) -> Picture:
    """The pictures side by side under their titles, (H, W, 3) uint8 RGB."""
    sized = []
    for title, picture in tiles:
        height = round(picture.shape[0] * _TILE_WIDTH / picture.shape[1])
        small = np.asarray(cv2.resize(picture, (_TILE_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)
        framed = cv2.copyMakeBorder(small, 24, 4, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        cv2.putText(framed, title, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        sized.append(np.asarray(framed, np.uint8))
    while len(sized) % _COLUMNS:
        sized.append(np.full_like(sized[0], 255))
    return np.vstack([np.hstack(sized[n : n + _COLUMNS]) for n in range(0, len(sized), _COLUMNS)])


def _frames(source: str | None, use_depth: bool) -> Iterator[Frame]:
    if source is None:
        views = SampleScene(seed=3, stacked=True) if use_depth else SampleVideo(seed=3, mover="animal", camera="pan")
        for view in views:
            seen = view.frame
            yield Frame(seen.image, seen.stamp_ns, K=seen.K, depth=seen.depth) if use_depth else Frame(seen.image)
        return
    with open_source(source, use_depth=use_depth) as frames:
        for _, frame in frames:
            yield frame


def main() -> int:
    """Exit status: 0 done, 1 a MastsamError, 2 wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, metavar="OUTPUT", help=".jpg or .png")
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="images, video, scene folder or rosbag2")
    parser.add_argument("--frame", type=int, default=20, metavar="N", help="which frame to show, from 0 (default 20)")
    parser.add_argument("--depth", action="store_true", help="use the depth and intrinsics of the source")
    arguments = parser.parse_args()
    try:
        mastsam = create_mastsam(Settings())
        watched = Watched(mastsam)
        mastsam.matcher = mastsam.segmenter = watched
        result = None
        for frame in islice(_frames(arguments.source, arguments.depth), arguments.frame + 1):
            result = mastsam.step(frame)
    except MastsamError as error:
        sys.stderr.write(f"stages: {error}\n")
        return 1
    if result is None:
        sys.stderr.write(f"stages: {arguments.source} has no frames\n")
        return 1
    sheet = contact_sheet(list(watched.tiles(result.labels)))
    cv2.imwrite(str(arguments.output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    sys.stdout.write(f"{arguments.output}: frame {result.index}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
