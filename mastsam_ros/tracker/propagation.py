"""Step 3 of the method: every track's mask points that have a match move to the current frame, noise filtered."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mastsam_ros.settings import TrackerSettings
from mastsam_ros.types import Matches


@dataclass(frozen=True, eq=False)
class Carried:
    """Where the tracks of the previous frame are now, before the segmenter is asked.

    index: (H, W) int64, n + 1 where track n was carried to, 0 elsewhere. matched: (H, W) bool, the
    pixels that have a match, whatever it carries. xy: (M, 2) float32 carried points, thinned to one per
    cell; track: (M,) int64, the point's track, 0-based. interior: (M,) bool, points that are surrounded
    by points of their own track. count: number of tracks.
    """

    index: torch.Tensor
    matched: torch.Tensor
    xy: torch.Tensor
    track: torch.Tensor
    interior: torch.Tensor
    count: int

    def masks(self) -> torch.Tensor:
        """The carried masks, (N, H, W) bool."""
        numbers = torch.arange(1, self.count + 1, device=self.index.device)
        return self.index[None] == numbers[:, None, None]


def carry(index: torch.Tensor, count: int, matches: Matches | None, settings: TrackerSettings) -> Carried:
    """Moves the tracks of `index` (H, W) int64 (n + 1 = track n) along the matches (paper, section IV-B).

    Without matches (or with the step switched off) every track stays where it was.
    """
    height, width = index.shape
    if matches is None or not settings.carry:
        matched = torch.ones_like(index, dtype=torch.bool)
        y, x = torch.meshgrid(
            torch.arange(height, device=index.device), torch.arange(width, device=index.device), indexing="ij"
        )
        xy1 = torch.stack([x, y], dim=-1).reshape(-1, 2).float()
        return _filtered(index, matched, xy1, torch.zeros_like(xy1), count, settings)
    kept = matches.confidence >= settings.min_match_confidence
    xy0, xy1 = matches.xy0.to(index.device)[kept], matches.xy1.to(index.device)[kept]
    x0 = xy0[:, 0].round().long().clamp(0, width - 1)
    y0 = xy0[:, 1].round().long().clamp(0, height - 1)
    x1 = xy1[:, 0].round().long().clamp(0, width - 1)
    y1 = xy1[:, 1].round().long().clamp(0, height - 1)
    flat = y1 * width + x1
    # The largest index wins where two points land on one pixel, so that the order of matches does not matter.
    carried = torch.full((height * width,), -1, dtype=torch.int64, device=index.device)
    carried.scatter_reduce_(0, flat, index[y0, x0], "amax")
    carried, matched = carried.view(height, width).clamp(min=0), (carried >= 0).view(height, width)
    spacing = (height * width / max(1, len(xy1))) ** 0.5
    if spacing > 1.5:
        carried, matched = _densified(index, xy0, xy1, spacing)
    return _filtered(carried, matched, xy1, xy1 - xy0, count, settings)


def _densified(
    index: torch.Tensor, xy0: torch.Tensor, xy1: torch.Tensor, spacing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carried index and matched pixels from sparse matches: each pixel moves like the mean of the matches near it."""
    height, width = index.shape
    cell = max(2, round(spacing))
    rows, columns = -(-height // cell), -(-width // cell)
    at = (xy1[:, 1] / cell).long().clamp(0, rows - 1) * columns + (xy1[:, 0] / cell).long().clamp(0, columns - 1)
    moved = torch.zeros(rows * columns, 3, dtype=torch.float64, device=index.device)
    moved.index_add_(0, at, torch.cat([xy0 - xy1, torch.ones_like(xy0[:, :1])], dim=1).double())
    field = moved.view(rows, columns, 3).permute(2, 0, 1)[None].float()
    near = F.avg_pool2d(field, 3, stride=1, padding=1, count_include_pad=False)
    field = torch.where(field[:, 2:] > 0, field, near)
    known = field[:, 2:] > 0
    motion = field[:, :2] / field[:, 2:].clamp(min=1e-6)
    motion = F.interpolate(motion, scale_factor=cell, mode="nearest")[0, :, :height, :width]
    matched = F.interpolate(known.float(), scale_factor=cell, mode="nearest")[0, 0, :height, :width] > 0
    y, x = torch.meshgrid(
        torch.arange(height, device=index.device), torch.arange(width, device=index.device), indexing="ij"
    )
    x0, y0 = (x + motion[0]).round().long(), (y + motion[1]).round().long()
    matched &= (x0 >= 0) & (y0 >= 0) & (x0 < width) & (y0 < height)
    carried = index[y0.clamp(0, height - 1), x0.clamp(0, width - 1)]
    return torch.where(matched, carried, torch.zeros_like(carried)), matched


def _filtered(
    index: torch.Tensor,
    matched: torch.Tensor,
    xy1: torch.Tensor,
    motion: torch.Tensor,
    count: int,
    settings: TrackerSettings,
) -> Carried:
    """Thins the points to one per cell, drops the noisy cells, and takes their pixels out of the carried index."""
    height, width = index.shape
    if len(xy1) == 0:
        none = torch.zeros(0, dtype=torch.int64, device=index.device)
        return Carried(torch.zeros_like(index), matched, xy1, none, none.bool(), count)
    cell = settings.carry_cell
    rows, columns = -(-height // cell), -(-width // cell)
    point, occupied = _one_per_cell(xy1, cell, rows, columns)
    at = xy1[point]
    x, y = at[:, 0].round().long().clamp(0, width - 1), at[:, 1].round().long().clamp(0, height - 1)
    number = torch.where(occupied, index[y, x], torch.zeros_like(x)).view(rows, columns)
    keep = number > 0
    if settings.motion_filter:
        keep &= _moves_like_neighbours(number, motion[point].view(rows, columns, 2), settings)
    if settings.connectivity_filter:
        keep &= _connected_to_main_body(torch.where(keep, number, torch.zeros_like(number)), count, settings)
    # A dropped cell takes the pixels of its own track with it, not those of another track that share the cell.
    dropped = torch.where(keep, torch.full_like(number, -1), number)
    of_pixel = dropped.repeat_interleave(cell, dim=0)[:height].repeat_interleave(cell, dim=1)[:, :width]
    index = torch.where(of_pixel == index, torch.zeros_like(index), index)
    number = torch.where(keep, number, torch.zeros_like(number))
    around = [_shifted(number, dy, dx, 0) for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    interior = torch.stack([other == number for other in around]).all(dim=0).flatten()
    chosen = keep.flatten()
    return Carried(index, matched, at[chosen], number.flatten()[chosen] - 1, interior[chosen], count)


def _one_per_cell(xy: torch.Tensor, cell: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Per cell the point nearest its centre: index (rows * columns,) into xy, and whether there is one."""
    column = (xy[:, 0] / cell).long().clamp(0, columns - 1)
    row = (xy[:, 1] / cell).long().clamp(0, rows - 1)
    centre = torch.stack([column, row], dim=1) * cell + (cell - 1) / 2
    distance = ((xy - centre) ** 2).sum(dim=1).mul(16).long().clamp(max=2**20)
    total = len(xy)
    key = distance * total + torch.arange(total, device=xy.device)
    empty = torch.iinfo(torch.int64).max
    best = torch.full((rows * columns,), empty, dtype=torch.int64, device=xy.device)
    best.scatter_reduce_(0, row * columns + column, key, "amin")
    occupied = best < empty
    return torch.where(occupied, best % total, torch.zeros_like(best)), occupied


_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def _moves_like_neighbours(number: torch.Tensor, motion: torch.Tensor, settings: TrackerSettings) -> torch.Tensor:
    """(rows, columns) bool: the point's motion is near the median motion of its neighbours of the same track."""
    nothing = float("nan")
    neighbours = []
    for dy, dx in _AROUND:
        same = (_shifted(number, dy, dx, 0) == number) & (number > 0)
        neighbours.append(torch.where(same[..., None], _shifted(motion, dy, dx, 0.0), nothing))
    median = torch.nanmedian(torch.stack(neighbours), dim=0).values
    difference = (motion - median).norm(dim=-1)
    limit = settings.motion_tolerance_px + settings.motion_tolerance_ratio * median.norm(dim=-1)
    return (difference <= limit) | median.isnan().any(dim=-1)


def _connected_to_main_body(number: torch.Tensor, count: int, settings: TrackerSettings) -> torch.Tensor:
    """(rows, columns) bool: cells of groups that are not small beside their track's largest group."""
    group = connected_groups(number)
    size = torch.bincount(group.flatten(), minlength=group.numel())[group]
    largest = torch.zeros(count + 1, dtype=size.dtype, device=size.device)
    largest.scatter_reduce_(0, number.flatten(), size.flatten(), "amax")
    return size >= settings.min_group_share * largest[number]


def connected_groups(number: torch.Tensor) -> torch.Tensor:
    """Connected groups (8 neighbours) of equal numbers in (rows, columns): the smallest flat index of each group.

    Label propagation with pointer jumping: as parallel as the device is, and equal on every device.
    """
    group = torch.arange(number.numel(), device=number.device).view(number.shape)
    same = [(dy, dx, _shifted(number, dy, dx, -1) == number) for dy, dx in _AROUND]
    while True:
        smallest = group
        for dy, dx, equal in same:
            other = _shifted(group, dy, dx, 0)
            smallest = torch.where(equal & (other < smallest), other, smallest)
        smallest = smallest.flatten()[smallest]
        smallest = smallest.flatten()[smallest]
        if torch.equal(smallest, group):
            return group
        group = smallest


def _shifted(values: torch.Tensor, dy: int, dx: int, fill: float) -> torch.Tensor:
    """`values` (rows, columns, ...) read at (y + dy, x + dx); `fill` outside."""
    result = torch.full_like(values, fill)
    rows, columns = values.shape[:2]
    to_y, to_x = slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), columns - max(0, dx))
    from_y, from_x = slice(max(0, dy), rows + min(0, dy)), slice(max(0, dx), columns + min(0, dx))
    result[to_y, to_x] = values[from_y, from_x]
    return result
