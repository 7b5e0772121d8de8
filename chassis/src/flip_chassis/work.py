"""The one way to change anything: load, let the domain decide, append what happened, project it, in one transaction."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

from flip_contracts.base import Command, Message

from flip_chassis.aggregate import Aggregate
from flip_chassis.database import Connection
from flip_chassis.ids import uuid7
from flip_chassis.log import Cause, Said, append, locked_stream, locked_version
from flip_chassis.settings import Settings
from flip_chassis.telemetry import traceparent

S = TypeVar("S")
Project = Callable[[Said, Connection], Awaitable[None]]


@dataclass(slots=True)
class Recorder(Generic[S]):
    """An aggregate at work: its state, and what was recorded of it since it was loaded."""

    aggregate: Aggregate[S]
    state: S
    version: int
    recorded: list[Message] = field(default_factory=list[Message])

    def record(self, *events: Message) -> None:
        """Note what happened; `state` has it at once, the log at the end of the work."""
        for event in events:
            self.state = self.aggregate.evolve(self.state, event)
            self.recorded.append(event)


class Work:
    """What one request or one message may change, and on whose authority."""

    def __init__(self, settings: Settings, db: Connection, cause: Cause, project: Project) -> None:
        self.db = db
        self.cause = cause
        self.written: dict[str, int] = {}
        self._settings = settings
        self._project = project

    @property
    def source(self) -> str:
        """The process that works, as the CloudEvents source of what it says."""
        return self._settings.source

    @property
    def at_trust(self) -> bool:
        """Whether it belongs to a Trust."""
        return self._settings.trust is not None

    @asynccontextmanager
    async def on(self, aggregate: Aggregate[S], key: object) -> AsyncGenerator[Recorder[S]]:
        """The aggregate's state and a place to record events; kept when the block ends, dropped when it raises."""
        topic = aggregate.topic.named(self._settings.trust)
        async with self.db.transaction():
            events = await locked_stream(self.db, topic, str(key))
            recorder = Recorder(aggregate, aggregate.after(events), len(events))
            yield recorder
            if recorder.recorded:
                await self._append(topic, str(key), recorder.version, recorder.recorded)

    async def say(self, message: Message, *, to: str | None = None) -> None:
        """Say something that no aggregate guards: a command `to` a Trust, a report, a sign of life."""
        if isinstance(message, Command) != (to is not None):
            raise TypeError(f"{type(message).__name__}: a command names its Trust, nothing else does")
        topic = message.topic.named(to or self._settings.trust)
        async with self.db.transaction():
            version = await locked_version(self.db, topic, message.key)
            await self._append(topic, message.key, version, [message])

    async def _append(self, topic: str, key: str, version: int, messages: list[Message]) -> None:
        said = await append(self.db, self._settings.source, topic, key, version, messages, self.cause)
        for one in said:
            await self._project(one, self.db)
        self.written[f"{topic}/{key}"] = version + len(said)


def own_work(settings: Settings, db: Connection, project: Project, *, after: Cause | None = None) -> Work:
    """The work of the service itself, outside of any request or message; `after` is the cause it goes on from."""
    actor = f"service:{settings.source.removeprefix('flip/')}"
    cause = Cause(
        actor=actor,
        time=datetime.now(UTC),
        correlation_id=after.correlation_id if after else uuid7(),
        causation_id=after.causation_id if after else None,
        traceparent=traceparent(),
    )
    return Work(settings, db, cause, project)
