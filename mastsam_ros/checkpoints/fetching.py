"""Fetching a checkpoint: resumed where it broke off, checked, and put in place only when it is whole and right."""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mastsam_ros.checkpoints.table import Checkpoint, record_path, recorded_sha256, sha256_of, verify
from mastsam_ros.types import ModelError

_BLOCK = 1 << 20
_TIMEOUT_S = 60.0
_SPARE_BYTES = 64 << 20
"""Left free on the disk: a full one harms more than this program."""


Progress = Callable[[int, int], object]
"""Called with how many of how many bytes are there."""


def _silent(done: int, total: int) -> None:
    pass


def fetch(checkpoint: Checkpoint, directory: Path, progress: Progress = _silent) -> Path:
    """The checkpoint's file in `directory`, downloaded unless it is there, verified, its hash recorded beside it.

    A download that breaks off leaves `<file>.part`, with which the next call goes on. progress(done, total): bytes.
    Raises ModelError for an address that does not answer, a file that is not the published one, or a full disk.
    """
    return _in_place(checkpoint, directory, lambda part: _download(checkpoint, part, progress))


def fetch_from(file: Path, checkpoint: Checkpoint, directory: Path, progress: Progress = _silent) -> Path:
    """The same from a copy of the file, for machines without a network. Raises ModelError."""
    if not file.is_file():
        raise ModelError(f"no file at '{file}'")
    if file.stat().st_size != checkpoint.size:
        raise ModelError(
            f"{file} has {file.stat().st_size:,} bytes, {checkpoint.file_name} has {checkpoint.size:,}: another file?"
        )
    return _in_place(checkpoint, directory, lambda part: _copy(file, checkpoint, part, progress))


def _in_place(checkpoint: Checkpoint, directory: Path, get: Callable[[Path], None]) -> Path:
    path = directory / checkpoint.file_name
    part = path.with_name(f"{path.name}.part")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _alone(directory):
            if path.is_file():
                _record(path, verify(checkpoint, path))
                return path
            get(part)
            digest = sha256_of(part)
            expected = checkpoint.sha256 or recorded_sha256(path)
            if part.stat().st_size != checkpoint.size or (expected and digest != expected):
                size = part.stat().st_size
                _discard(part)  # going on with it would never give the right file
                raise ModelError(
                    f"what came for {checkpoint.name}, {size:,} bytes, has SHA-256 {digest}, expected"
                    f" {expected or f'{checkpoint.size:,} bytes'}: it is damaged or another file, and was removed"
                )
            _record(path, digest)
            os.replace(part, path)
            _validator_path(part).unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(f"cannot write {part}: {error.strerror or error}") from error
    return path


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keeps two processes from writing one file."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ModelError(f"another process is fetching into {directory}") from None
    finally:
        os.close(descriptor)


def _record(path: Path, digest: str) -> None:
    record = record_path(path)
    unfinished = record.with_name(f"{record.name}.part")
    unfinished.write_text(f"{digest}  {path.name}\n", encoding="ascii")
    os.replace(unfinished, record)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_path(part).unlink(missing_ok=True)


def _validator_path(part: Path) -> Path:
    """Holds the server's ETag or date of the file that `part` is a part of: parts of two versions must not mix."""
    return part.with_name(f"{part.name}.etag")


def _download(checkpoint: Checkpoint, part: Path, progress: Progress) -> None:
    there = part.stat().st_size if part.is_file() else 0
    if there == checkpoint.size:
        return
    validator_path = _validator_path(part)
    validator = validator_path.read_text(encoding="latin-1") if validator_path.is_file() else ""
    if there > checkpoint.size or not validator:
        there = 0
    _require_space(part.parent, checkpoint.size - there)
    request = urllib.request.Request(checkpoint.address, headers={"User-Agent": "mastsam_ros"})
    if there:
        request.add_header("Range", f"bytes={there}-")
        request.add_header("If-Range", validator)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            # Without support for ranges, or with another version of the file, the whole comes with status 200.
            start = there if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
            _require_size(checkpoint, start, answer.headers)
            validator_path.write_text(_validator_of(answer.headers), encoding="latin-1")
            with part.open("r+b" if start else "wb") as file:
                file.truncate(start)
                file.seek(start)
                _pour(answer, file, start, checkpoint.size, progress)
    except urllib.error.HTTPError as error:
        error.close()
        raise ModelError(
            f"{checkpoint.address} answers {error.code} {error.reason}; {_otherwise(checkpoint)}"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error
        begun = part.is_file() and part.stat().st_size > 0
        cure = _how_to_go_on(checkpoint) if begun else _otherwise(checkpoint)
        raise ModelError(f"cannot fetch {checkpoint.address}: {reason}; {cure}") from error
    arrived = part.stat().st_size
    if arrived < checkpoint.size:
        raise ModelError(
            f"{checkpoint.address} broke off after {arrived:,} of {checkpoint.size:,} bytes; "
            f"{_how_to_go_on(checkpoint)}"
        )


def _how_to_go_on(checkpoint: Checkpoint) -> str:
    return f"`mastsam weights fetch {checkpoint.name}` goes on where it stopped"


def _otherwise(checkpoint: Checkpoint) -> str:
    return f"a copy that came another way is taken by `mastsam weights fetch {checkpoint.name} --from FILE`"


def _require_size(checkpoint: Checkpoint, start: int, headers: http.client.HTTPMessage) -> None:
    length = headers.get("Content-Length", "")
    if length.isdigit() and start + int(length) != checkpoint.size:
        raise ModelError(
            f"{checkpoint.address} offers {start + int(length):,} bytes, expected {checkpoint.size:,}:"
            " the published file has changed, or something else answers"
        )


def _validator_of(headers: http.client.HTTPMessage) -> str:
    """A strong ETag, else the date of the last change, else nothing: then the next try starts anew."""
    etag = str(headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(headers.get("Last-Modified", ""))


def _copy(file: Path, checkpoint: Checkpoint, part: Path, progress: Progress) -> None:
    _require_space(part.parent, checkpoint.size)
    with file.open("rb") as source, part.open("wb") as target:
        _pour(source, target, 0, checkpoint.size, progress)


def _pour(
    source: BinaryIO | http.client.HTTPResponse, target: BinaryIO, start: int, size: int, progress: Progress
) -> None:
    """Writes what comes, but not more than `size` bytes in all; what was written is on the disk afterwards."""
    done = start
    progress(done, size)
    try:
        while done < size and (block := source.read(min(_BLOCK, size - done))):
            target.write(block)
            done += len(block)
            progress(done, size)
    finally:
        target.flush()
        os.fsync(target.fileno())


def _require_space(directory: Path, size: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < size + _SPARE_BYTES:
        raise ModelError(
            f"{directory} has {free / 1e9:.2f} GB free, {(size + _SPARE_BYTES) / 1e9:.2f} GB are needed:"
            " make room, or choose another folder with --directory"
        )
