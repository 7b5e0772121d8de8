# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""Runs an admitted query on the Trust's OMOP database and groups the persons it finds.

One connection a query, of a role that can only read, in a read-only transaction with limits on time, memory and rows.
Each row is joined to the person it names and, in a project with images, to the study it names: a person or study
that isn't on record is not found, whatever the query says.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

import asyncpg
from flip_chassis.database import UNREACHABLE

from flip_cohort.disclosure import NOT_RECORDED, age_band
from flip_cohort.domain import Member, Rows
from flip_cohort.guard import Admitted
from flip_cohort.omop import IDENTIFIERS

_CONNECT_WITHIN_S = 10
_GRACE_S = 10
AGE, SEX, MODALITY, MANUFACTURER = "age", "sex", "modality", "manufacturer"
_STANDARD = (AGE, SEX, MODALITY, MANUFACTURER)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may take."""

    statement_timeout_s: int
    work_mem_mib: int
    most_rows: int


@dataclass(frozen=True, slots=True)
class Found:
    """The members of the cohort, the persons of each category by distribution, and the query's rows of each member."""

    members: frozenset[Member]
    distributions: Mapping[str, Mapping[str, frozenset[int]]]
    rows: Rows

    @property
    def persons(self) -> frozenset[int]:
        """The distinct persons."""
        return frozenset(member.person_id for member in self.members)

    def without(self, persons: frozenset[int]) -> "Found":
        """What is found when `persons` are left out."""
        return replace(
            self,
            members=frozenset(member for member in self.members if member.person_id not in persons),
            distributions={
                name: {category: left for category, who in parts.items() if (left := who - persons)}
                for name, parts in self.distributions.items()
            },
            rows={member: said for member, said in self.rows.items() if member.person_id not in persons},
        )


class QueryFailed(Exception):
    """The query could not be run to its end. `reason` tells nothing of the data."""

    def __init__(self, outcome: Literal["failed", "timed_out"], reason: str) -> None:
        super().__init__(reason)
        self.outcome: Literal["failed", "timed_out"] = outcome
        self.reason = reason


class OmopUnreachable(Exception):
    """The OMOP database is away; the same query may be run later."""


async def find(dsn: str, query: Admitted, *, imaging: bool, limits: Limits, today: date) -> Found:
    """Run the query. Ages are those reached in the year of `today`.

    Raises:
        QueryFailed: too slow, too large, or not to be run on this database.
        OmopUnreachable: no connection, or it was lost.
    """
    statement = _statement(query, imaging=imaging, most_rows=limits.most_rows)
    rows = await run(dsn, statement, limits)
    if len(rows) > limits.most_rows:
        raise QueryFailed("failed", "too-many-rows")
    return _grouped(rows, query, today)


def _names(query: Admitted) -> list[str]:
    """The distributions that the query's own columns ask for, beside the standard ones."""
    return [name for name in query.categories if name not in _STANDARD]


def _statement(query: Admitted, *, imaging: bool, most_rows: int) -> str:
    studies = "accession_id" in query.columns
    outputs = ["q.person_id", "p.year_of_birth", "sex.concept_name"]
    outputs += ["s.accession_id", "s.modality", "s.manufacturer"] if studies else ["NULL", "NULL", "NULL"]
    joins = [
        "JOIN omop.person p ON p.person_id = q.person_id",
        "LEFT JOIN omop.concept sex ON sex.concept_id = p.gender_concept_id",
    ]
    if studies:
        how = "JOIN" if imaging else "LEFT JOIN"
        joins.append(
            f"{how} omop.radiology_occurrence s ON s.person_id = q.person_id AND s.accession_id = q.accession_id"
        )
    for number, name in enumerate(_names(query)):
        if query.categories[name].endswith("_concept_id"):
            joins.append(f'LEFT JOIN omop.concept c{number} ON c{number}.concept_id = q."{name}"')
            outputs.append(f'coalesce(c{number}.concept_name, q."{name}"::text)')
        else:
            outputs.append(f'q."{name}"::text')
    outputs.append(f"(to_jsonb(q) - '{{{','.join(sorted(IDENTIFIERS))}}}'::text[])::text")
    listed = ", ".join(f"{output} AS o{number}" for number, output in enumerate(outputs))
    # The query is written anew from its tree and every name in it is checked: see guard.py.
    return f"SELECT DISTINCT {listed} FROM ({query.sql}) q {' '.join(joins)} LIMIT {most_rows + 1}"  # noqa: S608


async def run(dsn: str, statement: str, limits: Limits) -> list[Any]:
    """Run one statement that may only read, on a connection of its own. Raises as `find` does."""
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=_CONNECT_WITHIN_S,
            command_timeout=limits.statement_timeout_s + _GRACE_S,
            statement_cache_size=0,
            server_settings={
                "application_name": "flip-cohort",
                "default_transaction_read_only": "on",
                "search_path": "pg_catalog",
                "standard_conforming_strings": "on",
                "statement_timeout": f"{limits.statement_timeout_s}s",
                "work_mem": f"{limits.work_mem_mib}MB",
                "max_parallel_workers_per_gather": "0",
            },
        )
    except (*UNREACHABLE, TimeoutError) as error:
        raise OmopUnreachable from error
    try:
        await _require_reader(connection)
        async with connection.transaction(readonly=True):
            return await connection.fetch(statement)
    except (asyncpg.QueryCanceledError, TimeoutError) as error:
        raise QueryFailed("timed_out", "statement-timeout") from error
    except UNREACHABLE as error:
        raise OmopUnreachable from error
    except asyncpg.PostgresError as error:
        raise QueryFailed("failed", _reason(error)) from error
    finally:
        await connection.close(timeout=_GRACE_S)


async def _require_reader(connection: Any) -> None:
    """Refuse to work as a role that could do more than read."""
    strong = await connection.fetchval(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles"
        " WHERE rolname = current_user"
    )
    if strong:
        raise QueryFailed("failed", "database-role-too-strong")


def _reason(error: asyncpg.PostgresError) -> str:
    """Why a query failed, where that says nothing of the data: an error of a value could, so it has no name."""
    match error:
        case asyncpg.SyntaxOrAccessError():
            return "not-readable-here"
        case asyncpg.InsufficientResourcesError() | asyncpg.ProgramLimitExceededError():
            return "out-of-resources"
    return "query-failed"


def _grouped(rows: Iterable[Any], query: Admitted, today: date) -> Found:
    names, studies = _names(query), "accession_id" in query.columns
    members: set[Member] = set()
    groups: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    texts: dict[Member, set[str]] = defaultdict(set)
    for person, born, sex, accession, modality, manufacturer, *others, text in rows:
        members.add(Member(person, accession))
        texts[Member(person, accession)].add(text)
        told = {AGE: age_band(today.year - born), SEX: sex, **dict(zip(names, others, strict=True))}
        if studies:
            told |= {MODALITY: modality, MANUFACTURER: manufacturer}
        for name, category in told.items():
            groups[name][NOT_RECORDED if category is None else category].add(person)
    return Found(
        frozenset(members),
        {name: {category: frozenset(who) for category, who in parts.items()} for name, parts in groups.items()},
        {member: [json.loads(text) for text in sorted(of_member)] for member, of_member in texts.items()},
    )
