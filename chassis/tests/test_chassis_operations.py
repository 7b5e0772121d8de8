"""What operators see of a service's record keeping and may do about it, on real Postgres and Kafka."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI
from flip_chassis.access import user_handlers
from flip_chassis.bus import bus
from flip_chassis.database import Connection
from flip_chassis.handlers import Handler, projection, reaction
from flip_chassis.ids import uuid7
from flip_chassis.limit import AT_LEAST, IN_A_ROW
from flip_chassis.log import LARGEST_BODY_BYTES
from flip_chassis.service import Backbone, backbone
from flip_chassis.settings import Settings
from flip_chassis.testing import People, Speaker, client, eventually, invited, said, settings_for, speaking
from flip_chassis.work import Work
from flip_contracts.base import ProjectId, UserId
from flip_contracts.cloudevents import Envelope, read_envelope
from flip_contracts.operations import (
    BrokerRefilled,
    ParkedDiscarded,
    ParkedRetried,
    ProjectionsRebuilt,
    TrustRetriedParked,
)
from flip_contracts.projects import ProjectUnstaged
from flip_contracts.topics import OPERATION, PROJECT
from flip_local.testing import Database, Kafka, KafkaClient

pytestmark = pytest.mark.parts

PARKED = "/api/cohort/operations/parked"
REBUILDS = "/api/cohort/operations/rebuilds"


class Hearing(Settings):
    service = "cohort"


@dataclass
class Ear:
    """Notes what takes effect in a projected table, and counts its reactions; fails where a test says so."""

    sick: set[str] = field(default_factory=set[str])
    astray: set[str] = field(default_factory=set[str])
    reactions: list[str] = field(default_factory=list[str])

    def handlers(self) -> Sequence[Handler]:
        async def note(event: ProjectUnstaged, db: Connection, said: Envelope) -> None:
            if event.reason in self.sick:
                raise ValueError("sick")
            if event.reason in self.astray:
                await db.execute("UPDATE rebuild SET reason = 'astray'")
            at = await db.fetchval("SELECT count(*) FROM heard WHERE key = $1", said.key)
            await db.execute(
                "INSERT INTO heard (key, number, version, reason) VALUES ($1, $2, $3, $4)",
                said.key,
                at,
                said.stream_version,
                event.reason,
            )

        async def act(event: ProjectUnstaged, work: Work) -> None:
            self.reactions.append(event.reason)

        return projection(note), reaction(act), *user_handlers


@dataclass(frozen=True)
class World:
    """A service that hears what `projects` says, its routes, and an admin who operates it."""

    stands: Backbone
    http: httpx.AsyncClient
    projects: Speaker
    ear: Ear
    headers: dict[str, str]
    admin: UserId
    sick: str = field(default_factory=lambda: f"sick {uuid7()}")

    async def say(self, project: UUID, *reasons: str) -> None:
        for reason in reasons:
            await self.projects.say(ProjectUnstaged(project_id=ProjectId(project), reason=reason))

    async def heard(self, project: UUID) -> list[str]:
        async with self.stands.pool.acquire() as db:
            rows = await db.fetch("SELECT reason FROM heard WHERE key = $1 ORDER BY number", str(project))
        return [row["reason"] for row in rows]

    async def hears(self, project: UUID, *reasons: str) -> None:
        async def all_of_it() -> bool:
            return len(await self.heard(project)) >= len(reasons)

        await eventually(all_of_it)
        assert await self.heard(project) == list(reasons)

    async def parked(self, project: UUID) -> dict[str, Any] | None:
        """The key of this project, as an operator is shown it."""
        waiting = (await self.get(f"{PARKED}?limit=500")).json()
        return next((each for each in waiting if each["key"] == str(project)), None)

    async def parks(self, project: UUID, behind: int = 0) -> dict[str, Any]:
        async def shown() -> dict[str, Any] | None:
            found = await self.parked(project)
            return found if found and found["kind"] == "poison" and found["behind"] == behind else None

        found = await eventually(shown)
        assert found
        return found

    async def get(self, path: str) -> httpx.Response:
        return await self.http.get(path, headers=self.headers)

    async def post(self, path: str, body: object = None) -> httpx.Response:
        return await self.http.post(path, headers=self.headers, json=body)

    async def said(self, type_: type[Any]) -> list[Any]:
        async with self.stands.pool.acquire() as db:
            return await said(db, type_)


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_heard.sql").write_text(
        "CREATE TABLE heard (key text, number bigint, version bigint, reason text, PRIMARY KEY (key, number))"
    )
    return folder


@pytest.fixture
async def world(postgres: Database, kafka: Kafka, migrations: Path) -> AsyncGenerator[World]:
    people, ear = People(), Ear()
    entered, activated = invited("admin", f"{uuid7()}@flip.example")
    with people.published() as jwks_url:
        principal, group = kafka.as_principal("service.cohort"), kafka.group("service.cohort")
        settings = settings_for(Hearing, postgres, principal, group, jwks_url)
        async with (
            backbone(settings, migrations, ear.handlers(), ("heard",)) as stands,
            client(running(stands)) as http,
            speaking(kafka.as_principal("service.projects"), "flip/hub/projects") as projects,
            speaking(kafka.as_principal("service.auth"), "flip/hub/auth") as auth,
        ):
            await auth.say(entered)
            await auth.say(activated)
            headers = {"Authorization": f"Bearer {people.token(entered.user_id)}"}
            yield World(stands, http, projects, ear, headers, entered.user_id)


@asynccontextmanager
async def running(stands: Backbone) -> AsyncGenerator[FastAPI]:
    yield stands.http()


# --- poison ---------------------------------------------------------------------------------------------------------


def events_headers(project: UUID, **changed: bytes | None) -> list[tuple[str, bytes]]:
    """The headers of a good event, but for what is changed; None leaves one out."""
    envelope = Envelope(
        id=uuid7(),
        type=ProjectUnstaged.type_name,
        source="flip/hub/projects",
        topic=PROJECT.name,
        key=str(project),
        stream_version=1,
        time=datetime.now(UTC),
        actor="service:test",
        correlation_id=uuid7(),
        causation_id=None,
        traceparent=None,
    )
    headers: dict[str, bytes | None] = {**dict(envelope.headers()), **changed}
    return [(name, value) for name, value in headers.items() if value is not None]


GOOD_BODY = b'{"project_id": "%s", "reason": "good"}'
POISON: dict[str, tuple[dict[str, bytes | None], bytes | None, str]] = {
    "header-not-utf8": ({"ce_actor": b"\xff\xfe"}, GOOD_BODY, "a header is not UTF-8"),
    "header-missing": ({"ce_sequence": None}, GOOD_BODY, "the header ce_sequence is missing"),
    "broken-json": ({}, b'{"project_id": ', "wrong fields: body"),
    "unknown-type": ({"ce_type": b"flip.projects.ProjectPainted.v1"}, GOOD_BODY, "is unknown"),
    "unknown-version": ({"ce_type": b"flip.projects.ProjectUnstaged.v99"}, GOOD_BODY, "is unknown"),
    "wrong-schema": ({}, b'{"project_id": "x", "reason": 3}', "wrong fields: project_id, reason"),
    "null-value": ({}, None, "there is no body"),
}


@pytest.mark.requirement("BUS-2")
@pytest.mark.parametrize(("changed", "body", "reason"), POISON.values(), ids=POISON.keys())
async def test_a_poison_record_waits_where_it_is_seen_and_stops_no_other_key(
    world: World, changed: dict[str, bytes | None], body: bytes | None, reason: str
):
    sick, well = uuid7(), uuid7()
    value = body.replace(b"%s", str(sick).encode()) if body else None
    await world.projects.producer.send_and_wait(
        PROJECT.name, value=value, key=str(sick).encode(), headers=events_headers(sick, **changed)
    )
    await world.say(sick, "behind")
    await world.say(well, "flows")
    await world.hears(well, "flows")
    waiting = await world.parks(sick, behind=1)
    assert reason in waiting["reason"]
    shown = (await world.get(f"{PARKED}/{waiting['id']}")).json()
    assert shown["parked"] == waiting
    assert shown["size_bytes"] == len(value or b"")
    metrics = (await world.http.get("/metrics")).text
    assert 'flip_events_parked{kind="poison"}' in metrics
    assert (await world.post(f"{PARKED}/{waiting['id']}/discard", {"because": "made by a test"})).status_code == 200
    await world.hears(sick, "behind")


async def test_a_record_of_ten_mebibytes_waits_and_stops_no_other_key(world: World, kafka: Kafka):
    topic = kafka.fresh_topics([PROJECT.name])[PROJECT.name]
    kafka.allow_records_of(topic, 16 << 20)
    settings = world.stands.settings.model_copy(update={"kafka_group": kafka.group("service.cohort")})
    sick, well = uuid7(), uuid7()
    async with (
        large_producer(kafka.as_principal("service.projects")) as producer,
        bus(settings).hearing([topic], world.stands.inbox.take),
    ):
        large = b'{"project_id": "%s", "reason": "%s"}' % (str(sick).encode(), b"x" * (10 << 20))
        for project, body in ((sick, large), (well, GOOD_BODY.replace(b"%s", str(well).encode()))):
            headers = events_headers(project)
            await producer.send_and_wait(topic, value=body, key=str(project).encode(), headers=headers)
        await world.hears(well, "good")
        waiting = await world.parks(sick)
    assert waiting["reason"] == f"the body has {len(large)} bytes, more than {LARGEST_BODY_BYTES}"
    shown = (await world.get(f"{PARKED}/{waiting['id']}")).json()
    assert (shown["size_bytes"], len(shown["raw"])) == (len(large), 2 * 4096)


@asynccontextmanager
async def large_producer(principal: KafkaClient) -> AsyncGenerator[Any]:
    producer = AIOKafkaProducer(
        bootstrap_servers=principal.bootstrap,
        security_protocol="SSL",
        ssl_context=principal.ssl_context(),
        max_request_size=16 << 20,
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@dataclass(frozen=True)
class Record:
    """A record as aiokafka gives it."""

    offset: int
    value: bytes | None
    topic: str = PROJECT.name
    key: bytes = b""
    partition: int = 99
    headers: Sequence[tuple[str, bytes]] = ()


async def test_a_service_that_could_only_park_stops_and_says_that_it_is_not_ready(world: World):
    async def ready() -> bool:
        return (await world.http.get("/health/ready")).status_code == 200

    await eventually(ready)
    poison = [Record(offset, b"", key=f"{uuid7()}".encode()) for offset in range(IN_A_ROW)]
    assert await world.stands.inbox.take(poison[:-1])  # type: ignore[arg-type]
    assert not await world.stands.inbox.take(poison[-1:])  # type: ignore[arg-type]
    answer = await world.http.get("/health/ready", extensions={"patient": False})
    assert (answer.status_code, answer.json()["kafka"]) == (503, False)


async def test_a_service_stops_too_where_more_than_half_of_many_records_fail(world: World):
    def good(offset: int) -> Record:
        project = uuid7()
        body = GOOD_BODY.replace(b"%s", str(project).encode())
        return Record(offset, body, key=str(project).encode(), headers=events_headers(project))

    records = [Record(n, b"", key=b"%d" % n) if n % 3 else good(n) for n in range(AT_LEAST + 3)]
    assert not await world.stands.inbox.take(records)  # type: ignore[arg-type]
    assert "records failed on" in (world.stands.inbox.stopped or "")


async def test_a_poison_record_that_comes_again_waits_once(world: World):
    again = Record(7, b"no event", key=str(uuid7()).encode())
    for _ in range(2):
        assert await world.stands.inbox.take([again])  # type: ignore[list-item]
    async with world.stands.pool.acquire() as db:
        assert await db.fetchval("SELECT count(*) FROM parked WHERE key = $1", again.key.decode()) == 1


# --- redrive --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("BUS-2")
async def test_a_key_that_is_tried_again_takes_effect_in_its_order(world: World):
    project = uuid7()
    world.ear.sick = {world.sick}
    await world.say(project, "first", world.sick, "third", "fourth")
    waiting = await world.parks(project, behind=2)
    assert (waiting["type"], waiting["attempts"]) == (ProjectUnstaged.type_name, 1)
    shown = (await world.get(f"{PARKED}/{waiting['id']}")).json()
    assert shown["body"] == {"project_id": str(project), "reason": world.sick}

    world.ear.sick = set()
    answer = await world.post(f"{PARKED}/{waiting['id']}/retry")
    assert (answer.status_code, answer.json()) == (202, {"keys": 1})
    await world.hears(project, "first", world.sick, "third", "fourth")
    assert await world.parked(project) is None
    (act,) = await world.said(ParkedRetried)
    topic, partition, offset = waiting["topic"], waiting["partition"], waiting["offset"]
    assert (act.scope, act.subject, act.process) == ("record", f"{topic}/{partition}/{offset}", "flip/hub/cohort")
    async with world.stands.pool.acquire() as db:
        actor = await db.fetchval("SELECT actor FROM event_log WHERE type = $1", ParkedRetried.type_name)
    assert actor == f"user:{world.admin}"


async def test_a_record_that_fails_again_waits_again_and_tells_how_often_it_was_tried(world: World):
    project = uuid7()
    world.ear.sick = {world.sick}
    await world.say(project, world.sick)
    waiting = await world.parks(project)
    await world.post(f"{PARKED}/{waiting['id']}/retry")

    async def tried_again() -> bool:
        found = await world.parked(project)
        return found is not None and (found["kind"], found["attempts"]) == ("poison", 2)

    await eventually(tried_again)


async def test_keys_are_tried_again_by_name_and_by_type(world: World):
    by_name, by_type = uuid7(), uuid7()
    world.ear.sick = {world.sick}
    for project in (by_name, by_type):
        await world.say(project, world.sick, "after")
        await world.parks(project, behind=1)
    world.ear.sick = set()
    assert (await world.post(f"{PARKED}/retry", {"topic": PROJECT.name, "key": str(by_name)})).status_code == 202
    await world.hears(by_name, world.sick, "after")
    assert await world.heard(by_type) == []
    assert (await world.post(f"{PARKED}/retry", {"type": ProjectUnstaged.type_name})).json()["keys"] >= 1
    await world.hears(by_type, world.sick, "after")
    assert {act.scope for act in await world.said(ParkedRetried)} == {"key", "type"}


async def test_a_record_is_discarded_with_a_reason_and_kept_aside(world: World):
    project = uuid7()
    world.ear.sick = {world.sick}
    await world.say(project, world.sick, "after")
    waiting = await world.parks(project, behind=1)
    gone = await world.post(f"{PARKED}/{waiting['id']}/discard", {"because": "sent by mistake"})
    assert gone.status_code == 200
    await world.hears(project, "after")
    (act,) = await world.said(ParkedDiscarded)
    assert (act.because, act.digest, act.record_type) == (
        "sent by mistake",
        gone.json()["digest"],
        ProjectUnstaged.type_name,
    )
    async with world.stands.pool.acquire() as db:
        kept = await db.fetchrow("SELECT actor, because, value FROM discarded WHERE key = $1", str(project))
    assert kept
    assert (kept["actor"], kept["because"]) == (f"user:{world.admin}", "sent by mistake")
    assert world.sick.encode() in kept["value"]


async def test_an_operator_is_refused_where_nothing_can_be_done_and_nothing_changes(world: World):
    project = uuid7()
    world.ear.sick = {world.sick}
    await world.say(project, world.sick, "behind")
    first = await world.parks(project, behind=1)

    async def code(path: str, body: object = None) -> tuple[int, str]:
        answer = await world.post(path, body)
        return answer.status_code, answer.json()["code"]

    async with world.stands.pool.acquire() as db:
        behind = await db.fetchval("SELECT id FROM parked WHERE key = $1 AND kind = 'behind'", str(project))
    assert await code(f"{PARKED}/{behind}/retry") == (409, "parked-behind")
    assert await code(f"{PARKED}/{behind}/discard", {"because": "x"}) == (409, "parked-behind")
    assert await code(f"{PARKED}/999999/retry") == (404, "parked-not-found")
    assert await code(f"{PARKED}/retry", {"type": "flip.projects.Nothing.v1"}) == (404, "parked-not-found")
    assert await code(f"{PARKED}/retry", {"topic": PROJECT.name}) == (422, "request-not-valid")
    assert await code(f"{PARKED}/{first['id']}/discard", {"because": ""}) == (422, "request-not-valid")
    assert await world.parked(project) == first
    assert await world.said(ParkedRetried) == []
    assert (await world.http.get(PARKED)).status_code == 401

    world.ear.sick = set()
    await world.post(f"{PARKED}/{first['id']}/retry")
    await world.hears(project, world.sick, "behind")
    assert await code(f"{PARKED}/{first['id']}/retry") == (404, "parked-not-found")


# --- replay ---------------------------------------------------------------------------------------------------------


async def rebuilt(world: World, *, swap: bool = False) -> dict[str, Any]:
    answer = await world.post(REBUILDS, {"swap": swap})
    assert answer.status_code == 202

    async def over() -> dict[str, Any] | None:
        found = (await world.get(f"{REBUILDS}/{answer.json()['rebuild_id']}")).json()
        return found if found["state"] in {"done", "failed"} else None

    found = await eventually(over)
    assert found
    assert found["state"] == "done", found
    return found


def differing(rebuild: dict[str, Any]) -> dict[str, int]:
    return {each["table"]: each["differing"] for each in rebuild["tables"] if each["differing"]}


@pytest.mark.requirement("BUS-3")
async def test_projections_are_rebuilt_row_for_row_and_no_reaction_is_run_again(world: World):
    projects = [uuid7() for _ in range(5)]
    for _ in range(4):
        for project in projects:
            await world.say(project, "one", "two")
    for project in projects:
        await world.hears(project, *["one", "two"] * 4)
    reactions = len(world.ear.reactions)

    found = await rebuilt(world)
    assert (differing(found), found["missing"]) == ({}, 0)
    assert {each["table"]: each["rebuilt"] for each in found["tables"]}["heard"] == await rows(world)
    assert len(world.ear.reactions) == reactions

    async with world.stands.pool.acquire() as db:
        await db.execute("DELETE FROM heard WHERE key = $1", str(projects[0]))
        await db.execute("UPDATE heard SET reason = 'forged' WHERE key = $1 AND number = 0", str(projects[1]))
    assert differing(await rebuilt(world)) == {"heard": 8 + 2}
    assert await world.heard(projects[0]) == []

    found = await rebuilt(world, swap=True)
    assert differing(found) == {"heard": 8 + 2}
    assert await world.heard(projects[0]) == ["one", "two"] * 4
    assert differing(await rebuilt(world)) == {}
    acts = await world.said(ProjectionsRebuilt)
    assert [(act.swapped, act.differing) for act in acts] == [
        (False, frozenset()),
        (False, frozenset({"heard"})),
        (True, frozenset({"heard"})),
        (False, frozenset()),
    ]


async def rows(world: World) -> int:
    async with world.stands.pool.acquire() as db:
        return await db.fetchval("SELECT count(*) FROM heard")


async def test_what_waits_or_was_discarded_stays_without_effect_in_a_replay(world: World):
    waits, discarded, late = uuid7(), uuid7(), uuid7()
    world.ear.sick = {world.sick}
    for project in (waits, discarded, late):
        await world.say(project, world.sick, "after")
        await world.parks(project, behind=1)
    await world.post(f"{PARKED}/{(await world.parks(discarded, 1))['id']}/discard", {"because": "wrong"})
    await world.hears(discarded, "after")
    world.ear.sick = set()
    await world.post(f"{PARKED}/{(await world.parks(late, 1))['id']}/retry")
    await world.hears(late, world.sick, "after")
    assert differing(await rebuilt(world)) == {}


async def test_one_rebuild_runs_at_a_time(world: World):
    async with world.stands.pool.acquire() as db, db.transaction():
        await db.execute("LOCK TABLE inbox IN ROW EXCLUSIVE MODE")  # what the rebuild needs for its second pass
        assert (await world.post(REBUILDS, {"swap": "perhaps"})).status_code == 422
        assert (await world.post(REBUILDS, {"swap": True})).status_code == 202
        again = await world.post(REBUILDS, {"swap": True})
        assert (again.status_code, again.json()["code"]) == (409, "rebuild-running")

    async def over() -> bool:
        return [each["state"] for each in (await world.get(REBUILDS)).json()] == ["done"]

    await eventually(over)


async def test_a_projection_that_writes_outside_of_its_tables_fails_the_rebuild_and_changes_nothing(world: World):
    project = uuid7()
    world.ear.astray = {f"astray {project}"}
    await world.say(project, f"astray {project}", "after")
    await world.hears(project, f"astray {project}", "after")
    answer = await world.post(REBUILDS, {"swap": True})

    async def over() -> dict[str, Any] | None:
        found = (await world.get(f"{REBUILDS}/{answer.json()['rebuild_id']}")).json()
        return found if found["state"] == "failed" else None

    found = await eventually(over)
    assert found
    assert found["reason"] == 'UndefinedTableError: relation "rebuild" does not exist'
    assert await world.heard(project) == [f"astray {project}", "after"]


async def test_a_broker_is_refilled_with_the_same_ids_in_the_same_order(world: World, kafka: Kafka):
    async with world.stands.working() as work:
        for number in range(20):
            await work.say(ParkedRetried(process="flip/hub/cohort", scope="key", subject=f"{number}", keys=1))
    answer = await world.post("/api/cohort/operations/refill")
    assert answer.status_code == 202
    async with world.stands.pool.acquire() as db:
        logged = [row["id"] for row in await db.fetch("SELECT id FROM event_log WHERE NOT local ORDER BY pos")]
    assert answer.json()["events"] == len(logged) - 1 == 20
    auditor = kafka.as_principal("service.audit")
    way = bus(world.stands.settings.model_copy(update={"kafka_certificate": auditor.certificate}))

    async def sent_again() -> list[UUID] | None:
        async with way.reading([OPERATION.name], {}) as reading:
            found = [read_envelope(record.topic, record.headers).id async for batch in reading for record in batch]
        ours = [event for event in found if event in logged]
        return ours if len(ours) >= 20 + len(logged) else None

    assert await eventually(sent_again) == [*logged[:20], *logged]
    assert len(await world.said(BrokerRefilled)) == 1


# --- at a Trust -----------------------------------------------------------------------------------------------------


async def test_at_a_trust_only_its_operator_operates_and_the_act_is_reported(
    postgres: Database, kafka: Kafka, tmp_path: Path
):
    token, empty = tmp_path / "token", tmp_path / "migrations"
    token.write_text("the-operators-token")
    empty.mkdir()
    settings = settings_for(
        Hearing,
        postgres,
        kafka.as_principal("trust.KCH"),
        kafka.group("trust.KCH"),
        trust="KCH",
        operator_token_file=token,
    )
    async with backbone(settings, empty, ()) as stands, client(running(stands)) as http:
        async with stands.pool.acquire() as db:
            await db.execute(
                'INSERT INTO parked (topic, key, partition, "offset", headers, kind, reason, attempts, event_id, type)'
                " VALUES ('t', 'k', 0, 0, '[]', 'poison', 'x', 1, $1, 'some.type')",
                uuid7(),
            )
        for wrong in ({}, {"Authorization": "Bearer wrong"}):
            assert (await http.get(PARKED, headers=wrong)).status_code == 401
        answer = await http.post(
            f"{PARKED}/retry", headers={"Authorization": "Bearer the-operators-token"}, json={"topic": "t", "key": "k"}
        )
        assert answer.status_code == 202
        async with stands.pool.acquire() as db:
            (act,) = await said(db, TrustRetriedParked)
            assert await db.fetchval("SELECT actor FROM event_log") == "operator:KCH"
        assert act.process == "flip/KCH/cohort"


# --- health ---------------------------------------------------------------------------------------------------------


async def test_a_consumer_that_is_stuck_is_noticed_and_started_anew(world: World, monkeypatch: pytest.MonkeyPatch):
    project, hearing = uuid7(), world.stands.inbox.hearing
    assert hearing is not None
    await world.say(project, "before")
    await world.hears(project, "before")
    consumer = hearing.consumer
    assert consumer is not None
    consumer.pause(*consumer.assignment())  # from here on it asks the broker for nothing
    await world.say(project, "meanwhile")

    async def not_ready() -> bool:
        answer = await world.http.get("/health/ready", extensions={"patient": False})
        return answer.json()["kafka"] is False

    with monkeypatch.context() as patch:
        patch.setattr("flip_chassis.service.STUCK_AFTER_S", 1.0)
        await eventually(not_ready)
    monkeypatch.setattr("flip_chassis.bus.STUCK_AFTER_S", 1.0)
    await world.hears(project, "before", "meanwhile")
    assert hearing.consumer is not consumer
    assert (await world.http.get("/health/live")).status_code == 200


async def test_readiness_tells_the_age_of_the_last_poll_the_lag_and_the_relays_horizon(world: World):
    project = uuid7()
    await world.say(project, "heard")
    await world.hears(project, "heard")
    figures = (await world.http.get("/health/ready")).json()["figures"]
    assert set(figures) == {"poll_age_s", "lag", "relay_horizon_age_s"}
    assert figures["lag"] >= 0
    metrics = (await world.http.get("/metrics")).text
    for name in ("flip_poll_age_seconds", "flip_lag_records", "flip_relay_horizon_age_seconds"):
        assert name in metrics
