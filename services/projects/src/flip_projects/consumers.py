"""What the projects service hears, and what it keeps of what it says."""

from flip_chassis.access import project_handlers, user_handlers
from flip_chassis.database import Connection
from flip_chassis.handlers import projection
from flip_contracts.cloudevents import Envelope
from flip_contracts.cohort import CohortAnswered, CohortQuerySaved
from flip_contracts.imaging import DatasetWithdrawn, ImagingReady, LabelsRegistered
from flip_contracts.projects import (
    ApprovalWithdrawn,
    EnrichmentConfirmed,
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
from flip_contracts.scheduler import RunAssigned

from flip_projects import store

# --- its own projects ---------------------------------------------------------------------------------------------


@projection
async def keep_project(event: ProjectCreated, db: Connection, said: Envelope) -> None:
    await store.add_project(db, event, said.time)


@projection
async def keep_details(event: ProjectEdited, db: Connection, said: Envelope) -> None:
    await store.change_details(db, event, said.time)


@projection
async def keep_staging(event: ProjectStaged, db: Connection, said: Envelope) -> None:
    await store.stage(db, event, said.time)


@projection
async def keep_unstaging(event: ProjectUnstaged, db: Connection, said: Envelope) -> None:
    await store.unstage(db, event.project_id, said.time)


@projection
async def keep_approval(event: ProjectApproved, db: Connection, said: Envelope) -> None:
    await store.decide(db, event.project_id, event.trust, "approved", event.reason, said.time)
    await store.set_status(db, event.project_id, "approved", said.time)


@projection
async def keep_refusal(event: ProjectDeclined, db: Connection, said: Envelope) -> None:
    await store.decide(db, event.project_id, event.trust, "declined", event.reason, said.time)


@projection
async def keep_withdrawal(event: ApprovalWithdrawn, db: Connection, said: Envelope) -> None:
    await store.decide(db, event.project_id, event.trust, "withdrawn", event.reason, said.time)


@projection
async def keep_enrichment(event: EnrichmentConfirmed, db: Connection, said: Envelope) -> None:
    await store.confirm_enrichment(db, event.project_id, said.actor, said.time)


@projection
async def keep_deletion(event: ProjectDeleted, db: Connection, said: Envelope) -> None:
    await store.set_status(db, event.project_id, "deleted", said.time)


# --- its own models -----------------------------------------------------------------------------------------------


@projection
async def keep_model(event: ModelCreated, db: Connection, said: Envelope) -> None:
    await store.add_model(db, event, said.actor, said.time)


@projection
async def keep_model_details(event: ModelEdited, db: Connection, said: Envelope) -> None:
    await store.change_model(db, event, said.time)


@projection
async def keep_model_deletion(event: ModelDeleted, db: Connection) -> None:
    await store.delete_model(db, event.model_id)


# --- what others say ----------------------------------------------------------------------------------------------


@projection
async def learn_query(event: CohortQuerySaved, db: Connection) -> None:
    await store.save_query(db, event.project_id, event.query_version)


@projection
async def learn_answer(event: CohortAnswered, db: Connection) -> None:
    await store.save_answer(db, event.project_id, event.query_version, event.trust, event.outcome)


@projection
async def learn_images(event: ImagingReady, db: Connection) -> None:
    await store.images_ready(db, event.project_id, event.trust, ready=True)


@projection
async def learn_withdrawal_of_dataset(event: DatasetWithdrawn, db: Connection) -> None:
    await store.images_ready(db, event.project_id, event.trust, ready=False)


@projection
async def learn_labels(event: LabelsRegistered, db: Connection) -> None:
    await store.labels_registered(db, event.project_id, event.trust, labelled=event.labelled != 0)


@projection
async def learn_training(event: RunAssigned, db: Connection) -> None:
    await store.model_trained(db, event.model_id)


handlers = (
    *user_handlers,
    *project_handlers,
    keep_project,
    keep_details,
    keep_staging,
    keep_unstaging,
    keep_approval,
    keep_refusal,
    keep_withdrawal,
    keep_enrichment,
    keep_deletion,
    keep_model,
    keep_model_details,
    keep_model_deletion,
    learn_query,
    learn_answer,
    learn_images,
    learn_withdrawal_of_dataset,
    learn_labels,
    learn_training,
)
