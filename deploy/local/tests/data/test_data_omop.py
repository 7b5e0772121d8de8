"""The synthetic OMOP databases: what researchers find in them, who may read them, and that loading can be repeated."""

from typing import Any

import psycopg
import pytest
from flip_local.data import omop, queries
from flip_local.data.people import Study, patients
from flip_local.data.records import Table, digest, records
from psycopg.rows import dict_row

TRUSTS = ("KCH", "UCLH")
DISCLOSURE_THRESHOLD = 10


def records_of(trust: str) -> tuple[Table, ...]:
    return records(trust, (Study(p.accession, "1.2.3", "1.2.3.4", (), (28, 43, 35)) for p in patients(trust)))


def test_the_records_are_the_same_each_time_and_differ_between_trusts():
    assert digest(records_of("KCH")) == digest(records_of("KCH"))
    assert digest(records_of("KCH")) != digest(records_of("UCLH"))


@pytest.mark.parametrize("trust", TRUSTS)
def test_a_trust_has_some_hundreds_of_persons_with_a_history(trust: str):
    rows = {table.name: len(table.rows) for table in records_of(trust)}
    assert 300 <= rows["person"] <= 400
    for table in ("visit_occurrence", "condition_occurrence", "drug_exposure", "measurement", "radiology_occurrence"):
        assert rows[table] > 200


@pytest.fixture
def owner(omop_databases) -> str:
    """The owner's DSN of an empty database."""
    return omop_databases.owner(omop_databases.new())


@pytest.fixture(scope="module")
def loaded(omop_databases) -> dict[str, str]:
    """The reader's DSN of each Trust's loaded database."""
    readers: dict[str, str] = {}
    for trust in TRUSTS:
        name = omop_databases.new()
        assert omop.load(omop_databases.owner(name), records_of(trust))
        readers[trust] = omop_databases.reader(name)
    return readers


@pytest.mark.parts
@pytest.mark.parametrize("trust", TRUSTS)
def test_the_demo_query_finds_exactly_the_training_patients(loaded: dict[str, str], trust: str):
    found = answer(loaded[trust], queries.DEMO_QUERY)
    training = [patient for patient in patients(trust) if not patient.held_out]
    assert {(row["person_id"], row["accession_id"]) for row in found} == {(p.person_id, p.accession) for p in training}
    assert len(found) == 12
    for row, patient in zip(found, sorted(training, key=lambda p: p.person_id), strict=True):
        assert row["sex"][0] == patient.sex
        assert row["year_of_birth"] == patient.birth_date.year
        assert row["manufacturer"] == patient.hospital.manufacturer


@pytest.mark.parts
@pytest.mark.parametrize("trust", TRUSTS)
def test_other_queries_lie_above_and_below_the_disclosure_threshold(loaded: dict[str, str], trust: str):
    def persons(query: str) -> int:
        return len({row["person_id"] for row in answer(loaded[trust], query)})

    assert persons(queries.LARGE_QUERY) == 64
    assert persons(queries.SMALL_QUERY) == 6 < DISCLOSURE_THRESHOLD
    assert persons(queries.EMPTY_QUERY) == 0


@pytest.mark.parts
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO omop.concept_class VALUES ('x', 'x', 0)",
        "UPDATE omop.person SET year_of_birth = 1900",
        "DELETE FROM omop.radiology_image",
        "CREATE TABLE omop.mine (id integer)",
        "DROP TABLE omop.person",
    ],
)
def test_the_reader_may_read_and_nothing_else(loaded: dict[str, str], statement: str):
    with psycopg.connect(loaded["KCH"]) as connection:
        connection.execute("SET TRANSACTION READ WRITE")  # the role's default is read-only: its rights must hold alone
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


@pytest.mark.parts
def test_the_reader_sees_every_table(loaded: dict[str, str]):
    with psycopg.connect(loaded["KCH"]) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'omop'").fetchall()
        assert len(tables) == 41
        for (name,) in tables:
            connection.execute(f"SELECT count(*) FROM omop.{name}".encode())


@pytest.mark.parts
def test_loading_again_changes_nothing(owner: str):
    omop.load(owner, records_of("KCH"))
    before = physical_rows(owner)
    assert omop.load(owner, records_of("KCH")) is False
    assert physical_rows(owner) == before


@pytest.mark.parts
def test_records_of_another_version_are_replaced(owner: str):
    omop.load(owner, records_of("KCH"))
    assert omop.load(owner, records_of("UCLH")) is True
    assert {row["accession_id"][:4] for row in answer(owner, queries.DEMO_QUERY)} == {"UCLH"}


@pytest.mark.parts
@pytest.mark.parametrize("foreign", ["CREATE TABLE omop.person (id integer)", "SELECT 1"])
def test_a_schema_made_by_somebody_else_is_left_alone(owner: str, foreign: str):
    with psycopg.connect(owner) as connection:
        connection.execute("CREATE SCHEMA omop")
        connection.execute(foreign.encode())
    before = tables_of(owner)
    with pytest.raises(omop.ForeignSchemaError, match="schema omop of database omop_"):
        omop.load(owner, records_of("KCH"))
    assert tables_of(owner) == before


@pytest.mark.parts
def test_a_load_that_fails_leaves_nothing_behind(owner: str):
    broken = Table("person", ("person_id",), ((1,),))
    with pytest.raises(psycopg.errors.NotNullViolation):
        omop.load(owner, (*records_of("KCH"), broken))
    assert tables_of(owner) == set()
    assert omop.load(owner, records_of("KCH")) is True


def answer(dsn: str, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(dsn) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query.encode()).fetchall()
    return sorted(rows, key=lambda row: row["person_id"])


def tables_of(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'omop'").fetchall()
    return {name for (name,) in rows}


def physical_rows(dsn: str) -> list[tuple[object, ...]]:
    """Every person row with the transaction that wrote it, and the identity of its table."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT tableoid, xmin, ctid, person_id FROM omop.person ORDER BY person_id"
        ).fetchall()
