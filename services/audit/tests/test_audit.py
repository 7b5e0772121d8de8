"""The ledger hears everything, chains it, signs it, shows it to admins only, and notes who looked."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flip_audit.checkpoints import CONFLICT, Checkpoints
from flip_audit.consumers import handlers
from flip_audit.domain import Pace
from flip_audit.keys import SigningKey
from flip_audit.main import MIGRATIONS, PROJECTED, service
from flip_audit.objects import AnotherStands, Objects
from flip_audit.settings import AuditSettings
from flip_chassis.database import CHASSIS_MIGRATIONS, connect, migrate
from flip_chassis.ids import uuid7
from flip_chassis.service import backbone
from flip_chassis.testing import People, client, eventually, invited, said, settings_for, speaking
from flip_client.evidence import read_public_keys
from flip_client.verify import Verified, verify
from flip_contracts import ledger
from flip_contracts.audit import CheckpointSigned, LedgerExported, LedgerRead
from flip_contracts.auth import Role
from flip_contracts.base import ProjectId, UserId
from flip_contracts.cohort import RunCohortQuery
from flip_contracts.ledger import Checkpoint
from flip_contracts.projects import ProjectApproved, ProjectCreated, ProjectStaged
from flip_local.testing import S3, Database, Kafka
from minio import Minio

pytestmark = pytest.mark.parts

TOLD = ["ProjectCreated", "ProjectStaged", "ProjectApproved"]
TOLD_TYPES = [ProjectCreated.type_name, ProjectStaged.type_name, ProjectApproved.type_name]
SECRET_SQL = "SELECT person_id FROM omop.person WHERE year_of_birth = 1941"


@dataclass
class Audit:
    """The service, and who is known to it."""

    http: httpx.AsyncClient
    kafka: Kafka
    database: Database
    people: People
    settings: AuditSettings
    store: Minio

    async def enter(self, role: Role) -> dict[str, str]:
        async with speaking(self.kafka.as_principal("service.auth"), "flip/hub/auth") as auth:
            arrived, activated = invited(role, f"{uuid7()}@flip.example")
            await auth.say(arrived)
            await auth.say(activated)
        return {"Authorization": f"Bearer {self.people.token(arrived.user_id)}"}

    async def tell_a_project(self) -> ProjectId:
        project_id = ProjectId(uuid7())
        async with speaking(self.kafka.as_principal("service.projects"), "flip/hub/projects") as projects:
            for message in (
                ProjectCreated(
                    project_id=project_id,
                    owner=UserId(uuid7()),
                    name="Deep nuclei",
                    description="",
                    members=frozenset(),
                ),
                ProjectStaged(project_id=project_id, trusts=frozenset({"KCH"}), query_version=1),
                ProjectApproved(project_id=project_id, trust="KCH", reason="agreed"),
            ):
                await projects.say(message, actor="user:ada")
        return project_id

    async def entries(self, headers: dict[str, str], count: int, **terms: Any) -> list[dict[str, Any]]:
        async def look() -> list[dict[str, Any]] | None:
            answer = await self.http.get("/api/audit/entries", headers=headers, params=terms)
            found = answer.json()["entries"]
            return found if len(found) >= count else None

        return await eventually(look)

    async def export(self, headers: dict[str, str], **terms: Any) -> bytes:
        answer = await self.http.get("/api/audit/export", headers=headers, params=terms)
        return answer.raise_for_status().content

    async def checked(self, headers: dict[str, str], exported: bytes) -> Verified:
        pem = (await self.http.get("/api/audit/keys", headers=headers)).raise_for_status().content
        return verify(io.BytesIO(exported), read_public_keys(pem))

    async def checkpoint_entries(self, admin: dict[str, str]) -> list[dict[str, Any]]:
        return await self.entries(admin, 1, type=CheckpointSigned.type_name)

    def objects(self, prefix: str) -> dict[str, bytes]:
        names = [str(each.object_name) for each in self.store.list_objects(self.settings.s3_bucket, prefix)]
        return {name: self.store.get_object(self.settings.s3_bucket, name).read() for name in names}


@pytest.fixture
def audit_settings(
    postgres: Database, kafka: Kafka, s3: S3, people: People, tmp_path: Path, jwks_url: str
) -> AuditSettings:
    """A ledger with a key and a bucket of its own, that signs often."""
    key = tmp_path / "ledger-signing-key.pem"
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    bucket = f"audit-{uuid7()}"
    minio_of(s3).make_bucket(bucket)
    return settings_for(
        AuditSettings,
        postgres,
        kafka.as_principal("service.audit"),
        kafka.group("service.audit"),
        jwks_url,
        trusts=frozenset({"KCH", "UCLH"}),
        s3_endpoint=s3.endpoint,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        s3_bucket=bucket,
        signing_key=key,
        checkpoint_entries=5,
        checkpoint_s=1,
    )


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
def jwks_url(people: People) -> Generator[str]:
    with people.published() as url:
        yield url


def minio_of(s3: S3) -> Minio:
    return Minio(s3.endpoint.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False)


@pytest.fixture
async def audit(
    audit_settings: AuditSettings, postgres: Database, kafka: Kafka, s3: S3, people: People
) -> AsyncGenerator[Audit]:
    async with client(service(audit_settings)) as http:
        yield Audit(http, kafka, postgres, people, audit_settings, minio_of(s3))


@pytest.mark.requirement("AUD-1")
async def test_what_was_said_of_a_project_is_told_in_order_with_actor_and_time(audit: Audit):
    admin = await audit.enter("admin")
    before = datetime.now(UTC)
    project_id = await audit.tell_a_project()
    entries = await audit.entries(admin, 3, project_id=project_id, type=TOLD_TYPES)
    assert [str(each["type"]).split(".")[2] for each in entries] == TOLD
    assert {each["actor"] for each in entries} == {"user:ada"}
    assert all(before <= datetime.fromisoformat(str(each["time"])) <= datetime.now(UTC) for each in entries)


@pytest.mark.requirement("AUD-1")
async def test_pages_and_terms_narrow_the_search_and_lose_nothing(audit: Audit):
    admin = await audit.enter("admin")
    project_id = await audit.tell_a_project()
    await audit.entries(admin, 3, project_id=project_id, type=TOLD_TYPES)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        terms = {"project_id": str(project_id), "limit": "1", "type": TOLD_TYPES, **({"after": after} if after else {})}
        page = (await audit.http.get("/api/audit/entries", headers=admin, params=terms)).json()
        found += [each["type"] for each in page["entries"]]
        after = page["next"]
    assert found == TOLD_TYPES
    only = await audit.entries(admin, 1, project_id=project_id, type=ProjectStaged.type_name)
    assert [each["type"] for each in only] == [ProjectStaged.type_name]


async def test_reading_the_ledger_is_itself_in_the_ledger(audit: Audit):
    admin = await audit.enter("admin")
    project_id = await audit.tell_a_project()
    await audit.entries(admin, 3, project_id=project_id)
    reads = await audit.entries(admin, 1, project_id=project_id, type="flip.audit.LedgerRead.v1")
    assert reads[0]["actor"] != "anonymous"


async def test_the_text_of_a_query_never_gets_into_the_ledger(audit: Audit):
    admin = await audit.enter("admin")
    project_id = ProjectId(uuid7())
    async with speaking(audit.kafka.as_principal("service.cohort"), "flip/hub/cohort") as cohort:
        command = RunCohortQuery(
            project_id=project_id,
            query_version=1,
            query_digest=sha256(SECRET_SQL.encode()).hexdigest(),
            sql=SECRET_SQL,
            imaging=True,
            deadline=datetime.now(UTC),
        )
        await cohort.say(command, trust="KCH")
    entries = await audit.entries(admin, 1, project_id=project_id, type=RunCohortQuery.type_name)
    assert "1941" not in str(entries)


@pytest.mark.parametrize("role", ["viewer", "researcher"])
async def test_only_an_admin_reads_the_ledger(audit: Audit, role: Role):
    answer = await audit.http.get("/api/audit/entries", headers=await audit.enter(role))
    assert (answer.status_code, answer.json()["code"]) == (403, "role-not-allowed")


async def test_a_cursor_that_nobody_gave_out_is_refused_by_name(audit: Audit):
    answer = await audit.http.get("/api/audit/entries?after=x", headers=await audit.enter("admin"))
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "cursor-not-valid", "after")


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"proj": "7"}, "query.proj"),
        ({"project_id": "7"}, "query.project_id"),
        ({"since": "2026-01-02T03:04:05"}, "query.since"),
        ({"until": "yesterday"}, "query.until"),
        ({"limit": "1001"}, "query.limit"),
        ({"actor": ""}, "query.actor"),
    ],
)
async def test_a_term_that_cannot_be_read_is_refused_by_name(audit: Audit, terms: dict[str, str], field: str):
    answer = await audit.http.get("/api/audit/entries", headers=await audit.enter("admin"), params=terms)
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["fields"]] == [field]


@pytest.mark.parametrize("route", ["entries", "export"])
async def test_a_type_that_nobody_says_and_a_time_that_runs_backwards_are_refused(audit: Audit, route: str):
    admin = await audit.enter("admin")
    backwards = {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    for terms, code, field in (
        ({"type": "flip.projects.ProjectSold.v1"}, "type-not-known", "type"),
        (backwards, "time-not-valid", "until"),
    ):
        answer = await audit.http.get(f"/api/audit/{route}", headers=admin, params=terms)
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)


# --- the chain ------------------------------------------------------------------------------------------------------


async def chain(database: Database) -> list[dict[str, Any]]:
    async with connect(database.app) as db:
        return [dict(row) for row in await db.fetch("SELECT * FROM ledger ORDER BY position")]


def assert_chained(rows: list[dict[str, Any]]) -> None:
    prev = "0" * 64
    for number, row in enumerate(rows, 1):
        facts = json.loads(row["line"])
        assert (row["position"], facts["position"], facts["prev"]) == (number, number, prev)
        prev = sha256(b"\0" + row["line"].encode()).hexdigest()
        assert row["hash"].hex() == prev


@pytest.mark.requirement("AUD-2")
async def test_entries_are_one_chain_without_a_gap_however_many_write_at_once(audit: Audit):
    admin = await audit.enter("admin")
    tell = [audit.tell_a_project() for _ in range(4)]
    read = [audit.http.get("/api/audit/entries", headers=admin) for _ in range(12)]
    answers, project_ids = await asyncio.gather(asyncio.gather(*read), asyncio.gather(*tell))
    assert [each.status_code for each in answers] == [200] * 12
    for project_id in project_ids:
        await audit.entries(admin, 3, project_id=project_id, type=TOLD_TYPES)
    assert_chained(await chain(audit.database))


@pytest.mark.requirement("AUD-2")
@pytest.mark.parametrize("role", ["app", "owner"])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger SET line = '{}'",
        "DELETE FROM ledger WHERE position = 1",
        "TRUNCATE ledger",
        "UPDATE checkpoint SET statement = '{}'",
        "DELETE FROM checkpoint",
        "TRUNCATE checkpoint",
        "UPDATE ledger_key SET public_key = ''",
        "DELETE FROM ledger_key",
    ],
)
async def test_what_is_in_the_ledger_is_changed_by_nobody_not_even_its_owner(
    checkpoints: Checkpoints, postgres: Database, role: str, change: str
):
    await checkpoints.sign(checkpoints.pace)
    before = await chain(postgres)
    async with connect(postgres.app if role == "app" else postgres.owner) as db:
        with pytest.raises(asyncpg.PostgresError, match=r"append-only|permission denied"):
            await db.execute(change)
    assert await chain(postgres) == before


async def test_a_ledger_from_before_the_chain_is_chained_as_it_stands(
    audit_settings: AuditSettings, postgres: Database, tmp_path: Path
):
    before = tmp_path / MIGRATIONS.parent.name / "migrations"
    before.mkdir(parents=True)
    (before / "0001_ledger.sql").write_text((MIGRATIONS / "0001_ledger.sql").read_text())
    await migrate(audit_settings, [CHASSIS_MIGRATIONS, before])
    async with connect(postgres.app) as db:
        for number in range(3):
            await db.execute(
                "INSERT INTO ledger (event_id, type, topic, key, source, stream_version, time, actor, correlation_id,"
                " body) VALUES ($1, 'flip.x.Y.v1', 'flip.x', 'k', 'flip/hub/x', $2, now(), 'user:ada', $1, $3)",
                uuid7(),
                number,
                {"said": "Grüße\nhere"},
            )
    await migrate(audit_settings, [CHASSIS_MIGRATIONS, MIGRATIONS])
    rows = await chain(postgres)
    assert [json.loads(row["line"])["stream_version"] for row in rows] == [0, 1, 2]
    assert_chained(rows)


# --- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("AUD-2")
async def test_checkpoints_are_signed_stored_and_said_each_naming_the_one_before(audit: Audit):
    admin = await audit.enter("admin")
    await audit.tell_a_project()
    await audit.entries(admin, 2, type=CheckpointSigned.type_name)
    told = [each["body"] for each in await audit.checkpoint_entries(admin)]
    public = SigningKey.of(audit.settings.signing_key).private.public_key()
    previous, last = ledger.NOTHING.hex(), 0
    for number, (name, line) in enumerate(sorted(audit.objects("checkpoints/").items())[: len(told)], 1):
        statement, signature = ledger.read_signed(line)
        public.verify(signature, statement)
        checkpoint = Checkpoint.decode(statement)
        assert (checkpoint.number, checkpoint.first, checkpoint.previous) == (number, last + 1, previous)
        assert name == told[number - 1]["object"]
        assert ledger.digest_of(statement) == told[number - 1]["digest"]
        previous, last = ledger.digest_of(statement), checkpoint.last
    assert read_public_keys(b"".join(audit.objects("keys/").values())) == [public]


class Dying(Objects):
    """A store from which the process does not come back: the object is written, and nobody hears of it."""

    async def put_once(self, name: str, content: bytes) -> None:
        await super().put_once(name, content)
        raise Died


class Died(Exception):
    """The process is gone."""


@pytest.fixture
async def checkpoints(audit_settings: AuditSettings) -> AsyncGenerator[Checkpoints]:
    """Checkpoints of a ledger that hears nobody but itself; they sign and store when they are told to."""
    key = SigningKey.of(audit_settings.signing_key)
    own = [handler for handler in handlers if handler.message.topic.owner == "audit"]
    async with backbone(audit_settings, MIGRATIONS, own, PROJECTED) as stands:
        it = Checkpoints(stands, Objects(audit_settings), key, Pace(5, timedelta(hours=1)))
        await it.introduce_key()
        async with stands.working() as work:
            for _ in range(12):
                await work.say(LedgerRead(reader=UserId(uuid7()), entries=0))
        yield it


@pytest.mark.requirement("AUD-2")
async def test_a_crash_between_the_store_and_the_database_leaves_no_gap_and_no_second_checkpoint(
    checkpoints: Checkpoints, audit_settings: AuditSettings, s3: S3
):
    await checkpoints.sign(checkpoints.pace)
    dying = replace(checkpoints, objects=Dying(audit_settings))
    with pytest.raises(Died):
        await dying.store()
    store, bucket = minio_of(s3), audit_settings.s3_bucket
    written = {each.object_name: each.etag for each in store.list_objects(bucket, "checkpoints/")}
    await checkpoints.sign(checkpoints.pace)
    await checkpoints.store()
    await checkpoints.store()
    names = {each.object_name: each.etag for each in store.list_objects(bucket, "checkpoints/")}
    assert written.items() <= names.items()
    async with checkpoints.stands.pool.acquire() as db:
        events = await said(db, CheckpointSigned)
    assert [(each.number, each.object) for each in events] == list(enumerate(sorted(map(str, names)), 1))
    assert [(each.first, each.last) for each in events][:2] == [(1, 5), (6, 10)]


async def test_a_checkpoint_that_stands_under_the_name_already_is_never_overwritten(
    checkpoints: Checkpoints, audit_settings: AuditSettings, s3: S3
):
    store, bucket, name = minio_of(s3), audit_settings.s3_bucket, f"checkpoints/{1:012d}.json"
    store.put_object(bucket, name, io.BytesIO(b"another"), 7)
    await checkpoints.sign(checkpoints.pace)
    await checkpoints.store()
    assert store.get_object(bucket, name).read() == b"another"
    assert CONFLICT._value.get() == 1
    async with checkpoints.stands.pool.acquire() as db:
        assert await said(db, CheckpointSigned) == []


async def test_an_object_is_written_once(audit_settings: AuditSettings):
    objects = Objects(audit_settings)
    await objects.put_once("checkpoints/1", b"first")
    await objects.put_once("checkpoints/1", b"first")
    with pytest.raises(AnotherStands):
        await objects.put_once("checkpoints/1", b"second")


async def test_a_ledger_with_nothing_new_is_not_signed_again_and_again(checkpoints: Checkpoints):
    hasty = replace(checkpoints, pace=Pace(5, timedelta(0)))
    for _ in range(4):
        await hasty.sign(hasty.pace)
        await hasty.store()
    async with checkpoints.stands.pool.acquire() as db:
        assert len(await said(db, CheckpointSigned)) == 3


# --- exports --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("AUD-1", "AUD-2")
async def test_the_whole_ledger_is_exported_with_its_own_export_in_it_and_verifies_itself(audit: Audit):
    admin = await audit.enter("admin")
    project_id = await audit.tell_a_project()
    await audit.entries(admin, 3, project_id=project_id, type=TOLD_TYPES)
    exported = await audit.export(admin)
    manifest = (await audit.checked(admin, exported)).manifest
    with zipfile.ZipFile(io.BytesIO(exported)) as archive:
        entries = [json.loads(line)["entry"] for line in archive.read(ledger.ENTRIES).splitlines()]
    assert (manifest.terms, manifest.entries, manifest.last) == (None, len(entries), len(entries))
    assert {*TOLD_TYPES, LedgerExported.type_name} <= {each["type"] for each in entries}


@pytest.mark.requirement("AUD-2")
async def test_a_narrowed_export_shows_what_fits_and_proves_each_entry(audit: Audit):
    admin = await audit.enter("admin")
    project_id, _ = [await audit.tell_a_project() for _ in range(2)]
    await audit.entries(admin, 3, project_id=project_id, type=TOLD_TYPES)
    exported = await audit.export(admin, project_id=str(project_id), type=TOLD_TYPES)
    manifest = (await audit.checked(admin, exported)).manifest
    with zipfile.ZipFile(io.BytesIO(exported)) as archive:
        entries = [json.loads(line)["entry"] for line in archive.read(ledger.SELECTION).splitlines()]
    assert {each["project_id"] for each in entries} == {str(project_id)}
    assert sorted(each["type"] for each in entries) == sorted(TOLD_TYPES)
    assert manifest.terms is not None
    assert (str(manifest.terms.project_id), manifest.entries) == (str(project_id), 3)


async def test_an_export_is_recorded_with_who_took_it_and_how_it_was_narrowed(audit: Audit):
    admin = await audit.enter("admin")
    await audit.export(admin, actor="user:ada")
    taken = (await audit.entries(admin, 1, type=LedgerExported.type_name))[-1]
    assert taken["actor"] == f"user:{taken['body']['reader']}"
    assert taken["body"]["actor"] == "user:ada"


@pytest.mark.parametrize("role", ["viewer", "researcher"])
@pytest.mark.parametrize("route", ["export", "keys"])
async def test_only_an_admin_copies_the_ledger(audit: Audit, role: Role, route: str):
    answer = await audit.http.get(f"/api/audit/{route}", headers=await audit.enter(role))
    assert (answer.status_code, answer.json()["code"]) == (403, "role-not-allowed")
