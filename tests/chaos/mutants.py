"""Wrong versions of the backbone, each breaking one promise; only worker processes of these tests take one on."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer
from flip_chassis import bus, inbox, outgoing, relay
from flip_chassis.database import Connection
from flip_chassis.inbox import Inbox, Key, Parcel

Mutant = Literal["cursor-on-position", "cursor-on-transaction", "no-dedupe", "kafka-first", "park-without-key"]


async def _publish_by_position(db: Connection, producer: outgoing.Producer, source: str, epoch: int) -> bool:
    rows = await db.fetch(
        "SELECT e.* FROM event_log e, relay_cursor c WHERE e.pos > c.pos ORDER BY e.pos LIMIT 500",
    )
    if not rows:
        return False
    await relay._send(producer, rows, source)  # pyright: ignore[reportPrivateUsage]
    await db.execute("UPDATE relay_cursor SET pos = $1 WHERE epoch = $2", rows[-1]["pos"], epoch)
    return True


_READ_BELOW_HORIZON = """
SELECT e.* FROM event_log e, relay_cursor c WHERE e.pos > c.pos AND e.pos <= c.last
AND e.xid >= pg_snapshot_xmin(c.low) AND e.xid < pg_snapshot_xmin(c.high) ORDER BY e.pos LIMIT $1
"""
_OPEN_WINDOW_BELOW_HORIZON = """
WITH now AS (SELECT pg_current_snapshot() AS high),
found AS (
    SELECT min(e.pos) AS first, max(e.pos) AS last FROM event_log e, relay_cursor c, now n
    WHERE e.xid >= pg_snapshot_xmin(c.high) AND e.xid < pg_snapshot_xmin(n.high)
)
UPDATE relay_cursor
SET low = relay_cursor.high, high = n.high, pos = coalesce(f.first - 1, 0), last = coalesce(f.last, 0)
FROM now n, found f WHERE epoch = $1 RETURNING f.last IS NOT NULL AS found
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
    "cursor-on-position": _replacing(relay, publish_next=_publish_by_position),
    "cursor-on-transaction": _replacing(relay, _READ=_READ_BELOW_HORIZON, _OPEN_WINDOW=_OPEN_WINDOW_BELOW_HORIZON),
    "no-dedupe": _replacing(inbox, Inbox=_Forgetful),
    "kafka-first": _replacing(bus, hand_over=_commit_then_take),
    "park-without-key": _replacing(inbox, Inbox=_Careless),
}
