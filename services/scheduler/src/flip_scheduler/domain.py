"""Runs from the queue to their end, and what an admin decides of runs, projects and nets. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from flip_chassis.aggregate import Aggregate
from flip_chassis.refusal import Refused, require
from flip_contracts.apps import weight_problem
from flip_contracts.base import Message, ModelId, NetName, ProjectId, ReasonCode, RunId, Sha256, TrustCode
from flip_contracts.projects import Framework, Job
from flip_contracts.scheduler import (
    AppPayload,
    Checkpoint,
    EarlierResults,
    InferencePayload,
    NetDraining,
    NetLost,
    NetRetired,
    NetUndrained,
    ProjectWeighted,
    Resources,
    RunAssigned,
    RunFailed,
    RunFinished,
    RunPrioritised,
    RunQueued,
    RunRequeued,
    RunStopped,
    RunStopping,
    TrainingPayload,
)
from flip_contracts.topics import NET_SERVICE, RUN, SHARE
from flip_contracts.trainer_node import AttemptEnded
from pydantic import ValidationError

from flip_scheduler.apps import App, missing_of_app
from flip_scheduler.continuing import Continuing, Payload, continued, missing_of_start, payload_not_valid
from flip_scheduler.fairness import LIGHTEST, ORDINARY, Charge
from flip_scheduler.matching import NetState

Status = Literal["absent", "queued", "assigned", "stopping", "stopped", "finished", "failed"]
ENDED: frozenset[Status] = frozenset({"stopped", "finished", "failed"})


@dataclass(frozen=True, slots=True)
class Run:
    """A run. `tries` counts the attempts since the last one that brought it a round further."""

    status: Status = "absent"
    queued: RunQueued | None = None
    attempt: int = 0
    fencing: int = 0
    net: NetName | None = None
    checkpoint: Checkpoint | None = None
    tries: int = 0
    priority: int = ORDINARY

    @property
    def is_held(self) -> bool:
        """Whether an attempt of the run is under way."""
        return self.status in {"assigned", "stopping"}


# --- what must be true before training ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the scheduler knows it."""

    model_id: ModelId
    project_id: ProjectId
    framework: Framework
    job: Job


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a project's Trusts have told so far. `labels` is by Trust: the value of each structure in the label maps."""

    approved: frozenset[TrustCode]
    imported: frozenset[TrustCode]
    labels: Mapping[TrustCode, Mapping[str, int]]
    enrichment_confirmed: bool


Missing = dict[str, Any]
"""What a run still needs: a stable `code`, a `detail` for people, and the Trusts or the field that it is about."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a researcher asks for: the payload, at least so many Trusts (None: all), what of each Trust's machines, and
    what each Trust's cases count for. `earlier` are the results that the payload names, if they can be used; `app` is
    what there is of the researcher's own app, for a model that has one; `continuing` says what it goes on from, unless
    it begins anew."""

    payload: Mapping[str, Any]
    minimum_trusts: int | None = None
    resources: Resources | None = None
    aggregation_weights: Mapping[TrustCode, float] = field(default_factory=dict[TrustCode, float])
    earlier: EarlierResults | None = None
    app: App = field(default_factory=App)
    continuing: Continuing | None = None

    @property
    def predicts(self) -> bool:
        """Whether a prediction is asked for."""
        return self.payload.get("mode") == "inference"

    def read_payload(self, job: Job) -> Payload:
        """The payload of the kind that the job has or, of nnU-Net's two, its mode names. Raises ValidationError."""
        if job == "custom":
            return AppPayload.model_validate(self.payload)
        return (InferencePayload if self.predicts else TrainingPayload).model_validate(self.payload)


def earlier_run(payload: Mapping[str, Any]) -> RunId | None:
    """The run whose results a payload names, as far as it names one."""
    try:
        named = InferencePayload.model_validate(payload).earlier_run
        return None if named is None else RunId(UUID(named))
    except ValueError:
        return None


def initiate(run_id: RunId, model: Model, ready: Readiness, request: Request) -> RunQueued:
    """Queue a run of `model` (RUN-1). Refuses with all that is missing at once."""
    missing = [
        *missing_of_project(ready, request),
        *missing_of_job(model, request),
        *missing_of_trusts(ready, request),
        *missing_of_weights(model, ready, request),
        *(missing_of_app(model.framework, request.app, ready.approved) if model.job == "custom" else ()),
    ]
    detail = "The prediction can't start yet." if request.predicts else "Training can't start yet."
    require(not missing, "run-not-ready", detail, missing=missing)
    payload = request.read_payload(model.job)
    return RunQueued(
        run_id=run_id,
        project_id=model.project_id,
        model_id=model.model_id,
        framework=model.framework,
        job=model.job,
        trusts=ready.approved,
        payload=payload.model_dump(mode="json"),
        minimum_trusts=request.minimum_trusts,
        resources=request.resources or Resources(gpus=_gpus_of(payload)),
        aggregation_weights=dict(request.aggregation_weights),
        earlier=request.earlier,
        files=request.app.digests,
        query_digest=request.app.query_at(ready.approved),
        continues=continued(payload, request.continuing),
    )


def missing_of_project(ready: Readiness, request: Request) -> Iterable[Missing]:
    """What the project lacks: a prediction needs images alone."""
    if not ready.approved:
        yield {"code": "project-not-approved", "detail": "No Trust has approved the project."}
    if waiting := sorted(ready.approved - ready.imported):
        yield {"code": "images-not-ready", "detail": "Images are still being imported.", "trusts": waiting}
    if not request.predicts:
        yield from _missing_of_labels(ready)


def _missing_of_labels(ready: Readiness) -> Iterable[Missing]:
    if bare := sorted(ready.approved - ready.labels.keys()):
        yield {"code": "labels-missing", "detail": "No labels were registered.", "trusts": bare}
    known = {trust: dict(labels) for trust, labels in ready.labels.items() if trust in ready.approved}
    if any(labels != next(iter(known.values())) for labels in known.values()):
        yield {"code": "labels-differ", "detail": "The Trusts' labels name different structures.", "labels": known}
    if not ready.enrichment_confirmed:
        yield {"code": "enrichment-not-confirmed", "detail": "The researcher has not confirmed enrichment."}


def missing_of_trusts(ready: Readiness, request: Request) -> Iterable[Missing]:
    """What is wrong with the number of Trusts that have to take part."""
    asked, approved = request.minimum_trusts, len(ready.approved)
    if asked is not None and approved and not 1 <= asked <= approved:
        detail = f"At least 1 and at most {approved} Trusts can take part."
        yield {"code": "minimum-trusts-not-valid", "detail": detail, "field": "minimum_trusts"}


def missing_of_weights(model: Model, ready: Readiness, request: Request) -> Iterable[Missing]:
    """What is wrong with the weights of the Trusts' cases, a Trust at a time (FILE-4)."""
    if request.aggregation_weights and (request.predicts or model.job == "custom"):
        own = "An app has its own in its configuration, as AGGREGATION_WEIGHTS."
        detail = own if model.job == "custom" else "A prediction averages no models."
        yield {"code": "aggregation-weights-not-valid", "detail": detail, "field": "aggregation_weights"}
        return
    for trust, weight in sorted(request.aggregation_weights.items()):
        if ready.approved and trust not in ready.approved:
            yield _wrong_weight(trust, "No Trust of the project has this code.")
        elif problem := weight_problem(weight):
            yield _wrong_weight(trust, f"{problem.capitalize()}.")
    weightless = sum(request.aggregation_weights.get(trust) == 0 for trust in ready.approved)
    if weightless and weightless >= (request.minimum_trusts or len(ready.approved)):
        detail = "The Trusts with which the run may start could all have weight 0: nothing would count."
        yield {"code": "aggregation-weights-not-valid", "detail": detail, "field": "aggregation_weights"}


def _wrong_weight(trust: TrustCode, problem: str) -> Missing:
    return {"code": "aggregation-weights-not-valid", "detail": problem, "field": f"aggregation_weights.{trust}"}


def missing_of_job(model: Model, request: Request) -> Iterable[Missing]:
    """What is wrong with the job, its payload and what it asks of each Trust, a field at a time."""
    try:
        asked = request.read_payload(model.job)
    except ValidationError as error:
        for each in error.errors():
            yield payload_not_valid(".".join(["payload", *map(str, each["loc"][:1])]), each["msg"])
        return
    yield from missing_of_start(asked, request.continuing)
    if isinstance(asked, InferencePayload):
        yield from _missing_of_prediction(asked, request.earlier)
    if request.resources is not None and request.resources.gpus < _gpus_of(asked):
        detail = "A run on cuda needs a GPU at each Trust."
        yield {"code": "resources-not-valid", "detail": detail, "field": "resources.gpus"}


def _missing_of_prediction(asked: InferencePayload, earlier: EarlierResults | None) -> Iterable[Missing]:
    if len(asked.dataset_subdirs) > 1:
        yield payload_not_valid("payload.dataset_subdirs", "A project has one data set at each Trust.")
    if asked.earlier_run is not None and earlier is None:
        detail = "No training of this project with this id has results that can be downloaded."
        yield payload_not_valid("payload.checkpoint_path", detail)


def _gpus_of(payload: Payload) -> int:
    """What a run needs where nobody says; an app says it nowhere but in what is asked for."""
    return 1 if not isinstance(payload, AppPayload) and payload.device == "cuda" else 0


# --- the machine --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """What a run is given: a net, under a fencing number, with these Trusts; and what its project is charged for it."""

    net: NetName
    fencing: int
    trusts: frozenset[TrustCode]
    charge: Charge


def assign(run: Run, place: Place, checkpoint: Checkpoint | None) -> RunAssigned:
    """Give a waiting run its place; it goes on after `checkpoint`."""
    queued = _queued(run)
    require(run.status == "queued", "run-not-waiting", status=run.status)
    return RunAssigned(
        run_id=queued.run_id,
        project_id=queued.project_id,
        model_id=queued.model_id,
        net=place.net,
        attempt=run.attempt + 1,
        fencing=place.fencing,
        framework=queued.framework,
        job=queued.job,
        trusts=place.trusts,
        payload=queued.payload,
        checkpoint=checkpoint,
        minimum_trusts=queued.minimum_trusts,
        virtual_start=place.charge.start,
        virtual_finish=place.charge.finish,
        aggregation_weights={
            trust: weight for trust, weight in queued.aggregation_weights.items() if trust in place.trusts
        },
        earlier=queued.earlier,
        files=queued.files,
        query_digest=queued.query_digest,
        continues=queued.continues,
    )


def prioritise(run: Run, priority: int, reason: str) -> list[Message]:
    """Give a run that has not ended another priority."""
    queued = _queued(run)
    require(run.status not in ENDED, "run-has-ended", "It waits for nothing.", status=run.status)
    if run.priority == priority:
        return []
    return [RunPrioritised(run_id=queued.run_id, project_id=queued.project_id, priority=priority, reason=reason)]


def stop(run: Run, *, held: bool) -> RunStopping | RunStopped:
    """Stop a run that has not ended. Where no net holds it any more there is nothing to wait for."""
    queued = _queued(run)
    require(run.status not in {*ENDED, "stopping"}, "run-can-not-be-stopped", "It has ended.", status=run.status)
    if run.status == "assigned" and held:
        return RunStopping(run_id=queued.run_id, project_id=queued.project_id, attempt=run.attempt, net=run.net)
    return RunStopped(run_id=queued.run_id, project_id=queued.project_id)


@dataclass(frozen=True, slots=True)
class Again:
    """What decides whether a run is tried again, and when: the time, the checkpoint that it has reached by now, and the
    settings. It rests before each attempt that follows two or more in a row that brought no further round: `pause`
    before the first of these, twice as long before each next one."""

    now: datetime
    reached: Checkpoint | None
    most_tries: int
    pause: timedelta

    def tries(self, run: Run) -> int:
        """The attempts in a row, up to this one, that brought no further round."""
        return run.tries if self.reached == run.checkpoint else 0

    def rests_until(self, run: Run) -> datetime | None:
        """When the next attempt may begin; None where it may at once."""
        tries = self.tries(run)
        return None if tries < _TRIES_AT_ONCE else self.now + self.pause * 2 ** (tries - _TRIES_AT_ONCE)


_TRIES_AT_ONCE = 2


def end_attempt(run: Run, ended: AttemptEnded, again: Again) -> list[Message]:
    """What follows from the end of an attempt. The end of an older attempt, or of a lost one, changes nothing."""
    if not run.is_held or (ended.attempt, ended.fencing) != (run.attempt, run.fencing):
        return []
    if run.status == "stopping" or ended.outcome == "stopped":
        return [_stopped(run)]
    if ended.outcome == "failed":
        return [_failed(run, ended.reason, ended.detail)]
    return [_again(run, ended.reason, ended.detail, again)]


def lose_net(run: Run, fencing: int, again: Again) -> list[Message]:
    """What follows from the loss of the net that held the run under this fencing number."""
    queued = _queued(run)
    if not run.is_held or run.net is None or fencing != run.fencing:
        return []
    lost = NetLost(run_id=queued.run_id, project_id=queued.project_id, net=run.net, attempt=run.attempt)
    if run.status == "stopping":
        return [lost, _stopped(run)]
    return [lost, _again(run, "net-lost", f"{run.net} let its lease run out.", again)]


def release(run: Run, fencing: int) -> list[Message]:
    """What follows when a net gives the run back: one that was to stop has stopped."""
    return [_stopped(run)] if run.status == "stopping" and run.fencing <= fencing else []


def finish(run: Run, results: Sha256) -> list[Message]:
    """The results are published. A run that has ended otherwise stays as it is."""
    queued = _queued(run)
    if run.status in ENDED:
        return []
    return [RunFinished(run_id=queued.run_id, project_id=queued.project_id, model_id=queued.model_id, results=results)]


def fail(run: Run, reason: ReasonCode, detail: str = "") -> list[Message]:
    """The run can't come to a result. A run that has ended otherwise stays as it is."""
    return [] if run.status in ENDED else [_failed(run, reason, detail)]


def _queued(run: Run) -> RunQueued:
    if run.queued is None:
        raise Refused("run-not-found", "There is no such run.")
    return run.queued


def _again(run: Run, reason: ReasonCode, detail: str, again: Again) -> Message:
    queued, tries = _queued(run), again.tries(run)
    if tries >= again.most_tries:
        return _failed(run, reason, f"{tries} attempts in a row brought no further round. {detail}".strip())
    return RunRequeued(
        run_id=queued.run_id,
        project_id=queued.project_id,
        attempt=run.attempt,
        reason=reason,
        rests_until=again.rests_until(run),
    )


def _failed(run: Run, reason: ReasonCode, detail: str) -> RunFailed:
    queued = _queued(run)
    return RunFailed(
        run_id=queued.run_id, project_id=queued.project_id, model_id=queued.model_id, reason=reason, detail=detail
    )


def _stopped(run: Run) -> RunStopped:
    queued = _queued(run)
    return RunStopped(run_id=queued.run_id, project_id=queued.project_id)


_STATUS_AFTER: Mapping[type[Message], Status] = {
    RunRequeued: "queued",
    RunStopped: "stopped",
    RunFinished: "finished",
    RunFailed: "failed",
}


def evolve(run: Run, event: Message) -> Run:
    """The state after an event."""
    match event:
        case RunQueued():
            return Run("queued", event)
        case RunAssigned():
            return replace(
                run,
                status="assigned",
                attempt=event.attempt,
                fencing=event.fencing,
                net=event.net,
                checkpoint=event.checkpoint,
                tries=1 if event.checkpoint != run.checkpoint else run.tries + 1,
            )
        case RunPrioritised():
            return replace(run, priority=event.priority)
        case RunStopping():
            return replace(run, status="stopping")
        case RunRequeued() | RunStopped() | RunFinished() | RunFailed():
            return replace(run, status=_STATUS_AFTER[type(event)], net=None)
        case _:
            return run


RUNS = Aggregate(RUN, Run(), evolve)


# --- what an admin decides of projects and nets -------------------------------------------------------------------


def weigh(weight: int, project_id: ProjectId, new: int, reason: str) -> list[Message]:
    """Give a project another weight."""
    return [] if new == weight else [ProjectWeighted(project_id=project_id, weight=new, reason=reason)]


def drain(draining: bool, net: NetName, wanted: bool, reason: str) -> list[Message]:
    """Give the net no further run, or let it take runs again."""
    if draining == wanted:
        return []
    return [NetDraining(net=net, reason=reason) if wanted else NetUndrained(net=net, reason=reason)]


def retire(net: NetName, state: NetState, reason: str, *, draining: bool) -> NetRetired:
    """Strike the net off, whatever it has heard of; a later `NetFree` brings it back as one that is new.

    A net that has a run keeps it, and one that could be given a run is drained first.
    """
    require(state != "held", "net-has-a-run", "Stop the run, or wait until the net's lease has run out.", net=net)
    require(draining or state != "free", "net-in-service", "It would be given a run; drain it first.", net=net)
    return NetRetired(net=net, reason=reason)


def _weight_after(weight: int, event: Message) -> int:
    return event.weight if isinstance(event, ProjectWeighted) else weight


def _draining_after(draining: bool, event: Message) -> bool:
    match event:
        case NetDraining():
            return True
        case NetUndrained() | NetRetired():
            return False
        case _:
            return draining


WEIGHTS = Aggregate(SHARE, LIGHTEST, _weight_after)
DRAINS = Aggregate(NET_SERVICE, False, _draining_after)
