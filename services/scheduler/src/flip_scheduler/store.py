"""The scheduler's SQL."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from flip_chassis.database import Connection, Row
from flip_contracts.base import Message, ModelId, NetName, ProjectId, RunId, TrustCode
from flip_contracts.cloudevents import Envelope
from flip_contracts.cohort import CohortFrozen
from flip_contracts.files import (
    AppConfiguration,
    ModelFileAccepted,
    ModelFileRefused,
    ModelFileRemoved,
    ModelFileUploaded,
    RoundsDeleted,
)
from flip_contracts.imaging import LabelsRegistered
from flip_contracts.projects import ModelCreated
from flip_contracts.scheduler import (
    Checkpoint,
    EarlierResults,
    NetDraining,
    Resources,
    RunAssigned,
    RunQueued,
    RunRequeued,
)
from flip_contracts.trainer_node import MetricReported, NetFree, NetHeartbeat, RoundComplete

from flip_scheduler.apps import App, ModelFile
from flip_scheduler.continuing import Predecessor
from flip_scheduler.domain import ENDED, Model, Readiness
from flip_scheduler.durations import Effort, History, Kind, Took
from flip_scheduler.fairness import LIGHTEST, Share, Waiting
from flip_scheduler.matching import Net
from flip_scheduler.outlook import Held

ROUND_AXIS = "round"
"""The axis of a metric that is shown at its round."""
_LATEST = 20
"""Of so many runs of a kind the durations are looked at, of a project and of all."""


async def lock_queue(db: Connection) -> None:
    """Be the only one who decides about runs and nets until the transaction ends. Taken before any of their locks."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('flip.scheduler.queue', 0))")


@asynccontextmanager
async def deciding(db: Connection) -> AsyncGenerator[None]:
    """A transaction that holds the queue's lock."""
    async with db.transaction():
        await lock_queue(db)
        yield


# --- what training needs ------------------------------------------------------------------------------------------


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


async def confirm_enrichment(db: Connection, project_id: ProjectId) -> None:
    await db.execute("INSERT INTO enrichment (project_id) VALUES ($1) ON CONFLICT DO NOTHING", project_id)


async def keep_images(db: Connection, project_id: ProjectId, trust: TrustCode, *, ready: bool) -> None:
    await db.execute(
        "INSERT INTO images (project_id, trust, ready) VALUES ($1, $2, $3)"
        " ON CONFLICT (project_id, trust) DO UPDATE SET ready = $3",
        project_id,
        trust,
        ready,
    )


async def keep_labels(db: Connection, event: LabelsRegistered) -> None:
    await db.execute(
        "INSERT INTO images (project_id, trust, ready, labels) VALUES ($1, $2, false, $3)"
        " ON CONFLICT (project_id, trust) DO UPDATE SET labels = $3",
        event.project_id,
        event.trust,
        event.labels if event.labelled != 0 else None,
    )


async def readiness(db: Connection, project_id: ProjectId, approved: frozenset[TrustCode]) -> Readiness:
    """What the project's Trusts have told so far."""
    rows = await db.fetch("SELECT trust, ready, labels FROM images WHERE project_id = $1", project_id)
    return Readiness(
        approved=approved,
        imported=frozenset(row["trust"] for row in rows if row["ready"]),
        labels={row["trust"]: row["labels"] for row in rows if row["labels"] is not None},
        enrichment_confirmed=await db.fetchval(
            "SELECT EXISTS (SELECT FROM enrichment WHERE project_id = $1)", project_id
        ),
    )


async def keep_query(db: Connection, event: CohortFrozen) -> None:
    await db.execute(
        "INSERT INTO frozen_query (project_id, trust, digest) VALUES ($1, $2, $3)"
        " ON CONFLICT (project_id, trust) DO UPDATE SET digest = $3",
        event.project_id,
        event.trust,
        event.query_digest,
    )


async def keep_upload(db: Connection, event: ModelFileUploaded) -> None:
    await db.execute(
        "INSERT INTO model_file (model_id, path, status, digest) VALUES ($1, $2, 'scanning', $3)"
        " ON CONFLICT (model_id, path) DO UPDATE SET status = 'scanning', digest = $3, reason = NULL,"
        " configuration = NULL",
        event.model_id,
        event.path,
        event.digest,
    )


async def accept_file(db: Connection, event: ModelFileAccepted) -> None:
    await db.execute(
        "UPDATE model_file SET status = 'accepted', configuration = $4 WHERE (model_id, path, digest) = ($1, $2, $3)",
        event.model_id,
        event.path,
        event.digest,
        event.configuration.model_dump(mode="json") if event.configuration else None,
    )


async def refuse_file(db: Connection, event: ModelFileRefused) -> None:
    await db.execute(
        "UPDATE model_file SET status = 'refused', reason = $4 WHERE (model_id, path, digest) = ($1, $2, $3)",
        event.model_id,
        event.path,
        event.digest,
        event.reason,
    )


async def drop_file(db: Connection, event: ModelFileRemoved) -> None:
    await db.execute("DELETE FROM model_file WHERE (model_id, path) = ($1, $2)", event.model_id, event.path)


async def app(db: Connection, model: Model) -> App:
    """What there is of a model's own app, and of its project's cohort."""
    files = await db.fetch("SELECT * FROM model_file WHERE model_id = $1 ORDER BY path", model.model_id)
    frozen = await db.fetch("SELECT trust, digest FROM frozen_query WHERE project_id = $1", model.project_id)
    return App([_model_file(row) for row in files], {row["trust"]: row["digest"] for row in frozen})


def _model_file(row: Row) -> ModelFile:
    said = row["configuration"]
    configuration = None if said is None else AppConfiguration.model_validate(said)
    return ModelFile(row["path"], row["status"], row["digest"], row["reason"], configuration)


async def earlier_results(db: Connection, project_id: ProjectId, run_id: RunId | None) -> EarlierResults | None:
    """The results of a training of the project that has finished."""
    digest = await db.fetchval(
        "SELECT results FROM run WHERE run_id = $1 AND project_id = $2 AND status = 'finished'"
        " AND payload ->> 'mode' = 'training'",
        run_id,
        project_id,
    )
    return None if run_id is None or digest is None else EarlierResults(run_id=run_id, digest=digest)


async def predecessor(db: Connection, project_id: ProjectId, run_id: RunId) -> Predecessor | None:
    """A run of the project that another one may go on from."""
    row = await db.fetchrow("SELECT * FROM run WHERE run_id = $1 AND project_id = $2", run_id, project_id)
    if row is None:
        return None
    kept = await db.fetch("SELECT round, checkpoint FROM run_round WHERE run_id = $1", run_id)
    rounds = {each["round"]: Checkpoint.model_validate(each["checkpoint"]) for each in kept}
    return Predecessor(run_id, row["payload"], row["status"] in ENDED, rounds)


# --- the queue ----------------------------------------------------------------------------------------------------


async def waiting(db: Connection, now: datetime) -> list[Waiting]:
    """The runs that wait for a net, or rest before they do."""
    return [_waiting(row, now) for row in await db.fetch("SELECT * FROM run WHERE status = 'queued'")]


def _waiting(row: Row, now: datetime) -> Waiting:
    """A run that resumes goes on with the Trusts that it had: its plan was made from their data."""
    resumes = row["rounds_done"] > row["first_round"]
    trusts = row["taking_part"] if resumes else row["trusts"]
    asked = None if resumes else row["minimum_trusts"]
    return Waiting(
        run_id=row["run_id"],
        project_id=row["project_id"],
        framework=row["framework"],
        trusts=frozenset(trusts),
        queued_at=row["queued_at"],
        minimum=len(trusts) if asked is None else asked,
        effort=Effort.of(row["framework"], row["payload"], row["rounds_done"]),
        resources=Resources.model_validate(row["resources"]),
        priority=row["priority"],
        virtual_time=row["virtual_time"],
        rests_until=row["rests_until"] if row["rests_until"] and row["rests_until"] > now else None,
    )


async def shares(db: Connection) -> Mapping[ProjectId, Share]:
    """The share of each project that has a run waiting."""
    rows = await db.fetch(
        "SELECT r.project_id, w.weight, max(r.virtual_finish) AS finish"
        " FROM run r LEFT JOIN project_weight w USING (project_id)"
        " WHERE r.project_id IN (SELECT project_id FROM run WHERE status = 'queued') GROUP BY r.project_id, w.weight"
    )
    return {row["project_id"]: Share(row["weight"] or LIGHTEST, row["finish"]) for row in rows}


async def virtual_time(db: Connection) -> int:
    """The virtual time of the queue: the start of the last assignment."""
    return await db.fetchval("SELECT virtual_start FROM run ORDER BY fencing DESC LIMIT 1") or 0


async def held(db: Connection) -> list[Held]:
    """The runs that nets hold, each with what it had to do when its net was given it."""
    rows = await db.fetch(
        "SELECT n.net, r.project_id, r.framework, r.payload, r.assigned_at,"
        " (SELECT (facts ->> 'resumes_at_round')::int FROM run_news"
        "   WHERE run_id = r.run_id AND kind = 'assigned' AND attempt = r.attempt) AS resumes_at_round"
        " FROM net n JOIN run r USING (run_id) WHERE n.state = 'held'"
    )
    return [
        Held(
            row["net"],
            row["project_id"],
            Effort.of(row["framework"], row["payload"], row["resumes_at_round"] or 0),
            row["assigned_at"],
        )
        for row in rows
    ]


async def history(db: Connection) -> History:
    """How long the latest runs took, from the net to the end, that began anew and finished at the first attempt.

    A training begins with its first round; what is no training has no such beginning.
    """
    rows = await db.fetch(
        "SELECT r.project_id, r.framework, r.payload,"
        " extract(epoch FROM coalesce(t.at, r.assigned_at) - r.assigned_at)::float8 AS lead_s,"
        " extract(epoch FROM r.ended_at - coalesce(t.at, r.assigned_at))::float8 AS rest_s"
        " FROM run r LEFT JOIN LATERAL"
        "   (SELECT at FROM run_news WHERE run_id = r.run_id AND kind = 'training' ORDER BY number LIMIT 1) t ON true"
        " WHERE r.status = 'finished' AND r.attempt = 1 AND r.continues IS NULL ORDER BY r.ended_at DESC LIMIT 1000"
    )
    of_project: dict[tuple[ProjectId, Kind], list[Took]] = {}
    of_all: dict[Kind, list[Took]] = {}
    for row in rows:
        took = Took(Effort.of(row["framework"], row["payload"]), row["lead_s"], row["rest_s"])
        kind = took.effort.kind
        for latest in (of_project.setdefault((row["project_id"], kind), []), of_all.setdefault(kind, [])):
            if len(latest) < _LATEST:
                latest.append(took)
    return History(of_project, of_all)


async def last_fencing(db: Connection) -> int:
    """The greatest fencing number given so far."""
    return await db.fetchval("SELECT coalesce(max(fencing), 0) FROM run")


async def checkpoint(db: Connection, run_id: RunId) -> Checkpoint | None:
    """The weights that the run goes on from: those after its last completed round, or of the run that it continues."""
    kept = await db.fetchval("SELECT checkpoint FROM run WHERE run_id = $1", run_id)
    return None if kept is None else Checkpoint.model_validate(kept)


async def runs_not_ended(
    db: Connection,
    *,
    project_id: ProjectId | None = None,
    model_id: ModelId | None = None,
    trust: TrustCode | None = None,
) -> list[RunId]:
    """The runs under way of a project, of a model, or of a project with a certain Trust."""
    rows = await db.fetch(
        "SELECT run_id FROM run WHERE status IN ('queued', 'assigned')"
        " AND ($1::uuid IS NULL OR project_id = $1) AND ($2::uuid IS NULL OR model_id = $2)"
        " AND ($3::text IS NULL OR $3 = ANY (trusts)) ORDER BY queued_at",
        project_id,
        model_id,
        trust,
    )
    return [row["run_id"] for row in rows]


# --- nets ---------------------------------------------------------------------------------------------------------


async def catalogue(db: Connection, now: datetime) -> list[Net]:
    """Every net as it is now."""
    return [
        Net(
            row["net"],
            row["framework"],
            frozenset(row["trusts"]),
            row["state"],
            row["draining"],
            {trust: Resources.model_validate(each) for trust, each in row["resources"].items()},
        )
        for row in await nets(db, now)
    ]


async def net(db: Connection, name: NetName) -> Row | None:
    return await db.fetchrow("SELECT * FROM net WHERE net = $1", name)


async def nets(db: Connection, now: datetime) -> list[Row]:
    """Every net, with whether and why it is draining.

    One without a run is silent that was not heard of for a lease's time; one with a run is lost then, not silent.
    """
    return await db.fetch(
        "SELECT n.net, n.framework, n.trusts, n.run_id, n.fencing, n.heard_at, n.resources,"
        " CASE WHEN n.state IN ('free', 'released') AND n.lease_until <= $1 THEN 'silent' ELSE n.state END AS state,"
        " d.net IS NOT NULL AS draining, d.reason AS draining_because, d.since AS draining_since"
        " FROM net n LEFT JOIN draining_net d USING (net) ORDER BY net",
        now,
    )


async def free_net(db: Connection, event: NetFree, now: datetime, lease_until: datetime) -> None:
    await db.execute(
        "INSERT INTO net (net, framework, trusts, state, lease_until, heard_at, resources)"
        " VALUES ($1, $2, $3, 'free', $4, $5, $6) ON CONFLICT (net) DO UPDATE SET framework = $2, trusts = $3,"
        " state = 'free', run_id = NULL, lease_until = $4, heard_at = $5, resources = $6",
        event.net,
        event.framework,
        sorted(event.trusts),
        lease_until,
        now,
        {trust: each.model_dump() for trust, each in event.resources.items()},
    )


async def drop_net(db: Connection, name: NetName) -> None:
    await db.execute("DELETE FROM net WHERE net = $1", name)


async def hold_net(db: Connection, assigned: RunAssigned, lease_until: datetime) -> None:
    await db.execute(
        "UPDATE net SET state = 'held', run_id = $2, fencing = $3, lease_until = $4 WHERE net = $1",
        assigned.net,
        assigned.run_id,
        assigned.fencing,
        lease_until,
    )


async def renew_lease(db: Connection, event: NetHeartbeat, now: datetime, lease_until: datetime) -> None:
    """A held net's lease goes on only for the very assignment that it holds."""
    await db.execute(
        "UPDATE net SET trusts = $2, heard_at = $3, lease_until = $4"
        " WHERE net = $1 AND (state IN ('free', 'released') OR (state = 'held' AND fencing = $5))",
        event.net,
        sorted(event.trusts),
        now,
        lease_until,
        event.fencing,
    )


async def net_of(db: Connection, run_id: RunId) -> NetName | None:
    """The net that holds the run."""
    return await db.fetchval("SELECT net FROM net WHERE run_id = $1", run_id)


async def release_net(db: Connection, run_id: RunId, fencing: int) -> bool:
    """The net no longer holds this assignment; answers whether it did."""
    done = await db.execute(
        "UPDATE net SET state = 'released', run_id = NULL WHERE run_id = $1 AND fencing = $2", run_id, fencing
    )
    return done == "UPDATE 1"


async def silent_nets(db: Connection, now: datetime) -> list[Row]:
    """The nets that hold a run and whose lease has run out."""
    return await db.fetch("SELECT * FROM net WHERE state = 'held' AND lease_until <= $1 ORDER BY net", now)


async def lose_net(db: Connection, name: NetName) -> None:
    await db.execute("UPDATE net SET state = 'lost', run_id = NULL WHERE net = $1", name)


async def next_deadline(db: Connection) -> datetime | None:
    """When the first lease of a held net runs out."""
    return await db.fetchval("SELECT min(lease_until) FROM net WHERE state = 'held'")


# --- what an admin decided of projects and nets -------------------------------------------------------------------


async def set_weight(db: Connection, project_id: ProjectId, weight: int) -> None:
    await db.execute(
        "INSERT INTO project_weight (project_id, weight) VALUES ($1, $2)"
        " ON CONFLICT (project_id) DO UPDATE SET weight = $2",
        project_id,
        weight,
    )


async def weight(db: Connection, project_id: ProjectId) -> int:
    """The project's weight."""
    given: int | None = await db.fetchval("SELECT weight FROM project_weight WHERE project_id = $1", project_id)
    return LIGHTEST if given is None else given


async def drain_net(db: Connection, event: NetDraining, said: Envelope) -> None:
    await db.execute(
        "INSERT INTO draining_net (net, reason, since) VALUES ($1, $2, $3)", event.net, event.reason, said.time
    )


async def undrain_net(db: Connection, name: NetName) -> None:
    await db.execute("DELETE FROM draining_net WHERE net = $1", name)


# --- runs as they are shown ---------------------------------------------------------------------------------------


async def keep_run(db: Connection, event: RunQueued, said: Envelope) -> None:
    begins = event.continues
    first_round = 0 if begins is None else begins.checkpoint.round + 1
    await db.execute(
        "INSERT INTO run (run_id, project_id, model_id, framework, job, trusts, payload, queued_at, status, stage,"
        " minimum_trusts, resources, virtual_time, aggregation_weights, files, continues, checkpoint, first_round,"
        " rounds_done)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'queued', 'queued', $9, $10, $11, $12, $13, $14, $15, $16, $16)",
        event.run_id,
        event.project_id,
        event.model_id,
        event.framework,
        event.job,
        sorted(event.trusts),
        event.payload,
        said.time,
        event.minimum_trusts,
        event.resources.model_dump(),
        event.virtual_time,
        event.aggregation_weights,
        event.files,
        begins.run_id if begins else None,
        begins.checkpoint.model_dump(mode="json") if begins else None,
        first_round,
    )


async def assign_run(db: Connection, event: RunAssigned, said: Envelope) -> None:
    await db.execute(
        "UPDATE run SET status = 'assigned', stage = 'assigned', net = $2, attempt = $3, fencing = $4,"
        " taking_part = $5, virtual_start = $6, virtual_finish = $7, assigned_at = $8 WHERE run_id = $1",
        event.run_id,
        event.net,
        event.attempt,
        event.fencing,
        sorted(event.trusts),
        event.virtual_start,
        event.virtual_finish,
        said.time,
    )
    await db.execute(
        "DELETE FROM run_round WHERE run_id = $1 AND round > $2",
        event.run_id,
        event.checkpoint.round if event.checkpoint else -1,
    )


async def leave_out(db: Connection, run_id: RunId, attempt: int, trust: TrustCode) -> None:
    """The Trust takes no part in the run's present attempt, if this is it: it won't resume with this Trust either."""
    await db.execute(
        "UPDATE run SET taking_part = array_remove(taking_part, $3) WHERE run_id = $1 AND attempt = $2",
        run_id,
        attempt,
        trust,
    )


async def set_priority(db: Connection, run_id: RunId, priority: int) -> None:
    await db.execute("UPDATE run SET priority = $2 WHERE run_id = $1", run_id, priority)


async def requeue(db: Connection, event: RunRequeued) -> None:
    await set_status(db, event.run_id, "queued", stage="queued")
    await db.execute("UPDATE run SET rests_until = $2 WHERE run_id = $1", event.run_id, event.rests_until)


async def set_status(db: Connection, run_id: RunId, status: str, *, stage: str | None = None) -> None:
    """A run that is not with a net has none."""
    await db.execute(
        "UPDATE run SET status = $2, stage = coalesce($3, stage), net = CASE WHEN $2 = 'stopping' THEN net END"
        " WHERE run_id = $1",
        run_id,
        status,
        stage,
    )


async def end_run(
    db: Connection,
    run_id: RunId,
    status: str,
    said: Envelope,
    *,
    results: str | None = None,
    reason: str | None = None,
    detail: str = "",
) -> None:
    await db.execute(
        "UPDATE run SET status = $2, net = NULL, ended_at = $3, results = $4, reason = $5, detail = $6"
        " WHERE run_id = $1",
        run_id,
        status,
        said.time,
        results,
        reason,
        detail,
    )


async def reach_stage(db: Connection, run_id: RunId, attempt: int, stage: str) -> None:
    await db.execute("UPDATE run SET stage = $3 WHERE run_id = $1 AND attempt = $2", run_id, attempt, stage)


async def expect_rounds(db: Connection, run_id: RunId, attempt: int, rounds: int) -> None:
    await db.execute("UPDATE run SET rounds = $3 WHERE run_id = $1 AND attempt = $2", run_id, attempt, rounds)


async def keep_round(db: Connection, event: RoundComplete) -> bool:
    """A completed round, the last so far; answers whether it belongs to the run's present attempt."""
    checkpoint = event.checkpoint.model_dump(mode="json")
    kept: bool | None = await db.fetchval(
        "UPDATE run SET rounds = $4, rounds_done = $5, checkpoint = $6"
        " WHERE run_id = $1 AND attempt = $2 AND fencing = $3 RETURNING true",
        event.run_id,
        event.attempt,
        event.fencing,
        event.rounds,
        event.checkpoint.round + 1,
        checkpoint,
    )
    if kept is None:
        return False
    await db.execute(
        "INSERT INTO run_round (run_id, round, attempt, checkpoint) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (run_id, round) DO UPDATE SET attempt = $3, checkpoint = $4",
        event.run_id,
        event.checkpoint.round,
        event.attempt,
        checkpoint,
    )
    return True


async def drop_rounds(db: Connection, event: RoundsDeleted) -> None:
    for of_attempt in event.deleted:
        await db.execute(
            "DELETE FROM run_round WHERE run_id = $1 AND attempt = $2 AND round = ANY($3)",
            event.run_id,
            of_attempt.attempt,
            of_attempt.rounds,
        )


async def keep_metric(db: Connection, event: MetricReported, said: Envelope) -> None:
    """A round that is done again replaces what was told of it."""
    await db.execute(
        "INSERT INTO run_metric (run_id, trust, name, round, attempt, value, at, axis, x)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " ON CONFLICT (run_id, trust, name, round, axis, x) DO UPDATE SET attempt = $5, value = $6, at = $7"
        " WHERE run_metric.attempt <= $5",
        event.run_id,
        event.trust,
        event.name,
        event.round,
        event.attempt,
        event.value,
        said.time,
        event.axis or ROUND_AXIS,
        float(event.round) if event.x is None else event.x,
    )


async def add_news(
    db: Connection, event: Message, said: Envelope, kind: str, facts: Mapping[str, Any], *, attempt: int | None = None
) -> None:
    """Add to the run's timeline. With `attempt`, only where that is the run's present one."""
    await db.execute(
        "WITH moved AS (UPDATE run SET last_news = last_news + 1"
        "   WHERE run_id = $1 AND ($5::int IS NULL OR attempt = $5) RETURNING last_news, attempt)"
        " INSERT INTO run_news (run_id, number, at, kind, attempt, facts)"
        " SELECT $1, last_news, $2, $3, attempt, $4 FROM moved",
        UUID(event.key),
        said.time,
        kind,
        dict(facts),
        attempt,
    )


async def run(db: Connection, run_id: RunId) -> Row | None:
    return await db.fetchrow("SELECT * FROM run WHERE run_id = $1", run_id)


async def runs_of_project(db: Connection, project_id: ProjectId) -> list[Row]:
    return await db.fetch("SELECT * FROM run WHERE project_id = $1 ORDER BY queued_at DESC", project_id)


async def timeline(db: Connection, run_id: RunId) -> list[Row]:
    """The run's news but for its metrics, oldest first."""
    return await db.fetch("SELECT * FROM run_news WHERE run_id = $1 AND kind <> 'metric' ORDER BY number", run_id)


async def news(db: Connection, run_id: RunId, after: int) -> list[Row]:
    """All news after a number, oldest first."""
    return await db.fetch(
        "SELECT * FROM run_news WHERE run_id = $1 AND number > $2 ORDER BY number LIMIT 1000", run_id, after
    )


async def metrics(db: Connection, run_id: RunId) -> list[Row]:
    return await db.fetch("SELECT * FROM run_metric WHERE run_id = $1 ORDER BY name, trust, round, axis, x", run_id)


Place = tuple[TrustCode, str, int, str, float]
"""Where a metric stands in a sheet: Trust, name, round, axis and x."""
BEFORE_ALL: Place = ("", "", 0, "", 0.0)


async def page_of_metrics(db: Connection, run_id: RunId, after: Place, limit: int) -> list[Row]:
    """The run's metrics behind a place, in the order of their places."""
    return await db.fetch(
        "SELECT * FROM run_metric WHERE run_id = $1 AND (trust, name, round, axis, x) > ($3, $4, $5, $6, $7)"
        " ORDER BY trust, name, round, axis, x LIMIT $2",
        run_id,
        limit,
        *after,
    )
