"""What `imaging` hears, and its projections of what it says itself, in each of its roles."""

from collections.abc import Sequence

from flip_chassis.access import project_handlers, user_handlers
from flip_chassis.database import Connection
from flip_chassis.handlers import Handler, projection, reaction, trust_of
from flip_chassis.telemetry import log
from flip_chassis.work import Work
from flip_contracts.base import ProjectId, TrustCode
from flip_contracts.cloudevents import Envelope
from flip_contracts.cohort import CohortFrozen
from flip_contracts.imaging import (
    DatasetRegistered,
    DatasetWithdrawn,
    DeleteImages,
    ImagesDeleted,
    ImagingProgressed,
    ImagingReady,
    ImportFailed,
    ImportStudies,
    LabelsRegistered,
    TrustDeletedImages,
    TrustForgotProject,
    TrustImagesReady,
    TrustImportFailed,
    TrustImportProgressed,
    TrustRegisteredDataset,
    TrustRegisteredLabels,
    TrustWithdrewDataset,
)
from flip_contracts.projects import ProjectDeleted
from flip_contracts.scheduler import RunAssigned
from flip_contracts.trainer_node import PrepareRun

from flip_imaging import domain, store
from flip_imaging.domain import (
    STUDIES,
    DatasetAdopted,
    DatasetDropped,
    ImportRetried,
    ImportStarted,
    LabelRegistered,
    ReimportCapReached,
    StudyDeleted,
    StudyImported,
    StudyImportFailed,
    StudyQueued,
)
from flip_imaging.frozen import FrozenCohort
from flip_imaging.pseudonyms import ProjectKey
from flip_imaging.reports import tell_import

# --- hub: what is asked of the Trusts -----------------------------------------------------------------------------


@projection
async def learn_asked(event: CohortFrozen, db: Connection, said: Envelope) -> None:
    await db.execute(
        "INSERT INTO trust_imaging (project_id, trust, state, changed_at) VALUES ($1, $2, 'asked', $3)"
        " ON CONFLICT (project_id, trust) DO NOTHING",
        event.project_id,
        event.trust,
        said.time,
    )


@reaction
async def ask_for_images(event: CohortFrozen, work: Work) -> None:
    await work.say(ImportStudies(project_id=event.project_id), to=event.trust)


@reaction
async def ask_for_deletion(event: ProjectDeleted, work: Work) -> None:
    rows = await work.db.fetch("SELECT trust FROM trust_imaging WHERE project_id = $1 ORDER BY trust", event.project_id)
    for row in rows:
        await work.say(DeleteImages(project_id=event.project_id), to=row["trust"])


# --- hub: what the Trusts report ----------------------------------------------------------------------------------


async def _asked(work: Work, project_id: ProjectId, said: Envelope) -> TrustCode | None:
    """The Trust that reports, None where it was never asked for this project's images."""
    trust = trust_of(said)
    asked = await work.db.fetchval(
        "SELECT true FROM trust_imaging WHERE project_id = $1 AND trust = $2", project_id, trust
    )
    if not asked:
        log.warning("a Trust reports on a project that it has no part in", trust=trust, project_id=str(project_id))
        return None
    return trust


@reaction
async def hear_progress(report: TrustImportProgressed, work: Work, said: Envelope) -> None:
    if trust := await _asked(work, report.project_id, said):
        await work.say(ImagingProgressed(project_id=report.project_id, trust=trust, counts=report.counts))


@reaction
async def hear_failure(report: TrustImportFailed, work: Work, said: Envelope) -> None:
    if trust := await _asked(work, report.project_id, said):
        await work.say(
            ImportFailed(project_id=report.project_id, trust=trust, reason=report.reason, studies=report.studies)
        )


@reaction
async def hear_ready(report: TrustImagesReady, work: Work, said: Envelope) -> None:
    if trust := await _asked(work, report.project_id, said):
        await work.say(
            ImagingReady(project_id=report.project_id, trust=trust, imported=report.imported, failed=report.failed)
        )


@reaction
async def hear_labels(report: TrustRegisteredLabels, work: Work, said: Envelope) -> None:
    if trust := await _asked(work, report.project_id, said):
        await work.say(
            LabelsRegistered(project_id=report.project_id, trust=trust, labelled=report.labelled, labels=report.labels)
        )


@reaction
async def hear_dataset(report: TrustRegisteredDataset, work: Work, said: Envelope) -> None:
    if trust := await _asked(work, report.project_id, said):
        await work.say(
            DatasetRegistered(
                project_id=report.project_id,
                trust=trust,
                cases=report.cases,
                channels=report.channels,
                labels=report.labels,
                dataset_sha256=report.dataset_sha256,
            )
        )


@reaction
async def hear_withdrawal(report: TrustWithdrewDataset, work: Work, said: Envelope) -> None:
    if trust := await _asked(work, report.project_id, said):
        await work.say(DatasetWithdrawn(project_id=report.project_id, trust=trust))


@reaction
async def hear_deletion(report: TrustDeletedImages, work: Work, said: Envelope) -> None:
    await _tell_deletion(work, report.project_id, said)


@reaction
async def hear_of_forgetful_net(report: TrustForgotProject, work: Work, said: Envelope) -> None:
    await _tell_deletion(work, report.project_id, said)


async def _tell_deletion(work: Work, project_id: ProjectId, said: Envelope) -> None:
    """Say it once nothing is left of the project at the Trust, neither with its imaging service nor with a net."""
    trust = await _asked(work, project_id, said)
    if trust and await _all_gone(work.db, project_id, trust):
        await work.say(ImagesDeleted(project_id=project_id, trust=trust))


async def _all_gone(db: Connection, project_id: ProjectId, trust: TrustCode) -> bool:
    return await db.fetchval(
        "SELECT images_gone AND state <> 'deleted' AND NOT EXISTS"
        " (SELECT FROM net_at_trust n WHERE (n.project_id, n.trust) = (t.project_id, t.trust) AND NOT n.forgot)"
        " FROM trust_imaging t WHERE project_id = $1 AND trust = $2",
        project_id,
        trust,
    )


# --- hub: what it keeps of others ---------------------------------------------------------------------------------


@projection
async def learn_nets(event: RunAssigned, db: Connection) -> None:
    await db.executemany(
        "INSERT INTO net_at_trust (project_id, trust, net) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        [(event.project_id, trust, event.net) for trust in sorted(event.trusts)],
    )


@projection
async def keep_end_of_images(report: TrustDeletedImages, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE trust_imaging SET images_gone = true WHERE project_id = $1 AND trust = $2",
        report.project_id,
        trust_of(said),
    )


@projection
async def keep_forgetful_net(report: TrustForgotProject, db: Connection, said: Envelope) -> None:
    await db.execute(
        "INSERT INTO net_at_trust (project_id, trust, net, forgot) VALUES ($1, $2, $3, true)"
        " ON CONFLICT (project_id, trust, net) DO UPDATE SET forgot = true",
        report.project_id,
        trust_of(said),
        report.net,
    )


# --- hub: what it said itself -------------------------------------------------------------------------------------


@projection
async def keep_progress(event: ImagingProgressed, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE trust_imaging SET counts = $3, state = 'importing', changed_at = $4"
        " WHERE project_id = $1 AND trust = $2",
        event.project_id,
        event.trust,
        event.counts.model_dump(),
        said.time,
    )


@projection
async def keep_failure(event: ImportFailed, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE trust_imaging SET failures = failures || $3, changed_at = $4 WHERE project_id = $1 AND trust = $2",
        event.project_id,
        event.trust,
        {event.reason: event.studies},
        said.time,
    )


@projection
async def keep_ready(event: ImagingReady, db: Connection, said: Envelope) -> None:
    await _set_state(db, event.project_id, event.trust, "ready", said)


@projection
async def keep_deletion(event: ImagesDeleted, db: Connection, said: Envelope) -> None:
    await _set_state(db, event.project_id, event.trust, "deleted", said)


async def _set_state(db: Connection, project_id: ProjectId, trust: TrustCode, state: str, said: Envelope) -> None:
    await db.execute(
        "UPDATE trust_imaging SET state = $3, changed_at = $4 WHERE project_id = $1 AND trust = $2",
        project_id,
        trust,
        state,
        said.time,
    )


@projection
async def keep_labels(event: LabelsRegistered, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE trust_imaging SET labelled = $3, labels = $4, changed_at = $5 WHERE project_id = $1 AND trust = $2",
        event.project_id,
        event.trust,
        event.labelled,
        event.labels,
        said.time,
    )


@projection
async def keep_dataset(event: DatasetRegistered, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE trust_imaging SET dataset = $3, changed_at = $4 WHERE project_id = $1 AND trust = $2",
        event.project_id,
        event.trust,
        {"cases": event.cases, "channels": event.channels, "dataset_sha256": event.dataset_sha256},
        said.time,
    )


@projection
async def keep_withdrawal(event: DatasetWithdrawn, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE trust_imaging SET dataset = NULL, labelled = NULL, labels = '{}', state = 'importing', changed_at = $3"
        " WHERE project_id = $1 AND trust = $2",
        event.project_id,
        event.trust,
        said.time,
    )


hub_handlers = (
    *user_handlers,
    *project_handlers,
    learn_asked,
    ask_for_images,
    ask_for_deletion,
    hear_progress,
    hear_failure,
    hear_ready,
    hear_labels,
    hear_dataset,
    hear_withdrawal,
    learn_nets,
    keep_end_of_images,
    keep_forgetful_net,
    hear_deletion,
    hear_of_forgetful_net,
    keep_progress,
    keep_failure,
    keep_ready,
    keep_deletion,
    keep_labels,
    keep_dataset,
    keep_withdrawal,
)


# --- Trust: what the hub asks -------------------------------------------------------------------------------------


@projection
async def learn_project(command: ImportStudies, db: Connection, said: Envelope) -> None:
    await db.execute(
        "INSERT INTO imaging_project (project_id, state, asked_at) VALUES ($1, 'active', $2)"
        " ON CONFLICT (project_id) DO NOTHING",
        command.project_id,
        said.time,
    )


@projection
async def learn_deletion(command: DeleteImages, db: Connection) -> None:
    await db.execute(
        "UPDATE imaging_project SET state = 'deleting' WHERE project_id = $1 AND state = 'active'", command.project_id
    )


@projection
async def learn_training(command: PrepareRun, db: Connection) -> None:
    await db.execute("UPDATE imaging_project SET training = true WHERE project_id = $1", command.project_id)


def queue_studies(cohort: FrozenCohort, trust_key: bytes, threshold: int) -> Handler:
    """The reaction that queues each study of the frozen cohort that isn't known yet (IMG-1)."""

    @reaction
    async def queue_studies(command: ImportStudies, work: Work) -> None:
        project_id = command.project_id
        if not await store.lock_project(work.db, project_id):
            return
        known = await store.known_accessions(work.db, project_id)
        key = ProjectKey.derive(trust_key, project_id)
        for accession_number in await cohort.accession_numbers(project_id):
            if accession_number in known:
                continue
            study_id = key.study_id(accession_number)
            async with work.on(STUDIES, study_id) as study:
                study.record(*domain.queue(study.state, study_id, project_id, key.case(accession_number)))
            await store.keep_accession(work.db, study_id, project_id, accession_number)
        await tell_import(work, project_id, threshold)

    return queue_studies


# --- Trust: what it said itself -----------------------------------------------------------------------------------


@projection
async def keep_queued(event: StudyQueued, db: Connection, said: Envelope) -> None:
    await db.execute(
        "INSERT INTO study (study_id, project_id, case_name, state, due_at, changed_at)"
        " VALUES ($1, $2, $3, 'queued', $4, $4)",
        event.study_id,
        event.project_id,
        event.case,
        said.time,
    )


@projection
async def keep_started(event: ImportStarted, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE study SET state = 'importing', attempts = $2, changed_at = $3 WHERE study_id = $1",
        event.study_id,
        event.attempt,
        said.time,
    )


@projection
async def keep_imported(event: StudyImported, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE study SET state = 'imported', reason = NULL, modality = $2, image_sha256 = $3, patient = $4,"
        " study_instance_uid = $5, frame_of_reference_uid = $6, report = $7, changed_at = $8 WHERE study_id = $1",
        event.study_id,
        event.modality,
        event.image_sha256,
        event.patient,
        event.study_instance_uid,
        event.frame_of_reference_uid,
        {"instances": event.instances, "actions": event.actions, "left_out": event.left_out},
        said.time,
    )


@projection
async def keep_failed(event: StudyImportFailed, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE study SET state = 'failed', reason = $2, due_at = $3, changed_at = $4 WHERE study_id = $1",
        event.study_id,
        event.reason,
        event.retry_at,
        said.time,
    )


@projection
async def keep_capped(event: ReimportCapReached, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE study SET state = 'capped', reason = $2, changed_at = $3 WHERE study_id = $1",
        event.study_id,
        event.reason,
        said.time,
    )


@projection
async def keep_retried(event: ImportRetried, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE study SET state = 'queued', attempts = 0, due_at = $2, changed_at = $2 WHERE study_id = $1",
        event.study_id,
        said.time,
    )


@projection
async def keep_label(event: LabelRegistered, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE study SET label_sha256 = $2, labels = $3, changed_at = $4 WHERE study_id = $1",
        event.study_id,
        event.label_sha256,
        event.labels,
        said.time,
    )


@projection
async def keep_deleted(event: StudyDeleted, db: Connection, said: Envelope) -> None:
    await db.execute(
        "UPDATE study SET state = 'deleted', changed_at = $2 WHERE study_id = $1", event.study_id, said.time
    )


@projection
async def keep_adopted(event: DatasetAdopted, db: Connection) -> None:
    await db.execute(
        "INSERT INTO dataset (project_id, name, cases, channels, labels, dataset_sha256, manifest_sha256)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (project_id) DO UPDATE SET name = excluded.name,"
        " cases = excluded.cases, channels = excluded.channels, labels = excluded.labels,"
        " dataset_sha256 = excluded.dataset_sha256, manifest_sha256 = excluded.manifest_sha256",
        event.project_id,
        event.name,
        event.cases,
        event.channels,
        event.labels,
        event.dataset_sha256,
        event.manifest_sha256,
    )


@projection
async def keep_dropped(event: DatasetDropped, db: Connection) -> None:
    await db.execute("DELETE FROM dataset WHERE project_id = $1", event.project_id)


@projection
async def keep_project_deleted(report: TrustDeletedImages, db: Connection) -> None:
    await db.execute("UPDATE imaging_project SET state = 'deleted' WHERE project_id = $1", report.project_id)


def trust_handlers(cohort: FrozenCohort, trust_key: bytes, threshold: int) -> Sequence[Handler]:
    """Everything that a Trust's role hears and keeps."""
    return (
        learn_project,
        learn_deletion,
        learn_training,
        queue_studies(cohort, trust_key, threshold),
        keep_queued,
        keep_started,
        keep_imported,
        keep_failed,
        keep_capped,
        keep_retried,
        keep_label,
        keep_adopted,
        keep_dropped,
        keep_deleted,
        keep_project_deleted,
    )
