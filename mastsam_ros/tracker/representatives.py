"""Step 4 of the method: K-means on the carried points of every track gives the points to prompt with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mastsam_ros.device import on_host, upload
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.tracker.propagation import Carried, occurrences
from mastsam_ros.types import MissingPackageError, PointPrompts

_POINTS_PER_TRACK = 128
"""Points of one track that K-means sees; more change the centroids by less than the cell they come from."""
_ITERATIONS = 8


def prompts_from(
    carried: Carried, confidence: torch.Tensor, settings: TrackerSettings, points_wanted: bool = True
) -> PointPrompts:
    """Prompts of every track: its representatives are positive, the nearest ones of other tracks negative.

    confidence: (N,) how far each carried mask can be trusted. Tracks without carried points get padding only.
    """
    if not points_wanted:
        none = torch.zeros(carried.count, 0, device=carried.index.device)
        return PointPrompts(none[..., None].expand(-1, -1, 2), none, carried.index, confidence)
    points, valid = _gathered(carried)
    if settings.representative_selection:
        xy = _representatives(points, valid, settings)
    else:
        xy = _spread(points, valid, settings.representatives)
    known = valid.any(dim=1)
    labels = torch.where(known[:, None], 1, -1).expand(-1, xy.shape[1]).contiguous()
    if settings.negative_prompts > 0 and len(xy) > 1:
        negative, present = _nearest_of_others(xy, known, settings.negative_prompts)
        xy = torch.cat([xy, negative], dim=1)
        labels = torch.cat([labels, torch.where(present & known[:, None], 0, -1)], dim=1)
    return PointPrompts(xy, labels, carried.index, confidence)


def batched_kmeans(points: torch.Tensor, valid: torch.Tensor, clusters: int) -> torch.Tensor:
    """K-means of N sets at once: points (N, P, 2) float32, valid (N, P) bool -> centroids (N, clusters, 2).

    Starts from the points that lie farthest from one another, so the same input gives the same output.
    Sets with fewer points than clusters get repeated centroids; empty sets get zeros.
    """
    count = len(points)
    weight = valid.float()
    rows = torch.arange(count, device=points.device)
    mean = (points * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True).clamp(min=1)
    outside = torch.where(valid, 0.0, -torch.inf)
    far = ((points - mean[:, None]) ** 2).sum(dim=-1) + outside
    chosen = [points[rows, far.argmax(dim=1)]]
    nearest = ((points - chosen[0][:, None]) ** 2).sum(dim=-1)
    for _ in range(clusters - 1):
        chosen.append(points[rows, (nearest + outside).argmax(dim=1)])
        nearest = torch.minimum(nearest, ((points - chosen[-1][:, None]) ** 2).sum(dim=-1))
    centroids = torch.stack(chosen, dim=1)
    for _ in range(_ITERATIONS):
        closest = _squared_distances(points, centroids).argmin(dim=2)
        member = torch.nn.functional.one_hot(closest, clusters).float() * weight[..., None]
        size = member.sum(dim=1)
        moved = torch.einsum("npk,npc->nkc", member, points) / size.clamp(min=1)[..., None]
        centroids = torch.where(size[..., None] > 0, moved, centroids)
    return torch.where(valid.any(dim=1)[:, None, None], centroids, torch.zeros_like(centroids))


def library_kmeans(points: torch.Tensor, valid: torch.Tensor, clusters: int, library: str) -> torch.Tensor:
    """The same through the interface that scikit-learn and cuML share, one call per track.

    Raises MissingPackageError if the library is not installed.
    """
    kmeans = _kmeans_class(library)
    centroids = np.zeros((len(points), clusters, 2), np.float32)
    for track, (own, there) in enumerate(zip(*on_host(points, valid), strict=True)):
        own = own[there]
        if len(own) == 0:
            continue
        fitted = kmeans(n_clusters=min(clusters, len(own)), n_init=1, random_state=0).fit(own)
        centres = np.asarray(fitted.cluster_centers_, np.float32)
        centroids[track] = centres[np.arange(clusters) % len(centres)]
    return upload(centroids, points.device)


def _kmeans_class(library: str) -> Any:
    try:
        if library == "cuml":
            from cuml.cluster import KMeans
        else:
            from sklearn.cluster import KMeans
    except ImportError as error:
        package = "cuml-cu12" if library == "cuml" else "scikit-learn"
        raise MissingPackageError(
            f"tracker.kmeans is '{library}' but its package is not installed: pip install {package},"
            " or set tracker.kmeans to torch"
        ) from error
    return KMeans


def _representatives(points: torch.Tensor, valid: torch.Tensor, settings: TrackerSettings) -> torch.Tensor:
    """Centroids snapped to the nearest carried point, so that a prompt always lies on its object: (N, K, 2)."""
    if settings.kmeans == "torch":
        centroids = batched_kmeans(points, valid, settings.representatives)
    else:
        centroids = library_kmeans(points, valid, settings.representatives, settings.kmeans)
    distance = _squared_distances(centroids, points) + torch.where(valid, 0.0, torch.inf)[:, None]
    nearest = distance.argmin(dim=2)
    return torch.gather(points, 1, nearest[..., None].expand(-1, -1, 2))


def _gathered(carried: Carried) -> tuple[torch.Tensor, torch.Tensor]:
    """Up to _POINTS_PER_TRACK points of each track, (N, P, 2) and (N, P) bool; interior ones where there are enough."""
    device = carried.xy.device
    inside = occurrences(torch.where(carried.interior, carried.track, carried.count), carried.count + 1)
    usable = (carried.track >= 0) & (carried.interior | (inside < 4)[carried.track])
    # Points that are not used stand last, under a number that no track has.
    track, order = torch.sort(torch.where(usable, carried.track, carried.count), stable=True)
    size = occurrences(track, carried.count + 1)[:-1]
    start = size.cumsum(0) - size
    slot = torch.arange(_POINTS_PER_TRACK, device=device)
    taken = size.clamp(max=_POINTS_PER_TRACK)
    valid = slot[None] < taken[:, None]
    rank = torch.div(slot[None] * size[:, None], taken[:, None].clamp(min=1), rounding_mode="floor")
    if len(carried.xy) == 0:
        return torch.zeros(carried.count, _POINTS_PER_TRACK, 2, device=device), valid
    place = torch.where(valid, start[:, None] + rank, torch.zeros_like(rank))
    return carried.xy[order[place]] * valid[..., None], valid


def _spread(points: torch.Tensor, valid: torch.Tensor, count: int) -> torch.Tensor:
    """Without selection: `count` points evenly through each track's list, (N, count, 2)."""
    size = valid.sum(dim=1, keepdim=True)
    rank = torch.arange(count, device=points.device)[None] * size // count
    return torch.gather(points, 1, rank[..., None].expand(-1, -1, 2))


def _nearest_of_others(xy: torch.Tensor, known: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` representatives of other tracks nearest to each track's own: (N, count, 2) and (N, count) bool."""
    tracks, each = xy.shape[:2]
    flat = xy.reshape(-1, 2)
    distance = _squared_distances(xy.reshape(1, -1, 2), flat[None])[0].view(tracks, each, -1).amin(dim=1)
    owner = torch.arange(tracks, device=xy.device).repeat_interleave(each)
    other = (owner[None] != torch.arange(tracks, device=xy.device)[:, None]) & known[owner][None]
    distance = torch.where(other, distance, torch.inf)
    nearest = torch.topk(distance, min(count, distance.shape[1]), dim=1, largest=False)
    return flat[nearest.indices], nearest.values.isfinite()


def _squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(N, A, 2) and (N, B, 2) -> (N, A, B). Differences, not the expanded square: exact, and equal on all devices."""
    across = a[:, :, None, 0] - b[:, None, :, 0]
    down = a[:, :, None, 1] - b[:, None, :, 1]
    return across * across + down * down
