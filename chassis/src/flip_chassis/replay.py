"""Any state that projections made can be made again: from this service's event log and from what it heard on Kafka.

The projections run once more over everything that took effect here, in the order in which it did, into a schema of
their own; what comes out is compared with what stands, and may take its place. Reactions are never run again. Two
passes keep the service at work meanwhile: the first takes what one snapshot of the database has, the second, for which
writers wait, what came in since. A projection that writes anywhere but into its projected tables fails the replay.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from flip_contracts.base import REGISTRY
from flip_contracts.cloudevents import Malformed, read_envelope

from flip_chassis.batched import Batched
from flip_chassis.bus import Bus, Position, Record
from flip_chassis.database import Connection, Row, connect
from flip_chassis.handlers import Handlers
from flip_chassis.inbox import unpack
from flip_chassis.log import Said, envelope_of
from flip_chassis.settings import Settings

CHASSIS_TABLES = ("known_user", "ended_session", "known_project")
"""The projected tables that every service has."""

_BATCH = 1000
_SHADOW = "replay"

_COLUMNS = (
    "id",
    "source",
    "topic",
    "key",
    "stream_version",
    "type",
    "time",
    "actor",
    "correlation_id",
    "causation_id",
    "traceparent",
    "payload",
)
_STAGE = f"""
INSERT INTO replay.event_on_broker ({", ".join(_COLUMNS)})
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::timestamptz[],
    $8::text[], $9::uuid[], $10::uuid[], $11::text[], $12::bytea[]) ON CONFLICT DO NOTHING
"""
_EVENT = """source text, topic text, key text, stream_version bigint, type text, time timestamptz, actor text,
    correlation_id uuid, causation_id uuid, traceparent text, payload bytea"""
_ON_BROKER = f"CREATE UNLOGGED TABLE replay.event_on_broker (id uuid PRIMARY KEY, {_EVENT})"
_SNAPSHOT = "SELECT pg_current_snapshot()::text"
# Held beyond its transaction: one that stayed open would keep Postgres from clearing away what is overwritten.
_LINE_UP = f"""
DECLARE in_order NO SCROLL CURSOR WITH HOLD FOR SELECT {", ".join(_COLUMNS)} FROM (
    SELECT coalesce(i.pos, e.pos) AS at, e.pos AS after, e.id, $4::text AS source, e.topic, e.key, e.stream_version,
        e.type, e.time, e.actor, e.correlation_id, e.causation_id, e.traceparent, e.payload
    FROM public.event_log e LEFT JOIN public.inbox i ON i.event_id = e.causation_id AND i.xid = e.xid
    WHERE e.type = ANY($1)
        AND pg_visible_in_snapshot(e.xid, $3::text::pg_snapshot)
        AND NOT pg_visible_in_snapshot(e.xid, $2::text::pg_snapshot)
    UNION ALL
    SELECT i.pos, 0, h.*
    FROM replay.event_on_broker h JOIN public.inbox i ON i.event_id = h.id
    WHERE h.payload IS NOT NULL
        AND pg_visible_in_snapshot(i.xid, $3::text::pg_snapshot)
        AND NOT pg_visible_in_snapshot(i.xid, $2::text::pg_snapshot)
        AND NOT EXISTS (SELECT FROM public.parked p WHERE p.event_id = h.id)
        AND NOT EXISTS (SELECT FROM public.discarded d WHERE d.event_id = h.id)
) AS took_effect ORDER BY at, after
"""
_NEXT = f"FETCH {_BATCH} FROM in_order"
_MISSING = """
SELECT count(*) FROM public.inbox i WHERE NOT EXISTS (SELECT FROM replay.event_on_broker h WHERE h.id = i.event_id)
"""
_BEFORE_ANYTHING = "1:1:"


@dataclass(frozen=True, slots=True)
class Compared:
    """A projected table as it stands and as it came out of the replay: rows, and rows that only one of them has."""

    table: str
    standing: int
    rebuilt: int
    differing: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a replay found. `missing` counts events that took effect here and are on the broker no more."""

    events: int
    missing: int
    tables: tuple[Compared, ...]


@asynccontextmanager
async def as_it_was(
    db: Connection, handlers: Handlers, source: str, tables: Iterable[str], rows: Iterable[Row]
) -> AsyncGenerator[None]:
    """While the block lasts, `tables` show what these rows of the event log add up to, to this connection alone."""
    async with db.transaction():
        for table in (*CHASSIS_TABLES, *tables):
            await db.execute(f"CREATE TEMP TABLE {table} (LIKE public.{table} INCLUDING ALL) ON COMMIT DROP")
        await db.execute("SET LOCAL search_path = pg_temp")  # what else there is can't be reached
        for row in rows:
            message = REGISTRY[row["type"]].decode(row["payload"])
            await handlers.replay(Said(envelope_of(row, source), message), db)
        yield


@dataclass(slots=True)
class Replay:
    """The replay of one service: its handlers, and the tables that its projections fill."""

    settings: Settings
    bus: Bus
    handlers: Handlers
    tables: tuple[str, ...]

    async def run(self, *, swap: bool) -> Outcome:
        """Rebuild, compare and, with `swap`, put what was rebuilt in place. Raises whatever a projection raises."""
        owner = self.settings.postgres_owner.get_secret_value()
        async with connect(owner) as db, connect(owner) as shadow, self._shadow(db):
            await shadow.execute(f"SET search_path = {_SHADOW}")
            first: str = await db.fetchval(_SNAPSHOT)
            position = await self._stage(shadow, {})
            events = await self._pass(db, shadow, _BEFORE_ANYTHING, first)
            async with db.transaction():
                await db.execute("LOCK TABLE event_log, inbox IN EXCLUSIVE MODE")
                await self._stage(shadow, position)
                events += await self._pass(db, shadow, first, await db.fetchval(_SNAPSHOT))
                outcome = Outcome(
                    events, await db.fetchval(_MISSING), tuple([await _compare(db, t) for t in self.tables])
                )
                if swap:
                    await self._swap(db)
        return outcome

    @asynccontextmanager
    async def _shadow(self, db: Connection) -> AsyncGenerator[None]:
        await db.execute(f"DROP SCHEMA IF EXISTS {_SHADOW} CASCADE; CREATE SCHEMA {_SHADOW}")
        for table in self.tables:
            await db.execute(f"CREATE TABLE {_SHADOW}.{table} (LIKE public.{table} INCLUDING ALL)")
        await db.execute(_ON_BROKER)
        yield
        await db.execute(f"DROP SCHEMA {_SHADOW} CASCADE")

    async def _stage(self, shadow: Connection, position: Position) -> Position:
        """Lay what is on the broker beyond `position` ready. Bodies are kept only where a projection wants them."""
        topics = self.handlers.heard(self.settings)
        if not topics:
            return position
        wanted = frozenset(self.handlers.projected())
        async with self.bus.reading(topics, position) as reading:
            async for records in reading:
                rows = [_staged(record, wanted) for record in records]
                await shadow.execute(_STAGE, *map(list, zip(*rows, strict=True)))
            return reading.position

    async def _pass(self, db: Connection, shadow: Connection, seen: str, until: str) -> int:
        """Project what the snapshot `until` shows and `seen` doesn't; the number of events.

        Each batch is a transaction of its own: in one long one Postgres could clear away nothing that was overwritten.
        """
        await shadow.execute("ANALYZE replay.event_on_broker")
        await db.execute(_LINE_UP, self.handlers.projected(), seen, until, self.settings.source)
        events, batched = 0, Batched(shadow)
        try:
            while rows := await db.fetch(_NEXT):
                for row in rows:
                    said = Said(envelope_of(row, row["source"]), REGISTRY[row["type"]].decode(row["payload"]))
                    await self.handlers.replay(said, batched)
                await batched.post()
                events += len(rows)
        finally:
            await batched.done()
        await db.execute("CLOSE in_order")
        return events

    async def _swap(self, db: Connection) -> None:
        for table in self.tables:
            await db.execute(f"DELETE FROM public.{table}")
            await db.execute(f"INSERT INTO public.{table} SELECT * FROM {_SHADOW}.{table}")


def _staged(record: Record, wanted: frozenset[str]) -> tuple[object, ...]:
    """The record as a row: without its body where nobody wants its type, its id alone where it is no event."""
    try:
        it = read_envelope(record.topic, record.headers)
    except Malformed:
        of = (record.topic, record.key, record.partition, record.offset, record.headers, record.value)
        return unpack(*of).id, *[None] * (len(_COLUMNS) - 1)
    return (
        it.id,
        it.source,
        it.topic,
        it.key,
        it.stream_version,
        it.type,
        it.time,
        it.actor,
        it.correlation_id,
        it.causation_id,
        it.traceparent,
        record.value if it.type in wanted else None,
    )


async def _compare(db: Connection, table: str) -> Compared:
    standing, rebuilt = f"public.{table}", f"{_SHADOW}.{table}"
    sums = [await _checksum(db, name) for name in (standing, rebuilt)]
    differing = (
        0
        if sums[0] == sums[1]
        else await db.fetchval(
            f"SELECT count(*) FROM ((TABLE {standing} EXCEPT ALL TABLE {rebuilt}) UNION ALL"
            f" (TABLE {rebuilt} EXCEPT ALL TABLE {standing})) AS differing"
        )
    )
    return Compared(table, sums[0][0], sums[1][0], differing)


async def _checksum(db: Connection, table: str) -> tuple[int, str]:
    """Rows, and a sum over all rows that doesn't hang on their order."""
    row = await db.fetchrow(
        f"SELECT count(*) AS rows, coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text AS sum FROM {table} t"
    )
    found: Mapping[str, Any] = row or {}
    return found["rows"], found["sum"]
