"""A hub, Trusts with synthetic OMOP records, and the people and projects that ask them."""

import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from flip_chassis.ids import uuid7
from flip_chassis.testing import People, Speaker, client, eventually, invited, settings_for, speaking
from flip_cohort import main
from flip_cohort.settings import HubSettings, TrustSettings
from flip_contracts.auth import Role
from flip_contracts.base import ProjectId, UserId
from flip_contracts.projects import ProjectApproved, ProjectCreated, ProjectStaged
from flip_local.data import omop as synthetic
from flip_local.data.people import Study, patients
from flip_local.data.records import records
from flip_local.testing import Database, Kafka, PostgresServer
from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Omop:
    """The synthetic OMOP database of a Trust: `owner` may change it, `reader` is what the service gets."""

    owner: str
    reader: str


@pytest.fixture(scope="session")
def omop(trust_postgres: PostgresServer) -> Iterator[Omop]:
    cluster = trust_postgres.cluster
    with trust_postgres.database("omop") as database:
        cluster.create_database(database.name, f"{database.name}_owner", "omop_reader")
        studies = [
            Study(patient.accession, f"1.2.{number}", f"1.2.{number}.1", ("1.2.3",), (8, 8, 8))
            for number, patient in enumerate(patients("KCH"))
        ]
        synthetic.load(database.owner, records("KCH", studies))
        yield Omop(database.owner, cluster.dsn(database.name, "omop_reader"))


@dataclass(slots=True)
class Hub:
    """The hub's cohort service, and what other services say to it."""

    http: httpx.AsyncClient
    people: People
    auth: Speaker
    projects: Speaker
    commands: Speaker

    async def person(self, role: Role) -> UserId:
        """Someone with this role."""
        arrived, activated = invited(role, f"{uuid7()}@flip.example")
        await self.auth.say(arrived)
        await self.auth.say(activated)
        return arrived.user_id

    async def project(self, *, viewer: UserId | None = None) -> "Project":
        """A draft project of a new researcher."""
        owner = await self.person("researcher")
        project_id = ProjectId(uuid7())
        members = frozenset({viewer}) if viewer else frozenset[UserId]()
        event = ProjectCreated(project_id=project_id, owner=owner, name="p", description="", members=members)
        await self.projects.say(event)
        project = Project(self, project_id, owner)
        await eventually(project.is_known)
        return project


@dataclass(frozen=True, slots=True)
class Project:
    """A project, seen by its owner."""

    hub: Hub
    id: ProjectId
    owner: UserId

    def _as(self, user: UserId | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.hub.people.token(user or self.owner)}"}

    async def get(self, path: str, *, user: UserId | None = None) -> httpx.Response:
        return await self.hub.http.get(f"/api/cohort/projects/{self.id}/{path}", headers=self._as(user))

    async def ask(self, sql: str, *trusts: str, imaging: bool = True, user: UserId | None = None) -> httpx.Response:
        body = {"sql": sql, "trusts": list(trusts or ("KCH",)), "imaging": imaging}
        return await self.hub.http.post(f"/api/cohort/projects/{self.id}/queries", json=body, headers=self._as(user))

    async def is_known(self) -> bool:
        return (await self.get("queries")).status_code == 200

    async def versions(self) -> list[dict[str, Any]]:
        return (await self.get("queries")).json()

    async def answer(self, version: int, trust: str = "KCH") -> dict[str, Any]:
        query = (await self.get(f"queries/{version}")).json()
        return next(answer for answer in query["answers"] if answer["trust"] == trust)

    async def answered(self, sql: str, *, imaging: bool = True) -> dict[str, Any]:
        """Ask KCH and wait for what it says."""
        saved = await self.ask(sql, imaging=imaging)
        assert saved.status_code == 202, saved.text
        return await self.settled(saved.json()["version"])

    async def settled(self, version: int, trust: str = "KCH") -> dict[str, Any]:
        """The Trust's answer, once it is there."""

        async def look() -> dict[str, Any] | None:
            answer = await self.answer(version, trust)
            return None if answer["state"] in ("sent", "running") else answer

        found = await eventually(look)
        assert found is not None
        return found

    async def stage(self, version: int) -> None:
        event = ProjectStaged(project_id=self.id, trusts=frozenset({"KCH"}), query_version=version)
        await self.hub.projects.say(event)

        async def is_staged() -> bool:
            return (await self.ask("select person_id from person", "NOWHERE", imaging=False)).status_code == 409

        await eventually(is_staged)

    async def approve(self, trust: str = "KCH") -> None:
        await self.hub.projects.say(ProjectApproved(project_id=self.id, trust=trust, reason=""))

    async def cohort(self, state: str) -> dict[str, Any]:
        """KCH's cohort, once it is in this state."""

        async def look() -> dict[str, Any] | None:
            cohorts = (await self.get("cohorts")).json()
            return next((each for each in cohorts if each["state"] == state), None)

        found = await eventually(look)
        assert found is not None
        return found


async def until_ready(http: httpx.AsyncClient) -> None:
    """Wait until a service hears: joining its consumer group takes long on a busy machine."""

    async def is_ready() -> bool:
        return (await http.get("/health/ready")).status_code == 200

    await eventually(is_ready, within_s=180)


@pytest.fixture(scope="session")
async def hub(postgres_server: PostgresServer, kafka: Kafka) -> AsyncGenerator[Hub]:
    people = People()
    principal = kafka.as_principal("service.cohort")
    with postgres_server.database("cohort") as database, people.published() as jwks_url:
        settings = settings_for(
            HubSettings,
            database,
            principal,
            kafka.group("service.cohort"),
            jwks_url,
            role="hub",
            trusts=frozenset({"KCH", "UCLH"}),
        )
        async with (
            client(main.hub(settings)) as http,
            speaking(kafka.as_principal("service.auth"), "flip/hub/auth") as auth,
            speaking(kafka.as_principal("service.projects"), "flip/hub/projects") as projects,
            speaking(principal, f"flip/hub/{uuid.uuid4()}") as commands,
        ):
            await until_ready(http)
            yield Hub(http, people, auth, projects, commands)


TrustUp = Callable[[str], AbstractAsyncContextManager[Database]]


@pytest.fixture(scope="session")
def trust_up(trust_postgres: PostgresServer, kafka: Kafka, omop: Omop) -> TrustUp:
    """Starts a Trust's cohort service; the block gets its database."""

    @asynccontextmanager
    async def up(code: str) -> AsyncGenerator[Database]:
        principal = f"trust.{code}"
        with trust_postgres.database("cohort") as database:
            settings = settings_for(
                TrustSettings,
                database,
                kafka.as_principal(principal),
                kafka.group(principal),
                role="trust",
                trust=code,
                omop=SecretStr(omop.reader),
                statement_timeout_s=5,
            )
            async with client(main.trust(settings)) as http:
                await until_ready(http)
                yield database

    return up


@pytest.fixture(scope="session")
async def kch(trust_up: TrustUp) -> AsyncGenerator[Database]:
    async with trust_up("KCH") as database:
        yield database
