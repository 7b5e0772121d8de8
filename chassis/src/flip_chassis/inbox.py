# pyright: reportMissingTypeStubs=false
"""Each event takes effect at most once, in the order of its aggregate: parse, dedupe, handle, commit.

One poll is one Postgres transaction: bulk dedupe by event id, the handlers in offset order, what they say, the offsets;
then Kafka's offset is committed once. Where a handler fails, the poll is done again record by record, and the failing
record parks its key: it and the later records of that key wait in `parked`, other keys flow.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal
from uuid import NAMESPACE_URL, UUID, uuid5

import asyncpg
import flip_contracts.catalogue  # noqa: F401  # pyright: ignore[reportUnusedImport] - declares every message
from flip_contracts.base import REGISTRY
from flip_contracts.cloudevents import Envelope, Header, Malformed, read_envelope
from pydantic import ValidationError

from flip_chassis import crash
from flip_chassis.background import background
from flip_chassis.batched import Batched
from flip_chassis.bus import Bus, Hearing, Record
from flip_chassis.database import UNREACHABLE, Connection, Pool, Row
from flip_chassis.handlers import Handler, Handlers, Transient
from flip_chassis.limit import Limit
from flip_chassis.log import LARGEST_BODY_BYTES, Cause, Said
from flip_chassis.relay import Relay
from flip_chassis.settings import Settings
from flip_chassis.telemetry import HANDLED, PARKED, REPEATED, log, span, traceparent
from flip_chassis.work import Work

Kind = Literal["transient", "poison", "behind"]
Key = tuple[str, str]

_CLASHES = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)
_RETRYABLE = (Transient, *_CLASHES)
_CLASHES_IN_A_ROW = 3
_OUTAGE_PAUSE_S = 1.0
_LOOK_S = 1.0
_FIRST_RETRY = timedelta(seconds=1)
_LONGEST_RETRY = timedelta(minutes=5)
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Parcel:
    """A record as it was received, with what could be read of it."""

    topic: str
    key: str
    partition: int
    offset: int
    headers: Sequence[Header]
    value: bytes | None
    said: Said | None
    envelope: Envelope | None
    flaw: str | None

    @property
    def id(self) -> UUID:
        """The event's own id; where it can't be read, one that follows from the record, so that it counts once."""
        if self.envelope:
            return self.envelope.id
        digest = sha256(repr((self.headers, self.value)).encode()).hexdigest()
        return uuid5(NAMESPACE_URL, f"{self.topic}/{self.partition}/{self.offset}/{digest}")

    @property
    def ordered_by(self) -> Key:
        """What orders this record: no other record may overtake it under the same."""
        return self.topic, self.key


class PoisonError(Exception):
    """A record that can't be read."""


def unpack(
    topic: str, key: bytes | None, partition: int, offset: int, headers: Sequence[Header], value: bytes | None
) -> Parcel:
    """Read a record; what is wrong with it stands in `flaw`. Never raises."""
    envelope, said, flaw = None, None, None
    try:
        envelope = read_envelope(topic, headers)
        said = _read_message(envelope, value)
    except Malformed as error:
        flaw = str(error)
    except ValidationError as error:
        flaw = "wrong fields: " + ", ".join(".".join(map(str, each["loc"])) or "body" for each in error.errors())
    name = envelope.key if envelope else _readable_key(key, partition, offset)
    return Parcel(topic, name, partition, offset, headers, value, said, envelope, flaw)


def _readable_key(key: bytes | None, partition: int, offset: int) -> str:
    return f"{partition}:{offset}" if key is None else key.decode(errors="backslashreplace")


def _read_message(envelope: Envelope, value: bytes | None) -> Said:
    message = REGISTRY.get(envelope.type)
    if message is None:
        raise Malformed(f"the type {envelope.type[:100]} is unknown")
    if value is None:
        raise Malformed("there is no body")
    if len(value) > LARGEST_BODY_BYTES:
        raise Malformed(f"the body has {len(value)} bytes, more than {LARGEST_BODY_BYTES}")
    return Said(envelope, message.decode(value))


def pause_after(attempts: int) -> timedelta:
    """How long a transient failure waits, by the database's clock: doubling from 1 s to 5 min."""
    return min(_FIRST_RETRY * 2 ** min(attempts - 1, 16), _LONGEST_RETRY)


@dataclass(slots=True)
class Inbox:
    """Hears what the service's handlers are declared for."""

    settings: Settings
    pool: Pool
    handlers: Handlers
    relay: Relay
    hearing: Hearing | None = None
    limits: dict[tuple[str, int], Limit] = field(default_factory=lambda: defaultdict(Limit))
    stopped: str | None = None
    retry: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, records: Sequence[Record]) -> bool:
        """Deal with one poll. False means: not now, give me the same again."""
        if self.stopped:
            await asyncio.sleep(_OUTAGE_PAUSE_S)
            return False
        parcels = [
            unpack(record.topic, record.key, record.partition, record.offset, record.headers, record.value)
            for record in records
        ]
        crash.point("inbox.polled")
        try:
            await self._take(parcels)
        except UNREACHABLE as error:
            log.warning("Postgres is away; the poll is taken again", reason=type(error).__name__)
            await asyncio.sleep(_OUTAGE_PAUSE_S)
            return False
        self.relay.wake.set()
        return not self.stopped

    async def _take(self, parcels: Sequence[Parcel]) -> None:
        for _ in range(_CLASHES_IN_A_ROW):
            try:
                await self._in_one_go(parcels, carefully=False)
            except UNREACHABLE:
                raise
            except _CLASHES:
                continue
            except Exception as error:
                log.info("a poll is taken record by record", reason=type(error).__name__)
                break
            else:
                return
        await self._in_one_go(parcels, carefully=True)

    async def _in_one_go(self, parcels: Sequence[Parcel], *, carefully: bool) -> None:
        async with self.pool.acquire() as db, db.transaction():
            fresh = await self._fresh(db, parcels)
            crash.point("inbox.deduped")
            waiting = await self._waiting_keys(db, fresh)
            batched = Batched(db)
            for parcel in fresh:
                if parcel.ordered_by in waiting:
                    await self._park(db, parcel, "behind", "waits behind an earlier record of its key")
                elif not await self._handled(db, batched, parcel, carefully=carefully):
                    waiting.add(parcel.ordered_by)
                crash.point("inbox.handled")
            await batched.flush()
            await self._note_progress(db, parcels, fresh)
            crash.point("inbox.progress-noted")
        crash.point("inbox.database-committed")

    async def _fresh(self, db: Connection, parcels: Sequence[Parcel]) -> list[Parcel]:
        first = {parcel.id: parcel for parcel in reversed(parcels)}
        rows = await db.fetch(
            "INSERT INTO inbox (event_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING event_id",
            list(dict.fromkeys(parcel.id for parcel in parcels)),
        )
        unseen = {row["event_id"] for row in rows}
        fresh = [parcel for parcel in parcels if parcel.id in unseen and first[parcel.id] is parcel]
        REPEATED.inc(len(parcels) - len(fresh))
        return fresh

    async def _waiting_keys(self, db: Connection, parcels: Sequence[Parcel]) -> set[Key]:
        rows = await db.fetch(
            "SELECT DISTINCT topic, key FROM parked"
            " JOIN unnest($1::text[], $2::text[]) AS these (topic, key) USING (topic, key)",
            [parcel.topic for parcel in parcels],
            [parcel.key for parcel in parcels],
        )
        return {(row["topic"], row["key"]) for row in rows}

    async def _handled(self, db: Connection, batched: Batched, parcel: Parcel, *, carefully: bool) -> bool:
        """Whether the record has taken effect; otherwise, where we go carefully, it is parked."""
        if not carefully:
            await self._handle(db, batched, parcel)
            self.limits[parcel.topic, parcel.partition].note(failed=False)
            return True
        try:
            async with db.transaction():
                await self._handle(db, alone := Batched(db), parcel)
                await alone.flush()
        except UNREACHABLE:
            raise
        except _RETRYABLE as error:
            await self._park(db, parcel, "transient", type(error).__name__)
            return False
        except Exception as error:
            log.error("a record is parked", topic=parcel.topic, reason=type(error).__name__, exc_info=_loud(error))
            await self._park(db, parcel, "poison", parcel.flaw or type(error).__name__)
            self._count(parcel, failed=True)
            return False
        self._count(parcel, failed=False)
        return True

    async def _handle(self, db: Connection, batched: Batched, parcel: Parcel) -> None:
        if parcel.said is None:
            raise PoisonError(parcel.flaw)
        try:
            await hear(parcel.said, self.settings, self.handlers, db, batched)
        except OSError as error:  # the handler's own world; Postgres away shows as asyncpg's errors
            raise Transient(type(error).__name__) from error

    def _count(self, parcel: Parcel, *, failed: bool) -> None:
        limit = self.limits[parcel.topic, parcel.partition]
        limit.note(failed=failed)
        if reached := limit.reached():
            self.stopped = f"{reached} on {parcel.topic}/{parcel.partition}"
            log.error("too many failures; the service hears no more", reason=self.stopped)

    async def _park(self, db: Connection, parcel: Parcel, kind: Kind, reason: str) -> None:
        await db.execute(
            'INSERT INTO parked (topic, key, partition, "offset", headers, value, kind, reason, attempts, next_attempt,'
            " event_id, type) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + $10::interval, $11, $12)",
            parcel.topic,
            parcel.key,
            parcel.partition,
            parcel.offset,
            [[name, value.hex()] for name, value in parcel.headers],
            parcel.value,
            kind,
            reason[:500],
            0 if kind == "behind" else 1,
            pause_after(1) if kind == "transient" else None,
            parcel.id,
            parcel.envelope.type if parcel.envelope else None,
        )
        crash.point("inbox.parked")
        self.retry.set()

    async def _note_progress(self, db: Connection, parcels: Sequence[Parcel], fresh: Iterable[Parcel]) -> None:
        ends = {(parcel.topic, parcel.partition): parcel.offset + 1 for parcel in parcels}
        await db.executemany(
            "INSERT INTO inbox_offset (topic, partition, next_offset) VALUES ($1, $2, $3)"
            " ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset",
            [(*place, end) for place, end in sorted(ends.items())],
        )
        versions: dict[tuple[str, str, str], int] = {}
        for parcel in fresh:
            if parcel.envelope:
                versions[parcel.topic, parcel.key, parcel.envelope.source] = parcel.envelope.stream_version
        await note_versions(db, versions)

    # --- what was parked ------------------------------------------------------------------------------------------

    async def retry_parked(self) -> None:
        """Go on with parked keys: heads that are due, then what waits behind them, each in a transaction of its own."""
        while True:
            try:
                while await self._retry_one():
                    self.relay.wake.set()
                await self._count_parked()
            except UNREACHABLE as error:
                log.warning("Postgres is away; parked records wait", reason=type(error).__name__)
            self.retry.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self.retry.wait()

    async def _retry_one(self) -> bool:
        async with self.pool.acquire() as db, db.transaction():
            row = await db.fetchrow(
                "SELECT * FROM parked p WHERE (kind = 'behind' OR (kind = 'transient' AND next_attempt <= now()))"
                " AND NOT EXISTS (SELECT FROM parked q WHERE (q.topic, q.key) = (p.topic, p.key) AND q.id < p.id)"
                " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
            )
            if row is None:
                return False
            parcel = _unparked(row)
            try:
                async with db.transaction():
                    await self._handle(db, alone := Batched(db), parcel)
                    await alone.flush()
            except UNREACHABLE:
                raise
            except Exception as error:
                await _keep_parked(db, row, error)
            else:
                await _take_effect(db, row)
                crash.point("inbox.retried")
            return True

    async def _count_parked(self) -> None:
        async with self.pool.acquire() as db:
            counts = {
                row["kind"]: row["n"] for row in await db.fetch("SELECT kind, count(*) n FROM parked GROUP BY kind")
            }
        for kind in ("transient", "poison", "behind"):
            PARKED.labels(kind).set(counts.get(kind, 0))


def _loud(error: Exception) -> Exception | None:
    """A flaw of the record needs no stack trace; a fault of a handler does."""
    return None if isinstance(error, PoisonError) else error


def _unparked(row: Row) -> Parcel:
    headers = [(name, bytes.fromhex(value)) for name, value in row["headers"]]
    return unpack(row["topic"], row["key"].encode(), row["partition"], row["offset"], headers, row["value"])


async def _take_effect(db: Connection, row: Row) -> None:
    await db.execute("DELETE FROM parked WHERE id = $1", row["id"])
    await db.execute(
        "UPDATE inbox SET pos = nextval('event_log_pos_seq'), xid = pg_current_xact_id() WHERE event_id = $1",
        row["event_id"],
    )


async def _keep_parked(db: Connection, row: Row, error: Exception) -> None:
    attempts = row["attempts"] + 1
    again = isinstance(error, _RETRYABLE) and attempts < _ATTEMPTS
    await db.execute(
        "UPDATE parked SET kind = $2, reason = $3, attempts = $4, next_attempt = now() + $5::interval WHERE id = $1",
        row["id"],
        "transient" if again else "poison",
        type(error).__name__,
        attempts,
        pause_after(attempts) if again else None,
    )


async def hear(said: Said, settings: Settings, handlers: Handlers, db: Connection, batched: Batched) -> None:
    """Let every handler of the message's type hear it, in the transaction that `db` is in.

    What projections write and records keep waits in `batched` until somebody asks for it: a reaction, or whoever ends
    the transaction.
    """
    found = handlers.of(said.envelope.type)
    for handler in found:
        if handler.kind == "projection":
            await handler.project(said, batched)
        elif handler.kind == "record":
            batched.record(handler.function, said)
        else:
            await batched.flush()
            await _react(handler, said, settings, handlers, db)
    if found:
        HANDLED.labels(said.envelope.type).inc()


async def _react(handler: Handler, said: Said, settings: Settings, handlers: Handlers, db: Connection) -> None:
    envelope = said.envelope
    with span(f"hear {envelope.type}", envelope.traceparent):
        cause = Cause(
            actor=envelope.actor,
            time=datetime.now(UTC),
            correlation_id=envelope.correlation_id,
            causation_id=envelope.id,
            traceparent=traceparent(),
        )
        await handler(said, Work(settings, db, cause, handlers.project))


async def note_versions(db: Connection, versions: dict[tuple[str, str, str], int]) -> None:
    """Remember how far each stream was heard."""
    await db.executemany(
        "INSERT INTO inbox_stream (topic, key, source, version) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (topic, key, source) DO UPDATE SET version = greatest(inbox_stream.version, excluded.version)",
        [(*stream, version) for stream, version in sorted(versions.items())],
    )


@asynccontextmanager
async def inbox(settings: Settings, pool: Pool, bus: Bus, handlers: Handlers, relay: Relay) -> AsyncGenerator[Inbox]:
    """Hear while the block lasts; a service that has only projections of its own events has nobody to hear."""
    it = Inbox(settings, pool, handlers, relay)
    topics = handlers.heard(settings)
    if not topics:
        yield it
        return
    async with background(it.retry_parked(), "parked"), bus.hearing(topics, it.take) as hearing:
        it.hearing = hearing
        yield it
