"""Whatever runs for a run at a Trust is found, and ended where the framework doesn't."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from flip_chassis.ids import uuid7
from flip_contracts.base import RunId
from flip_trainer_node import trainers

SCRIPT = "flip_flare.trainer_script"
RUN, OTHER = RunId(uuid7()), RunId(uuid7())


def started(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *arguments])


def warden_of(run: RunId) -> subprocess.Popen[bytes]:
    order = {"box": {"readable": [f"/runs/{run}"]}}
    return started("flip_nnunet.sandbox.warden", json.dumps(order), "--", "bwrap")


@pytest.fixture
def running() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    processes = {
        "trainer": started(SCRIPT, "--run", str(RUN)),
        "warden": warden_of(RUN),
        "other run's trainer": started(SCRIPT, "--run", str(OTHER)),
        "other run's warden": warden_of(OTHER),
        "reader": started("less", f"/runs/{RUN}/log"),
    }
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()


@pytest.mark.requirement("RUN-6")
def test_of_a_run_are_its_trainers_and_the_wardens_of_its_boxes(running: dict[str, subprocess.Popen[bytes]]) -> None:
    found = trainers.processes_of(SCRIPT, RUN)
    assert set(found) == {running["trainer"].pid, running["warden"].pid}


@pytest.mark.requirement("RUN-6")
async def test_what_the_framework_leaves_of_a_run_is_killed_and_nothing_else(
    running: dict[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainers, "_GRACE_S", 0.0)
    await trainers.end(SCRIPT, RUN)
    ended = {name for name, process in running.items() if process.poll() is not None}
    assert ended == {"trainer", "warden"}
