"""What every contender stands on: one Postgres, one Kafka with TLS and rights, as in production."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import OFFSET_END
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient
from flip_chassis.bus import Bus, bus
from flip_chassis.database import CHASSIS_MIGRATIONS, migrate
from flip_chassis.settings import Settings
from flip_chassis.testing import settings_for
from flip_contracts.catalogue import topics
from flip_local import control, pki
from flip_local.layout import HUB, Layout
from flip_local.parts.postgres import Cluster
from flip_local.parts.topics import apply, client_settings
from flip_local.testing import Database, Kafka, KafkaClient, PostgresServer

MIGRATIONS = Path(__file__).parent / "migrations"
_DEADLINE_S = 60


class Saying(Settings):
    """The service that says."""

    service: ClassVar[str] = "projects"


class Hearing(Settings):
    """The service that hears."""

    service: ClassVar[str] = "cohort"


@dataclass(frozen=True, slots=True)
class Ground:
    """The running parts."""

    layout: Layout
    kafka: Kafka
    postgres: PostgresServer

    @property
    def sayer(self) -> KafkaClient:
        """Who may write projects."""
        return self.kafka.as_principal("service.projects")

    @property
    def hearer(self) -> KafkaClient:
        """Who may read them."""
        return self.kafka.as_principal("service.cohort")

    def group(self) -> str:
        """A consumer group that has read nothing."""
        return self.kafka.group("service.cohort")

    @asynccontextmanager
    async def database(self) -> AsyncGenerator[Database]:
        """A fresh database with the chassis's tables and the one that the contenders fill."""
        with self.postgres.database("bench") as database:
            await migrate(settings_for(Saying, database, self.sayer, ""), [CHASSIS_MIGRATIONS, MIGRATIONS])
            yield database

    def saying(self, database: Database, jwks_url: str = "") -> Settings:
        """The settings of a service that says what happens to projects."""
        return settings_for(Saying, database, self.sayer, self.kafka.group("service.projects"), jwks_url)

    def hearing(self, database: Database) -> Settings:
        """The settings of a service that hears it, in a group of its own."""
        return settings_for(Hearing, database, self.hearer, self.group())

    def empty(self, topic: str) -> None:
        """Remove all records of a topic."""
        everything = [Place(topic, partition, OFFSET_END) for partition in self._partitions(topic)]
        for removed in self.kafka.admin.delete_records(everything).values():
            removed.result(_DEADLINE_S)

    def _partitions(self, topic: str) -> list[int]:
        return list(self.kafka.admin.list_topics(topic, timeout=_DEADLINE_S).topics[topic].partitions)

    @asynccontextmanager
    async def records_of(self, topic: str) -> AsyncGenerator["Ends"]:
        """Counts what is said on a topic."""
        consumer = consumer_of(self.hearer)
        await consumer.start()
        try:
            yield Ends(consumer, [TopicPartition(topic, partition) for partition in self._partitions(topic)])
        finally:
            await consumer.stop()


@dataclass(frozen=True, slots=True)
class Ends:
    """How many records a topic has ever had."""

    consumer: AIOKafkaConsumer
    partitions: list[TopicPartition]

    async def count(self) -> int:
        return sum((await self.consumer.end_offsets(self.partitions)).values())


def consumer_of(client: KafkaClient, group: str | None = None, *topics: str) -> AIOKafkaConsumer:
    """A plain consumer that commits by hand and begins with the first record."""
    return AIOKafkaConsumer(
        *topics,
        bootstrap_servers=client.bootstrap,
        security_protocol="SSL",
        ssl_context=client.ssl_context(),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )


def bus_of(settings: Settings) -> Bus:
    """The chassis's own way to Kafka."""
    return bus(settings)


@contextmanager
def ground(layout: Layout, *, keep: bool) -> Generator[Ground]:
    """Start what is needed; stop it afterwards unless it is kept for the next run."""
    layout.state.mkdir(parents=True, exist_ok=True)
    control.up(layout, ("kafka", "postgres-hub"))
    try:
        admin = AdminClient(client_settings(layout, pki.ADMIN))
        apply(admin, topics(layout.trusts))
        kafka = Kafka(layout, admin)
        yield Ground(layout, kafka, PostgresServer(Cluster.of(layout, HUB)))
        kafka.remove_copies()
    finally:
        if not keep:
            control.down(layout)
