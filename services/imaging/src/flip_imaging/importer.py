"""The Trust's import: claims studies that are due, brings each from the PACS into the archive, deletes what must go.

A study is fetched into a private folder, de-identified there, converted, and only then stored in the archive. Every
step can be done again with the same result: a study whose worker was lost is begun anew when its lease has run out.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from flip_chassis.database import UNREACHABLE, Connection
from flip_chassis.refusal import Refused
from flip_chassis.telemetry import log
from flip_contracts.base import ProjectId
from flip_contracts.imaging import TrustDeletedImages

from flip_imaging import domain, store
from flip_imaging.convert import convert_series
from flip_imaging.deidentify import Subject, deidentify_study
from flip_imaging.domain import DATASETS, STUDIES, ImportStarted, Reason, StudyImported
from flip_imaging.folders import ListDamaged
from flip_imaging.ports import ImportProblem
from flip_imaging.reports import tell_import
from flip_imaging.store import Claim
from flip_imaging.trust import TrustSide

LOOK_AGAIN_S = 0.5
OUTAGE_PAUSE_S = 1.0
DELETE_AGAIN_S = 10.0


class Importer:
    """Works on the studies of every project at this Trust, as long as it runs."""

    def __init__(self, side: TrustSide) -> None:
        self._side = side
        self._settings = side.settings
        self._holder = uuid4()
        self._lease = timedelta(seconds=side.settings.lease_s)

    async def run(self) -> None:
        """Import and delete until cancelled."""
        self._side.folders.empty_spool()
        await self._list_cases()
        async with asyncio.TaskGroup() as group:
            group.create_task(_again_and_again(self._renew_leases, self._settings.lease_s / 3))
            group.create_task(_again_and_again(self.delete_one_project, LOOK_AGAIN_S))
            for _ in range(self._settings.imports_at_once):
                group.create_task(_again_and_again(self.import_one_study, LOOK_AGAIN_S))

    async def import_one_study(self) -> bool:
        """Work on the study that is due longest. False: there was none, or the PACS may not be asked now."""
        async with self._side.stands.pool.acquire() as db:
            claim = await store.claim(db, self._holder, self._lease) if await self._may_pull(db) else None
        if claim is None:
            self._side.workshop.rest()
            return False
        try:
            await self._work_on(claim)
        finally:
            async with self._side.stands.pool.acquire() as db:
                await store.release(db, self._holder, claim.study_id)
        return True

    async def delete_one_project(self) -> bool:
        """Delete the images of a project that must go and that nobody works on. False: there was none."""
        async with self._side.stands.pool.acquire() as db:
            waiting = await store.projects(db, "deleting")
            free = [project_id for project_id in waiting if not await store.held(db, project_id)]
            studies = await store.study_names(db, free[0]) if free else []
        if not free:
            return False
        try:
            for _, case in studies:
                await self._side.archive.delete_case(case)
        except ImportProblem as problem:
            log.warning("a project's images can't be deleted yet", project_id=str(free[0]), reason=problem.reason)
            await asyncio.sleep(DELETE_AGAIN_S)
            return False
        await asyncio.to_thread(self._side.folders.remove_project, free[0])
        await self._note_deletion(free[0], [study_id for study_id, _ in studies])
        return True

    # --- one study ------------------------------------------------------------------------------------------------

    async def _work_on(self, claim: Claim) -> None:
        if not await self._begin(claim):
            return
        try:
            outcome = await self._import(claim)
        except ImportProblem as problem:
            outcome = problem.reason
            log.info("an import failed", study_id=str(claim.study_id), reason=outcome, detail=str(problem))
        except Exception as error:
            # A study that trips over a mistake of ours must not stop the others. The text may hold a patient's data.
            outcome = "internal-error"
            where = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            log.error("an import broke", study_id=str(claim.study_id), error=type(error).__name__, where=where)
        await self._end(claim, outcome)

    async def _begin(self, claim: Claim) -> bool:
        async with self._side.stands.working() as work, work.db.transaction():
            if not await store.lock_project(work.db, claim.project_id):
                return False
            if await store.dataset(work.db, claim.project_id) is not None:
                return False  # it waits until the data set is given up
            try:
                async with work.on(STUDIES, claim.study_id) as study:
                    event = domain.begin(study.state, datetime.now(UTC), self._settings.retries)
                    study.record(event)
            except Refused as refusal:
                log.info("a study is not to be begun", study_id=str(claim.study_id), state=refusal.facts["state"])
                return False
            await tell_import(work, claim.project_id, self._settings.disclosure_threshold)
        return isinstance(event, ImportStarted)

    async def _import(self, claim: Claim) -> StudyImported:
        side = self._side
        subject = Subject(claim.project_id, claim.accession_number)
        with side.folders.scratch() as scratch:
            original, clean, image = scratch / "original", scratch / "clean", scratch / "image.nii.gz"
            original.mkdir()
            clean.mkdir()
            found = await side.pacs.find(claim.accession_number)
            files = await side.pacs.fetch(found, original)
            written, report = await side.workshop.run(
                deidentify_study, files, clean, subject, side.key(claim.project_id), side.policy
            )
            converted = await side.workshop.run(convert_series, written, image)
            await side.archive.store(written)
            image.replace(side.folders.image(claim.project_id, report.case))
        return StudyImported(
            study_id=claim.study_id,
            project_id=claim.project_id,
            patient=report.patient,
            modality=converted.modality,
            study_instance_uid=converted.study_instance_uid,
            series_instance_uid=converted.series_instance_uid,
            frame_of_reference_uid=converted.frame_of_reference_uid,
            image_sha256=converted.sha256,
            instances=report.instances,
            actions=report.actions,
            left_out=report.left_out,
        )

    async def _end(self, claim: Claim, outcome: StudyImported | Reason) -> None:
        async with self._side.stands.working() as work, work.db.transaction():
            if not await store.lock_project(work.db, claim.project_id):
                return  # it is being deleted, and this study with it
            async with work.on(STUDIES, claim.study_id) as study:
                if isinstance(outcome, StudyImported):
                    study.record(domain.finish(study.state, outcome))
                else:
                    study.record(domain.fail(study.state, outcome, datetime.now(UTC), self._settings.retries))
            await tell_import(work, claim.project_id, self._settings.disclosure_threshold)
            if isinstance(outcome, StudyImported):
                await self._list_project(work.db, claim.project_id)

    # --- the rest -------------------------------------------------------------------------------------------------

    async def _may_pull(self, db: Connection) -> bool:
        return self._settings.pull_hours.allow(datetime.now().astimezone()) and await store.pulling_allowed(db)

    async def _list_cases(self) -> None:
        """Bring every manifest up to date: the process may have been lost between a change and its listing."""
        async with self._side.stands.pool.acquire() as db:
            for project_id in await store.projects(db, "active"):
                async with db.transaction():
                    if await store.lock_project(db, project_id):
                        await self._list_project(db, project_id)
                        await self._side.remove_other_datasets(db, project_id)

    async def _list_project(self, db: Connection, project_id: ProjectId) -> None:
        try:
            await self._side.write_manifest(db, project_id)
        except ListDamaged as damaged:
            log.error("a data set must be registered again", project_id=str(project_id), its_list_is=str(damaged))

    async def _renew_leases(self) -> bool:
        async with self._side.stands.pool.acquire() as db:
            await store.renew(db, self._holder, self._lease)
        return False

    async def _note_deletion(self, project_id: ProjectId, studies: list[UUID]) -> None:
        async with self._side.stands.working() as work, work.db.transaction():
            for study_id in studies:
                async with work.on(STUDIES, study_id) as study:
                    study.record(domain.delete(study.state))
            await store.forget_accessions(work.db, project_id)
            async with work.on(DATASETS, project_id) as dataset:
                dataset.record(*domain.forget(dataset.state, project_id))
            await work.say(TrustDeletedImages(project_id=project_id))


async def _again_and_again(step: Callable[[], Awaitable[bool]], pause_s: float) -> None:
    """Repeat a step, with a pause where it found nothing to do, and through any time that Postgres is away."""
    while True:
        try:
            found = await step()
        except (*UNREACHABLE, TimeoutError) as error:
            log.warning("Postgres is away", reason=type(error).__name__)
            await asyncio.sleep(OUTAGE_PAUSE_S)
        else:
            await asyncio.sleep(0 if found else pause_s)
