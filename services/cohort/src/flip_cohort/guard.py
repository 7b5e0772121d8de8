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
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

import sqlglot
from flip_chassis.refusal import Invalid
from sqlglot import exp
from sqlglot.errors import OptimizeError, ParseError, TokenError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.qualify import qualify
from sqlglot.tokenizer_core import Token, TokenType

from flip_cohort.omop import COLUMNS, IDENTIFIERS, SCHEMA, is_categorical

DIALECT = "postgres"
MAX_CHARACTERS = 20_000
MAX_NESTING = 24
MAX_CONCATENATIONS = 8
MAX_NODES = 4_000

IMAGES_NEED_ACCESSION = (
    "The project uses images, and a Trust finds the images of a person in its PACS by accession number alone: "
    "select accession_id of omop.radiology_occurrence beside person_id."
)
PERSONS_ARE_COUNTED = "Answers are counts of distinct persons: select person_id."
BY_RECORDS = "Persons are chosen by what is recorded of them, not by their identifiers."


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
    tokens = _tokens(text)
    _refuse_restricted_words(tokens)
    _check_size(tokens)
    query = _one_query(text, tokens)
    _check_nodes(query)
    query = normalize_identifiers(query, dialect=DIALECT)
    _place_tables(query)
    _check_identifiers(query)
    resolved = _resolved(query)
    outputs = tuple(resolved.named_selects)
    _refuse_unless(outputs.count("person_id") == 1, "person-id-missing", PERSONS_ARE_COUNTED)
    if imaging:
        _refuse_unless(outputs.count("accession_id") == 1, "accession-id-missing", IMAGES_NEED_ACCESSION)
    return Admitted(_written(query), outputs, _categories(resolved, outputs))


def _refuse(code: str, detail: str = "", **facts: object) -> NoReturn:
    raise Invalid(code, detail, **facts)


def _refuse_unless(condition: bool, code: str, detail: str = "", **facts: object) -> None:
    if not condition:
        _refuse(code, detail, **facts)


# --- words ------------------------------------------------------------------------------------------------------------

RESTRICTED_STATEMENTS = frozenset(
    {("alter", what) for what in ("user", "table", "database")}
    | {("drop", what) for what in ("table", "user", "role", "database")}
    | {("create", "table")}
)
RESTRICTED_FUNCTIONS = frozenset({"substring"})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LITERALS = frozenset(
    {
        TokenType.STRING,
        TokenType.NATIONAL_STRING,
        TokenType.RAW_STRING,
        TokenType.HEREDOC_STRING,
        TokenType.UNICODE_STRING,
        TokenType.BYTE_STRING,
        TokenType.BIT_STRING,
        TokenType.HEX_STRING,
    }
)


def _tokens(text: str) -> list[Token]:
    _refuse_unless(bool(text.strip()), "query-empty", "Write a SELECT.")
    _refuse_unless(
        len(text) <= MAX_CHARACTERS,
        "query-too-long",
        f"A query has at most {MAX_CHARACTERS} characters.",
        characters=len(text),
    )
    _refuse_unless(not _CONTROL.search(text), "query-unparsable", "The text holds control characters.")
    try:
        return sqlglot.tokenize(text, read=DIALECT)
    except TokenError:
        _refuse("query-unparsable", "A quotation mark, a comment or a number is not complete.")


def _refuse_restricted_words(tokens: Sequence[Token]) -> None:
    """COHORT-2. Tokens hold no comments; literals are tokens of their own; a longer name is another token."""
    for token, after in pairwise(tokens):
        if token.token_type in _LITERALS:
            continue
        word, following = token.text.lower(), after.text.lower()
        if word in RESTRICTED_FUNCTIONS and after.token_type is TokenType.L_PAREN:
            _refuse("restricted-word", f"The function {word} may not be used.", word=word)
        quoted = TokenType.IDENTIFIER in (token.token_type, after.token_type) or after.token_type in _LITERALS
        if (word, following) in RESTRICTED_STATEMENTS and not quoted:
            _refuse("restricted-word", f"The words {word} {following} may not be used.", word=f"{word} {following}")


def _check_size(tokens: Sequence[Token]) -> None:
    """The parser recurses: what would nest too deep is refused by its tokens."""
    depth = 0
    for token in tokens:
        if token.token_type in (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE):
            depth += 1
            _refuse_unless(depth <= MAX_NESTING, "query-too-complex", f"At most {MAX_NESTING} levels may be nested.")
        elif token.token_type in (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END):
            depth -= 1


# --- the tree ---------------------------------------------------------------------------------------------------------

_OPENING = frozenset({TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN})
_ONE_SELECT = "A cohort query is one SELECT; WITH, UNION, EXCEPT and INTERSECT are allowed."


def _one_query(text: str, tokens: Sequence[Token]) -> exp.Query:
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens = tokens[:-1]
    _refuse_unless(bool(tokens), "query-empty", "Write a SELECT.")
    _refuse_unless(tokens[0].token_type in _OPENING, "not-one-select", _ONE_SELECT)
    _refuse_unless(all(t.token_type is not TokenType.SEMICOLON for t in tokens), "not-one-select", _ONE_SELECT)
    for token in tokens:
        if token.token_type is TokenType.COMMAND:
            _refuse("construct-not-allowed", _ONE_SELECT, construct=token.text.lower())
    try:
        trees = sqlglot.parse(text, read=DIALECT)
    except ParseError as error:
        place = error.errors[0] if error.errors else {}
        _refuse("query-unparsable", "This is not PostgreSQL's SELECT.", line=place.get("line"), column=place.get("col"))
    except RecursionError:
        _refuse("query-too-complex", "The query is nested too deep.")
    trees = [tree for tree in trees if tree is not None]
    _refuse_unless(len(trees) == 1, "not-one-select", _ONE_SELECT)
    tree = trees[0]
    if not isinstance(tree, exp.Select | exp.SetOperation | exp.Subquery):
        _refuse("not-one-select", _ONE_SELECT)
    return tree


_STRUCTURE: tuple[type[exp.Expr], ...] = (
    exp.Select, exp.Subquery, exp.With, exp.CTE, exp.Union, exp.Except, exp.Intersect, exp.From, exp.Join, exp.Where,
    exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Distinct, exp.Limit, exp.Offset, exp.Alias, exp.TableAlias,
    exp.Table, exp.Identifier, exp.Column, exp.Star, exp.Values, exp.Tuple, exp.Paren, exp.Window, exp.WindowSpec,
    exp.Filter, exp.WithinGroup,
)  # fmt: skip
_VALUES: tuple[type[exp.Expr], ...] = (
    exp.Literal, exp.Null, exp.Boolean, exp.Interval, exp.Var, exp.Cast, exp.DataType, exp.DataTypeParam, exp.Case,
    exp.If, exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ,
    exp.NullSafeNEQ, exp.Is,
    exp.In, exp.Between, exp.Like, exp.ILike, exp.Escape, exp.RegexpLike, exp.RegexpILike, exp.Exists,
    exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg, exp.DPipe,
)  # fmt: skip
_FUNCTIONS: tuple[type[exp.Expr], ...] = (
    exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Stddev, exp.StddevSamp, exp.StddevPop, exp.Variance,
    exp.VariancePop, exp.LogicalAnd, exp.LogicalOr, exp.PercentileCont, exp.PercentileDisc,
    exp.RowNumber, exp.Rank, exp.DenseRank, exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue,
    exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least, exp.Abs, exp.Round, exp.Floor, exp.Ceil, exp.Sign,
    exp.Lower, exp.Upper, exp.Trim, exp.Length,
    exp.CurrentDate, exp.CurrentTimestamp, exp.Extract, exp.TimestampTrunc, exp.StrToDate,
)  # fmt: skip
_ALLOWED = frozenset(_STRUCTURE + _VALUES + _FUNCTIONS)
_NAMED_FUNCTIONS = frozenset({"age", "make_date"})
_TYPES = frozenset(
    {
        exp.DType.BOOLEAN, exp.DType.SMALLINT, exp.DType.INT, exp.DType.BIGINT, exp.DType.DECIMAL, exp.DType.FLOAT,
        exp.DType.DOUBLE, exp.DType.VARCHAR, exp.DType.CHAR, exp.DType.TEXT, exp.DType.DATE, exp.DType.TIMESTAMP,
        exp.DType.TIMESTAMPTZ, exp.DType.INTERVAL,
    }
)  # fmt: skip
_CLAUSES: dict[type[exp.Expr], frozenset[str]] = {
    exp.Select: frozenset(
        {"with_", "expressions", "distinct", "from_", "joins", "where", "group", "having", "order", "limit", "offset"}
    ),
    exp.Table: frozenset({"this", "db", "catalog", "alias"}),
    exp.Join: frozenset({"this", "side", "kind", "on", "using", "method"}),
    exp.Subquery: frozenset({"this", "alias", "order", "limit", "offset"}),
    exp.CTE: frozenset({"this", "alias", "materialized"}),
    exp.With: frozenset({"expressions"}),
    exp.Group: frozenset({"expressions"}),
    exp.Column: frozenset({"this", "table", "db"}),
    exp.DataType: frozenset({"this", "expressions", "nested"}),
    exp.Cast: frozenset({"this", "to"}),
    exp.Limit: frozenset({"expression"}),
    exp.In: frozenset({"this", "expressions", "query"}),
}
"""The clauses of the nodes that have more than FLIP allows. A clause that is not named here must be absent."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_NUMBER = re.compile(r"\d{1,15}(\.\d{0,15})?|\.\d{1,15}")
_WORD = re.compile(r"[A-Za-z][A-Za-z ]*")


def _check_nodes(query: exp.Query) -> None:
    for nodes, node in enumerate(query.walk(), start=1):
        _refuse_unless(nodes <= MAX_NODES, "query-too-complex", f"A query has at most {MAX_NODES} parts.")
        _check_kind(node)
        _check_clauses(node)
        check = _CHECKS.get(type(node))
        if check is not None:
            check(node)
    concatenations = sum(1 for _ in query.find_all(exp.DPipe))
    _refuse_unless(
        concatenations <= MAX_CONCATENATIONS,
        "query-too-complex",
        f"At most {MAX_CONCATENATIONS} texts may be joined by ||.",
    )


def _check_kind(node: exp.Expr) -> None:
    if type(node) in _ALLOWED:
        return
    if isinstance(node, exp.Anonymous):
        name = str(node.name).lower()
        _refuse_unless(
            name in _NAMED_FUNCTIONS, "function-not-allowed", f"{name} is not a function for cohorts.", function=name
        )
    elif isinstance(node, exp.Func):
        name = node.sql_name().lower()
        _refuse("function-not-allowed", f"{name} is not a function for cohorts.", function=name)
    else:
        name = _spoken(node)
        _refuse("construct-not-allowed", f"{name} has no place in a cohort query.", construct=name)


def _spoken(node: exp.Expr) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()


def _check_clauses(node: exp.Expr) -> None:
    allowed = _CLAUSES.get(type(node))
    if allowed is None:
        return
    for clause, value in node.args.items():
        if value and clause not in allowed:
            _refuse(
                "construct-not-allowed",
                f"{clause} has no place here.",
                construct=f"{_spoken(node)}: {clause.strip('_')}",
            )


def _check_name(node: exp.Identifier) -> None:
    _refuse_unless(
        _NAME.fullmatch(node.this) is not None,
        "construct-not-allowed",
        "A name has letters, digits and _.",
        construct="name",
    )


def _check_literal(node: exp.Literal) -> None:
    if not node.is_string:
        _refuse_unless(
            _NUMBER.fullmatch(node.this) is not None,
            "construct-not-allowed",
            "A number has at most 15 digits.",
            construct="number",
        )


def _check_word(node: exp.Var) -> None:
    _refuse_unless(_WORD.fullmatch(node.name) is not None, "construct-not-allowed", construct="word")


def _check_type(node: exp.DataType) -> None:
    _refuse_unless(
        node.this in _TYPES, "type-not-allowed", "Cast to numbers, text, dates and times.", type=str(node.this)
    )


def _check_join(node: exp.Join) -> None:
    _refuse_unless(
        not node.args.get("method"), "construct-not-allowed", "Name the columns of a join.", construct="natural join"
    )


def _check_limit(node: exp.Limit | exp.Offset) -> None:
    is_number = isinstance(node.expression, exp.Literal) and not node.expression.is_string
    _refuse_unless(is_number, "construct-not-allowed", "LIMIT and OFFSET take a number.", construct="limit")


def _check_with(node: exp.With) -> None:
    is_top = node.parent is not None and node.parent.parent is None
    _refuse_unless(is_top, "construct-not-allowed", "WITH stands at the head of the query.", construct="nested with")


def _check_table_alias(node: exp.TableAlias) -> None:
    renamed = node.args.get("columns") and not isinstance(node.parent, exp.Values)
    _refuse_unless(not renamed, "construct-not-allowed", "Rename columns with AS.", construct="column list of an alias")


_CHECKS: dict[type[exp.Expr], Callable[..., None]] = {
    exp.Identifier: _check_name,
    exp.Literal: _check_literal,
    exp.Var: _check_word,
    exp.DataType: _check_type,
    exp.Join: _check_join,
    exp.Limit: _check_limit,
    exp.Offset: _check_limit,
    exp.With: _check_with,
    exp.TableAlias: _check_table_alias,
}


# --- names ------------------------------------------------------------------------------------------------------------


def _place_tables(query: exp.Query) -> None:
    """Give every table its schema. A name without one is a CTE that stands before it, or a table of OMOP."""
    ctes = [cte for with_ in query.find_all(exp.With) for cte in with_.expressions]
    names = [cte.alias for cte in ctes]
    for name in names:
        usable = name not in COLUMNS and names.count(name) == 1
        _refuse_unless(usable, "table-not-allowed", f"{name} is already the name of a table.", table=name)
    for table in query.find_all(exp.Table):
        own = next((i for i, cte in enumerate(ctes) if _inside(table, cte)), len(ctes))
        _place(table, known=names[:own])


def _inside(node: exp.Expr, ancestor: exp.Expr) -> bool:
    parent = node.parent
    while parent is not None and parent is not ancestor:
        parent = parent.parent
    return parent is ancestor


def _place(table: exp.Table, known: Iterable[str]) -> None:
    _refuse_unless(
        isinstance(table.this, exp.Identifier),
        "construct-not-allowed",
        "Rows come from tables.",
        construct="function as a table",
    )
    if not table.db and not table.catalog and table.name in known:
        return
    schema = ".".join(part for part in (table.catalog, table.db) if part) or SCHEMA
    _refuse_unless(schema == SCHEMA, "schema-not-allowed", f"Only tables of {SCHEMA} may be read.", schema=schema)
    _refuse_unless(table.name in COLUMNS, "table-not-allowed", "There is no such table for cohorts.", table=table.name)
    table.set("db", exp.to_identifier(SCHEMA))


def _resolved(query: exp.Query) -> exp.Query:
    """A copy of the query with every column resolved against the tables' columns, and every star written out."""
    schema: dict[str, object] = {
        SCHEMA: {table: dict.fromkeys(columns, "unknown") for table, columns in COLUMNS.items()}
    }
    try:
        resolved = qualify(query.copy(), dialect=DIALECT, schema=schema, expand_alias_refs=False)
    except OptimizeError as error:
        named = re.findall(r"'([A-Za-z0-9_]+)'", str(error))
        _refuse(
            "column-not-offered", "No table of the query offers such a column, or two do.", columns=sorted(set(named))
        )
    except RecursionError:
        _refuse("query-too-complex", "The query is nested too deep.")
    _refuse_unless(resolved.find(exp.TableColumn) is None, "column-not-offered", "Name a column, not a whole row.")
    _check_set_operations(resolved)
    return resolved


def _categories(resolved: exp.Query, outputs: Sequence[str]) -> dict[str, str]:
    """Every output that is one column with few codes, whatever it is called; in set operations, under its own name."""
    query = resolved.unnest()
    named = {name: name for name in outputs}
    if isinstance(query, exp.Select):
        named = {e.alias_or_name: column for e in query.selects if (column := _names(e.unalias())) is not None}
    return {name: column for name, column in named.items() if is_categorical(column) and outputs.count(name) == 1}


def _check_set_operations(resolved: exp.Query) -> None:
    """The parts of a UNION agree by position: an identifier must meet itself there."""
    for operation in resolved.find_all(exp.SetOperation):
        left, right = operation.left.named_selects, operation.right.named_selects
        _refuse_unless(
            len(left) == len(right), "construct-not-allowed", "The parts select as many columns.", construct="union"
        )
        for one, other in zip(left, right, strict=True):
            agree = one == other or not {one, other} & (IDENTIFIERS | {c for c in (one, other) if is_categorical(c)})
            _refuse_unless(agree, "identifier-misused", "The parts of a set operation must align.", column=one)


# --- identifiers ------------------------------------------------------------------------------------------------------


def _check_identifiers(query: exp.Query) -> None:
    for alias in query.find_all(exp.Alias):
        _check_alias(alias)
    for columns in _alias_columns(query):
        _refuse_unless(not _reserved(columns), "identifier-misused", BY_RECORDS, column=columns)
    for column in query.find_all(exp.Column):
        if column.name in IDENTIFIERS:
            used = _is_plain(column)
            _refuse_unless(used, "identifier-misused", BY_RECORDS, column=column.name)
    for select in query.find_all(exp.Select):
        _check_operand(select)


def _reserved(name: str) -> bool:
    """Names that always mean the column of the OMOP table."""
    return name in IDENTIFIERS or is_categorical(name)


def _check_alias(alias: exp.Alias) -> None:
    source = alias.this.name if isinstance(alias.this, exp.Column) else None
    renames = source in IDENTIFIERS and alias.alias != source
    poses = _reserved(alias.alias) and alias.alias != source
    _refuse_unless(not renames, "identifier-misused", "An identifier keeps its name.", column=source)
    _refuse_unless(not poses, "identifier-misused", "This name stands for the column alone.", column=alias.alias)


def _alias_columns(query: exp.Query) -> Iterator[str]:
    for alias in query.find_all(exp.TableAlias):
        yield from (column.name for column in alias.args.get("columns") or [])


def _is_plain(column: exp.Column) -> bool:
    """Whether an identifier is only selected, joined to itself, counted, grouped or ordered by."""
    user, inner = _user(column)
    match user:
        case exp.EQ() | exp.NullSafeEQ():
            return _names(user.left) == _names(user.right) == column.name
        case exp.In():
            query = user.args.get("query")
            return inner is user.this and query is not None
        case exp.Select() | exp.Alias() | exp.Group() | exp.Ordered() | exp.Count() | exp.Is():
            return True
        case exp.Distinct() | exp.Tuple():
            return isinstance(user.find_ancestor(exp.Select, exp.Values, exp.EQ, exp.In, exp.Is), exp.Select)
        case exp.Window():
            return any(inner is part for part in user.args.get("partition_by") or [])
    return False


def _user(node: exp.Expr) -> tuple[exp.Expr | None, exp.Expr]:
    """The node that uses `node`, and what it sees of it, past parentheses."""
    while isinstance(node.parent, exp.Paren):
        node = node.parent
    return node.parent, node


def _names(node: exp.Expr) -> str | None:
    bare = node.unnest()
    return bare.name if isinstance(bare, exp.Column) else None


def _check_operand(select: exp.Select) -> None:
    """A subquery used as a value may not be one of identifiers; behind IN it must give the identifier on the left."""
    place = select.parent
    while isinstance(place, exp.Subquery | exp.SetOperation | exp.Paren):
        if isinstance(place.parent, exp.From | exp.Join | exp.CTE | None):
            return
        place = place.parent
    if place is None or isinstance(place, exp.CTE | exp.Exists):
        return
    given = [_names(e.unalias()) for e in select.expressions]
    wanted = _names(place.this) if isinstance(place, exp.In) else None
    if wanted not in IDENTIFIERS:
        wanted = None
    stars = any(e.is_star and not isinstance(e, exp.Count) for e in select.expressions)
    _refuse_unless(not stars, "construct-not-allowed", "Name the column of this subquery.", construct="star")
    if wanted is not None or any(name in IDENTIFIERS for name in given):
        _refuse_unless(given == [wanted], "identifier-misused", BY_RECORDS, column=wanted or given[0])


# --- writing ----------------------------------------------------------------------------------------------------------


def _written(query: exp.Query) -> str:
    """The tree as PostgreSQL text, every name quoted, no comment kept. Reading it must give the same tree."""
    sql = query.sql(dialect=DIALECT, identify=True, comments=False)
    again = sqlglot.parse(sql, read=DIALECT)
    same = (
        len(again) == 1 and again[0] is not None and again[0].sql(dialect=DIALECT, identify=True, comments=False) == sql
    )
    _refuse_unless(same, "query-unparsable", "The query can't be written anew without a change.")
    return sql
