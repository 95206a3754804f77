"""Compares two versions' speed: python bench/in_turn.py OTHER DATA [NAME ...] [--upcoming] [--depth] [--frames N].

OTHER: a folder with another version's `mastsam_ros`, as `git worktree add OTHER COMMIT` makes one. DATA: a folder of
videos or scenes, or of both, as for `mastsam bench`; all are taken, or those with a NAME. Both versions run in a
process of their own and step through the same sequence, a frame each in turn, so that both meet the same moods of the
machine. Prints how long a step takes in either, the ratio of the sums, the median of the frames' ratios, and whether
all labels are the same.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

WARM_UP = 3
"""Frames that are not counted."""


def main() -> None:
    """Prints a line for each sequence."""
    usage, _, details = (__doc__ or "").partition(": python ")
    parser = argparse.ArgumentParser(description=usage, epilog=details.partition("\n\n")[2])
    parser.add_argument("other", type=Path, metavar="OTHER")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--depth", action="store_true", help="with depth and K, where a sequence has them")
    parser.add_argument("--upcoming", action="store_true", help="here, each step knows the next frame and prepares it")
    parser.add_argument("--frames", type=int, default=60, help="of each sequence (default 60)")
    arguments = parser.parse_intermixed_args()
    from mastsam_ros.evaluation.bench import open_data

    here = Path(__file__).resolve().parents[1]
    videos, scenes = open_data(arguments.data, arguments.names or None)
    for sequence in videos + scenes:
        frames = min(arguments.frames, len(sequence.frames))
        of_both = [str(arguments.data.resolve()), sequence.name, str(frames), str(int(arguments.depth))]
        versions = [
            started(folder.resolve(), [*of_both, str(int(upcoming))])
            for folder, upcoming in ((arguments.other, False), (here, arguments.upcoming))
        ]
        try:
            taken, same = in_turn(versions, frames)
        finally:
            for version in versions:
                version.kill()
                version.wait()
        theirs, ours = (times[WARM_UP:] for times in taken)
        ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
        print(
            f"{sequence.name}: {statistics.mean(theirs):.1f} ms there, {statistics.mean(ours):.1f} ms here, times"
            f" {sum(ours) / sum(theirs):.3f}, median {statistics.median(ratios):.3f}; labels"
            f" {'the same' if same else 'differ'}",
            flush=True,
        )


def started(folder: Path, of_version: list[str]) -> subprocess.Popen[str]:
    """A process with the version in that folder that does a step for each line that it reads."""
    return subprocess.Popen(
        [sys.executable, __file__, *of_version],
        env={**os.environ, "PYTHONPATH": str(folder), STEPPING: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def step(version: subprocess.Popen[str]) -> tuple[float, str]:
    """Milliseconds of its next step, and a digest of the labels. Raises RuntimeError where it has ended."""
    if version.stdin is None or version.stdout is None:
        raise RuntimeError("a version without pipes cannot be asked")
    with contextlib.suppress(BrokenPipeError):
        print(file=version.stdin, flush=True)
    spent, _, labels = version.stdout.readline().partition(" ")
    if not labels:
        raise RuntimeError(f"a version ended: {version.wait()}")
    return float(spent), labels


def in_turn(versions: list[subprocess.Popen[str]], frames: int) -> tuple[list[list[float]], bool]:
    """Milliseconds of each step of each version, and whether all labels were the same."""
    taken: list[list[float]] = [[] for _ in versions]
    same = True
    for frame in range(frames):
        labels = set()
        # Who goes first finds colder caches, and steps may alternate between light and heavy: the turns do it by twos.
        for number in (0, 1) if frame % 4 < 2 else (1, 0):
            spent, label = step(versions[number])
            taken[number].append(spent)
            labels.add(label)
        same &= len(labels) == 1
    return taken, same


STEPPING = "MASTSAM_STEPS_IN_TURN"
"""Set in the environment of a process that is one of the two versions."""


def step_when_asked(data: str, name: str, frames: str, depth: str, upcoming: str) -> None:
    """Steps through a sequence, a frame for each line read; prints milliseconds and a digest of the labels."""
    from mastsam_ros.evaluation.bench import open_data
    from mastsam_ros.pipeline import create_mastsam
    from mastsam_ros.settings import Settings

    videos, scenes = open_data(Path(data), [name])
    sequence = (videos + scenes)[0]
    system = create_mastsam(Settings())
    following = sequence.frame(0, bool(int(depth)))
    for index in range(int(frames)):
        frame, last = following, index + 1 == int(frames)
        following = frame if last else sequence.frame(index + 1, bool(int(depth)))
        # Other versions may not know what an upcoming frame is.
        known = {"upcoming": following} if int(upcoming) and not last else {}
        sys.stdin.readline()
        start = time.perf_counter()
        labels = system.step(frame, **known).labels
        spent = 1e3 * (time.perf_counter() - start)
        print(spent, hashlib.sha256(labels.tobytes()).hexdigest(), flush=True)


if __name__ == "__main__":
    if STEPPING in os.environ:
        step_when_asked(*sys.argv[1:])
    else:
        main()
