"""New tracks that the segmenter, unasked, keeps seeing as a part of something: they end in it."""

from __future__ import annotations

from mastsam_ros.tracker.identity import Identities
from mastsam_ros.types import TrackState, Unprompted

_OWN = 0.5
"""Agreement with a segment from which on the segment is the track."""
_PATIENCE = 4
"""Frames more in which a track was seen as a part than in which it was seen as itself that end it..."""
_CREDIT = 24
"""... and the most that it can have of the latter: what was seen for long is not ended by a few frames."""
_MEMORY = 12
"""The most frames in which motion told a track apart that count."""
_HARDLY, _STANDS_OUT = 0.5, 4.0
"""Frames for which one counts in which a track was seen as something that hardly stands out from what is around it, and
as something that stands out from all of it."""
_ANEW = 0.05
"""Share of the picture's side by which it moves to prove twice as much: what has hardly moved is seen the same again,
with the same faults."""


def parts_of_wholes(
    active: list[int], ages: list[int], seen: Unprompted, identities: Identities, moved: float = 0.0
) -> list[tuple[int, int]]:
    """Pairs of tracks (0-based places in `active`) that are one thing: a part, and what it is a part of.

    A prompt finds again whatever was carried to it, so that a track which is asked for proves nothing by being found;
    what the segmenter sees unasked does. Of those that become one the oldest goes on, so that among them at most the
    oldest is shown under an id of its own: such a track is not ended here. Also adds up what proves that a track is one
    (`Life.proof`), and that it is no piece of what is behind it (`Life.told_apart`). ages: of the tracks, in frames.
    moved: how far the picture moved, as a share of its side.
    """
    shown = [identities[id].state is not TrackState.TENTATIVE for id in active]
    # What holds a known track may be the rest of it.
    with_known = {leader for n, leader in enumerate(seen.leader.tolist()) if shown[n] and leader != n}
    ripe: dict[int, list[int]] = {}
    for n, (id, leader, agreement) in enumerate(
        zip(active, seen.leader.tolist(), seen.agreement.tolist(), strict=True)
    ):
        life = identities[id]
        if seen.sure is not None:
            counts = (_HARDLY + (_STANDS_OUT - _HARDLY) * float(seen.sure[n])) * (1 + moved / _ANEW)
            life.proof = (life.proof or 1.0) + counts * (agreement >= _OWN and n not in with_known)
        if seen.told_apart is not None:
            step = 1 if seen.told_apart[n] and agreement >= _OWN else -1
            life.told_apart = min(_MEMORY, max(0, life.told_apart + step))
        if agreement >= _OWN:
            life.own = min(_CREDIT, life.own + 1)
        elif leader >= 0:
            life.own = max(-_PATIENCE, life.own - 1)
        if leader not in (-1, n) and life.own <= -_PATIENCE:
            ripe.setdefault(leader, []).append(n)
    pairs = []
    for leader, parts in ripe.items():
        ending = [n for n in parts if not shown[n] and not (shown[leader] and ages[n] >= ages[leader])]
        known = [n for n in parts if shown[n]]
        if not shown[leader] and len(known) == 1 and ages[known[0]] > max(ages[n] for n in (leader, *ending)):
            ending += known
        pairs += [(leader, n) for n in ending]
    return sorted(pairs, key=lambda pair: pair[1])
