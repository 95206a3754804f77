"""Processes of a session: what becomes of one that has done its work and does not end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mastsam_ros import node_session
from mastsam_ros.node_session import Process
from mastsam_ros.types import MastsamError


def _started(code: str, log: Path) -> Process:
    log.touch()
    return Process("player", subprocess.Popen([sys.executable, "-c", code]), log)


def test_a_process_that_has_written_its_result_and_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_session, "STOP_TIMEOUT_S", 0.2)
    result = tmp_path / "sent.json"
    hangs = _started(f"open({str(result)!r}, 'w').write('done'); import time; time.sleep(600)", tmp_path / "log")
    assert not hangs.ends([], result)
    assert hangs.child.returncode is not None and result.read_text() == "done"


def test_a_process_that_has_said_what_failed_and_hangs_is_ended_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_session, "STOP_TIMEOUT_S", 0.2)
    hangs = _started("import time; time.sleep(600)", tmp_path / "log")
    hangs.log.write_text("waiting\nplay: nobody subscribed to /image\n")
    with pytest.raises(MastsamError, match="play: nobody subscribed to /image"):
        hangs.ends([], tmp_path / "sent.json")
    assert hangs.child.returncode is not None


def test_what_a_process_does_not_say_is_waited_for_no_longer_than_asked(tmp_path: Path) -> None:
    waits = _started("import time; time.sleep(600)", tmp_path / "log")
    waits.log.write_text("waiting\n")
    assert waits.says("waiting", [])
    assert not waits.says("playing", [], 0.3)
    waits.log.write_text("waiting\nplaying\n")
    assert waits.says("playing", [], 0.3)
    waits.stop()


def test_a_process_that_ended_without_a_word_is_not_waited_for(tmp_path: Path) -> None:
    assert not _started("pass", tmp_path / "log").says("ready: ", [])


def test_a_process_that_fails_ends_the_wait_for_another(tmp_path: Path) -> None:
    waits = _started("import time; time.sleep(600)", tmp_path / "log")
    fails = _started("raise SystemExit(3)", tmp_path / "other")
    fails.log.write_text("no such image\n")
    with pytest.raises(MastsamError, match="status 3: no such image"):
        waits.says("ready: ", [fails])
    waits.stop()


def test_a_process_that_ends_by_itself_has_done_its_work(tmp_path: Path) -> None:
    assert _started("pass", tmp_path / "log").ends([], tmp_path / "sent.json")


def test_a_process_that_fails_is_told_by_its_last_line(tmp_path: Path) -> None:
    fails = _started("raise SystemExit(3)", tmp_path / "log")
    fails.log.write_text("what came before\nno such bag\n")
    with pytest.raises(MastsamError, match="status 3: no such bag"):
        fails.ends([], tmp_path / "sent.json")
