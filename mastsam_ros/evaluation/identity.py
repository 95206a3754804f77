"""Identity over time: tube IoU, scene PQ, ids kept, id switches, IDF1, HOTA, AssA, OWTA and STQ's association."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from mastsam_ros.evaluation.overlaps import FrameOverlap, TubeOverlap, tube_overlap

FOUND_IOU = 0.5
"""A tube counts as found above this IoU."""
HOTA_THRESHOLDS = np.arange(0.05, 0.99, 0.05)
_EPSILON = np.finfo(float).eps


# ---- tubes: one id over all frames ------------------------------------------------------------------------------


@dataclass(frozen=True)
class TubeScore:
    """How well tubes match instances one to one.

    found: share of the objects whose tube IoU is above 0.5. mean_iou: mean tube IoU of the objects (0
    where an object has no id). iou: object -> tube IoU. ids: object -> id, 0 where none.
    """

    found: float
    mean_iou: float
    iou: dict[int, float]
    ids: dict[int, int]


def tube_score(tubes: TubeOverlap, objects: Collection[int] | None = None) -> TubeScore:
    """Tube IoU: pixels of one id over all frames against pixels of one instance, matched one to one.

    The matching maximises the sum of IoU over all instances; objects: those that count (None: all).
    NaN if none of them is ever seen.
    """
    rows, columns = linear_sum_assignment(tubes.iou, maximize=True)
    iou = {int(i): 0.0 for i in tubes.instances}
    ids = {int(i): 0 for i in tubes.instances}
    for row, column in zip(rows, columns, strict=True):
        if tubes.iou[row, column] > 0:
            instance = int(tubes.instances[column])
            iou[instance], ids[instance] = float(tubes.iou[row, column]), int(tubes.ids[row])
    counted = [i for i in iou if objects is None or i in objects]
    if not counted:
        return TubeScore(float("nan"), float("nan"), {}, {})
    values = np.array([iou[i] for i in counted])
    return TubeScore(
        float((values > FOUND_IOU).mean()),
        float(values.mean()),
        {i: iou[i] for i in counted},
        {i: ids[i] for i in counted},
    )


def scene_pq(tubes: TubeOverlap) -> float:
    """Panoptic quality of tubes (Kirillov et al., CVPR 2019, eq. 1): ids and instances of the whole sequence.

    Sum of the IoU of pairs above 0.5, by their number plus half the unmatched ids and instances.
    """
    matched = tubes.iou[tubes.iou > FOUND_IOU]  # above one half a tube has at most one partner
    total = (len(tubes.ids) + len(tubes.instances)) / 2
    return float(matched.sum() / total) if total else float("nan")


# ---- ids kept and ids made --------------------------------------------------------------------------------------


def ids_kept(
    overlaps: Sequence[FrameOverlap], objects: Collection[int] | None = None, share: float = 0.15, own: bool = False
) -> float:
    """Share of the objects with the same id in the first and the last `share` of the frames.

    An object's id is the one that covers most of it (unlabelled pixels count as an id that is never kept).
    Objects not in view in both ends do not count; NaN if there are none. own: an id that covers most of another
    instance too, at either end, is not kept: an object that was never told from its table keeps the table's id.
    """
    length = max(1, round(share * len(overlaps)))
    start, end = main_ids(overlaps[:length]), main_ids(overlaps[-length:])
    if own:
        start, end = _unshared(start), _unshared(end)
    return _share_equal(start, end, objects)


def _unshared(ids: dict[int, int]) -> dict[int, int]:
    """The same with 0 for ids that several instances have."""
    taken = list(ids.values())
    return {instance: id if taken.count(id) == 1 else 0 for instance, id in ids.items()}


def ids_kept_after_leaving(
    overlaps: Sequence[FrameOverlap], objects: Collection[int] | None = None, least_away: int = 3, look: int = 5
) -> float:
    """Share of the departures after which an object comes back under its id.

    A departure: the object is in view, then in no pixel for at least `least_away` frames, then in view
    again. Compared are its ids in the last `look` frames before and the first `look` frames after. NaN if
    no object ever leaves and returns.
    """
    last_seen: dict[int, int] = {}
    departures = []
    for frame, overlap in enumerate(overlaps):
        for instance in overlap.instances.tolist():
            if frame - last_seen.get(instance, frame) > least_away and (objects is None or instance in objects):
                departures.append((instance, last_seen[instance], frame))
            last_seen[instance] = frame
    kept = []
    for instance, left, back in departures:
        before, after = main_ids(overlaps[max(0, left - look + 1) : left + 1]), main_ids(overlaps[back : back + look])
        kept.append(before[instance] == after[instance] != 0)
    return float(np.mean(kept)) if kept else float("nan")


def main_ids(overlaps: Sequence[FrameOverlap]) -> dict[int, int]:
    """Instance -> the id that covers most of its pixels in these frames, 0 if most are unlabelled."""
    tubes = tube_overlap(overlaps)
    unlabelled = tubes.instance_areas - tubes.shared.sum(axis=0)
    counts = np.vstack([unlabelled, tubes.shared])
    ids = np.concatenate([[0], tubes.ids])
    return {int(i): int(ids[counts[:, column].argmax()]) for column, i in enumerate(tubes.instances)}


def _share_equal(first: dict[int, int], last: dict[int, int], objects: Collection[int] | None) -> float:
    both = [i for i in first if i in last and (objects is None or i in objects)]
    return float(np.mean([first[i] == last[i] != 0 for i in both])) if both else float("nan")


def id_switches(overlaps: Sequence[FrameOverlap], threshold: float = 0.5) -> int:
    """CLEAR's id switches (Bernardin and Stiefelhagen 2008): how often an instance's matched id changes.

    Per frame ids and instances are matched one to one at IoU >= threshold, those matched in the frame
    before being preferred.
    """
    last_id: dict[int, int] = {}
    frame_before: dict[int, int] = {}
    switches = 0
    for overlap in overlaps:
        score = overlap.iou.T.copy()  # (T, P)
        allowed = score >= threshold - _EPSILON
        for row, instance in enumerate(overlap.instances):
            score[row, overlap.ids == frame_before.get(int(instance), 0)] += 1000
        score[~allowed] = 0
        matched = [
            (int(overlap.instances[r]), int(overlap.ids[c]))
            for r, c in zip(*linear_sum_assignment(score, maximize=True), strict=True)
            if allowed[r, c]
        ]
        switches += sum(last_id.get(instance, id) != id for instance, id in matched)
        last_id.update(matched)
        frame_before = dict(matched)
    return switches


# ---- IDF1 and HOTA ----------------------------------------------------------------------------------------------


def idf1(overlaps: Sequence[FrameOverlap], threshold: float = 0.5) -> float:
    """IDF1 (Ristani et al. 2016): F1 of the detections under the best one-to-one matching of whole tracks.

    A detection of a pair of tracks is a frame in which their IoU is at least `threshold`.
    """
    tubes = tube_overlap(overlaps)
    both = np.zeros((len(tubes.instances), len(tubes.ids)))
    for overlap in overlaps:
        rows, columns = np.searchsorted(tubes.instances, overlap.instances), np.searchsorted(tubes.ids, overlap.ids)
        both[np.ix_(rows, columns)] += threshold <= overlap.iou.T
    found = both[linear_sum_assignment(both, maximize=True)].sum()
    detections = tubes.instance_frames.sum() + tubes.id_frames.sum()
    return float(2 * found / detections) if detections else float("nan")


@dataclass(frozen=True)
class HotaScore:
    """HOTA and its parts, each the mean over the 19 thresholds .05 ... .95; all in [0, 1].

    det_a, det_re: detection accuracy and recall. ass_a: association accuracy. owta: sqrt(det_re * ass_a),
    which does not punish ids on what the truth leaves out.
    """

    hota: float
    det_a: float
    det_re: float
    ass_a: float
    owta: float


def hota(overlaps: Sequence[FrameOverlap]) -> HotaScore:
    """HOTA (Luiten et al., IJCV 2021, eq. 6-10) on masks, OWTA (Liu et al., CVPR 2022). Zeros without ids."""
    tubes = tube_overlap(overlaps)
    instances, ids = tubes.instances, tubes.ids
    if not len(instances) or not len(ids):
        return HotaScore(0.0, 0.0, 0.0, 0.0, 0.0)
    potential = np.zeros((len(instances), len(ids)))
    for overlap in overlaps:
        rows, columns = np.searchsorted(instances, overlap.instances), np.searchsorted(ids, overlap.ids)
        similarity = overlap.iou.T
        rest = similarity.sum(axis=0)[None, :] + similarity.sum(axis=1)[:, None] - similarity
        potential[np.ix_(rows, columns)] += np.divide(
            similarity, rest, out=np.zeros_like(similarity), where=rest > _EPSILON
        )
    frames_union = tubes.instance_frames[:, None] + tubes.id_frames[None, :]
    alignment = potential / (frames_union - potential)

    thresholds = len(HOTA_THRESHOLDS)
    true_positives = np.zeros(thresholds)
    together = np.zeros((thresholds, len(instances), len(ids)))
    for overlap in overlaps:
        rows, columns = np.searchsorted(instances, overlap.instances), np.searchsorted(ids, overlap.ids)
        similarity = overlap.iou.T
        r, c = linear_sum_assignment(alignment[np.ix_(rows, columns)] * similarity, maximize=True)
        good = similarity[r, c][None, :] >= HOTA_THRESHOLDS[:, None] - _EPSILON
        true_positives += good.sum(axis=1)
        together[:, rows[r], columns[c]] += good
    truths, detections = tubes.instance_frames.sum(), tubes.id_frames.sum()
    association = together / np.maximum(frames_union[None] - together, 1)
    ass_a = (together * association).sum(axis=(1, 2)) / np.maximum(true_positives, 1)
    det_re = true_positives / truths
    det_a = true_positives / (truths + detections - true_positives)
    return HotaScore(
        float(np.sqrt(det_a * ass_a).mean()),
        float(det_a.mean()),
        float(det_re.mean()),
        float(ass_a.mean()),
        float(np.sqrt(det_re * ass_a).mean()),
    )


# ---- STQ --------------------------------------------------------------------------------------------------------


def association_quality(tubes: TubeOverlap) -> float:
    """The association quality of STQ (Weber et al., STEP, NeurIPS 2021, eq. 3-5), in pixels; NaN without truth.

    Mean over the instances of sum over ids of shared(id, instance) * IoU(id, instance) / area(instance).
    """
    if not len(tubes.instances):
        return float("nan")
    per_instance = (tubes.shared * tubes.iou).sum(axis=0) / tubes.instance_areas
    return float(per_instance.mean())


# ---- all of it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IdentityScore:
    """Every identity metric of one sequence. ids_made: ids that ever appear; ids_true: instances that do.

    kept_own: kept, and under an id that is no other instance's.
    """

    found: float
    tube_iou: float
    kept: float
    kept_own: float
    kept_after_leaving: float
    scene_pq: float
    ids_made: int
    ids_true: int
    switches: int
    idf1: float
    hota: float
    ass_a: float
    owta: float
    association_quality: float


def identity_score(overlaps: Sequence[FrameOverlap], objects: Collection[int] | None = None) -> IdentityScore:
    """All identity metrics. objects: the instances that `found`, `tube_iou` and `kept` are about (None: all)."""
    tubes = tube_overlap(overlaps)
    tube, tracking = tube_score(tubes, objects), hota(overlaps)
    return IdentityScore(
        found=tube.found,
        tube_iou=tube.mean_iou,
        kept=ids_kept(overlaps, objects),
        kept_own=ids_kept(overlaps, objects, own=True),
        kept_after_leaving=ids_kept_after_leaving(overlaps, objects),
        scene_pq=scene_pq(tubes),
        ids_made=len(tubes.ids),
        ids_true=len(tubes.instances),
        switches=id_switches(overlaps),
        idf1=idf1(overlaps),
        hota=tracking.hota,
        ass_a=tracking.ass_a,
        owta=tracking.owta,
        association_quality=association_quality(tubes),
    )
