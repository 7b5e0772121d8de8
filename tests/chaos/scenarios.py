"""For each mutant the sequence of events that its fault can't survive, and that the real backbone must."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flip_chassis.database import Connection, connect
from flip_chassis.ids import uuid7
from flip_chassis.log import Cause, append
from flip_contracts.base import ProjectId

from . import history
from .history import Violation, violations
from .mutants import Mutant
from .run import LOOK_EVERY_S, Replica, Run, opened
from .schedule import Death, Schedule
from .stage import Stage
from .world import FINE, POISON, SETTINGS, VOICES, streams

_DEADLINE_S = 60.0
_SAYS, _HEARS = "projects", "scheduler"


@dataclass(frozen=True, slots=True)
class Scene:
    """`projects` says what the scenario makes it say, `scheduler` hears it."""

    run: Run
    listener: Replica
    stream: ProjectId
    other: ProjectId

    def writing(self) -> AbstractAsyncContextManager[Connection]:
        """A connection of a writer."""
        return connect(self.run.databases[_SAYS].app)

    async def append(self, db: Connection, stream: ProjectId, after: int, *tempers: str) -> None:
        """Append to a stream, in the transaction that `db` is in."""
        voice, source = VOICES[_SAYS], SETTINGS[_SAYS].model_construct(trust=None).source
        cause = Cause(actor="service:chaos", time=datetime.now(UTC), correlation_id=uuid7())
        words = [voice.word(stream, temper) for temper in tempers or [FINE]]
        await append(db, source, voice.topic.name, str(stream), after, words, cause)

    async def say(self, stream: ProjectId, after: int, *tempers: str) -> None:
        """Append and commit."""
        async with self.writing() as db, db.transaction():
            await self.append(db, stream, after, *tempers)

    async def dealt_with(self, stream: ProjectId, version: int) -> None:
        """Wait until the version took effect or waits."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                found = await self.run.history()
                met = [*found.effects[_HEARS], *found.parked[_HEARS]]
                if any((event.key, event.version) == (str(stream), version) for event in met):
                    return
                await asyncio.sleep(LOOK_EVERY_S)


async def a_transaction_commits_late(scene: Scene) -> None:
    """It has the lower position, and is still running when a higher one is published."""
    async with scene.writing() as late, late.transaction():
        await scene.append(late, scene.stream, 0)
        await scene.say(scene.other, 0)
        await scene.dealt_with(scene.other, 1)
    await scene.say(scene.stream, 1)
    await scene.dealt_with(scene.stream, 2)


async def a_transaction_runs_between_two_writers(scene: Scene) -> None:
    """The later writer of a stream has the lowest transaction id, the earlier one the highest."""
    async with scene.writing() as between, scene.writing() as late, between.transaction():
        async with late.transaction():
            await late.fetchval("SELECT pg_current_xact_id()")
            await between.fetchval("SELECT pg_current_xact_id()")
            await scene.say(scene.stream, 0)
            await scene.append(late, scene.stream, 1)
        await scene.dealt_with(scene.stream, 2)
    await scene.say(scene.stream, 2)
    await scene.dealt_with(scene.stream, 3)


async def everything_comes_again(scene: Scene) -> None:
    """The group's offsets are set back to the beginning."""
    await scene.say(scene.stream, 0, FINE, FINE, FINE)
    await scene.dealt_with(scene.stream, 3)
    async with scene.listener.away():
        await scene.run.set_back(_HEARS, 1.0)
    await scene.say(scene.stream, 3)
    await scene.dealt_with(scene.stream, 4)


async def a_consumer_dies_before_its_database_commits(scene: Scene) -> None:
    """`DEATHS` says where."""
    await scene.say(scene.stream, 0, FINE, FINE, FINE)
    await scene.listener.until_life(2)
    await scene.say(scene.stream, 3)
    await scene.dealt_with(scene.stream, 4)


async def the_head_of_a_key_is_poison(scene: Scene) -> None:
    """And others of its key follow."""
    await scene.say(scene.stream, 0, FINE, POISON, FINE)
    await scene.dealt_with(scene.stream, 3)


@dataclass(frozen=True, slots=True)
class Trap:
    """What a mutant can't survive, and what the checker then finds."""

    play: Callable[[Scene], Awaitable[None]]
    caught_as: history.Kind
    death: Death | None = None


TRAPS: dict[Mutant, Trap] = {
    "cursor-on-position": Trap(a_transaction_commits_late, "lost"),
    "cursor-on-transaction": Trap(a_transaction_runs_between_two_writers, "reordered"),
    "no-dedupe": Trap(everything_comes_again, "doubled"),
    "kafka-first": Trap(
        a_consumer_dies_before_its_database_commits, "lost", Death(f"{_HEARS}/0", "inbox.progress-noted", 1)
    ),
    "park-without-key": Trap(the_head_of_a_key_is_poison, "reordered"),
}


async def spring(stage: Stage, trap: Trap, mutant: Mutant | None, folder: Path) -> list[Violation]:
    """Play a trap with its mutant, or with the backbone as it is, and judge."""
    async with opened(stage, Schedule(0, 1, (), ()), folder, mutant) as run:
        run.calm.touch()
        speaker = Replica(run, _SAYS, 0)
        listener = Replica(run, _HEARS, 0, [trap.death] if trap.death else [])
        stream, other, *_ = streams(0)
        async with run.playing(speaker, listener):
            await asyncio.gather(speaker.until_up(), listener.until_up())
            await trap.play(Scene(run, listener, stream, other))
        return violations(await run.history())
