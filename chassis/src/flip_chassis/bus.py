# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""The way to Kafka: mutual TLS, FastStream to hear, an idempotent producer to say."""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from faststream.security import BaseSecurity

from flip_chassis import crash
from flip_chassis.background import background
from flip_chassis.outgoing import Producer
from flip_chassis.settings import Settings
from flip_chassis.telemetry import HEARING_STARTED_ANEW, LAG, POLL_AGE, log

Position: TypeAlias = "dict[TopicPartition, int]"
"""The next offset of each partition."""
Record: TypeAlias = "ConsumerRecord[bytes | None, bytes | None]"


Take = Callable[[Sequence[Record]], Awaitable[bool]]
"""Takes one poll's records; answers whether they are dealt with and may be committed."""

_RETRY_S = 0.5
_MAX_RECORDS = 500
_IDLE_MS = 20
"""How long to wait for records; after a poll without any FastStream also sleeps so long, whatever comes."""
_READ_RECORDS = 5000
_LOOK_S = 5.0
STUCK_AFTER_S = 60.0
"""How long a consumer may wait for the broker's answer; a healthy one has one every half second."""
_REQUEST_MS = 20_000
_BATCH_BYTES = 256 * 1024
_SESSION_MS = 10_000
_HEARTBEAT_MS = 3_000


@dataclass(frozen=True, slots=True)
class Bus:
    """Where Kafka is and who we are there."""

    settings: Settings
    context: ssl.SSLContext

    @asynccontextmanager
    async def producer(self) -> AsyncGenerator[Producer]:
        """An idempotent producer that waits for all replicas; waits for the broker to come up."""
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.settings.kafka,
                security_protocol="SSL",
                ssl_context=self.context,
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=_BATCH_BYTES,
                request_timeout_ms=_REQUEST_MS,
                retry_backoff_ms=100,
            )
            try:
                await producer.start()
                break
            except (KafkaError, OSError) as error:
                log.info("waiting for Kafka", reason=type(error).__name__)
                await producer.stop()
                await asyncio.sleep(_RETRY_S)
        try:
            yield cast("Producer", producer)
        finally:
            await producer.stop()

    @asynccontextmanager
    async def reading(self, topics: Sequence[str], position: Position) -> AsyncGenerator["Reading"]:
        """Read `topics` from `position`, or where it has none from their beginning, to what is their end now.

        Outside of any consumer group: it changes nothing for anybody.
        """
        async with self.producer():
            pass  # the broker is up
        consumer: Any = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self.settings.kafka,
            security_protocol="SSL",
            ssl_context=self.context,
            group_id=None,
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            partitions: list[TopicPartition] = sorted(consumer.assignment())
            begin = {**await consumer.beginning_offsets(partitions), **position}
            for partition in partitions:
                consumer.seek(partition, begin[partition])
            yield Reading(consumer, begin, await consumer.end_offsets(partitions))
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def hearing(self, topics: Sequence[str], take: Take) -> AsyncGenerator["Hearing"]:
        """Give every poll's records of `topics` to `take`, in order; commit only what it has dealt with."""
        async with self.producer():
            pass  # the broker is up: FastStream itself gives up at once where it isn't
        broker = KafkaBroker(
            self.settings.kafka,
            security=BaseSecurity(ssl_context=self.context, use_ssl=True),
            apply_types=False,
            allow_auto_create_topics=False,
            logger=logging.getLogger("flip.bus"),
            log_level=logging.DEBUG,
        )
        subscriber = broker.subscriber(
            *topics,
            batch=True,
            max_records=_MAX_RECORDS,
            batch_timeout_ms=_IDLE_MS,
            group_id=self.settings.group,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            max_poll_interval_ms=600_000,
            no_reply=True,
            parser=_untouched,
            decoder=_whole,
        )

        hearing = Hearing(self, broker, subscriber)

        async def hear(message: Any) -> None:
            with hearing.at_work():
                await hand_over(cast("AIOKafkaConsumer", subscriber.consumer), message.raw_message, take)

        subscriber(hear)
        await broker.start()
        try:
            async with background(hearing.watch(), "hearing"):
                yield hearing
        finally:
            await broker.stop()


@dataclass(slots=True)
class Reading:
    """What stands on topics up to an end: batches of records, each partition in its order."""

    consumer: Any
    position: Position
    end: Position

    async def __aiter__(self) -> AsyncGenerator[Sequence[Record]]:
        while any(self.position[partition] < end for partition, end in self.end.items()):
            found: dict[TopicPartition, list[Record]] = await self.consumer.getmany(
                timeout_ms=1000, max_records=_READ_RECORDS
            )
            for partition, records in found.items():
                self.position[partition] = records[-1].offset + 1
                yield records


@dataclass(slots=True)
class Hearing:
    """A running subscription, which is started anew when the broker has answered no fetch for a while.

    aiokafka's consumer can be stuck for ever after a broker's restart and says so nowhere (its issue 1154); what it
    tells is when each partition was last answered for.
    """

    bus: Bus
    broker: KafkaBroker
    subscriber: Any
    busy: bool = False
    since: float = field(default_factory=time.monotonic)

    def assigned(self) -> bool:
        """Whether the group has given us partitions."""
        return bool(self._assignment())

    @contextmanager
    def at_work(self) -> Generator[None]:
        """While a poll is taken nothing need be fetched."""
        self.busy = True
        try:
            yield
        finally:
            self.busy, self.since = False, time.monotonic()

    def poll_age_s(self) -> float:
        """Seconds since the broker last answered for the partition that it has not answered for the longest."""
        if self.busy:
            return 0.0
        answered = [self._answered(partition) for partition in self._assignment()]
        return time.monotonic() - min(answered, default=self.since)

    async def lag(self) -> int:
        """Records on the assigned partitions that were not polled yet, as far as the broker has told of them."""
        consumer = self.subscriber.consumer
        ends = {partition: consumer.highwater(partition) for partition in self._assignment()}
        return sum([end - await consumer.position(partition) for partition, end in ends.items() if end is not None])

    async def watch(self) -> None:
        """Look now and then, and start anew where it is stuck."""
        while True:
            await asyncio.sleep(_LOOK_S)
            age = self.poll_age_s()
            POLL_AGE.set(age)
            LAG.set(await self.lag())
            if age > STUCK_AFTER_S:
                log.error("the consumer is stuck; it is started anew", poll_age_s=round(age))
                await self.start_anew()

    async def start_anew(self) -> None:
        """Leave the group, wait for the broker, join again where the group has come to."""
        await self.broker.stop()
        async with self.bus.producer():
            pass
        await self.broker.start()
        self.since = time.monotonic()
        HEARING_STARTED_ANEW.inc()

    def _assignment(self) -> frozenset[TopicPartition]:
        consumer = self.subscriber.consumer
        return consumer.assignment() if consumer is not None else frozenset()

    def _answered(self, partition: TopicPartition) -> float:
        """When the broker last answered for a partition, on the monotonic clock."""
        at_ms = self.subscriber.consumer.last_poll_timestamp(partition)
        return max(self.since, at_ms / 1000 - time.time() + time.monotonic()) if at_ms else self.since


def bus(settings: Settings) -> Bus:
    """The bus as this principal: its certificate proves who it is."""
    context = ssl.create_default_context(cafile=str(settings.kafka_ca))
    context.load_cert_chain(str(settings.kafka_certificate))
    return Bus(settings, context)


async def _untouched(records: Any) -> KafkaAckableMessage:
    # FastStream's own parser decodes headers as UTF-8 and loses the batch where one isn't.
    return KafkaAckableMessage(body=b"", headers={}, raw_message=records, message_id="", consumer=None)  # type: ignore[arg-type]


async def _whole(message: Any) -> Any:
    return message


async def hand_over(consumer: AIOKafkaConsumer, records: Sequence[Record], take: Take) -> None:
    """Give one poll to `take`, and only then tell Kafka that it is dealt with. What isn't comes again."""
    try:
        dealt_with = await take(records)
    except Exception:
        _rewind(consumer, records)
        await asyncio.sleep(_RETRY_S)
        raise
    if dealt_with:
        await consumer.commit()
        crash.point("inbox.kafka-committed")
    else:
        _rewind(consumer, records)


def _rewind(consumer: AIOKafkaConsumer, records: Sequence[Record]) -> None:
    first: dict[TopicPartition, int] = {}
    for record in records:
        first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
    for partition in consumer.assignment() & first.keys():
        consumer.seek(partition, first[partition])
