"""Records that wait because one of their key failed: what an operator sees of them, and may do with them.

Only the first record of a key can be acted on; those behind it follow in their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from flip_contracts.base import REGISTRY
from pydantic import ValidationError

from flip_chassis.database import Connection, Row
from flip_chassis.log import LARGEST_BODY_BYTES
from flip_chassis.refusal import NotFound, Refused

_SHOWN_BYTES = 4096

_TRY_NOW = "UPDATE parked SET kind = 'transient', next_attempt = now() WHERE id = ANY($1)"


@dataclass(frozen=True, slots=True)
class Parked:
    """A record that waits; `behind` is how many of its key wait for it in turn.

    `kind` is transient (tried again by itself), poison (waits for a person) or behind (an earlier record is before it).
    """

    id: int
    topic: str
    key: str
    partition: int
    offset: int
    type: str | None
    event_id: UUID
    kind: str
    reason: str
    attempts: int
    next_attempt: datetime | None
    at: datetime
    behind: int

    @property
    def record(self) -> str:
        """Where the record came in."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Shown:
    """A parked record with what it holds: its body without confidential fields where it can be read, otherwise the
    first 4 KiB as they came, in hexadecimal."""

    parked: Parked
    headers: list[tuple[str, str]]
    body: Mapping[str, Any] | None
    raw: str | None
    size_bytes: int
    digest: str


async def list_parked(db: Connection, *, type_: str | None, after: int, limit: int) -> list[Parked]:
    """The keys that wait, by their first record, oldest first."""
    rows = await db.fetch(
        "SELECT * FROM parked_in_line WHERE first AND id > $1 AND ($2::text IS NULL OR type = $2) ORDER BY id LIMIT $3",
        after,
        type_,
        limit,
    )
    return [_parked(row) for row in rows]


async def show(db: Connection, id_: int) -> Shown:
    """One parked record. Raises NotFound."""
    row = await db.fetchrow("SELECT * FROM parked_in_line WHERE id = $1", id_)
    if row is None:
        raise _gone()
    value: bytes = row["value"] or b""
    body = _readable(row["type"], value)
    return Shown(
        parked=_parked(row),
        headers=[(name, bytes.fromhex(of).decode(errors="backslashreplace")) for name, of in row["headers"]],
        body=body,
        raw=None if body is not None else value[:_SHOWN_BYTES].hex(),
        size_bytes=len(value),
        digest=sha256(value).hexdigest(),
    )


async def retry(db: Connection, id_: int) -> Parked:
    """Have the first record of a key tried again at once.

    Raises NotFound, and Refused where it waits behind another.
    """
    parked = await _first(db, id_)
    await db.execute(_TRY_NOW, [id_])
    return parked


async def retry_key(db: Connection, topic: str, key: str) -> int:
    """Have a key tried again at once; the number of keys, 1. Raises NotFound."""
    rows = await db.fetch("SELECT id FROM parked_in_line WHERE first AND (topic, key) = ($1, $2)", topic, key)
    return await _retry_all(db, rows)


async def retry_type(db: Connection, type_: str) -> int:
    """Have every key tried again whose first record is of this type; the number of keys. Raises NotFound."""
    return await _retry_all(db, await db.fetch("SELECT id FROM parked_in_line WHERE first AND type = $1", type_))


async def _retry_all(db: Connection, rows: Sequence[Row]) -> int:
    if not rows:
        raise _gone()
    await db.execute(_TRY_NOW, [row["id"] for row in rows])
    return len(rows)


async def discard(db: Connection, id_: int, actor: str, because: str, at: datetime) -> Shown:
    """Take the first record of a key out of the way; a copy is kept. Raises NotFound and Refused as `retry` does."""
    await _first(db, id_)
    shown = await show(db, id_)
    await db.execute(
        "WITH gone AS (DELETE FROM parked WHERE id = $1 RETURNING *)"
        ' INSERT INTO discarded (id, topic, key, partition, "offset", headers, value, event_id, type, reason, attempts,'
        " parked_at, actor, because, at)"
        ' SELECT id, topic, key, partition, "offset", headers, value, event_id, type, reason, attempts, at, $2, $3, $4'
        " FROM gone",
        id_,
        actor,
        because,
        at,
    )
    return shown


async def _first(db: Connection, id_: int) -> Parked:
    await db.execute("SELECT FROM parked WHERE id = $1 FOR UPDATE", id_)
    parked = (await show(db, id_)).parked
    first = await db.fetchval("SELECT min(id) FROM parked WHERE (topic, key) = ($1, $2)", parked.topic, parked.key)
    if first != id_:
        raise Refused("parked-behind", "Its key waits for an earlier record: act on that one.", first=first)
    return parked


def _gone() -> NotFound:
    return NotFound("parked-not-found", "Nothing of that waits here: it took effect, was discarded, or never was.")


def _parked(row: Row) -> Parked:
    return Parked(**{name: row[name] for name in Parked.__slots__})


def _readable(type_: str | None, value: bytes) -> Mapping[str, Any] | None:
    message = REGISTRY.get(type_ or "")
    if message is None or len(value) > LARGEST_BODY_BYTES:
        return None
    try:
        return message.decode(value).public()
    except ValidationError:
        return None
