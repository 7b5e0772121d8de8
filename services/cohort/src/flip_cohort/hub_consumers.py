"""What the hub's cohort service hears: users, projects, the Trusts' reports; and the projections of what it says."""

from collections.abc import Generator
from contextlib import contextmanager

from flip_chassis.access import project_handlers, user_handlers
from flip_chassis.database import Connection
from flip_chassis.handlers import projection, reaction, trust_of
from flip_chassis.refusal import Refused
from flip_chassis.telemetry import log
from flip_chassis.work import Work
from flip_contracts.base import Report
from flip_contracts.cloudevents import Envelope
from flip_contracts.cohort import (
    CohortAnswered,
    CohortFreezeRefused,
    CohortFrozen,
    CohortQuerySaved,
    FreezeCohort,
    RunCohortQuery,
    TrustAnsweredQuery,
    TrustFrozeCohort,
    TrustRefusedFreeze,
    TrustTookUpQuery,
)
from flip_contracts.projects import ProjectApproved, ProjectStaged

from flip_cohort import domain, hub_store
from flip_cohort.domain import QUERIES


@contextmanager
def _heeding(report: Report, said: Envelope) -> Generator[None]:
    """Leave a report that answers nothing we asked without effect: no Trust can hold up what the others say by it."""
    try:
        yield
    except Refused as refused:
        log.warning("a report has no effect", trust=trust_of(said), type=report.type_name, reason=refused.code)


# --- queries ----------------------------------------------------------------------------------------------------------


@projection
async def remember_version(event: CohortQuerySaved, db: Connection, said: Envelope) -> None:
    await hub_store.save_version(db, event, said.time, said.actor)


@projection
async def remember_text(command: RunCohortQuery, db: Connection) -> None:
    await hub_store.save_text(db, command)


@projection
async def remember_start(report: TrustTookUpQuery, db: Connection, said: Envelope) -> None:
    await hub_store.save_start(db, report.project_id, report.query_version, trust_of(said), said.time)


@reaction
async def take_answer(report: TrustAnsweredQuery, work: Work, said: Envelope) -> None:
    with _heeding(report, said):
        async with work.on(QUERIES, report.project_id) as queries:
            queries.record(*domain.answer(queries.state, trust_of(said), report))


@projection
async def remember_distributions(report: TrustAnsweredQuery, db: Connection, said: Envelope) -> None:
    await hub_store.save_distributions(
        db, report.project_id, report.query_version, trust_of(said), report.distributions
    )


@projection
async def remember_answer(event: CohortAnswered, db: Connection, said: Envelope) -> None:
    await hub_store.save_answer(db, event, said.time)


# --- frozen cohorts ---------------------------------------------------------------------------------------------------


@projection
async def remember_staging(event: ProjectStaged, db: Connection) -> None:
    await hub_store.save_staging(db, event.project_id, event.query_version)


@reaction
async def ask_to_freeze(event: ProjectApproved, work: Work) -> None:
    staged = await hub_store.staged_query(work.db, event.project_id)
    if staged is None:
        raise Refused("project-not-staged", project_id=event.project_id)
    command = FreezeCohort(project_id=event.project_id, query_version=staged["version"], query_digest=staged["digest"])
    await work.say(command, to=event.trust)


@projection
async def remember_asking(command: FreezeCohort, db: Connection, said: Envelope) -> None:
    await hub_store.save_asked(db, command, trust_of(said), said.time)


@reaction
async def take_freeze(report: TrustFrozeCohort, work: Work, said: Envelope) -> None:
    with _heeding(report, said):
        async with work.on(QUERIES, report.project_id) as queries:
            queries.record(*domain.freeze(queries.state, trust_of(said), report))


@reaction
async def take_refusal(report: TrustRefusedFreeze, work: Work, said: Envelope) -> None:
    with _heeding(report, said):
        async with work.on(QUERIES, report.project_id) as queries:
            queries.record(*domain.refuse_freeze(queries.state, trust_of(said), report))


@projection
async def remember_freeze(event: CohortFrozen, db: Connection, said: Envelope) -> None:
    await hub_store.save_frozen(db, event, said.time)


@projection
async def remember_refusal(event: CohortFreezeRefused, db: Connection, said: Envelope) -> None:
    await hub_store.save_refused(db, event, said.time)


handlers = (
    *user_handlers,
    *project_handlers,
    remember_version,
    remember_text,
    remember_start,
    take_answer,
    remember_distributions,
    remember_answer,
    remember_staging,
    ask_to_freeze,
    remember_asking,
    take_freeze,
    take_refusal,
    remember_freeze,
    remember_refusal,
)
