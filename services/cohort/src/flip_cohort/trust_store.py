"""A Trust's SQL: queries it was sent, jobs claimed by lease, persons behind told numbers, frozen cohorts."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from flip_chassis.database import Connection
from flip_contracts.base import ProjectId, Sha256
from flip_contracts.cloudevents import Envelope
from flip_contracts.cohort import FreezeCohort, Outcome, RunCohortQuery

from flip_cohort.domain import Asked, FrozenCohort

Kind = Literal["answer", "freeze"]


@dataclass(frozen=True, slots=True)
class Job:
    """Work that was claimed; `attempts` counts this claim. `causation_id` is the command that it came from."""

    id: int
    kind: Kind
    project_id: ProjectId
    version: int
    digest: Sha256
    deadline: datetime | None
    attempts: int
    correlation_id: UUID
    causation_id: UUID


@dataclass(frozen=True, slots=True)
class Query:
    """A query as it was sent."""

    sql: str
    imaging: bool
    asked: Asked


@dataclass(frozen=True, slots=True)
class Frozen:
    """A frozen cohort's record: how many distinct persons and studies it had when it was frozen."""

    version: int
    digest: Sha256
    persons: int
    studies: int


# --- queries and jobs -------------------------------------------------------------------------------------------------


async def save_query(db: Connection, command: RunCohortQuery) -> None:
    await db.execute(
        "INSERT INTO query (project_id, version, digest, sql, imaging) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT DO NOTHING",
        command.project_id,
        command.query_version,
        command.query_digest,
        command.sql,
        command.imaging,
    )


async def query(db: Connection, project_id: ProjectId, version: int) -> Query | None:
    row = await db.fetchrow("SELECT * FROM query WHERE (project_id, version) = ($1, $2)", project_id, version)
    return None if row is None else Query(row["sql"], row["imaging"], Asked(row["digest"], row["outcome"]))


async def count_queries(db: Connection, project_id: ProjectId) -> int:
    """How many versions of the project's query this Trust was sent."""
    return await db.fetchval("SELECT count(*) FROM query WHERE project_id = $1", project_id)


async def save_outcome(db: Connection, project_id: ProjectId, version: int, outcome: Outcome) -> None:
    await db.execute(
        "UPDATE query SET outcome = $3 WHERE (project_id, version) = ($1, $2)", project_id, version, outcome
    )


async def add_job(
    db: Connection, kind: Kind, command: RunCohortQuery | FreezeCohort, deadline: datetime | None, said: Envelope
) -> None:
    """Note work to be done. A job that was done is done again; one that waits stays as it is."""
    await db.execute(
        "INSERT INTO job (kind, project_id, version, digest, deadline, correlation_id, causation_id)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (kind, project_id, version) DO UPDATE"
        " SET done = false, attempts = 0, not_before = now(), digest = $4, correlation_id = $6, causation_id = $7"
        " WHERE job.done",
        kind,
        command.project_id,
        command.query_version,
        command.query_digest,
        deadline,
        said.correlation_id,
        said.id,
    )


async def claim_job(db: Connection, lease: timedelta) -> Job | None:
    """The oldest job that is due, for as long as `lease`: from then on another may claim it."""
    row = await db.fetchrow(
        "UPDATE job SET attempts = attempts + 1, not_before = now() + $1 WHERE id = ("
        " SELECT id FROM job WHERE NOT done AND not_before <= now() ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)"
        " RETURNING id, kind, project_id, version, digest, deadline, attempts, correlation_id, causation_id",
        lease,
    )
    return None if row is None else Job(**dict(row))


async def postpone_job(db: Connection, job: Job, pause: timedelta) -> None:
    """Give a job back that could not be begun; the attempt doesn't count."""
    await db.execute(
        "UPDATE job SET attempts = attempts - 1, not_before = now() + $2 WHERE id = $1 AND NOT done", job.id, pause
    )


async def finish_job(db: Connection, job: Job) -> bool:
    """Mark a job as done. False where it was done before: then nothing more may be said of it."""
    done = await db.fetchval("UPDATE job SET done = true WHERE id = $1 AND NOT done RETURNING true", job.id)
    return done is not None


# --- persons ----------------------------------------------------------------------------------------------------------


async def disclosure_secret(db: Connection) -> bytes:
    return await db.fetchval("SELECT secret FROM disclosure_secret")


async def opted_out(db: Connection) -> frozenset[int]:
    """The persons whose records may not be used."""
    return frozenset(row["person_id"] for row in await db.fetch("SELECT person_id FROM opt_out"))


async def lock_told(db: Connection, project_id: ProjectId) -> None:
    """Let one answer of the project be told at a time, until the transaction ends."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"told/{project_id}")


async def told_persons(db: Connection, project_id: ProjectId, version: int) -> list[frozenset[int]]:
    """The persons behind the numbers told of the project's other versions."""
    rows = await db.fetch(
        "SELECT persons FROM told_persons WHERE project_id = $1 AND version <> $2", project_id, version
    )
    return [frozenset(row["persons"]) for row in rows]


async def save_told_persons(db: Connection, project_id: ProjectId, version: int, persons: Iterable[int]) -> None:
    await db.execute(
        "INSERT INTO told_persons (project_id, version, persons) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        project_id,
        version,
        sorted(persons),
    )


# --- frozen cohorts ---------------------------------------------------------------------------------------------------


async def frozen(db: Connection, project_id: ProjectId) -> Frozen | None:
    row = await db.fetchrow(
        "SELECT version, digest, persons, studies FROM frozen_cohort WHERE project_id = $1", project_id
    )
    return None if row is None else Frozen(**dict(row))


async def freeze(db: Connection, project_id: ProjectId, cohort: FrozenCohort) -> None:
    """Write the cohort for good; one that stands already stays as it is."""
    if await frozen(db, project_id) is not None:
        return
    await db.executemany(
        "INSERT INTO frozen_member (project_id, person_id, accession_id, rows) VALUES ($1, $2, $3, $4)",
        [(project_id, member.person_id, member.accession_id, cohort.rows.get(member, ())) for member in cohort.members],
    )
    await db.execute(
        "INSERT INTO frozen_cohort (project_id, version, digest, persons, studies) VALUES ($1, $2, $3, $4, $5)",
        project_id,
        cohort.query_version,
        cohort.query_digest,
        len(cohort.persons),
        len(cohort.studies),
    )
