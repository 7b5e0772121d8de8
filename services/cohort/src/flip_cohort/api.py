"""The hub's routes: run and save a query, look at its versions and answers, look at the frozen cohorts."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from flip_chassis.database import Row
from flip_chassis.http import Reading, SeenProject, WorkedProject, WorkOfRequest
from flip_chassis.refusal import NotFound
from flip_contracts.base import ProjectId, Released, TrustCode
from flip_contracts.cohort import Distribution, RunCohortQuery
from pydantic import BaseModel, ConfigDict, Field

from flip_cohort import domain, guard, hub_store
from flip_cohort.domain import QUERIES, AnswerState
from flip_cohort.settings import HubSettings

router = APIRouter(tags=["cohort"])


class QueryRequest(BaseModel):
    """A query to run and save."""

    model_config = ConfigDict(extra="forbid")

    sql: Annotated[str, Field(max_length=guard.MAX_CHARACTERS)]
    """One SELECT on the OMOP tables that returns `person_id` and, with images, `accession_id`."""
    trusts: frozenset[TrustCode]
    """The Trusts to ask. No other one hears of the query."""
    imaging: bool = True
    """Whether the project uses images."""


class Answer(BaseModel):
    """Where one Trust is with one version. `suppressed` is fewer persons than may be told, or none."""

    trust: TrustCode
    state: AnswerState
    persons: Released | None
    reason: str | None
    distributions: dict[str, Distribution]
    at: datetime


class Together(BaseModel):
    """What the Trusts' numbers add up to; a Trust without a number adds nothing, so there may be more."""

    trusts: list[TrustCode]
    persons: int
    distributions: dict[str, dict[str, int]]


class Query(BaseModel):
    """One version of a project's query, with the Trusts' answers."""

    project_id: ProjectId
    version: int
    sql: str
    digest: str
    imaging: bool
    saved_at: datetime
    saved_by: str
    deadline: datetime
    answers: list[Answer]
    together: Together


class Cohort(BaseModel):
    """The project's cohort at one Trust."""

    trust: TrustCode
    query_version: int
    state: Literal["asked", "frozen", "refused"]
    persons: Released | None
    studies: Released | None
    reason: str | None
    at: datetime


@router.post("/projects/{project_id}/queries", status_code=202)
async def run_and_save(
    project_id: ProjectId, body: QueryRequest, project: WorkedProject, work: WorkOfRequest, request: Request
) -> Query:
    """Save the next version of the query and send it to the chosen Trusts."""
    settings: HubSettings = request.app.state.context.settings
    await asyncio.to_thread(guard.admit, body.sql, imaging=body.imaging)
    now = datetime.now(UTC)
    async with work.db.transaction():
        async with work.on(QUERIES, project_id) as queries:
            saved = domain.save(
                queries.state,
                project_id,
                status=project.status,
                digest=guard.digest(body.sql),
                imaging=body.imaging,
                trusts=body.trusts,
                known=settings.trusts,
                budget=settings.queries_per_project,
            )
            queries.record(saved)
        command = RunCohortQuery(
            project_id=project_id,
            query_version=saved.query_version,
            query_digest=saved.query_digest,
            sql=body.sql,
            imaging=body.imaging,
            deadline=now + settings.answer_within,
        )
        for trust in sorted(body.trusts):
            await work.say(command, to=trust)
    (query,) = [q for q in await _queries(work.db, project_id) if q.version == saved.query_version]
    return query


@router.get("/projects/{project_id}/queries")
async def list_queries(project_id: ProjectId, project: SeenProject, db: Reading) -> list[Query]:
    """Every version, the newest first."""
    return await _queries(db, project.project_id)


@router.get("/projects/{project_id}/queries/{version}")
async def read_query(project_id: ProjectId, version: int, project: SeenProject, db: Reading) -> Query:
    """One version with its answers."""
    for query in await _queries(db, project.project_id):
        if query.version == version:
            return query
    raise NotFound("query-version-not-found", version=version)


@router.get("/projects/{project_id}/cohorts")
async def list_cohorts(project_id: ProjectId, project: SeenProject, db: Reading) -> list[Cohort]:
    """The frozen cohort at each Trust that has approved."""
    return [_cohort(row) for row in await hub_store.cohorts(db, project.project_id)]


async def _queries(db: Reading, project_id: ProjectId) -> list[Query]:
    now = datetime.now(UTC)
    rows = await hub_store.answers(db, project_id)
    return [
        _query(version, [row for row in rows if row["version"] == version["version"]], now)
        for version in await hub_store.versions(db, project_id)
    ]


def _query(version: Row, rows: Iterable[Row], now: datetime) -> Query:
    answers = [answer_of(row, overdue=now > version["deadline"]) for row in rows]
    return Query(**dict(version), answers=answers, together=add_up(answers))


def answer_of(row: Row, *, overdue: bool) -> Answer:
    """A Trust's answer; one that is overdue has timed out for who asks, and still counts should it come."""
    late = overdue and row["state"] in ("sent", "running")
    return Answer(
        trust=row["trust"],
        state="timed_out" if late else row["state"],
        persons=row["persons"],
        reason="no-answer-in-time" if late else row["reason"],
        distributions=row["distributions"] or {},
        at=row["at"],
    )


def _cohort(row: Row) -> Cohort:
    return Cohort(
        trust=row["trust"],
        query_version=row["version"],
        state=row["state"],
        persons=row["persons"],
        studies=row["studies"],
        reason=row["reason"],
        at=row["at"],
    )


def add_up(answers: Sequence[Answer]) -> Together:
    """What the Trusts' numbers add up to."""
    counted = [answer for answer in answers if isinstance(answer.persons, int)]
    sums: dict[str, dict[str, int]] = {}
    for answer in counted:
        for name, distribution in answer.distributions.items():
            bars = sums.setdefault(name, {})
            for category, persons in distribution.items():
                if isinstance(persons, int):
                    bars[category] = bars.get(category, 0) + persons
    return Together(
        trusts=[answer.trust for answer in counted],
        persons=sum(answer.persons for answer in counted if isinstance(answer.persons, int)),
        distributions=sums,
    )
