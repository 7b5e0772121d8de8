"""The SQL of the files service."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flip_chassis.database import Connection, Row
from flip_contracts.apps import FileName
from flip_contracts.base import REGISTRY, ModelId, RunId
from flip_contracts.cloudevents import Envelope
from flip_contracts.files import (
    ModelFileAccepted,
    ModelFileRefused,
    ModelFileRemoved,
    ModelFileUploaded,
    ResultsPublished,
    ResultsRefused,
    RoundsDeleted,
)
from flip_contracts.projects import ModelCreated
from flip_contracts.scheduler import Continued, RunAssigned
from flip_contracts.trainer_node import ResultsCollected, RoundComplete

from flip_files.domain import Model, Round, Rounds

Scannable = ResultsCollected | ModelFileUploaded
"""What waits for a scan."""

# --- scans --------------------------------------------------------------------------------------------------------


def _subject(asked: Scannable) -> str:
    """What a scan is of. The results of a run's later attempt take the place of an earlier one's; every upload of a
    file is its own."""
    return f"run/{asked.run_id}" if isinstance(asked, ResultsCollected) else asked.object


async def await_scan(db: Connection, asked: Scannable) -> None:
    """Note that this waits for its scan."""
    await db.execute(
        "INSERT INTO scan (subject, type, asked) VALUES ($1, $2, $3)"
        " ON CONFLICT (subject) DO UPDATE SET asked = $3, not_before = now() WHERE NOT scan.done",
        _subject(asked),
        asked.type_name,
        asked.model_dump(mode="json"),
    )


async def claim_scan(db: Connection, lease: timedelta) -> Scannable | None:
    """What is to be scanned, ours until the lease is over."""
    row = await db.fetchrow(
        "UPDATE scan SET attempts = attempts + 1, not_before = now() + $1 WHERE subject = ("
        " SELECT subject FROM scan WHERE NOT done AND not_before <= now() ORDER BY not_before LIMIT 1"
        " FOR UPDATE SKIP LOCKED) RETURNING type, asked",
        lease,
    )
    if row is None:
        return None
    asked = REGISTRY[row["type"]].model_validate(row["asked"])
    assert isinstance(asked, Scannable), "nothing else is noted"
    return asked


async def scan_again(db: Connection, asked: Scannable, pause: timedelta) -> None:
    """The scan gave no answer; let it wait."""
    await db.execute("UPDATE scan SET not_before = now() + $2 WHERE subject = $1", _subject(asked), pause)


async def scan_done(db: Connection, asked: Scannable) -> None:
    """It is judged."""
    await db.execute("UPDATE scan SET done = true WHERE subject = $1", _subject(asked))


# --- results ------------------------------------------------------------------------------------------------------


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


# --- rounds -------------------------------------------------------------------------------------------------------


async def keep_round(db: Connection, event: RoundComplete, at: datetime) -> None:
    checkpoint = event.checkpoint
    await db.execute(
        "INSERT INTO round (run_id, attempt, round, project_id, object, digest, file_digest, size_bytes, score,"
        " best_object, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        event.run_id,
        event.attempt,
        checkpoint.round,
        event.project_id,
        checkpoint.object,
        checkpoint.digest,
        event.file_digest,
        event.size_bytes,
        checkpoint.score,
        checkpoint.best.object if checkpoint.best else None,
        at,
    )


async def keep_attempt(db: Connection, event: RunAssigned) -> None:
    await db.execute(
        "INSERT INTO run_attempt (run_id, attempt, first_round) VALUES ($1, $2, $3)",
        event.run_id,
        event.attempt,
        event.checkpoint.round + 1 if event.checkpoint else 0,
    )


async def keep_beginning(db: Connection, begins: Continued) -> None:
    best = begins.checkpoint.best
    for name in {begins.checkpoint.object, *([best.object] if best else [])}:
        await db.execute("INSERT INTO needed_round (object) VALUES ($1) ON CONFLICT DO NOTHING", name)


async def keep_end(db: Connection, run_id: RunId, at: datetime) -> None:
    await db.execute("INSERT INTO run_end (run_id, ended_at) VALUES ($1, $2) ON CONFLICT DO NOTHING", run_id, at)


async def drop_rounds(db: Connection, event: RoundsDeleted) -> None:
    for of_attempt in event.deleted:
        await db.execute(
            "UPDATE round SET deleted = true WHERE (run_id, attempt) = ($1, $2) AND round = ANY($3)",
            event.run_id,
            of_attempt.attempt,
            of_attempt.rounds,
        )


@dataclass(frozen=True, slots=True)
class Course:
    """What is kept of a run's rounds: their rows by object, what they mean together, and when the run ended."""

    rows: dict[str, Row]
    rounds: Rounds
    ended_at: datetime | None


async def course(db: Connection, run_id: RunId) -> Course:
    """The rounds of a run, as they stand."""
    rows = await db.fetch(
        "SELECT round.*, needed_round.object IS NOT NULL AS needed FROM round LEFT JOIN needed_round USING (object)"
        " WHERE run_id = $1",
        run_id,
    )
    began = await db.fetch("SELECT attempt, first_round FROM run_attempt WHERE run_id = $1", run_id)
    return Course(
        {row["object"]: row for row in rows},
        Rounds([_round(row) for row in rows], {row["attempt"]: row["first_round"] for row in began}),
        await db.fetchval("SELECT ended_at FROM run_end WHERE run_id = $1", run_id),
    )


def _round(row: Row) -> Round:
    return Round(
        row["project_id"],
        row["attempt"],
        row["round"],
        row["object"],
        row["digest"],
        row["best_object"],
        row["deleted"],
        row["needed"],
    )


@dataclass(frozen=True, slots=True)
class Thinning:
    """A run whose rounds are to be thinned, and how often that was asked for."""

    run_id: RunId
    asked: int


async def await_thinning(db: Connection, run_id: RunId) -> None:
    """Note that the run has ended."""
    await db.execute("INSERT INTO thinning (run_id) VALUES ($1) ON CONFLICT DO NOTHING", run_id)


async def await_thinning_again(db: Connection, run_id: RunId) -> None:
    """Note a round that came; it matters where the run has ended."""
    await db.execute("UPDATE thinning SET asked = asked + 1 WHERE run_id = $1", run_id)


async def claim_thinning(db: Connection, kept_for: timedelta, lease: timedelta) -> Thinning | None:
    """A run that ended as long ago and is to be thinned, ours until the lease is over."""
    row = await db.fetchrow(
        "UPDATE thinning SET not_before = now() + $2 WHERE run_id = ("
        " SELECT t.run_id FROM thinning t JOIN run_end USING (run_id)"
        " WHERE t.done < t.asked AND t.not_before <= now() AND ended_at <= now() - $1::interval"
        " ORDER BY ended_at LIMIT 1 FOR UPDATE OF t SKIP LOCKED) RETURNING run_id, asked",
        kept_for,
        lease,
    )
    return None if row is None else Thinning(row["run_id"], row["asked"])


async def deleted_objects(db: Connection, run_id: RunId) -> Sequence[str]:
    """Where the run's deleted rounds were."""
    rows = await db.fetch("SELECT object FROM round WHERE run_id = $1 AND deleted ORDER BY object", run_id)
    return [row["object"] for row in rows]


async def thin_again(db: Connection, thinning: Thinning, pause: timedelta) -> None:
    """The store was away; let it wait."""
    await db.execute("UPDATE thinning SET not_before = now() + $2 WHERE run_id = $1", thinning.run_id, pause)


async def thinned(db: Connection, thinning: Thinning) -> None:
    """It is done, as far as it was asked for."""
    await db.execute(
        "UPDATE thinning SET done = $2, not_before = now() WHERE run_id = $1", thinning.run_id, thinning.asked
    )


# --- models and their files -----------------------------------------------------------------------------------------


async def keep_model(db: Connection, event: ModelCreated) -> None:
    await db.execute(
        "INSERT INTO known_model (model_id, project_id, framework, job) VALUES ($1, $2, $3, $4)",
        event.model_id,
        event.project_id,
        event.framework,
        event.job,
    )


async def drop_model(db: Connection, model_id: ModelId) -> None:
    await db.execute("UPDATE known_model SET deleted = true WHERE model_id = $1", model_id)


async def model(db: Connection, model_id: ModelId) -> Model | None:
    """The model, unless it was deleted."""
    row = await db.fetchrow("SELECT * FROM known_model WHERE model_id = $1 AND NOT deleted", model_id)
    return None if row is None else Model(row["model_id"], row["project_id"], row["framework"], row["job"])


async def keep_upload(db: Connection, event: ModelFileUploaded, said: Envelope) -> None:
    await db.execute(
        "INSERT INTO model_file (model_id, path, status, digest, size_bytes, at)"
        " VALUES ($1, $2, 'scanning', $3, $4, $5)"
        " ON CONFLICT (model_id, path) DO UPDATE SET status = 'scanning', digest = $3, size_bytes = $4, at = $5,"
        " reason = NULL, detail = '', findings = '[]'",
        event.model_id,
        event.path,
        event.digest,
        event.size_bytes,
        said.time,
    )


async def keep_accepted(db: Connection, event: ModelFileAccepted) -> None:
    await db.execute(
        "UPDATE model_file SET status = 'accepted', findings = $3 WHERE (model_id, path) = ($1, $2)",
        event.model_id,
        event.path,
        [finding.model_dump() for finding in event.findings],
    )


async def keep_file_refused(db: Connection, event: ModelFileRefused) -> None:
    await db.execute(
        "UPDATE model_file SET status = 'refused', reason = $3, detail = $4 WHERE (model_id, path) = ($1, $2)",
        event.model_id,
        event.path,
        event.reason,
        event.detail,
    )


async def drop_file(db: Connection, event: ModelFileRemoved) -> None:
    await db.execute("DELETE FROM model_file WHERE (model_id, path) = ($1, $2)", event.model_id, event.path)


async def model_files(db: Connection, model_id: ModelId) -> list[Row]:
    """The model's files by their paths."""
    return await db.fetch("SELECT * FROM model_file WHERE model_id = $1 ORDER BY path", model_id)


async def model_file(db: Connection, model_id: ModelId, path: FileName) -> Row | None:
    """One of them."""
    return await db.fetchrow("SELECT * FROM model_file WHERE (model_id, path) = ($1, $2)", model_id, path)
