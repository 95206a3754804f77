"""Step 3 of the method: every track's mask points that have a match move to the current frame, noise filtered."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from mastsam_ros.compiled import compiled
from mastsam_ros.device import looking_is_free, places
from mastsam_ros.masks import index_masks
from mastsam_ros.settings import TrackerSettings
from mastsam_ros.types import Matches

_SPARSE = 1.5
"""Pixels between matches from which on a mask is carried by its surroundings' motion, not pixel by pixel."""
_MOVED = 4096
"""Matches that are asked how far the picture moved."""


@dataclass(frozen=True, eq=False)
class Carried:
    """Where the tracks of the previous frame are now, before the segmenter is asked.

    index: (H, W) int64, n + 1 where track n was carried to, 0 elsewhere. matched: (H, W) bool, the
    pixels that have a match, whatever it carries. xy: (M, 2) float32 carried points, thinned to one per
    cell; track: (M,) int64, the point's track, 0-based, or -1: no point. interior: (M,) bool, points that are
    surrounded by points of their own track. count: number of tracks. moved: () float32, pixels by which most of the
    picture moved, or None where there was nothing to match it with.
    """

    index: torch.Tensor
    matched: torch.Tensor
    xy: torch.Tensor
    track: torch.Tensor
    interior: torch.Tensor
    count: int
    moved: torch.Tensor | None = None

    def masks(self) -> torch.Tensor:
        """The carried masks, (N, H, W) bool."""
        return index_masks(self.index, self.count)


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
        there = torch.ones(len(xy1), dtype=torch.bool, device=index.device)
        return _filtered(index, matched, xy1, None, there, count, settings)
    some = slice(None, None, max(1, len(matches) // _MOVED))
    motion = (matches.xy1[some] - matches.xy0[some]).norm(dim=1)
    moved = motion.median().to(index.device) if len(motion) else None
    return replace(_moved_along(index, count, matches, settings), moved=moved)


def _moved_along(index: torch.Tensor, count: int, matches: Matches, settings: TrackerSettings) -> Carried:
    """As `carry`."""
    height, width = index.shape
    xy0, xy1 = matches.xy0.to(index.device), matches.xy1.to(index.device)
    spacing = (height * width / max(1, len(xy1))) ** 0.5
    sure = matches.confidence.to(index.device) >= settings.min_match_confidence
    if spacing <= _SPARSE:
        carried, matched = _splat(index, xy0, xy1, sure)
        return _filtered(carried, matched, xy1, xy0, sure, count, settings)
    xy0, xy1, there = _only(sure, xy0, xy1)
    if settings.motion_filter and len(xy1):
        # Where matches are few, each is noisy: what its surroundings agree on is better than its own word.
        cell = max(settings.carry_cell, round(spacing))
        agrees, common = _consensus(index, xy0, xy1 - xy0, there, cell, settings)
        xy0, xy1, there = _only(agrees & there, xy0, xy0 + common)
    carried, matched = _densified(index, xy0, xy1, there, spacing)
    return _filtered(carried, matched, xy1, None, there, count, settings)


def _only(
    wanted: torch.Tensor, xy0: torch.Tensor, xy1: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The wanted (N,) bool of some points (N, 2) and where they went, and of what is left, which are wanted.

    Only those are left where the device need not be waited for to know how many they are.
    """
    kept = places(wanted)
    if len(kept) == len(wanted):
        return xy0, xy1, wanted
    return xy0.index_select(0, kept), xy1.index_select(0, kept), wanted.index_select(0, kept)


def _splat(
    index: torch.Tensor, xy0: torch.Tensor, xy1: torch.Tensor, there: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carried index and matched pixels, each match that is `there` filling its own pixel."""
    if looking_is_free(index.device):
        carried, matched = _splat_in_one_pass(*(part.contiguous().numpy() for part in (index, xy0, xy1, there)))
        return torch.from_numpy(carried), torch.from_numpy(matched)
    height, width = index.shape
    x0 = xy0[:, 0].round().long().clamp(0, width - 1)
    y0 = xy0[:, 1].round().long().clamp(0, height - 1)
    x1 = xy1[:, 0].round().long().clamp(0, width - 1)
    y1 = xy1[:, 1].round().long().clamp(0, height - 1)
    # The largest index wins where two points land on one pixel, so that the order of matches does not matter.
    carried = torch.full((height * width,), -1, dtype=torch.int64, device=index.device)
    value = index.flatten().index_select(0, y0 * width + x0).masked_fill_(~there, -1)
    carried.scatter_reduce_(0, y1 * width + x1, value, "amax")
    return carried.view(height, width).clamp(min=0), (carried >= 0).view(height, width)


@compiled(
    "Tuple((int64[:, ::1], bool_[:, ::1]))(Array(int64, 2, 'C', readonly=True), Array(float32, 2, 'C', readonly=True),"
    " Array(float32, 2, 'C', readonly=True), Array(bool_, 1, 'C', readonly=True))"
)
def _splat_in_one_pass(
    index: npt.NDArray[np.int64],
    xy0: npt.NDArray[np.float32],
    xy1: npt.NDArray[np.float32],
    there: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """As `_splat`, to the same bits, where torch takes a dozen passes over the matches."""
    height, width = index.shape
    carried, matched = np.zeros((height, width), np.int64), np.zeros((height, width), np.bool_)
    for n in range(len(xy0)):
        if there[n]:
            x0, y0 = min(max(np.rint(xy0[n, 0]), 0), width - 1), min(max(np.rint(xy0[n, 1]), 0), height - 1)
            x1, y1 = min(max(np.rint(xy1[n, 0]), 0), width - 1), min(max(np.rint(xy1[n, 1]), 0), height - 1)
            value = index[int(y0), int(x0)]
            carried[int(y1), int(x1)] = max(carried[int(y1), int(x1)], value)
            matched[int(y1), int(x1)] = True
    return carried, matched


@compiled("int64[::1](Array(float32, 2, 'C', readonly=True), Array(bool_, 1, 'C', readonly=True), int64, int64, int64)")
def _nearest_to_centres(
    xy: npt.NDArray[np.float32], there: npt.NDArray[np.bool_], cell: int, rows: int, columns: int
) -> npt.NDArray[np.int64]:
    """As `_one_per_cell`, to the same bits: (rows * columns,) index into xy, -1 where there is none."""
    best = np.full(rows * columns, -1)
    least = np.full(rows * columns, 1 << 62)
    middle = np.float32((cell - 1) / 2)
    for n in range(len(xy)):
        if not there[n]:
            continue
        column = min(max(int(xy[n, 0] / np.float32(cell)), 0), columns - 1)
        row = min(max(int(xy[n, 1] / np.float32(cell)), 0), rows - 1)
        across = xy[n, 0] - (np.float32(column * cell) + middle)
        down = xy[n, 1] - (np.float32(row * cell) + middle)
        distance = min(int((across * across + down * down) * np.float32(16)), 1 << 20)
        place = row * columns + column
        if distance < least[place]:
            best[place], least[place] = n, distance
    return best


def _consensus(
    index: torch.Tensor,
    xy0: torch.Tensor,
    motion: torch.Tensor,
    there: torch.Tensor,
    cell: int,
    settings: TrackerSettings,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which matches move like those around them, (N,) bool, and how those move, (N, 2); only those `there` count.

    The surroundings are the 3x3 cells of the previous frame round the match, as far as they belong to the same
    track; their motion is the median. The tolerance grows with the noise that the frame shows.
    """
    height, width = index.shape
    rows, columns = -(-height // cell), -(-width // cell)
    point, occupied = _one_per_cell(xy0, there, cell, rows, columns)
    x, y = xy0[:, 0].round().long().clamp(0, width - 1), xy0[:, 1].round().long().clamp(0, height - 1)
    number = index[y, x]
    of_cell = torch.where(occupied, number[point], -1).view(rows, columns)
    common, limit = _common_motion(of_cell, motion[point].view(rows, columns, 2), settings)
    at = (y // cell) * columns + x // cell
    # A match of another track than the one that stands for its cell has nobody to be compared with.
    comparable = of_cell.flatten()[at] == number
    common = torch.where(comparable[:, None], common.view(-1, 2)[at], motion)
    agrees = (motion - common).norm(dim=1) <= limit.flatten()[at]
    return agrees, common


def _common_motion(
    number: torch.Tensor, motion: torch.Tensor, settings: TrackerSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Median motion (rows, columns, 2) of the 3x3 cells round each cell that have its number (>= 0), and how far
    from it a motion may be, (rows, columns) pixels: more where the whole frame is noisy.
    """
    if looking_is_free(number.device):
        median = torch.from_numpy(_medians_around(number.contiguous().numpy(), motion.contiguous().numpy()))
    else:
        around, known = [], []
        for dy, dx in (*_AROUND, (0, 0)):
            same = (_shifted(number, dy, dx, -1) == number) & (number >= 0)
            known.append(same[..., None])
            around.append(torch.where(known[-1], _shifted(motion, dy, dx, 0.0), torch.inf))
        median = torch.where((number >= 0)[..., None], _lower_median(around, known), motion)
    noise = 1.5 * (motion - median).norm(dim=-1).median()
    limit = settings.motion_tolerance_px + settings.motion_tolerance_ratio * median.norm(dim=-1)
    return median, torch.maximum(limit, 2 * noise)


@compiled("UniTuple(float32, 3)(float32, float32, float32)")
def _sorted_three(a: float, b: float, c: float) -> tuple[float, float, float]:
    a, b = min(a, b), max(a, b)
    b, c = min(b, c), max(b, c)
    return min(a, b), max(a, b), c


@compiled("float32(float32[::1])")
def _median_of_nine(values: npt.NDArray[np.float32]) -> float:
    """Threes are sorted; of the largest of the least, the middle of the middle ones, and the least of the largest, the
    middle one."""
    a0, a1, a2 = _sorted_three(values[0], values[1], values[2])
    b0, b1, b2 = _sorted_three(values[3], values[4], values[5])
    c0, c1, c2 = _sorted_three(values[6], values[7], values[8])
    _, middle, _ = _sorted_three(a1, b1, c1)
    return _sorted_three(max(a0, b0, c0), middle, min(a2, b2, c2))[1]


@compiled("float32(float32[::1], int64)")
def _lower_of(values: npt.NDArray[np.float32], count: int) -> float:
    """The median of the first `count` values, of an even number the smaller of the two in the middle. Sorts them."""
    for n in range(1, count):
        value, place = values[n], n
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value
    return values[(count - 1) // 2]


@compiled("float32[:, :, ::1](Array(int64, 2, 'C', readonly=True), Array(float32, 3, 'C', readonly=True))")
def _medians_around(number: npt.NDArray[np.int64], motion: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The median of `_common_motion`, to the same bits, where torch compares whole images."""
    rows, columns = number.shape
    median = motion.copy()
    around = np.empty((2, 9), np.float32)
    for row in range(rows):
        for column in range(columns):
            if number[row, column] < 0:
                continue
            count = 0
            for y in range(max(row - 1, 0), min(row + 2, rows)):
                for x in range(max(column - 1, 0), min(column + 2, columns)):
                    if number[y, x] == number[row, column]:
                        around[0, count], around[1, count] = motion[y, x, 0], motion[y, x, 1]
                        count += 1
            for c in range(2):
                median[row, column, c] = _median_of_nine(around[c]) if count == 9 else _lower_of(around[c], count)
    return median


def _lower_median(values: list[torch.Tensor], known: list[torch.Tensor]) -> torch.Tensor:
    """Median of several images, pixel by pixel, of those that are known there (all others are infinite); of an even
    number the smaller of the two in the middle.

    Sorts the lower half by exchanges of whole images: several times as fast as torch's median over few values.
    """
    ranked = list(values)
    half = (len(ranked) + 1) // 2
    for place in range(half):
        for other in range(place + 1, len(ranked)):
            small = torch.minimum(ranked[place], ranked[other])
            ranked[other] = torch.maximum(ranked[place], ranked[other])
            ranked[place] = small
    middle = (torch.stack(known).sum(dim=0) - 1).clamp(min=0) // 2
    return torch.gather(torch.stack(ranked[:half]), 0, middle.expand(ranked[0].shape)[None])[0]


def _densified(
    index: torch.Tensor, xy0: torch.Tensor, xy1: torch.Tensor, there: torch.Tensor, spacing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carried index and matched pixels from sparse matches: each pixel moves like the mean of the matches near it that
    are `there`."""
    height, width = index.shape
    cell = max(2, round(spacing))
    rows, columns = -(-height // cell), -(-width // cell)
    at = (xy1[:, 1] / cell).long().clamp(0, rows - 1) * columns + (xy1[:, 0] / cell).long().clamp(0, columns - 1)
    moved = torch.zeros(rows * columns, 3, dtype=torch.float64, device=index.device)
    one = torch.cat([xy0 - xy1, torch.ones_like(xy0[:, :1])], dim=1).double()
    moved.index_add_(0, at, one.masked_fill_(~there[:, None], 0))
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
    xy0: torch.Tensor | None,
    there: torch.Tensor,
    count: int,
    settings: TrackerSettings,
) -> Carried:
    """Thins the points to one per cell, drops the noisy cells, and takes their pixels out of the carried index.

    xy0: (N, 2), where each point was, if its motion is still to be compared with its neighbours', else None. there:
    (N,) bool, points that count.
    """
    height, width = index.shape
    if len(xy1) == 0:
        none = torch.zeros(0, dtype=torch.int64, device=index.device)
        return Carried(torch.zeros_like(index), matched, xy1, none, none.bool(), count)
    cell = settings.carry_cell
    rows, columns = -(-height // cell), -(-width // cell)
    point, occupied = _one_per_cell(xy1, there, cell, rows, columns)
    at = xy1[point]
    x, y = at[:, 0].round().long().clamp(0, width - 1), at[:, 1].round().long().clamp(0, height - 1)
    number = torch.where(occupied, index[y, x], torch.zeros_like(x)).view(rows, columns)
    keep = number > 0
    if settings.motion_filter and xy0 is not None:
        moved = (at - xy0[point]).view(rows, columns, 2)
        common, limit = _common_motion(number, moved, settings)
        keep &= (moved - common).norm(dim=-1) <= limit
    if settings.connectivity_filter:
        keep &= _connected_to_main_body(torch.where(keep, number, torch.zeros_like(number)), count, settings)
    # A dropped cell takes the pixels of its own track with it, not those of another track that share the cell.
    dropped = torch.where(keep, torch.full_like(number, -1), number)
    if looking_is_free(index.device):
        index = torch.from_numpy(_without_dropped(index.contiguous().numpy(), dropped.numpy(), cell))
    else:
        of_pixel = dropped.repeat_interleave(cell, dim=0)[:height].repeat_interleave(cell, dim=1)[:, :width]
        index = torch.where(of_pixel == index, torch.zeros_like(index), index)
    number = torch.where(keep, number, torch.zeros_like(number))
    around = [_shifted(number, dy, dx, 0) for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    interior = torch.stack([other == number for other in around]).all(dim=0) & keep
    chosen = places(keep.flatten())
    return Carried(index, matched, at[chosen], number.flatten()[chosen] - 1, interior.flatten()[chosen], count)


@compiled("int64[:, ::1](Array(int64, 2, 'C', readonly=True), Array(int64, 2, 'C', readonly=True), int64)")
def _without_dropped(index: npt.NDArray[np.int64], dropped: npt.NDArray[np.int64], cell: int) -> npt.NDArray[np.int64]:
    """The index (H, W), 0 where its number is the one that is dropped in its cell."""
    kept = np.empty_like(index)
    for y in range(index.shape[0]):
        for x in range(index.shape[1]):
            kept[y, x] = 0 if dropped[y // cell, x // cell] == index[y, x] else index[y, x]
    return kept


def _one_per_cell(
    xy: torch.Tensor, there: torch.Tensor, cell: int, rows: int, columns: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per cell the point nearest its centre of those that are `there`: index (rows * columns,) into xy, and whether
    there is one."""
    if looking_is_free(xy.device):
        best = torch.from_numpy(_nearest_to_centres(xy.contiguous().numpy(), there.numpy(), cell, rows, columns))
        return best.clamp(min=0), best >= 0
    x, y = xy[:, 0], xy[:, 1]
    column = (x / cell).long().clamp(0, columns - 1)
    row = (y / cell).long().clamp(0, rows - 1)
    middle = (cell - 1) / 2
    across, down = x - (column * cell + middle), y - (row * cell + middle)
    distance = (across * across + down * down).mul(16).long().clamp(max=2**20)
    total = len(xy)
    key = distance * total + torch.arange(total, device=xy.device)
    empty = torch.iinfo(torch.int64).max
    key.masked_fill_(~there, empty)
    best = torch.full((rows * columns,), empty, dtype=torch.int64, device=xy.device)
    best.scatter_reduce_(0, row * columns + column, key, "amin")
    occupied = best < empty
    return torch.where(occupied, best % total, torch.zeros_like(best)), occupied


_ROUNDS = 8
"""How often groups that touch are joined; each time all but those that began before all their neighbours go."""
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def _connected_to_main_body(number: torch.Tensor, count: int, settings: TrackerSettings) -> torch.Tensor:
    """(rows, columns) bool: cells of groups that are not small beside their track's largest group."""
    group = connected_groups(number)
    size = occurrences(group.flatten(), group.numel())[group]
    largest = torch.zeros(count + 1, dtype=size.dtype, device=size.device)
    largest.scatter_reduce_(0, number.flatten(), size.flatten(), "amax")
    return size >= settings.min_group_share * largest[number]


def connected_groups(number: torch.Tensor) -> torch.Tensor:
    """Connected groups (8 neighbours) of equal numbers in (rows, columns): the smallest flat index of each group.

    On a GPU union-find in parallel (Shiloach and Vishkin) over the runs of each row: roots are hooked to smaller
    neighbours, then every cell jumps to its root. One round does for what is not wound up; `_ROUNDS` do for far more
    than masks ever show, and what winds even more may come out in parts.
    """
    if looking_is_free(number.device):
        return torch.from_numpy(_groups_in_one_pass(number.contiguous().numpy()))
    rows, columns = number.shape
    cells = torch.arange(number.numel(), device=number.device).view(rows, columns)
    starts = _shifted(number, 0, -1, -1) != number
    group = torch.where(starts, cells, 0).cummax(dim=1).values.flatten()
    others = torch.stack([_shifted(cells, -1, dx, -1) for dx in (-1, 0, 1)]).flatten()
    alike = torch.stack([_shifted(number, -1, dx, -1) == number for dx in (-1, 0, 1)]).flatten() & (others >= 0)
    a = cells.flatten().repeat(3)
    # What is no pair is a cell beside itself: nothing comes of it.
    b = torch.where(alike, others, a)
    for _ in range(_ROUNDS):
        root_a, root_b = group[a], group[b]
        group.scatter_reduce_(0, torch.maximum(root_a, root_b), torch.minimum(root_a, root_b), "amin")
        for _ in range(number.numel().bit_length()):
            group = group[group]
    return group.view(rows, columns)


@compiled("int64[:, ::1](Array(int64, 2, 'C', readonly=True))")
def _groups_in_one_pass(number: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """As `connected_groups`, however much they wind."""
    rows, columns = number.shape
    root = np.arange(rows * columns)
    for row in range(rows):
        for column in range(columns):
            here = row * columns + column
            for y, x in ((row, column - 1), (row - 1, column - 1), (row - 1, column), (row - 1, column + 1)):
                if y < 0 or x < 0 or x >= columns or number[y, x] != number[row, column]:
                    continue
                a, b = here, y * columns + x
                while root[a] != a:
                    root[a] = root[root[a]]
                    a = root[a]
                while root[b] != b:
                    root[b] = root[root[b]]
                    b = root[b]
                root[max(a, b)] = min(a, b)
    for n in range(rows * columns):
        # Roots are lower than what hangs on them.
        root[n] = root[root[n]]
    return root.reshape(rows, columns)


def occurrences(values: torch.Tensor, count: int) -> torch.Tensor:
    """How often each of 0..count-1 is among `values` (N,) int64: (count,) int64.

    As bincount, which makes the host wait for the device.
    """
    return torch.zeros(count, dtype=torch.int64, device=values.device).scatter_add_(0, values, torch.ones_like(values))


def _shifted(values: torch.Tensor, dy: int, dx: int, fill: float) -> torch.Tensor:
    """`values` (rows, columns, ...) read at (y + dy, x + dx); `fill` outside."""
    result = torch.full_like(values, fill)
    rows, columns = values.shape[:2]
    to_y, to_x = slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), columns - max(0, dx))
    from_y, from_x = slice(max(0, dy), rows + min(0, dy)), slice(max(0, dx), columns + min(0, dx))
    result[to_y, to_x] = values[from_y, from_x]
    return result
