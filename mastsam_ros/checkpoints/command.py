"""`mastsam weights`: lists, fetches and verifies the released checkpoints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mastsam_ros.checkpoints.fetching import fetch, fetch_from
from mastsam_ros.checkpoints.table import (
    CHECKPOINTS,
    FOLDERS,
    Checkpoint,
    checkpoint_named,
    is_verified,
    recorded_sha256,
    verify,
    weights_directory,
)
from mastsam_ros.settings import Settings
from mastsam_ros.types import ModelError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands list, fetch and verify."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what is released, and what is here")
    fetching = actions.add_parser("fetch", help="download, check and put in place; goes on where it broke off")
    fetching.add_argument("names", nargs="+", metavar="NAME", help=", ".join(CHECKPOINTS))
    fetching.add_argument("--from", dest="file", type=Path, metavar="FILE", help="a copy, instead of the network")
    verifying = actions.add_parser("verify", help="read what is here and compare its hash")
    verifying.add_argument("names", nargs="*", metavar="NAME", help="default: all that are here")
    for action in (listing, fetching, verifying):
        action.add_argument("--directory", default="", metavar="DIR", help=f"default: {weights_directory()}")


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand. Returns the exit status; raises ModelError."""
    directory = weights_directory(arguments.directory or Settings().weights_directory)
    if arguments.action == "list":
        return _list(directory)
    if arguments.action == "verify":
        return _verify(arguments.names, directory)
    checkpoints = [checkpoint_named(name) for name in arguments.names]
    if arguments.file and len(checkpoints) > 1:
        raise ModelError("--from takes one file, so it takes one name")
    for checkpoint in checkpoints:
        _fetch(checkpoint, arguments.file, directory)
    return 0


def _list(directory: Path) -> int:
    sys.stdout.write(f"folder: {directory}\n")
    for checkpoint in CHECKPOINTS.values():
        sys.stdout.write(
            f"\n{checkpoint.name:<10} {checkpoint.model}, {_gigabytes(checkpoint.size)}:"
            f" {_state(checkpoint, directory)}\n"
            f"  {checkpoint.address}\n"
            f"  licence: {checkpoint.licence}\n"
            f"  SHA-256: {checkpoint.sha256 or 'none published; recorded when it is first fetched'}\n"
        )
    sys.stdout.write("\nFolders of transformers, for sam.checkpoint; its own program fetches them:\n")
    for folder in FOLDERS.values():
        sys.stdout.write(f"  {folder.model}, {folder.licence}: {folder.command}\n")
    return 0


def _state(checkpoint: Checkpoint, directory: Path) -> str:
    path = directory / checkpoint.file_name
    if is_verified(checkpoint, directory):
        return "here, found right when it was fetched"
    if path.is_file():
        return f"here, not verified: run `mastsam weights fetch {checkpoint.name}` to check it"
    part = path.with_name(f"{path.name}.part")
    if part.is_file():
        return f"{100 * part.stat().st_size // checkpoint.size} % fetched"
    return "not here"


def _verify(names: list[str], directory: Path) -> int:
    here = [c for c in CHECKPOINTS.values() if (directory / c.file_name).is_file()]
    wanted = [checkpoint_named(name) for name in names] or here
    if not wanted:
        sys.stdout.write(f"no checkpoint in {directory}\n")
    wrong = []
    for checkpoint in wanted:
        path = directory / checkpoint.file_name
        known = checkpoint.sha256 or recorded_sha256(path)
        try:
            with _Bar(f"verifying {checkpoint.name}", checkpoint.size) as bar:
                digest = verify(checkpoint, path, bar.add)
        except ModelError as error:
            wrong.append(checkpoint.name)
            sys.stdout.write(f"{checkpoint.name}: {error}\n")
            continue
        held_to = "right" if known else "nothing to compare it with: fetch it to record it"
        sys.stdout.write(f"{checkpoint.name}: SHA-256 {digest}, {held_to}\n")
    if wrong:
        raise ModelError(f"{len(wrong)} of {len(wanted)} checkpoints are not right: {', '.join(wrong)}")
    return 0


def _fetch(checkpoint: Checkpoint, file: Path | None, directory: Path) -> None:
    path = directory / checkpoint.file_name
    source = f"here already, in {directory}: checking it" if path.is_file() else f"from {file or checkpoint.address}"
    sys.stdout.write(f"{checkpoint.model}, {_gigabytes(checkpoint.size)}\nlicence: {checkpoint.licence}\n{source}\n")
    sys.stdout.flush()
    with _Bar(checkpoint.file_name, checkpoint.size) as bar:
        if file:
            path = fetch_from(file, checkpoint, directory, bar.show)
        else:
            path = fetch(checkpoint, directory, bar.show)
    how = "the right one" if checkpoint.sha256 else "recorded beside it; none is published to compare it with"
    sys.stdout.write(f"{path}\nSHA-256 {recorded_sha256(path)}, {how}\n")


class _Bar:
    """A progress bar, on a terminal only."""

    def __init__(self, title: str, size: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=size, desc=title, unit="B", unit_scale=True, unit_divisor=1000, disable=None)
        self._shown = 0

    def add(self, count: int) -> None:
        """So many bytes more."""
        self._bar.update(count)

    def show(self, done: int, total: int) -> None:
        """So many bytes in all; the first call may start above 0, where an earlier fetch broke off."""
        self._bar.update(done - self._shown)
        self._shown = done

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
