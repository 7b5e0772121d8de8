"""The ledger hears everything, keeps it in order, shows it to admins only, and notes who looked."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import asyncpg
import httpx
import pytest
from flip_audit.main import service
from flip_audit.settings import AuditSettings
from flip_chassis.database import connect
from flip_chassis.ids import uuid7
from flip_chassis.testing import People, client, eventually, invited, settings_for, speaking
from flip_contracts.auth import Role
from flip_contracts.base import ProjectId, UserId
from flip_contracts.cohort import RunCohortQuery
from flip_contracts.projects import ProjectApproved, ProjectCreated, ProjectStaged
from flip_local.testing import Database, Kafka

pytestmark = pytest.mark.parts

TOLD = ["ProjectCreated", "ProjectStaged", "ProjectApproved"]
SECRET_SQL = "SELECT person_id FROM omop.person WHERE year_of_birth = 1941"


@dataclass
class Audit:
    """The service, and who is known to it."""

    http: httpx.AsyncClient
    kafka: Kafka
    database: Database
    people: People = field(default_factory=People)

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

    async def entries(self, headers: dict[str, str], count: int, **terms: Any) -> list[dict[str, object]]:
        async def look() -> list[dict[str, object]] | None:
            answer = await self.http.get("/api/audit/entries", headers=headers, params=terms)
            found = answer.json()["entries"]
            return found if len(found) >= count else None

        return await eventually(look)


@pytest.fixture
async def audit(postgres: Database, kafka: Kafka) -> AsyncGenerator[Audit]:
    people = People()
    with people.published() as jwks_url:
        principal = kafka.as_principal("service.audit")
        settings = settings_for(
            AuditSettings,
            postgres,
            principal,
            kafka.group("service.audit"),
            jwks_url,
            trusts=frozenset({"KCH", "UCLH"}),
        )
        async with client(service(settings)) as http:
            yield Audit(http, kafka, postgres, people)


@pytest.mark.requirement("AUD-1")
async def test_what_was_said_of_a_project_is_told_in_order_with_actor_and_time(audit: Audit):
    admin = await audit.enter("admin")
    before = datetime.now(UTC)
    project_id = await audit.tell_a_project()
    types = [kind.type_name for kind in (ProjectCreated, ProjectStaged, ProjectApproved)]
    entries = await audit.entries(admin, 3, project_id=project_id, type=types)
    assert [str(each["type"]).split(".")[2] for each in entries] == TOLD
    assert {each["actor"] for each in entries} == {"user:ada"}
    assert all(before <= datetime.fromisoformat(str(each["time"])) <= datetime.now(UTC) for each in entries)


@pytest.mark.requirement("AUD-1")
async def test_pages_and_terms_narrow_the_search_and_lose_nothing(audit: Audit):
    admin = await audit.enter("admin")
    project_id = await audit.tell_a_project()
    types = [kind.type_name for kind in (ProjectCreated, ProjectStaged, ProjectApproved)]
    await audit.entries(admin, 3, project_id=project_id, type=types)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        terms = {"project_id": str(project_id), "limit": "1", "type": types, **({"after": after} if after else {})}
        page = (await audit.http.get("/api/audit/entries", headers=admin, params=terms)).json()
        found += [each["type"] for each in page["entries"]]
        after = page["next"]
    assert found == types
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


async def test_nobody_changes_the_ledger_not_even_its_owner(audit: Audit):
    await audit.entries(await audit.enter("admin"), 1)
    for dsn in (audit.database.app, audit.database.owner):
        async with connect(dsn) as db:
            with pytest.raises(asyncpg.PostgresError, match=r"append-only|permission denied"):
                await db.execute("DELETE FROM ledger")
