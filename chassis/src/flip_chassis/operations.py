"""What those who run a service may do about its record keeping, over HTTP.

They see what waits and why, have it tried again, take it out of the way, have projections rebuilt, and refill a broker
that lost its disk. Every act is itself said, with its actor.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query
from flip_contracts import operations as said
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flip_chassis import parked, rebuilds
from flip_chassis.http import OPERATOR_ONLY, Reading, WorkOfRequest
from flip_chassis.parked import Parked, Shown
from flip_chassis.rebuilds import Rebuild
from flip_chassis.work import Work

router = APIRouter(prefix="/operations", tags=["operations"], dependencies=[OPERATOR_ONLY])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Retry(_Body):
    """Which keys to try again: the one that waits on `topic` under `key`, or all whose first record is of `type`."""

    topic: str | None = None
    key: str | None = None
    type: str | None = None

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if (self.topic is None) != (self.key is None) or (self.topic is None) == (self.type is None):
            raise ValueError("give either topic and key, or type")
        return self


class Discard(_Body):
    """Why a record is taken out of the way."""

    because: str = Field(min_length=1, max_length=500)


class AskedRebuild(_Body):
    """`swap` puts the rebuilt rows in place of those that stand; without it they are only compared."""

    swap: bool = False


class Tried(BaseModel):
    """How many keys are being tried again."""

    keys: int


class Refilled(BaseModel):
    """How many events are on their way to the broker again."""

    events: int


@router.get("/parked")
async def list_parked(
    db: Reading,
    record_type: Annotated[str | None, Query(alias="type", max_length=200)] = None,
    after: int = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[Parked]:
    """The keys that wait, by their first record, oldest first; `after` is the last id of the page before."""
    return await parked.list_parked(db, type_=record_type, after=after, limit=limit)


@router.get("/parked/{parked_id}")
async def show_parked(parked_id: int, db: Reading) -> Shown:
    """A parked record: what it holds, why it waits, how often it was tried, how many wait behind it."""
    return await parked.show(db, parked_id)


@router.post("/parked/retry", status_code=202)
async def retry_parked(asked: Retry, work: WorkOfRequest) -> Tried:
    """Try a key again, or every key whose first record is of a type."""
    async with work.db.transaction():
        if asked.topic is not None and asked.key is not None:
            keys = await parked.retry_key(work.db, asked.topic, asked.key)
            await _tell_retried(work, "key", f"{asked.topic}/{asked.key}", keys)
        else:
            keys = await parked.retry_type(work.db, asked.type or "")
            await _tell_retried(work, "type", asked.type or "", keys)
    return Tried(keys=keys)


@router.post("/parked/{parked_id}/retry", status_code=202)
async def retry_one(parked_id: int, work: WorkOfRequest) -> Tried:
    """Try the first record of a key again; what waits behind it follows."""
    async with work.db.transaction():
        tried = await parked.retry(work.db, parked_id)
        await _tell_retried(work, "record", tried.record, 1)
    return Tried(keys=1)


@router.post("/parked/{parked_id}/discard")
async def discard(parked_id: int, asked: Discard, work: WorkOfRequest) -> Shown:
    """Take the first record of a key out of the way, for good; what waits behind it goes on. A copy is kept."""
    async with work.db.transaction():
        gone = await parked.discard(work.db, parked_id, work.cause.actor, asked.because, datetime.now(UTC))
        kind = said.TrustDiscardedParked if work.at_trust else said.ParkedDiscarded
        await work.say(
            kind(
                process=work.source,
                record=gone.parked.record,
                record_type=gone.parked.type,
                digest=gone.digest,
                because=asked.because,
            )
        )
    return gone


@router.post("/refill", status_code=202)
async def refill(work: WorkOfRequest) -> Refilled:
    """Hand the whole event log to the broker again, with the same ids: who has heard an event before ignores it."""
    async with work.db.transaction():
        events: int = await work.db.fetchval("SELECT count(*) FROM event_log WHERE NOT local")
        kind = said.TrustRefilledBroker if work.at_trust else said.BrokerRefilled
        await work.say(kind(process=work.source, events=events))
        await work.db.execute(
            "UPDATE relay_cursor SET epoch = epoch + 1, low = '1:1:', high = '1:1:', pos = 0, last = 0"
        )
    return Refilled(events=events)


@router.post("/rebuilds", status_code=202)
async def ask_rebuild(asked: AskedRebuild, work: WorkOfRequest) -> Rebuild:
    """Have the projections rebuilt beside those that stand, and compared with them; one rebuild at a time."""
    return await rebuilds.ask(work.db, work.cause.actor, swap=asked.swap, at=work.cause.time)


@router.get("/rebuilds")
async def list_rebuilds(db: Reading) -> list[Rebuild]:
    """The rebuilds of this service, newest first."""
    return await rebuilds.newest(db)


@router.get("/rebuilds/{rebuild_id}")
async def show_rebuild(rebuild_id: UUID, db: Reading) -> Rebuild:
    """One rebuild: how far it is, and how each table compares."""
    return await rebuilds.one(db, rebuild_id)


async def _tell_retried(work: Work, scope: Literal["record", "key", "type"], subject: str, keys: int) -> None:
    kind = said.TrustRetriedParked if work.at_trust else said.ParkedRetried
    await work.say(kind(process=work.source, scope=scope, subject=subject, keys=keys))
