"""The queue of sequences: order, deaths, GPUs; the system run by workers; Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mastsam_ros import cli
from mastsam_ros.evaluation.datasets import read_labels
from mastsam_ros.evaluation.runs import run_task
from mastsam_ros.evaluation.workers import Failure, run_in_processes, run_on_ray, visible_gpus
from mastsam_ros.io.sample_scene import SampleScene

TASKS = """
import os, signal, time
from pathlib import Path
from mastsam_ros.types import InputError

def work(task, tell):
    name, folder = task
    for _ in range(3):
        tell()
    with (Path(folder) / name).open("a") as log:
        log.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\\n")
    attempts = len((Path(folder) / name).read_text().splitlines())
    if name.startswith("slow"):
        time.sleep(1.0)
    if name.startswith("dies") and (name == "dies always" or attempts == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "refused":
        raise InputError("there is\\nno image")
    return name.upper()
"""


class Count:
    def __init__(self) -> None:
        self.value = 0.0

    def update(self, n: float = 1) -> None:
        self.value += n


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that worker processes can import."""
    (tmp_path / "tasks_for_workers.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    sys.modules.pop("tasks_for_workers", None)
    import tasks_for_workers

    return tasks_for_workers.work


def test_a_worker_that_dies_is_tried_once_more_and_the_rest_is_kept(work, tmp_path: Path) -> None:
    names = ["slow", "quick", "dies once", "dies always", "refused", "last"]
    progress = Count()
    results = run_in_processes([(name, tmp_path) for name in names], work, 2, [], progress)
    assert results[:3] == ["SLOW", "QUICK", "DIES ONCE"] and results[5] == "LAST"
    assert isinstance(results[3], Failure) and "died 2 times" in results[3].reason and "SIGKILL" in results[3].reason
    assert results[4] == Failure("there is no image")
    attempts = {name: len((tmp_path / name).read_text().splitlines()) for name in names}
    assert attempts == {"slow": 1, "quick": 1, "dies once": 2, "dies always": 2, "refused": 1, "last": 1}
    assert progress.value == 3 * 5  # what died counts not at all


def test_every_worker_has_a_gpu_of_its_own(work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-7f")
    assert visible_gpus() == ["2", "GPU-7f"]
    run_in_processes([("slow 1", tmp_path), ("slow 2", tmp_path)], work, 2, visible_gpus(), Count())
    seen = {(tmp_path / name).read_text().split()[1] for name in ("slow 1", "slow 2")}
    assert seen == {"2", "GPU-7f"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for seed, path in ((1, "orbit"), (2, "look_away")):
        SampleScene(seed, path=path, frames=4, width=160, height=120).write_scene_folder(root / path)
    return root


def test_the_number_of_workers_does_not_change_the_result(data: Path, tmp_path: Path, capsys) -> None:
    figures = []
    for workers in (1, 2):
        output, file = tmp_path / f"out{workers}", tmp_path / f"{workers}.json"
        command = ["evaluate", "--run", str(data), "--workers", str(workers), "--output", str(output)]
        assert cli.main([*command, "--json", str(file), "--report", str(tmp_path / "page.html")]) == 0
        figures.append(json.loads(file.read_text()))
    assert figures[0]["sequences"] == figures[1]["sequences"] and list(figures[0]["sequences"]) == sorted(
        ["orbit", "look_away"]
    )
    for name in ("orbit", "look_away"):
        files = sorted((tmp_path / "out1" / name / "labels").iterdir())
        assert len(files) == 4
        for path in files:
            assert np.array_equal(read_labels(path), read_labels(tmp_path / "out2" / name / "labels" / path.name))
    told = capsys.readouterr().out
    assert "frames/s: look_away" in told and "H %" in told
    assert "worst frames" in (tmp_path / "page.html").read_text()
    # what was kept scores the same as predictions
    file = tmp_path / "again.json"
    assert cli.main(["evaluate", str(tmp_path / "out1"), "--ground-truth", str(data), "--json", str(file)]) == 0
    assert json.loads(file.read_text())["sequences"] == figures[0]["sequences"]


def test_a_sequence_that_fails_is_named_and_the_rest_is_kept(data: Path, tmp_path: Path, capsys) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for path in data.iterdir():
        (root / path.name).mkdir()
        for part in path.iterdir():
            (root / path.name / part.name).symlink_to(part)
    broken = root / "orbit" / "rgb"
    broken.unlink()
    broken.mkdir()
    file = tmp_path / "figures.json"
    command = ["evaluate", "--run", str(root), "--protocol", "identity", "--json", str(file), "--workers", "2"]
    assert cli.main(command) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and "orbit" in told.err and "no image" in told.err
    figures = json.loads(file.read_text())
    assert list(figures["sequences"]) == ["look_away"] and list(figures["failed"]) == ["orbit"]


def alive_in_group(group: int) -> list[str]:
    """The processes of a group that are there and not only waiting to be collected."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = path.read_text().rpartition(")")
            state, _, its_group = rest.split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(name)
    return found


def ended_by_interrupt(command: list[str], begun: Callable[[], bool], **variables: str) -> str:
    """Runs `mastsam`, sends Ctrl-C to it and all that it started once it has begun; its complaint. Nothing is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mastsam_ros.cli", *command],
        env={**os.environ, **variables},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not begun():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        complaint = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        end = time.monotonic() + 20
        while left := alive_in_group(process.pid):
            assert time.monotonic() < end, left
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            process.kill()
    return complaint


def test_an_interrupt_ends_workers_and_leaves_nothing_behind(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for n in range(12):
        (root / f"orbit{n}").symlink_to(data / "orbit")
    command = ["evaluate", "--run", str(root), "--workers", "2", "--output", str(tmp_path / "out")]
    complaint = ended_by_interrupt(command, lambda: any((tmp_path / "out").glob("*/labels/*.png")))
    assert complaint.strip() == "mastsam: interrupted"


BLOCKED = """
import signal
from mastsam_ros.evaluation.workers import run_in_processes

class Nobody:
    def update(self, n=1):
        pass

def work(task, tell):
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())

if __name__ == "__main__":
    print(run_in_processes([1, 2], work, 2, [], Nobody()))
"""


def test_no_worker_is_interrupted_not_even_the_first(tmp_path: Path) -> None:
    (tmp_path / "blocked.py").write_text(BLOCKED)
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    told = subprocess.run(
        [sys.executable, str(tmp_path / "blocked.py")], env=environment, capture_output=True, text=True
    )
    assert told.stdout.strip() == "[True, True]", told.stderr


def test_an_interrupt_ends_scoring_at_once(data: Path, tmp_path: Path) -> None:
    content = json.loads((data / "orbit" / "scene.json").read_text())
    for part in ("truth", "labels"):
        (tmp_path / part / "instance").mkdir(parents=True)
    poses = content["camera_to_world_optical"]
    for n in range(20_000):  # would take minutes
        file = sorted((data / "orbit" / "instance").iterdir())[n % 4] if n < 4 else tmp_path / f"{n % 4:06d}.png"
        if n < 4:
            (tmp_path / f"{n:06d}.png").symlink_to(file)
        for part in ("truth/instance", "labels"):
            (tmp_path / part / f"{n:06d}.png").symlink_to(file)
    content["camera_to_world_optical"] = [poses[n % 4] for n in range(20_000)]
    (tmp_path / "truth" / "scene.json").write_text(json.dumps(content))
    command = ["evaluate", str(tmp_path / "labels"), "--ground-truth", str(tmp_path / "truth")]
    (tmp_path / "tmp").mkdir()  # the command works in a folder there
    command += ["--protocol", "davis"]

    def begun() -> bool:
        there = any((tmp_path / "tmp").iterdir())
        time.sleep(3.0 if there else 0.0)  # so that it scores by now
        return there

    complaint = ended_by_interrupt(command, begun, TMPDIR=str(tmp_path / "tmp"))
    assert complaint.strip() == "mastsam: interrupted"


def test_a_bag_with_a_topic_of_labels_is_data(tmp_path: Path) -> None:
    bag = SampleScene(1, frames=4, width=160, height=120).write_bag(tmp_path / "bag")
    labels, file = tmp_path / "labels", tmp_path / "figures.json"
    assert cli.main(["run", str(bag), "--output", str(labels)]) == 0
    command = ["evaluate", str(labels), "--ground-truth", str(bag), "--truth", "/truth/instances"]
    assert cli.main([*command, "--json", str(file)]) == 0
    scored = json.loads(file.read_text())["sequences"]["bag"]
    assert cli.main(["evaluate", "--run", str(bag), "--truth", "/truth/instances", "--json", str(file)]) == 0
    assert json.loads(file.read_text())["sequences"]["bag"] == scored and scored["frames"] == 4


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--workers", "0"], "--workers"),
        (["--sequences", "nothing"], "look_away"),
        (["--compare", "mastsam=somewhere"], "another name"),
    ],
)
def test_what_does_not_fit_is_one_line(data: Path, capsys, options: list[str], word: str) -> None:
    assert cli.main(["evaluate", "--run", str(data), *options]) == 1
    told = capsys.readouterr().err
    assert word in told and told.count("\n") == 1


def test_a_bag_without_its_truth_is_one_line(tmp_path: Path, capsys) -> None:
    bag = SampleScene(1, frames=2, width=80, height=60).write_bag(tmp_path / "bag")
    assert cli.main(["evaluate", "--run", str(bag)]) == 1
    assert "--truth TOPIC" in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(data: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["evaluate", "--run", str(data), "--ray", "auto"]) == 1
    told = capsys.readouterr().err
    assert "pip install" in told and told.count("\n") == 1


def test_ray_gives_the_same(work, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray")
    names = ["quick", "dies once", "dies always", "refused", "last"]
    progress = Count()
    results = run_on_ray([(name, tmp_path) for name in names], work, "local", [3] * 5, progress)
    assert [results[0], results[1], results[4]] == ["QUICK", "DIES ONCE", "LAST"] and progress.value == 15
    assert isinstance(results[2], Failure) and "died" in results[2].reason
    assert results[3] == Failure("there is no image")
    assert run_task.__module__ == "mastsam_ros.evaluation.runs"  # importable on other machines
    figures = []
    for option in (["--ray", "local"], ["--workers", "2"]):
        file = tmp_path / "figures.json"
        output = ["--output", str(tmp_path / "out"), "--json", str(file)]
        assert cli.main(["evaluate", "--run", str(data), *option, *output]) == 0
        figures.append(json.loads(file.read_text())["sequences"])
    assert figures[0] == figures[1]
