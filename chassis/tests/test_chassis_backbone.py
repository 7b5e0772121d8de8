"""The backbone on real Postgres and Kafka: nothing lost, nothing twice, in order; poison parks its key only."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest
from fastapi import APIRouter, FastAPI
from flip_chassis.access import project_handlers, user_handlers
from flip_chassis.aggregate import Aggregate
from flip_chassis.database import Connection, connect, notices
from flip_chassis.handlers import Handler, Transient, projection
from flip_chassis.http import Admin, SeenProject, WorkOfRequest
from flip_chassis.ids import uuid7
from flip_chassis.log import Cause, append
from flip_chassis.refusal import require
from flip_chassis.relay import relay
from flip_chassis.service import Backbone, backbone
from flip_chassis.settings import Settings
from flip_chassis.testing import People, Speaker, client, eventually, invited, settings_for, speaking
from flip_contracts.auth import Role, UserDisabled
from flip_contracts.base import Message, ProjectId, UserId
from flip_contracts.cloudevents import Envelope
from flip_contracts.projects import ProjectUnstaged
from flip_contracts.topics import PROJECT
from flip_local.testing import Database, Kafka, PostgresServer

pytestmark = pytest.mark.parts


class Saying(Settings):
    service = "projects"


class Hearing(Settings):
    service = "cohort"


@dataclass
class Ear:
    """Notes what takes effect, in a table of its own; fails where a test says so."""

    fails: dict[str, list[Exception]] = field(default_factory=dict[str, list[Exception]])

    def handler(self) -> Handler:
        async def note(event: ProjectUnstaged, db: Connection, said: Envelope) -> None:
            if self.fails.get(event.reason):
                raise self.fails[event.reason].pop(0)
            await db.execute(
                "INSERT INTO heard (key, version, reason) VALUES ($1, $2, $3)",
                said.key,
                said.stream_version,
                event.reason,
            )

        return projection(note)


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_heard.sql").write_text(
        "CREATE TABLE heard (at bigint GENERATED ALWAYS AS IDENTITY, key text, version bigint, reason text)"
    )
    return folder


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
async def hearing(postgres: Database, kafka: Kafka, migrations: Path, ear: Ear) -> AsyncGenerator[Backbone]:
    principal = kafka.as_principal("service.cohort")
    settings = settings_for(Hearing, postgres, principal, kafka.group("service.cohort"))
    async with backbone(settings, migrations, [ear.handler()]) as stands:
        yield stands


@pytest.fixture
async def projects(kafka: Kafka) -> AsyncGenerator[Speaker]:
    async with speaking(kafka.as_principal("service.projects"), "flip/hub/projects") as speaker:
        yield speaker


def word(project: UUID, reason: str) -> ProjectUnstaged:
    return ProjectUnstaged(project_id=ProjectId(project), reason=reason)


async def heard(stands: Backbone, *projects: UUID) -> list[tuple[str, int]]:
    async with stands.pool.acquire() as db:
        rows = await db.fetch(
            "SELECT reason, version FROM heard WHERE key = ANY ($1) ORDER BY at", [str(each) for each in projects]
        )
    return [(row["reason"], row["version"]) for row in rows]


async def parked(stands: Backbone, project: UUID) -> list[tuple[str, str]]:
    async with stands.pool.acquire() as db:
        rows = await db.fetch("SELECT kind, reason FROM parked WHERE key = $1 ORDER BY id", str(project))
    return [(row["kind"], row["reason"]) for row in rows]


async def is_parked(stands: Backbone, project: UUID, count: int) -> bool:
    return len(await parked(stands, project)) >= count


# --- hearing --------------------------------------------------------------------------------------------------------


async def test_what_is_said_takes_effect_once_and_in_order(hearing: Backbone, projects: Speaker):
    project = uuid7()
    for number in range(20):
        await projects.say(word(project, str(number)))
    await eventually(lambda: hears(hearing, project, 20))
    assert await heard(hearing, project) == [(str(number), number + 1) for number in range(20)]


async def hears(stands: Backbone, project: UUID, count: int) -> bool:
    return len(await heard(stands, project)) >= count


async def test_a_message_that_comes_again_changes_nothing(hearing: Backbone, projects: Speaker):
    project = uuid7()
    first = await projects.say(word(project, "once"))
    await projects.repeat(first, word(project, "once"))
    await projects.say(word(project, "after"))
    await eventually(lambda: hears(hearing, project, 2))
    assert await heard(hearing, project) == [("once", 1), ("after", 2)]


async def test_poison_parks_its_key_and_what_follows_it_while_other_keys_flow(
    hearing: Backbone, projects: Speaker, ear: Ear
):
    sick, well = uuid7(), uuid7()
    ear.fails["poison"] = [ValueError("bad") for _ in range(1000)]
    for reason in ("before", "poison", "behind"):
        await projects.say(word(sick, reason))
    await projects.say(word(well, "flows"))
    await eventually(lambda: hears(hearing, well, 1))
    await eventually(lambda: is_parked(hearing, sick, 2))
    assert await heard(hearing, sick) == [("before", 1)]
    assert await parked(hearing, sick) == [
        ("poison", "ValueError"),
        ("behind", "waits behind an earlier record of its key"),
    ]


async def test_a_transient_failure_is_tried_again_and_order_is_kept(hearing: Backbone, projects: Speaker, ear: Ear):
    project = uuid7()
    ear.fails["shaky"] = [Transient(), Transient(), TimeoutError()]
    for reason in ("shaky", "second", "third"):
        await projects.say(word(project, reason))
    await eventually(lambda: hears(hearing, project, 3))
    assert await heard(hearing, project) == [("shaky", 1), ("second", 2), ("third", 3)]
    assert await parked(hearing, project) == []


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ([("ce_id", b"\xff\xfe")], b"{}"),
        ([], b"no json"),
        ([("ce_type", b"flip.projects.Unknown.v9")], None),
    ],
    ids=["header-not-utf8", "no-headers", "null-value"],
)
async def test_a_record_that_cannot_be_read_is_parked_and_stops_nobody(
    hearing: Backbone, projects: Speaker, headers: list[tuple[str, bytes]], value: bytes | None
):
    project, other = uuid7(), uuid7()
    await projects.producer.send_and_wait(PROJECT.name, value=value, key=str(project).encode(), headers=headers)
    await projects.say(word(other, "flows"))
    await eventually(lambda: hears(hearing, other, 1))
    await eventually(lambda: is_parked(hearing, project, 1))
    assert [kind for kind, _ in await parked(hearing, project)] == ["poison"]


async def test_a_poll_taken_twice_takes_effect_once(hearing: Backbone, projects: Speaker):
    """As after a crash between the database's commit and Kafka's."""
    project = uuid7()
    envelope = await projects.say(word(project, "once"))
    await eventually(lambda: hears(hearing, project, 1))

    @dataclass
    class Again:
        topic: str = envelope.topic
        key: bytes = envelope.key.encode()
        partition: int = 0
        offset: int = 0
        headers: tuple[tuple[str, bytes], ...] = tuple(envelope.headers())
        value: bytes = word(project, "once").encode()

    assert await hearing.inbox.take([Again(), Again()])  # type: ignore[list-item]
    assert await heard(hearing, project) == [("once", 1)]


# --- saying ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def saying(postgres_server: PostgresServer, kafka: Kafka, tmp_path: Path) -> AsyncGenerator[Backbone]:
    empty = tmp_path / "saying" / "migrations"
    empty.mkdir(parents=True)
    with postgres_server.database() as database:
        principal = kafka.as_principal("service.projects")
        settings = settings_for(Saying, database, principal, kafka.group("service.projects"))
        async with backbone(settings, empty, [*user_handlers]) as stands:
            yield stands


def cause() -> Cause:
    return Cause(actor="service:test", time=datetime.now(UTC), correlation_id=uuid7())


async def test_events_of_concurrent_transactions_all_arrive_each_stream_in_order(saying: Backbone, hearing: Backbone):
    """Writers commit late and out of order, which a cursor on the position alone would not survive."""
    projects = [uuid7() for _ in range(8)]
    source = saying.settings.source

    async def write(project: UUID, start: int) -> None:
        async with connect(saying.settings.postgres.get_secret_value()) as db:
            for version in range(start, start + 25):
                async with db.transaction():
                    await append(db, source, PROJECT.name, str(project), version, [word(project, "x")], cause())
                    await asyncio.sleep(0.001 * (version % 5))

    await asyncio.gather(*(write(project, 0) for project in projects))

    async def all_heard() -> bool:
        return len(await heard(hearing, *projects)) >= 200

    await eventually(all_heard)
    for project in projects:
        assert [version for _, version in await heard(hearing, project)] == list(range(1, 26))


async def test_a_stream_keeps_its_order_where_the_later_writer_has_the_earlier_transaction_id(
    saying: Backbone, hearing: Backbone
):
    project = uuid7()
    source, dsn = saying.settings.source, saying.settings.postgres.get_secret_value()
    async with connect(dsn) as early, connect(dsn) as late, early.transaction():
        await early.fetchval("SELECT pg_current_xact_id()")
        async with late.transaction():
            await append(late, source, PROJECT.name, str(project), 0, [word(project, "first")], cause())
        await append(early, source, PROJECT.name, str(project), 1, [word(project, "second")], cause())
    await eventually(lambda: hears(hearing, project, 2))
    assert await heard(hearing, project) == [("first", 1), ("second", 2)]


async def test_a_stream_keeps_its_order_where_a_third_transaction_runs_between_those_of_its_writers(
    saying: Backbone, hearing: Backbone
):
    """The later event's transaction is below the oldest one that still runs, the earlier event's isn't."""
    project, other = uuid7(), uuid7()
    source, dsn = saying.settings.source, saying.settings.postgres.get_secret_value()
    async with connect(dsn) as early, connect(dsn) as between, connect(dsn) as late, between.transaction():
        async with early.transaction():
            await early.fetchval("SELECT pg_current_xact_id()")
            await between.fetchval("SELECT pg_current_xact_id()")
            async with late.transaction():
                await append(late, source, PROJECT.name, str(project), 0, [word(project, "first")], cause())
            await append(early, source, PROJECT.name, str(project), 1, [word(project, "second")], cause())
        async with early.transaction():
            await append(early, source, PROJECT.name, str(other), 0, [word(other, "waits for nobody")], cause())
        await eventually(lambda: hears(hearing, other, 1))
        assert await heard(hearing, project) == [("first", 1), ("second", 2)]


async def test_nobody_changes_the_event_log_not_even_its_owner(saying: Backbone):
    async with saying.working() as work:
        await work.say(word(uuid7(), "said"))
    for secret in (saying.settings.postgres, saying.settings.postgres_owner):
        for statement in ("UPDATE event_log SET actor = 'x'", "DELETE FROM event_log", "TRUNCATE event_log"):
            async with connect(secret.get_secret_value()) as db:
                with pytest.raises(asyncpg.PostgresError, match=r"append-only|permission denied"):
                    await db.execute(statement)


async def test_another_relay_goes_on_where_the_leading_one_loses_its_database(saying: Backbone, hearing: Backbone):
    project = uuid7()
    async with relay(saying.settings, saying.bus), connect(saying.settings.postgres.get_secret_value()) as db:
        for number in range(5):
            async with saying.working() as work:
                await work.say(word(project, str(number)))
            await db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        await eventually(lambda: hears(hearing, project, 5))
    assert await heard(hearing, project) == [(str(number), number + 1) for number in range(5)]


# --- over HTTP ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    unstaged: int = 0


def count(state: Counted, event: Message) -> Counted:
    return Counted(state.unstaged + 1) if isinstance(event, ProjectUnstaged) else state


COUNTED = Aggregate(PROJECT, Counted(), count)
router = APIRouter()


@router.post("/{project_id}/unstage")
async def unstage(project_id: ProjectId, admin: Admin, work: WorkOfRequest, fail: bool = False) -> int:
    async with work.on(COUNTED, project_id) as project:
        project.record(word(project_id, "by hand"))
        require(not fail, "asked-to-fail", project_id=project_id)
    return project.state.unstaged


@router.get("/{project_id}")
async def look(project: SeenProject) -> str:
    return project.status


@pytest.fixture(scope="module")
def people() -> People:
    return People()


@pytest.fixture
async def http(
    postgres_server: PostgresServer, kafka: Kafka, people: People, tmp_path: Path
) -> AsyncGenerator[httpx.AsyncClient]:
    empty = tmp_path / "http" / "migrations"
    empty.mkdir(parents=True)
    with postgres_server.database() as database, people.published() as jwks_url:
        principal = kafka.as_principal("service.projects")
        settings = settings_for(Saying, database, principal, kafka.group("service.projects"), jwks_url)

        @asynccontextmanager
        async def service() -> AsyncGenerator[FastAPI]:
            async with backbone(settings, empty, [*user_handlers, *project_handlers]) as stands:
                yield stands.http(router)

        async with client(service()) as http:
            yield http


@pytest.fixture
async def auth(kafka: Kafka) -> AsyncGenerator[Speaker]:
    async with speaking(kafka.as_principal("service.auth"), "flip/hub/auth") as speaker:
        yield speaker


async def enter(auth: Speaker, role: Role) -> UserId:
    arrived, activated = invited(role, f"{uuid7()}@flip.example")
    await auth.say(arrived)
    await auth.say(activated)
    return arrived.user_id


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_write_is_kept_whole_and_tells_its_version(http: httpx.AsyncClient, auth: Speaker, people: People):
    headers = bearer(people.token(await enter(auth, "admin")))
    project = uuid7()
    for expected in (1, 2):
        answer = await http.post(f"/api/projects/{project}/unstage", headers=headers)
        assert (answer.status_code, answer.json()) == (200, expected)
        assert answer.headers["Flip-Version"] == f"{PROJECT.name}/{project}@{expected}"


async def test_a_refusal_is_a_problem_document_and_changes_nothing(
    http: httpx.AsyncClient, auth: Speaker, people: People
):
    headers = bearer(people.token(await enter(auth, "admin")))
    project = uuid7()
    refused = await http.post(f"/api/projects/{project}/unstage?fail=true", headers=headers)
    assert refused.status_code == 409
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["code"] == "asked-to-fail"
    assert refused.json()["project_id"] == str(project)
    assert "Flip-Version" not in refused.headers
    assert (await http.post(f"/api/projects/{project}/unstage", headers=headers)).json() == 1


@pytest.mark.requirement("ACC-4")
@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("researcher", 403), ("admin", 200)])
async def test_a_route_admits_the_roles_that_it_names(
    http: httpx.AsyncClient, auth: Speaker, people: People, role: Role, status: int
):
    headers = bearer(people.token(await enter(auth, role)))
    assert (await http.post(f"/api/projects/{uuid7()}/unstage", headers=headers)).status_code == status


async def test_a_stranger_an_expired_token_and_a_foreign_key_are_not_let_in(
    http: httpx.AsyncClient, auth: Speaker, people: People
):
    admin = await enter(auth, "admin")
    path = f"/api/projects/{uuid7()}/unstage"
    assert (await http.post(path)).json()["code"] == "token-missing"
    expired = await http.post(path, headers=bearer(people.token(admin, expires_in_s=-60)))
    assert (expired.status_code, expired.json()["code"]) == (401, "token-not-valid")
    forged = await http.post(path, headers=bearer(People().token(admin)))
    assert (forged.status_code, forged.json()["code"]) == (401, "token-not-valid")


async def test_who_is_shut_out_is_refused_although_the_token_is_still_good(
    http: httpx.AsyncClient, auth: Speaker, people: People
):
    admin = await enter(auth, "admin")
    headers = bearer(people.token(admin))
    path = f"/api/projects/{uuid7()}/unstage"
    assert (await http.post(path, headers=headers)).status_code == 200
    await auth.say(UserDisabled(user_id=admin))

    async def shut_out() -> bool:
        return (await http.post(path, headers=headers)).status_code == 401

    await eventually(shut_out)


async def test_a_reader_who_knows_more_than_the_service_waits_and_is_told_to_come_again(
    http: httpx.AsyncClient, auth: Speaker, people: People
):
    admin = await enter(auth, "admin")
    answer = await http.post(
        f"/api/projects/{uuid7()}/unstage",
        headers=bearer(people.token(admin, version=99)),
        extensions={"patient": False},
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "not-heard-yet")
    assert answer.headers["Retry-After"] == "1"


async def test_a_project_is_hidden_from_those_who_do_not_belong_to_it(
    http: httpx.AsyncClient, auth: Speaker, people: People
):
    stranger = bearer(people.token(await enter(auth, "researcher")))
    answer = await http.get(f"/api/projects/{uuid7()}", headers=stranger)
    assert (answer.status_code, answer.json()["code"]) == (404, "project-not-found")


async def test_a_service_says_that_it_is_ready_once_it_hears(http: httpx.AsyncClient):
    assert (await http.get("/health/live")).json() == {"status": "live"}

    async def ready() -> bool:
        return (await http.get("/health/ready")).status_code == 200

    await eventually(ready)
    assert "flip_events_said_total" in (await http.get("/metrics")).text


# --- notices --------------------------------------------------------------------------------------------------------


async def test_notices_come_as_they_are_given_and_an_outage_is_told_as_one(postgres: Database):
    async with aclosing(notices(postgres.app, "news")) as heard, connect(postgres.app) as db:
        assert await anext(heard) is None, "what was notified before is unknown"
        await db.execute("SELECT pg_notify('news', 'first'), pg_notify('other', 'x'), pg_notify('news', 'second')")
        assert [await anext(heard), await anext(heard)] == ["first", "second"]
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query ~ '^LISTEN'"
        )
        assert await anext(heard) is None
        await db.execute("SELECT pg_notify('news', 'third')")
        assert await anext(heard) == "third"
