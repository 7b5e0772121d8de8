"""The ledger's SQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from flip_chassis.database import Connection, Row
from flip_chassis.log import Said
from flip_contracts import ledger
from flip_contracts.audit import CheckpointSigned
from flip_contracts.ledger import Checkpoint, Entry, Head, PublicKey, PublicKeys, Terms

from flip_audit.domain import Stretch, Tail

# --- entries --------------------------------------------------------------------------------------------------------


async def enter(db: Connection, heard: Sequence[Said], at: datetime) -> None:
    """Append what was said to the chain, in two round trips however much it is. What is there already stays as it is.

    Confidential fields are left out. No other transaction appends until this one ends.
    """
    row = await db.fetchrow("SELECT * FROM lock_ledger($1)", [said.envelope.id for said in heard])
    assert row is not None
    head = Head() if row["position"] is None else Head(row["position"], row["hash"])
    new = list({said.envelope.id: said for said in heard if said.envelope.id not in row["known"]}.values())
    entries = list(ledger.chained(head, [_facts(said, at) for said in new]))
    await db.execute(
        "INSERT INTO ledger (position, hash, line, event_id, type, time, actor, project_id, heard_at)"
        " SELECT *, $9::timestamptz FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::uuid[], $5::text[],"
        " $6::timestamptz[], $7::text[], $8::uuid[])",
        [entry.position for entry in entries],
        [entry.hash for entry in entries],
        [entry.line.decode() for entry in entries],
        [said.envelope.id for said in new],
        [said.envelope.type for said in new],
        [said.envelope.time for said in new],
        [said.envelope.actor for said in new],
        [getattr(said.message, "project_id", None) for said in new],
        at,
    )


def _facts(said: Said, at: datetime) -> bytes:
    it = said.envelope
    project_id = getattr(said.message, "project_id", None)
    facts = {
        "event_id": str(it.id),
        "type": it.type,
        "topic": it.topic,
        "key": it.key,
        "source": it.source,
        "stream_version": it.stream_version,
        "time": it.time.isoformat(),
        "actor": it.actor,
        "correlation_id": str(it.correlation_id),
        "causation_id": str(it.causation_id) if it.causation_id else None,
        "project_id": str(project_id) if project_id else None,
        "body": dict(said.message.public()),
        "heard_at": at.isoformat(),
    }
    return orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)


_FITTING = (
    "($1::uuid IS NULL OR project_id = $1) AND ($2::text IS NULL OR actor = $2)"
    " AND (cardinality($3::text[]) = 0 OR type = ANY ($3))"
    " AND ($4::timestamptz IS NULL OR time >= $4) AND ($5::timestamptz IS NULL OR time < $5)"
)


def _asked(terms: Terms) -> tuple[object, ...]:
    return terms.project_id, terms.actor, list(terms.types), terms.since, terms.until


async def search(db: Connection, terms: Terms, after: tuple[datetime, int] | None, limit: int) -> list[Row]:
    """Entries that fit, by time and then by position, beginning behind `after`."""
    return await db.fetch(
        f"SELECT position, hash, line, time FROM ledger WHERE {_FITTING}"  # noqa: S608 - no text of a user's
        " AND ($6::timestamptz IS NULL OR (time, position) > ($6, $7)) ORDER BY time, position LIMIT $8",
        *_asked(terms),
        *(after or (None, None)),
        limit,
    )


def shown(row: Row) -> dict[str, Any]:
    """A found entry as it is shown."""
    return {**orjson.loads(row["line"]), "hash": row["hash"].hex()}


async def entries(db: Connection, terms: Terms, after: int, until: int, limit: int) -> list[Entry]:
    """Entries that fit in the order of the chain, behind position `after`, up to and with `until`."""
    rows = await db.fetch(
        f"SELECT position, line, hash FROM ledger WHERE {_FITTING}"  # noqa: S608 - no text of a user's
        " AND position > $6 AND position <= $7 ORDER BY position LIMIT $8",
        *_asked(terms),
        after,
        until,
        limit,
    )
    return [Entry(row["position"], row["line"].encode(), row["hash"]) for row in rows]


async def hashes(db: Connection, stretch: Stretch) -> list[bytes]:
    """The hashes of a stretch of the chain."""
    rows = await db.fetch(
        "SELECT hash FROM ledger WHERE position BETWEEN $1 AND $2 ORDER BY position", stretch.first, stretch.last
    )
    return [row["hash"] for row in rows]


# --- checkpoints ----------------------------------------------------------------------------------------------------


async def lock_checkpoints(db: Connection) -> Tail:
    """Be the only one who adds checkpoints until the transaction ends; where they end."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('flip.checkpoints', 0))")
    row = await db.fetchrow("SELECT number, last_position, statement FROM checkpoint ORDER BY number DESC LIMIT 1")
    if row is None:
        return Tail()
    return Tail(row["number"], row["last_position"], ledger.digest_of(row["statement"].encode()))


async def last_checkpoint(db: Connection) -> Checkpoint | None:
    """The newest checkpoint."""
    statement = await db.fetchval("SELECT statement FROM checkpoint ORDER BY number DESC LIMIT 1")
    return None if statement is None else Checkpoint.decode(statement.encode())


async def waiting(db: Connection, tail: Tail) -> tuple[int, datetime | None]:
    """The end of the ledger, and when the first entry behind `tail` that asks for a checkpoint was heard.

    A checkpoint's own entry asks for none, or there would be no end.
    """
    head = await db.fetchval("SELECT max(position) FROM ledger")
    since = await db.fetchval(
        "SELECT heard_at FROM ledger WHERE position > $1 AND type <> $2 ORDER BY position LIMIT 1",
        tail.position,
        CheckpointSigned.type_name,
    )
    return head or 0, since


async def keep_checkpoint(db: Connection, checkpoint: Checkpoint, statement: bytes, signature: bytes) -> None:
    """Add a checkpoint."""
    await db.execute(
        "INSERT INTO checkpoint (number, first_position, last_position, statement, signature)"
        " VALUES ($1, $2, $3, $4, $5)",
        checkpoint.number,
        checkpoint.first,
        checkpoint.last,
        statement.decode(),
        signature,
    )


async def checkpoints(db: Connection, after: int, until: int, limit: int) -> list[tuple[bytes, bytes]]:
    """Statements and signatures behind number `after`, up to and with `until`."""
    rows = await db.fetch(
        "SELECT statement, signature FROM checkpoint WHERE number > $1 AND number <= $2 ORDER BY number LIMIT $3",
        after,
        until,
        limit,
    )
    return [(row["statement"].encode(), row["signature"]) for row in rows]


async def checkpoint_over(db: Connection, position: int) -> Checkpoint:
    """The checkpoint that covers a position."""
    statement = await db.fetchval(
        "SELECT statement FROM checkpoint WHERE last_position >= $1 ORDER BY last_position LIMIT 1", position
    )
    return Checkpoint.decode(statement.encode())


async def first_unstored(db: Connection) -> tuple[bytes, bytes] | None:
    """The first checkpoint that was not yet seen in the object store: its statement and signature."""
    row = await db.fetchrow(
        "SELECT statement, signature FROM checkpoint"
        " WHERE number > coalesce((SELECT max(number) FROM stored_checkpoint), 0) ORDER BY number LIMIT 1"
    )
    return None if row is None else (row["statement"].encode(), row["signature"])


async def is_stored(db: Connection, number: int) -> bool:
    """Whether a checkpoint was seen in the object store."""
    return await db.fetchval("SELECT EXISTS (SELECT FROM stored_checkpoint WHERE number = $1)", number)


async def note_stored(db: Connection, event: CheckpointSigned, at: datetime) -> None:
    """Note that a checkpoint is in the object store."""
    await db.execute(
        "INSERT INTO stored_checkpoint (number, object, at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        event.number,
        event.object,
        at,
    )


# --- keys -----------------------------------------------------------------------------------------------------------


async def keep_key(db: Connection, key_id: str, public_key: bytes) -> None:
    """Note the public half of a key that signs from now on."""
    await db.execute(
        "INSERT INTO ledger_key (id, public_key) VALUES ($1, $2) ON CONFLICT DO NOTHING", key_id, public_key
    )


async def keys(db: Connection) -> PublicKeys:
    """Every key that ever signed."""
    rows = await db.fetch("SELECT id, public_key FROM ledger_key ORDER BY since, id")
    return PublicKeys(keys=tuple(PublicKey(id=row["id"], public_key=row["public_key"].hex()) for row in rows))
