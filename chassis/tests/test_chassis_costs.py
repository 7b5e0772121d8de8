"""What the backbone costs Postgres, counted: round trips, WAL bytes and dead rows. Counts, unlike times, repeat."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter
from flip_chassis.access import SigningKeys, published_at, user_handlers
from flip_chassis.aggregate import Aggregate
from flip_chassis.bus import bus
from flip_chassis.database import Connection, connect, database
from flip_chassis.handlers import Function, Handler, Handlers, projection, record
from flip_chassis.http import Admin, Context, WorkOfRequest, http_service
from flip_chassis.ids import uuid7
from flip_chassis.inbox import Inbox
from flip_chassis.log import Cause, Said, append
from flip_chassis.relay import Relay, publish, take_over
from flip_chassis.settings import Settings
from flip_chassis.testing import People, eventually, invited, settings_for
from flip_contracts.base import Message, ProjectId
from flip_contracts.cloudevents import Envelope, Header
from flip_contracts.projects import ProjectUnstaged
from flip_contracts.topics import PROJECT
from flip_local.testing import Database, Kafka, PostgresServer
from pydantic import SecretStr

pytestmark = pytest.mark.parts

POLL = 500
KEYS = 100
POLLS = 4

# The bounds: what is counted today, and a little room. Raise one only for something that is worth it.
ROUND_TRIPS_A_BATCH = 1  # move the cursor and read on
ROUND_TRIPS_A_WINDOW = 1  # open it and read its first batch
ROUND_TRIPS_A_POLL = 8  # begin, dedupe, parked?, offsets, versions, commit, pool; and all projected events
ROUND_TRIPS_A_WRITE = 8  # heard?, who, begin, lock and load, append, its projection, commit, back to the pool
WAL_BYTES_AN_EVENT_SAID = 800
WAL_BYTES_AN_EVENT_RELAYED = 1
WAL_BYTES_AN_EVENT_HEARD = 420
WAL_BYTES_AN_EVENT_HEARD_AGAIN = 5  # the positions that were drawn for nothing
DEAD_ROWS_A_BATCH_RELAYED = 1
DEAD_ROWS_A_POLL_HEARD = KEYS + 1  # each stream's version, the partition's offset


class Saying(Settings):
    service = "projects"


class Hearing(Settings):
    service = "cohort"


# --- counting -------------------------------------------------------------------------------------------------------


class Wire:
    """Carries connections to Postgres, and counts how often a client stops to wait for an answer."""

    WAITS = frozenset(b"QSH")  # a simple query, the end of an extended one (Sync), a preparation (Flush)

    def __init__(self) -> None:
        self.round_trips = 0

    @asynccontextmanager
    async def to(self, dsn: str) -> AsyncGenerator[str]:
        """The DSN under which the same database is reached by way of this wire."""
        there = urlsplit(dsn)
        host, port = there.hostname, there.port
        assert host is not None

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            answers, questions = await asyncio.open_connection(host, port)
            await asyncio.gather(self._count(reader, questions), _pass_on(answers, writer))

        server = await asyncio.start_server(carry, "127.0.0.1", 0)
        async with server:
            mine = server.sockets[0].getsockname()[1]
            yield dsn.replace(f"{host}:{port}", f"{host}:{mine}") + "?sslmode=disable"

    async def _count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = await reader.readexactly(4)  # the start-up message alone has no type
            writer.write(size + await reader.readexactly(int.from_bytes(size, "big") - 4))
            while True:
                head = await reader.readexactly(5)
                self.round_trips += head[0] in self.WAITS
                writer.write(head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4))
        except asyncio.IncompleteReadError:
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
    writer.close()


@dataclass
class Cost:
    """What Postgres has noted of one database."""

    server: PostgresServer
    name: str

    def __post_init__(self) -> None:
        with self.server.cluster.administration(self.name) as db:
            db.execute("CREATE EXTENSION pg_stat_statements")

    def wal_bytes(self) -> int:
        """What its statements have written to the WAL so far."""
        return self._ask(
            "SELECT coalesce(sum(wal_bytes), 0)::bigint FROM pg_stat_statements"
            " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

    async def dead_rows(self) -> int:
        """Row versions that updates and deletes have left behind, once every session has ended and told."""

        async def alone() -> bool:
            others = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return self._ask(others) == 0

        await eventually(alone)
        return self._ask("SELECT sum(n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables")

    def _ask(self, query: str) -> int:
        with self.server.cluster.administration(self.name) as db:
            row = db.execute(query).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return int(row[0])


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
def cost(postgres: Database, postgres_server: PostgresServer) -> Cost:
    return Cost(postgres_server, postgres.name)


@pytest.fixture
async def settings(
    postgres: Database, kafka: Kafka, wire: Wire
) -> AsyncGenerator[Callable[[type[Settings]], Settings]]:
    """A service's settings by which it reaches Postgres over the wire."""
    async with wire.to(postgres.app) as app:

        def settings_of(kind: type[Settings], jwks_url: str = "") -> Settings:
            principal = kafka.as_principal(f"service.{kind.service}")
            return settings_for(kind, postgres, principal, "", jwks_url).model_copy(update={"postgres": SecretStr(app)})

        yield settings_of


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_heard.sql").write_text("CREATE TABLE heard (key text, version bigint)")
    return folder


def word(project: UUID) -> ProjectUnstaged:
    return ProjectUnstaged(project_id=ProjectId(project), reason="A reason of some length, as people write them")


def cause() -> Cause:
    return Cause(actor="service:test", time=datetime.now(UTC), correlation_id=uuid7())


# --- saying and relaying --------------------------------------------------------------------------------------------


async def test_what_is_said_costs_the_log_its_row_and_indexes_and_no_more(
    settings: Callable[[type[Settings]], Settings], migrations: Path, cost: Cost
):
    saying = settings(Saying)
    async with database(saying, migrations) as pool, pool.acquire() as db:

        async def say() -> int:
            before = cost.wal_bytes()
            async with db.transaction():
                for _ in range(KEYS):
                    project = uuid7()
                    messages = [word(project) for _ in range(POLL // KEYS)]
                    await append(db, saying.source, PROJECT.name, str(project), 0, messages, cause())
            return cost.wal_bytes() - before

        await say()
        spent = min([await say() for _ in range(3)])  # a checkpoint makes one of them write whole pages
    assert spent / POLL <= WAL_BYTES_AN_EVENT_SAID


async def test_the_relay_costs_a_round_trip_and_a_dead_row_a_batch_and_no_more_a_window(
    settings: Callable[[type[Settings]], Settings],
    migrations: Path,
    kafka: Kafka,
    wire: Wire,
    cost: Cost,
):
    saying = settings(Saying)
    (topic,) = kafka.fresh_topics({PROJECT.name}).values()
    async with database(saying, migrations) as pool, pool.acquire() as db:
        for _ in range(POLLS * POLL // 100):
            project = uuid7()
            await append(db, saying.source, topic, str(project), 0, [word(project)] * 100, cause())
    async with connect(saying.postgres.get_secret_value()) as db, bus(saying).producer() as producer:
        cursor, left = await take_over(db)
        assert left == [], "nobody led before"
        rows = await cursor.open_window()
        rows = await publish(cursor, producer, saying.source, rows)
        trips, wal = wire.round_trips, cost.wal_bytes()
        for _ in range(POLLS - 1):
            assert len(rows) == POLL, "every statement has been prepared"
            rows = await publish(cursor, producer, saying.source, rows)
        assert rows == [], "all is published"
        assert (wire.round_trips - trips) / (POLLS - 1) <= ROUND_TRIPS_A_BATCH
        assert (cost.wal_bytes() - wal) / (POLL * (POLLS - 1)) <= WAL_BYTES_AN_EVENT_RELAYED
        trips = wire.round_trips
        assert await cursor.open_window() == [], "nothing new was said"
        assert wire.round_trips - trips <= ROUND_TRIPS_A_WINDOW
    taken_over, windows = 2, 2
    assert await cost.dead_rows() <= taken_over + windows + POLLS * DEAD_ROWS_A_BATCH_RELAYED


# --- hearing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """A record as Kafka would bring it."""

    topic: str
    key: bytes
    offset: int
    headers: Sequence[Header]
    value: bytes
    partition: int = 0


@dataclass
class Stream:
    """Says records, each project's in their order."""

    projects: list[UUID] = field(default_factory=lambda: [uuid7() for _ in range(KEYS)])
    said: int = 0

    def poll(self) -> list[Heard]:
        """The next 500 records, of all projects in turn."""
        return [self._next() for _ in range(POLL)]

    def _next(self) -> Heard:
        message, version = word(self.projects[self.said % KEYS]), self.said // KEYS + 1
        self.said += 1
        return record_of(message, version, self.said - 1)


def record_of(message: Message, version: int, offset: int) -> Heard:
    why = cause()
    envelope = Envelope(
        id=uuid7(),
        type=message.type_name,
        source="flip/hub/test",
        topic=message.topic.name,
        key=message.key,
        stream_version=version,
        time=why.time,
        actor=why.actor,
        correlation_id=why.correlation_id,
        causation_id=None,
        traceparent=None,
    )
    return Heard(envelope.topic, envelope.key.encode(), offset, envelope.headers(), message.encode())


@projection
async def note(event: ProjectUnstaged, db: Connection, said: Envelope) -> None:
    await db.execute("INSERT INTO heard (key, version) VALUES ($1, $2)", said.key, said.stream_version)


@asynccontextmanager
async def hearing(settings: Settings, migrations: Path, *handlers: Handler) -> AsyncGenerator[Inbox]:
    async with database(settings, migrations) as pool:
        yield Inbox(settings, pool, Handlers(settings, handlers), Relay(settings, bus(settings)))


async def take(inbox: Inbox, records: Sequence[Heard]) -> None:
    assert await inbox.take(records)  # type: ignore[arg-type]


async def test_the_inbox_costs_a_poll_no_more_round_trips_than_its_steps(
    settings: Callable[[type[Settings]], Settings], migrations: Path, wire: Wire, cost: Cost
):
    stream = Stream()
    spent: list[int] = []
    async with hearing(settings(Hearing), migrations, note) as inbox:
        await take(inbox, stream.poll())
        trips = wire.round_trips
        for _ in range(POLLS - 1):
            before = cost.wal_bytes()
            await take(inbox, stream.poll())
            spent.append(cost.wal_bytes() - before)
        trips = wire.round_trips - trips
        async with inbox.pool.acquire() as db:
            assert await db.fetchval("SELECT count(*) FROM heard") == POLLS * POLL
    assert trips / (POLLS - 1) <= ROUND_TRIPS_A_POLL
    assert min(spent) / POLL <= WAL_BYTES_AN_EVENT_HEARD
    assert await cost.dead_rows() <= (POLLS - 1) * DEAD_ROWS_A_POLL_HEARD


async def test_what_a_poll_brings_for_each_record_is_kept_all_at_once_and_in_order(
    settings: Callable[[type[Settings]], Settings], migrations: Path
):
    stream = Stream()
    key = str(stream.projects[0])

    def keeper(kept: list[list[int]]) -> Function:
        async def keep(said: Sequence[Said], db: Connection) -> None:
            kept.append([each.envelope.stream_version for each in said if each.envelope.key == key])

        return keep

    first: list[list[int]] = []
    second: list[list[int]] = []
    records = (record(ProjectUnstaged, keeper(first)), record(ProjectUnstaged, keeper(second)))
    async with hearing(settings(Hearing), migrations, *records) as inbox:
        for _ in range(2):
            await take(inbox, stream.poll())
    assert first == second == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]


async def test_a_poll_that_comes_again_leaves_hardly_anything_behind(
    settings: Callable[[type[Settings]], Settings], migrations: Path, cost: Cost
):
    async with hearing(settings(Hearing), migrations, note) as inbox:
        poll = Stream().poll()
        await take(inbox, poll)
        before = cost.wal_bytes()
        await take(inbox, poll)
        assert (cost.wal_bytes() - before) / POLL <= WAL_BYTES_AN_EVENT_HEARD_AGAIN
    partitions = 1
    assert await cost.dead_rows() <= partitions


# --- over HTTP ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    unstaged: int = 0


def count(state: Counted, event: Message) -> Counted:
    return Counted(state.unstaged + 1) if isinstance(event, ProjectUnstaged) else state


COUNTED = Aggregate(PROJECT, Counted(), count)
router = APIRouter()


@router.post("/{project_id}/unstage")
async def unstage(project_id: ProjectId, admin: Admin, work: WorkOfRequest) -> int:
    async with work.on(COUNTED, project_id) as project:
        project.record(word(project_id))
    return project.state.unstaged


async def no_figures() -> Mapping[str, float]:
    return {}


async def test_a_write_over_http_costs_as_many_round_trips_as_it_has_steps(
    settings: Callable[..., Settings], migrations: Path, wire: Wire
):
    people = People()
    arrived, activated = invited("admin", "ada@flip.example")
    with people.published() as jwks_url:
        saying = settings(Saying, jwks_url)
        async with hearing(saying, migrations, note, *user_handlers) as inbox:
            await take(inbox, [record_of(arrived, 1, 0), record_of(activated, 2, 1)])
            keys = SigningKeys(published_at(jwks_url))
            context = Context(saying, inbox.pool, inbox.handlers, inbox.relay, keys)
            transport = httpx.ASGITransport(http_service(context, router, checks={}, figures=no_figures))
            headers = {"Authorization": f"Bearer {people.token(arrived.user_id)}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers) as http:

                async def write() -> int:
                    before = wire.round_trips
                    answer = await http.post(f"/api/projects/{uuid7()}/unstage")
                    assert (answer.status_code, answer.json()) == (200, 1)
                    return wire.round_trips - before

                await write()
                assert await write() <= ROUND_TRIPS_A_WRITE
