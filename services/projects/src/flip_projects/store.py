"""The SQL of the projects service."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from flip_chassis.database import Connection, Row
from flip_contracts.auth import email_digest
from flip_contracts.base import ModelId, ProjectId, TrustCode, UserId
from flip_contracts.projects import ModelCreated, ModelEdited, ProjectCreated, ProjectEdited, ProjectStaged
from flip_contracts.topics import MODEL, PROJECT

from flip_projects.domain import SavedQuery, TrustReadiness

# --- people -------------------------------------------------------------------------------------------------------


async def users_of(db: Connection, addresses: Sequence[str]) -> Mapping[str, UserId]:
    """The users behind these addresses; an address that nobody was invited by is left out."""
    by_digest = {email_digest(address): address for address in addresses}
    rows = await db.fetch("SELECT email_digest, user_id FROM known_user WHERE email_digest = ANY ($1)", list(by_digest))
    return {by_digest[row["email_digest"]]: row["user_id"] for row in rows}


# --- what is shown of projects ------------------------------------------------------------------------------------

Order = Literal["name", "status", "created_at", "changed_at"]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which projects: those of or with `seen_by` (None: all), by owner, by a word in name or description, by status."""

    seen_by: UserId | None
    owner: UserId | None
    keyword: str
    status: str | None


_FITS = """
FROM project WHERE status <> 'deleted'
AND ($1::uuid IS NULL OR owner = $1 OR $1 = ANY (members))
AND ($2::uuid IS NULL OR owner = $2)
AND position(lower($3) in lower(name || E'\\n' || description)) > 0
AND ($4::text IS NULL OR status = $4)
"""


async def project(db: Connection, project_id: ProjectId) -> Row | None:
    """One project."""
    return await db.fetchrow("SELECT * FROM project WHERE project_id = $1", project_id)


async def projects(
    db: Connection, which: Filter, order: Order, *, descending: bool, size: int, offset: int
) -> list[Row]:
    """A page of projects. `order` is one of the columns named in `Order`."""
    direction = "DESC" if descending else "ASC"
    return await db.fetch(
        f"SELECT * {_FITS} ORDER BY {order} {direction}, project_id {direction} LIMIT $5 OFFSET $6",
        *_terms(which),
        size,
        offset,
    )


async def count_projects(db: Connection, which: Filter) -> int:
    """How many projects fit."""
    return await db.fetchval(f"SELECT count(*) {_FITS}", *_terms(which))


def _terms(which: Filter) -> tuple[object, ...]:
    return which.seen_by, which.owner, which.keyword, which.status


async def timeline(db: Connection, project_id: ProjectId) -> list[Row]:
    """What was said of the project and of its models, oldest first, as rows of the event log."""
    return await db.fetch(
        "SELECT * FROM event_log WHERE topic = $1 AND key = $2"
        " OR topic = $3 AND key IN (SELECT model_id::text FROM model WHERE project_id = $4) ORDER BY pos",
        PROJECT.name,
        str(project_id),
        MODEL.name,
        project_id,
    )


# --- what is kept of projects -------------------------------------------------------------------------------------


async def add_project(db: Connection, event: ProjectCreated, at: datetime) -> None:
    """A new draft."""
    await db.execute(
        "INSERT INTO project (project_id, owner, name, description, members, status, created_at, changed_at)"
        " VALUES ($1, $2, $3, $4, $5, 'draft', $6, $6)",
        event.project_id,
        event.owner,
        event.name,
        event.description,
        sorted(event.members),
        at,
    )


async def change_details(db: Connection, event: ProjectEdited, at: datetime) -> None:
    """The draft's details are these now."""
    await db.execute(
        "UPDATE project SET name = $2, description = $3, members = $4, changed_at = $5 WHERE project_id = $1",
        event.project_id,
        event.name,
        event.description,
        sorted(event.members),
        at,
    )


async def stage(db: Connection, event: ProjectStaged, at: datetime) -> None:
    """These Trusts are asked."""
    asked = {trust: {"state": "asked", "reason": "", "at": at.isoformat()} for trust in sorted(event.trusts)}
    await db.execute(
        "UPDATE project SET status = 'staged', query_version = $2, decisions = $3, changed_at = $4"
        " WHERE project_id = $1",
        event.project_id,
        event.query_version,
        asked,
        at,
    )


async def unstage(db: Connection, project_id: ProjectId, at: datetime) -> None:
    """Nobody is asked any more."""
    await db.execute(
        "UPDATE project SET status = 'draft', query_version = NULL, decisions = '{}', changed_at = $2"
        " WHERE project_id = $1",
        project_id,
        at,
    )


async def decide(
    db: Connection, project_id: ProjectId, trust: TrustCode, state: str, reason: str, at: datetime
) -> None:
    """A Trust's decision is this now."""
    await db.execute(
        "UPDATE project SET decisions = decisions || $2::jsonb, changed_at = $3 WHERE project_id = $1",
        project_id,
        {trust: {"state": state, "reason": reason, "at": at.isoformat()}},
        at,
    )


async def set_status(db: Connection, project_id: ProjectId, status: str, at: datetime) -> None:
    """The project's state is this now."""
    await db.execute("UPDATE project SET status = $2, changed_at = $3 WHERE project_id = $1", project_id, status, at)


async def confirm_enrichment(db: Connection, project_id: ProjectId, by: str, at: datetime) -> None:
    """Enrichment was confirmed for the Trusts that take part now."""
    await db.execute(
        "UPDATE project SET changed_at = $3, enrichment = jsonb_build_object('by', $2::text, 'at', $4::text, 'trusts',"
        " (SELECT coalesce(jsonb_agg(key ORDER BY key), '[]') FROM jsonb_each(decisions)"
        " WHERE value ->> 'state' = 'approved'))"
        " WHERE project_id = $1",
        project_id,
        by,
        at,
        at.isoformat(),
    )


# --- models -------------------------------------------------------------------------------------------------------


async def model(db: Connection, project_id: ProjectId, model_id: ModelId) -> Row | None:
    """One model of the project."""
    return await db.fetchrow(
        "SELECT m.*, EXISTS (SELECT FROM trained_model t WHERE t.model_id = m.model_id) AS trained FROM model m"
        " WHERE project_id = $1 AND model_id = $2 AND NOT deleted",
        project_id,
        model_id,
    )


async def models(db: Connection, project_id: ProjectId) -> list[Row]:
    """The models of the project, oldest first."""
    return await db.fetch(
        "SELECT m.*, EXISTS (SELECT FROM trained_model t WHERE t.model_id = m.model_id) AS trained FROM model m"
        " WHERE project_id = $1 AND NOT deleted ORDER BY created_at, model_id",
        project_id,
    )


async def add_model(db: Connection, event: ModelCreated, by: str, at: datetime) -> None:
    """A new model."""
    await db.execute(
        "INSERT INTO model (model_id, project_id, name, description, framework, job, created_by, created_at,"
        " changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
        event.model_id,
        event.project_id,
        event.name,
        event.description,
        event.framework,
        event.job,
        by,
        at,
    )


async def change_model(db: Connection, event: ModelEdited, at: datetime) -> None:
    """The model's details are these now."""
    await db.execute(
        "UPDATE model SET name = $2, description = $3, changed_at = $4 WHERE model_id = $1",
        event.model_id,
        event.name,
        event.description,
        at,
    )


async def delete_model(db: Connection, model_id: ModelId) -> None:
    """The model is gone from view."""
    await db.execute("UPDATE model SET deleted = true WHERE model_id = $1", model_id)


# --- what others have said ----------------------------------------------------------------------------------------


async def saved_query(db: Connection, project_id: ProjectId) -> SavedQuery | None:
    """The query saved last, with the Trusts that have answered it with a count."""
    row = await db.fetchrow(
        "SELECT query_version, array(SELECT trust FROM query_answer a WHERE a.project_id = q.project_id"
        " AND a.query_version = q.query_version AND outcome = 'answered') AS answered"
        " FROM saved_query q WHERE project_id = $1",
        project_id,
    )
    return None if row is None else SavedQuery(row["query_version"], frozenset(row["answered"]))


async def save_query(db: Connection, project_id: ProjectId, version: int) -> None:
    """This version is the one that counts."""
    await db.execute(
        "INSERT INTO saved_query (project_id, query_version) VALUES ($1, $2)"
        " ON CONFLICT (project_id) DO UPDATE SET query_version = $2",
        project_id,
        version,
    )


async def save_answer(db: Connection, project_id: ProjectId, version: int, trust: TrustCode, outcome: str) -> None:
    """A Trust has answered."""
    await db.execute(
        "INSERT INTO query_answer (project_id, query_version, trust, outcome) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (project_id, query_version, trust) DO UPDATE SET outcome = $4",
        project_id,
        version,
        trust,
        outcome,
    )


async def readiness(db: Connection, project_id: ProjectId) -> Mapping[TrustCode, TrustReadiness]:
    """How far each Trust's images are, as far as anything was said of it."""
    rows = await db.fetch("SELECT trust, images_ready, labelled FROM trust_images WHERE project_id = $1", project_id)
    return {row["trust"]: TrustReadiness(row["images_ready"], row["labelled"]) for row in rows}


async def images_ready(db: Connection, project_id: ProjectId, trust: TrustCode, *, ready: bool) -> None:
    """Whether the Trust's images are there."""
    await db.execute(
        "INSERT INTO trust_images (project_id, trust, images_ready) VALUES ($1, $2, $3)"
        " ON CONFLICT (project_id, trust) DO UPDATE SET images_ready = $3",
        project_id,
        trust,
        ready,
    )


async def labels_registered(db: Connection, project_id: ProjectId, trust: TrustCode, *, labelled: bool) -> None:
    """The Trust brought labels; `labelled` says whether any study has one."""
    await db.execute(
        "INSERT INTO trust_images (project_id, trust, labelled) VALUES ($1, $2, $3)"
        " ON CONFLICT (project_id, trust) DO UPDATE SET labelled = $3",
        project_id,
        trust,
        labelled,
    )


async def model_trained(db: Connection, model_id: ModelId) -> None:
    """The model's first training has started."""
    await db.execute("INSERT INTO trained_model (model_id) VALUES ($1) ON CONFLICT DO NOTHING", model_id)
