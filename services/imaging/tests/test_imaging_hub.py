"""The hub's role: asks each Trust once its cohort is frozen, believes a report by its topic, shows it to members."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest
from flip_chassis.database import Connection, connect
from flip_chassis.ids import uuid7
from flip_chassis.testing import People, Speaker, client, eventually, invited, said, settings_for, speaking
from flip_contracts.base import Message, ModelId, ProjectId, RunId, UserId
from flip_contracts.cohort import CohortFrozen
from flip_contracts.imaging import (
    DatasetRegistered,
    DatasetWithdrawn,
    DeleteImages,
    ImagesDeleted,
    ImagingProgressed,
    ImagingReady,
    ImportStudies,
    LabelsRegistered,
    StudyCounts,
    TrustDeletedImages,
    TrustForgotProject,
    TrustImagesReady,
    TrustImportFailed,
    TrustImportProgressed,
    TrustRegisteredDataset,
    TrustRegisteredLabels,
    TrustWithdrewDataset,
)
from flip_contracts.projects import ProjectCreated, ProjectDeleted
from flip_contracts.scheduler import RunAssigned
from flip_imaging.main import hub
from flip_imaging.settings import ImagingSettings
from flip_local.testing import Database, Kafka

pytestmark = pytest.mark.parts


@dataclass(slots=True)
class Hub:
    """The hub's role, running, with others who speak to it about one project."""

    http: httpx.AsyncClient
    db: Connection
    auth: Speaker
    projects: Speaker
    cohort: Speaker
    scheduler: Speaker
    trusts: dict[str, Speaker]
    people: People
    project_id: ProjectId
    owner: UserId

    async def freeze(self, trust: str) -> None:
        """Let `cohort` say that the Trust froze its cohort of the project."""
        await self.cohort.say(
            CohortFrozen(
                project_id=self.project_id,
                trust=trust,
                query_version=1,
                query_digest="0" * 64,
                persons=14,
                studies=14,
            )
        )

    async def report(self, trust: str, report: Message) -> None:
        """Let a Trust report."""
        await self.trusts[trust].say(report, trust=trust)

    async def status(self, user: UserId, **query: str) -> httpx.Response:
        """What a user sees of the project."""
        headers = {"Authorization": f"Bearer {self.people.token(user)}"}
        return await self.http.get(f"/api/imaging/projects/{self.project_id}", headers=headers, params=query)

    async def user(self) -> UserId:
        """A new researcher."""
        events = invited("researcher", f"{uuid4().hex}@flip.example")
        for event in events:
            await self.auth.say(event)
        return events[0].user_id

    async def told(self, type_: type[Message]) -> list[Message]:
        """What the service has said of the project, by type."""
        return [message for message in await said(self.db, type_) if message.key == str(self.project_id)]


@pytest.fixture
async def imaging(postgres: Database, kafka: Kafka) -> AsyncGenerator[Hub]:
    people = People()
    async with AsyncExitStack() as stack:
        settings = settings_for(
            ImagingSettings,
            postgres,
            kafka.as_principal("service.imaging"),
            kafka.group("service.imaging"),
            stack.enter_context(people.published()),
            role="hub",
            trusts=frozenset({"KCH", "UCLH"}),
        )
        http = await stack.enter_async_context(client(hub(settings)))
        db = await stack.enter_async_context(connect(postgres.app))

        async def speaker(principal: str, source: str) -> Speaker:
            return await stack.enter_async_context(speaking(kafka.as_principal(principal), source))

        running = Hub(
            http,
            db,
            await speaker("service.auth", "flip/hub/auth"),
            await speaker("service.projects", "flip/hub/projects"),
            await speaker("service.cohort", "flip/hub/cohort"),
            await speaker("service.scheduler", "flip/hub/scheduler"),
            {code: await speaker(f"trust.{code}", f"flip/{code}/imaging") for code in ("KCH", "UCLH")},
            people,
            ProjectId(uuid7()),
            UserId(uuid7()),
        )
        running.owner = await running.user()
        await running.projects.say(
            ProjectCreated(
                project_id=running.project_id,
                owner=running.owner,
                name="Nuclei",
                description="",
                members=frozenset(),
            )
        )
        yield running


@pytest.mark.requirement("IMG-1")
async def test_each_trust_is_asked_for_the_images_of_its_frozen_cohort(imaging: Hub) -> None:
    await imaging.freeze("KCH")
    await eventually(lambda: imaging.told(ImportStudies))
    topics = await imaging.db.fetch("SELECT topic FROM event_log WHERE key = $1", str(imaging.project_id))
    assert [row["topic"] for row in topics] == ["flip.trust.KCH.commands"]


@pytest.mark.requirement("IMG-2")
async def test_members_see_how_far_each_trust_has_come_and_others_see_nothing(imaging: Hub) -> None:
    for trust in ("KCH", "UCLH"):
        await imaging.freeze(trust)
    await eventually(lambda: imaging.told(ImportStudies))
    counts = StudyCounts(imported=12, failed="suppressed", queued="suppressed")
    await imaging.report("KCH", TrustImportProgressed(project_id=imaging.project_id, counts=counts))
    await imaging.report(
        "KCH", TrustImportFailed(project_id=imaging.project_id, reason="timed-out", studies="suppressed")
    )
    await imaging.report("KCH", TrustImagesReady(project_id=imaging.project_id, imported=14, failed=0))
    await imaging.report(
        "KCH", TrustRegisteredLabels(project_id=imaging.project_id, labelled=12, labels={"striatum": 1})
    )
    await eventually(lambda: imaging.told(LabelsRegistered))

    answer = (await imaging.status(imaging.owner)).json()
    kch, uclh = answer["trusts"]
    assert (kch["trust"], kch["state"], kch["labelled"], kch["labels"]) == ("KCH", "ready", 12, {"striatum": 1})
    assert kch["counts"] == counts.model_dump()
    assert kch["failures"] == {"timed-out": "suppressed"}
    assert (uclh["trust"], uclh["state"], uclh["labelled"]) == ("UCLH", "asked", None)
    assert [trust["trust"] for trust in (await imaging.status(imaging.owner, trust="UCLH")).json()["trusts"]] == [
        "UCLH"
    ]
    assert (await imaging.status(await imaging.user())).status_code == 404
    assert (await imaging.http.get(f"/api/imaging/projects/{imaging.project_id}")).status_code == 401
    [ready] = await imaging.told(ImagingReady)
    assert isinstance(ready, ImagingReady)
    assert ready.trust == "KCH"


@pytest.mark.requirement("IMG-2")
async def test_a_trust_that_was_not_asked_changes_nothing(imaging: Hub) -> None:
    await imaging.freeze("KCH")
    await eventually(lambda: imaging.told(ImportStudies))
    intruder = TrustImportProgressed(project_id=imaging.project_id, counts=StudyCounts(imported=99))
    await imaging.report("UCLH", intruder)
    # UCLH's own project comes after it in the same topic: once that is heard, so was the intruder.
    heard, imaging.project_id = imaging.project_id, ProjectId(uuid7())
    await imaging.freeze("UCLH")
    await eventually(lambda: imaging.told(ImportStudies))
    await imaging.report("UCLH", TrustImportProgressed(project_id=imaging.project_id, counts=StudyCounts(imported=11)))
    await eventually(lambda: imaging.told(ImagingProgressed))
    imaging.project_id = heard
    assert await imaging.told(ImagingProgressed) == []
    assert await imaging.db.fetchval("SELECT count(*) FROM parked WHERE key = $1", str(heard)) == 0


@pytest.mark.requirement("IMG-9")
async def test_a_deleted_projects_trusts_are_asked_to_delete_its_images(imaging: Hub) -> None:
    await imaging.freeze("KCH")
    await eventually(lambda: imaging.told(ImportStudies))
    await imaging.projects.say(ProjectDeleted(project_id=imaging.project_id))
    await eventually(lambda: imaging.told(DeleteImages))


def assigned(project_id: ProjectId, net: str, *trusts: str) -> RunAssigned:
    """A run of the project that a net was given over these Trusts."""
    return RunAssigned(
        run_id=RunId(uuid7()),
        project_id=project_id,
        model_id=ModelId(uuid7()),
        net=net,
        attempt=1,
        fencing=1,
        framework="nvflare",
        job="nnunet",
        trusts=frozenset(trusts),
        payload={},
    )


@pytest.mark.requirement("IMG-9")
@pytest.mark.parametrize("last", ["imaging", "net2"])
async def test_images_are_deleted_once_every_net_that_had_them_has_forgotten_the_project(
    imaging: Hub, last: str
) -> None:
    await imaging.freeze("KCH")
    await eventually(lambda: imaging.told(ImportStudies))
    for net, trusts in (("net1", ("KCH",)), ("net2", ("KCH", "UCLH")), ("net3", ("UCLH",))):
        await imaging.scheduler.say(assigned(imaging.project_id, net, *trusts))
    known = "SELECT count(*) = 4 FROM net_at_trust WHERE project_id = $1"
    await eventually(lambda: imaging.db.fetchval(known, imaging.project_id))
    await imaging.projects.say(ProjectDeleted(project_id=imaging.project_id))
    await eventually(lambda: imaging.told(DeleteImages))
    reports: dict[str, Message] = {
        "imaging": TrustDeletedImages(project_id=imaging.project_id),
        "net1": TrustForgotProject(project_id=imaging.project_id, net="net1"),
        "net2": TrustForgotProject(project_id=imaging.project_id, net="net2"),
    }
    latest = reports.pop(last)
    for report in reports.values():
        await imaging.report("KCH", report)
    # A Trust's reports on a project come in their order: once this is heard, so are those before it.
    await imaging.report("KCH", TrustImagesReady(project_id=imaging.project_id, imported=14, failed=0))
    await eventually(lambda: imaging.told(ImagingReady))
    assert await imaging.told(ImagesDeleted) == []
    await imaging.report("KCH", latest)
    assert await eventually(lambda: imaging.told(ImagesDeleted)) == [
        ImagesDeleted(project_id=imaging.project_id, trust="KCH")
    ]


@pytest.mark.requirement("NNU-12")
async def test_members_see_which_trusts_cases_come_from_a_ready_data_set(imaging: Hub) -> None:
    for trust in ("KCH", "UCLH"):
        await imaging.freeze(trust)
    await eventually(lambda: imaging.told(ImportStudies))
    labels = {"core": 1}
    report = TrustRegisteredDataset(
        project_id=imaging.project_id,
        cases="suppressed",
        channels=["T1", "FLAIR"],
        labels=labels,
        dataset_sha256="a" * 64,
    )
    await imaging.report("KCH", report)
    await imaging.report("KCH", TrustImagesReady(project_id=imaging.project_id, imported="suppressed", failed=0))
    await imaging.report(
        "KCH", TrustRegisteredLabels(project_id=imaging.project_id, labelled="suppressed", labels=labels)
    )
    await eventually(lambda: imaging.told(LabelsRegistered))
    [registered] = await imaging.told(DatasetRegistered)
    assert registered == DatasetRegistered(trust="KCH", **report.model_dump())
    kch, uclh = (await imaging.status(imaging.owner)).json()["trusts"]
    assert (kch["state"], kch["labelled"], kch["labels"]) == ("ready", "suppressed", labels)
    assert kch["dataset"] == {"cases": "suppressed", "channels": ["T1", "FLAIR"], "dataset_sha256": "a" * 64}
    assert uclh["dataset"] is None

    await imaging.report("KCH", TrustWithdrewDataset(project_id=imaging.project_id))
    await eventually(lambda: imaging.told(DatasetWithdrawn))
    kch, _ = (await imaging.status(imaging.owner)).json()["trusts"]
    assert (kch["state"], kch["labelled"], kch["labels"], kch["dataset"]) == ("importing", None, {}, None)
