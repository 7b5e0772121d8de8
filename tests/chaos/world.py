"""Three services that say, hear and answer, made of the chassis as every service is.

`projects` says; `cohort` says too, and answers each event of `projects` by one of its own in the same transaction;
`projects` hears these answers again; `scheduler` hears both and says nothing.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid5

import asyncpg
from flip_chassis.aggregate import Aggregate
from flip_chassis.database import UNREACHABLE, Connection
from flip_chassis.handlers import Handler, Transient, projection, reaction
from flip_chassis.service import Backbone
from flip_chassis.settings import Settings
from flip_chassis.work import Work
from flip_contracts.base import Message, ProjectId, Topic
from flip_contracts.cloudevents import Envelope
from flip_contracts.cohort import CohortFreezeRefused
from flip_contracts.projects import ProjectUnstaged
from flip_contracts.topics import PROJECT, QUERY

from .history import Reaction

MIGRATIONS = Path(__file__).parent / "migrations"
STREAMS = 12
_SPACE = UUID(int=0x0F11_0000_0000_0000_0000_0000_0000_0000)

FINE, SHAKY, POISON = "fine", "shaky", "poison"
"""How a message is taken by who hears it: at once, at the third attempt, never."""


class Projects(Settings):
    service = "projects"


class Cohort(Settings):
    service = "cohort"


class Scheduler(Settings):
    service = "scheduler"


SETTINGS: dict[str, type[Settings]] = {"projects": Projects, "cohort": Cohort, "scheduler": Scheduler}
HEARS = {
    "projects": frozenset({QUERY.name}),
    "cohort": frozenset({PROJECT.name}),
    "scheduler": frozenset({PROJECT.name, QUERY.name}),
}
REACTIONS = (Reaction("cohort", PROJECT.name),)


@dataclass(frozen=True, slots=True)
class Voice:
    """What a service says."""

    topic: Topic
    word: Callable[[ProjectId, str], Message]
    aggregate: Aggregate[None]


def _unchanged(state: None, _: Message) -> None:
    return state


def _unstaged(project: ProjectId, reason: str) -> Message:
    return ProjectUnstaged(project_id=project, reason=reason)


def _refused(project: ProjectId, reason: str) -> Message:
    return CohortFreezeRefused(project_id=project, trust="KCH", query_version=1, reason=reason)


VOICES = {
    "projects": Voice(PROJECT, _unstaged, Aggregate(PROJECT, None, _unchanged)),
    "cohort": Voice(QUERY, _refused, Aggregate(QUERY, None, _unchanged)),
}


def streams(seed: int) -> list[ProjectId]:
    """The aggregates of a run. `cohort` has streams about the same projects as `projects` has."""
    return [ProjectId(uuid5(_SPACE, f"{seed}/{number}")) for number in range(STREAMS)]


# --- hearing --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Ear:
    """Notes what takes effect in the transaction in which it does."""

    service: str
    folder: Path
    """Where attempts are counted: beyond the process, and beyond the transaction that fails."""

    def handlers(self) -> list[Handler]:
        match self.service:
            case "projects":
                return [projection(self.hear_query)]
            case "cohort":
                return [reaction(self.answer_project)]
            case _:
                return [projection(self.hear_project), projection(self.hear_query)]

    async def hear_project(self, event: ProjectUnstaged, db: Connection, said: Envelope) -> None:
        await self._note(event.reason, said, db)

    async def hear_query(self, event: CohortFreezeRefused, db: Connection, said: Envelope) -> None:
        await self._note(event.reason, said, db)

    async def answer_project(self, event: ProjectUnstaged, work: Work, said: Envelope) -> None:
        await work.say(_refused(event.project_id, FINE))
        await self._note(event.reason, said, work.db)

    async def _note(self, temper: str, said: Envelope, db: Connection) -> None:
        """The last step of a handler: what fails has done all its work before."""
        await db.execute(
            "INSERT INTO effect (event_id, source, topic, key, version) VALUES ($1, $2, $3, $4, $5)",
            said.id,
            said.source.rpartition("/")[2],
            said.topic,
            said.key,
            said.stream_version,
        )
        if temper == POISON:
            raise ValueError(temper)
        if temper == SHAKY and any(self._is_first(f"{said.id}.{attempt}") for attempt in (1, 2)):
            raise Transient

    def _is_first(self, attempt: str) -> bool:
        try:
            (self.folder / f"{self.service}.{attempt}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


# --- saying ---------------------------------------------------------------------------------------------------------
class Diary:
    """What a replica knows of its own doings, in a file that outlives its process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, what: str, *words: object) -> None:
        """One line, whole or not at all."""
        os.write(self._file, (" ".join([what, *map(str, words)]) + "\n").encode())


class Undone(Exception):
    """A writer takes its transaction back."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Appends to the streams of a service, with others at the same time, in transactions of every kind."""

    stands: Backbone
    service: str
    streams: Sequence[ProjectId]
    diary: Diary
    random: Random
    calm: Path
    """A file that says, once it is there, that enough was written."""

    async def run(self) -> None:
        while not self.calm.exists():
            try:
                await self._transaction()
            except Undone:
                pass
            except (*UNREACHABLE, asyncpg.PostgresError):
                await asyncio.sleep(0.2)
            await asyncio.sleep(self.random.expovariate(40))
        await asyncio.Event().wait()

    async def _transaction(self) -> None:
        random = self.random
        async with self.stands.working() as work:
            said: list[Any] = []
            try:
                async with work.db.transaction():
                    if random.random() < 0.2:  # takes its transaction id long before it appends
                        await work.db.fetchval("SELECT pg_current_xact_id()")
                        await asyncio.sleep(random.uniform(0, 0.1))
                    for stream in random.sample(self.streams, random.choice((1, 1, 1, 2, 3))):
                        await self._append(work, stream)
                    said += await work.db.fetch(
                        "SELECT id, topic, key, stream_version FROM event_log WHERE xid = pg_current_xact_id()"
                    )
                    if random.random() < 0.2:  # commits late
                        await asyncio.sleep(random.uniform(0, 0.3))
                    if random.random() < 0.1:
                        raise Undone
            except Undone:
                for row in said:
                    self.diary.note("undone", row["id"])
                raise
        for row in said:
            self.diary.note("committed", row["id"], self.service, row["topic"], row["key"], row["stream_version"])

    async def _append(self, work: Work, stream: ProjectId) -> None:
        voice = VOICES[self.service]
        words = [voice.word(stream, self._temper(stream)) for _ in range(self.random.choice((1, 2, 5)))]
        if len(words) == 1:
            await work.say(words[0])
        else:
            async with work.on(voice.aggregate, stream) as aggregate:
                aggregate.record(*words)

    def _temper(self, stream: ProjectId) -> str:
        if stream == self.streams[0] and self.random.random() < 0.03:
            return POISON
        return SHAKY if self.random.random() < 0.005 else FINE
