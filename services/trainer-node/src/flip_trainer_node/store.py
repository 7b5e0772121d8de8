"""The SQL of both roles."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

from flip_chassis.database import Connection, Row
from flip_chassis.log import read_stream
from flip_contracts.base import ProjectId, RunId
from flip_contracts.imaging import DeleteImages
from flip_contracts.scheduler import RunAssigned
from flip_contracts.trainer_node import EndRun, PrepareRun

from flip_trainer_node.attempts import ATTEMPT
from flip_trainer_node.domain import ATTEMPTS, Attempt

# --- the controller's attempts ------------------------------------------------------------------------------------


@asynccontextmanager
async def deciding(db: Connection) -> AsyncGenerator[None]:
    """A transaction in which nobody else decides about this net. Its lock is taken before all others."""
    async with db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('flip.trainer-node.net', 0))")
        yield


async def attempt(db: Connection, attempt_id: str) -> Attempt:
    """The attempt as it stands."""
    return ATTEMPTS.after(await read_stream(db, ATTEMPT.name, attempt_id))


async def keep_attempt(db: Connection, attempt_id: str, assigned: RunAssigned) -> None:
    await db.execute(
        "INSERT INTO attempt (attempt_id, run_id, attempt, fencing, status) VALUES ($1, $2, $3, $4, 'preparing')",
        attempt_id,
        assigned.run_id,
        assigned.attempt,
        assigned.fencing,
    )


async def set_status(db: Connection, attempt_id: str, status: str) -> None:
    await db.execute("UPDATE attempt SET status = $2 WHERE attempt_id = $1", attempt_id, status)


async def move_on(db: Connection, attempt_id: str, before: str, after: str) -> None:
    await db.execute("UPDATE attempt SET status = $3 WHERE attempt_id = $1 AND status = $2", attempt_id, before, after)


async def set_told(db: Connection, attempt_id: str, number: int) -> None:
    """Everything of the run's folder up to this number was told."""
    await db.execute(
        "INSERT INTO telling (attempt_id, told) VALUES ($1, $2)"
        " ON CONFLICT (attempt_id) DO UPDATE SET told = greatest(telling.told, excluded.told)",
        attempt_id,
        number,
    )


async def told(db: Connection, attempt_id: str) -> int:
    """How far the run's folder was told, 0 at first."""
    return await db.fetchval("SELECT told FROM telling WHERE attempt_id = $1", attempt_id) or 0


async def open_attempt(db: Connection) -> Row | None:
    """The attempt that the net carries through now: the oldest that is not closed."""
    return await db.fetchrow("SELECT * FROM attempt WHERE status <> 'closed' ORDER BY fencing LIMIT 1")


async def attempts_of(db: Connection, run_id: RunId) -> list[Row]:
    """This net's attempts at a run, the oldest first."""
    return await db.fetch("SELECT * FROM attempt WHERE run_id = $1 ORDER BY attempt", run_id)


async def last_fencing(db: Connection) -> int:
    """The fencing number of the last assignment that the net has heard of."""
    return await db.fetchval("SELECT coalesce(max(fencing), 0) FROM attempt")


async def forget(db: Connection, run_id: RunId) -> None:
    """The run has ended for good."""
    await db.execute("INSERT INTO ended_run (run_id) VALUES ($1) ON CONFLICT DO NOTHING", run_id)


async def to_forget(db: Connection) -> list[RunId]:
    """The runs whose folders may go: they have ended for good, here too."""
    rows = await db.fetch(
        "SELECT run_id FROM ended_run e WHERE NOT forgotten"
        " AND NOT EXISTS (SELECT FROM attempt a WHERE a.run_id = e.run_id AND a.status <> 'closed')"
    )
    return [row["run_id"] for row in rows]


async def set_forgotten(db: Connection, run_id: RunId) -> None:
    await db.execute("UPDATE ended_run SET forgotten = true WHERE run_id = $1", run_id)


# --- the worker's tasks -------------------------------------------------------------------------------------------


async def add_task(db: Connection, kind: Literal["prepare", "end"], command: PrepareRun | EndRun) -> None:
    await db.execute(
        "INSERT INTO task (kind, run_id, attempt, command) VALUES ($1, $2, $3, $4)",
        kind,
        command.run_id,
        command.attempt,
        command.model_dump(mode="json"),
    )


async def next_task(db: Connection) -> Row | None:
    """The task that is to be done next."""
    return await db.fetchrow("SELECT * FROM task WHERE NOT done ORDER BY id LIMIT 1")


async def is_to_end(db: Connection, command: PrepareRun) -> bool:
    """Whether the attempt is to be ended, or its project forgotten: work on it is in vain."""
    return await db.fetchval(
        "SELECT EXISTS (SELECT FROM task WHERE kind = 'end' AND run_id = $1 AND attempt >= $2 AND NOT done)"
        " OR EXISTS (SELECT FROM forgotten_project WHERE project_id = $3)",
        command.run_id,
        command.attempt,
        command.project_id,
    )


async def forget_project(db: Connection, command: DeleteImages) -> None:
    """Nothing of the project is prepared from here on; what was is to be deleted."""
    await db.execute("INSERT INTO forgotten_project VALUES ($1) ON CONFLICT DO NOTHING", command.project_id)
    await db.execute("INSERT INTO task (kind, command) VALUES ('forget', $1)", command.model_dump(mode="json"))


async def is_forgotten(db: Connection, project_id: ProjectId) -> bool:
    """Whether the project's images were deleted."""
    return await db.fetchval("SELECT EXISTS (SELECT FROM forgotten_project WHERE project_id = $1)", project_id)


async def runs_of(db: Connection, project_id: ProjectId) -> list[RunId]:
    """Every run of the project that this worker was ever asked to prepare."""
    rows = await db.fetch(
        "SELECT DISTINCT run_id FROM task WHERE kind = 'prepare' AND command ->> 'project_id' = $1", str(project_id)
    )
    return [row["run_id"] for row in rows]


async def others_not_ended(db: Connection, run_id: RunId) -> list[RunId]:
    """The other runs of which an attempt was prepared here and none since was ended."""
    rows = await db.fetch(
        "SELECT run_id FROM task WHERE kind IN ('prepare', 'end') AND done AND run_id <> $1 GROUP BY run_id"
        " HAVING max(attempt) FILTER (WHERE kind = 'prepare') > coalesce(max(attempt) FILTER (WHERE kind = 'end'), 0)",
        run_id,
    )
    return [row["run_id"] for row in rows]


async def set_done(db: Connection, task_id: int) -> None:
    await db.execute("UPDATE task SET done = true WHERE id = $1", task_id)
