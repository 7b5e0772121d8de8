"""Crash points are passed by nobody until a test arms them; a poll that fails comes again."""

import subprocess
import sys
from collections.abc import Sequence

import pytest
from flip_chassis import crash
from flip_chassis.bus import Record, bus
from flip_chassis.ids import uuid7
from flip_chassis.settings import Settings
from flip_chassis.testing import eventually, settings_for, speaking
from flip_contracts.base import ProjectId
from flip_contracts.projects import ProjectUnstaged
from flip_contracts.topics import PROJECT
from flip_local.testing import Database, Kafka


class Hearing(Settings):
    service = "cohort"


DIES = """
import os, signal
from flip_chassis import crash
crash.point("inbox.polled")
crash.arm(lambda point: os.kill(os.getpid(), signal.SIGKILL) if point == "relay.read" else None)
crash.point("inbox.polled")
print("alive", flush=True)
crash.point("relay.read")
print("still alive", flush=True)
"""


def test_nobody_is_armed_until_a_test_is():
    for point in crash.POINTS:
        crash.point(point)


def test_an_armed_process_dies_at_its_point_and_at_no_other():
    ended = subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (-9, "alive\n")


@pytest.mark.parts
async def test_a_poll_that_fails_in_an_unforeseen_way_comes_again(postgres: Database, kafka: Kafka):
    settings = settings_for(Hearing, postgres, kafka.as_principal("service.cohort"), kafka.group("service.cohort"))
    project = ProjectId(uuid7())
    failed: list[bytes] = []
    taken: list[bytes] = []

    async def take(records: Sequence[Record]) -> bool:
        mine = [record.value or b"" for record in records if record.key == str(project).encode()]
        if mine and not failed:
            failed.extend(mine)
            raise RuntimeError
        taken.extend(mine)
        return True

    async def all_taken() -> bool:
        return len(taken) == 3

    async with (
        bus(settings).hearing([PROJECT.name], take),
        speaking(kafka.as_principal("service.projects"), "flip/hub/projects") as projects,
    ):
        words = [ProjectUnstaged(project_id=project, reason=str(number)) for number in range(3)]
        for word in words:
            await projects.say(word)
        await eventually(all_taken)
    assert taken == [word.encode() for word in words]
    assert failed
