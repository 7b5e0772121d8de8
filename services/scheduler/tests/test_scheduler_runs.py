import asyncio
import csv
import io
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from statistics import median
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from fastapi import FastAPI
from flip_chassis.database import connect
from flip_chassis.ids import uuid7
from flip_chassis.testing import People, Speaker, client, eventually, invited, said, settings_for, speaking
from flip_contracts.base import ModelId, ProjectId, TrustCode, UserId
from flip_contracts.cohort import CohortFrozen
from flip_contracts.files import (
    AppConfiguration,
    AttemptRounds,
    ConfigurationProblem,
    ModelFileAccepted,
    ModelFileRefused,
    ModelFileRemoved,
    ModelFileUploaded,
    ResultsPublished,
    RoundsDeleted,
)
from flip_contracts.imaging import DatasetWithdrawn, ImagingReady, LabelsRegistered
from flip_contracts.projects import (
    ApprovalWithdrawn,
    EnrichmentConfirmed,
    Framework,
    Job,
    ModelCreated,
    ProjectApproved,
    ProjectCreated,
    ProjectStaged,
)
from flip_contracts.scheduler import (
    Checkpoint,
    EarlierResults,
    NetLost,
    NetRetired,
    Resources,
    RunAssigned,
    RunFailed,
    RunRequeued,
    RunStopping,
)
from flip_contracts.trainer_node import (
    AttemptEnded,
    ContributionExcluded,
    EndUnconfirmed,
    MetricReported,
    NetFree,
    NetHeartbeat,
    ResultIgnored,
    ResultsCollected,
    RoundComplete,
    RunPrepared,
    StageReached,
    TrainingStarted,
    TrustLeftOut,
)
from flip_local.testing import Database, Kafka
from flip_scheduler.main import service
from flip_scheduler.settings import SchedulerSettings

pytestmark = pytest.mark.parts

PAYLOAD = {"mode": "training", "num_rounds": 2, "dataset_id": 7, "model_configuration": "2d", "device": "cpu"}
PREDICTION = {"mode": "inference", "device": "cpu", "dataset_subdirs": {"7": "imagesTr"}}
DIGEST, QUERY_DIGEST = "c" * 64, "d" * 64


@dataclass
class World:
    """The scheduler under test, and all who speak to it. Trusts and nets have names of their own: topics are shared."""

    app: FastAPI
    http: httpx.AsyncClient
    database: Database
    people: People
    auth: Speaker
    projects: Speaker
    imaging: Speaker
    node: Speaker
    files: Speaker
    cohort: Speaker
    mark: str = field(default_factory=lambda: f"{random.randrange(16**6):06X}")

    @property
    def trusts(self) -> list[TrustCode]:
        return [f"K{self.mark}", f"U{self.mark}"]

    def net(self, number: int) -> str:
        return f"n{number}{self.mark.lower()}"

    async def user(self, role: Any = "researcher") -> tuple[UserId, dict[str, str]]:
        events = invited(role, f"{uuid7()}@flip.example")
        for event in events:
            await self.auth.say(event)
        user_id = events[0].user_id
        return user_id, {"Authorization": f"Bearer {self.people.token(user_id)}"}

    async def model(self, owner: UserId, framework: Framework = "nvflare", job: Job = "nnunet") -> ModelCreated:
        """A model of an approved project that is not ready yet."""
        project_id, trusts = ProjectId(uuid7()), self.trusts
        created = ProjectCreated(project_id=project_id, owner=owner, name="n", description="", members=frozenset())
        await self.projects.say(created)
        await self.projects.say(ProjectStaged(project_id=project_id, trusts=frozenset(trusts), query_version=1))
        for trust in trusts:
            await self.projects.say(ProjectApproved(project_id=project_id, trust=trust, reason=""))
        model = ModelCreated(
            model_id=ModelId(uuid7()),
            project_id=project_id,
            name="m",
            description="",
            framework=framework,
            job=job,
        )
        await self.projects.say(model)
        return model

    async def make_ready(self, project_id: ProjectId) -> None:
        for trust in self.trusts:
            await self.imaging.say(ImagingReady(project_id=project_id, trust=trust, imported=12, failed=0))
            labels = LabelsRegistered(project_id=project_id, trust=trust, labelled=12, labels={"striatum": 1})
            await self.imaging.say(labels)
        await self.projects.say(EnrichmentConfirmed(project_id=project_id))

    async def initiate(self, model: ModelCreated, headers: dict[str, str], **asked: Any) -> dict[str, Any]:
        """Queue a run as soon as the scheduler has heard all that it needs."""

        async def queued() -> dict[str, Any] | None:
            request = self.request(model) | asked
            answer = await self.http.post("/api/scheduler/runs", headers=headers, json=request)
            return answer.json() if answer.status_code == 202 else None

        return await eventually(queued)

    def request(self, model: ModelCreated, **changes: Any) -> dict[str, Any]:
        return {"model_id": str(model.model_id), "payload": PAYLOAD | changes}

    async def ready_model(self, framework: Framework = "nvflare") -> tuple[ModelCreated, dict[str, str]]:
        owner, headers = await self.user()
        model = await self.model(owner, framework)
        await self.make_ready(model.project_id)
        return model, headers

    async def upload(self, model: ModelCreated, path: str, configuration: AppConfiguration | None = None) -> None:
        """`files` takes a file of the model and accepts it."""
        facts = {"model_id": model.model_id, "project_id": model.project_id, "path": path, "digest": DIGEST}
        await self.files.say(ModelFileUploaded(**facts, size_bytes=9, object="uploads/1"))
        accepted = ModelFileAccepted(**facts, size_bytes=9, engine="e", signatures="s", configuration=configuration)
        await self.files.say(accepted)

    async def freeze(self, model: ModelCreated) -> None:
        for trust in self.trusts:
            frozen = CohortFrozen(
                project_id=model.project_id,
                trust=trust,
                query_version=1,
                query_digest=QUERY_DIGEST,
                persons=12,
                studies=12,
            )
            await self.cohort.say(frozen)

    async def missing(self, model: ModelCreated, headers: dict[str, str], **facts: Any) -> list[dict[str, Any]]:
        """What a run of the model lacks, once its project is ready and something with these facts is among it."""

        not_ready = {"images-not-ready", "labels-missing", "enrichment-not-confirmed"}

        async def refused() -> list[dict[str, Any]] | None:
            request = {"model_id": str(model.model_id), "payload": {"mode": "app"}}
            answer = await self.http.post("/api/scheduler/runs", headers=headers, json=request)
            if answer.status_code != 409:
                return None
            missing = answer.json()["missing"]
            if not_ready & {each["code"] for each in missing}:
                return None
            return missing if any(facts.items() <= each.items() for each in missing) else None

        return await eventually(refused)

    async def free(self, number: int, fencing: int = 0, **facts: Any) -> None:
        usual = {"framework": "nvflare", "trusts": frozenset(self.trusts)}
        await self.node.say(NetFree(net=self.net(number), fencing=fencing, **usual | facts))

    async def finish(self, number: int, run: RunAssigned) -> None:
        """The net ends its run with results, and is free again."""
        results = {"name": "r.zip", "digest": DIGEST, "size_bytes": 9}
        common = {"run_id": run.run_id, "project_id": run.project_id}
        collected = ResultsCollected(**of(run), fencing=run.fencing, object="runs/r.zip", **results)
        await self.node.say(collected)
        await self.files.say(ResultsPublished(**common, **results, engine="e", signatures="s"))
        await self.free(number, run.fencing)

    async def net_is(self, number: int, headers: dict[str, str], **facts: Any) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            nets = (await self.http.get("/api/scheduler/nets", headers=headers)).json()
            for net in nets:
                if net["net"] == self.net(number) and {name: net[name] for name in facts} == facts:
                    return net
            return None

        return await eventually(look)

    async def run_is(self, run: dict[str, Any], headers: dict[str, str], **facts: Any) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            found = (await self.http.get(f"/api/scheduler/runs/{run['run_id']}", headers=headers)).json()
            return found if {name: found.get(name) for name in facts} == facts else None

        return await eventually(look)

    async def said(self, type_: type[Any], run: dict[str, Any]) -> list[Any]:
        async with connect(self.database.app) as db:
            return [message for message in await said(db, type_) if str(message.run_id) == run["run_id"]]

    async def assigned(self, run: dict[str, Any], attempt: int = 1) -> RunAssigned:
        async def look() -> list[RunAssigned]:
            return [event for event in await self.said(RunAssigned, run) if event.attempt == attempt]

        return (await eventually(look))[0]


def of(run: RunAssigned) -> dict[str, Any]:
    return {"run_id": run.run_id, "project_id": run.project_id, "attempt": run.attempt}


def round_done(run: RunAssigned, number: int) -> RoundComplete:
    checkpoint = Checkpoint(round=number, object=f"runs/{run.run_id}/rounds/{number}.npz", digest=DIGEST)
    return RoundComplete(**of(run), fencing=run.fencing, rounds=2, checkpoint=checkpoint, trusts=run.trusts)


def interrupted(run: RunAssigned) -> AttemptEnded:
    return AttemptEnded(**of(run), fencing=run.fencing, outcome="interrupted", reason="site-gone")


@asynccontextmanager
async def world_of(postgres: Database, kafka: Kafka, **settings: Any) -> AsyncGenerator[World]:
    people = People()
    with people.published() as jwks_url:
        group = kafka.group("service.scheduler")
        principal = kafka.as_principal("service.scheduler")
        given = settings_for(SchedulerSettings, postgres, principal, group, jwks_url, **settings)
        async with (
            service(given) as app,
            client(nullcontext(app)) as http,
            speaking(kafka.as_principal("service.auth"), "flip/hub/auth") as auth,
            speaking(kafka.as_principal("service.projects"), "flip/hub/projects") as projects,
            speaking(kafka.as_principal("service.imaging"), "flip/hub/imaging") as imaging,
            speaking(kafka.as_principal("service.trainer-node"), "flip/hub/trainer-node/net1") as node,
            speaking(kafka.as_principal("service.files"), "flip/hub/files") as files,
            speaking(kafka.as_principal("service.cohort"), "flip/hub/cohort") as cohort,
        ):
            yield World(app, http, postgres, people, auth, projects, imaging, node, files, cohort)


@pytest.fixture
async def world(postgres: Database, kafka: Kafka) -> AsyncIterator[World]:
    async with world_of(postgres, kafka) as it:
        yield it


@pytest.mark.requirement("RUN-1")
async def test_training_before_its_time_is_refused_with_all_that_is_missing_and_changes_nothing(world: World) -> None:
    owner, headers = await world.user()
    model = await world.model(owner)

    async def refused() -> httpx.Response | None:
        request = world.request(model, num_rounds="many", rounds=3)
        answer = await world.http.post("/api/scheduler/runs", headers=headers, json=request)
        heard_of_both = answer.status_code == 409 and answer.json()["missing"][0].get("trusts") == world.trusts
        return answer if heard_of_both else None

    problem = (await eventually(refused)).json()
    assert problem["code"] == "run-not-ready"
    assert [each["code"] for each in problem["missing"]] == [
        "images-not-ready",
        "labels-missing",
        "enrichment-not-confirmed",
        "payload-not-valid",
        "payload-not-valid",
    ]
    assert [each.get("field") for each in problem["missing"][3:]] == ["payload.num_rounds", "payload.rounds"]
    runs = await world.http.get("/api/scheduler/runs", headers=headers, params={"project_id": str(model.project_id)})
    assert runs.json() == []


@pytest.mark.requirement("RUN-9")
@pytest.mark.requirement("NNU-9")
async def test_a_stopped_run_is_gone_on_from_by_another_with_any_round_whose_weights_are_kept(world: World) -> None:
    model, headers = await world.ready_model()
    first = await world.initiate(model, headers)
    await world.free(1)
    run = await world.assigned(first)
    for number in (0, 1):
        await world.node.say(round_done(run, number))
    await world.run_is(first, headers, rounds_done=2)

    async def asked(**changes: Any) -> httpx.Response:
        body = {"model_id": str(model.model_id), "payload": PAYLOAD | changes, "continues": first["run_id"]}
        return await world.http.post("/api/scheduler/runs", headers=headers, json=body)

    async def why_not(**changes: Any) -> tuple[str, str]:
        [missing] = (await asked(**changes)).json()["missing"]
        return missing["field"], missing["detail"]

    assert await why_not(starting_fed_round=1) == ("continues", "It has not ended yet: stop it first.")
    await world.http.post(f"/api/scheduler/runs/{first['run_id']}/stop", headers=headers)
    await world.node.say(AttemptEnded(**of(run), fencing=run.fencing, outcome="stopped", reason="stopped"))
    await world.run_is(first, headers, state="stopped")
    ids = {"run_id": run.run_id, "project_id": run.project_id}
    await world.files.say(RoundsDeleted(**ids, deleted=[AttemptRounds(attempt=1, rounds=[0])], kept=[1]))

    async def heard_of_it() -> bool:
        seen = (await world.http.get(f"/api/scheduler/runs/{first['run_id']}", headers=headers)).json()
        return seen["timeline"][-1]["kind"] == "rounds-deleted"

    await eventually(heard_of_it)
    refused = ("payload.starting_fed_round", "The weights that are kept let it be 2.")
    assert await why_not(starting_fed_round=1, num_rounds=4) == refused
    again = (await asked(starting_fed_round=2, num_rounds=4)).json()
    assert (again["state"], again["continues"], again["rounds_done"]) == ("queued", first["run_id"], 2)
    [queued] = again["timeline"]
    assert queued["facts"] == {"continues": first["run_id"], "first_round": 2}
    await world.free(1, run.fencing)
    second = await world.assigned(again)
    assert second.continues is not None
    assert second.checkpoint == second.continues.checkpoint == round_done(run, 1).checkpoint


@pytest.mark.requirement("RUN-4")
@pytest.mark.requirement("RUN-9")
async def test_a_run_that_continues_another_asks_all_trusts_again_until_a_round_of_its_own_is_complete(
    world: World,
) -> None:
    model, headers = await world.ready_model()
    first = await world.initiate(model, headers)
    await world.free(1)
    run = await world.assigned(first)
    await world.node.say(round_done(run, 0))
    await world.finish(1, run)
    await world.run_is(first, headers, state="finished")
    payload = PAYLOAD | {"starting_fed_round": 1}
    again = await world.initiate(model, headers, payload=payload, continues=first["run_id"], minimum_trusts=1)
    attempt = await world.assigned(again)
    await world.node.say(TrustLeftOut(**of(attempt), trust=world.trusts[1], reason="no-word"))
    await world.node.say(interrupted(attempt))
    await world.free(1, attempt.fencing)
    attempt = await world.assigned(again, attempt=2)
    assert attempt.trusts == set(world.trusts), "its plan is not made yet"
    await world.node.say(TrustLeftOut(**of(attempt), trust=world.trusts[1], reason="no-word"))
    await world.node.say(round_done(attempt, 1))
    await world.node.say(interrupted(attempt))
    await world.free(1, attempt.fencing)
    assert (await world.assigned(again, attempt=3)).trusts == set(world.trusts[:1])


@pytest.mark.requirement("RUN-9")
async def test_a_run_whose_attempts_bring_no_round_rests_and_a_free_nets_sign_of_life_gives_it_the_next(
    postgres: Database, kafka: Kafka
) -> None:
    async with world_of(postgres, kafka, pause=timedelta(seconds=3)) as world:
        model, headers = await world.ready_model()
        run = await world.initiate(model, headers)
        await world.free(1)
        for number in (1, 2):
            attempt = await world.assigned(run, number)
            await world.node.say(interrupted(attempt))
            await world.free(1, attempt.fencing)
        resting = await world.run_is(run, headers, state="queued", attempt=2)
        assert [lack["code"] for lack in resting["waits_for"]] == ["resting"]
        requeued = [news["facts"] for news in resting["timeline"] if news["kind"] == "requeued"]
        assert ["rests_until" in facts for facts in requeued] == [False, True]

        async def third_after_a_sign_of_life() -> list[RunAssigned]:
            beat = NetHeartbeat(net=world.net(1), state="free", trusts=frozenset(world.trusts), fencing=attempt.fencing)
            await world.node.say(beat)
            return [event for event in await world.said(RunAssigned, run) if event.attempt == 3]

        await eventually(third_after_a_sign_of_life)


@pytest.mark.requirement("NNU-12")
async def test_training_waits_for_images_again_once_a_ready_data_set_is_given_up(world: World) -> None:
    model, headers = await world.ready_model()
    await world.imaging.say(DatasetWithdrawn(project_id=model.project_id, trust=world.trusts[0]))

    async def waits() -> bool:
        answer = await world.http.post("/api/scheduler/runs", headers=headers, json=world.request(model))
        missing = answer.json().get("missing", [])
        return [(each["code"], each.get("trusts")) for each in missing] == [("images-not-ready", world.trusts[:1])]

    await eventually(waits)


@pytest.mark.requirement("RUN-2")
@pytest.mark.requirement("RUN-5")
async def test_a_run_goes_from_the_queue_through_a_net_to_its_results(world: World) -> None:
    model, headers = await world.ready_model()
    first, second = await world.initiate(model, headers), await world.initiate(model, headers)
    assert (first["state"], first["queue_position"]) == ("queued", 1)
    assert (second["state"], second["queue_position"]) == ("queued", 2)

    await world.free(1)
    run = await world.assigned(first)
    assert (run.net, run.trusts, run.checkpoint) == (world.net(1), frozenset(world.trusts), None)
    assert (await world.run_is(second, headers, queue_position=1))["state"] == "queued"

    for trust in world.trusts:
        await world.node.say(RunPrepared(**of(run), trust=trust, cases=12, dataset_digest=DIGEST))
    await world.node.say(StageReached(**of(run), stage="fingerprint"))
    await world.run_is(first, headers, state="preparing", stage="fingerprint")
    await world.node.say(StageReached(**of(run), stage="training"))
    await world.node.say(TrainingStarted(**of(run), first_round=0, rounds=2))
    for number in (0, 1):
        for trust in world.trusts:
            loss = MetricReported(**of(run), trust=trust, round=number, name="train_loss", value=0.5 - number)
            await world.node.say(loss)
        await world.node.say(round_done(run, number))
    left_out = ContributionExcluded(**of(run), trust=world.trusts[0], round=1, reason="not-finite")
    await world.node.say(left_out)
    await world.run_is(first, headers, state="training", rounds=2, rounds_done=2)

    results = {"object": "runs/r.zip", "name": "r.zip", "digest": DIGEST, "size_bytes": 9}
    await world.node.say(StageReached(**of(run), stage="collecting"))
    await world.node.say(ResultsCollected(**of(run), fencing=run.fencing, **results))
    await world.free(1, run.fencing)
    assert (await world.assigned(second)).fencing > run.fencing
    published = ResultsPublished(
        run_id=run.run_id,
        project_id=run.project_id,
        name="r.zip",
        digest=DIGEST,
        size_bytes=9,
        engine="e",
        signatures="s",
    )
    await world.files.say(published)
    shown = await world.run_is(first, headers, state="finished", results=DIGEST)
    assert [news["kind"] for news in shown["timeline"]] == [
        *("queued", "assigned", "prepared", "prepared", "stage", "stage", "training", "round", "round"),
        *("contribution-excluded", "stage", "collected", "finished"),
    ]
    [excluded] = [news["facts"] for news in shown["timeline"] if news["kind"] == "contribution-excluded"]
    assert excluded == {"trust": world.trusts[0], "round": 1, "reason": "not-finite"}
    times = [news["at"] for news in shown["timeline"]]
    assert times == sorted(times)
    metrics = (await world.http.get(f"/api/scheduler/runs/{first['run_id']}/metrics", headers=headers)).json()
    assert [(each["trust"], each["round"], each["value"]) for each in metrics] == [
        (trust, number, 0.5 - number) for trust in world.trusts for number in (0, 1)
    ]
    stop = await world.http.post(f"/api/scheduler/runs/{first['run_id']}/stop", headers=headers)
    assert (stop.status_code, stop.json()["code"]) == (409, "run-can-not-be-stopped")

    named = {"payload": PREDICTION | {"checkpoint_path": f"run:{second['run_id']}"}}
    refused = await world.http.post("/api/scheduler/runs", headers=headers, json=world.request(model) | named)
    assert [each["field"] for each in refused.json()["missing"]] == ["payload.checkpoint_path"], "it has no results"
    named = {"payload": PREDICTION | {"checkpoint_path": f"run:{first['run_id']}"}}
    prediction = await world.initiate(model, headers, **named)
    await world.free(2)
    given = await world.assigned(prediction)
    assert given.earlier == EarlierResults(run_id=run.run_id, digest=DIGEST)
    await world.node.say(StageReached(**of(given), stage="predicting"))
    await world.run_is(prediction, headers, state="predicting")
    other, headers = await world.ready_model()
    await world.initiate(other, headers)
    refused = await world.http.post("/api/scheduler/runs", headers=headers, json=world.request(other) | named)
    assert [each["field"] for each in refused.json()["missing"]] == ["payload.checkpoint_path"], "of another project"


@pytest.mark.requirement("RUN-2")
async def test_a_run_is_given_at_once_to_a_net_that_is_free_already(world: World) -> None:
    await world.free(1)
    _, anybody = await world.user("viewer")

    async def net_is_known() -> list[str]:
        nets = (await world.http.get("/api/scheduler/nets", headers=anybody)).json()
        return [net["state"] for net in nets if net["net"] == world.net(1)]

    assert await eventually(net_is_known) == ["free"]
    model, headers = await world.ready_model()
    run = await world.initiate(model, headers)
    assert (run["state"], run["net"]) == ("assigned", world.net(1))
    assert [news["kind"] for news in run["timeline"]] == ["queued", "assigned"]


async def test_only_those_who_may_see_the_project_see_its_runs_and_a_viewer_changes_nothing(world: World) -> None:
    model, headers = await world.ready_model()
    run = await world.initiate(model, headers)
    _, stranger = await world.user()
    path = f"/api/scheduler/runs/{run['run_id']}"
    for at in (path, f"{path}/metrics", f"{path}/metrics.csv", f"{path}/live"):
        assert (await world.http.get(at, headers=stranger)).status_code == 404
    assert (await world.http.post(f"{path}/stop", headers=stranger)).status_code == 404
    attempt = await world.http.post("/api/scheduler/runs", headers=stranger, json=world.request(model))
    assert (attempt.status_code, attempt.json()["code"]) == (404, "project-not-found")
    assert (await world.http.get(path)).status_code == 401
    admin = (await world.user("admin"))[1]
    assert (await world.http.get(path, headers=admin)).status_code == 200


@pytest.mark.requirement("RUN-3")
async def test_a_silent_net_loses_its_run_which_goes_on_elsewhere_and_its_old_reports_are_ignored(
    postgres: Database, kafka: Kafka
) -> None:
    async with world_of(postgres, kafka, lease=timedelta(seconds=2)) as world:
        model, headers = await world.ready_model()
        run = await world.initiate(model, headers)
        await world.free(1)
        first = await world.assigned(run)
        await world.node.say(round_done(first, 0))
        assert [lost.net for lost in await eventually(lambda: world.said(NetLost, run))] == [world.net(1)]
        assert [event.reason for event in await world.said(RunRequeued, run)] == ["net-lost"]

        await world.free(2)
        second = await world.assigned(run, attempt=2)
        assert second.fencing > first.fencing
        assert second.checkpoint == round_done(first, 0).checkpoint
        await world.node.say(round_done(first, 1))
        stale = AttemptEnded(**of(first), fencing=first.fencing, outcome="failed", reason="plans-differ")
        await world.node.say(stale)
        await world.node.say(StageReached(**of(second), stage="planning"))
        shown = await world.run_is(run, headers, stage="planning")
        assert (shown["rounds_done"], shown["attempt"]) == (1, 2)
        assert await world.said(RunFailed, run) == []


@pytest.mark.requirement("RUN-3")
async def test_a_net_that_has_not_heard_of_its_run_yet_is_not_given_another(world: World) -> None:
    model, headers = await world.ready_model()
    first, second = await world.initiate(model, headers), await world.initiate(model, headers)
    await world.free(1)
    held = await world.assigned(first)
    await world.free(1, held.fencing - 1)  # said before the assignment was heard
    heartbeat = NetHeartbeat(net=world.net(1), state="free", trusts=frozenset(world.trusts))
    await world.node.say(heartbeat)
    await world.free(2)
    assert (await world.assigned(second)).net == world.net(2)
    assert len(await world.said(RunAssigned, first)) == 1


@pytest.mark.requirement("RUN-6")
async def test_a_stopped_run_ends_when_its_net_has_ended_it(world: World) -> None:
    model, headers = await world.ready_model()
    run, waiting = await world.initiate(model, headers), await world.initiate(model, headers)
    await world.free(1)
    held = await world.assigned(run)
    await world.node.say(StageReached(**of(held), stage="training"))
    await world.run_is(run, headers, stage="training")
    stop = await world.http.post(f"/api/scheduler/runs/{run['run_id']}/stop", headers=headers)
    assert (stop.status_code, stop.json()["state"]) == (202, "stopping")
    assert [(event.net, event.attempt) for event in await world.said(RunStopping, run)] == [(world.net(1), 1)]
    await world.node.say(AttemptEnded(**of(held), fencing=held.fencing, outcome="stopped", reason="stopped"))
    assert (await world.run_is(run, headers, state="stopped"))["stage"] == "training"
    dropped = await world.http.post(f"/api/scheduler/runs/{waiting['run_id']}/stop", headers=headers)
    assert dropped.json()["state"] == "stopped"


async def test_a_trust_that_withdraws_stops_the_projects_runs(world: World) -> None:
    model, headers = await world.ready_model()
    run = await world.initiate(model, headers)
    withdrawn = ApprovalWithdrawn(project_id=model.project_id, trust=world.trusts[0], reason="")
    await world.projects.say(withdrawn)
    await world.run_is(run, headers, state="stopped")


@pytest.mark.requirement("RUN-5")
async def test_members_follow_a_run_live_and_can_go_on_where_they_were(world: World) -> None:
    model, headers = await world.ready_model()
    run = await world.initiate(model, headers)
    async with served(world.app) as url, httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        path = f"/api/scheduler/runs/{run['run_id']}"
        async with http.stream("GET", f"{path}/live") as live:
            events = sent_events(live)
            assert (await anext(events))["event"] == "queued"
            await world.free(1)
            assigned = await anext(events)
            assert (assigned["event"], assigned["data"]["net"]) == ("assigned", world.net(1))
            held = await world.assigned(run)
            await world.node.say(
                MetricReported(**of(held), trust=world.trusts[0], round=0, name="train_loss", value=0.25)
            )
            metric = await anext(events)
            assert (metric["event"], metric["data"]["value"]) == ("metric", 0.25)
        wrong = {"outcome": "failed", "reason": "plans-differ", "detail": "The Trusts differ at /patch_size."}
        differences = [{"path": "/patch_size", "values": {"KCH": "[64, 64]", "UCLH": "[32, 32]"}}]
        await world.node.say(
            AttemptEnded.model_validate({**of(held), "fencing": held.fencing, **wrong, "differences": differences})
        )
        async with http.stream("GET", f"{path}/live", headers={"Last-Event-ID": metric["id"]}) as live:
            ended, failed = [event async for event in sent_events(live)]
        assert (ended["event"], ended["data"]) == (
            "attempt-ended",
            ended["data"] | wrong | {"differences": differences},
        )
        assert (failed["event"], failed["data"]["detail"]) == ("failed", wrong["detail"])


# --- fair share, k of n, GPUs, draining ---------------------------------------------------------------------------


@pytest.mark.requirement("RUN-4")
async def test_an_admins_priority_moves_a_run_ahead_and_nobody_elses_does(world: World) -> None:
    model, headers = await world.ready_model()
    first, urgent = await world.initiate(model, headers), await world.initiate(model, headers)
    path, asked = f"/api/scheduler/runs/{urgent['run_id']}/priority", {"priority": 9, "reason": "a ward waits"}
    refusal = await world.http.put(path, headers=headers, json=asked)
    assert (refusal.status_code, refusal.json()["code"]) == (403, "role-not-allowed")
    _, admin = await world.user("admin")
    for wrong in ({"priority": 10}, {"priority": -1}, {"reason": ""}):
        assert (await world.http.put(path, headers=admin, json=asked | wrong)).status_code == 422
    moved = (await world.http.put(path, headers=admin, json=asked)).json()
    assert (moved["priority"], moved["queue_position"]) == (9, 1)
    assert moved["timeline"][-1]["kind"] == "prioritised"
    assert moved["timeline"][-1]["facts"] == {"priority": 9, "reason": "a ward waits"}
    assert (await world.run_is(first, headers, queue_position=2))["priority"] == 4

    queue = (await world.http.get("/api/scheduler/queue", headers=admin)).json()
    ours = [each for each in queue if each["project_id"] == str(model.project_id)]
    assert [(each["run_id"], each["priority"], each["weight"]) for each in ours] == [
        (urgent["run_id"], 9, 1),
        (first["run_id"], 4, 1),
    ]
    assert (await world.http.get("/api/scheduler/queue", headers=headers)).status_code == 403
    await world.free(1)
    await world.run_is(urgent, headers, state="assigned")
    await world.run_is(first, headers, state="queued", queue_position=1)


@pytest.mark.requirement("RUN-4")
async def test_a_project_of_weight_2_is_given_two_nets_where_another_is_given_one(world: World) -> None:
    light, light_owner = await world.ready_model()
    heavy, heavy_owner = await world.ready_model()
    path = f"/api/scheduler/projects/{heavy.project_id}/weight"
    asked = {"weight": 2, "reason": "twice the patients"}

    async def not_the_owners_to_decide() -> bool:
        return (await world.http.put(path, headers=heavy_owner, json=asked)).status_code == 403

    await eventually(not_the_owners_to_decide)
    assert (await world.http.put(path, headers=light_owner, json=asked)).status_code == 404
    _, admin = await world.user("admin")

    async def weighed() -> bool:
        return (await world.http.put(path, headers=admin, json=asked)).status_code == 200

    await eventually(weighed)
    assert (await world.http.get(path, headers=heavy_owner)).json()["weight"] == 2
    runs = [await world.initiate(model, headers) for model, headers in [(light, light_owner), (heavy, heavy_owner)] * 3]
    queue = (await world.http.get("/api/scheduler/queue", headers=admin)).json()
    order = [each["project_id"] for each in queue if each["run_id"] in {run["run_id"] for run in runs}]
    one, two = str(light.project_id), str(heavy.project_id)
    assert order == [one, two, two, one, two, one]


@pytest.mark.requirement("RUN-4")
async def test_a_trust_that_is_left_out_is_named_with_why_and_the_run_resumes_without_it(world: World) -> None:
    model, headers = await world.ready_model()
    run = await world.initiate(model, headers, minimum_trusts=1)
    one, other = world.trusts
    await world.free(1)
    first = await world.assigned(run)
    await world.node.say(TrustLeftOut(**of(first), trust=other, reason="disk-full"))
    shown = await world.run_is(run, headers, taking_part=[one])
    assert [news["facts"] for news in shown["timeline"] if news["kind"] == "left-out"] == [
        {"trust": other, "reason": "disk-full"}
    ]
    await world.node.say(round_done(first, 0))
    await world.node.say(AttemptEnded(**of(first), fencing=first.fencing, outcome="interrupted", reason="job-ended"))
    await world.free(1, first.fencing)
    second = await world.assigned(run, attempt=2)
    assert second.trusts == {one}
    await world.node.say(TrustLeftOut(**of(first), trust=one, reason="no-word"))  # of an attempt that is over
    await world.node.say(EndUnconfirmed(**of(first), trusts=frozenset({other, one})))

    async def is_told() -> dict[str, Any] | None:
        shown = await world.run_is(run, headers, taking_part=[one])
        return next((news["facts"] for news in shown["timeline"] if news["kind"] == "end-unconfirmed"), None)

    assert await eventually(is_told) == {"trusts": [one, other], "of_attempt": 1}


@pytest.mark.requirement("RUN-4")
async def test_a_run_that_needs_one_of_two_trusts_starts_with_the_one_and_resumes_with_it_only(world: World) -> None:
    model, headers = await world.ready_model()
    run = await world.initiate(model, headers, minimum_trusts=1)
    all_ = await world.initiate(model, headers)
    one, other = world.trusts
    await world.free(1, trusts=frozenset({one}))
    await world.free(2, trusts=frozenset({one}))
    first = await world.assigned(run)
    assert (first.trusts, first.minimum_trusts) == ({one}, 1)
    assert (await world.run_is(run, headers, state="assigned"))["taking_part"] == [one]
    lacks = (await world.run_is(all_, headers, state="queued"))["waits_for"]
    assert [(lack["code"], lack["trusts"]) for lack in lacks] == [("trusts-not-connected", [other])]

    await world.node.say(round_done(first, 0))
    await world.node.say(AttemptEnded(**of(first), fencing=first.fencing, outcome="interrupted", reason="site-gone"))
    second = await world.assigned(run, attempt=2)
    assert (second.trusts, second.checkpoint) == ({one}, round_done(first, 0).checkpoint)
    heartbeat = NetHeartbeat(net=world.net(1), state="free", trusts=frozenset(world.trusts))
    await world.free(1, first.fencing, trusts=frozenset({one}))
    await world.node.say(heartbeat)  # the other Trust is connected now
    assert (await world.assigned(all_)).trusts == frozenset(world.trusts)


@pytest.mark.requirement("RUN-4")
async def test_a_run_waits_for_a_net_with_the_gpus_that_it_asks_for(world: World) -> None:
    model, headers = await world.ready_model()
    one, other = world.trusts
    small, large = Resources(gpus=1, gpu_memory_mib=8000), Resources(gpus=1, gpu_memory_mib=24000)
    await world.free(1, resources={one: large, other: small})
    await world.net_is(1, headers, state="free")
    asked = {"gpus": 1, "gpu_memory_mib": 16000}
    run = await world.initiate(model, headers, payload=PAYLOAD | {"device": "cuda"}, resources=asked)
    assert run["state"] == "queued"
    assert [(lack["code"], lack["trusts"]) for lack in run["waits_for"]] == [("resources-missing", [other])]
    await world.free(2, resources={one: large, other: large})
    assert (await world.assigned(run)).net == world.net(2)
    wrong = await world.http.post(
        "/api/scheduler/runs", headers=headers, json=world.request(model) | {"resources": {"gpus": -1}}
    )
    assert wrong.status_code == 422


@pytest.mark.requirement("FILE-4")
async def test_a_trusts_weight_travels_from_the_request_to_the_net_and_is_shown(world: World) -> None:
    model, headers = await world.ready_model()
    one, _ = world.trusts
    await world.free(1)
    run = await world.initiate(model, headers, aggregation_weights={one: 0.5})
    assert run["aggregation_weights"] == {one: 0.5}
    assert (await world.assigned(run)).aggregation_weights == {one: 0.5}
    for weight in ("NaN", "-1", "Infinity"):
        body = orjson.dumps(world.request(model)).decode()[:-1] + f', "aggregation_weights": {{"{one}": {weight}}}}}'
        headed = {**headers, "content-type": "application/json"}
        wrong = await world.http.post("/api/scheduler/runs", headers=headed, content=body)
        assert [each["field"] for each in wrong.json()["missing"]] == [f"aggregation_weights.{one}"]


@pytest.mark.requirement("RUN-4")
async def test_a_net_that_drains_ends_its_run_and_is_given_no_other_until_it_is_back(world: World) -> None:
    model, headers = await world.ready_model()
    first, second = await world.initiate(model, headers), await world.initiate(model, headers)
    await world.free(1)
    held = await world.assigned(first)
    path, drain = f"/api/scheduler/nets/{world.net(1)}/draining", {"draining": True, "reason": "new disks"}
    _, admin = await world.user("admin")
    assert (await world.http.put(path, headers=headers, json=drain)).status_code == 403
    unknown = await world.http.put("/api/scheduler/nets/nowhere/draining", headers=admin, json=drain)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "net-not-found")
    drained = (await world.http.put(path, headers=admin, json=drain)).json()
    assert (drained["state"], drained["draining"], drained["draining_because"]) == ("held", True, "new disks")
    assert drained["run_id"] == first["run_id"]

    await world.finish(1, held)
    await world.run_is(first, headers, state="finished")
    await world.net_is(1, headers, state="free", run_id=None, draining=True)
    shown = await world.run_is(second, headers, state="queued")
    assert [(lack["code"], lack["nets"]) for lack in shown["waits_for"]] == [("net-draining", [world.net(1)])]
    back = await world.http.put(path, headers=admin, json={"draining": False, "reason": "disks are in"})
    assert (back.json()["state"], back.json()["draining"]) == ("held", False)
    assert (await world.assigned(second)).net == world.net(1)


@pytest.mark.requirement("RUN-3")
async def test_a_net_whose_controller_lost_its_database_is_back_once_an_admin_has_retired_it(
    postgres: Database, kafka: Kafka
) -> None:
    async with world_of(postgres, kafka, lease=timedelta(seconds=3)) as world:
        model, headers = await world.ready_model()
        _, admin = await world.user("admin")
        run = await world.initiate(model, headers)
        path, because = f"/api/scheduler/nets/{world.net(1)}/retire", {"reason": "its disk is gone"}

        async def answer(to: dict[str, str]) -> tuple[int, str | None]:
            answered = await world.http.post(path, headers=to, json=because)
            return answered.status_code, answered.json()["code"] if answered.content else None

        assert (await answer(headers))[0] == 403
        assert await answer(admin) == (404, "net-not-found")
        await world.free(1)
        held = await world.assigned(run)
        assert await answer(admin) == (409, "net-has-a-run")
        await world.net_is(1, headers, state="lost")
        assert await answer(admin) == (204, None)
        assert await answer(admin) == (404, "net-not-found")
        await world.free(1)  # it has forgotten the assignment
        again = await world.assigned(run, attempt=2)
        assert (again.net, again.fencing > held.fencing) == (world.net(1), True)
        await world.node.say(round_done(held, 0))  # said by the controller before its database was lost
        await world.node.say(round_done(again, 0))
        await world.run_is(run, headers, rounds_done=1)
        async with connect(world.database.app) as db:
            [retired] = await said(db, NetRetired)
        assert (retired.net, retired.reason) == (world.net(1), "its disk is gone")
        shown = (await world.http.get(f"/api/scheduler/runs/{run['run_id']}", headers=headers)).json()
        assert [news["attempt"] for news in shown["timeline"] if news["kind"] == "round"] == [2]


@pytest.mark.requirement("RUN-4")
async def test_what_was_asked_for_decided_and_charged_is_made_again_from_the_log(world: World) -> None:
    model, headers = await world.ready_model()
    _, admin = await world.user("admin")
    ours = f"/api/scheduler/projects/{model.project_id}"
    for number in (1, 2):
        await world.free(number, trusts=frozenset(world.trusts[:number]))
        await world.net_is(number, headers, state="free")
        drained = {"draining": True, "reason": "new disks"}
        await world.http.put(f"/api/scheduler/nets/{world.net(number)}/draining", headers=admin, json=drained)
    back = {"draining": False, "reason": "disks are in"}
    await world.http.put(f"{ours}/weight", headers=admin, json={"weight": 3, "reason": "large"})
    some = await world.initiate(model, headers, minimum_trusts=1, resources={"gpus": 1})
    all_ = await world.initiate(model, headers)
    urgent = {"priority": 7, "reason": "a ward waits"}
    await world.http.put(f"/api/scheduler/runs/{all_['run_id']}/priority", headers=admin, json=urgent)
    await world.http.put(f"/api/scheduler/nets/{world.net(1)}/draining", headers=admin, json=back)
    first = await world.assigned(some)
    await world.node.say(AttemptEnded(**of(first), fencing=first.fencing, outcome="interrupted", reason="site-gone"))
    await world.run_is(some, headers, state="queued")

    rebuilds = "/api/scheduler/operations/rebuilds"
    asked = (await world.http.post(rebuilds, headers=admin, json={"swap": False})).json()

    async def rebuilt() -> dict[str, Any] | None:
        found = (await world.http.get(f"{rebuilds}/{asked['rebuild_id']}", headers=admin)).json()
        return found if found["state"] in {"done", "failed"} else None

    found = await eventually(rebuilt)
    assert found["state"] == "done", found
    compared = {each["table"]: (each["standing"], each["differing"]) for each in found["tables"]}
    assert compared["run"] == (2, 0)
    assert (compared["project_weight"], compared["draining_net"]) == ((1, 0), (1, 0))


@pytest.mark.requirement("RUN-5")
async def test_a_waiting_runs_start_is_estimated_from_finished_runs_only(world: World) -> None:
    model, headers = await world.ready_model()

    async def start_is(run: dict[str, Any], reason: str) -> None:
        async def look() -> bool:
            shown = (await world.http.get(f"/api/scheduler/runs/{run['run_id']}", headers=headers)).json()
            return shown["start"] is not None and shown["start"]["unknown_because"] == reason

        await eventually(look)

    await world.free(1)
    await world.net_is(1, headers, state="free")
    runs = [await world.initiate(model, headers) for _ in range(5)]
    await start_is(runs[1], "no-finished-runs")
    assert [lack["code"] for lack in (await world.run_is(runs[1], headers))["waits_for"]] == ["nets-busy"]
    for run in runs[:3]:
        await world.finish(1, await world.assigned(run))
        await world.run_is(run, headers, state="finished", start=None)
    await world.assigned(runs[3])
    await start_is(runs[4], "overdue")  # the three took a moment; this one is held for ever


@pytest.mark.requirement("RUN-3")
@pytest.mark.requirement("RUN-5")
async def test_a_net_whose_controller_dies_while_it_cleans_up_is_silent_and_a_run_says_that_it_waits_for_it(
    postgres: Database, kafka: Kafka
) -> None:
    lease = timedelta(seconds=2)
    async with world_of(postgres, kafka, lease=lease) as world:
        model, headers = await world.ready_model()
        done, waiting = await world.initiate(model, headers), await world.initiate(model, headers)
        await world.free(1)
        run = await world.assigned(done)
        collected = {"object": "runs/r.zip", "name": "r.zip", "digest": DIGEST, "size_bytes": 9}
        await world.node.say(ResultsCollected(**of(run), fencing=run.fencing, **collected))
        await world.net_is(1, headers, state="released")
        await world.net_is(1, headers, state="silent")
        shown = await world.run_is(waiting, headers, state="queued")
        assert [(lack["code"], lack["nets"]) for lack in shown["waits_for"]] == [("net-silent", [world.net(1)])]
        assert shown["start"]["unknown_because"] == "no-net-fits"
        await world.free(1, run.fencing)
        assert (await world.assigned(waiting)).fencing > run.fencing


@pytest.mark.requirement("RUN-5")
async def test_an_estimate_says_how_long_runs_of_the_same_kind_took_for_the_rounds_that_are_left(world: World) -> None:
    model, headers = await world.ready_model()
    await world.free(1)
    await world.net_is(1, headers, state="free")
    short = [await world.initiate(model, headers) for _ in range(3)]
    for run in short:
        assigned = await world.assigned(run)
        await world.node.say(TrainingStarted(**of(assigned), first_round=0, rounds=2))
        await world.run_is(run, headers, rounds=2)
        await world.finish(1, assigned)
        await world.run_is(run, headers, state="finished")
    long = await world.initiate(model, headers, payload=PAYLOAD | {"num_rounds": 9000})
    other = await world.initiate(model, headers, payload=PAYLOAD | {"model_configuration": "3d_fullres"})
    await world.assigned(long)
    start = (await world.run_is(other, headers, state="queued"))["start"]
    assert (start["basis"], start["runs"]) == ("project", 3)
    async with connect(world.database.app) as db:
        took = await db.fetch(
            "SELECT extract(epoch FROM t.at - r.assigned_at)::float8 AS lead_s,"
            " extract(epoch FROM r.ended_at - t.at)::float8 AS rest_s"
            " FROM run r JOIN run_news t ON t.run_id = r.run_id AND t.kind = 'training' WHERE r.status = 'finished'"
        )
    epoch_s = median(row["rest_s"] / 2 for row in took)
    assert start["takes_s"] == pytest.approx(median(row["lead_s"] for row in took) + 9000 * epoch_s, rel=1e-3)
    await world.net_is(1, headers, state="held")
    last = await world.initiate(model, headers)
    shown = (await world.run_is(last, headers, state="queued"))["start"]
    assert shown["unknown_because"] == "no-finished-runs"  # nobody knows how long 3d_fullres, ahead of it, takes


@pytest.mark.requirement("RUN-2")
async def test_nets_of_both_frameworks_run_side_by_side_and_a_run_that_fails_stops_no_other(world: World) -> None:
    models = {framework: await world.ready_model(framework) for framework in ("nvflare", "flower")}
    for number, framework in enumerate(("nvflare", "nvflare", "flower"), 1):
        await world.free(number, framework=framework)
    runs = [(await world.initiate(*models[framework]), framework) for framework in ("nvflare", "flower", "nvflare")]
    given = [await world.assigned(run) for run, _ in runs]
    assert [one.framework for one in given] == ["nvflare", "flower", "nvflare"]
    assert {one.net for one in given} == {world.net(1), world.net(2), world.net(3)}
    bad = given[0]
    await world.node.say(AttemptEnded(**of(bad), fencing=bad.fencing, outcome="failed", reason="plans-differ"))
    await world.run_is(runs[0][0], models["nvflare"][1], state="failed", reason="plans-differ")
    for run, framework in runs[1:]:
        assert (await world.run_is(run, models[framework][1], state="assigned"))["attempt"] == 1


@asynccontextmanager
async def served(app: FastAPI) -> AsyncGenerator[str]:
    """The app on a port of its own, for answers that have no end."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())

    async def is_up() -> bool:
        return server.started

    await eventually(is_up)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


async def sent_events(answer: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
    event: dict[str, Any] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if not line and event:
            yield event
            event = {}
        elif name == "data":
            event["data"] = orjson.loads(value)
        elif name in {"event", "id"}:
            event[name] = value


@pytest.mark.requirement("FILE-3")
@pytest.mark.requirement("FILE-4")
@pytest.mark.requirement("RUN-10")
async def test_an_app_runs_with_the_digests_of_its_accepted_files_and_names_all_that_keeps_it_from_it(
    world: World,
) -> None:
    owner, headers = await world.user()
    model = await world.model(owner, job="custom")
    facts = {"model_id": model.model_id, "project_id": model.project_id, "digest": DIGEST}
    wrong = AppConfiguration(
        problems=[ConfigurationProblem(field="GLOBAL_ROUNDS", detail="too many")], aggregation_weights={"GSTT": 1.0}
    )
    await world.upload(model, "config.json", wrong)
    await world.files.say(ModelFileRefused(**facts, path="notes.txt", reason="malware-found"))
    await world.files.say(ModelFileUploaded(**facts, path="notes.txt", size_bytes=9, object="uploads/2"))
    await world.files.say(ModelFileRefused(**facts, path="notes.txt", reason="malware-found"))
    await world.files.say(ModelFileUploaded(**facts, path="models.py", size_bytes=9, object="uploads/3"))
    await world.make_ready(model.project_id)
    missing = await world.missing(model, headers, field="models.py")
    assert [(each["code"], each.get("field")) for each in missing] == [
        ("file-missing", "trainer.py"),
        ("file-missing", "validator.py"),
        ("file-not-scanned", "models.py"),
        ("file-refused", "notes.txt"),
        ("config-not-valid", "GLOBAL_ROUNDS"),
        ("config-not-valid", "AGGREGATION_WEIGHTS.GSTT"),
        ("cohort-not-frozen", None),
    ]
    assert missing[-1]["trusts"] == world.trusts
    for path in ("trainer.py", "validator.py", "models.py"):
        await world.upload(model, path)
    await world.upload(model, "config.json", AppConfiguration(aggregation_weights={world.trusts[0]: 0.5}))
    await world.files.say(ModelFileRemoved(model_id=model.model_id, project_id=model.project_id, path="notes.txt"))
    await world.freeze(model)
    run = await world.initiate(model, headers, payload={"mode": "app", "local_rounds": 3})
    sealed = dict.fromkeys(["config.json", "models.py", "trainer.py", "validator.py"], DIGEST)
    assert run["files"] == sealed
    await world.free(1)
    assigned = await world.assigned(run)
    assert (assigned.files, assigned.query_digest, assigned.job) == (sealed, QUERY_DIGEST, "custom")
    await world.node.say(
        MetricReported(**of(assigned), trust=world.trusts[0], round=0, name="loss", value=0.5, x=1, axis="epoch")
    )
    await world.node.say(
        MetricReported(**of(assigned), trust=world.trusts[0], round=0, name="loss", value=0.3, x=2, axis="epoch")
    )

    async def both() -> list[Any] | None:
        told = (await world.http.get(f"/api/scheduler/runs/{run['run_id']}/metrics", headers=headers)).json()
        return told if len(told) == 2 else None

    points = await eventually(both)
    assert [(each["axis"], each["x"], each["value"]) for each in points] == [("epoch", 1, 0.5), ("epoch", 2, 0.3)]
    await world.node.say(ContributionExcluded(**of(assigned), trust=world.trusts[0], round=0, reason="not-finite"))
    await world.node.say(
        ResultIgnored(**of(assigned), trust=world.trusts[1], operation="validate", reason="app-failed")
    )

    async def shown() -> dict[str, Any] | None:
        found = (await world.http.get(f"/api/scheduler/runs/{run['run_id']}", headers=headers)).json()
        news = {each["kind"]: each["facts"] for each in found["timeline"]}
        return news if "result-ignored" in news else None

    news = await eventually(shown)
    assert news["contribution-excluded"] == {"trust": world.trusts[0], "round": 0, "reason": "not-finite"}
    assert news["result-ignored"]["operation"] == "validate"


@pytest.mark.requirement("RUN-8")
async def test_metrics_are_exported_as_csv_with_each_value_at_its_place_however_many_pages_it_takes(
    world: World,
) -> None:
    model, headers = await world.ready_model()
    run = await world.initiate(model, headers)
    await world.free(1)
    assigned = await world.assigned(run)
    names = ["dice, mean", "epoch loss"]
    for trust in reversed(world.trusts):
        for x, name in enumerate(names):
            told = MetricReported(**of(assigned), trust=trust, round=1, name=name, value=1 / 3, x=x / 7, axis="epoch")
            await world.node.say(told)
    await world.node.say(MetricReported(**of(assigned), trust=world.trusts[0], round=2, name=names[0], value=1e-9))
    path = f"/api/scheduler/runs/{run['run_id']}/metrics"

    async def complete() -> list[dict[str, Any]] | None:
        told = (await world.http.get(path, headers=headers)).json()
        return told if len(told) == 5 else None

    told = await eventually(complete)
    answer = await world.http.get(f"{path}.csv", headers=headers)
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert f"metrics_{run['run_id']}.csv" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["trust"], row["name"], int(row["round"]), row["axis"], float(row["x"])) for row in rows] == [
        (world.trusts[0], names[0], 1, "epoch", 0.0),
        (world.trusts[0], names[0], 2, "round", 2.0),
        (world.trusts[0], names[1], 1, "epoch", 1 / 7),
        (world.trusts[1], names[0], 1, "epoch", 0.0),
        (world.trusts[1], names[1], 1, "epoch", 1 / 7),
    ]
    assert sorted(float(row["value"]) for row in rows) == sorted(each["value"] for each in told)
    by_twos = replace(world.app.state.sheets, page=2)
    assert b"".join([piece async for piece in by_twos.metrics(assigned.run_id)]) == answer.content


@pytest.mark.requirement("RUN-9")
async def test_the_timeline_says_which_rounds_are_left_once_the_others_are_deleted(world: World) -> None:
    model, headers = await world.ready_model()
    run = await world.initiate(model, headers)
    await world.free(1)
    assigned = await world.assigned(run)
    await world.finish(1, assigned)
    await world.run_is(run, headers, state="finished")
    ids = {"run_id": assigned.run_id, "project_id": assigned.project_id}
    gone = [AttemptRounds(attempt=1, rounds=[0, 1])]
    await world.files.say(RoundsDeleted(**ids, deleted=gone, kept=[2, 5]))

    async def shown() -> list[dict[str, Any]]:
        found = (await world.http.get(f"/api/scheduler/runs/{run['run_id']}", headers=headers)).json()
        return [news["facts"] for news in found["timeline"] if news["kind"] == "rounds-deleted"]

    assert await eventually(shown) == [{"kept": [2, 5]}]
