"""Ties every name to a table or column of OMOP that may be read (COHORT-3)."""

import re
from collections.abc import Iterable, Sequence

from sqlglot import exp
from sqlglot.errors import OptimizeError
from sqlglot.optimizer.qualify import qualify

from flip_cohort.guard.identifiers import check_set_operations, column_name
from flip_cohort.guard.refusal import allow, refuse
from flip_cohort.guard.words import DIALECT
from flip_cohort.omop import COLUMNS, SCHEMA, is_categorical


def place_tables(query: exp.Query) -> None:
    """Give every table its schema. A name without one is a CTE that stands before it, or a table of OMOP."""
    ctes = [cte for with_ in query.find_all(exp.With) for cte in with_.expressions]
    names = [cte.alias for cte in ctes]
    for name in names:
        usable = name not in COLUMNS and names.count(name) == 1
        allow(usable, "table-not-allowed", f"{name} is already the name of a table.", table=name)
    for table in query.find_all(exp.Table):
        own = next((i for i, cte in enumerate(ctes) if _inside(table, cte)), len(ctes))
        _place(table, known=names[:own])


def _inside(node: exp.Expr, ancestor: exp.Expr) -> bool:
    parent = node.parent
    while parent is not None and parent is not ancestor:
        parent = parent.parent
    return parent is ancestor


def _place(table: exp.Table, known: Iterable[str]) -> None:
    allow(
        isinstance(table.this, exp.Identifier),
        "construct-not-allowed",
        "Rows come from tables.",
        construct="function as a table",
    )
    if not table.db and not table.catalog and table.name in known:
        return
    schema = ".".join(part for part in (table.catalog, table.db) if part) or SCHEMA
    allow(schema == SCHEMA, "schema-not-allowed", f"Only tables of {SCHEMA} may be read.", schema=schema)
    allow(table.name in COLUMNS, "table-not-allowed", "There is no such table for cohorts.", table=table.name)
    table.set("db", exp.to_identifier(SCHEMA))


def resolve(query: exp.Query) -> exp.Query:
    """A copy of the query with every column resolved against the tables' columns, and every star written out."""
    schema: dict[str, object] = {
        SCHEMA: {table: dict.fromkeys(columns, "unknown") for table, columns in COLUMNS.items()}
    }
    try:
        resolved = qualify(query.copy(), dialect=DIALECT, schema=schema, expand_alias_refs=False)
    except OptimizeError as error:
        named = re.findall(r"'([A-Za-z0-9_]+)'", str(error))
        refuse(
            "column-not-offered", "No table of the query offers such a column, or two do.", columns=sorted(set(named))
        )
    allow(resolved.find(exp.TableColumn) is None, "column-not-offered", "Name a column, not a whole row.")
    check_set_operations(resolved)
    return resolved


def categories(resolved: exp.Query, outputs: Sequence[str]) -> dict[str, str]:
    """Every output that is one column with few codes, whatever it is called; in set operations, under its own name."""
    query = resolved.unnest()
    named = {name: name for name in outputs}
    if isinstance(query, exp.Select):
        named = {e.alias_or_name: column for e in query.selects if (column := column_name(e.unalias())) is not None}
    return {name: column for name, column in named.items() if is_categorical(column) and outputs.count(name) == 1}
