# pyright: reportMissingTypeStubs=false
"""A service as a process: what every one starts, in which order, and how it stops."""

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg
import uvicorn
import uvloop
from fastapi import APIRouter, FastAPI

from flip_chassis import operations
from flip_chassis.access import FetchKeys, SigningKeys, published_at
from flip_chassis.bus import STUCK_AFTER_S, Bus, bus
from flip_chassis.database import UNREACHABLE, Pool, database
from flip_chassis.handlers import Handler, Handlers
from flip_chassis.http import Check, Context, http_service
from flip_chassis.inbox import Inbox, inbox
from flip_chassis.rebuilds import rebuilder
from flip_chassis.relay import Relay, relay
from flip_chassis.replay import CHASSIS_TABLES, Replay
from flip_chassis.settings import Settings
from flip_chassis.telemetry import start_telemetry
from flip_chassis.work import Work, own_work

S = TypeVar("S", bound=Settings)
_YOUNG_OBJECTS = 20_000


@dataclass(frozen=True, slots=True)
class Backbone:
    """The parts that carry a service: its database, its way to Kafka, what it says and what it hears."""

    settings: Settings
    pool: Pool
    bus: Bus
    relay: Relay
    inbox: Inbox
    handlers: Handlers

    def http(
        self, *routers: APIRouter, checks: dict[str, Check] | None = None, keys: FetchKeys | None = None
    ) -> FastAPI:
        """The service's app on this backbone. `keys` is for `auth`, which needs nobody to tell it its own."""
        known = SigningKeys(keys or published_at(self.settings.jwks_url))
        token_file = self.settings.operator_token_file
        token = token_file.read_text() if token_file else None
        context = Context(self.settings, self.pool, self.handlers, self.relay, known, token)
        return http_service(
            context,
            *routers,
            operations.router,
            checks={"postgres": self._postgres, "kafka": self._kafka, "relay": self._relay, **(checks or {})},
            figures=self._figures,
        )

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[Work]:
        """Work of the service itself on a connection of its own; what it says is on its way when the block ends."""
        async with self.pool.acquire() as db:
            work = own_work(self.settings, db, self.handlers.project)
            yield work
        if work.written:
            self.relay.wake.set()

    async def _postgres(self) -> bool:
        try:
            async with asyncio.timeout(2), self.pool.acquire() as db:
                return await db.fetchval("SELECT true")
        except (*UNREACHABLE, TimeoutError, asyncpg.PostgresError):
            return False

    async def _kafka(self) -> bool:
        hearing = self.inbox.hearing
        if self.inbox.stopped is not None:
            return False
        return hearing is None or (hearing.joined and hearing.poll_age_s() < STUCK_AFTER_S)

    async def _relay(self) -> bool:
        return self.relay.horizon_age_s() < STUCK_AFTER_S

    async def _figures(self) -> Mapping[str, float]:
        hearing = self.inbox.hearing
        figures = {"relay_horizon_age_s": self.relay.horizon_age_s()}
        if hearing is not None:
            figures |= {"poll_age_s": hearing.poll_age_s(), "lag": await hearing.lag()}
        return figures


@asynccontextmanager
async def backbone(
    settings: Settings, migrations: Path, handlers: Iterable[Handler], projected: Iterable[str] = ()
) -> AsyncGenerator[Backbone]:
    """Database, relay and inbox, in the order in which they start and, backwards, stop.

    `projected` names the tables that the service's projections fill, and nothing else: what a replay makes again.
    """
    known = Handlers(settings, handlers)
    way = bus(settings)
    async with (
        database(settings, migrations) as pool,
        relay(settings, way) as said,
        inbox(settings, pool, way, known, said) as heard,
        rebuilder(Replay(settings, way, known, (*CHASSIS_TABLES, *projected))),
    ):
        yield Backbone(settings, pool, way, said, heard, known)


def run(service: Callable[[S], AbstractAsyncContextManager[FastAPI]], settings: S) -> None:
    """Run a service until it is told to stop."""
    start_telemetry(settings.service, os.environ)
    collect_less_garbage()
    uvloop.run(_serve(service, settings))


def collect_less_garbage() -> None:
    """What is imported stays for good; looking through it again with every poll of records would take a third of it."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


async def _serve(service: Callable[[S], AbstractAsyncContextManager[FastAPI]], settings: S) -> None:
    async with service(settings) as app:
        config = uvicorn.Config(
            app, host=settings.host, port=settings.port, log_config=None, access_log=False, timeout_graceful_shutdown=10
        )
        await uvicorn.Server(config).serve()
