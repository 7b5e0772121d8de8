# pyright: reportMissingTypeStubs=false
"""Nothing committed is lost: the relay hands every row of the event log to Kafka, in the order of each stream.

One leader a database (an advisory lock). The cursor walks windows: the rows that the snapshot `high`, taken when the
window opens, shows and the snapshot before it, `low`, doesn't; within a window rows go by position. Every row is in
exactly one window, however late it commits. A cursor on the position alone would skip rows that commit late; one on
transaction ids could turn two rows of one stream round when the later writer got its transaction id first.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aiokafka.errors import KafkaError

from flip_chassis import crash
from flip_chassis.background import background
from flip_chassis.bus import Bus
from flip_chassis.database import UNREACHABLE, Connection, Row, connect
from flip_chassis.log import envelope_of
from flip_chassis.outgoing import Outgoing, Producer, send
from flip_chassis.settings import Settings
from flip_chassis.telemetry import RELAY_HORIZON, SAID, log

_BATCH = 500
_PACE_S = 0.004
"""The least from one look to the next, so that what is said meanwhile goes together."""
_IDLE_S = 0.25
_RETRY_S = 1.0

# No statistics tell the planner how far the cursor has come: left to itself it reads the whole log for a few new rows.
# The cursor's own commits need not wait for the disk: what a crash takes from it is published again and deduplicated.
_PREPARE = """
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET jit = off;
SET synchronous_commit = off
"""
_LEAD = "SELECT pg_advisory_lock(hashtextextended('flip.relay', 0))"
_TAKE_OVER = "UPDATE relay_cursor SET epoch = epoch + 1 RETURNING epoch, pos"
# Both answer with at least one row, of nulls where there is nothing to publish; no row says that another one leads.
_GO_ON = """
WITH moved AS (UPDATE relay_cursor SET pos = $2 WHERE epoch = $1 RETURNING low, high, last)
SELECT event.* FROM moved LEFT JOIN LATERAL (
    SELECT * FROM event_log
    WHERE pos > $2 AND pos <= last AND pg_visible_in_snapshot(xid, high) AND NOT pg_visible_in_snapshot(xid, low)
    ORDER BY pos LIMIT $3
) AS event ON true ORDER BY pos
"""
_OPEN_WINDOW = """
WITH now AS (SELECT pg_current_snapshot() AS high),
fresh AS MATERIALIZED (
    SELECT pos FROM event_log
    WHERE xid >= (SELECT pg_snapshot_xmin(high) FROM relay_cursor)
    AND pg_visible_in_snapshot(xid, (SELECT high FROM now))
    AND NOT pg_visible_in_snapshot(xid, (SELECT high FROM relay_cursor))
),
opened AS (
    UPDATE relay_cursor SET low = relay_cursor.high, high = now.high,
    pos = coalesce((SELECT min(pos) FROM fresh) - 1, 0), last = coalesce((SELECT max(pos) FROM fresh), 0)
    FROM now WHERE epoch = $1 RETURNING epoch
)
SELECT event.* FROM opened
LEFT JOIN LATERAL (SELECT pos FROM fresh ORDER BY pos LIMIT $2) AS first ON true
LEFT JOIN LATERAL (SELECT * FROM event_log WHERE event_log.pos = first.pos OFFSET 0) AS event ON true
ORDER BY pos
"""


class Deposed(Exception):
    """Another relay has taken over."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place in the event log up to which all is published, in the hands of the relay that leads."""

    db: Connection
    epoch: int

    async def open_window(self) -> list[Row]:
        """The first rows of the next window; none while nothing new was said. Raises Deposed."""
        rows = await self._fetch(_OPEN_WINDOW, self.epoch, _BATCH)
        crash.point("relay.window-opened")
        return rows

    async def go_on(self, pos: int) -> list[Row]:
        """Note that the window is published up to `pos`: the rows that follow in it. Raises Deposed."""
        rows = await self._fetch(_GO_ON, self.epoch, pos, _BATCH)
        crash.point("relay.cursor-moved")
        return rows

    async def _fetch(self, query: str, *args: object) -> list[Row]:
        rows = await self.db.fetch(query, *args)
        if not rows:
            raise Deposed
        return [row for row in rows if row["pos"] is not None]


async def take_over(db: Connection) -> tuple[Cursor, list[Row]]:
    """Lead from now on: the cursor, and the rows that the one who led before may not have published."""
    place = await db.fetchrow(_TAKE_OVER)
    assert place is not None, "the migration makes the cursor"
    cursor = Cursor(db, place["epoch"])
    return cursor, await cursor.go_on(place["pos"])


async def publish(cursor: Cursor, producer: Producer, source: str, rows: Sequence[Row]) -> list[Row]:
    """Publish rows of a window, in their order; answers those that follow in it.

    The cursor isn't moved past a window's last rows: the next window's opening does that.
    """
    await _send(producer, [row for row in rows if not row["local"]], source)
    return await cursor.go_on(rows[-1]["pos"]) if len(rows) == _BATCH else []


async def _send(producer: Producer, rows: Sequence[Row], source: str) -> None:
    outgoing = [
        Outgoing(row["topic"], row["key"].encode(), row["payload"], envelope_of(row, source).headers()) for row in rows
    ]
    acknowledged = await send(producer, outgoing)
    crash.point("relay.sent")
    await asyncio.gather(*acknowledged)
    crash.point("relay.acknowledged")
    SAID.inc(len(rows))


@dataclass(slots=True)
class Relay:
    """Publishes one service's event log."""

    settings: Settings
    bus: Bus
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    came_through: float | None = None
    """When the relay last handed on all that it saw, or a batch of it, on the monotonic clock; none on standby."""

    def horizon_age_s(self) -> float:
        """Seconds since the relay last came through; 0 while another one leads."""
        return 0.0 if self.came_through is None else time.monotonic() - self.came_through

    async def run(self) -> None:
        """Lead, or wait to lead; begin again from the cursor after any fault of Postgres or Kafka."""
        while True:
            try:
                async with connect(self.settings.postgres.get_secret_value()) as db:
                    await self._lead(db)
            except (*UNREACHABLE, KafkaError, Deposed, TimeoutError) as error:
                log.warning("the relay begins again from its cursor", reason=type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    async def _lead(self, db: Connection) -> None:
        await db.execute(_PREPARE)
        await db.execute(_LEAD)
        cursor, left = await take_over(db)
        crash.point("relay.leading")
        self.came_through = time.monotonic()
        try:
            async with self.bus.producer() as producer:
                await self._publish(cursor, producer, left)
                while True:
                    looked = time.monotonic()
                    self.wake.clear()
                    await self._publish(cursor, producer, await cursor.open_window())
                    self.came_through = time.monotonic()
                    await self._rest(looked + _PACE_S)
        except Deposed:
            self.came_through = None
            raise

    async def _publish(self, cursor: Cursor, producer: Producer, rows: Sequence[Row]) -> None:
        while rows:
            rows = await publish(cursor, producer, self.settings.source, rows)
            self.came_through = time.monotonic()

    async def _rest(self, until: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self.wake.wait()
        await asyncio.sleep(until - time.monotonic())


@asynccontextmanager
async def relay(settings: Settings, bus: Bus) -> AsyncGenerator[Relay]:
    """Run the relay while the block lasts."""
    it = Relay(settings, bus)
    RELAY_HORIZON.set_function(it.horizon_age_s)
    async with background(it.run(), "relay"):
        yield it
