"""`mastsam bench --cross-validate`: settings are chosen on all sequences but one and scored on that one, in turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mastsam_ros.evaluation.measured import FIGURES, RGB, RGB_D, VIDEO, Changes, Figures, Source
from mastsam_ros.evaluation.tables import table
from mastsam_ros.setting_fields import Scalar
from mastsam_ros.settings import Settings
from mastsam_ros.types import MastsamError

GRID: dict[str, tuple[tuple[Scalar, ...], tuple[str, ...]]] = {
    "regions.boundary_cost": ((12.0, 17.0, 24.0), (VIDEO, RGB)),
    "regions.contrast_weight": ((1.0, 2.0, 4.0), (VIDEO, RGB)),
    "regions.prior_weight": ((0.2, 0.4, 0.7), (VIDEO, RGB)),
    "regions.crease_angle_deg": ((30.0, 40.0, 50.0), (RGB_D,)),
}
"""Setting -> the values to choose from, and the kinds of source that it can change anything for; in this order."""
MARGIN = 0.001
"""Of the merit: by so much a value must be better than the default to be chosen."""
_MERIT = {"best track IoU": 1.0, "consistency %": 0.01, "tube IoU": 1.0, "H %": 0.01}
"""What settings are chosen by: how well things are found and how well they keep their ids, in equal parts."""


class FigureStore(Protocol):
    """Where figures come from: `Measured`."""

    def prepare(self, wanted: Iterable[tuple[Source, Changes]]) -> list[str]:
        """Makes sure that they are there; a line for each that cannot be."""

    def figures(self, source: Source, changes: Changes) -> Figures:
        """Figures that were made sure of."""


@dataclass(frozen=True)
class Fold:
    """One sequence left out. chosen: the settings that were chosen on the others, where they are not the defaults.

    figures, defaults: source -> its figures with them, and with the defaults.
    """

    left_out: str
    chosen: Changes
    figures: dict[str, Figures]
    defaults: dict[str, Figures]


def merit(figures: Mapping[str, float | None]) -> float:
    """One number in [0, 1] to choose by."""
    return float(np.mean([weight * (figures[head] or 0.0) for head, weight in _MERIT.items() if head in figures]))


def relevant(source: Source, changes: Changes) -> Changes:
    """Those that can change anything for this source."""
    return tuple(change for change in changes if source.kind in GRID[change[0]][1])


def cross_validate(sources: Sequence[Source], settings: Settings, store: FigureStore) -> list[Fold]:
    """Leaves out every sequence in turn, and chooses one setting after the other on the rest; a fold per sequence.

    A value is taken instead of the default if the mean merit over the kinds of source is plainly higher with it. Raises
    MastsamError if anything cannot be measured; what was, is kept.
    """

    def prepare(wanted: Iterable[tuple[Source, Changes]]) -> None:
        failed = store.prepare((source, relevant(source, changes)) for source, changes in wanted)
        if failed:
            raise MastsamError(f"cross-validation stopped, what was measured is kept: {failed[0]}")

    def figures(source: Source, changes: Changes) -> Figures:
        return store.figures(source, relevant(source, changes))

    left_out = list(dict.fromkeys(source.sequence.name for source in sources))
    rest = {name: [source for source in sources if source.sequence.name != name] for name in left_out}
    defaults = settings.flat()
    chosen: dict[str, Changes] = dict.fromkeys(left_out, ())
    for path, (grid, kinds) in GRID.items():
        values = list(dict.fromkeys((defaults[path], *grid)))
        choices = {name: [was, *((*was, (path, value)) for value in values[1:])] for name, was in chosen.items()}
        prepare((source, one) for name in left_out for one in choices[name] for source in rest[name])
        for name in left_out:
            scores = []
            for one in choices[name]:
                # Mean over the kinds of the mean over the sources of that kind, so that no kind outvotes another.
                of = [[merit(figures(s, one)) for s in rest[name] if s.kind == kind] for kind in kinds]
                means = [float(np.mean(merits)) for merits in of if merits]
                scores.append(float(np.mean(means)) if means else 0.0)
            best = int(np.argmax(scores))
            chosen[name] = choices[name][best if scores[best] >= scores[0] + MARGIN else 0]
    prepare((source, changes) for source in sources for changes in ((), chosen[source.sequence.name]))
    own = {name: [source for source in sources if source.sequence.name == name] for name in left_out}
    return [
        Fold(
            name,
            chosen[name],
            {source.name: figures(source, chosen[name]) for source in own[name]},
            {source.name: figures(source, ()) for source in own[name]},
        )
        for name in left_out
    ]


def folds_table(folds: Sequence[Fold]) -> str:
    """What was chosen without each sequence, and what that is worth on it."""
    rows: list[tuple[str, list[Any]]] = []
    for fold in folds:
        with_chosen, with_defaults = (np.mean([merit(f) for f in of.values()]) for of in (fold.figures, fold.defaults))
        said = ", ".join(f"{path.partition('.')[2]} {value:g}" for path, value in fold.chosen) or "the defaults"
        rows.append((fold.left_out, [said, float(with_chosen), float(with_defaults)]))
    return table(["left out", "chosen on the others", "merit", "defaults"], rows, "s .3f .3f")


def spread_table(folds: Sequence[Fold], sources: Sequence[Source]) -> str:
    """Mean and standard deviation over the sources of each origin and kind: held out, and with the defaults."""
    held_out = {name: figures for fold in folds for name, figures in fold.figures.items()}
    defaults = {name: figures for fold in folds for name, figures in fold.defaults.items()}
    digits = {column.head: column.format for columns in FIGURES.values() for column in columns}
    rows: list[tuple[str, list[Any]]] = []
    for origin, kind in dict.fromkeys((source.origin, source.kind) for source in sources):
        names = [source.name for source in sources if (source.origin, source.kind) == (origin, kind)]
        for title, figures in (("chosen on the others", held_out), ("defaults", defaults)):
            cells = [_spread([figures[name].get(head) for name in names], digits[head]) for head in digits]
            rows.append((f"{origin} {kind}, {title}", [len(names), *cells]))
    return table(["mean ± sd", "sources", *digits], rows, "d" + " s" * len(digits))


def _spread(values: Sequence[float | None], digits: str) -> str | None:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):{digits}} ± {np.std(known):{digits}}" if known else None
