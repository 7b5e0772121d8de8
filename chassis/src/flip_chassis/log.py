"""The event log: what was said, appended in the transaction that changed the state, read back by stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from flip_contracts.base import REGISTRY, Message
from flip_contracts.cloudevents import Envelope

from flip_chassis import crash
from flip_chassis.database import Connection, Row
from flip_chassis.ids import uuid7
from flip_chassis.refusal import Invalid

LARGEST_BODY_BYTES = 900_000
"""Kafka takes records of up to 1 MiB, headers included. What is larger belongs into the object store."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something is said: who acts, when, and what it follows from."""

    actor: str
    time: datetime
    correlation_id: UUID
    causation_id: UUID | None = None
    traceparent: str | None = None


class Said(NamedTuple):
    """A message with its envelope."""

    envelope: Envelope
    message: Message


async def read_stream(db: Connection, topic: str, key: str) -> list[Message]:
    """The messages of a stream, oldest first."""
    rows = await db.fetch(
        "SELECT type, payload FROM event_log WHERE topic = $1 AND key = $2 ORDER BY stream_version", topic, key
    )
    return _messages(rows)


async def locked_stream(db: Connection, topic: str, key: str) -> list[Message]:
    """The messages of a stream, oldest first; the caller is its only writer until the transaction ends."""
    return _messages(await db.fetch("SELECT type, payload FROM locked_stream($1, $2)", topic, key))


async def last_version(db: Connection, topic: str, key: str) -> int:
    """The version of a stream's last message, 0 where there is none."""
    version = await db.fetchval("SELECT max(stream_version) FROM event_log WHERE topic = $1 AND key = $2", topic, key)
    return version or 0


async def locked_version(db: Connection, topic: str, key: str) -> int:
    """The version of a stream's last message, 0 where there is none; the caller is its only writer until the
    transaction ends.
    """
    return await db.fetchval("SELECT locked_version($1, $2)", topic, key)


def _messages(rows: Sequence[Row]) -> list[Message]:
    return [REGISTRY[row["type"]].decode(row["payload"]) for row in rows]


async def append(
    db: Connection, source: str, topic: str, key: str, version: int, messages: Sequence[Message], cause: Cause
) -> list[Said]:
    """Append `messages` after `version` of the stream.

    Raises UniqueViolationError where another writer was first, and Invalid for a message too large for the broker.
    """
    said = [
        Said(
            Envelope(
                id=uuid7(),
                type=message.type_name,
                source=source,
                topic=topic,
                key=key,
                stream_version=version + number,
                time=cause.time,
                actor=cause.actor,
                correlation_id=cause.correlation_id,
                causation_id=cause.causation_id,
                traceparent=cause.traceparent,
            ),
            message,
        )
        for number, message in enumerate(messages, start=1)
    ]
    await db.executemany(
        "INSERT INTO event_log (id, topic, key, stream_version, type, time, actor, correlation_id, causation_id,"
        " traceparent, payload, local) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        [_row(one) for one in said],
    )
    crash.point("log.appended")
    return said


def _row(said: Said) -> tuple[object, ...]:
    it, body = said.envelope, said.message.encode()
    if len(body) > LARGEST_BODY_BYTES:
        raise Invalid("message-too-large", type=it.type, bytes=len(body), most=LARGEST_BODY_BYTES)
    return (
        it.id,
        it.topic,
        it.key,
        it.stream_version,
        it.type,
        it.time,
        it.actor,
        it.correlation_id,
        it.causation_id,
        it.traceparent,
        body,
        said.message.topic.local,
    )


def envelope_of(row: Row, source: str) -> Envelope:
    """The envelope of a row of the event log."""
    return Envelope(
        id=row["id"],
        type=row["type"],
        source=source,
        topic=row["topic"],
        key=row["key"],
        stream_version=row["stream_version"],
        time=row["time"],
        actor=row["actor"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
        traceparent=row["traceparent"],
    )
