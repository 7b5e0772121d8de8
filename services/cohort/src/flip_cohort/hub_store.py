"""The hub's SQL: versions of queries, each Trust's answers, cohorts."""

from datetime import datetime

from flip_chassis.database import Connection, Row
from flip_contracts.base import ProjectId, TrustCode
from flip_contracts.cohort import (
    CohortAnswered,
    CohortFreezeRefused,
    CohortFrozen,
    CohortQuerySaved,
    Distribution,
    FreezeCohort,
    RunCohortQuery,
)


async def save_version(db: Connection, event: CohortQuerySaved, at: datetime, by: str) -> None:
    await db.execute(
        "INSERT INTO query_version (project_id, version, digest, imaging, saved_at, saved_by)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        event.project_id,
        event.query_version,
        event.query_digest,
        event.imaging,
        at,
        by,
    )
    await db.executemany(
        "INSERT INTO query_answer (project_id, version, trust, state, at) VALUES ($1, $2, $3, 'sent', $4)",
        [(event.project_id, event.query_version, trust, at) for trust in sorted(event.trusts)],
    )


async def save_text(db: Connection, command: RunCohortQuery) -> None:
    await db.execute(
        "UPDATE query_version SET sql = $3, deadline = $4 WHERE project_id = $1 AND version = $2",
        command.project_id,
        command.query_version,
        command.sql,
        command.deadline,
    )


async def save_start(db: Connection, project_id: ProjectId, version: int, trust: TrustCode, at: datetime) -> None:
    await db.execute(
        "UPDATE query_answer SET state = 'running', at = $4"
        " WHERE (project_id, version, trust) = ($1, $2, $3) AND state = 'sent'",
        project_id,
        version,
        trust,
        at,
    )


async def save_answer(db: Connection, event: CohortAnswered, at: datetime) -> None:
    await db.execute(
        "UPDATE query_answer SET state = $4, persons = $5, reason = $6, at = $7"
        " WHERE (project_id, version, trust) = ($1, $2, $3)",
        event.project_id,
        event.query_version,
        event.trust,
        event.outcome,
        event.persons,
        event.reason,
        at,
    )


async def save_distributions(
    db: Connection, project_id: ProjectId, version: int, trust: TrustCode, found: dict[str, Distribution]
) -> None:
    """Keep the distributions of a Trust's first answer."""
    await db.execute(
        "UPDATE query_answer SET distributions = $4"
        " WHERE (project_id, version, trust) = ($1, $2, $3) AND distributions IS NULL",
        project_id,
        version,
        trust,
        found,
    )


async def versions(db: Connection, project_id: ProjectId) -> list[Row]:
    """Every version of a project's query, the newest first."""
    return await db.fetch("SELECT * FROM query_version WHERE project_id = $1 ORDER BY version DESC", project_id)


async def answers(db: Connection, project_id: ProjectId) -> list[Row]:
    """Where each Trust is with each version, by Trust."""
    return await db.fetch("SELECT * FROM query_answer WHERE project_id = $1 ORDER BY trust", project_id)


async def save_staging(db: Connection, project_id: ProjectId, version: int) -> None:
    await db.execute(
        "INSERT INTO staged_query (project_id, version) VALUES ($1, $2)"
        " ON CONFLICT (project_id) DO UPDATE SET version = excluded.version",
        project_id,
        version,
    )


async def staged_query(db: Connection, project_id: ProjectId) -> Row | None:
    """Version and digest of the query that the project was staged with."""
    return await db.fetchrow(
        "SELECT version, digest FROM staged_query JOIN query_version USING (project_id, version) WHERE project_id = $1",
        project_id,
    )


async def save_asked(db: Connection, command: FreezeCohort, trust: TrustCode, at: datetime) -> None:
    await db.execute(
        "INSERT INTO cohort (project_id, trust, version, state, at) VALUES ($1, $2, $3, 'asked', $4)"
        " ON CONFLICT (project_id, trust) DO UPDATE SET version = $3, state = 'asked', reason = NULL, at = $4"
        " WHERE cohort.state <> 'frozen'",
        command.project_id,
        trust,
        command.query_version,
        at,
    )


async def save_frozen(db: Connection, event: CohortFrozen, at: datetime) -> None:
    await db.execute(
        "UPDATE cohort SET version = $3, state = 'frozen', persons = $4, studies = $5, reason = NULL, at = $6"
        " WHERE (project_id, trust) = ($1, $2)",
        event.project_id,
        event.trust,
        event.query_version,
        event.persons,
        event.studies,
        at,
    )


async def save_refused(db: Connection, event: CohortFreezeRefused, at: datetime) -> None:
    await db.execute(
        "UPDATE cohort SET state = 'refused', reason = $3, at = $4 WHERE (project_id, trust) = ($1, $2)",
        event.project_id,
        event.trust,
        event.reason,
        at,
    )


async def cohorts(db: Connection, project_id: ProjectId) -> list[Row]:
    """The project's cohort at each Trust that was asked to freeze it."""
    return await db.fetch("SELECT * FROM cohort WHERE project_id = $1 ORDER BY trust", project_id)
