"""The SQL of the files service."""

from datetime import datetime, timedelta

from flip_chassis.database import Connection, Row
from flip_contracts.base import ProjectId, RunId
from flip_contracts.files import ResultsPublished, ResultsRefused
from flip_contracts.trainer_node import ResultsCollected


async def await_scan(db: Connection, collected: ResultsCollected) -> None:
    """Note that these results wait for their scan; those of a later attempt take the place of an earlier one's."""
    await db.execute(
        "INSERT INTO scan (run_id, collected) VALUES ($1, $2)"
        " ON CONFLICT (run_id) DO UPDATE SET collected = $2, not_before = now() WHERE NOT scan.done",
        collected.run_id,
        collected.model_dump(mode="json"),
    )


async def claim_scan(db: Connection, lease: timedelta) -> ResultsCollected | None:
    """A bundle to scan, ours until the lease is over."""
    row = await db.fetchrow(
        "UPDATE scan SET attempts = attempts + 1, not_before = now() + $1 WHERE run_id = ("
        " SELECT run_id FROM scan WHERE NOT done AND not_before <= now() ORDER BY not_before LIMIT 1"
        " FOR UPDATE SKIP LOCKED) RETURNING collected",
        lease,
    )
    return None if row is None else ResultsCollected.model_validate(row["collected"])


async def scan_again(db: Connection, run_id: RunId, pause: timedelta) -> None:
    """The scan gave no answer; let it wait."""
    await db.execute("UPDATE scan SET not_before = now() + $2 WHERE run_id = $1", run_id, pause)


async def scan_done(db: Connection, run_id: RunId) -> None:
    """The bundle is judged."""
    await db.execute("UPDATE scan SET done = true WHERE run_id = $1", run_id)


async def keep_published(db: Connection, event: ResultsPublished, at: datetime) -> None:
    """What can be downloaded from now on."""
    await _keep(db, event.run_id, event.project_id, "published", at, event.name, event.digest, event.size_bytes)


async def keep_refused(db: Connection, event: ResultsRefused, at: datetime) -> None:
    """What is withheld."""
    await _keep(db, event.run_id, event.project_id, "refused", at, "", "", 0)


async def _keep(
    db: Connection, run_id: RunId, project_id: ProjectId, status: str, at: datetime, name: str, digest: str, size: int
) -> None:
    await db.execute(
        "INSERT INTO result (run_id, project_id, status, name, digest, size_bytes, at, object)"
        " SELECT $1, $2, $3, $4, $5, $6, $7, collected ->> 'object' FROM scan WHERE run_id = $1"
        " ON CONFLICT (run_id) DO NOTHING",
        run_id,
        project_id,
        status,
        name,
        digest,
        size,
        at,
    )


async def result(db: Connection, run_id: RunId) -> Row | None:
    """A run's results, if they were judged."""
    return await db.fetchrow("SELECT * FROM result WHERE run_id = $1", run_id)
