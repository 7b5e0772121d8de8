"""One life of one replica of a service: a process that may be killed at any point."""

import asyncio
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import time_machine
import uvloop
from flip_chassis import bus, crash, relay
from flip_chassis.background import background
from flip_chassis.service import backbone
from flip_chassis.telemetry import start_telemetry
from flip_chassis.testing import settings_for
from flip_local.testing import Database, KafkaClient

from .mutants import MUTANTS, Mutant
from .schedule import Death
from .world import MIGRATIONS, SETTINGS, VOICES, Diary, Ear, Writer, streams

WRITERS = 3
UP, DIED = "up", "died"
_SESSION_MS = 3_000
_HEARTBEAT_MS = 800
_BATCH = 3


@dataclass(frozen=True, slots=True)
class Life:
    """What a process of this replica is told."""

    service: str
    replica: str
    number: int
    seed: int
    database: Database
    principal: KafkaClient
    group: str
    diary: Path
    log: Path
    calm: Path
    """The file that ends the writing."""
    death: Death | None
    jump: timedelta
    """By how much the wall clock jumps at SIGUSR1."""
    detours: Mapping[int, int]
    """Ports that are reached through others."""
    mutant: Mutant | None


def live(life: Life) -> None:
    """Be the service until SIGTERM, or until the appointed death."""
    log = os.open(life.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    start_telemetry(life.service, {})
    diary = Diary(life.diary)
    if life.death:
        crash.arm(_killer(life.death, diary))
    if life.mutant:
        MUTANTS[life.mutant]()
    # A group waits for a killed member as long as its session lasts.
    bus._SESSION_MS, bus._HEARTBEAT_MS = _SESSION_MS, _HEARTBEAT_MS  # pyright: ignore[reportPrivateUsage]
    # A window of a few rows is more than one batch, so that a relay dies within windows too.
    relay._BATCH = _BATCH  # pyright: ignore[reportPrivateUsage]
    with asyncio.Runner(loop_factory=lambda: _DetouringLoop(life.detours)) as runner:
        runner.run(_live(life, diary))


async def _live(life: Life, diary: Diary) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if parent := multiprocessing.parent_process():
        loop.add_reader(parent.sentinel, os._exit, 1)
    loop.add_signal_handler(signal.SIGUSR1, lambda: _jump(life.jump))
    settings = settings_for(SETTINGS[life.service], life.database, life.principal, life.group)
    async with (
        backbone(settings, MIGRATIONS, Ear(life.service, life.calm.parent).handlers()) as stands,
        AsyncExitStack() as writers,
    ):
        for number in range(WRITERS if life.service in VOICES else 0):
            random = Random(f"{life.seed} {life.replica} {life.number} {number}")
            writer = Writer(stands, life.service, streams(life.seed), diary, random, life.calm)
            await writers.enter_async_context(background(writer.run(), f"writer {number}"))
        diary.note(UP)
        await stop.wait()


def _jump(by: timedelta) -> None:
    time_machine.travel(datetime.now(UTC) + by, tick=True).start()


def _killer(death: Death, diary: Diary) -> Callable[[crash.Point], None]:
    passed: Counter[crash.Point] = Counter()

    def pass_by(point: crash.Point) -> None:
        passed[point] += 1
        if point == death.point and passed[point] == death.passing:
            diary.note(DIED, death.replica, point)
            os.kill(os.getpid(), signal.SIGKILL)

    return pass_by


class _DetouringLoop(uvloop.Loop):
    """Reaches some ports through others: a client goes to the broker's advertised port and comes to the proxy."""

    def __init__(self, detours: Mapping[int, int]) -> None:
        super().__init__()
        self._detours = detours

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await super().create_connection(protocol_factory, host, self._detours.get(port, port), **options)
