"""Reads the text as a tree, and allows only nodes of kinds that a cohort query needs (COHORT-3)."""

import re
from collections.abc import Callable, Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError
from sqlglot.tokenizer_core import Token, TokenType

from flip_cohort.guard.refusal import allow, refuse
from flip_cohort.guard.words import DIALECT

_MAX_CONCATENATIONS = 8
_MAX_NODES = 4_000

_OPENING = frozenset({TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN})
_ONE_SELECT = "A cohort query is one SELECT; WITH, UNION, EXCEPT and INTERSECT are allowed."


def one_query(text: str, tokens: Sequence[Token]) -> exp.Query:
    """The tree of the one SELECT that the text is."""
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens = tokens[:-1]
    allow(bool(tokens), "query-empty", "Write a SELECT.")
    allow(tokens[0].token_type in _OPENING, "not-one-select", _ONE_SELECT)
    allow(all(t.token_type is not TokenType.SEMICOLON for t in tokens), "not-one-select", _ONE_SELECT)
    for token in tokens:
        if token.token_type is TokenType.COMMAND:
            refuse("construct-not-allowed", _ONE_SELECT, construct=token.text.lower())
    try:
        trees = sqlglot.parse(text, read=DIALECT)
    except ParseError as error:
        place = error.errors[0] if error.errors else {}
        refuse("query-unparsable", "This is not PostgreSQL's SELECT.", line=place.get("line"), column=place.get("col"))
    trees = [tree for tree in trees if tree is not None]
    allow(len(trees) == 1, "not-one-select", _ONE_SELECT)
    tree = trees[0]
    if not isinstance(tree, exp.Select | exp.SetOperation | exp.Subquery):
        refuse("not-one-select", _ONE_SELECT)
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


def check_nodes(query: exp.Query) -> None:
    """Refuse a tree with a node, a clause, a name or a literal that isn't allowed, or with too many nodes."""
    for nodes, node in enumerate(query.walk(), start=1):
        allow(nodes <= _MAX_NODES, "query-too-complex", f"A query has at most {_MAX_NODES} parts.")
        _check_kind(node)
        _check_clauses(node)
        check = _CHECKS.get(type(node))
        if check is not None:
            check(node)
    concatenations = sum(1 for _ in query.find_all(exp.DPipe))
    allow(
        concatenations <= _MAX_CONCATENATIONS,
        "query-too-complex",
        f"At most {_MAX_CONCATENATIONS} texts may be joined by ||.",
    )


def _check_kind(node: exp.Expr) -> None:
    if type(node) in _ALLOWED:
        return
    if isinstance(node, exp.Anonymous):
        name = str(node.name).lower()
        allow(name in _NAMED_FUNCTIONS, "function-not-allowed", f"{name} is not a function for cohorts.", function=name)
    elif isinstance(node, exp.Func):
        name = node.sql_name().lower()
        refuse("function-not-allowed", f"{name} is not a function for cohorts.", function=name)
    else:
        name = _spoken(node)
        refuse("construct-not-allowed", f"{name} has no place in a cohort query.", construct=name)


def _spoken(node: exp.Expr) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()


def _check_clauses(node: exp.Expr) -> None:
    allowed = _CLAUSES.get(type(node))
    if allowed is None:
        return
    for clause, value in node.args.items():
        if value and clause not in allowed:
            refuse(
                "construct-not-allowed",
                f"{clause} has no place here.",
                construct=f"{_spoken(node)}: {clause.strip('_')}",
            )


def _check_name(node: exp.Identifier) -> None:
    allow(
        _NAME.fullmatch(node.this) is not None,
        "construct-not-allowed",
        "A name has letters, digits and _.",
        construct="name",
    )


def _check_literal(node: exp.Literal) -> None:
    if not node.is_string:
        allow(
            _NUMBER.fullmatch(node.this) is not None,
            "construct-not-allowed",
            "A number has at most 15 digits.",
            construct="number",
        )


def _check_word(node: exp.Var) -> None:
    allow(_WORD.fullmatch(node.name) is not None, "construct-not-allowed", construct="word")


def _check_type(node: exp.DataType) -> None:
    allow(node.this in _TYPES, "type-not-allowed", "Cast to numbers, text, dates and times.", type=str(node.this))


def _check_join(node: exp.Join) -> None:
    allow(not node.args.get("method"), "construct-not-allowed", "Name the columns of a join.", construct="natural join")


def _check_limit(node: exp.Limit | exp.Offset) -> None:
    is_number = isinstance(node.expression, exp.Literal) and not node.expression.is_string
    allow(is_number, "construct-not-allowed", "LIMIT and OFFSET take a number.", construct="limit")


def _check_with(node: exp.With) -> None:
    is_top = node.parent is not None and node.parent.parent is None
    allow(is_top, "construct-not-allowed", "WITH stands at the head of the query.", construct="nested with")


def _check_table_alias(node: exp.TableAlias) -> None:
    renamed = node.args.get("columns") and not isinstance(node.parent, exp.Values)
    allow(not renamed, "construct-not-allowed", "Rename columns with AS.", construct="column list of an alias")


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
