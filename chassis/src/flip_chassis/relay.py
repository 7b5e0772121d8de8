# pyright: reportMissingTypeStubs=false
"""Nothing committed is lost: the relay hands every row of the event log to Kafka, in the order of each stream.

One leader a database (an advisory lock). The cursor walks windows of finished transactions. A window is [low, high):
`high` is `pg_snapshot_xmin` at the moment the window opens, so every transaction below it has ended and its rows are
visible; within the window rows go by position. A cursor on the position alone would skip rows that commit late; one
on (transaction, position) could turn two rows of one stream round when the later writer got its transaction id first.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aiokafka.errors import KafkaError

from flip_chassis.background import background
from flip_chassis.bus import Bus, Producer
from flip_chassis.database import UNREACHABLE, Connection, Row, connect
from flip_chassis.log import envelope_of
from flip_chassis.settings import Settings
from flip_chassis.telemetry import RELAY_HORIZON, SAID, log

_BATCH = 500
_BUSY_S = 0.005
_IDLE_S = 0.25
_RETRY_S = 1.0

_LEAD = "SELECT pg_advisory_lock(hashtextextended('flip.relay', 0))"
_TAKE_OVER = "UPDATE relay_cursor SET epoch = epoch + 1 RETURNING epoch"
_READ = """
SELECT e.* FROM event_log e, relay_cursor c
WHERE e.pos > c.pos AND e.pos <= c.last AND e.xid >= c.low AND e.xid < c.high
ORDER BY e.pos LIMIT $1
"""
_MOVE = "UPDATE relay_cursor SET pos = $1 WHERE epoch = $2"
_OPEN_WINDOW = """
WITH horizon AS (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS high),
found AS (
    SELECT min(e.pos) AS first, max(e.pos) AS last FROM event_log e, relay_cursor c, horizon h
    WHERE e.xid >= c.high AND e.xid < h.high
)
UPDATE relay_cursor
SET low = relay_cursor.high, high = h.high, pos = coalesce(f.first - 1, 0), last = coalesce(f.last, 0)
FROM horizon h, found f WHERE epoch = $1 RETURNING f.last IS NOT NULL AS found
"""


class Deposed(Exception):
    """Another relay has taken over."""


@dataclass(slots=True)
class Relay:
    """Publishes one service's event log."""

    settings: Settings
    bus: Bus
    wake: asyncio.Event = field(default_factory=asyncio.Event)

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
        await db.execute(_LEAD)
        epoch: int = await db.fetchval(_TAKE_OVER)
        async with self.bus.producer() as producer:
            while True:
                if not await publish_next(db, producer, self.settings.source, epoch):
                    await self._rest()

    async def _rest(self) -> None:
        self.wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self.wake.wait()
            await asyncio.sleep(_BUSY_S)


async def publish_next(db: Connection, producer: Producer, source: str, epoch: int) -> bool:
    """Publish the window's next rows, or open the next window. Answers whether there was anything to do."""
    rows = await db.fetch(_READ, _BATCH)
    if not rows:
        return await _open_window(db, epoch)
    await _send(producer, [row for row in rows if not row["local"]], source)
    if await db.execute(_MOVE, rows[-1]["pos"], epoch) != "UPDATE 1":
        raise Deposed
    return True


async def _open_window(db: Connection, epoch: int) -> bool:
    found = await db.fetchval(_OPEN_WINDOW, epoch)
    if found is None:
        raise Deposed
    RELAY_HORIZON.set_to_current_time()
    return found


async def _send(producer: Producer, rows: Sequence[Row], source: str) -> None:
    acknowledged = [
        await producer.send(
            row["topic"], value=row["payload"], key=row["key"].encode(), headers=envelope_of(row, source).headers()
        )
        for row in rows
    ]
    await asyncio.gather(*acknowledged)
    SAID.inc(len(rows))


@asynccontextmanager
async def relay(settings: Settings, bus: Bus) -> AsyncGenerator[Relay]:
    """Run the relay while the block lasts."""
    it = Relay(settings, bus)
    async with background(it.run(), "relay"):
        yield it
