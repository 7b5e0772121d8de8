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
_TAKE_OVER = "UPDATE relay_cursor SET epoch = epoch + 1 RETURNING epoch"
_READ = """
SELECT * FROM event_log
WHERE pos > (SELECT pos FROM relay_cursor) AND pos <= (SELECT last FROM relay_cursor)
AND pg_visible_in_snapshot(xid, (SELECT high FROM relay_cursor))
AND NOT pg_visible_in_snapshot(xid, (SELECT low FROM relay_cursor))
ORDER BY pos LIMIT $1
"""
_MOVE = "UPDATE relay_cursor SET pos = $1 WHERE epoch = $2"
_OPEN_WINDOW = """
WITH now AS (SELECT pg_current_snapshot() AS high),
found AS (
    SELECT min(pos) AS first, max(pos) AS last FROM (
        SELECT pos FROM event_log
        WHERE xid >= (SELECT pg_snapshot_xmin(high) FROM relay_cursor)
        AND pg_visible_in_snapshot(xid, (SELECT high FROM now))
        AND NOT pg_visible_in_snapshot(xid, (SELECT high FROM relay_cursor))
        OFFSET 0
    ) AS fresh
)
UPDATE relay_cursor
SET low = relay_cursor.high, high = n.high, pos = coalesce(f.first - 1, 0), last = coalesce(f.last, 0)
FROM now n, found f WHERE epoch = $1 RETURNING f.last IS NOT NULL AS found
"""


class Deposed(Exception):
    """Another relay has taken over."""


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
        epoch: int = await db.fetchval(_TAKE_OVER)
        crash.point("relay.leading")
        self.came_through = time.monotonic()
        try:
            async with self.bus.producer() as producer:
                while True:
                    looked = time.monotonic()
                    self.wake.clear()
                    while await publish_next(db, producer, self.settings.source, epoch):
                        self.came_through = time.monotonic()
                    self.came_through = time.monotonic()
                    await self._rest(looked + _PACE_S)
        except Deposed:
            self.came_through = None
            raise

    async def _rest(self, until: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self.wake.wait()
        await asyncio.sleep(until - time.monotonic())


async def publish_next(db: Connection, producer: Producer, source: str, epoch: int) -> bool:
    """Publish the window's next rows, or open the next window. Answers whether there may be more to publish."""
    rows = await db.fetch(_READ, _BATCH)
    if not rows:
        return await _open_window(db, epoch)
    crash.point("relay.read")
    await _send(producer, [row for row in rows if not row["local"]], source)
    if await db.execute(_MOVE, rows[-1]["pos"], epoch) != "UPDATE 1":
        raise Deposed
    crash.point("relay.cursor-moved")
    return len(rows) == _BATCH


async def _open_window(db: Connection, epoch: int) -> bool:
    found = await db.fetchval(_OPEN_WINDOW, epoch)
    if found is None:
        raise Deposed
    crash.point("relay.window-opened")
    return found


async def _send(producer: Producer, rows: Sequence[Row], source: str) -> None:
    outgoing = [
        Outgoing(row["topic"], row["key"].encode(), row["payload"], envelope_of(row, source).headers()) for row in rows
    ]
    acknowledged = await send(producer, outgoing)
    crash.point("relay.sent")
    await asyncio.gather(*acknowledged)
    crash.point("relay.acknowledged")
    SAID.inc(len(rows))


@asynccontextmanager
async def relay(settings: Settings, bus: Bus) -> AsyncGenerator[Relay]:
    """Run the relay while the block lasts."""
    it = Relay(settings, bus)
    RELAY_HORIZON.set_function(it.horizon_age_s)
    async with background(it.run(), "relay"):
        yield it
