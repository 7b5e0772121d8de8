"""What flows: edits of projects, 97 of them in turn, and the table that shows each project's last edit."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from uuid import UUID

from aiokafka import AIOKafkaProducer
from flip_chassis.database import Connection
from flip_chassis.handlers import projection
from flip_chassis.ids import uuid7
from flip_chassis.log import Cause, append
from flip_contracts.base import ProjectId, UserId
from flip_contracts.cloudevents import Envelope
from flip_contracts.projects import ProjectEdited

from bench.ground import Ground, Saying
from bench.measuring import Look

PROJECTS = 97
_AT_ONCE = 485
_random = Random(1)  # noqa: S311 - ids that are the same in every run
PROJECT_IDS = tuple(ProjectId(UUID(int=_random.getrandbits(128), version=4)) for _ in range(PROJECTS))
_MEMBERS = frozenset(UserId(UUID(int=_random.getrandbits(128), version=4)) for _ in range(2))

SHOW_EDIT = """
INSERT INTO project_view (project_id, name, edits) VALUES ($1, $2, 1)
ON CONFLICT (project_id) DO UPDATE SET name = excluded.name, edits = project_view.edits + 1
"""
_COUNT_SHOWN = "SELECT coalesce(sum(edits), 0)::bigint FROM project_view"


def edit(number: int, project_id: ProjectId) -> ProjectEdited:
    """A project's edit, some 350 bytes as JSON."""
    return ProjectEdited(
        project_id=project_id,
        name=f"Federated segmentation of the lung, plan {number}",
        description="Which lesions does a model trained across Trusts find that one trained at one of them misses?",
        members=_MEMBERS,
    )


@projection
async def show_edit(event: ProjectEdited, db: Connection) -> None:
    """The projection under test."""
    await db.execute(SHOW_EDIT, event.project_id, event.name)


def shown(db: Connection) -> Look:
    """Counts the edits that have taken effect and are committed."""

    async def look() -> int:
        return await db.fetchval(_COUNT_SHOWN)

    return look


def why() -> Cause:
    """The cause of everything that is said here."""
    return Cause(actor="service:bench", time=datetime.now(UTC), correlation_id=uuid7())


def _numbered(count: int) -> Iterator[tuple[ProjectEdited, int]]:
    for number in range(count):
        yield edit(number, PROJECT_IDS[number % PROJECTS]), number // PROJECTS + 1


async def write_log(db: Connection, topic: str, count: int) -> None:
    """Append `count` edits to a service's event log, to be relayed to `topic`."""
    source, cause = f"flip/hub/{Saying.service}", why()
    turns = -(-count // PROJECTS)
    for first in range(0, turns, 5):
        async with db.transaction():
            for place, project_id in enumerate(PROJECT_IDS):
                numbers = [turn * PROJECTS + place for turn in range(first, min(first + 5, turns))]
                edits = [edit(number, project_id) for number in numbers if number < count]
                if edits:
                    await append(db, source, topic, str(project_id), first, edits, cause)


async def say_all(ground: Ground, topic: str, count: int) -> None:
    """Say `count` edits on Kafka as the relay would."""
    producer = AIOKafkaProducer(
        bootstrap_servers=ground.sayer.bootstrap,
        security_protocol="SSL",
        ssl_context=ground.sayer.ssl_context(),
        acks="all",
        enable_idempotence=True,
    )
    await producer.start()
    try:
        waiting: list[asyncio.Future[object]] = []
        for event, version in _numbered(count):
            envelope = _envelope(event, topic, version)
            waiting.append(
                await producer.send(topic, event.encode(), key=event.key.encode(), headers=envelope.headers())
            )
            if len(waiting) == _AT_ONCE:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)
    finally:
        await producer.stop()


def _envelope(event: ProjectEdited, topic: str, version: int) -> Envelope:
    cause = why()
    return Envelope(
        id=uuid7(),
        type=event.type_name,
        source=f"flip/hub/{Saying.service}",
        topic=topic,
        key=event.key,
        stream_version=version,
        time=cause.time,
        actor=cause.actor,
        correlation_id=cause.correlation_id,
        causation_id=None,
        traceparent=None,
    )
