"""Wrong versions of the backbone, each breaking one promise; only worker processes of these tests take one on."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer
from flip_chassis import bus, inbox, relay
from flip_chassis.database import Connection
from flip_chassis.inbox import Inbox, Key, Parcel

Mutant = Literal["cursor-on-position", "cursor-on-transaction", "no-dedupe", "kafka-first", "park-without-key"]


_OPEN_BY_POSITION = """
WITH fresh AS MATERIALIZED (SELECT e.pos FROM event_log e, relay_cursor c WHERE e.pos > c.last),
opened AS (
    UPDATE relay_cursor SET pos = last, last = coalesce((SELECT max(pos) FROM fresh), last)
    WHERE epoch = $1 RETURNING epoch
)
SELECT e.* FROM opened
LEFT JOIN LATERAL (SELECT pos FROM fresh ORDER BY pos LIMIT $2) AS first ON true
LEFT JOIN event_log e ON e.pos = first.pos ORDER BY pos
"""
_GO_ON_BY_POSITION = """
WITH moved AS (UPDATE relay_cursor SET pos = $2 WHERE epoch = $1 RETURNING last)
SELECT e.* FROM moved LEFT JOIN event_log e ON e.pos > $2 AND e.pos <= moved.last ORDER BY pos LIMIT $3
"""
_OPEN_BY_TRANSACTION = """
WITH now AS (SELECT pg_current_snapshot() AS high),
fresh AS MATERIALIZED (
    SELECT e.pos FROM event_log e, relay_cursor c, now
    WHERE e.xid >= pg_snapshot_xmin(c.high) AND e.xid < pg_snapshot_xmin(now.high)
),
opened AS (
    UPDATE relay_cursor SET low = relay_cursor.high, high = now.high,
    pos = coalesce((SELECT min(pos) FROM fresh) - 1, 0), last = coalesce((SELECT max(pos) FROM fresh), 0)
    FROM now WHERE epoch = $1 RETURNING epoch
)
SELECT e.* FROM opened
LEFT JOIN LATERAL (SELECT pos FROM fresh ORDER BY pos LIMIT $2) AS first ON true
LEFT JOIN event_log e ON e.pos = first.pos ORDER BY pos
"""
_GO_ON_BY_TRANSACTION = """
WITH moved AS (UPDATE relay_cursor SET pos = $2 WHERE epoch = $1 RETURNING low, high, last)
SELECT e.* FROM moved LEFT JOIN event_log e ON e.pos > $2 AND e.pos <= moved.last
AND e.xid >= pg_snapshot_xmin(moved.low) AND e.xid < pg_snapshot_xmin(moved.high) ORDER BY pos LIMIT $3
"""


class _Forgetful(Inbox):
    """Takes every record for new."""

    async def _fresh(self, db: Connection, parcels: Sequence[Parcel]) -> list[Parcel]:
        await Inbox._fresh(self, db, parcels)
        return list(parcels)


async def _commit_then_take(consumer: AIOKafkaConsumer, records: Sequence[bus.Record], take: bus.Take) -> bool:
    await consumer.commit()
    await take(records)
    return False


class _Nobody(set[Key]):
    def __contains__(self, key: object) -> bool:
        return False


class _Careless(Inbox):
    """Parks a record that fails, and lets those that follow it pass."""

    async def _waiting_keys(self, db: Connection, parcels: Sequence[Parcel]) -> set[Key]:
        return _Nobody()


def _replacing(module: Any, **names: object) -> Callable[[], None]:
    def apply() -> None:
        for name, by in names.items():
            assert hasattr(module, name)
            setattr(module, name, by)

    return apply


MUTANTS: dict[Mutant, Callable[[], None]] = {
    "cursor-on-position": _replacing(relay, _OPEN_WINDOW=_OPEN_BY_POSITION, _GO_ON=_GO_ON_BY_POSITION),
    "cursor-on-transaction": _replacing(relay, _OPEN_WINDOW=_OPEN_BY_TRANSACTION, _GO_ON=_GO_ON_BY_TRANSACTION),
    "no-dedupe": _replacing(inbox, Inbox=_Forgetful),
    "kafka-first": _replacing(bus, hand_over=_commit_then_take),
    "park-without-key": _replacing(inbox, Inbox=_Careless),
}
