"""The projects service on real Postgres and Kafka: from a draft to a model, and who may do what."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from flip_chassis.database import Connection, connect
from flip_chassis.ids import uuid7
from flip_chassis.testing import (
    People,
    Speaker,
    client,
    eventually,
    invited,
    routes,
    said,
    settings_for,
    speaking,
)
from flip_contracts.auth import Role, UserDisabled
from flip_contracts.base import ModelId, NetName, ProjectId, RunId, TrustCode, UserId
from flip_contracts.cohort import CohortAnswered, CohortQuerySaved, Outcome
from flip_contracts.imaging import DatasetWithdrawn, ImagingReady, LabelsRegistered
from flip_contracts.projects import (
    EnrichmentConfirmed,
    ModelCreated,
    ProjectApproved,
    ProjectCreated,
    ProjectDeleted,
    ProjectStaged,
)
from flip_contracts.scheduler import RunAssigned
from flip_local.testing import Database, Kafka, PostgresServer
from flip_projects.main import service
from flip_projects.settings import ProjectsSettings

pytestmark = pytest.mark.parts

NET: NetName = "net1"
NNUNET = {"name": "nnU-Net 2d", "description": "", "framework": "nvflare", "job": "nnunet"}


@dataclass(frozen=True)
class Person:
    user_id: UserId
    email: str
    token: str


@dataclass
class Projects:
    """The running service, and those that it hears: `auth`, `cohort`, `imaging`, `scheduler`."""

    http: httpx.AsyncClient
    db: Connection
    people: People
    speakers: dict[str, Speaker]
    known: dict[Role, Person] = field(default_factory=dict)

    async def person(self, role: Role) -> Person:
        """Somebody new with this role."""
        email = f"{uuid7()}@flip.example"
        events = invited(role, email)
        for event in events:
            await self.speakers["auth"].say(event)
        user_id = events[0].user_id
        return Person(user_id, email, self.people.token(user_id, expires_in_s=3600))

    async def admin(self) -> Person:
        """The one admin of these tests."""
        if "admin" not in self.known:
            self.known["admin"] = await self.person("admin")
        return self.known["admin"]

    async def ask(self, method: str, path: str, by: Person | None, body: Any = None, **params: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {by.token}"} if by else {}
        return await self.http.request(method, f"/api/projects{path}", json=body, headers=headers, params=params)

    async def post(self, path: str, by: Person | None, **body: Any) -> httpx.Response:
        return await self.ask("POST", path, by, body)

    async def get(self, path: str, by: Person | None, **params: Any) -> httpx.Response:
        return await self.ask("GET", path, by, **params)

    async def draft(self, owner: Person, *members: Person, name: str = "Deep nuclei") -> ProjectId:
        answer = await self.post("", owner, name=name, members=[member.email for member in members])
        assert answer.status_code == 201, answer.text
        return ProjectId(UUID(answer.json()["project_id"]))

    async def answered(self, project: ProjectId, version: int = 1, **outcomes: Outcome) -> None:
        """The query was saved, and each Trust has answered so; until this service has heard."""
        cohort = self.speakers["cohort"]
        trusts = frozenset({"KCH", "UCLH"})
        await cohort.say(
            CohortQuerySaved(
                project_id=project, query_version=version, query_digest="0" * 64, trusts=trusts, imaging=True
            )
        )
        for trust, outcome in outcomes.items():
            persons = 40 if outcome == "answered" else None
            await cohort.say(
                CohortAnswered(project_id=project, query_version=version, trust=trust, outcome=outcome, persons=persons)
            )
        await self.heard("SELECT count(*) FROM query_answer WHERE project_id = $1", project, of=len(outcomes))

    async def heard(self, count: str, *terms: object, of: int) -> None:
        async def enough() -> bool:
            return await self.db.fetchval(count, *terms) >= of

        await eventually(enough)

    async def staged(self, owner: Person) -> ProjectId:
        project = await self.draft(owner)
        await self.answered(project, KCH="answered", UCLH="answered")
        answer = await self.post(f"/{project}/stage", owner, trusts=["KCH", "UCLH"])
        assert answer.status_code == 200, answer.text
        return project

    async def decided(self, project: ProjectId, trust: TrustCode, decision: str) -> httpx.Response:
        return await self.post(
            f"/{project}/decisions", await self.admin(), trust=trust, decision=decision, reason="the board met"
        )

    async def approved(self, owner: Person) -> ProjectId:
        project = await self.staged(owner)
        assert (await self.decided(project, "KCH", "approved")).status_code == 200
        return project

    async def images_at(self, project: ProjectId, trust: TrustCode, *, labelled: int = 14) -> None:
        imaging = self.speakers["imaging"]
        await imaging.say(ImagingReady(project_id=project, trust=trust, imported=14, failed=0))
        await imaging.say(LabelsRegistered(project_id=project, trust=trust, labelled=labelled, labels={"thalamus": 1}))
        await self.heard(
            "SELECT count(*) FROM trust_images WHERE project_id = $1 AND trust = $2 AND images_ready AND labelled = $3",
            project,
            trust,
            labelled > 0,
            of=1,
        )


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    with postgres_server.database("projects") as made:
        yield made


@asynccontextmanager
async def running(database: Database, kafka: Kafka) -> AsyncGenerator[Projects]:
    principal = "service.projects"
    people = People()
    async with AsyncExitStack() as stack:
        settings = settings_for(
            ProjectsSettings,
            database,
            kafka.as_principal(principal),
            kafka.group(principal),
            stack.enter_context(people.published()),
            trusts=frozenset({"KCH", "UCLH"}),
        )
        speakers = {
            name: await stack.enter_async_context(speaking(kafka.as_principal(f"service.{name}"), f"flip/hub/{name}"))
            for name in ("auth", "cohort", "imaging", "scheduler")
        }
        http = await stack.enter_async_context(client(service(settings)))
        db = await stack.enter_async_context(connect(database.app))
        yield Projects(http, db, people, speakers)


@pytest.fixture(scope="module")
async def projects(database: Database, kafka: Kafka) -> AsyncGenerator[Projects]:
    async with running(database, kafka) as it:
        yield it


@pytest.fixture(scope="module")
async def ada(projects: Projects) -> Person:
    return await projects.person("researcher")


# --- PROJ-1, PROJ-2, PROJ-3, PROJ-4 ---------------------------------------------------------------------------------


@pytest.mark.requirement("PROJ-1")
async def test_a_project_is_made_with_members_by_their_addresses(projects: Projects, ada: Person):
    bob = await projects.person("viewer")
    await projects.get("", bob)  # the service has heard of Bob
    answer = await projects.post(
        "", ada, name=" Deep nuclei ", description="T1", members=[bob.email.upper(), ada.email]
    )
    assert answer.status_code == 201
    view = answer.json()
    assert (view["name"], view["owner"], view["members"]) == ("Deep nuclei", str(ada.user_id), [str(bob.user_id)])
    assert view["status"] == "draft"
    assert "flip.projects.project/" in answer.headers["Flip-Version"]
    assert (await projects.get(f"/{view['project_id']}", bob)).json() == view
    event = (await said(projects.db, ProjectCreated))[-1]
    assert (event.owner, event.members) == (ada.user_id, {bob.user_id})


@pytest.mark.requirement("PROJ-1")
async def test_unknown_addresses_are_named_and_nothing_is_made(projects: Projects, ada: Person):
    before = len(await said(projects.db, ProjectCreated))
    unknown = ["eve@flip.example", "mallory@flip.example"]
    answer = await projects.post("", ada, name="Deep nuclei", members=[unknown[1], ada.email, unknown[0]])
    assert code(answer) == (422, "addresses-not-known")
    assert (answer.json()["field"], answer.json()["addresses"]) == ("members", unknown)
    assert len(await said(projects.db, ProjectCreated)) == before


@pytest.mark.requirement("PROJ-1")
async def test_wrong_fields_are_named(projects: Projects, ada: Person):
    answer = await projects.post("", ada, name="  ", members=["no address"], colour="red")
    assert code(answer) == (422, "request-not-valid")
    assert {each["field"] for each in answer.json()["fields"]} == {"name", "members.0", "colour"}


@pytest.mark.requirement("PROJ-2")
async def test_details_change_until_staged_and_again_after_an_unstaging(projects: Projects, ada: Person):
    project = await projects.staged(ada)
    body = {"name": "Nuclei", "description": "other", "members": []}
    answer = await projects.ask("PUT", f"/{project}", ada, body)
    assert code(answer) == (409, "project-not-in-draft")
    assert "un-stage" in answer.json()["detail"]
    admin = await projects.admin()
    assert (await projects.post(f"/{project}/unstage", admin, reason="a typo")).json()["status"] == "draft"
    answer = await projects.ask("PUT", f"/{project}", ada, body)
    assert (answer.json()["name"], answer.json()["decisions"]) == ("Nuclei", [])


@pytest.mark.requirement("PROJ-3")
async def test_the_list_shows_own_and_joined_projects_and_an_admin_all(projects: Projects):
    owner, member, stranger = [await projects.person("researcher") for _ in range(3)]
    for person in (owner, member, stranger):
        await projects.get("", person)
    joined = await projects.draft(owner, member, name="Joined")
    own = await projects.draft(owner, name="Own")

    async def seen(by: Person, **terms: Any) -> set[str]:
        return {item["project_id"] for item in (await projects.get("", by, **terms)).json()["items"]}

    assert await seen(owner) == {str(joined), str(own)}
    assert await seen(member) == {str(joined)}
    assert await seen(stranger) == set()
    assert await seen(await projects.admin(), owner=str(owner.user_id)) == {str(joined), str(own)}


@pytest.mark.requirement("PROJ-3")
async def test_the_list_is_filtered_sorted_and_paged(projects: Projects):
    owner = await projects.person("researcher")
    names = ["b 100% T1", "a T1", "c T2"]
    for name in names:
        await projects.draft(owner, name=name)

    async def listed(**terms: Any) -> tuple[list[str], int]:
        page = (await projects.get("", owner, sort="name", descending=False, **terms)).json()
        return [item["name"] for item in page["items"]], page["total"]

    assert await listed() == (sorted(names), 3)
    assert await listed(keyword="t1") == (["a T1", "b 100% T1"], 2)
    assert await listed(keyword="%") == (["b 100% T1"], 1)
    assert await listed(status="staged") == ([], 0)
    assert await listed(size=2, page=2) == (["c T2"], 3)
    assert code(await projects.get("", owner, sort="owner; DROP TABLE project"))[0] == 422


@pytest.mark.requirement("PROJ-4")
async def test_a_project_goes_when_its_name_is_typed_and_its_models_with_it(projects: Projects, ada: Person):
    project = await projects.approved(ada)
    model = (await projects.post(f"/{project}/models", ada, **NNUNET)).json()["model_id"]
    assert code(await projects.post(f"/{project}/delete", ada, name="deep nuclei")) == (409, "name-does-not-match")
    assert (await projects.post(f"/{project}/delete", ada, name="Deep nuclei")).status_code == 204
    assert ProjectDeleted(project_id=project) in await said(projects.db, ProjectDeleted)
    for path in (f"/{project}", f"/{project}/models/{model}", f"/{project}/timeline"):
        assert code(await projects.get(path, ada)) == (404, "project-not-found")
    page = (await projects.get("", ada, size=200)).json()
    assert str(project) not in {item["project_id"] for item in page["items"]}


# --- PROJ-5, PROJ-6, PROJ-7, PROJ-8 ---------------------------------------------------------------------------------


@pytest.mark.requirement("PROJ-5")
async def test_staging_needs_a_saved_query_with_a_count_from_each_chosen_trust(projects: Projects, ada: Person):
    project = await projects.draft(ada)
    assert code(await projects.post(f"/{project}/stage", ada, trusts=["KCH"])) == (409, "query-not-saved")
    await projects.answered(project, KCH="answered", UCLH="suppressed")
    answer = await projects.post(f"/{project}/stage", ada, trusts=["KCH", "UCLH", "GSTT"])
    assert code(answer) == (409, "trusts-without-answer")
    assert answer.json()["trusts"] == ["GSTT", "UCLH"]
    view = (await projects.post(f"/{project}/stage", ada, trusts=["KCH"])).json()
    assert (view["status"], view["query_version"]) == ("staged", 1)
    assert [(each["trust"], each["state"]) for each in view["decisions"]] == [("KCH", "asked")]
    event = (await said(projects.db, ProjectStaged))[-1]
    assert event == ProjectStaged(project_id=project, trusts=frozenset({"KCH"}), query_version=1)


@pytest.mark.requirement("PROJ-5")
async def test_an_answer_to_an_earlier_version_of_the_query_does_not_count(projects: Projects, ada: Person):
    project = await projects.draft(ada)
    await projects.answered(project, 1, KCH="answered")
    await projects.answered(project, 2, UCLH="answered")
    await projects.heard("SELECT query_version FROM saved_query WHERE project_id = $1", project, of=2)
    answer = await projects.post(f"/{project}/stage", ada, trusts=["KCH"])
    assert (code(answer), answer.json()["query_version"]) == ((409, "trusts-without-answer"), 2)


@pytest.mark.requirement("PROJ-6")
async def test_each_trusts_answer_is_recorded_with_its_reason(projects: Projects, ada: Person):
    project = await projects.staged(ada)
    assert (await projects.decided(project, "UCLH", "declined")).json()["status"] == "staged"
    view = (await projects.decided(project, "KCH", "approved")).json()
    assert view["status"] == "approved"
    decisions = {each["trust"]: (each["state"], each["reason"]) for each in view["decisions"]}
    assert decisions == {"KCH": ("approved", "the board met"), "UCLH": ("declined", "the board met")}
    answer = await projects.decided(project, "UCLH", "approved")
    assert (code(answer), answer.json()["decision"]) == ((409, "decision-not-possible"), "declined")
    assert ProjectApproved(project_id=project, trust="KCH", reason="the board met") in await said(
        projects.db, ProjectApproved
    )


@pytest.mark.requirement("PROJ-7")
async def test_a_trust_that_approved_may_withdraw(projects: Projects, ada: Person):
    project = await projects.approved(ada)
    view = (await projects.decided(project, "KCH", "withdrawn")).json()
    assert {each["trust"]: each["state"] for each in view["decisions"]} == {"KCH": "withdrawn", "UCLH": "asked"}
    assert code(await projects.post(f"/{project}/enrichment", ada)) == (409, "no-trust-takes-part")


@pytest.mark.requirement("PROJ-8")
async def test_the_timeline_tells_each_step_with_who_and_when(projects: Projects, ada: Person):
    project = await projects.approved(ada)
    await projects.post(f"/{project}/models", ada, **NNUNET)
    steps = (await projects.get(f"/{project}/timeline", ada)).json()
    admin = await projects.admin()
    assert [(step["event"], step["actor"]) for step in steps] == [
        ("ProjectCreated", f"user:{ada.user_id}"),
        ("ProjectStaged", f"user:{ada.user_id}"),
        ("ProjectApproved", f"user:{admin.user_id}"),
        ("ModelCreated", f"user:{ada.user_id}"),
    ]
    times = [step["time"] for step in steps]
    assert times == sorted(times)
    assert steps[2]["details"]["trust"] == "KCH"


@pytest.mark.requirement("AUD-3")
async def test_a_project_is_shown_as_it_stood_at_a_moment_of_its_past(projects: Projects, ada: Person):
    project = await projects.draft(ada)
    drafted = datetime.now(UTC)
    await projects.answered(project, KCH="answered")
    await projects.post(f"/{project}/stage", ada, trusts=["KCH"])
    staged = datetime.now(UTC)
    await projects.decided(project, "KCH", "approved")
    await projects.post(f"/{project}/models", ada, **NNUNET)

    async def then(moment: datetime) -> dict[str, Any]:
        return (await projects.get(f"/{project}/at/{moment.isoformat()}", ada)).json()

    async def seen(moment: datetime) -> tuple[str, list[str], int]:
        found = await then(moment)
        states = [each["state"] for each in found["project"]["decisions"]]
        return found["project"]["status"], states, len(found["models"])

    assert await seen(drafted) == ("draft", [], 0)
    assert await seen(staged) == ("staged", ["asked"], 0)
    assert await seen(datetime.now(UTC)) == ("approved", ["approved"], 1)
    assert await seen(drafted) == ("draft", [], 0)
    assert (await then(datetime.now(UTC)))["project"] == (await projects.get(f"/{project}", ada)).json()
    before = await projects.get(f"/{project}/at/2020-01-01T00:00:00Z", ada)
    assert code(before) == (404, "project-not-yet")
    assert (await projects.get(f"/{project}/at/yesterday", ada)).status_code == 422


# --- enrichment, models ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("IMG-6")
async def test_enrichment_is_confirmed_once_every_approving_trust_has_images_and_labels(
    projects: Projects, ada: Person
):
    project = await projects.approved(ada)
    await projects.images_at(project, "KCH", labelled=0)
    answer = await projects.post(f"/{project}/enrichment", ada)
    assert code(answer) == (409, "enrichment-not-ready")
    assert answer.json()["missing"] == [{"trust": "KCH", "code": "labels-not-registered"}]
    await projects.images_at(project, "KCH")
    await projects.speakers["imaging"].say(DatasetWithdrawn(project_id=project, trust="KCH"))
    await projects.heard("SELECT count(*) FROM trust_images WHERE project_id = $1 AND NOT images_ready", project, of=1)
    answer = await projects.post(f"/{project}/enrichment", ada)
    assert answer.json()["missing"] == [{"trust": "KCH", "code": "images-not-ready"}]
    await projects.images_at(project, "KCH")
    enrichment = (await projects.post(f"/{project}/enrichment", ada)).json()["enrichment"]
    assert (enrichment["by"], enrichment["trusts"]) == (f"user:{ada.user_id}", ["KCH"])
    assert EnrichmentConfirmed(project_id=project) in await said(projects.db, EnrichmentConfirmed)
    assert code(await projects.post(f"/{project}/enrichment", ada)) == (409, "enrichment-already-confirmed")


@pytest.mark.requirement("MODEL-1")
@pytest.mark.requirement("MODEL-2")
async def test_a_model_is_made_in_an_approved_project_and_edited_until_its_first_training(
    projects: Projects, ada: Person
):
    staged = await projects.staged(ada)
    assert code(await projects.post(f"/{staged}/models", ada, **NNUNET)) == (409, "project-not-approved")
    project = await projects.approved(ada)
    made = (await projects.post(f"/{project}/models", ada, **NNUNET)).json()
    assert (made["framework"], made["job"], made["trained"]) == ("nvflare", "nnunet", False)
    path = f"/{project}/models/{made['model_id']}"
    edited = await projects.ask("PUT", path, ada, {"name": "Other", "description": "words"})
    assert (edited.json()["name"], edited.json()["description"]) == ("Other", "words")
    model_id = ModelId(UUID(made["model_id"]))
    await projects.speakers["scheduler"].say(
        RunAssigned(
            run_id=RunId(uuid7()),
            project_id=project,
            model_id=model_id,
            net=NET,
            attempt=1,
            fencing=1,
            framework="nvflare",
            job="nnunet",
            trusts=frozenset({"KCH"}),
            payload={},
        )
    )
    await projects.heard("SELECT count(*) FROM trained_model WHERE model_id = $1", model_id, of=1)
    answer = await projects.ask("PUT", path, ada, {"name": "Late", "description": ""})
    assert code(answer) == (409, "model-already-trained")
    assert (await projects.get(path, ada)).json()["trained"] is True
    assert model_id in {event.model_id for event in await said(projects.db, ModelCreated)}
    assert code(await projects.post(f"{path}/delete", ada, name="Late")) == (409, "name-does-not-match")
    assert (await projects.post(f"{path}/delete", ada, name="Other")).status_code == 204
    assert code(await projects.get(path, ada)) == (404, "model-not-found")
    assert (await projects.get(f"/{project}/models", ada)).json() == []


async def test_a_model_is_not_found_under_another_project(projects: Projects, ada: Person):
    one, other = await projects.approved(ada), await projects.approved(ada)
    model = (await projects.post(f"/{one}/models", ada, **NNUNET)).json()["model_id"]
    assert code(await projects.get(f"/{other}/models/{model}", ada)) == (404, "model-not-found")


@pytest.mark.parametrize("wrong", [{"framework": "spark"}, {"job": "magic"}, {"trusts": ["KCH"]}])
async def test_a_model_of_an_unknown_kind_is_refused_by_its_field(
    projects: Projects, ada: Person, wrong: dict[str, Any]
):
    project = await projects.approved(ada)
    answer = await projects.post(f"/{project}/models", ada, **{**NNUNET, **wrong})
    assert code(answer) == (422, "request-not-valid")
    assert [each["field"] for each in answer.json()["fields"]] == list(wrong)


@pytest.mark.requirement("MODEL-1")
async def test_a_member_deletes_the_model_they_made_and_no_other(projects: Projects, ada: Person):
    bob = await projects.person("researcher")
    assert (await projects.get("", bob)).status_code == 200
    project = await projects.draft(ada, bob)
    await projects.answered(project, KCH="answered")
    await projects.post(f"/{project}/stage", ada, trusts=["KCH"])
    await projects.decided(project, "KCH", "approved")
    adas, bobs = [(await projects.post(f"/{project}/models", by, **NNUNET)).json()["model_id"] for by in (ada, bob)]
    answer = await projects.post(f"/{project}/models/{adas}/delete", bob, name="nnU-Net 2d")
    assert code(answer) == (403, "owner-only")
    assert (await projects.post(f"/{project}/models/{bobs}/delete", bob, name="nnU-Net 2d")).status_code == 204


@pytest.mark.requirement("ACC-6")
async def test_who_is_shut_out_by_auth_is_shut_out_here(projects: Projects):
    eve = await projects.person("researcher")
    assert (await projects.get("", eve)).status_code == 200
    await projects.speakers["auth"].say(UserDisabled(user_id=eve.user_id))

    async def shut_out() -> bool:
        return (await projects.get("", eve)).status_code == 401

    await eventually(shut_out)
    assert code(await projects.get("", eve)) == (401, "session-ended")


# --- ACC-5 ----------------------------------------------------------------------------------------------------------

ANYONE = {"viewer", "researcher", "admin", "member viewer", "member", "owner"}
SEES = {"admin", "member viewer", "member", "owner"}
WORKS = {"admin", "member", "owner"}
OWNS = {"admin", "owner"}
MAY: dict[str, set[str]] = {
    "POST ": ANYONE - {"viewer", "member viewer"},
    "GET ": ANYONE,
    "GET /{project_id}": SEES,
    "PUT /{project_id}": OWNS,
    "POST /{project_id}/delete": OWNS,
    "POST /{project_id}/stage": OWNS,
    "POST /{project_id}/unstage": {"admin"},
    "POST /{project_id}/decisions": {"admin"},
    "POST /{project_id}/enrichment": WORKS,
    "GET /{project_id}/timeline": SEES,
    "GET /{project_id}/at/{moment}": SEES,
    "POST /{project_id}/models": WORKS,
    "GET /{project_id}/models": SEES,
    "GET /{project_id}/models/{model_id}": SEES,
    "PUT /{project_id}/models/{model_id}": WORKS,
    "POST /{project_id}/models/{model_id}/delete": OWNS,
}
BODIES: dict[str, dict[str, Any]] = {
    "POST ": {"name": ""},
    "PUT /{project_id}": {"name": "Deep nuclei", "members": []},
    "POST /{project_id}/delete": {"name": "not its name"},
    "POST /{project_id}/stage": {"trusts": ["GSTT"]},
    "POST /{project_id}/unstage": {"reason": "why"},
    "POST /{project_id}/decisions": {"trust": "GSTT", "decision": "approved", "reason": "why"},
    "POST /{project_id}/models": {"name": ""},
    "PUT /{project_id}/models/{model_id}": {"name": ""},
    "POST /{project_id}/models/{model_id}/delete": {"name": "not its name"},
}


@pytest.mark.requirement("ACC-5")
async def test_every_route_states_who_may_use_it(projects: Projects):
    assert await routes(projects.http, "projects") == MAY.keys()


@pytest.mark.requirement("ACC-4")
@pytest.mark.requirement("ACC-5")
async def test_every_route_admits_exactly_whom_it_should(projects: Projects):
    """Those who are admitted meet a body or a state that is refused, so that nothing changes for the next."""
    people = {
        "viewer": await projects.person("viewer"),
        "researcher": await projects.person("researcher"),
        "admin": await projects.admin(),
        "member viewer": await projects.person("viewer"),
        "member": await projects.person("researcher"),
        "owner": await projects.person("researcher"),
    }
    for person in people.values():
        assert (await projects.get("", person)).status_code == 200
    owner = people["owner"]
    project = await projects.draft(owner, people["member"], people["member viewer"])
    await projects.answered(project, KCH="answered")
    await projects.post(f"/{project}/stage", owner, trusts=["KCH"])
    await projects.decided(project, "KCH", "approved")
    model = (await projects.post(f"/{project}/models", owner, **NNUNET)).json()["model_id"]
    expired = Person(owner.user_id, "", projects.people.token(owner.user_id, expires_in_s=-60))
    forged = Person(owner.user_id, "", People().token(owner.user_id))
    for route, may in MAY.items():
        method, _, path = route.partition(" ")
        place = path.format(project_id=project, model_id=model, moment=datetime.now(UTC).isoformat())
        for who, person in (people | {"expired": expired, "forged": forged, "nobody": None}).items():
            answer = await projects.ask(method, place, person, BODIES.get(route))
            if who in may:
                expected = answer.status_code not in {401, 403, 404}
            elif who in ANYONE:
                expected = answer.status_code in {403, 404}
            else:
                expected = answer.status_code == 401
            assert expected, f"{who} asked {route} and got {answer.status_code}: {answer.text}"


@pytest.mark.requirement("ACC-4")
async def test_a_stranger_cannot_tell_a_project_from_none(projects: Projects, ada: Person):
    project, stranger = await projects.draft(ada), await projects.person("researcher")
    answers = [await projects.get(f"/{each}", stranger) for each in (project, uuid7())]
    assert [code(answer) for answer in answers] == [(404, "project-not-found")] * 2
