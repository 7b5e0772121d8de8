# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""The way to Kafka: mutual TLS, a consumer that is watched, an idempotent producer."""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from flip_chassis import crash
from flip_chassis.background import background
from flip_chassis.outgoing import Producer
from flip_chassis.settings import Settings
from flip_chassis.telemetry import HEARING_STARTED_ANEW, LAG, POLL_AGE, log

Position: TypeAlias = "dict[TopicPartition, int]"
"""The next offset of each partition."""
Record: TypeAlias = "ConsumerRecord[bytes | None, bytes | None]"
Polled: TypeAlias = "dict[TopicPartition, list[Record]]"

Take = Callable[[Sequence[Record]], Awaitable[bool]]
"""Takes one poll's records; answers whether they are dealt with and may be committed."""

_RETRY_S = 0.5
_MAX_RECORDS = 500
_POLL_MS = 1000
_FETCH_WAIT_MS = 500
"""How long the broker waits for records before it answers a fetch with none."""
_REPLY_MS = 100
_COMMIT_EVERY_S = 0.2
"""How often Kafka is told what Postgres knows already. What a crash brings again meanwhile is deduplicated."""
_READ_RECORDS = 5000
_LOOK_S = 5.0
_LAG_PATIENCE_S = 1.0
STUCK_AFTER_S = 60.0
"""How long a consumer may wait for the broker's answer; a healthy one has one every half second."""
_REQUEST_MS = 20_000
_BATCH_BYTES = 256 * 1024
_SESSION_MS = 10_000
_HEARTBEAT_MS = 3_000


class _Client(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


_C = TypeVar("_C", bound=_Client)


async def _started(make: Callable[[], _C]) -> _C:
    """A client of Kafka; waits for the broker to come up."""
    while True:
        client = make()
        try:
            await client.start()
        except (KafkaError, OSError) as error:
            log.info("waiting for Kafka", reason=type(error).__name__)
            await client.stop()
            await asyncio.sleep(_RETRY_S)
        else:
            return client


@dataclass(frozen=True, slots=True)
class Bus:
    """Where Kafka is and who we are there."""

    settings: Settings
    context: ssl.SSLContext

    @property
    def _connection(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self.settings.kafka,
            "security_protocol": "SSL",
            "ssl_context": self.context,
        }

    @asynccontextmanager
    async def producer(self) -> AsyncGenerator[Producer]:
        """An idempotent producer that waits for all replicas."""
        producer = await _started(
            lambda: AIOKafkaProducer(
                **self._connection,
                acks="all",
                compression_type="zstd",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=_BATCH_BYTES,
                request_timeout_ms=_REQUEST_MS,
                retry_backoff_ms=100,
            )
        )
        try:
            yield cast("Producer", producer)
        finally:
            await producer.stop()

    @asynccontextmanager
    async def reading(self, topics: Sequence[str], position: Position) -> AsyncGenerator["Reading"]:
        """Read `topics` from `position`, or where it has none from their beginning, to what is their end now.

        Outside of any consumer group: it changes nothing for anybody.
        """
        consumer: Any = await _started(
            lambda: AIOKafkaConsumer(*topics, **self._connection, group_id=None, fetch_max_wait_ms=_FETCH_WAIT_MS)
        )
        try:
            partitions: list[TopicPartition] = sorted(consumer.assignment())
            consumer.pause(*partitions)
            begin: Position = {**await consumer.beginning_offsets(partitions), **position}
            end: Position = await consumer.end_offsets(partitions)
            for partition in partitions:
                if begin[partition] < end[partition]:
                    consumer.seek(partition, begin[partition])
                    consumer.resume(partition)
            yield Reading(consumer, begin, end)
        finally:
            await _stop(consumer)

    @asynccontextmanager
    async def subscribed(
        self, topics: Sequence[str], listener: ConsumerRebalanceListener
    ) -> AsyncGenerator[AIOKafkaConsumer]:
        """A member of the service's consumer group, which commits nothing by itself."""
        consumer = AIOKafkaConsumer(
            **self._connection,
            group_id=self.settings.group,
            enable_auto_commit=False,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            auto_offset_reset="earliest",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            max_poll_interval_ms=600_000,
        )
        consumer.subscribe(topics, listener=listener)
        try:
            await consumer.start()
            yield consumer
        finally:
            await _stop(consumer)

    @asynccontextmanager
    async def hearing(self, topics: Sequence[str], take: Take) -> AsyncGenerator["Hearing"]:
        """Give every poll's records of `topics` to `take`, in order; commit only what it has dealt with."""
        hearing = Hearing(self, topics, take)
        async with background(hearing.run(), "hearing"):
            yield hearing


@dataclass(slots=True)
class Reading:
    """What stands on topics up to an end: batches of records, each partition in its order."""

    consumer: Any
    position: Position
    end: Position

    async def __aiter__(self) -> AsyncGenerator[Sequence[Record]]:
        while any(self.position[partition] < end for partition, end in self.end.items()):
            found: Polled = await self.consumer.getmany(timeout_ms=1000, max_records=_READ_RECORDS)
            for partition, records in found.items():
                self.position[partition] = records[-1].offset + 1
                yield records


class Stuck(Exception):
    """The broker has answered no fetch for too long."""


@dataclass(slots=True)
class Hearing(ConsumerRebalanceListener):
    """A running subscription, which is started anew when the broker has answered no fetch for a while.

    aiokafka's consumer can be stuck for ever after a broker's restart and says so nowhere (its issue 1154); what it
    tells is when each partition was last answered for.
    """

    bus: Bus
    topics: Sequence[str]
    take: Take
    consumer: AIOKafkaConsumer | None = None
    joined: bool = False
    """Whether the group has given us our share of the partitions, which may be none."""
    busy: bool = False
    since: float = field(default_factory=time.monotonic)

    async def run(self) -> None:
        """Hear; begin anew, where the group has come to, after any fault of Kafka."""
        while True:
            try:
                async with self.bus.subscribed(self.topics, self) as self.consumer, asyncio.TaskGroup() as tasks:
                    self.since = time.monotonic()
                    tasks.create_task(self._watch())
                    await self._hear(self.consumer)
            except* (KafkaError, OSError, Stuck) as faults:
                reasons = sorted({type(fault).__name__ for fault in faults.exceptions})
                log.warning("hearing begins anew", reasons=reasons, poll_age_s=round(self.poll_age_s()))
            self.joined = False
            HEARING_STARTED_ANEW.inc()
            await asyncio.sleep(_RETRY_S)

    async def _hear(self, consumer: AIOKafkaConsumer) -> None:
        dealt_with: Position = {}
        committed = time.monotonic()
        while True:
            patience_ms = round(1000 * _COMMIT_EVERY_S) if dealt_with else _POLL_MS
            found: Polled = await consumer.getmany(timeout_ms=patience_ms, max_records=_MAX_RECORDS)
            records = list(chain.from_iterable(found.values()))
            if records and await self._at_work(hand_over(consumer, records, self.take)):
                dealt_with |= {partition: many[-1].offset + 1 for partition, many in found.items()}
            if dealt_with and (not records or time.monotonic() - committed > _COMMIT_EVERY_S):
                await commit(consumer, dealt_with)
                dealt_with, committed = {}, time.monotonic()

    async def _at_work(self, work: Awaitable[bool]) -> bool:
        """While a poll is taken nothing need be fetched."""
        self.busy = True
        try:
            return await work
        finally:
            self.busy, self.since = False, time.monotonic()

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self.joined, self.since = True, time.monotonic()

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self.joined, self.since = False, time.monotonic()

    def poll_age_s(self) -> float:
        """Seconds since the broker last answered for the partition that it has not answered for the longest."""
        partitions = self.partitions()
        if self.busy or (self.joined and not partitions):
            return 0.0
        return time.monotonic() - min(map(self._answered, partitions), default=self.since)

    async def lag(self) -> int:
        """Records on the assigned partitions that were not polled yet, as far as the broker has told of them."""
        return sum([await self._lag_of(partition) for partition in self.partitions()])

    async def _lag_of(self, partition: TopicPartition) -> int:
        consumer = cast("Any", self.consumer)
        try:
            end = consumer.highwater(partition)
            async with asyncio.timeout(_LAG_PATIENCE_S):
                return 0 if end is None else end - await consumer.position(partition)
        except (IllegalStateError, TimeoutError):  # it is being taken away, or on its way to another offset
            return 0

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            age = self.poll_age_s()
            POLL_AGE.set(age)
            LAG.set(await self.lag())
            if age > STUCK_AFTER_S:
                raise Stuck

    def partitions(self) -> frozenset[TopicPartition]:
        """What the group has given us."""
        return frozenset(self.consumer.assignment() if self.consumer is not None else ())

    def _answered(self, partition: TopicPartition) -> float:
        """When the broker last answered for a partition, on the monotonic clock."""
        at_ms = cast("Any", self.consumer).last_poll_timestamp(partition)
        return max(self.since, at_ms / 1000 - time.time() + time.monotonic()) if at_ms else self.since


def bus(settings: Settings) -> Bus:
    """The bus as this principal: its certificate proves who it is."""
    context = ssl.create_default_context(cafile=str(settings.kafka_ca))
    context.load_cert_chain(str(settings.kafka_certificate))
    return Bus(settings, context)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Stop once the broker has answered the last fetch.

    Where request and goodbye come to it together it can miss the goodbye, and closing takes TLS's 30 s.
    """
    if fetched := consumer.assignment() - consumer.paused():
        consumer.pause(*fetched)
        await consumer.getmany(timeout_ms=_FETCH_WAIT_MS + _REPLY_MS)
    await consumer.stop()


async def hand_over(consumer: AIOKafkaConsumer, records: Sequence[Record], take: Take) -> bool:
    """Give one poll to `take`; whether it is dealt with. What isn't comes again."""
    try:
        dealt_with = await take(records)
    except Exception as error:
        log.error("a poll failed and is taken again", reason=type(error).__name__, exc_info=error)
        await asyncio.sleep(_RETRY_S)
        dealt_with = False
    if not dealt_with:
        _rewind(consumer, records)
    return dealt_with


async def commit(consumer: AIOKafkaConsumer, dealt_with: Position) -> None:
    """Tell Kafka how far the group has come. Whoever has a partition by now hears again what it isn't told."""
    mine = {partition: offset for partition, offset in dealt_with.items() if partition in consumer.assignment()}
    if not mine:
        return
    try:
        async with asyncio.timeout(_REQUEST_MS / 1000):
            await consumer.commit(mine)
    except (CommitFailedError, IllegalStateError) as error:
        log.info("the group has been shared out anew before a commit", reason=type(error).__name__)
    crash.point("inbox.kafka-committed")


def _rewind(consumer: AIOKafkaConsumer, records: Sequence[Record]) -> None:
    first: dict[TopicPartition, int] = {}
    for record in records:
        first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
    for partition in consumer.assignment() & first.keys():
        consumer.seek(partition, first[partition])
