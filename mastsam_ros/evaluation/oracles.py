"""A segmenter and a matcher that answer from the truth, so that the tracker can be measured alone."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mastsam_ros.evaluation.consistency import world_points
from mastsam_ros.evaluation.datasets import LabelledSequence, read_depth
from mastsam_ros.geometry.cameras import scale_intrinsics
from mastsam_ros.types import CandidateMasks, Frame, InputError, Matches, PointPrompts

_CANDIDATES = 3


class TruthSegmenter:
    """Answers prompts with the true masks under the points: perfect masks, no ids.

    Frames are recognised by stamp_ns, which is their index (as `LabelledSequence.frame` gives it).
    """

    def __init__(self, sequence: LabelledSequence) -> None:
        self._sequence = sequence
        self._truth = torch.zeros(0, 0, dtype=torch.int64)

    def set_frame(self, frame: Frame, matches: Matches | None) -> None:
        """Reads the frame's truth, at the size of the frame that the tracker works on."""
        truth = self._sequence.truth(self._sequence.frames[frame.stamp_ns])
        if truth.shape != frame.image.shape[:2]:
            truth = cv2.resize(truth, (frame.width, frame.height), interpolation=cv2.INTER_NEAREST_EXACT)
        self._truth = torch.from_numpy(truth.astype(np.int64))

    def predict(self, prompts: PointPrompts) -> CandidateMasks:
        """Per prompt up to three candidates: the instances with the most positive points on them."""
        height, width = self._truth.shape
        masks = torch.zeros(len(prompts), _CANDIDATES, height, width, dtype=torch.bool)
        scores = torch.zeros(len(prompts), _CANDIDATES)
        for n, (xy, labels) in enumerate(zip(prompts.xy.cpu(), prompts.labels.cpu(), strict=True)):
            points = xy[labels == 1].round().long()
            hit = self._truth[points[:, 1].clamp(0, height - 1), points[:, 0].clamp(0, width - 1)]
            votes = torch.bincount(hit[hit > 0])
            for candidate, instance in enumerate(votes.argsort(descending=True, stable=True)[:_CANDIDATES]):
                if votes[instance] > 0:
                    masks[n, candidate] = self._truth == instance
                    scores[n, candidate] = 1.0
        return CandidateMasks(masks, scores)

    def everything(self, region: torch.Tensor | None = None) -> CandidateMasks:
        """The true mask of every instance in view; only inside `region` (H, W) bool if it is given."""
        inside = torch.ones_like(self._truth, dtype=torch.bool) if region is None else region.cpu()
        instances = self._truth[inside].unique()
        instances = instances[instances > 0]
        masks = (self._truth[None] == instances[:, None, None]) & inside[None]
        return CandidateMasks(masks[:, None], torch.ones(len(masks), 1))


class TruthMatcher:
    """Matches from true depth and poses: sparse, on a grid, like those of a learned matcher.

    noise_px: standard deviation of the noise on where a match lands. outliers: share of the matches that
    land anywhere in the image. Both are drawn from a generator seeded by the frame.
    """

    def __init__(
        self, sequence: LabelledSequence, stride: int = 4, noise_px: float = 0.0, outliers: float = 0.0
    ) -> None:
        if sequence.K is None or any(f.depth is None or f.T_world_camera is None for f in sequence.frames):
            raise InputError(f"matches from the truth need depth, K and poses; '{sequence.name}' lacks them")
        self._sequence, self._K = sequence, sequence.K
        self._stride, self._noise_px, self._outliers = stride, noise_px, outliers

    def match(self, previous: Frame, current: Frame) -> Matches:
        """Grid points of the previous frame that are visible in the current one. Frames are known by stamp_ns."""
        depth0, K, T0 = self._view(previous)
        depth1, _, T1 = self._view(current)
        offset = self._stride // 2
        grid = np.s_[offset :: self._stride, offset :: self._stride]
        points = world_points(depth0, K, T0)[grid].reshape(-1, 3)
        y, x = np.mgrid[0 : previous.height, 0 : previous.width]
        xy0 = np.stack([x[grid], y[grid]], axis=-1).reshape(-1, 2).astype(np.float64)
        in_camera = (points - T1[:3, 3]) @ T1[:3, :3]
        with np.errstate(invalid="ignore", divide="ignore"):
            xy1 = in_camera[:, :2] / in_camera[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]
            inside = (in_camera[:, 2] > 0) & (xy1 > -0.5).all(axis=1)
            inside &= (xy1 < (current.width - 0.5, current.height - 0.5)).all(axis=1)
        xy0, xy1, z = xy0[inside], xy1[inside], in_camera[inside, 2]
        column, row = np.rint(xy1).astype(int).T
        visible = np.abs(depth1[row, column] - z) < 0.01 + 0.01 * z
        xy0, xy1 = xy0[visible], self._perturbed(xy1[visible], current)
        return Matches(torch.from_numpy(xy0), torch.from_numpy(xy1), torch.ones(len(xy0)))

    def _view(self, frame: Frame) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Depth at the frame's size, intrinsics to fit, and the true pose."""
        files = self._sequence.frames[frame.stamp_ns]
        if files.depth is None or files.T_world_camera is None:
            raise InputError(f"{self._sequence.name}/{files.stem} has no depth or no pose")
        depth = read_depth(files.depth)
        scale_x, scale_y = frame.width / depth.shape[1], frame.height / depth.shape[0]
        if depth.shape != frame.image.shape[:2]:
            depth = np.asarray(cv2.resize(depth, (frame.width, frame.height), interpolation=cv2.INTER_NEAREST_EXACT))
        return depth, scale_intrinsics(self._K, scale_x, scale_y), files.T_world_camera

    def _perturbed(self, xy: npt.NDArray[np.float64], frame: Frame) -> npt.NDArray[np.float64]:
        random = np.random.default_rng(frame.stamp_ns)
        size = np.array([frame.width, frame.height])
        noisy = xy + random.normal(0, self._noise_px, xy.shape)
        anywhere = random.uniform(0, size - 1, xy.shape)
        wrong = random.random(len(xy)) < self._outliers
        return np.clip(np.where(wrong[:, None], anywhere, noisy), 0, size - 1)
