"""What `projects` says: projects, each Trust's decision, models."""

from typing import Literal

from flip_contracts.base import Event, ModelId, ProjectId, TrustCode, UserId
from flip_contracts.topics import MODEL, PROJECT

Framework = Literal["nvflare", "flower"]
Job = Literal["nnunet", "custom"]


class ProjectCreated(Event, topic=PROJECT, version=1):
    """A researcher made a project. The owner and the members may see it."""

    project_id: ProjectId
    owner: UserId
    name: str
    description: str
    members: frozenset[UserId]


class ProjectEdited(Event, topic=PROJECT, version=1):
    """The owner changed the draft's name, description or members; the values are the new ones, whole."""

    project_id: ProjectId
    name: str
    description: str
    members: frozenset[UserId]


class ProjectStaged(Event, topic=PROJECT, version=1):
    """The owner asked these Trusts for approval. Details and query are locked from here on."""

    project_id: ProjectId
    trusts: frozenset[TrustCode]
    query_version: int


class ProjectUnstaged(Event, topic=PROJECT, version=1):
    """An admin gave the project back to its owner as a draft, before any Trust had approved."""

    project_id: ProjectId
    reason: str


class ProjectApproved(Event, topic=PROJECT, version=1):
    """An admin recorded that this Trust approved. The project is approved from the first approval."""

    project_id: ProjectId
    trust: TrustCode
    reason: str


class ProjectDeclined(Event, topic=PROJECT, version=1):
    """An admin recorded that this Trust declined. It takes part in nothing."""

    project_id: ProjectId
    trust: TrustCode
    reason: str


class ApprovalWithdrawn(Event, topic=PROJECT, version=1):
    """An approving Trust withdrew: its data are no longer used."""

    project_id: ProjectId
    trust: TrustCode
    reason: str


class EnrichmentConfirmed(Event, topic=PROJECT, version=1):
    """The researcher confirmed that the Trusts' labels are in place. Training can't start before."""

    project_id: ProjectId


class ProjectDeleted(Event, topic=PROJECT, version=1):
    """The owner or an admin deleted the project: its runs stop, its images go."""

    project_id: ProjectId


class ModelCreated(Event, topic=MODEL, version=1):
    """A model was defined in an approved project."""

    model_id: ModelId
    project_id: ProjectId
    name: str
    description: str
    framework: Framework
    job: Job


class ModelEdited(Event, topic=MODEL, version=1):
    """The model's name or description changed, before its first training."""

    model_id: ModelId
    project_id: ProjectId
    name: str
    description: str


class ModelDeleted(Event, topic=MODEL, version=1):
    """The model was deleted; a run of it stops."""

    model_id: ModelId
    project_id: ProjectId
