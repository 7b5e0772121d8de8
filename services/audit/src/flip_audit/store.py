"""The ledger's SQL."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from flip_chassis.database import Connection, Row
from flip_chassis.log import Said
from flip_contracts.base import ProjectId


@dataclass(frozen=True, slots=True)
class Terms:
    """What narrows a search; None and empty mean any. `until` is exclusive."""

    project_id: ProjectId | None = None
    actor: str | None = None
    types: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None


async def enter(db: Connection, said: Said) -> None:
    """Write one entry. Confidential fields of the body are left out; entering twice changes nothing."""
    it = said.envelope
    await db.execute(
        "INSERT INTO ledger (event_id, type, topic, key, source, stream_version, time, actor, correlation_id,"
        " causation_id, project_id, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
        " ON CONFLICT (event_id) DO NOTHING",
        it.id,
        it.type,
        it.topic,
        it.key,
        it.source,
        it.stream_version,
        it.time,
        it.actor,
        it.correlation_id,
        it.causation_id,
        getattr(said.message, "project_id", None),
        dict(said.message.public()),
    )


async def search(db: Connection, terms: Terms, after: tuple[datetime, int] | None, limit: int) -> list[Row]:
    """Entries that fit, by time and then by number, beginning behind `after`."""
    return await db.fetch(
        "SELECT * FROM ledger"
        " WHERE ($1::uuid IS NULL OR project_id = $1) AND ($2::text IS NULL OR actor = $2)"
        " AND (cardinality($3::text[]) = 0 OR type = ANY ($3))"
        " AND ($4::timestamptz IS NULL OR time >= $4) AND ($5::timestamptz IS NULL OR time < $5)"
        " AND ($6::timestamptz IS NULL OR (time, number) > ($6, $7))"
        " ORDER BY time, number LIMIT $8",
        terms.project_id,
        terms.actor,
        sorted(terms.types),
        terms.since,
        terms.until,
        *(after or (None, None)),
        limit,
    )


def entry(row: Row) -> dict[str, Any]:
    """An entry as it is shown."""
    hidden = {"heard_at"}
    return {name: str(value) if isinstance(value, UUID) else value for name, value in row.items() if name not in hidden}
