"""What does reading a record cost beside the bare client?"""

import asyncio
import time
from collections.abc import Sequence

import orjson
from flip_chassis.bus import Record
from flip_chassis.inbox import unpack
from flip_contracts.topics import PROJECT

from bench.ground import Ground, bus_of, consumer_of
from bench.measuring import Series, in_turns
from bench.report import Chapter, Scale, share
from bench.workload import say_all

_RECORDS = 60_000
_A_POLL = 500
_PATIENCE_S = 300.0


class Pace:
    """Counts what has been read since the end of the first poll, until there is enough."""

    def __init__(self, until: int) -> None:
        self._until = until
        self._read = 0
        self._first: tuple[int, float] | None = None
        self.rate = asyncio.get_running_loop().create_future()

    def note(self, count: int) -> None:
        """So many more are read and committed."""
        self._read += count
        now = time.perf_counter()
        if self._first is None:
            self._first = self._read, now
        elif self._read >= self._until and not self.rate.done():
            began_with, began = self._first
            self.rate.set_result((self._read - began_with) / (now - began))


async def run(ground: Ground, scale: Scale) -> Chapter:
    """Bus and unpacking, without a database, against aiokafka and orjson alone."""
    records = scale.of(_RECORDS)
    ground.empty(PROJECT.name)
    await say_all(ground, PROJECT.name, records)

    async def flip() -> float:
        pace = Pace(records)

        async def take(poll: Sequence[Record]) -> bool:
            parcels = [unpack(it.topic, it.key, it.partition, it.offset, it.headers, it.value) for it in poll]
            assert not any(parcel.flaw for parcel in parcels)
            pace.note(len(parcels))
            return True

        with ground.postgres.database("bench") as database:
            settings = ground.hearing(database)
            async with bus_of(settings).hearing([PROJECT.name], take), asyncio.timeout(_PATIENCE_S):
                return await pace.rate

    async def raw() -> float:
        pace = Pace(records)
        consumer = consumer_of(ground.hearer, ground.group(), PROJECT.name)
        await consumer.start()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not pace.rate.done():
                    polled = await consumer.getmany(timeout_ms=1000, max_records=_A_POLL)
                    bodies = [orjson.loads(record.value or b"") for many in polled.values() for record in many]
                    await consumer.commit()
                    pace.note(len(bodies))
            return pace.rate.result()
        finally:
            await consumer.stop()

    flips, raws = await in_turns(scale.rounds, (flip, raw))
    flip_series = Series("FLIP's bus and unpacking", "envelope and message parsed and checked", "/s", flips)
    raw_series = Series("aiokafka and orjson", f"getmany(max_records={_A_POLL}), orjson.loads", "/s", raws)
    return Chapter(
        "Consumer without a database",
        f"{records:,} edits, a commit to Kafka each poll. FLIP reads the CloudEvents headers into an envelope and"
        " checks the body against its contract; the bare client parses the body's JSON and looks at nothing.",
        (flip_series, raw_series),
        (share(flip_series, raw_series, 60),),
    )
