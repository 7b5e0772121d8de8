"""The cohort service in both roles, on real Postgres and Kafka."""

import json
from datetime import UTC, datetime

import asyncpg
import psycopg
import pytest
from flip_chassis.database import connect
from flip_chassis.testing import eventually, said
from flip_cohort import guard
from flip_contracts.base import ProjectId
from flip_contracts.cohort import RunCohortQuery, TrustAnsweredQuery
from flip_local.data.people import patients
from flip_local.data.queries import DEMO_QUERY, EMPTY_QUERY, LARGE_QUERY, SMALL_QUERY
from flip_local.testing import Database
from structlog.testing import capture_logs

from .conftest import Hub, Omop, Project, TrustUp

pytestmark = [pytest.mark.parts, pytest.mark.usefixtures("kch")]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TRAINING = {patient.accession for patient in patients("KCH") if patient.scanned_at.year == 2024}


@pytest.fixture
async def project(hub: Hub) -> Project:
    return await hub.project()


@pytest.mark.requirement("COHORT-1")
@pytest.mark.requirement("COHORT-5")
async def test_a_query_travels_and_comes_back_as_counts_and_distributions(project: Project):
    answer = await project.answered(DEMO_QUERY)
    assert (answer["state"], answer["persons"], answer["reason"]) == ("answered", 10, None)
    assert answer["distributions"].keys() == {"age", "sex", "modality", "manufacturer"}
    assert answer["distributions"]["modality"] == {"MR": 10}
    together = (await project.get("queries/1")).json()["together"]
    assert (together["trusts"], together["persons"], together["distributions"]["modality"]) == (["KCH"], 10, {"MR": 10})


@pytest.mark.requirement("COHORT-5")
async def test_a_column_with_few_codes_is_told_by_its_concepts_names(project: Project):
    answer = await project.answered(
        "select person_id, race_concept_id, gender_concept_id as g from person", imaging=False
    )
    assert answer["distributions"].keys() == {"age", "sex", "race_concept_id", "g"}
    assert answer["distributions"]["g"] == answer["distributions"]["sex"]
    assert all(persons >= 10 for bars in answer["distributions"].values() for persons in bars.values())


@pytest.mark.requirement("COHORT-6")
async def test_a_few_persons_and_none_give_the_same_answer(project: Project):
    few, none = await project.answered(SMALL_QUERY), await project.answered(EMPTY_QUERY)
    for answer in (few, none):
        assert (answer["state"], answer["persons"], answer["distributions"]) == ("suppressed", "suppressed", {})
        assert answer["reason"] is None


@pytest.mark.requirement("COHORT-6")
async def test_a_query_a_few_persons_away_from_an_answered_one_is_refused(project: Project):
    assert (await project.answered(DEMO_QUERY))["state"] == "answered"
    near = await project.answered(DEMO_QUERY.replace("AND person.year_of_birth <= 2005", ""))
    assert (near["state"], near["reason"]) == ("refused", "too-near-an-earlier-query")
    assert near["persons"] is None
    assert (await project.answered(DEMO_QUERY))["persons"] == 10, "the very same persons are told again"
    assert (await project.answered(LARGE_QUERY))["state"] == "answered"


@pytest.mark.requirement("COHORT-1")
async def test_a_trust_that_is_down_delays_only_itself_and_catches_up(project: Project, trust_up: TrustUp):
    saved = await project.ask(LARGE_QUERY, "KCH", "UCLH")
    assert (await project.settled(1, "KCH"))["state"] == "answered"
    assert (await project.answer(1, "UCLH"))["state"] == "sent"
    assert saved.json()["answers"][1]["trust"] == "UCLH"
    async with trust_up("UCLH"):
        assert (await project.settled(1, "UCLH"))["state"] == "answered"
    together = (await project.get("queries/1")).json()["together"]
    assert (together["trusts"], together["persons"]) == (["KCH", "UCLH"], 130)


@pytest.mark.requirement("COHORT-1")
async def test_a_trust_that_was_not_chosen_hears_nothing(project: Project, trust_up: TrustUp):
    await project.answered(DEMO_QUERY)
    other = await project.hub.project()
    await other.ask(DEMO_QUERY, "UCLH")
    async with trust_up("UCLH") as uclh:
        await other.settled(1, "UCLH")
        async with connect(uclh.app) as db:
            assert await db.fetchval("SELECT count(*) FROM query WHERE project_id = $1", project.id) == 0


@pytest.mark.requirement("COHORT-2")
async def test_a_restricted_word_is_named_and_nothing_is_saved(project: Project):
    answer = await project.ask("select person_id, accession_id from radiology_occurrence; drop table omop.person")
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["word"]) == (422, "restricted-word", "drop table")
    assert await project.versions() == []


@pytest.mark.requirement("COHORT-3")
@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("delete from omop.person", "not-one-select"),
        ("with x as (delete from person returning person_id) select person_id from x", "construct-not-allowed"),
        ("select person_id, pg_sleep(10) from person", "function-not-allowed"),
    ],
)
async def test_a_query_that_does_more_than_read_is_refused_and_changes_nothing(project: Project, sql: str, code: str):
    answer = await project.ask(sql, imaging=False)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert await project.versions() == []


@pytest.mark.requirement("COHORT-4")
async def test_a_query_for_images_without_accession_id_is_refused_with_the_reason(project: Project):
    answer = await project.ask("select person_id from person")
    assert (answer.status_code, answer.json()["code"]) == (422, "accession-id-missing")
    assert answer.json()["detail"] == guard.IMAGES_NEED_ACCESSION
    assert (await project.ask("select person_id from person", imaging=False)).status_code == 202


@pytest.mark.parametrize(
    ("trusts", "code"), [([], "no-trust-chosen"), (["NOWHERE"], "trust-unknown"), (["x"], "request-not-valid")]
)
async def test_trusts_that_are_none_are_refused_by_the_field(project: Project, trusts: list[str], code: str):
    token = {"Authorization": f"Bearer {project.hub.people.token(project.owner)}"}
    answer = await project.hub.http.post(
        f"/api/cohort/projects/{project.id}/queries", json={"sql": DEMO_QUERY, "trusts": trusts}, headers=token
    )
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert "trusts" in answer.text


@pytest.mark.requirement("COHORT-3")
@pytest.mark.requirement("COHORT-8")
@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("drop table omop.person", "restricted-word"),
        ("delete from omop.person", "not-one-select"),
        ("select person_id, pg_read_file('/etc/passwd') from person", "function-not-allowed"),
        ("select person_id from omop.person where person_id = 100023", "identifier-misused"),
    ],
)
async def test_the_trust_itself_refuses_what_a_hub_should_not_have_sent(
    project: Project, omop: Omop, kch: Database, sql: str, reason: str
):
    before = await count_persons(omop)
    await send(project, sql, digest=guard.digest(sql))
    report = await reported(kch, project)
    assert (report.outcome, report.reason, report.persons, report.distributions) == ("refused", reason, None, {})
    assert await count_persons(omop) == before


async def test_a_text_that_is_not_the_one_announced_is_refused(project: Project, kch: Database):
    await send(project, DEMO_QUERY, digest="ab" * 32)
    report = await reported(kch, project)
    assert (report.outcome, report.reason) == ("refused", "query-digest-differs")


@pytest.mark.requirement("COHORT-8")
@pytest.mark.parametrize(
    ("sql", "outcome", "reason"),
    [
        (
            """select p.person_id from person p where p.year_of_birth <
               (select count(*) from measurement a, measurement b, measurement c where a.value_as_number
                + b.value_as_number * c.value_as_number > 0)""",
            "timed_out",
            "statement-timeout",
        ),
        ("select person_id from person where gender_source_value::int = 1 / 0", "failed", "query-failed"),
        ("select person_id from person where year_of_birth > '19x'", "failed", "query-failed"),
    ],
)
async def test_a_query_that_cannot_be_run_tells_why_and_nothing_of_the_data(
    project: Project, sql: str, outcome: str, reason: str
):
    answer = await project.answered(sql, imaging=False)
    assert (answer["state"], answer["reason"], answer["persons"]) == (outcome, reason, None)


@pytest.mark.requirement("COHORT-8")
async def test_a_query_that_came_too_late_is_told_as_timed_out(project: Project, kch: Database):
    late = run(project.id, DEMO_QUERY, guard.digest(DEMO_QUERY)).model_copy(update={"deadline": LONG_AGO})
    await project.hub.commands.say(late, trust="KCH")
    report = await reported(kch, project)
    assert (report.outcome, report.reason) == ("timed_out", "deadline-passed")


@pytest.mark.requirement("COHORT-8")
async def test_a_query_that_took_the_service_down_three_times_is_given_up(project: Project, kch: Database):
    async with connect(kch.app) as db, db.transaction():
        await db.execute(
            "INSERT INTO query VALUES ($1, 1, $2, $3, false)", project.id, guard.digest(DEMO_QUERY), DEMO_QUERY
        )
        await db.execute(
            "INSERT INTO job (kind, project_id, version, digest, correlation_id, causation_id, attempts)"
            " VALUES ('answer', $1, 1, $2, $1, $1, 3)",
            project.id,
            guard.digest(DEMO_QUERY),
        )
    report = await reported(kch, project)
    assert (report.outcome, report.reason) == ("failed", "query-gave-no-end")


async def test_nothing_of_a_query_or_its_rows_is_in_a_log(project: Project, capfd: pytest.CaptureFixture[str]):
    marker = "zzmarkerzz"
    sql = f"select person_id, accession_id from radiology_occurrence where image_total_count > '{marker}'"
    with capture_logs() as logs:
        assert (await project.answered(sql))["reason"] == "query-failed"
        assert (await project.ask(f"select {marker} from from")).status_code == 422
    seen = capfd.readouterr()
    assert marker not in f"{logs}{seen.out}{seen.err}"
    assert marker not in json.dumps(await project.settled(1))


async def test_a_command_that_comes_again_changes_nothing(project: Project, kch: Database):
    command = run(project.id, DEMO_QUERY, guard.digest(DEMO_QUERY))
    envelope = await project.hub.commands.say(command, trust="KCH")
    await reported(kch, project)
    await project.hub.commands.repeat(envelope, command)
    other = await project.hub.project()
    await send(other, DEMO_QUERY, digest=guard.digest(DEMO_QUERY))
    await reported(kch, other)
    assert len(await reports(kch, project)) == 1


@pytest.mark.requirement("COHORT-7")
async def test_every_version_is_kept_with_its_answers_and_staging_locks_them(project: Project):
    await project.answered(DEMO_QUERY)
    await project.answered(SMALL_QUERY)
    await project.stage(1)
    refused = await project.ask(LARGE_QUERY)
    assert (refused.status_code, refused.json()["code"]) == (409, "project-not-in-draft")
    assert refused.json()["state"] == "staged"
    kept = [(each["version"], each["sql"], each["answers"][0]["state"]) for each in await project.versions()]
    assert kept == [(2, SMALL_QUERY, "suppressed"), (1, DEMO_QUERY, "answered")]


async def test_queries_are_for_the_members_of_the_project(hub: Hub):
    viewer, stranger, admin = await hub.person("viewer"), await hub.person("researcher"), await hub.person("admin")
    project = await hub.project(viewer=viewer)
    assert (await project.get("queries", user=viewer)).status_code == 200
    assert (await project.ask(DEMO_QUERY, user=viewer)).status_code == 403
    assert (await project.get("queries", user=stranger)).status_code == 404
    assert (await project.ask(DEMO_QUERY, user=stranger)).status_code == 404
    assert (await project.get("queries", user=admin)).status_code == 200
    assert (await project.get("queries/1")).json()["code"] == "query-version-not-found"


# --- freezing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def frozen(project: Project) -> Project:
    """A project whose cohort KCH has frozen."""
    await project.answered(DEMO_QUERY)
    await project.stage(1)
    await project.approve()
    await project.cohort("frozen")
    return project


@pytest.mark.requirement("COHORT-9")
async def test_approval_freezes_exactly_the_persons_and_studies_of_the_staged_query(frozen: Project, kch: Database):
    cohort = await frozen.cohort("frozen")
    assert (cohort["query_version"], cohort["persons"], cohort["studies"]) == (1, 10, 10)
    members = await frozen_members(kch, frozen)
    assert {accession for _, accession in members} == TRAINING
    assert len(members) == len({person for person, _ in members}) == 12
    async with connect(kch.owner) as db:
        rows = await db.fetch("SELECT query_digest, rows FROM frozen.cohort_member WHERE project_id = $1", frozen.id)
    assert {row["query_digest"] for row in rows} == {guard.digest(DEMO_QUERY)}
    assert all(len(row["rows"]) == 1 for row in rows)


@pytest.mark.requirement("COHORT-9")
async def test_imaging_and_training_read_the_frozen_cohort_and_nothing_else(
    frozen: Project, kch: Database, trust_postgres: object
):
    cluster = trust_postgres.cluster  # type: ignore[attr-defined]
    cluster.create_database(kch.name, f"{kch.name}_owner", "cohort_frozen_reader")
    reader = cluster.dsn(kch.name, "cohort_frozen_reader")
    with psycopg.connect(reader) as connection:
        count = "SELECT count(*) FROM frozen.cohort_member WHERE project_id = %s"
        assert connection.execute(count, [frozen.id]).fetchone() == (12,)
    with psycopg.connect(reader) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM public.told_persons")


@pytest.mark.requirement("COHORT-9")
async def test_freezing_again_changes_nothing_even_if_more_persons_would_fit_now(
    frozen: Project, kch: Database, omop: Omop
):
    before = await frozen_members(kch, frozen)
    shift = "UPDATE omop.radiology_occurrence SET radiology_occurrence_date = radiology_occurrence_date + $1::int"
    where = "WHERE radiology_occurrence_id = ANY ($2)"
    async with connect(omop.owner) as db:
        earlier = await db.fetchval(
            "SELECT array_agg(radiology_occurrence_id) FROM omop.radiology_occurrence"
            " WHERE protocol_source_value = 'MR HEAD T1 3D' AND extract(year FROM radiology_occurrence_date) = 2023"
        )
        assert len(earlier) > 0
        await db.execute(f"{shift} {where}", 365, earlier)
        try:
            await frozen.approve()
            await eventually(lambda: has_frozen_twice(kch, frozen))
            assert await frozen_members(kch, frozen) == before
        finally:
            await db.execute(f"{shift} {where}", -365, earlier)


@pytest.mark.requirement("COHORT-9")
async def test_the_database_itself_lets_no_frozen_cohort_grow(frozen: Project, kch: Database):
    async with connect(kch.app) as db:
        with pytest.raises(asyncpg.RaiseError, match="never grows"):
            await db.execute("INSERT INTO frozen_member VALUES ($1, 1, 'X')", frozen.id)
        with pytest.raises(asyncpg.RaiseError, match="never grows"):
            await db.execute("UPDATE frozen_member SET person_id = 1 WHERE project_id = $1", frozen.id)
        with pytest.raises(asyncpg.RaiseError, match="stays frozen"):
            await db.execute("DELETE FROM frozen_cohort WHERE project_id = $1", frozen.id)


@pytest.mark.requirement("COHORT-9")
async def test_a_person_who_opts_out_is_in_no_cohort_from_then_on(frozen: Project, kch: Database):
    (person, accession), *rest = await frozen_members(kch, frozen)
    async with connect(kch.app) as db:
        await db.execute("INSERT INTO opt_out (person_id) VALUES ($1)", person)
        try:
            assert await frozen_members(kch, frozen) == rest
        finally:
            await db.execute("DELETE FROM opt_out")
    assert accession in TRAINING


async def test_a_cohort_that_became_too_small_is_not_frozen(project: Project, kch: Database):
    await project.answered(DEMO_QUERY)
    await project.stage(1)
    async with connect(kch.app) as db:
        await db.execute(
            "INSERT INTO opt_out (person_id) SELECT unnest($1::bigint[])",
            [patient.person_id for patient in patients("KCH")],
        )
        try:
            await project.approve()
            assert (await project.cohort("refused"))["reason"] == "too-few-persons"
        finally:
            await db.execute("DELETE FROM opt_out")
    await project.approve()
    assert (await project.cohort("frozen"))["persons"] == 10


# --- looking ----------------------------------------------------------------------------------------------------------


def run(project_id: ProjectId, sql: str, digest: str) -> RunCohortQuery:
    return RunCohortQuery.model_validate(
        {
            "project_id": project_id,
            "query_version": 1,
            "query_digest": digest,
            "sql": sql,
            "imaging": False,
            "deadline": "2100-01-01T00:00:00Z",
        }
    )


async def send(project: Project, sql: str, *, digest: str) -> None:
    """Say to KCH what only a hub that has lost its senses would."""
    await project.hub.commands.say(run(project.id, sql, digest), trust="KCH")


async def reports(trust: Database, project: Project) -> list[TrustAnsweredQuery]:
    async with connect(trust.app) as db:
        return [report for report in await said(db, TrustAnsweredQuery) if report.project_id == project.id]


async def reported(trust: Database, project: Project) -> TrustAnsweredQuery:
    (report,) = await eventually(lambda: reports(trust, project))
    return report


async def has_frozen_twice(trust: Database, project: Project) -> bool:
    """Whether the Trust was asked to freeze a second time and has answered."""
    async with connect(trust.app) as db:
        told = await db.fetchval(
            "SELECT count(*) FROM event_log WHERE key = $1 AND type LIKE '%TrustFrozeCohort%'", str(project.id)
        )
        return told == 2


async def frozen_members(trust: Database, project: Project) -> list[tuple[int, str]]:
    async with connect(trust.owner) as db:
        rows = await db.fetch(
            "SELECT person_id, accession_id FROM frozen.cohort_member WHERE project_id = $1 ORDER BY 1", project.id
        )
    return [(row["person_id"], row["accession_id"]) for row in rows]


async def count_persons(omop: Omop) -> int:
    async with connect(omop.owner) as db:
        return await db.fetchval("SELECT count(*) FROM omop.person")
