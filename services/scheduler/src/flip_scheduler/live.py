"""Run news as server-sent events (HTML living standard, section 9.2): one connection listens for all readers."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from uuid import UUID

import orjson
from flip_chassis.database import Pool, Row, notices
from flip_contracts.base import RunId

from flip_scheduler import domain, store

_CHANNEL = "run_news"
_SIGN_OF_LIFE_S = 15.0


@dataclass(slots=True)
class LiveFeed:
    """Tells readers what is new of the runs that they watch."""

    pool: Pool
    readers: dict[RunId, list[asyncio.Event]] = field(default_factory=lambda: defaultdict(list))

    async def listen(self, dsn: str) -> None:
        """Wake the readers of a run that has news, and all of them where news may have been missed."""
        async for told in notices(dsn, _CHANNEL):
            for run_id in list(self.readers) if told is None else [RunId(UUID(told))]:
                for reader in self.readers.get(run_id, ()):
                    reader.set()

    async def events(self, run_id: RunId, after: int) -> AsyncGenerator[bytes]:
        """The run's news after a number, then each as it comes; ends with the run."""
        wake = asyncio.Event()
        self.readers[run_id].append(wake)
        try:
            while True:
                wake.clear()
                async with self.pool.acquire() as db:
                    run = await store.run(db, run_id)
                    rows = await store.news(db, run_id, after)
                for row in rows:
                    after = row["number"]
                    yield _event(row)
                if run is None or (run["status"] in domain.ENDED and after >= run["last_news"]):
                    return
                try:
                    async with asyncio.timeout(_SIGN_OF_LIFE_S):
                        await wake.wait()
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._leave(run_id, wake)

    def _leave(self, run_id: RunId, wake: asyncio.Event) -> None:
        self.readers[run_id].remove(wake)
        if not self.readers[run_id]:
            del self.readers[run_id]


def _event(row: Row) -> bytes:
    body = {"at": row["at"], "attempt": row["attempt"], **row["facts"]}
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (row["number"], row["kind"].encode(), orjson.dumps(body))
