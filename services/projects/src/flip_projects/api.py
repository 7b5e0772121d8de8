"""The routes of projects and of their models."""

from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query
from flip_chassis.access import Actor, KnownProject
from flip_chassis.database import Connection, Row
from flip_chassis.http import (
    Admin,
    AnyUser,
    KnownContext,
    Reading,
    Researcher,
    SeenProject,
    WorkedProject,
    WorkOfRequest,
)
from flip_chassis.ids import uuid7
from flip_chassis.refusal import Forbidden, Invalid, NotFound
from flip_chassis.replay import as_it_was
from flip_contracts.base import REGISTRY, ModelId, ProjectId, TrustCode, UserId
from flip_contracts.projects import Framework, Job
from pydantic import AwareDatetime, BaseModel, ConfigDict, EmailStr, Field, StringConstraints

from flip_projects import domain, store

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Description = Annotated[str, StringConstraints(max_length=10_000)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
Members = Annotated[list[EmailStr], Field(max_length=200)]
Page = Annotated[int, Query(ge=1)]
Size = Annotated[int, Query(ge=1, le=200)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProjectRequest(_Body):
    """A project's details, whole. Members are named by their addresses."""

    name: Name
    description: Description = ""
    members: Members = []


class StageRequest(_Body):
    """The Trusts to ask."""

    trusts: frozenset[TrustCode]


class ReasonRequest(_Body):
    """Why."""

    reason: Reason


class DecisionRequest(_Body):
    """What a Trust has decided, and why."""

    trust: TrustCode
    decision: domain.Answer
    reason: Reason


class TypedName(_Body):
    """The name of what is to be deleted, typed."""

    name: str


class ModelRequest(_Body):
    """What is to be trained, with which framework."""

    name: Name
    description: Description = ""
    framework: Framework
    job: Job


class ModelDetails(_Body):
    """A model's name and description, whole."""

    name: Name
    description: Description = ""


class DecisionView(BaseModel):
    """A Trust's decision: asked, approved, declined or withdrawn."""

    trust: TrustCode
    state: str
    reason: str
    at: datetime


class EnrichmentView(BaseModel):
    """Who confirmed when that the labels of these Trusts are in place."""

    by: str
    at: datetime
    trusts: list[TrustCode]


class ProjectView(BaseModel):
    """A project. `query_version` is the one that the Trusts are asked about."""

    project_id: ProjectId
    owner: UserId
    name: str
    description: str
    members: list[UserId]
    status: str
    query_version: int | None
    decisions: list[DecisionView]
    enrichment: EnrichmentView | None
    created_at: datetime
    changed_at: datetime

    @classmethod
    def of(cls, row: Row) -> "ProjectView":
        """The view of a row of the table `project`."""
        decisions = [{"trust": trust, **decision} for trust, decision in sorted(row["decisions"].items())]
        return cls.model_validate({**row, "decisions": decisions})


class ProjectPage(BaseModel):
    """Some projects, and how many fit."""

    items: list[ProjectView]
    total: int


class ModelView(BaseModel):
    """A model. Once it is `trained`, even in part, its details are fixed."""

    model_id: ModelId
    project_id: ProjectId
    name: str
    description: str
    framework: Framework
    job: Job
    created_by: str
    created_at: datetime
    changed_at: datetime
    trained: bool


class ModelThen(BaseModel):
    """A model as it was defined at a moment."""

    model_id: ModelId
    name: str
    description: str
    framework: Framework
    job: Job
    created_by: str
    created_at: datetime
    changed_at: datetime


class ProjectThen(BaseModel):
    """A project and its models as they stood at a moment."""

    at: datetime
    project: ProjectView
    models: list[ModelThen]


class Step(BaseModel):
    """One thing that happened: the event's name, when, by whom, and what it says."""

    event: str
    time: datetime
    actor: str
    details: dict[str, Any]


# --- who may ------------------------------------------------------------------------------------------------------


async def _owned(project: WorkedProject, actor: AnyUser) -> KnownProject:
    if actor.role != "admin" and actor.user_id != project.owner:
        raise Forbidden("owner-only", "This is for the project's owner and for admins.")
    return project


OwnedProject = Annotated[KnownProject, Depends(_owned)]
"""The project of the path, for its owner and for admins."""


async def _seen_model(project: SeenProject, model_id: ModelId, db: Reading) -> Row:
    row = await store.model(db, project.project_id, model_id)
    if row is None:
        raise NotFound("model-not-found")
    return row


SeenModel = Annotated[Row, Depends(_seen_model)]
"""The model of the path, for those who may see its project."""


async def _members(db: Connection, addresses: list[EmailStr]) -> frozenset[UserId]:
    """The users behind the addresses. Names every one that nobody was invited by (PROJ-1)."""
    users = await store.users_of(db, addresses)
    unknown = [address for address in addresses if address not in users]
    if unknown:
        raise Invalid(
            "addresses-not-known", "No user has these addresses.", field="members", addresses=sorted(set(unknown))
        )
    return frozenset(users.values())


async def _details(db: Connection, body: ProjectRequest) -> domain.Details:
    return domain.Details(body.name, body.description, await _members(db, body.members))


async def _view(db: Connection, project_id: ProjectId) -> ProjectView:
    row = await store.project(db, project_id)
    if row is None:
        raise NotFound("project-not-found")
    return ProjectView.of(row)


# --- projects -----------------------------------------------------------------------------------------------------

projects = APIRouter(tags=["projects"])


@projects.post("", status_code=201)
async def create(body: ProjectRequest, actor: Researcher, work: WorkOfRequest) -> ProjectView:
    """Make a project; whoever makes it owns it (PROJ-1). For researchers."""
    project_id = ProjectId(uuid7())
    details = await _details(work.db, body)
    async with work.on(domain.PROJECT_AGGREGATE, project_id) as project:
        project.record(domain.create(project.state, project_id, actor.user_id, details))
    return await _view(work.db, project_id)


@projects.get("")
async def look_at_all(
    actor: AnyUser,
    db: Reading,
    owner: UserId | None = None,
    keyword: Annotated[str, Query(max_length=200)] = "",
    status: Literal["draft", "staged", "approved"] | None = None,
    sort: store.Order = "changed_at",
    descending: bool = True,
    page: Page = 1,
    size: Size = 50,
) -> ProjectPage:
    """The projects one owns or has joined, for admins all (PROJ-3); by owner, by a word in name or description, by
    status. For whoever is logged in."""
    which = store.Filter(None if actor.role == "admin" else actor.user_id, owner, keyword, status)
    rows = await store.projects(db, which, sort, descending=descending, size=size, offset=(page - 1) * size)
    return ProjectPage(items=[ProjectView.of(row) for row in rows], total=await store.count_projects(db, which))


@projects.get("/{project_id}")
async def look(project: SeenProject, db: Reading) -> ProjectView:
    """One project. For its owner, its members and admins."""
    return await _view(db, project.project_id)


@projects.put("/{project_id}")
async def edit(body: ProjectRequest, known: OwnedProject, work: WorkOfRequest) -> ProjectView:
    """Other details, whole, while the project is a draft (PROJ-2). For its owner and admins."""
    details = await _details(work.db, body)
    async with work.on(domain.PROJECT_AGGREGATE, known.project_id) as project:
        project.record(domain.edit(project.state, known.project_id, details))
    return await _view(work.db, known.project_id)


@projects.post("/{project_id}/delete", status_code=204)
async def delete(body: TypedName, known: OwnedProject, work: WorkOfRequest) -> None:
    """Delete the project by typing its name (PROJ-4): its runs stop, its images go. For its owner and admins."""
    async with work.on(domain.PROJECT_AGGREGATE, known.project_id) as project:
        project.record(domain.delete(project.state, known.project_id, body.name))


@projects.post("/{project_id}/stage")
async def stage(body: StageRequest, known: OwnedProject, work: WorkOfRequest) -> ProjectView:
    """Ask Trusts for approval (PROJ-5); details and query are locked from here on. For its owner and admins."""
    async with work.on(domain.PROJECT_AGGREGATE, known.project_id) as project:
        query = await store.saved_query(work.db, known.project_id)
        project.record(domain.stage(project.state, known.project_id, body.trusts, query))
    return await _view(work.db, known.project_id)


@projects.post("/{project_id}/unstage")
async def unstage(body: ReasonRequest, actor: Admin, known: SeenProject, work: WorkOfRequest) -> ProjectView:
    """Give a staged project back to its owner as a draft, before any Trust has approved. For admins."""
    async with work.on(domain.PROJECT_AGGREGATE, known.project_id) as project:
        project.record(domain.unstage(project.state, known.project_id, body.reason))
    return await _view(work.db, known.project_id)


@projects.post("/{project_id}/decisions")
async def decide(body: DecisionRequest, actor: Admin, known: SeenProject, work: WorkOfRequest) -> ProjectView:
    """Record that a Trust approved or declined (PROJ-6), or withdrew its approval (PROJ-7). For admins."""
    async with work.on(domain.PROJECT_AGGREGATE, known.project_id) as project:
        project.record(domain.decide(project.state, known.project_id, body.trust, body.decision, body.reason))
    return await _view(work.db, known.project_id)


@projects.post("/{project_id}/enrichment")
async def confirm_enrichment(known: WorkedProject, work: WorkOfRequest) -> ProjectView:
    """Confirm that the labels of every approving Trust are in place (IMG-6). For its researchers."""
    async with work.on(domain.PROJECT_AGGREGATE, known.project_id) as project:
        ready = await store.readiness(work.db, known.project_id)
        project.record(domain.confirm_enrichment(project.state, known.project_id, ready))
    return await _view(work.db, known.project_id)


@projects.get("/{project_id}/timeline")
async def look_back(project: SeenProject, db: Reading) -> list[Step]:
    """Each step of the project and of its models, with who and when, oldest first (PROJ-8). For those who see it."""
    return [_step(row) for row in await store.timeline(db, project.project_id)]


@projects.get("/{project_id}/at/{moment}")
async def look_at_moment(
    project: SeenProject, moment: AwareDatetime, db: Reading, context: KnownContext
) -> ProjectThen:
    """The project and its models as they stood at a moment, made again from what had been said by then.

    Whether a model was `trained` is the scheduler's to say, and not known of the past. For those who see the project.
    """
    rows = [row for row in await store.timeline(db, project.project_id) if row["time"] <= moment]
    if not rows:
        raise NotFound("project-not-yet", "The project did not exist then.", moment=moment)
    source = context.settings.source
    async with as_it_was(db, context.handlers, source, ("project", "model", "trained_model"), rows):
        return ProjectThen(
            at=moment,
            project=await _view(db, project.project_id),
            models=[ModelThen.model_validate(dict(row)) for row in await store.models(db, project.project_id)],
        )


def _step(row: Row) -> Step:
    name = REGISTRY[row["type"]].__name__
    return Step(event=name, time=row["time"], actor=row["actor"], details=orjson.loads(row["payload"]))


# --- models -------------------------------------------------------------------------------------------------------

models = APIRouter(prefix="/{project_id}/models", tags=["models"])


@models.post("", status_code=201)
async def create_model(body: ModelRequest, known: WorkedProject, work: WorkOfRequest) -> ModelView:
    """Define a model in an approved project (MODEL-1). For its researchers."""
    model_id = ModelId(uuid7())
    definition = domain.Definition(body.name, body.description, body.framework, body.job)
    async with (
        work.on(domain.PROJECT_AGGREGATE, known.project_id) as project,
        work.on(domain.MODEL_AGGREGATE, model_id) as model,
    ):
        model.record(domain.create_model(model.state, model_id, project.state, known.project_id, definition))
    return await _model_view(work.db, known.project_id, model_id)


@models.get("")
async def look_at_models(project: SeenProject, db: Reading) -> list[ModelView]:
    """The models of a project, oldest first. For those who see it."""
    return [ModelView.model_validate(dict(row)) for row in await store.models(db, project.project_id)]


@models.get("/{model_id}")
async def look_at_model(model: SeenModel) -> ModelView:
    """One model. For those who see its project."""
    return ModelView.model_validate(dict(model))


@models.put("/{model_id}")
async def edit_model(body: ModelDetails, known: WorkedProject, row: SeenModel, work: WorkOfRequest) -> ModelView:
    """Another name or description, until the first training starts. For the project's researchers."""
    model_id: ModelId = row["model_id"]
    async with work.on(domain.MODEL_AGGREGATE, model_id) as model:
        model.record(
            domain.edit_model(
                model.state, model_id, known.project_id, body.name, body.description, trained=row["trained"]
            )
        )
    return await _model_view(work.db, known.project_id, model_id)


@models.post("/{model_id}/delete", status_code=204)
async def delete_model(
    body: TypedName, actor: AnyUser, known: WorkedProject, row: SeenModel, work: WorkOfRequest
) -> None:
    """Delete a model by typing its name; its run stops. For who made it, the project's owner and admins."""
    _may_delete(row, known, actor)
    async with work.on(domain.MODEL_AGGREGATE, row["model_id"]) as model:
        model.record(domain.delete_model(model.state, row["model_id"], known.project_id, body.name))


def _may_delete(model: Row, project: KnownProject, actor: Actor) -> None:
    if not (actor.role == "admin" or actor.user_id == project.owner or str(actor) == model["created_by"]):
        raise Forbidden("owner-only", "This is for who made the model, the project's owner and admins.")


async def _model_view(db: Connection, project_id: ProjectId, model_id: ModelId) -> ModelView:
    row = await store.model(db, project_id, model_id)
    if row is None:
        raise NotFound("model-not-found")
    return ModelView.model_validate(dict(row))
