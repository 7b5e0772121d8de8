"""Loads a Trust's synthetic records into its OMOP database: tables, rows, and the readers' rights, all or nothing."""

from collections.abc import Iterable
from importlib.resources import files

import psycopg
from omop_cdm.regular.cdm54 import Base
from psycopg import sql
from sqlalchemy import MetaData, create_mock_engine
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.schema import ExecutableDDLElement

from flip_local.data.records import SOURCE_NAME, Table, digest

SCHEMA = "omop"
READER = "omop_reader"
_VOCABULARY_TABLES = frozenset({"concept", "concept_class", "domain", "vocabulary"})
_LOADER_LOCK = 5_404_001
"""Key of the advisory lock that lets one loader in at a time."""


class ForeignSchemaError(RuntimeError):
    """The database holds an `omop` schema that was not made here; it is left alone."""


def load(dsn: str, tables: Iterable[Table]) -> bool:
    """Make the schema `omop` hold exactly `tables`; return whether anything changed.

    Connects as the owner of the database. The role `omop_reader` must exist; it gets SELECT on the schema's tables and
    nothing else. Records of another version, made by this loader, are replaced; `ForeignSchemaError` for any others.
    """
    tables = tuple(tables)
    version = digest(tables)
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOADER_LOCK])
        if _loaded_version(connection) == version:
            return False
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))
        _create_tables(connection)
        for table in tables:
            _copy(connection, table)
        connection.execute("UPDATE omop.cdm_source SET cdm_etl_reference = %s", [version])
        _let_read(connection)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ANALYZE")
    return True


def _loaded_version(connection: psycopg.Connection) -> str | None:
    """Version of the records that are there; None if the schema is not."""
    if connection.execute("SELECT to_regnamespace(%s)", [SCHEMA]).fetchone() == (None,):
        return None
    if connection.execute("SELECT to_regclass('omop.cdm_source')").fetchone() != (None,):
        found = connection.execute("SELECT cdm_source_name, cdm_etl_reference FROM omop.cdm_source").fetchall()
        if len(found) == 1 and found[0][0] == SOURCE_NAME:
            return found[0][1]
    raise ForeignSchemaError(f"schema {SCHEMA} of database {connection.info.dbname} was not made by this loader")


def _create_tables(connection: psycopg.Connection) -> None:
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))

    def execute(statement: ExecutableDDLElement, *_: object, **__: object) -> None:
        connection.execute(str(statement.compile(dialect=dialect)).encode())

    engine = create_mock_engine("postgresql+psycopg://", execute)
    dialect: Dialect = engine.dialect
    _cdm().create_all(engine, checkfirst=False)
    connection.execute((files("flip_local.data") / "radiology.sql").read_bytes())


def _cdm() -> MetaData:
    """OMOP CDM 5.4 in the schema `omop`."""
    cdm = MetaData()
    for table in Base.metadata.tables.values():
        table.to_metadata(cdm, schema=SCHEMA, referred_schema_fn=lambda *_: SCHEMA)
    for name in _VOCABULARY_TABLES:
        for constraint in cdm.tables[f"{SCHEMA}.{name}"].foreign_key_constraints:
            # these four refer to each other in a circle: no order of loading satisfies them row by row
            constraint.deferrable, constraint.initially = True, "DEFERRED"
    return cdm


def _copy(connection: psycopg.Connection, table: Table) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(SCHEMA, table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in table.rows:
            copy.write_row(row)


def _let_read(connection: psycopg.Connection) -> None:
    schema, reader = sql.Identifier(SCHEMA), sql.Identifier(READER)
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, reader))
    connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(schema, reader))
