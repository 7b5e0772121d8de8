"""A net's worker at a Trust: prepares data sets and ends runs, one task after the other.

There is one worker a net and Trust: it owns the client's kit, which can't be run twice. So tasks need no lease; a
worker that was killed does its task again, and every task may be done again.
"""

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flip_chassis.database import UNREACHABLE, Row, connect, notices
from flip_chassis.service import Backbone
from flip_chassis.telemetry import log
from flip_contracts.base import ProjectId, Report, RunId
from flip_contracts.imaging import DeleteImages, TrustForgotProject
from flip_contracts.trainer_node import (
    EndRun,
    PrepareRun,
    TrustEndedRun,
    TrustPreparedRun,
    TrustRefusedRun,
    WorkerStarted,
)

from flip_trainer_node import app_data, dataset, domain, store, trainers
from flip_trainer_node.preparing import CannotPrepare, NotWanted, Prepared
from flip_trainer_node.settings import WorkerSettings

_RETRY_S = 2.0
_CHANNEL = "task"
_LONGEST_WAIT_S = 30.0
"""After so long it looks for itself: a connection on which nothing is heard may have been cut unnoticed."""
_COHORT_ANSWERS_IN_S = 10.0
_TRAINERS_OWN = ".site"
"""Where trainers keep what they need, by project, below the folder of prepared runs."""

GoOn = Callable[[], bool]
"""Whether what is being prepared is still wanted."""


@dataclass(slots=True)
class Worker:
    """Does what the controller asked of this Trust."""

    settings: WorkerSettings
    stands: Backbone
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Work for ever."""
        while True:
            self.wake.clear()
            try:
                worked = await self._do_next()
            except UNREACHABLE as error:
                log.warning("the database is away; the task is done again", reason=type(error).__name__)
                await asyncio.sleep(_RETRY_S)
                continue
            if not worked:
                await self._until_news()

    async def listen(self) -> None:
        """Wake up where there is a new task, and where one may have been missed."""
        async for _ in notices(self.settings.postgres.get_secret_value(), _CHANNEL):
            self.wake.set()

    async def _until_news(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_WAIT_S):
                await self.wake.wait()

    async def say_started(self) -> None:
        """Say that the framework's client has begun anew."""
        async with self.stands.working() as work:
            await work.say(WorkerStarted(net=self.settings.net))

    async def _do_next(self) -> bool:
        async with self.stands.working() as work:
            task = await store.next_task(work.db)
        if task is None:
            return False
        report = await self._do(task)
        async with self.stands.working() as work, work.db.transaction():
            if report is not None:
                await work.say(report)
            await store.set_done(work.db, task["id"])
        return True

    async def _do(self, task: Row) -> Report | None:
        match task["kind"]:
            case "prepare":
                return await self._prepare(PrepareRun.model_validate(task["command"]))
            case "end":
                return await self._end(EndRun.model_validate(task["command"]))
            case "forget":
                return await self._forget_project(DeleteImages.model_validate(task["command"]).project_id)
            case kind:
                raise ValueError(f"no task is called {kind}")

    # --- preparing ------------------------------------------------------------------------------------------------

    async def _prepare(self, command: PrepareRun) -> Report | None:
        common = {"run_id": command.run_id, "project_id": command.project_id, "attempt": command.attempt}
        await self._end_others(command.run_id)
        try:
            cohort = await self._cohort(command)
            prepared = await self._unless_ended(command, cohort)
        except CannotPrepare as refusal:
            log.warning("the Trust can't take part in a run", run_id=str(command.run_id), reason=refusal.reason)
            return TrustRefusedRun(**common, reason=refusal.reason)
        except NotWanted:
            return None
        members = [(row["person_id"], row["accession_id"]) for row in cohort]
        digest = domain.cohort_digest(command.project_id, members)
        return TrustPreparedRun(**common, cases=prepared.cases, dataset_digest=prepared.digest, cohort_digest=digest)

    async def _cohort(self, command: PrepareRun) -> list[Row]:
        """The members of the project's frozen cohort as it is now.

        Raises CannotPrepare where there are none, the project's images were deleted or the database stays away,
        NotWanted where nobody waits any more.
        """
        async with self.stands.working() as work:
            if await store.is_forgotten(work.db, command.project_id):
                raise CannotPrepare("project-deleted")
        gives_up_at = time.monotonic() + self.settings.cohort_patience.total_seconds()
        while True:
            try:
                members = await self._members(command.project_id)
                break
            except UNREACHABLE as error:
                log.warning("the cohort database is away", run_id=str(command.run_id), reason=type(error).__name__)
                if time.monotonic() >= gives_up_at:
                    raise CannotPrepare("cohort-unreachable") from error
            if await self._is_to_end(command):
                raise NotWanted
            await asyncio.sleep(_RETRY_S)
        if not members:
            raise CannotPrepare("cohort-not-frozen")
        return members

    async def _members(self, project_id: ProjectId) -> list[Row]:
        dsn = self.settings.frozen_cohort.get_secret_value()
        async with asyncio.timeout(_COHORT_ANSWERS_IN_S), connect(dsn) as db:
            return await db.fetch("SELECT * FROM frozen.cohort_member WHERE project_id = $1", project_id)

    async def _is_to_end(self, command: PrepareRun) -> bool:
        async with self.stands.working() as work:
            return await store.is_to_end(work.db, command)

    def _fill(self, command: PrepareRun, cohort: list[Row], go_on: GoOn) -> Prepared:
        """Prepare the run's data. Raises CannotPrepare, whatever is wrong, or NotWanted."""
        try:
            return self._fill_by_mode(command, cohort, go_on)
        except (CannotPrepare, NotWanted):
            raise
        except Exception as error:
            log.error("a run's data can't be prepared", run_id=str(command.run_id), exc_info=error)
            raise CannotPrepare("unexpected-error") from error

    def _fill_by_mode(self, command: PrepareRun, cohort: list[Row], go_on: GoOn) -> Prepared:
        project = self.settings.data / "projects" / str(command.project_id)
        run, minimum_cases = self._folder(command.run_id), self.settings.minimum_cases
        if domain.is_app(command.payload):
            studies = [
                app_data.Study(row["accession_id"], row["rows"]) for row in cohort if row["accession_id"] is not None
            ]
            query = cohort[0]["query_digest"]
            app = app_data.Request(project, command.project_id, run, minimum_cases, query, studies)
            return app_data.prepare(app, go_on)
        name, predicts = domain.dataset_of(command.payload), domain.predicts(command.payload)
        request = dataset.Request(project, command.project_id, run, name, minimum_cases, unlabelled=predicts)
        return dataset.prepare(request, go_on)

    async def _unless_ended(self, command: PrepareRun, cohort: list[Row]) -> Prepared:
        """Prepare in a thread, which stops between two files when the attempt is to be ended."""
        ended = threading.Event()
        preparing = asyncio.create_task(asyncio.to_thread(self._fill, command, cohort, lambda: not ended.is_set()))
        preparing.add_done_callback(lambda _: self.wake.set())
        try:
            while not preparing.done():
                self.wake.clear()
                if await self._is_to_end(command):
                    ended.set()
                await self._until_news()
            return preparing.result()
        finally:
            ended.set()
            await asyncio.gather(preparing, return_exceptions=True)

    # --- ending ---------------------------------------------------------------------------------------------------

    async def _end(self, command: EndRun) -> Report:
        await trainers.end(self.settings.runtime.trainer_script, command.run_id)
        if command.forget:
            await asyncio.to_thread(self._forget_run, command.project_id, command.run_id)
        return TrustEndedRun(run_id=command.run_id, project_id=command.project_id, attempt=command.attempt)

    async def _end_others(self, run_id: RunId) -> None:
        """End every process of the runs that had the net before: the word to end one may be heard after this run's.

        Topics keep the order of what is said on one run, not on two.
        """
        async with self.stands.working() as work:
            others = await store.others_not_ended(work.db, run_id)
        for other in others:
            await trainers.end(self.settings.runtime.trainer_script, other)

    def _folder(self, run_id: RunId) -> Path:
        return self.settings.runs / str(run_id)

    def _trainers_own(self, project_id: ProjectId) -> Path:
        return self.settings.runs / _TRAINERS_OWN / str(project_id)

    def _forget_run(self, project_id: ProjectId, run_id: RunId) -> None:
        """Delete the run's data set and what its trainer kept; what is preprocessed serves later runs, too."""
        _delete(self._folder(run_id), self._trainers_own(project_id) / "runs" / str(run_id))

    async def _forget_project(self, project_id: ProjectId) -> Report:
        """Leave nothing of a project whose images were deleted. Without its data set no trainer of a run can start."""
        async with self.stands.working() as work:
            runs = await store.runs_of(work.db, project_id)
        await asyncio.to_thread(_delete, *map(self._folder, runs))
        for run_id in runs:
            await trainers.end(self.settings.runtime.trainer_script, run_id)
        await asyncio.to_thread(_delete, self._trainers_own(project_id))
        return TrustForgotProject(project_id=project_id, net=self.settings.net)


def _delete(*folders: Path) -> None:
    """Delete the folders. A trainer may have nested them deeper than Python's own way to delete goes."""
    subprocess.run(("/bin/rm", "-rf", "--", *map(str, folders)), check=True)  # noqa: S603
