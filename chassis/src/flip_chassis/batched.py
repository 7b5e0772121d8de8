"""What projections only write goes to Postgres many statements at a time, in its order; records go together."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from flip_chassis.database import Connection, Isolation, Row
from flip_chassis.log import Said

_BATCH = 1000


Keep = Callable[[Sequence[Said], Connection], Awaitable[None]]
"""Keeps for ever what was said."""


class Unknown(str):
    """What a batched statement answers: nothing is known yet. To ask what it did raises TypeError."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise TypeError("a projection that needs to know what it did asks with RETURNING")


@dataclass(slots=True)
class Batched:
    """A connection for projections: what they only execute goes to Postgres in batches, in its order."""

    db: Connection
    _sql: str = ""
    _waiting: list[Sequence[object]] = field(default_factory=list[Sequence[object]])
    _sending: asyncio.Task[None] | None = None
    _heard: dict[Keep, list[Said]] = field(default_factory=dict[Keep, list[Said]])

    def record(self, keep: Keep, said: Said) -> None:
        """Have `keep` called with all that was heard for it, once."""
        self._heard.setdefault(keep, []).append(said)

    async def execute(self, query: str, /, *args: object) -> str:
        """Have it done before anything else is asked."""
        if query != self._sql or len(self._waiting) == _BATCH:
            await self.flush()
            self._sql = query
        self._waiting.append(args)
        return Unknown()

    async def executemany(self, command: str, /, args: Iterable[Sequence[object]]) -> None:
        for each in args:
            await self.execute(command, *each)

    async def fetch(self, query: str, /, *args: object) -> list[Row]:
        await self.flush()
        return await self.db.fetch(query, *args)

    async def fetchrow(self, query: str, /, *args: object) -> Row | None:
        await self.flush()
        return await self.db.fetchrow(query, *args)

    async def fetchval(self, query: str, /, *args: object) -> Any:
        await self.flush()
        return await self.db.fetchval(query, *args)

    def transaction(
        self, *, isolation: Isolation | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[object]:
        raise TypeError("a projection is part of the transaction that it is called in")

    async def flush(self) -> None:
        """Send what waits, and wait until it is done."""
        await self.post()
        await self.done()
        heard, self._heard = self._heard, {}
        for keep, said in heard.items():
            await keep(said, self.db)

    async def post(self) -> None:
        """Send what waits; until it is done nothing else can be asked."""
        await self.done()
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._sending = asyncio.create_task(self.db.executemany(self._sql, waiting))

    async def done(self) -> None:
        """Wait for what was sent."""
        sending, self._sending = self._sending, None
        if sending:
            await sending
