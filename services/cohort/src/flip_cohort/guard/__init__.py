"""The one gate for the text of a cohort query: what passes is a read of the OMOP tables, written anew from its tree.

The text is hostile. Nothing of it reaches the database: it is parsed, each node of the tree must be of a kind that is
allowed here, each name must be known, and what is run is generated from the tree. What isn't allowed is refused, known
to be harmful or not.

Three rules keep the persons that are counted real, and one person from being singled out:

* `person_id` and `accession_id` are those columns of an OMOP table, never an expression under that name;
* an identifier is joined to itself, grouped by or counted, never compared with a constant, computed with or renamed;
* what could blow up in memory (repeating, padding, joining text over rows) is left out.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

from flip_cohort.guard.identifiers import check_identifiers
from flip_cohort.guard.names import categories, place_tables, resolve
from flip_cohort.guard.refusal import allow, refuse
from flip_cohort.guard.tree import check_nodes, one_query
from flip_cohort.guard.words import DIALECT, MAX_CHARACTERS, check_size, refuse_restricted_words, tokens_of

__all__ = ["IMAGES_NEED_ACCESSION", "MAX_CHARACTERS", "Admitted", "admit", "digest"]

IMAGES_NEED_ACCESSION = (
    "The project uses images, and a Trust finds the images of a person in its PACS by accession number alone: "
    "select accession_id of omop.radiology_occurrence beside person_id."
)
_PERSONS_ARE_COUNTED = "Answers are counts of distinct persons: select person_id."


@dataclass(frozen=True, slots=True)
class Admitted:
    """A query that may be run.

    `sql` is written anew from the tree; `columns` are its outputs in order; `categories` gives, by the name of an
    output, the OMOP column that it simply is, for those with few codes.
    """

    sql: str
    columns: tuple[str, ...]
    categories: Mapping[str, str]


def digest(text: str) -> str:
    """SHA-256 of a query's text as it was written, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def admit(text: str, *, imaging: bool) -> Admitted:
    """The query as it may be run, or a refusal that says what is not allowed and where.

    Raises `Invalid` with one of the codes restricted-word, query-empty, query-too-long, query-unparsable,
    query-too-complex, not-one-select, construct-not-allowed, function-not-allowed, type-not-allowed,
    schema-not-allowed, table-not-allowed, column-not-offered, identifier-misused, person-id-missing,
    accession-id-missing.
    """
    try:
        return _admit(text, imaging=imaging)
    except RecursionError:
        refuse("query-too-complex", "The query is nested too deep.")
    except SqlglotError:
        refuse("query-unparsable", "This is not PostgreSQL's SELECT.")


def _admit(text: str, *, imaging: bool) -> Admitted:
    tokens = tokens_of(text)
    refuse_restricted_words(tokens)
    check_size(tokens)
    query = one_query(text, tokens)
    check_nodes(query)
    query = normalize_identifiers(query, dialect=DIALECT)
    place_tables(query)
    check_identifiers(query)
    resolved = resolve(query)
    outputs = tuple(resolved.named_selects)
    allow(outputs.count("person_id") == 1, "person-id-missing", _PERSONS_ARE_COUNTED)
    if imaging:
        allow(outputs.count("accession_id") == 1, "accession-id-missing", IMAGES_NEED_ACCESSION)
    return Admitted(_written(query), outputs, categories(resolved, outputs))


def _written(query: exp.Query) -> str:
    """The tree as PostgreSQL text, every name quoted, no comment kept. Reading it must give the same tree."""
    sql = query.sql(dialect=DIALECT, identify=True, comments=False)
    again = sqlglot.parse(sql, read=DIALECT)
    same = (
        len(again) == 1 and again[0] is not None and again[0].sql(dialect=DIALECT, identify=True, comments=False) == sql
    )
    allow(same, "query-unparsable", "The query can't be written anew without a change.")
    return sql
