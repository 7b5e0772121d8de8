"""Nothing that a kept process started outlives its keeper, whichever of them is killed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from flip_nnunet.keeper import processes_of

KEEP = """
import sys
from pathlib import Path
from flip_nnunet.keeper import keep
sys.exit(keep(sys.argv[2:], Path(sys.argv[1]), {}))
"""
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
PARENT_OF_A_SESSION = [
    sys.executable,
    "-c",
    f"import subprocess, time; subprocess.Popen({SLEEP!r}, start_new_session=True); time.sleep(600)",
]
DEADLINE_S = 30.0


@contextlib.contextmanager
def kept(command: list[str], kit: Path) -> Iterator[subprocess.Popen[bytes]]:
    keeper = subprocess.Popen([sys.executable, "-c", KEEP, str(kit), *command])
    try:
        yield keeper
    finally:
        if keeper.poll() is None:
            keeper.terminate()
            keeper.wait(DEADLINE_S)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def wait_for_both(kit: Path) -> None:
    until(lambda: len(processes_of(kit)) == 2, "the kept process and its child did not start")


def main_process(keeper: subprocess.Popen[bytes]) -> psutil.Process:
    [process] = psutil.Process(keeper.pid).children()
    return process


def test_the_status_of_the_kept_process_is_the_keepers(tmp_path: Path):
    with kept([sys.executable, "-c", "raise SystemExit(7)"], tmp_path) as keeper:
        assert keeper.wait(DEADLINE_S) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_keeper_leaves_no_process_of_any_session(tmp_path: Path, number: signal.Signals):
    with kept(PARENT_OF_A_SESSION, tmp_path) as keeper:
        wait_for_both(tmp_path)
        keeper.send_signal(number)
        keeper.wait(DEADLINE_S)
        assert processes_of(tmp_path) == []


def test_when_the_kept_process_is_killed_its_children_go_and_the_keeper_says_so(tmp_path: Path):
    with kept(PARENT_OF_A_SESSION, tmp_path) as keeper:
        wait_for_both(tmp_path)
        main_process(keeper).kill()
        assert keeper.wait(DEADLINE_S) == 128 + signal.SIGKILL
        assert processes_of(tmp_path) == []


def test_when_the_keeper_is_killed_the_kept_process_dies_and_the_next_keeper_ends_the_rest(tmp_path: Path):
    with kept(PARENT_OF_A_SESSION, tmp_path) as keeper:
        wait_for_both(tmp_path)
        kept_process = main_process(keeper)
        left = {process.pid for process in processes_of(tmp_path)} - {kept_process.pid}
        keeper.kill()
        until(lambda: not kept_process.is_running(), "the kept process outlived its keeper")
    with kept(SLEEP, tmp_path):
        until(lambda: not any(psutil.pid_exists(pid) for pid in left), "a process of the earlier keeper is left")


def test_a_keeper_leaves_other_kits_alone(tmp_path: Path):
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.mkdir()
    other.mkdir()
    with kept(SLEEP, other):
        until(lambda: len(processes_of(other)) == 1, "did not start")
        with kept([sys.executable, "-c", ""], ours) as keeper:
            assert keeper.wait(DEADLINE_S) == 0
        assert len(processes_of(other)) == 1


def test_a_process_that_is_just_being_started_is_not_missed(tmp_path: Path):
    starts_one_after_the_other = (
        f"import subprocess, time\nwhile True:\n    subprocess.Popen({SLEEP!r}, start_new_session=True, env={{}})"
    )
    with kept([sys.executable, "-c", starts_one_after_the_other], tmp_path) as keeper:
        until(lambda: len(psutil.Process(keeper.pid).children(recursive=True)) > 3, "nothing was started")
        family = psutil.Process(keeper.pid).children(recursive=True)
        main_process(keeper).kill()
        keeper.wait(DEADLINE_S)
        assert [process for process in family if process.is_running()] == []
