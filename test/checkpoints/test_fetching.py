"""Fetching from a server on this machine that behaves badly in every way that servers do."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mastsam_ros.checkpoints import command, fetching
from mastsam_ros.checkpoints.fetching import fetch, fetch_from
from mastsam_ros.checkpoints.table import CHECKPOINTS, Checkpoint, is_verified, recorded_sha256, verify
from mastsam_ros.cli import main
from mastsam_ros.types import ModelError

CONTENT = bytes(range(256)) * 12_000  # 3 MB: several blocks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` at every address but /absent.pth."""

    content = CONTENT
    etag = '"one"'
    ranges = True
    breaks_after: int | None = None
    """Bytes after which the connection is closed, once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        """The Range header of every request."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if self.path == "/absent.pth":
            self.send_error(404)
            return
        start = 0
        if server.ranges and "Range" in self.headers and self.headers["If-Range"] == server.etag:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        if server.breaks_after is not None:
            body, server.breaks_after = body[: server.breaks_after], None
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def checkpoint(server: Server) -> Checkpoint:
    return Checkpoint("tiny", "a tiny model", f"{address(server)}/tiny.pth", len(CONTENT), "Apache-2.0", DIGEST)


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_a_file_is_fetched_checked_and_recorded(checkpoint: Checkpoint, server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = fetch(checkpoint, tmp_path / "deep" / "folder", lambda done, total: told.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert is_verified(checkpoint, path.parent) and recorded_sha256(path) == DIGEST
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.pth", "tiny.pth.sha256"]
    assert told[0] == (0, len(CONTENT)) and told[-1] == (len(CONTENT), len(CONTENT))
    fetch(checkpoint, path.parent)
    assert len(server.asked) == 1


@pytest.mark.parametrize("broken_after", [1, 1_500_000, len(CONTENT) - 1])
def test_a_fetch_that_broke_off_goes_on(
    checkpoint: Checkpoint, server: Server, tmp_path: Path, broken_after: int
) -> None:
    server.breaks_after = broken_after
    with pytest.raises(ModelError, match=rf"broke off after {broken_after:,} of 3,072,000 bytes.*goes on where"):
        fetch(checkpoint, tmp_path)
    assert not (tmp_path / "tiny.pth").exists() and not is_verified(checkpoint, tmp_path)
    assert fetch(checkpoint, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={broken_after}-"]


@pytest.mark.parametrize("fault", ["no ranges", "another version", "no version"])
def test_parts_of_two_versions_are_never_mixed(
    checkpoint: Checkpoint, server: Server, tmp_path: Path, fault: str
) -> None:
    server.breaks_after = 1_000_000
    server.content = CONTENT[::-1]
    if fault == "no version":
        server.etag = ""
    with pytest.raises(ModelError, match="broke off"):
        fetch(checkpoint, tmp_path)
    server.content = CONTENT
    server.ranges = fault != "no ranges"
    if fault == "another version":
        server.etag = '"two"'
    assert fetch(checkpoint, tmp_path).read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing_behind(checkpoint: Checkpoint, server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(ModelError, match=rf"SHA-256 [0-9a-f]{{64}}, expected {DIGEST}"):
        fetch(checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_is_refused_before_anything_is_written(
    checkpoint: Checkpoint, server: Server, tmp_path: Path
) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(ModelError, match="offers 26 bytes, expected 3,072,000"):
        fetch(checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_addresses_that_do_not_answer(checkpoint: Checkpoint, server: Server, tmp_path: Path) -> None:
    absent = dataclasses.replace(checkpoint, address=f"{address(server)}/absent.pth")
    with pytest.raises(ModelError, match="absent.pth answers 404 Not Found"):
        fetch(absent, tmp_path)
    nobody = dataclasses.replace(checkpoint, address="http://127.0.0.1:1/tiny.pth")
    with pytest.raises(ModelError, match="cannot fetch http://127.0.0.1:1/tiny.pth: .*refused"):
        fetch(nobody, tmp_path)


def test_a_full_disk(checkpoint: Checkpoint, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: full)
        with pytest.raises(ModelError, match=r"0.00 GB free, 0.07 GB are needed"):
            fetch(checkpoint, tmp_path)
    assert server.asked == []

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fetching.os, "fsync", no_space)
        with pytest.raises(ModelError, match="cannot write .*tiny.pth.part: No space left"):
            fetch(checkpoint, tmp_path)
    assert not (tmp_path / "tiny.pth").exists()
    assert fetch(checkpoint, tmp_path).read_bytes() == CONTENT


def test_a_copy_instead_of_the_network(checkpoint: Checkpoint, server: Server, tmp_path: Path) -> None:
    copy = tmp_path / "usb" / "copy.pth"
    copy.parent.mkdir()
    copy.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelError, match="3,071,999 bytes, tiny.pth has 3,072,000"):
        fetch_from(copy, checkpoint, tmp_path)
    copy.write_bytes(CONTENT)
    assert fetch_from(copy, checkpoint, tmp_path).read_bytes() == CONTENT
    assert is_verified(checkpoint, tmp_path) and server.asked == []
    with pytest.raises(ModelError, match="no file at"):
        fetch_from(tmp_path / "absent", checkpoint, tmp_path)


def test_a_hash_that_nobody_publishes_is_recorded_and_held_to(checkpoint: Checkpoint, tmp_path: Path) -> None:
    unpublished = dataclasses.replace(checkpoint, sha256="")
    path = fetch(unpublished, tmp_path)
    assert recorded_sha256(path) == DIGEST and verify(unpublished, path) == DIGEST
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(ModelError, match=f"expected {DIGEST}"):
        verify(unpublished, path)


def test_two_at_once_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with fetching._alone(tmp_path), pytest.raises(ModelError, match="another process is fetching"):
        fetch(checkpoint, tmp_path)


def test_the_command(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CHECKPOINTS, "tiny", checkpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["weights", "list"]) == 0
    listed = capsys.readouterr().out
    assert str(tmp_path / "mastsam_ros") in listed and "tiny       a tiny model, 0.00 GB: not here" in listed
    assert "CC BY-NC-SA 4.0 (non-commercial)" in listed and checkpoint.address in listed

    assert main(["weights", "fetch", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("licence: Apache-2.0") < shown.index(DIGEST)
    assert main(["weights", "list"]) == 0
    assert "a tiny model, 0.00 GB: here, found right when it was fetched" in capsys.readouterr().out

    assert main(["weights", "verify"]) == 0
    assert f"tiny: SHA-256 {DIGEST}, right" in capsys.readouterr().out
    (tmp_path / "mastsam_ros" / "tiny.pth").write_bytes(CONTENT[::-1])
    monkeypatch.setitem(CHECKPOINTS, "other", dataclasses.replace(checkpoint, name="other", address="x/other.pth"))
    (tmp_path / "mastsam_ros" / "other.pth").write_bytes(CONTENT)
    assert main(["weights", "verify"]) == 1
    told = capsys.readouterr()
    assert (
        f"expected {DIGEST}: it is damaged or another file; delete it and run `mastsam weights fetch tiny`" in told.out
    )
    assert f"other: SHA-256 {DIGEST}, right" in told.out and "1 of 2 checkpoints are not right: tiny" in told.err
    assert main(["weights", "fetch", "tiny"]) == 1
    assert "here already" in capsys.readouterr().out

    assert main(["weights", "fetch", "sam"]) == 1
    assert "no released checkpoint is called 'sam': there are mast3r, sam_vit_h" in capsys.readouterr().err
    assert main(["weights", "fetch", "yonigozlan/EdgeTAM-hf"]) == 1
    hint = "run `hf download yonigozlan/EdgeTAM-hf --local-dir EdgeTAM-hf`"
    assert hint in capsys.readouterr().err and hint[5:-1] in listed
    assert main(["weights", "fetch", "tiny", "mast3r", "--from", "x"]) == 1
    assert main(["weights", "verify", "--directory", str(tmp_path / "empty")]) == 0


def test_a_bar_counts_from_where_the_fetch_goes_on() -> None:
    with command._Bar("file", 100) as bar:
        bar.show(40, 100)
        bar.show(100, 100)
        assert bar._shown == 100
