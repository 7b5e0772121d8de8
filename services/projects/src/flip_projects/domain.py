"""Projects from draft to deletion, each Trust's decision, models. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from flip_chassis.aggregate import Aggregate
from flip_chassis.refusal import Refused, require
from flip_contracts.base import Message, ModelId, ProjectId, TrustCode, UserId
from flip_contracts.projects import (
    ApprovalWithdrawn,
    EnrichmentConfirmed,
    Framework,
    Job,
    ModelCreated,
    ModelDeleted,
    ModelEdited,
    ProjectApproved,
    ProjectCreated,
    ProjectDeclined,
    ProjectDeleted,
    ProjectEdited,
    ProjectStaged,
    ProjectUnstaged,
)
from flip_contracts.topics import MODEL, PROJECT

Status = Literal["absent", "draft", "staged", "approved", "deleted"]
Decision = Literal["asked", "approved", "declined", "withdrawn"]
Answer = Literal["approved", "declined", "withdrawn"]

_FOLLOWS: Mapping[Answer, Decision] = {"approved": "asked", "declined": "asked", "withdrawn": "approved"}
"""The state of a Trust's decision that each answer changes."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project. `enriched` are the Trusts for whose labels enrichment was confirmed."""

    status: Status = "absent"
    name: str = ""
    owner: UserId | None = None
    decisions: Mapping[TrustCode, Decision] = field(default_factory=dict[TrustCode, Decision])
    enriched: frozenset[TrustCode] = frozenset()

    @property
    def approved(self) -> frozenset[TrustCode]:
        """The Trusts that take part."""
        return frozenset(trust for trust, decision in self.decisions.items() if decision == "approved")


def evolve(project: Project, event: Message) -> Project:  # noqa: PLR0911 (one an event)
    """The project after `event`."""
    match event:
        case ProjectCreated(owner=owner, name=name):
            return Project("draft", name, owner)
        case ProjectEdited(name=name):
            return replace(project, name=name)
        case ProjectStaged(trusts=trusts):
            return replace(project, status="staged", decisions=dict.fromkeys(trusts, "asked"))
        case ProjectUnstaged():
            return replace(project, status="draft", decisions={})
        case ProjectApproved(trust=trust):
            return replace(_decided(project, trust, "approved"), status="approved")
        case ProjectDeclined(trust=trust):
            return _decided(project, trust, "declined")
        case ApprovalWithdrawn(trust=trust):
            return _decided(project, trust, "withdrawn")
        case EnrichmentConfirmed():
            return replace(project, enriched=project.approved)
        case ProjectDeleted():
            return replace(project, status="deleted")
        case _:
            return project


def _decided(project: Project, trust: TrustCode, decision: Decision) -> Project:
    return replace(project, decisions={**project.decisions, trust: decision})


PROJECT_AGGREGATE = Aggregate(PROJECT, Project(), evolve)


# --- commands of a project ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Details:
    """What a project says of itself."""

    name: str
    description: str
    members: frozenset[UserId]


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """The version of the query that was saved last, and the Trusts that have answered it with a count."""

    version: int
    answered: frozenset[TrustCode]


@dataclass(frozen=True, slots=True)
class TrustReadiness:
    """How far a Trust's images are."""

    images_ready: bool = False
    labelled: bool = False


def create(project: Project, project_id: ProjectId, owner: UserId, details: Details) -> ProjectCreated:
    """A new draft (PROJ-1). The owner is no member besides."""
    require(project.status == "absent", "project-already-known", status=project.status)
    return ProjectCreated(
        project_id=project_id,
        owner=owner,
        name=details.name,
        description=details.description,
        members=details.members - {owner},
    )


def edit(project: Project, project_id: ProjectId, details: Details) -> ProjectEdited:
    """Other details, while the project is a draft (PROJ-2)."""
    _must_be_draft(project)
    return ProjectEdited(
        project_id=project_id,
        name=details.name,
        description=details.description,
        members=details.members - {project.owner},
    )


def stage(
    project: Project, project_id: ProjectId, trusts: frozenset[TrustCode], query: SavedQuery | None
) -> ProjectStaged:
    """Ask `trusts` for approval (PROJ-5). Each must have answered the saved query with a count."""
    _must_be_draft(project)
    require(trusts, "no-trust-named", "Name the Trusts to ask.", field="trusts")
    if query is None:
        raise Refused("query-not-saved", "Save a cohort query first.")
    unanswered = sorted(trusts - query.answered)
    require(
        not unanswered,
        "trusts-without-answer",
        "These Trusts have not answered the saved query with a count.",
        field="trusts",
        trusts=unanswered,
        query_version=query.version,
    )
    return ProjectStaged(project_id=project_id, trusts=trusts, query_version=query.version)


def _must_be_draft(project: Project) -> None:
    require(
        project.status == "draft",
        "project-not-in-draft",
        "Details and query are locked. Only an admin's un-stage opens them again, before any Trust has approved.",
        status=project.status,
    )


def unstage(project: Project, project_id: ProjectId, reason: str) -> ProjectUnstaged:
    """Give the project back to its owner as a draft."""
    require(
        project.status == "staged",
        "project-not-staged",
        "Only a staged project that no Trust has approved can be given back.",
        status=project.status,
    )
    return ProjectUnstaged(project_id=project_id, reason=reason)


def decide(
    project: Project, project_id: ProjectId, trust: TrustCode, answer: Answer, reason: str
) -> ProjectApproved | ProjectDeclined | ApprovalWithdrawn:
    """Record a Trust's answer (PROJ-6), or that it withdrew its approval (PROJ-7)."""
    require(project.status in {"staged", "approved"}, "project-not-staged", status=project.status)
    require(trust in project.decisions, "trust-not-asked", field="trust", trust=trust, asked=sorted(project.decisions))
    decision = project.decisions[trust]
    require(
        decision == _FOLLOWS[answer],
        "decision-not-possible",
        f"From {decision} there is no way to {answer}.",
        field="decision",
        trust=trust,
        decision=decision,
    )
    match answer:
        case "approved":
            return ProjectApproved(project_id=project_id, trust=trust, reason=reason)
        case "declined":
            return ProjectDeclined(project_id=project_id, trust=trust, reason=reason)
        case "withdrawn":
            return ApprovalWithdrawn(project_id=project_id, trust=trust, reason=reason)


def confirm_enrichment(
    project: Project, project_id: ProjectId, ready: Mapping[TrustCode, TrustReadiness]
) -> EnrichmentConfirmed:
    """Confirm that every approving Trust's labels are in place (IMG-6). Refuses with all that is missing at once."""
    _must_be_approved(project)
    require(project.approved, "no-trust-takes-part", "Every Trust that approved has withdrawn.")
    missing = missing_for_enrichment(project.approved, ready)
    require(not missing, "enrichment-not-ready", "Some Trusts are not ready yet.", missing=missing)
    require(not project.approved <= project.enriched, "enrichment-already-confirmed")
    return EnrichmentConfirmed(project_id=project_id)


def missing_for_enrichment(
    trusts: frozenset[TrustCode], ready: Mapping[TrustCode, TrustReadiness]
) -> list[dict[str, str]]:
    """What is missing at each of these Trusts: `images-not-ready`, `labels-not-registered`."""
    missing: list[dict[str, str]] = []
    for trust in sorted(trusts):
        at = ready.get(trust, TrustReadiness())
        if not at.images_ready:
            missing.append({"trust": trust, "code": "images-not-ready"})
        if not at.labelled:
            missing.append({"trust": trust, "code": "labels-not-registered"})
    return missing


def delete(project: Project, project_id: ProjectId, typed_name: str) -> ProjectDeleted:
    """Delete the project in any state, for whoever types its name (PROJ-4)."""
    require(project.status not in {"absent", "deleted"}, "project-not-found", status=project.status)
    _must_match(typed_name, project.name)
    return ProjectDeleted(project_id=project_id)


def _must_be_approved(project: Project) -> None:
    require(
        project.status == "approved", "project-not-approved", "A Trust has to approve first.", status=project.status
    )


def _must_match(typed: str, name: str) -> None:
    require(typed == name, "name-does-not-match", "Type the name exactly as it is.", field="name")


# --- models -------------------------------------------------------------------------------------------------------

ModelStatus = Literal["absent", "defined", "deleted"]


@dataclass(frozen=True, slots=True)
class Model:
    """What is to be trained."""

    status: ModelStatus = "absent"
    project_id: ProjectId | None = None
    name: str = ""


def evolve_model(model: Model, event: Message) -> Model:
    """The model after `event`."""
    match event:
        case ModelCreated(project_id=project_id, name=name):
            return Model("defined", project_id, name)
        case ModelEdited(name=name):
            return replace(model, name=name)
        case ModelDeleted():
            return replace(model, status="deleted")
        case _:
            return model


MODEL_AGGREGATE = Aggregate(MODEL, Model(), evolve_model)


@dataclass(frozen=True, slots=True)
class Definition:
    """What a new model is."""

    name: str
    description: str
    framework: Framework
    job: Job


def create_model(
    model: Model, model_id: ModelId, project: Project, project_id: ProjectId, definition: Definition
) -> ModelCreated:
    """A new model in an approved project (MODEL-1)."""
    _must_be_approved(project)
    require(model.status == "absent", "model-already-known", status=model.status)
    return ModelCreated(
        model_id=model_id,
        project_id=project_id,
        name=definition.name,
        description=definition.description,
        framework=definition.framework,
        job=definition.job,
    )


def edit_model(
    model: Model, model_id: ModelId, project_id: ProjectId, name: str, description: str, *, trained: bool
) -> ModelEdited:
    """Another name or description, until the first training starts."""
    require(model.status == "defined", "model-not-found", status=model.status)
    require(not trained, "model-already-trained", "Its first training has started.")
    return ModelEdited(model_id=model_id, project_id=project_id, name=name, description=description)


def delete_model(model: Model, model_id: ModelId, project_id: ProjectId, typed_name: str) -> ModelDeleted:
    """Delete the model, for whoever types its name; a run of it stops."""
    require(model.status == "defined", "model-not-found", status=model.status)
    _must_match(typed_name, model.name)
    return ModelDeleted(model_id=model_id, project_id=project_id)
