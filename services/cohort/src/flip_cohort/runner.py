"""Does a Trust's jobs: answers queries and freezes cohorts, outside of the inbox, a lease at a time."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flip_chassis.database import UNREACHABLE, Connection
from flip_chassis.log import Cause
from flip_chassis.refusal import Refused, require
from flip_chassis.service import Backbone
from flip_chassis.telemetry import log
from flip_chassis.work import Work, own_work
from flip_contracts.base import Released
from flip_contracts.cohort import (
    Outcome,
    TrustAnsweredQuery,
    TrustFrozeCohort,
    TrustRefusedFreeze,
    TrustTookUpQuery,
)

from flip_cohort import disclosure, domain, guard, reader, trust_store
from flip_cohort.disclosure import Rules
from flip_cohort.domain import FrozenCohort
from flip_cohort.reader import Found, Limits, OmopUnreachable, QueryFailed
from flip_cohort.settings import TrustSettings
from flip_cohort.trust_store import Job, Query

_LOOK_AGAIN_S = 0.25
_OUTAGE_PAUSE = timedelta(seconds=5)
_LEASE_MARGIN = timedelta(minutes=2)
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be said of a query, with the persons behind it where that is a number."""

    report: TrustAnsweredQuery
    persons: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Runner:
    """Works off the jobs of one Trust."""

    stands: Backbone
    settings: TrustSettings
    rules: Rules

    async def work_off(self) -> None:
        """Do jobs as they come, several at once."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.settings.queries_at_once):
                group.create_task(self._work_off())

    async def _work_off(self) -> None:
        while True:
            try:
                busy = await self.do_one()
            except UNREACHABLE as error:
                log.warning("Postgres is away; jobs wait", reason=type(error).__name__)
                busy = False
            if not busy:
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def do_one(self) -> bool:
        """Claim and do a job. False where none is due."""
        async with self.stands.pool.acquire() as db:
            job = await trust_store.claim_job(db, timedelta(seconds=self.settings.statement_timeout_s) + _LEASE_MARGIN)
        if job is None:
            return False
        try:
            await (self._answer(job) if job.kind == "answer" else self._freeze(job))
        except OmopUnreachable:
            log.warning("the OMOP database is away; a job waits", project_id=str(job.project_id))
            async with self.stands.pool.acquire() as db:
                await trust_store.postpone_job(db, job, _OUTAGE_PAUSE)
        return True

    # --- answering ----------------------------------------------------------------------------------------------------

    async def _answer(self, job: Job) -> None:
        async with self.stands.pool.acquire() as db:
            query = await trust_store.query(db, job.project_id, job.version)
        assert query is not None, "a job to answer is written with its query"
        if job.attempts == 1:
            async with self._working(job) as work:
                await work.say(TrustTookUpQuery(project_id=job.project_id, query_version=job.version))
        answer = await self._answered(job, query)
        async with self._working(job) as work, work.db.transaction():
            if await trust_store.finish_job(work.db, job):
                await work.say(await self._told(work.db, job, answer))

    async def _told(self, db: Connection, job: Job, answer: Answer) -> TrustAnsweredQuery:
        """The report as it may be said beside what was told before, remembering the persons of what is told now."""
        if not answer.persons:
            return answer.report
        await trust_store.lock_told(db, job.project_id)
        earlier = await trust_store.told_persons(db, job.project_id, job.version)
        if any(disclosure.differs_by_few(answer.persons, persons, self.rules) for persons in earlier):
            return _report(job, "refused", reason="too-near-an-earlier-query")
        await trust_store.save_told_persons(db, job.project_id, job.version, answer.persons)
        return answer.report

    async def _answered(self, job: Job, query: Query) -> Answer:
        try:
            await self._require_time_and_budget(job)
            found = await self._found(job, query)
            release = await asyncio.to_thread(disclosure.release, found.persons, found.distributions, self.rules)
            if release.persons == "suppressed":
                return Answer(_report(job, "suppressed", persons="suppressed"))
        except Refused as refused:
            return Answer(_report(job, "refused", reason=refused.code))
        except QueryFailed as failed:
            return Answer(_report(job, failed.outcome, reason=failed.reason))
        return Answer(
            _report(job, "answered", persons=release.persons, distributions=release.distributions), found.persons
        )

    async def _require_time_and_budget(self, job: Job) -> None:
        if job.deadline is not None and datetime.now(UTC) > job.deadline:
            raise QueryFailed("timed_out", "deadline-passed")
        async with self.stands.pool.acquire() as db:
            asked = await trust_store.count_queries(db, job.project_id)
        require(asked <= self.settings.queries_per_project, "query-budget-spent")

    async def _found(self, job: Job, query: Query) -> Found:
        """What the query finds now, opted-out persons left out."""
        if job.attempts > _ATTEMPTS:
            raise QueryFailed("failed", "query-gave-no-end")
        require(guard.digest(query.sql) == query.asked.query_digest, "query-digest-differs")
        admitted = await asyncio.to_thread(guard.admit, query.sql, imaging=query.imaging)
        limits = Limits(self.settings.statement_timeout_s, self.settings.work_mem_mib, self.settings.most_rows)
        omop, today = self.settings.omop.get_secret_value(), datetime.now(UTC).date()
        found = await reader.find(omop, admitted, imaging=query.imaging, limits=limits, today=today)
        async with self.stands.pool.acquire() as db:
            return found.without(await trust_store.opted_out(db))

    # --- freezing -----------------------------------------------------------------------------------------------------

    async def _freeze(self, job: Job) -> None:
        try:
            cohort = await self._cohort(job)
        except Refused as refused:
            await self._refuse_freeze(job, refused.code)
        except QueryFailed as failed:
            await self._refuse_freeze(job, failed.reason)
        else:
            async with self._working(job) as work, work.db.transaction():
                if await trust_store.finish_job(work.db, job):
                    if cohort is not None:
                        await trust_store.freeze(work.db, job.project_id, cohort)
                    await work.say(await self._frozen_report(work, job))

    async def _cohort(self, job: Job) -> FrozenCohort | None:
        """The cohort to freeze; none where it is frozen already."""
        async with self.stands.pool.acquire() as db:
            if await trust_store.frozen(db, job.project_id) is not None:
                return None
            query = await trust_store.query(db, job.project_id, job.version)
        domain.may_freeze(query.asked if query else None, job.digest)
        assert query is not None
        found = await self._found(job, query)
        cohort = FrozenCohort(job.version, job.digest, found.members, found.rows)
        require(disclosure.count(len(cohort.persons), self.rules) != "suppressed", "too-few-persons")
        return cohort

    async def _frozen_report(self, work: Work, job: Job) -> TrustFrozeCohort:
        frozen = await trust_store.frozen(work.db, job.project_id)
        assert frozen is not None
        return TrustFrozeCohort(
            project_id=job.project_id,
            query_version=frozen.version,
            query_digest=frozen.digest,
            persons=disclosure.count(frozen.persons, self.rules),
            studies=disclosure.count(frozen.studies, self.rules) if frozen.studies else 0,
        )

    async def _refuse_freeze(self, job: Job, reason: str) -> None:
        async with self._working(job) as work, work.db.transaction():
            if await trust_store.finish_job(work.db, job):
                await work.say(TrustRefusedFreeze(project_id=job.project_id, query_version=job.version, reason=reason))

    @asynccontextmanager
    async def _working(self, job: Job) -> AsyncGenerator[Work]:
        """Work that goes on from the command that the job came from."""
        cause = Cause("", datetime.now(UTC), job.correlation_id, job.causation_id)
        async with self.stands.pool.acquire() as db:
            yield own_work(self.settings, db, self.stands.handlers.project, after=cause)
        self.stands.relay.wake.set()


def _report(
    job: Job,
    outcome: Outcome,
    *,
    persons: Released | None = None,
    distributions: Mapping[str, Mapping[str, Released]] | None = None,
    reason: str | None = None,
) -> TrustAnsweredQuery:
    return TrustAnsweredQuery(
        project_id=job.project_id,
        query_version=job.version,
        outcome=outcome,
        persons=persons,
        distributions={name: dict(parts) for name, parts in (distributions or {}).items()},
        reason=reason,
    )
