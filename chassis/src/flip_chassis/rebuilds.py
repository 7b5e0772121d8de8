# pyright: reportMissingTypeStubs=false
"""Rebuilds of a service's projections, asked for by an operator and worked off one at a time."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
from aiokafka.errors import KafkaError
from flip_contracts.operations import ProjectionsRebuilt, TrustRebuiltProjections

from flip_chassis.background import background
from flip_chassis.database import UNREACHABLE, Connection, Row, connect
from flip_chassis.ids import uuid7
from flip_chassis.log import Cause
from flip_chassis.refusal import NotFound, Refused
from flip_chassis.replay import Compared, Outcome, Replay
from flip_chassis.telemetry import log
from flip_chassis.work import Work

_LOOK_S = 1.0
_NEWEST = 50
_ONE_AT_WORK = "SELECT pg_advisory_lock(hashtextextended('flip.rebuild', 0))"


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A rebuild as its operator sees it. `state` is asked, running, done or failed; `tables` is what it found."""

    rebuild_id: UUID
    actor: str
    swap: bool
    state: str
    asked_at: datetime
    ended_at: datetime | None
    events: int
    missing: int
    tables: tuple[Compared, ...]
    reason: str | None


async def ask(db: Connection, actor: str, *, swap: bool, at: datetime) -> Rebuild:
    """Ask for a rebuild. Raises Refused while another is asked for or running."""
    try:
        row = await db.fetchrow(
            "INSERT INTO rebuild (rebuild_id, actor, swap, state, asked_at)"
            " VALUES ($1, $2, $3, 'asked', $4) RETURNING *",
            uuid7(),
            actor,
            swap,
            at,
        )
    except asyncpg.UniqueViolationError as error:
        raise Refused("rebuild-running", "A rebuild is under way: wait for its end.") from error
    return _rebuild(row or {})


async def newest(db: Connection) -> list[Rebuild]:
    """The last rebuilds, newest first."""
    return [_rebuild(row) for row in await db.fetch("SELECT * FROM rebuild ORDER BY asked_at DESC LIMIT $1", _NEWEST)]


async def one(db: Connection, rebuild_id: UUID) -> Rebuild:
    """One rebuild. Raises NotFound."""
    row = await db.fetchrow("SELECT * FROM rebuild WHERE rebuild_id = $1", rebuild_id)
    if row is None:
        raise NotFound("rebuild-not-found")
    return _rebuild(row)


def _rebuild(row: Row) -> Rebuild:
    facts = {name: row[name] for name in Rebuild.__slots__ if name != "tables"}
    return Rebuild(**facts, tables=tuple(Compared(**each) for each in row["tables"]))


@dataclass(frozen=True, slots=True)
class Rebuilder:
    """Works off what was asked for. One that died in the middle is done again from its beginning."""

    replay: Replay

    async def work_off(self) -> None:
        """Until the end of the process."""
        while True:
            try:
                async with connect(self.replay.settings.postgres.get_secret_value()) as db:
                    await db.execute(_ONE_AT_WORK)
                    while True:
                        await self._work_off_one(db)
                        await asyncio.sleep(_LOOK_S)
            except (*UNREACHABLE, KafkaError) as error:
                log.warning("a rebuild waits for Postgres or Kafka", reason=type(error).__name__)
                await asyncio.sleep(_LOOK_S)

    async def _work_off_one(self, db: Connection) -> None:
        row = await db.fetchrow(
            "UPDATE rebuild SET state = 'running' WHERE state IN ('asked', 'running') RETURNING rebuild_id, actor, swap"
        )
        if row is None:
            return
        try:
            outcome = await self.replay.run(swap=row["swap"])
        except (*UNREACHABLE, KafkaError):
            raise
        except Exception as error:
            log.error("a rebuild failed; nothing was changed", exc_info=error)
            await _end(db, row["rebuild_id"], "failed", reason=f"{type(error).__name__}: {error}"[:500])
            return
        async with db.transaction():
            await self._tell(db, row, outcome)
            await _end(db, row["rebuild_id"], "done", outcome)

    async def _tell(self, db: Connection, row: Row, outcome: Outcome) -> None:
        settings = self.replay.settings
        cause = Cause(row["actor"], datetime.now(UTC), correlation_id=row["rebuild_id"])
        kind = TrustRebuiltProjections if settings.trust else ProjectionsRebuilt
        await Work(settings, db, cause, self.replay.handlers.project).say(
            kind(
                process=settings.source,
                events=outcome.events,
                differing=frozenset(each.table for each in outcome.tables if each.differing),
                swapped=row["swap"],
            )
        )


async def _end(
    db: Connection, rebuild_id: UUID, state: str, outcome: Outcome | None = None, reason: str | None = None
) -> None:
    found: list[dict[str, Any]] = [
        {"table": each.table, "standing": each.standing, "rebuilt": each.rebuilt, "differing": each.differing}
        for each in (outcome.tables if outcome else ())
    ]
    await db.execute(
        "UPDATE rebuild SET state = $2, ended_at = $3, events = $4, missing = $5, tables = $6, reason = $7"
        " WHERE rebuild_id = $1",
        rebuild_id,
        state,
        datetime.now(UTC),
        outcome.events if outcome else 0,
        outcome.missing if outcome else 0,
        found,
        reason,
    )


@asynccontextmanager
async def rebuilder(replay: Replay) -> AsyncGenerator[None]:
    """Work off rebuilds while the block lasts."""
    async with background(Rebuilder(replay).work_off(), "rebuilds"):
        yield
