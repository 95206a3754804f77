"""Where predicted label images lie: folders of PNG, or bags of results, written by the node or `mastsam replay`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mastsam_ros.evaluation.datasets import LabelledSequence
from mastsam_ros.io.sources import BAG_SUFFIXES, is_bag
from mastsam_ros.types import InputError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Predicted:
    """A sequence's predictions. sequence: its frames that have labels; labels: by stem; notes: what to say of them."""

    sequence: LabelledSequence
    labels: Mapping[str, Path]
    notes: tuple[str, ...] = ()


def paired(prediction: Path, sequences: Sequence[LabelledSequence], unpacked: Path) -> list[Predicted]:
    """Every sequence that has predictions.

    Looks in PRED/<sequence>/labels, PRED/<sequence>, and, for a single sequence or one whose name is in PRED's
    path, in PRED/labels and PRED: for PNG label images under the frames' names, or a bag of results, whose label images
    are written to the folder `unpacked` (see `_from_bag`).

    Raises InputError if nothing fits or, in a folder, a frame with truth has no label image.
    """
    if not prediction.exists():
        raise InputError(f"there is no {prediction}: expected a folder of predictions, or a bag of results")
    own_names = {prediction.resolve().name, prediction.resolve().parent.name, prediction.stem}
    found: list[Predicted] = []
    without = []
    for sequence in sequences:
        places = [prediction / sequence.name / "labels", prediction / sequence.name]
        places += [prediction / f"{sequence.name}{suffix}" for suffix in BAG_SUFFIXES]
        if len(sequences) == 1 or sequence.name in own_names:
            places += [prediction / "labels", prediction]
        place = next((place for place in places if _is_bag(place) or _pngs(place)), None)
        if place is None:
            without.append(sequence.name)
        elif _is_bag(place):
            found.append(_from_bag(place, sequence, unpacked / str(len(found))))
        else:
            found.append(_from_folder(place, sequence))
    if not found:
        raise InputError(
            f"{prediction} holds no labels for {_some(without)}; expected <sequence>/*.png, <sequence>/labels/*.png"
            f" or a bag of results <sequence>/; found: {_some(_content(prediction)) or 'an empty folder'}"
        )
    if without:
        _LOG.warning("no predictions, left out: %s", ", ".join(without))
    return found


def _from_folder(folder: Path, sequence: LabelledSequence) -> Predicted:
    labels = _pngs(folder)
    missing = [files.stem for files in sequence.frames if files.stem not in labels]
    if missing:
        raise InputError(
            f"{sequence.name}: {len(missing)} of {len(sequence.frames)} frames with truth have no label image"
            f" in {folder}, the first is {missing[0]}.png; there are {len(labels)} others:"
            f" {_some(path.name for path in labels.values())}"
        )
    return Predicted(sequence, labels)


def _from_bag(bag: Path, sequence: LabelledSequence, folder: Path) -> Predicted:
    """Label images belong to the frames of their stamp; to a truth without stamps in their order, one for each frame.

    Frames that the node did not answer are left out, and a note says how many. Raises InputError if nothing fits.
    """
    from mastsam_ros.evaluation.bag_data import label_topic, unpack_labels

    topic = label_topic(bag)
    by_stamp = unpack_labels(bag, topic, folder)
    frames = sequence.frames
    if any(files.stamp_ns is None for files in frames):
        if len(by_stamp) != len(frames):
            raise InputError(
                f"{sequence.name} has {len(frames)} frames without stamps, {topic} in {bag} {len(by_stamp)} label"
                " images: which belongs to which is not known; give the bag that was played as --ground-truth,"
                " and --truth"
            )
        return Predicted(
            sequence, {files.stem: by_stamp[stamp] for files, stamp in zip(frames, sorted(by_stamp), strict=True)}
        )
    answered = tuple(files for files in frames if files.stamp_ns in by_stamp)
    if not answered:
        first_label, first_frame = min(by_stamp), min(files.stamp_ns or 0 for files in frames)
        raise InputError(
            f"no label image on {topic} in {bag} has the stamp of a frame of {sequence.name}: the first label's is"
            f" {first_label} ns, the first frame's {first_frame} ns"
        )
    labels = {files.stem: by_stamp[files.stamp_ns] for files in answered if files.stamp_ns is not None}
    left_out = len(frames) - len(answered)
    notes = (f"{left_out} of {len(frames)} frames have no labels in {bag.name} and are not scored",) if left_out else ()
    return Predicted(replace(sequence, frames=answered), labels, notes)


def _is_bag(path: Path) -> bool:
    return path.exists() and is_bag(path)


def _pngs(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.png"))} if folder.is_dir() else {}


def _content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]


def _some(names: Iterable[str], most: int = 6) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
