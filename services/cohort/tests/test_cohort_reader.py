"""An admitted query on a real OMOP database: it finds what its author's own text finds, and can't do more than read."""

from datetime import date

import pytest
from flip_chassis.database import connect
from flip_cohort import reader
from flip_cohort.guard import Admitted, admit
from flip_cohort.reader import Limits, OmopUnreachable, QueryFailed
from flip_local.data.queries import DEMO_QUERY

from .conftest import Omop
from .queries import HONEST

pytestmark = [pytest.mark.parts, pytest.mark.requirement("COHORT-3")]

LIMITS = Limits(statement_timeout_s=20, work_mem_mib=16, most_rows=100_000)
TODAY = date(2026, 1, 1)


async def find(omop: Omop, query: Admitted, *, imaging: bool = False, limits: Limits = LIMITS) -> reader.Found:
    return await reader.find(omop.reader, query, imaging=imaging, limits=limits, today=TODAY)


@pytest.mark.parametrize("sql", HONEST)
async def test_what_is_written_anew_finds_the_persons_that_the_author_meant(omop: Omop, sql: str):
    async with connect(omop.owner) as db:
        await db.execute("SET search_path = omop")
        meant = {row["person_id"] for row in await db.fetch(sql)}
    assert (await find(omop, admit(sql, imaging=False))).persons == meant


@pytest.mark.requirement("RUN-10")
async def test_what_the_query_says_of_a_member_is_kept_without_its_identifiers(omop: Omop):
    query = admit(
        "select p.person_id, r.accession_id, r.radiology_occurrence_id, r.modality, 2026 - p.year_of_birth as age"
        " from person p join radiology_occurrence r on r.person_id = p.person_id",
        imaging=True,
    )
    found = await find(omop, query, imaging=True)
    assert found.rows.keys() == found.members
    async with connect(omop.owner) as db:
        meant = await db.fetch(
            "SELECT accession_id, modality, 2026 - year_of_birth AS age"
            " FROM omop.person JOIN omop.radiology_occurrence USING (person_id)"
        )
    said = {(member.accession_id, row["modality"], row["age"]) for member, rows in found.rows.items() for row in rows}
    assert said == {tuple(row.values()) for row in meant}
    assert {name for rows in found.rows.values() for row in rows for name in row} == {"modality", "age"}
    left = found.without(found.persons - {next(iter(found.persons))})
    assert left.rows.keys() == left.members


async def test_the_members_are_persons_with_studies_of_their_own(omop: Omop):
    found = await find(omop, admit(DEMO_QUERY, imaging=True), imaging=True)
    assert len(found.members) == len(found.persons) == 12
    assert all(member.accession_id for member in found.members)
    stranger = admit("select p.person_id, r.accession_id from person p cross join radiology_occurrence r", imaging=True)
    strangers = await find(omop, stranger, imaging=True)
    async with connect(omop.owner) as db:
        rows = await db.fetch("SELECT person_id, accession_id FROM omop.radiology_occurrence")
    assert {(m.person_id, m.accession_id) for m in strangers.members} == {tuple(row.values()) for row in rows}


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM omop.death",
        "UPDATE omop.person SET year_of_birth = 1900",
        "CREATE TABLE omop.mine (a int)",
        "CREATE TEMPORARY TABLE mine (a int)",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT * FROM pg_authid",
        "COPY omop.person TO PROGRAM 'true'",
    ],
)
async def test_even_past_the_guard_the_connection_can_only_read(omop: Omop, statement: str):
    with pytest.raises(QueryFailed, match=r"not-readable-here|query-failed"):
        await reader.run(omop.reader, statement, LIMITS)
    with pytest.raises(QueryFailed, match="not-readable-here"):
        await reader.run(omop.reader, f"SELECT 1; {statement}", LIMITS)


async def test_a_role_that_could_do_more_than_read_runs_nothing(omop: Omop, trust_postgres: object):
    cluster = trust_postgres.cluster  # type: ignore[attr-defined]
    database = omop.reader.rsplit("/", 1)[-1]
    with pytest.raises(QueryFailed, match="database-role-too-strong"):
        await find(Omop(omop.owner, cluster.dsn(database, "postgres")), admit(HONEST[0], imaging=False))


async def test_more_rows_than_allowed_are_no_answer(omop: Omop):
    with pytest.raises(QueryFailed, match="too-many-rows"):
        await find(omop, admit(HONEST[0], imaging=False), limits=Limits(20, 16, 100))


async def test_a_query_without_end_is_stopped(omop: Omop):
    slow = admit(
        """select p.person_id from person p where p.year_of_birth < (
           select count(*) from measurement a, measurement b, measurement c
           where a.value_as_number + b.value_as_number * c.value_as_number > 0)""",
        imaging=False,
    )
    with pytest.raises(QueryFailed) as stopped:
        await find(omop, slow, limits=Limits(1, 16, 100))
    assert (stopped.value.outcome, stopped.value.reason) == ("timed_out", "statement-timeout")


async def test_a_database_that_is_away_is_told_from_a_query_that_fails(omop: Omop):
    away = Omop(omop.owner, "postgresql://omop_reader:x@127.0.0.1:1/omop")
    with pytest.raises(OmopUnreachable):
        await find(away, admit(HONEST[0], imaging=False))
