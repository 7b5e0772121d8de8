"""The routes of runs and nets."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from flip_chassis.access import known_project, may_see, may_work_on
from flip_chassis.database import Connection, Row
from flip_chassis.http import AnyUser, Reading, WorkOfRequest
from flip_chassis.ids import uuid7
from flip_chassis.refusal import NotFound
from flip_contracts.base import ModelId, NetName, ProjectId, RunId, TrustCode
from flip_contracts.projects import Framework, Job
from flip_contracts.scheduler import Checkpoint
from pydantic import BaseModel, ConfigDict

from flip_scheduler import domain, store
from flip_scheduler.dispatch import Dispatcher
from flip_scheduler.live import LiveFeed

router = APIRouter(tags=["runs"])

State = Literal[
    "queued", "assigned", "preparing", "training", "collecting", "stopping", "stopped", "finished", "failed"
]
NetState = Literal["free", "held", "released", "lost", "silent"]
_STATE_OF_STAGE: dict[str, State] = {
    "assigned": "assigned",
    "preparing": "preparing",
    "fingerprint": "preparing",
    "planning": "preparing",
    "preprocessing": "preparing",
    "training": "training",
    "collecting": "collecting",
}


class InitiateTraining(BaseModel):
    """What is to be trained. The payload is checked with all else, so that one answer names all that is missing."""

    model_config = ConfigDict(extra="forbid")

    model_id: ModelId
    payload: dict[str, Any]


class News(BaseModel):
    """One entry of a run's timeline."""

    number: int
    at: datetime
    kind: str
    attempt: int
    facts: dict[str, Any]


class RunView(BaseModel):
    """A run as it stands. `queue_position` counts from 1."""

    run_id: RunId
    project_id: ProjectId
    model_id: ModelId
    framework: Framework
    job: Job
    trusts: list[TrustCode]
    payload: dict[str, Any]
    state: State
    stage: str
    queue_position: int | None
    net: NetName | None
    attempt: int
    rounds: int | None
    rounds_done: int
    checkpoint: Checkpoint | None
    results: str | None
    reason: str | None
    detail: str
    queued_at: datetime
    ended_at: datetime | None


class RunWithTimeline(RunView):
    """A run with everything that happened to it, oldest first."""

    timeline: list[News]


class Metric(BaseModel):
    """A metric of one Trust in one round."""

    trust: TrustCode
    name: str
    round: int
    attempt: int
    value: float
    at: datetime


class NetView(BaseModel):
    """A net as it was last heard of; `silent` is a free one that has not been heard of for a lease's time."""

    net: NetName
    framework: Framework
    trusts: list[TrustCode]
    state: NetState
    heard_at: datetime


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


SeenRun = Annotated[Row, Depends(_seen_run)]
WorkedRun = Annotated[Row, Depends(_worked_run)]
OurDispatcher = Annotated[Dispatcher, Depends(_dispatcher)]
OurFeed = Annotated[LiveFeed, Depends(_feed)]


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
    queued = domain.initiate(RunId(uuid7()), model, ready, body.payload)
    await dispatcher.queue(work, queued)
    return await _with_timeline(work.db, await _existing(work.db, queued.run_id))


@router.get("/runs")
async def list_runs(project_id: Annotated[ProjectId, Query()], db: Reading, actor: AnyUser) -> list[RunView]:
    """The runs of a project, the newest first."""
    project = may_see(await known_project(db, project_id), actor)
    positions = await _positions(db)
    return [_view(row, positions) for row in await store.runs_of_project(db, project.project_id)]


@router.get("/runs/{run_id}")
async def look_at_run(row: SeenRun, db: Reading) -> RunWithTimeline:
    """How the run stands, and everything that happened to it."""
    return await _with_timeline(db, row)


@router.post("/runs/{run_id}/stop", status_code=202)
async def stop_run(
    run_id: RunId, actor: AnyUser, row: WorkedRun, work: WorkOfRequest, dispatcher: OurDispatcher
) -> RunWithTimeline:
    """Stop the run. Refused once it has ended (RUN-6)."""
    await dispatcher.stop(work, run_id)
    return await _with_timeline(work.db, await _existing(work.db, run_id))


@router.get("/runs/{run_id}/metrics")
async def list_metrics(run_id: RunId, row: SeenRun, db: Reading) -> list[Metric]:
    """Every metric of the run, by name, Trust and round."""
    return [Metric.model_validate(dict(row)) for row in await store.metrics(db, run_id)]


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


@router.get("/nets")
async def list_nets(db: Reading, actor: AnyUser) -> list[NetView]:
    """The nets and whether each is free."""
    now = datetime.now(UTC)
    return [_net_view(row, now) for row in await store.nets(db)]


def _net_view(row: Row, now: datetime) -> NetView:
    silent = row["state"] == "free" and row["lease_until"] <= now
    return NetView.model_validate(dict(row) | ({"state": "silent"} if silent else {}))


async def _with_timeline(db: Connection, row: Row) -> RunWithTimeline:
    timeline = [News.model_validate(dict(news)) for news in await store.timeline(db, row["run_id"])]
    return RunWithTimeline(**_view(row, await _positions(db)).model_dump(), timeline=timeline)


async def _positions(db: Connection) -> dict[RunId, int]:
    queue = domain.in_fair_order(await store.waiting(db), await store.served(db))
    return {run.run_id: position for position, run in enumerate(queue, start=1)}


def _view(row: Row, positions: dict[RunId, int]) -> RunView:
    return RunView.model_validate(
        dict(row) | {"state": state_of(row["status"], row["stage"]), "queue_position": positions.get(row["run_id"])}
    )


def state_of(status: str, stage: str) -> State:
    """The run's state by DESIGN's machine: an assigned run is where its net says it is."""
    if status == "assigned":
        return _STATE_OF_STAGE[stage]
    return status  # pyright: ignore[reportReturnType] - the database holds no other status
