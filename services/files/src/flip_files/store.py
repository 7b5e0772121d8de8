"""The SQL of the files service."""

from datetime import datetime, timedelta

from flip_chassis.database import Connection, Row
from flip_contracts.base import RunId
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


async def keep_bundle(db: Connection, collected: ResultsCollected) -> None:
    """Where a net put a run's bundle of this digest."""
    await db.execute(
        "INSERT INTO bundle (run_id, digest, object) VALUES ($1, $2, $3)"
        " ON CONFLICT (run_id, digest) DO UPDATE SET object = excluded.object",
        collected.run_id,
        collected.digest,
        collected.object,
    )


async def keep_published(db: Connection, event: ResultsPublished, at: datetime) -> None:
    """What can be downloaded from now on."""
    await db.execute(
        "INSERT INTO result (run_id, project_id, status, name, digest, size_bytes, at, object)"
        " SELECT $1, $2, 'published', $3, $4, $5, $6, object FROM bundle WHERE (run_id, digest) = ($1, $4)"
        " ON CONFLICT (run_id) DO NOTHING",
        event.run_id,
        event.project_id,
        event.name,
        event.digest,
        event.size_bytes,
        at,
    )


async def keep_refused(db: Connection, event: ResultsRefused, at: datetime) -> None:
    """What is withheld: neither name nor place."""
    await db.execute(
        "INSERT INTO result (run_id, project_id, status, name, digest, size_bytes, at, object)"
        " VALUES ($1, $2, 'refused', '', '', 0, $3, '') ON CONFLICT (run_id) DO NOTHING",
        event.run_id,
        event.project_id,
        at,
    )


async def result(db: Connection, run_id: RunId) -> Row | None:
    """A run's results, if they were judged."""
    return await db.fetchrow("SELECT * FROM result WHERE run_id = $1", run_id)
