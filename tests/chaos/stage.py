"""The parts that runs stand on, started once: Kafka, Postgres, a fault proxy before each."""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaError
from confluent_kafka.admin import AdminClient
from flip_chassis.database import CHASSIS_MIGRATIONS, Connection, connect, migrate
from flip_chassis.testing import settings_for
from flip_contracts.catalogue import group_prefix, topics
from flip_contracts.topics import PROJECT, QUERY
from flip_local import control, pki
from flip_local.layout import HUB, Layout
from flip_local.parts.postgres import Cluster
from flip_local.parts.topics import apply, client_settings
from flip_local.testing import Database, KafkaClient, layout_beside_tests

from .proxy import FaultProxy
from .schedule import SERVICES
from .world import HEARS, MIGRATIONS, SETTINGS

_PARTITIONS = [TopicPartition(topic.name, number) for topic in (PROJECT, QUERY) for number in range(topic.partitions)]
Offsets = dict[TopicPartition, int]
_PORTS_ABOVE_TESTS = 200
_PROXIES_ABOVE = 10
_DEADLINE_S = 60.0
_RETRY_S = 0.2
_TEMPLATE = "chaos_template"


def layout_for_chaos() -> Layout:
    """A stack of its own beside that of the other tests, whose parts nobody shuts down under them."""
    return layout_beside_tests("chaos-stack", _PORTS_ABOVE_TESTS)


@contextmanager
def stack(layout: Layout) -> Iterator[Layout]:
    """Kafka and Postgres; whoever starts them takes them down."""
    is_mine = not control.is_running(layout) and os.environ.get("FLIP_TEST_KEEP") != "1"
    control.up(layout, ["kafka", "postgres-hub"])
    try:
        yield layout
    finally:
        if is_mine:
            control.down(layout)


@dataclass(frozen=True, slots=True)
class Stage:
    """Real parts with a proxy before each, and what runs need of them."""

    layout: Layout
    cluster: Cluster
    proxies: dict[str, FaultProxy]
    in_use: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """Of each part: nobody ends it while another one still waits for it to start, or administers it."""
    earlier: set[UUID] = field(default_factory=set[UUID])
    """The events of the runs that are over."""

    @property
    def detours(self) -> dict[int, int]:
        """The parts' ports, and the proxies' that stand for them."""
        real = {"postgres": self.cluster.port, "kafka": self.layout.port("kafka")}
        return {real[name]: proxy.port for name, proxy in self.proxies.items()}

    def principal(self, service: str) -> KafkaClient:
        return KafkaClient(self.layout.kafka, self.layout.certificate(f"service.{service}"), self.layout.ca)

    # --- Postgres -------------------------------------------------------------------------------------------------
    async def crash_postgres(self) -> None:
        """What `pg_ctl stop -m immediate` does, and a start with crash recovery."""
        await self._again("postgres-hub", signal.SIGQUIT)

    @asynccontextmanager
    async def databases(self) -> AsyncGenerator[dict[str, Database]]:
        """A fresh database for each service, migrated."""
        mark = uuid4().hex[:8]
        found: dict[str, Database] = {}
        async with self._administration() as db:
            for service in SERVICES:
                app, owner, name = f"chaos_{service}", f"chaos_{service}_owner", f"chaos_{service}_{mark}"
                await db.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}_{service} OWNER {owner}")
                found[service] = Database(name, self.cluster.dsn(name, owner), self.cluster.dsn(name, app))
        try:
            yield found
        finally:
            async with self._administration() as db:
                for database in found.values():
                    await db.execute(f"DROP DATABASE {database.name} WITH (FORCE)")

    async def shut_out(self, service: str) -> None:
        """Let the service have no connection to its database, and end those that it has."""
        async with self._administration() as db:
            await db.execute(f"ALTER ROLE chaos_{service} CONNECTION LIMIT 0")
            await db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", f"chaos_{service}"
            )

    async def let_in(self, service: str) -> None:
        async with self._administration() as db:
            await db.execute(f"ALTER ROLE chaos_{service} CONNECTION LIMIT -1")

    @asynccontextmanager
    async def _administration(self) -> AsyncGenerator[Connection]:
        async with self.in_use["postgres-hub"], connect(self.cluster.dsn("postgres", "postgres")) as connection:
            yield connection

    async def prepare_postgres(self) -> None:
        """Make the services' roles, and the migrated databases that each run's are copied from."""
        async with self._administration() as db:
            for row in await db.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'chaos!_%' ESCAPE '!'"):
                await db.execute(f"DROP DATABASE {row['datname']} WITH (FORCE)")  # of runs that were broken off
        for service in SERVICES:
            app, owner, name = f"chaos_{service}", f"chaos_{service}_owner", f"{_TEMPLATE}_{service}"
            for role in (app, owner):
                self.cluster.create_role(role)
            self.cluster.create_database(name, owner, app)
            database = Database(name, self.cluster.dsn(name, owner), self.cluster.dsn(name, app))
            settings = settings_for(SETTINGS[service], database, self.principal(service), "")
            await migrate(settings, [CHASSIS_MIGRATIONS, MIGRATIONS])
            await self.let_in(service)

    # --- Kafka ----------------------------------------------------------------------------------------------------
    async def kill_broker(self) -> None:
        await self._again("kafka", signal.SIGKILL)

    async def restart_broker(self) -> None:
        async with self.in_use["kafka"]:
            await asyncio.to_thread(control.restart, self.layout, ["kafka"])

    def group(self, service: str) -> str:
        """The name of a new consumer group that the service may use."""
        return f"{group_prefix(f'service.{service}')}{uuid4().hex[:12]}"

    async def forget_records(self) -> None:
        """Remove what earlier runs have left in the topics."""
        everything = {partition: RecordsToDelete(before_offset=-1) for partition in _PARTITIONS}
        client = AIOKafkaAdminClient(**_connection(self.layout, pki.ADMIN))
        await client.start()
        try:
            await client.delete_records(everything)
        finally:
            await client.close()

    async def begin(self, service: str, group: str) -> Offsets:
        """Have a new group begin at what is said from now on.

        Records that were removed come back where the broker is killed soon afterwards.
        """
        async with self._member(service, group) as consumer:
            ends: Offsets = await consumer.end_offsets(_heard_by(service))
            await consumer.commit(ends)
            return ends

    async def set_back(self, service: str, group: str, begun: Offsets, share: float) -> None:
        """Set an abandoned group's offsets back by a share of what it has taken."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                try:
                    async with self._member(service, group) as consumer:
                        taken = {
                            each: (await consumer.committed(each) or begin) - begin for each, begin in begun.items()
                        }
                        await consumer.commit(
                            {each: begin + round(taken[each] * (1 - share)) for each, begin in begun.items()}
                        )
                    return
                except KafkaError:  # the broker is away, or a member that was killed still counts
                    await asyncio.sleep(_RETRY_S)

    @asynccontextmanager
    async def _member(self, service: str, group: str) -> AsyncGenerator[Any]:
        """A client that may read and write an empty group's offsets."""
        connection = _connection(self.layout, f"service.{service}")
        consumer: Any = AIOKafkaConsumer(**connection, group_id=group, enable_auto_commit=False)
        try:
            await consumer.start()
            consumer.assign(_heard_by(service))
            yield consumer
        finally:
            await consumer.stop()

    async def _again(self, part: str, number: signal.Signals) -> None:
        """End a part by a signal and start it at once, without the supervisor's growing pauses."""
        async with self.in_use[part]:
            await asyncio.to_thread(control.kill, self.layout, part, number)
            await asyncio.to_thread(control.restart, self.layout, [part])


@asynccontextmanager
async def stage(layout: Layout) -> AsyncGenerator[Stage]:
    """The stage on a running stack."""
    cluster = Cluster.of(layout, HUB)
    apply(AdminClient(client_settings(layout, pki.ADMIN)), topics(layout.trusts))
    base = layout.port_base + _PROXIES_ABOVE
    async with (
        FaultProxy(base, cluster.port).serving() as before_postgres,
        FaultProxy(base + 1, layout.port("kafka")).serving() as before_kafka,
    ):
        it = Stage(layout, cluster, {"postgres": before_postgres, "kafka": before_kafka})
        await it.prepare_postgres()
        yield it


def _heard_by(service: str) -> list[TopicPartition]:
    return [partition for partition in _PARTITIONS if partition.topic in HEARS[service]]


def _connection(layout: Layout, principal: str) -> dict[str, Any]:
    who = KafkaClient(layout.kafka, layout.certificate(principal), layout.ca)
    return {
        "bootstrap_servers": who.bootstrap,
        "security_protocol": "SSL",
        "ssl_context": who.ssl_context(),
    }
