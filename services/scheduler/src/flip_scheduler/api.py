"""The routes of runs, the queue and nets."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from flip_chassis.access import known_project, may_see, may_work_on
from flip_chassis.database import Connection, Row
from flip_chassis.http import Admin, AnyUser, Reading, SeenProject, WorkOfRequest
from flip_chassis.ids import uuid7
from flip_chassis.refusal import NotFound
from flip_contracts.base import ModelId, NetName, ProjectId, RunId
from flip_contracts.scheduler import Resources
from pydantic import BaseModel, ConfigDict, Field

from flip_scheduler import domain, store
from flip_scheduler.apps import App
from flip_scheduler.continuing import Continuing
from flip_scheduler.dispatch import Dispatcher
from flip_scheduler.fairness import HEAVIEST, HIGHEST, LIGHTEST, LOWEST, Share, level
from flip_scheduler.live import LiveFeed
from flip_scheduler.sheets import Sheets
from flip_scheduler.views import Metric, NetView, News, Queue, QueueEntry, RunView, RunWithTimeline

router = APIRouter(tags=["runs"])


class InitiateTraining(BaseModel):
    """What is to be trained or, where the payload's mode is `inference`, predicted. A model with a researcher's own app
    has the mode `app`.

    The payload is checked with all else, so that one answer names all that is missing.
    With `minimum_trusts` the run starts as soon as so many of the project's Trusts can take part; without, all have to.
    `resources` is what it needs at each of them; without, one GPU where the payload's device is `cuda`.
    `aggregation_weights` are factors by Trust on the number of its cases when models are averaged; 1 for one not named.
    With `continues` a training goes on from the weights of an earlier run of the project, which has ended: nnU-Net with
    the round that the payload's `starting_fed_round` names, an app behind that run's last completed round.
    """

    model_config = ConfigDict(extra="forbid")

    model_id: ModelId
    payload: dict[str, Any]
    minimum_trusts: int | None = None
    resources: Resources | None = None
    aggregation_weights: dict[str, float] = Field(default_factory=dict[str, float])
    continues: RunId | None = None


class Reasoned(BaseModel):
    """An admin's decision says why; the reason is recorded."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class Priority(Reasoned):
    """From 0, the last, to 9, the first; 4 is an ordinary run's."""

    priority: Annotated[int, Field(ge=LOWEST, le=HIGHEST)]


class Weight(Reasoned):
    """How many turns the project gets where a project of weight 1 gets one."""

    weight: Annotated[int, Field(ge=LIGHTEST, le=HEAVIEST)]


class Draining(Reasoned):
    """Whether the net is to be given no further run."""

    draining: bool


class ProjectShare(BaseModel):
    """What a project is let have of the nets."""

    project_id: ProjectId
    weight: int


async def _seen_run(run_id: RunId, db: Reading, actor: AnyUser) -> Row:
    row = await _existing(db, run_id)
    may_see(await known_project(db, row["project_id"]), actor)
    return row


async def _worked_run(run_id: RunId, db: Reading, actor: AnyUser) -> Row:
    row = await _existing(db, run_id)
    may_work_on(await known_project(db, row["project_id"]), actor)
    return row


async def _existing(db: Connection, run_id: RunId) -> Row:
    row = await store.run(db, run_id)
    if row is None:
        raise NotFound("run-not-found", "There is no such run, or you may not see it.")
    return row


async def _dispatcher(request: Request) -> Dispatcher:
    return request.app.state.dispatcher


async def _feed(request: Request) -> LiveFeed:
    return request.app.state.feed


async def _sheets(request: Request) -> Sheets:
    return request.app.state.sheets


SeenRun = Annotated[Row, Depends(_seen_run)]
WorkedRun = Annotated[Row, Depends(_worked_run)]
OurDispatcher = Annotated[Dispatcher, Depends(_dispatcher)]
OurFeed = Annotated[LiveFeed, Depends(_feed)]
OurSheets = Annotated[Sheets, Depends(_sheets)]


@router.post("/runs", status_code=202)
async def initiate_training(
    body: InitiateTraining, actor: AnyUser, work: WorkOfRequest, dispatcher: OurDispatcher
) -> RunWithTimeline:
    """Check everything and queue a run of the model. What is missing is named all at once (RUN-1)."""
    model = await store.model(work.db, body.model_id)
    if model is None:
        raise NotFound("model-not-found", "There is no such model, or you may not see it.")
    project = may_work_on(await known_project(work.db, model.project_id), actor)
    ready = await store.readiness(work.db, model.project_id, project.approved)
    earlier = await store.earlier_results(work.db, model.project_id, domain.earlier_run(body.payload))
    app = await store.app(work.db, model) if model.job == "custom" else App()
    asked = domain.Request(
        payload=body.payload,
        minimum_trusts=body.minimum_trusts,
        resources=body.resources,
        aggregation_weights=body.aggregation_weights,
        earlier=earlier,
        app=app,
        continuing=await _continuing(work.db, model.project_id, body.continues),
    )
    queued = domain.initiate(RunId(uuid7()), model, ready, asked)
    await dispatcher.queue(work, queued)
    return await _with_timeline(work.db, dispatcher, await _existing(work.db, queued.run_id))


async def _continuing(db: Connection, project_id: ProjectId, run_id: RunId | None) -> Continuing | None:
    return None if run_id is None else Continuing(await store.predecessor(db, project_id, run_id))


@router.get("/runs")
async def list_runs(
    project_id: Annotated[ProjectId, Query()], db: Reading, actor: AnyUser, dispatcher: OurDispatcher
) -> list[RunView]:
    """The runs of a project, the newest first."""
    project = may_see(await known_project(db, project_id), actor)
    rows = await store.runs_of_project(db, project.project_id)
    queue = await _queue(db, dispatcher, rows)
    return [queue.view(row) for row in rows]


@router.get("/runs/{run_id}")
async def look_at_run(row: SeenRun, db: Reading, dispatcher: OurDispatcher) -> RunWithTimeline:
    """How the run stands, and everything that happened to it."""
    return await _with_timeline(db, dispatcher, row)


@router.post("/runs/{run_id}/stop", status_code=202)
async def stop_run(
    run_id: RunId, actor: AnyUser, row: WorkedRun, work: WorkOfRequest, dispatcher: OurDispatcher
) -> RunWithTimeline:
    """Stop the run. Refused once it has ended (RUN-6)."""
    await dispatcher.stop(work, run_id)
    return await _with_timeline(work.db, dispatcher, await _existing(work.db, run_id))


@router.put("/runs/{run_id}/priority")
async def set_priority(
    run_id: RunId, body: Priority, actor: Admin, work: WorkOfRequest, dispatcher: OurDispatcher
) -> RunWithTimeline:
    """Give the run another priority. Refused once it has ended (RUN-4)."""
    await _existing(work.db, run_id)
    await dispatcher.prioritise(work, run_id, body.priority, body.reason)
    return await _with_timeline(work.db, dispatcher, await _existing(work.db, run_id))


@router.get("/runs/{run_id}/metrics")
async def list_metrics(run_id: RunId, row: SeenRun, db: Reading) -> list[Metric]:
    """Every metric of the run, by name, Trust and round."""
    return [Metric.model_validate(dict(row)) for row in await store.metrics(db, run_id)]


@router.get("/runs/{run_id}/metrics.csv", response_class=StreamingResponse)
async def export_metrics(run_id: RunId, row: SeenRun, sheets: OurSheets) -> StreamingResponse:
    """Every metric of the run as CSV, by Trust, name and round (RUN-8)."""
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''metrics_{run_id}.csv"}
    return StreamingResponse(sheets.metrics(run_id), media_type="text/csv", headers=headers)


@router.get("/runs/{run_id}/live", response_class=StreamingResponse)
async def follow_run(
    run_id: RunId, row: SeenRun, feed: OurFeed, last_event_id: Annotated[int, Header(ge=0)] = 0
) -> StreamingResponse:
    """The run's news as server-sent events: first what was, then what comes. `Last-Event-ID` goes on where it was."""
    return StreamingResponse(
        feed.events(run_id, last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get("/queue")
async def look_at_queue(db: Reading, actor: Admin, dispatcher: OurDispatcher) -> list[QueueEntry]:
    """The waiting runs of all projects, in the order in which they are given nets."""
    now = datetime.now(UTC)
    queue, shares = await _whole_queue(db, dispatcher, now), await store.shares(db)
    return [
        QueueEntry(
            run_id=run.run_id,
            project_id=run.project_id,
            framework=run.framework,
            priority=run.priority,
            level=level(run, now, dispatcher.settings.aging),
            weight=shares.get(run.project_id, Share()).weight,
            queued_at=run.queued_at,
            **queue.place(run.run_id),
        )
        for run in queue.runs.values()
    ]


@router.get("/projects/{project_id}/weight")
async def look_at_weight(project: SeenProject, db: Reading) -> ProjectShare:
    """The project's weight."""
    return ProjectShare(project_id=project.project_id, weight=await store.weight(db, project.project_id))


@router.put("/projects/{project_id}/weight")
async def set_weight(
    project: SeenProject, body: Weight, actor: Admin, work: WorkOfRequest, dispatcher: OurDispatcher
) -> ProjectShare:
    """Give the project another weight (RUN-4)."""
    await dispatcher.weigh(work, project.project_id, body.weight, body.reason)
    return ProjectShare(project_id=project.project_id, weight=await store.weight(work.db, project.project_id))


@router.get("/nets")
async def list_nets(db: Reading, actor: AnyUser) -> list[NetView]:
    """The nets and whether each is free."""
    return [NetView.of(row) for row in await store.nets(db, datetime.now(UTC))]


@router.put("/nets/{net}/draining")
async def set_draining(
    net: NetName, body: Draining, actor: Admin, work: WorkOfRequest, dispatcher: OurDispatcher
) -> NetView:
    """Drain the net, so that it is given no further run and ends what it holds, or let it take runs again."""
    if await store.net(work.db, net) is None:
        raise NotFound("net-not-found", "There is no such net.")
    await dispatcher.drain(work, net, draining=body.draining, reason=body.reason)
    [row] = [row for row in await store.nets(work.db, datetime.now(UTC)) if row["net"] == net]
    return NetView.of(row)


@router.post("/nets/{net}/retire", status_code=204)
async def retire_net(
    net: NetName, body: Reasoned, actor: Admin, work: WorkOfRequest, dispatcher: OurDispatcher
) -> None:
    """Strike off a net that is gone, or whose controller has lost its database. Its next `NetFree` brings it back.
    Refused while it has a run, or could be given one."""
    await dispatcher.retire(work, net, body.reason)


async def _with_timeline(db: Connection, dispatcher: Dispatcher, row: Row) -> RunWithTimeline:
    timeline = [News.model_validate(dict(news)) for news in await store.timeline(db, row["run_id"])]
    view = (await _queue(db, dispatcher, [row])).view(row)
    return RunWithTimeline(**view.model_dump(), timeline=timeline)


async def _queue(db: Connection, dispatcher: Dispatcher, rows: Iterable[Row]) -> Queue:
    """The queue as far as these runs are concerned: none where none of them waits."""
    waits = any(row["status"] == "queued" for row in rows)
    return await _whole_queue(db, dispatcher, datetime.now(UTC)) if waits else Queue()


async def _whole_queue(db: Connection, dispatcher: Dispatcher, now: datetime) -> Queue:
    async with db.transaction(isolation="repeatable_read", readonly=True):
        runs = await dispatcher.queue_in_order(db, now)
        return Queue.of(runs, await store.catalogue(db, now), await store.held(db), await store.history(db), now)
