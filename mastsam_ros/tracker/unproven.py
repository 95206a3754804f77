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


def parts_of_wholes(
    active: list[int], ages: list[int], seen: Unprompted, identities: Identities
) -> list[tuple[int, int]]:
    """Pairs of tracks (0-based places in `active`) that are one thing: a part, and what it is a part of.

    A prompt finds again whatever was carried to it, so that a track which is asked for proves nothing by being found;
    what the segmenter sees unasked does. Of those that become one the oldest goes on, so that among them at most the
    oldest is shown under an id of its own: such a track is not ended here. ages: of the tracks, in frames.
    """
    ripe: dict[int, list[int]] = {}
    for n, (id, leader, agreement) in enumerate(
        zip(active, seen.leader.tolist(), seen.agreement.tolist(), strict=True)
    ):
        life = identities[id]
        if agreement >= _OWN:
            life.own = min(_CREDIT, life.own + 1)
        elif leader >= 0:
            life.own = max(-_PATIENCE, life.own - 1)
        if leader not in (-1, n) and life.own <= -_PATIENCE:
            ripe.setdefault(leader, []).append(n)
    shown = [identities[id].state is not TrackState.TENTATIVE for id in active]
    pairs = []
    for leader, parts in ripe.items():
        ending = [n for n in parts if not shown[n] and not (shown[leader] and ages[n] >= ages[leader])]
        known = [n for n in parts if shown[n]]
        if not shown[leader] and len(known) == 1 and ages[known[0]] > max(ages[n] for n in (leader, *ending)):
            ending += known
        pairs += [(leader, n) for n in ending]
    return sorted(pairs, key=lambda pair: pair[1])
