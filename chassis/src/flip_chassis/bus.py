# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""The way to Kafka: mutual TLS, FastStream to hear, an idempotent producer to say."""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from faststream.security import BaseSecurity

from flip_chassis.settings import Settings
from flip_chassis.telemetry import log

Record: TypeAlias = "ConsumerRecord[bytes | None, bytes | None]"


class Producer(Protocol):
    """What of aiokafka's producer the relay uses."""

    async def send(
        self, topic: str, value: bytes | None, key: bytes | None, *, headers: Sequence[tuple[str, bytes]]
    ) -> Awaitable[object]: ...


Take = Callable[[Sequence[Record]], Awaitable[bool]]
"""Takes one poll's records; answers whether they are dealt with and may be committed."""

_RETRY_S = 0.5
_MAX_RECORDS = 500


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
                request_timeout_ms=20_000,
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
            group_id=self.settings.group,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            session_timeout_ms=10_000,
            max_poll_interval_ms=600_000,
            no_reply=True,
            parser=_untouched,
            decoder=_whole,
        )

        async def hand_over(message: Any) -> None:
            consumer = cast("AIOKafkaConsumer", subscriber.consumer)
            if await take(message.raw_message):
                await consumer.commit()
            else:
                _rewind(consumer, message.raw_message)

        subscriber(hand_over)
        await broker.start()
        try:
            yield Hearing(subscriber)
        finally:
            await broker.stop()


@dataclass(frozen=True, slots=True)
class Hearing:
    """A running subscription."""

    subscriber: Any

    def assigned(self) -> bool:
        """Whether the group has given us partitions."""
        consumer = self.subscriber.consumer
        return consumer is not None and bool(consumer.assignment())


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


def _rewind(consumer: AIOKafkaConsumer, records: Sequence[Record]) -> None:
    first: dict[TopicPartition, int] = {}
    for record in records:
        first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
    for partition in consumer.assignment() & first.keys():
        consumer.seek(partition, first[partition])
